// The part of Importance below its chart: an opened head or neuron, a projection's scores, the stream's principal directions.
"use strict";

(({plot, fill, number, element, part, theme, percent}) => {
  const ls = window.layerscope;
  const rule = (text) => element("p", {class: "ls-rule"}, text);
  const small = (value) => (Number.isFinite(value ?? NaN) ? `${Number(value.toPrecision(2))}` : "–");

  // A head's attention, with the first token shown separately.
  const pattern = (unit, words) => {
    const text = element("div", {class: "ls-pattern", "aria-label": words.head_edges});
    unit.tokens.forEach((token, place) => {
      const row = element("div", {}), to = unit.edges[place].map(([at, share]) => `${unit.tokens[at].trim() || "·"} ${percent(share)} %`).join("  ");
      row.append(element("b", {}, token.trim() || "·"), element("span", {}, to || "–"), element("i", {style: `--share:${percent(unit.sink[place])}%`, title: words.head_sink}, `${percent(unit.sink[place])} %`));
      text.append(row);
    });
    return text;
  };

  const head = (unit, words) => {
    const told = {role: words[`role_${unit.role}`], previous: percent(unit.previous), first: percent(unit.first), induction: percent(unit.induction), diffuse: percent(unit.diffuse)};
    return [element("p", {}, fill(words.head_role, told)), rule(words.head_rule), rule(words.head_edges), pattern(unit, words)];
  };

  // The tokens with a neuron's highest activations, each in its context.
  const excited = (unit, words) => {
    const list = element("ol", {class: "ls-excited"});
    unit.excited.forEach((one) => {
      const row = element("li"), text = element("span");
      text.append(one.before, element("mark", {}, one.token.trim() || "·"), one.after);
      row.append(element("b", {}, `${one.value < 0 ? "−" : "+"}${number(Math.abs(one.value), 2)}`), text);
      list.append(row);
    });
    return [rule(fill(words.neuron_excited, {tokens: unit.read})), list];
  };

  // The model's loss without each measured unit of the open unit's layer.
  const losses = (box, known, unit, words) => {
    const own = known.filter(([layer]) => layer === unit.layer), t = theme(), open = (at) => at === unit.unit;
    box.hidden = own.length < 2;
    if (box.hidden) return;
    plot(box, [{
      type: "scatter", mode: "markers", x: own.map(([, at]) => at), y: own.map(([,, loss]) => loss), hovertemplate: "%{x}: %{y:.2g}<extra></extra>",
      marker: {opacity: 1, size: own.map(([, at]) => (open(at) ? 13 : 8)), color: own.map(([, at]) => (open(at) ? t.fold : t.accent)), symbol: own.map(([, at]) => (open(at) ? "diamond" : "circle"))},
    }], {xaxis: {title: {text: fill(words.unit_of_layer, {layer: unit.layer})}, tickvals: own.length > 16 ? undefined : own.map(([, at]) => at)}, yaxis: {title: {text: words.loss_axis}, type: "log", ...ls.ticks(own.map(([,, loss]) => loss))}}, 220);
  };

  // An opened head or neuron: its role, and the model's loss without it.
  ls.openedUnit = (box, {axis, unit, told, words, trigger}) => {
    box.hidden = !unit;
    if (!unit) return;
    const heads = axis === "heads", title = part(box, "ls-title"), said = part(box, "ls-said"), chart = part(box, "ls-losses"), more = part(box, "ls-more");
    title.replaceChildren(element("h4", {}, fill(heads ? words.head_title : words.neuron_title, {layer: unit.layer, unit: unit.unit})));
    const seen = heads ? unit.role : unit.excited, {cost} = unit;
    const measure = element("button", {type: "button", class: "ls-button"}, fill(heads ? words.losses_heads : words.losses_neurons, {layer: unit.layer, count: told.sampled}));
    measure.onclick = () => trigger("ask", {axis, layer: unit.layer});
    const lost = cost ? fill(heads ? words.head_loss : words.neuron_loss, {ratio: ls.costWords(cost, words), kl: small(cost.kl)}) : words.cost_measuring;
    said.replaceChildren(...(seen ? [element("p", {}, lost), measure] : [element("p", {class: "ls-waiting"}, heads ? words.head_wait : words.neuron_wait)]));
    losses(chart, told.losses[axis] ?? [], unit, words);
    more.replaceChildren(...(!seen ? [] : heads ? head(unit, words) : excited(unit, words)));
  };

  // The score (in powers of ten) below which this share of a projection's weights lies. Weights within a bin are taken as evenly
  // spread.
  const cutAt = ({low, high, counts, zeros}, share) => {
    const step = (high - low) / counts.length;
    let left = share * counts.reduce((sum, n) => sum + n, zeros) - zeros;
    const bin = counts.findIndex((n) => (left -= n) <= 0);
    return left > 0 ? high : low + step * (bin + (counts[bin] ? Math.max(0, 1 + left / counts[bin]) : 0));
  };

  // A projection's scores, with a line at the cut of the present sparsity on Weights.
  ls.openedProjection = (box, {found, cell, words}) => {
    box.hidden = !cell;
    if (!cell) return;
    const [projection, layer] = cell, {histogram} = found.layers[layer][projection], {low, high, counts} = histogram, t = theme();
    const step = (high - low) / counts.length, share = ls.sparsityOf(ls.knows("masks").value), cut = cutAt(histogram, share);
    const x = counts.map((_, bin) => low + step * (bin + .5));
    part(box, "ls-title").replaceChildren(element("h4", {}, fill(words.histogram_title, {projection: found.projections[projection], layer})));
    plot(part(box, "ls-histogram"), [{type: "bar", x, y: counts, width: step, marker: {color: x.map((at) => (at < cut ? t.kept : t.accent))}, customdata: x.map((at) => small(10 ** at)), hovertemplate: "%{customdata}: %{y}<extra></extra>"}],
      {bargap: 0, xaxis: {title: {text: words.histogram_axis}}, yaxis: {title: {text: words.histogram_count}}, shapes: [{type: "line", x0: cut, x1: cut, yref: "paper", y0: 0, y1: 1, line: {color: t.fold, width: 2, dash: "dot"}}]}, 260);
    part(box, "ls-said").replaceChildren(rule(fill(words.histogram_says, {share: percent(share), cut: small(10 ** cut)})));
  };

  const sum = (values) => values.reduce((total, value) => total + value, 0);

  // The share of the residual stream before each layer that `left` principal directions hold, and that as many channels chosen by
  // a score hold.
  ls.openedStream = (box, {directions, rows, left, words}) => {
    const count = rows[0].length, all = left >= count, t = theme();
    box.hidden = !directions;
    if (!directions) return;
    part(box, "ls-title").replaceChildren(element("h4", {}, words.stream_title));
    const chart = part(box, "ls-stream");
    chart.hidden = all;
    const total = rows[0].map((_, channel) => sum(rows.map((row) => row[channel])));
    const kept = total.map((_, channel) => channel).sort((a, b) => total[b] - total[a] || a - b).slice(0, left);
    const shares = {principal: directions.principal.map((row) => sum(row.slice(0, left))), channels: directions.channels.map((row) => sum(kept.map((channel) => row[channel])))};
    const line = (name, y, color, dash) => ({type: "scatter", mode: "lines+markers", name, x: y.map((_, i) => i), y, line: {color, dash, width: 2}, marker: {size: 5}, hovertemplate: `${words.layer} %{x}: %{y:.1%}<extra></extra>`});
    if (!all) plot(chart, [line(words.stream_principal, shares.principal, t.accent, "solid"), line(words.stream_channels, shares.channels, t.fold, "dash")],
      {showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, margin: {l: 58, r: 12, t: 44, b: 44}, xaxis: {title: {text: words.layer}}, yaxis: {title: {text: words.stream_axis}, tickformat: ".0%"}}, 280);
    const mean = (values) => percent(sum(values) / values.length);
    part(box, "ls-said").replaceChildren(rule(all ? words.stream_whole : fill(words.stream_says, {count: left, all: count, principal: mean(shares.principal), channels: mean(shares.channels)})), rule(words.stream_custom));
  };
})(window.layerscope);
