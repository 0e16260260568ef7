// Importance: heads, curves of neurons and channels, projections, and the agreement of the measured scores.
"use strict";

(({views, plot, colorbar, parse, fill, number, element, part, theme, transposed, projectionNames}) => {
  const ls = window.layerscope;
  const shares = (rows) => rows.map((row) => { const most = Math.max(...row); return row.map((v) => (most > 0 ? v / most : 0)); });
  const wanted = () => ls.widths ?? {}; // the sliders' values on Width
  const clicked = (box, act) => { box.removeAllListeners?.("plotly_click"); box.on("plotly_click", (event) => act(event.points[0])); };

  // The units of a layer that are pruned if `left` remain: heads within their KV group.
  const going = (scores, left, group) => {
    const gone = new Set();
    for (let start = 0; start < scores.length; start += group) {
      const own = [...Array(group).keys()].map((i) => start + i).sort((a, b) => scores[b] - scores[a] || a - b);
      own.slice(Math.round(left * group / scores.length)).forEach((unit) => gone.add(unit));
    }
    return gone;
  };

  const heads = (box, {found: rows, data, words, own, draw, trigger}) => {
    const t = theme(), {shape} = data, count = rows[0].length, group = shape.groups < count ? count / shape.groups : count;
    const left = wanted().heads ?? count, crosses = {x: [], y: []};
    if (left < count) rows.forEach((row, layer) => going(row, left, group).forEach((head) => { crosses.x.push(layer); crosses.y.push(head); }));
    const lines = [...Array(Math.max(0, count / group - 1)).keys()].map((i) => ({type: "line", x0: -.5, x1: rows.length - .5, y0: (i + 1) * group - .5, y1: (i + 1) * group - .5, line: {color: t.text, width: 2}}));
    plot(box, [
      {type: "heatmap", z: transposed(shares(rows)), customdata: transposed(rows), colorscale: "Cividis", zmin: 0, zmax: 1, xgap: 1, ygap: 1, colorbar: colorbar(words.score_share), hovertemplate: `${words.layer} %{x}, ${words.head} %{y}<br>%{customdata:.4g}<extra></extra>`},
      {type: "scatter", mode: "text", x: crosses.x, y: crosses.y, text: crosses.x.map(() => "×"), textfont: {size: 15, color: t.fold}, hoverinfo: "skip"},
    ], {xaxis: {title: {text: words.layer}, showgrid: false, zeroline: false}, yaxis: {title: {text: words.head}, autorange: "reversed", showgrid: false, zeroline: false, dtick: count > 16 ? undefined : 1}, shapes: [...lines, ...frame(own)]}, Math.max(260, Math.min(560, 90 + 24 * count)));
    const pick = (head, layer) => { own.cell = [head, layer]; draw(); trigger("pick", {axis: "heads", layer, unit: head}); };
    clicked(box, (point) => pick(point.y, point.x));
    ls.cursor(box, words.importance_label, count, rows.length, own, draw, pick);
    return [words.head_says, left < count ? fill(words.importance_cut, {count: left, all: count}) : ""];
  };

  const frame = ({cell}) => (cell ? [{type: "rect", x0: cell[1] - .5, x1: cell[1] + .5, y0: cell[0] - .5, y1: cell[0] + .5, line: {color: theme().fold, width: 3}}] : []);

  const layerSlider = (box, rows, own, draw, words) => {
    const row = part(box, "ls-layer-row"), layer = own.cell?.[0] ?? 0;
    if (!row.childElementCount) {
      row.append(element("label", {}));
      row.firstChild.append(element("span"), element("input", {type: "range", min: 0, class: "ls-layer"}));
    }
    const [said, range] = row.firstChild.children;
    said.textContent = fill(words.layer_is, {layer, last: rows.length - 1});
    [range.max, range.value] = [rows.length - 1, layer];
    range.oninput = () => { own.cell = [Number(range.value), own.cell?.[1] ?? 0]; draw(); };
  };

  // Units of a layer by rank; a neuron can be opened.
  const curve = (box, {found: rows, axis, words, own, draw, trigger}) => {
    const t = theme(), layer = own.cell?.[0] ?? 0, scores = rows[layer], rank = own.cell?.[1];
    const units = scores.map((_, unit) => unit).sort((a, b) => scores[b] - scores[a] || a - b), sorted = units.map((unit) => scores[unit]);
    const total = sorted.reduce((sum, v) => sum + v, 0);
    let sum = 0;
    const energy = sorted.map((v) => (sum += v) / total), left = Math.min(wanted()[axis] ?? sorted.length, sorted.length);
    const x = sorted.map((_, i) => i + 1), at = rank === undefined ? [] : [rank];
    plot(box, [
      {type: "scatter", mode: "lines", name: words.axis_score, x, y: sorted, customdata: units, line: {color: t.accent, width: 2}, hovertemplate: `%{x}: ${words[`unit_${axis}`]} %{customdata}, %{y:.4g}<extra></extra>`},
      {type: "scatter", mode: "lines", name: words.energy, x, y: energy, yaxis: "y2", line: {color: t.fold, width: 2, dash: "dash"}, hovertemplate: "%{y:.3f}<extra></extra>"},
      {type: "scatter", mode: "markers", x: at.map((i) => i + 1), y: at.map((i) => sorted[i]), marker: {size: 12, symbol: "diamond", color: t.fold, line: {color: t.text, width: 1}}, hoverinfo: "skip", showlegend: false, cliponaxis: false},
    ], {
      hovermode: "x", showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, margin: {l: 60, r: 50, t: 34, b: 44},
      xaxis: {title: {text: words.unit_axis}, range: [0, sorted.length + 1]}, yaxis: {title: {text: words.axis_score}, type: "log", ...ls.ticks(sorted)},
      yaxis2: {overlaying: "y", side: "right", range: [0, 1.02], tickmode: "array", tickvals: [0, .25, .5, .75, 1], showgrid: false, title: {text: words.energy}},
      shapes: left < sorted.length ? [{type: "line", x0: left, x1: left, yref: "paper", y0: 0, y1: 1, line: {color: t.text, width: 2, dash: "dot"}}] : [],
    }, 320);
    const pick = (layer, rank) => { own.cell = [layer, rank]; draw(); if (axis === "neurons") trigger("pick", {axis, layer, unit: units[rank]}); };
    clicked(box, (point) => pick(layer, point.x - 1));
    ls.cursor(box, axis === "neurons" ? words.neurons_label : words.channels_label, rows.length, sorted.length, own, draw, pick);
    layerSlider(box.parentElement, rows, own, draw, words);
    const stands = rank === undefined ? "" : fill(words.rank_says, {rank: rank + 1, unit: `${words[`unit_${axis}`]} ${units[rank]}`, score: Number(sorted[rank].toPrecision(3))});
    return [fill(words.energy_says, {layer, count: left, all: sorted.length, share: (100 * energy[left - 1]).toFixed(1)}), stands, axis === "neurons" ? words.neuron_says : ""];
  };

  const projections = (box, {found, words, own, draw}) => {
    const means = found.layers.map((row) => row.map((one) => one.mean));
    plot(box, [{type: "heatmap", z: transposed(shares(means)), customdata: transposed(means), y: projectionNames(found.projections), colorscale: "Cividis", xgap: 1, ygap: 1, colorbar: colorbar(words.score_share), hovertemplate: `%{y}, ${words.layer} %{x}<br>${words.mean_score} %{customdata:.4g}<extra></extra>`}],
      {xaxis: {title: {text: words.layer}, showgrid: false}, yaxis: {autorange: "reversed", showgrid: false}, shapes: frame(own)}, 290);
    const pick = (projection, layer) => { own.cell = [projection, layer]; draw(); };
    clicked(box, (point) => pick(...point.pointNumber));
    ls.cursor(box, words.projections_label, found.projections.length, means.length, own, draw, pick);
    return [words.projection_says];
  };

  // The agreement of the scores with each other, and with the measured losses.
  const agreement = (box, pairs, lost, least, words) => {
    box.hidden = !pairs.length && !lost.length;
    const table = element("table", {class: "ls-board-table ls-agreement"}), top = element("tr", {});
    [words.agreement_pair, words.agreement_mean, words.agreement_range].forEach((text) => top.append(element("th", {}, text)));
    const rows = [...pairs.map((pair) => [`${pair.first} · ${pair.second}`, pair]), ...lost.map((pair) => [fill(words.agreement_loss, {score: pair.first, units: pair.units}), pair])];
    table.append(top, ...rows.map(([name, {layers}]) => {
      const row = element("tr", {}), known = layers.filter((v) => v !== null), mean = known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
      const range = known.length ? `[${number(Math.min(...known), 2)}, ${number(Math.max(...known), 2)}]` : "–";
      [name, number(mean, 2), range].forEach((text, i) => row.append(element(i ? "td" : "th", {}, text)));
      return row;
    }));
    const rules = [words.agreement_read, ...(lost.length ? [fill(words.agreement_losses, {least})] : [])].map((text) => element("p", {class: "ls-rule"}, text));
    box.replaceChildren(element("h4", {}, words.agreement_title), ...rules, table);
  };

  const below = (box, name) => { const made = part(box, name); made.hidden = true; return made; };

  views.importance = (box, {data, value, words, props, local, draw, trigger}) => {
    const {axis, score} = value, found = data.measured?.[axis]?.[score], told = parse(props.opened, {}), of = JSON.stringify(data.shape);
    if (local.of !== of) Object.assign(local, {of, cells: {}}); // another shape clears the selection
    const own = (local.cells[axis] ??= {});
    const map = part(box, "ls-map"), layers = part(box, "ls-layer-row"), says = part(box, "ls-says");
    const [unit, projection, stream] = ["ls-one-unit", "ls-one-projection", "ls-one-stream"].map((name) => below(box, name)), beside = part(box, "ls-agree");
    layers.hidden = !found || axis === "heads" || axis === "weights";
    if (!found) {
      window.Plotly.purge(map);
      map.onkeydown = null;
      map.removeAttribute("tabindex");
      map.replaceChildren(element("p", {class: "ls-hint"}, words.importance_none));
      says.replaceChildren();
    } else {
      map.querySelector(".ls-hint")?.remove();
      const shown = {axis, found, data, words, own, draw, trigger}, lines = (axis === "heads" ? heads : axis === "weights" ? projections : curve)(map, shown);
      const from = fill(words.importance_from, {tokens: data.tokens[axis][score], texts: data.texts});
      if (axis === "heads" || axis === "weights") lines.push(words.score_shares);
      says.replaceChildren(...[...lines, from].filter(Boolean).map((text) => element("p", {class: "ls-rule"}, text)));
      ls.openedUnit(unit, {axis, unit: told.units?.[axis], told, words, trigger});
      if (axis === "weights") ls.openedProjection(projection, {found, cell: own.cell, words});
      if (axis === "channels") ls.openedStream(stream, {directions: data.directions, rows: found, left: wanted().channels ?? found[0].length, words});
    }
    agreement(beside, data.agreement?.[axis] ?? [], told.agreement?.[axis] ?? [], told.least, words);
  };
})(window.layerscope);
