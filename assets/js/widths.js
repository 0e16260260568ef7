// Width: parameters, bytes and the picture of a block follow the sliders, and the neurons follow a target, from the model's
// shape, without the server.
"use strict";

(({views, fill, size, element, part, theme, redraw}) => {
  const ls = window.layerscope;
  const AXES = ["heads", "neurons", "channels"], CONTEXT = 4096; // tokens in the KV cache

  const count = (terms, sizes) => terms.reduce((sum, [axes, often]) => sum + often * axes.reduce((product, axis) => product * sizes[axis], 1), 0);
  const shapeOf = (data, asked) => {
    const {shape} = data, grouped = shape.groups < shape.heads, heads = asked.heads ?? shape.heads;
    return {heads, groups: grouped ? shape.groups : heads, neurons: asked.neurons ?? shape.neurons, channels: asked.channels ?? shape.channels, head_dim: shape.head_dim};
  };
  const sizesOf = (s) => ({query: s.heads * s.head_dim, key: s.groups * s.head_dim, neuron: s.neurons, channel: s.channels});

  // A shape's parameters, bytes and KV cache at a depth; and what each target counts of them, in the page's words.
  const weight = (data, shape, depth) => {
    const sizes = sizesOf(shape), parameters = count(data.outer, sizes) + depth * count(data.block, sizes);
    return {parameters, bytes: parameters * data.unit, kv: 2 * CONTEXT * shape.groups * shape.head_dim * depth * data.unit};
  };
  const million = (parameters) => `${Number((parameters / 1e6).toPrecision(4))} M`;
  const TARGETS = {
    parameters: {of: ({parameters}) => parameters, say: (amount, words) => fill(words.width_parameters, {count: million(amount)})},
    bytes: {of: ({bytes}) => bytes, say: size},
    memory: {of: ({bytes, kv}) => bytes + kv, say: size},
  };

  // The most neurons per layer for which a plan of these heads, channels and layers stays within `millions` of the target's unit;
  // 0 if one neuron exceeds it. `kept_for` of engine/methods/width/widths.py does the same in the terminal.
  ls.neuronsFor = (data, asked, depth, by, millions) => {
    const of = (neurons) => TARGETS[by].of(weight(data, shapeOf(data, {...asked, neurons}), depth)), least = of(1);
    return Math.max(0, Math.min(data.shape.neurons, Math.floor((1e6 * millions - least) / (of(2) - least)) + 1));
  };
  const depthOf = (data) => ls.shown?.depth ?? data.shape.depth;
  const askedOf = (data, value) => Object.fromEntries(AXES.filter((axis) => value[axis] && value[axis] < data.shape[axis]).map((axis) => [axis, value[axis]]));

  // The sliders' size by a target's measure, in millions: the target's initial value. Rounded up, so that the sliders meet it.
  ls.weighs = (by) => {
    const {data, value} = ls.knows("widths");
    if (!data || !TARGETS[by]) return null;
    const millions = TARGETS[by].of(weight(data, shapeOf(data, askedOf(data, value)), depthOf(data))) / 1e6, digit = 10 ** (Math.floor(Math.log10(millions)) - 3);
    return Number((Math.ceil(millions / digit) * digit).toPrecision(4));
  };

  // Moves the neurons slider to meet the target; returns the message, and whether the target is met.
  const meet = (data, asked, {by, amount, neurons}, words, trigger) => {
    if (!TARGETS[by]) return {met: true};
    if (!(amount > 0)) return {met: false, said: words.width_no_amount};
    const {say, of} = TARGETS[by], most = ls.neuronsFor(data, asked, depthOf(data), by, amount), target = say(1e6 * amount, words);
    if (!most) return {met: false, said: fill(words.width_unmet, {target, least: say(of(weight(data, shapeOf(data, {...asked, neurons: 1}), depthOf(data))), words)})};
    if (most !== neurons) { ls.met = most; trigger("take", {}); }
    return {met: true, neurons: most, said: fill(words.width_met, {target, count: most, all: data.shape.neurons})};
  };

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

  // Why a stock class could not load such a shape, in words; "" if it could.
  const refused = (data, shape, words) => {
    if (AXES.some((axis) => !Number.isInteger(shape[axis]))) return words.width_whole_numbers;
    if (shape.heads % data.groups_of) return fill(words.width_uneven, {groups: data.groups_of});
    if (!data.divides || shape.channels % shape.heads === 0) return "";
    const nearest = Math.max(shape.heads, shape.heads * Math.round(shape.channels / shape.heads));
    return fill(words.width_illegal, {family: data.family, heads: shape.heads, nearest: Math.min(nearest, data.shape.channels)});
  };

  views.widths = (box, {data, value, words, width, trigger}) => {
    const goal = meet(data, askedOf(data, value), value, words, trigger), asked = ls.widths = askedOf(data, {...value, neurons: goal.neurons ?? value.neurons});
    redraw("importance");
    const shape = shapeOf(data, asked), {parameters, bytes, kv} = weight(data, shape, depthOf(data));
    const figure = (text, label) => { const item = element("div", {class: "ls-figure"}); item.append(element("b", {}, text), element("span", {}, label)); return item; };
    const row = part(box, "ls-figures"), said = part(box, "ls-says");
    row.replaceChildren(
      figure(million(parameters), fill(words.parameters, {share: Math.round((100 * parameters) / data.parameters)})),
      figure(size(bytes), fill(words.weight_of, {dtype: data.dtype})), figure(size(kv), words.width_kv));
    const why = refused(data, shape, words), fixed = Object.entries(data.fixed).map(([axis, reason]) => fill(words.width_fixed, {axis: words[`width_${axis}`], reason}));
    const told = [[why, true], [goal.said, !goal.met], [why || goal.said || AXES.some((axis) => axis in asked) ? "" : ls.shown?.width ? words.width_shown : words.width_nothing], ...fixed.map((text) => [text])];
    said.replaceChildren(...told.filter(([text]) => text).map(([text, bad]) => element("p", {class: bad ? "ls-warning" : "ls-hint"}, text)));
    document.getElementById("trim-button")?.toggleAttribute("disabled", Boolean(why) || !goal.met || !Object.keys(asked).length);
    picture(part(box, "ls-picture"), data, shape, words, width);
  };
})(window.layerscope);
