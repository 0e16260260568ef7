// Width: parameters, bytes and the picture of a block follow the sliders at once, from what is known of the model's shape.
"use strict";

(({views, fill, size, element, part, theme, redraw}) => {
  const ls = window.layerscope;
  const AXES = ["heads", "neurons", "channels"];

  const count = (terms, sizes) => terms.reduce((sum, [axes, often]) => sum + often * axes.reduce((product, axis) => product * sizes[axis], 1), 0);
  const shapeOf = (data, asked) => {
    const {shape} = data, grouped = shape.groups < shape.heads, heads = asked.heads ?? shape.heads;
    return {heads, groups: grouped ? shape.groups : heads, neurons: asked.neurons ?? shape.neurons, channels: asked.channels ?? shape.channels, head_dim: shape.head_dim};
  };
  const sizesOf = (s) => ({query: s.heads * s.head_dim, key: s.groups * s.head_dim, neuron: s.neurons, channel: s.channels});

  const picture = (box, data, shape, words, width) => {
    const t = theme(), whole = data.shape, full = Math.min(width - 4, 560), most = Math.max(whole.neurons, whole.heads * whole.head_dim, whole.channels);
    const bar = (y, all, left, unit, label) => {
      const wide = (full * all * unit) / most, kept = (full * left * unit) / most;
      return `<text x="2" y="${y - 5}" font-size="12" fill="${t.text}">${label}</text><rect x="2" y="${y}" width="${wide}" height="22" rx="3" fill="none" stroke="${t.faint}" stroke-dasharray="3 2"/><rect x="2" y="${y}" width="${kept}" height="22" rx="3" fill="${left < all ? t.fold : t.kept}"/>`;
    };
    const attention = fill(words.width_attention, {count: shape.heads, all: whole.heads}), mlp = fill(words.width_mlp, {count: shape.neurons, all: whole.neurons});
    const stream = fill(words.width_stream, {count: shape.channels, all: whole.channels});
    box.innerHTML = `<svg width="${full + 4}" height="150" role="img" aria-label="${words.width_picture}">${bar(20, whole.heads, shape.heads, whole.head_dim, attention)}${bar(68, whole.neurons, shape.neurons, 1, mlp)}${bar(116, whole.channels, shape.channels, 1, stream)}</svg>`;
  };

  // Why a stock class would not load such a shape, in words; "" where it would.
  const refused = (data, shape, words) => {
    if (!data.divides || shape.channels % shape.heads === 0) return "";
    const nearest = Math.max(shape.heads, shape.heads * Math.round(shape.channels / shape.heads));
    return fill(words.width_illegal, {family: data.family, heads: shape.heads, nearest: Math.min(nearest, data.shape.channels)});
  };

  views.widths = (box, {data, value, words, width}) => {
    const asked = ls.widths = Object.fromEntries(AXES.filter((axis) => value[axis] && value[axis] < data.shape[axis]).map((axis) => [axis, value[axis]]));
    redraw("importance");
    const shape = shapeOf(data, asked), depth = ls.shown?.depth ?? data.shape.depth, sizes = sizesOf(shape);
    const parameters = count(data.outer, sizes) + depth * count(data.block, sizes), kv = 2 * 4096 * shape.groups * shape.head_dim * depth * data.unit;
    const figure = (text, label) => { const item = element("div", {class: "ls-figure"}); item.append(element("b", {}, text), element("span", {}, label)); return item; };
    const row = part(box, "ls-figures"), said = part(box, "ls-says");
    row.replaceChildren(
      figure(`${(parameters / 1e6).toFixed(1)} M`, fill(words.parameters, {share: Math.round((100 * parameters) / data.parameters)})),
      figure(size(parameters * data.unit), fill(words.weight_of, {dtype: data.dtype})), figure(size(kv), words.width_kv));
    const why = refused(data, shape, words), fixed = Object.entries(data.fixed).map(([axis, reason]) => fill(words.width_fixed, {axis: words[`width_${axis}`], reason}));
    said.replaceChildren(...[why || (AXES.some((axis) => axis in asked) ? "" : words.width_nothing), ...fixed].filter(Boolean).map((text) => element("p", {class: text === why ? "ls-warning" : "ls-hint"}, text)));
    document.getElementById("trim-button")?.toggleAttribute("disabled", Boolean(why) || !Object.keys(asked).length);
    picture(part(box, "ls-picture"), data, shape, words, width);
  };
})(window.layerscope);
