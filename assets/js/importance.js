// Importance: heads, curves of neurons and channels, projections, and how far the scores agree, from what was measured.
"use strict";

(({views, plot, colorbar, fill, number, element, part, theme, transposed, percent}) => {
  const ls = window.layerscope;
  const shares = (rows) => rows.map((row) => { const most = Math.max(...row); return row.map((v) => (most > 0 ? v / most : 0)); });
  const wanted = () => ls.widths ?? {}; // what the sliders on Width say

  // Which units of a layer go when so many are left: heads within their KV group.
  const going = (scores, left, group) => {
    const gone = new Set();
    for (let start = 0; start < scores.length; start += group) {
      const own = [...Array(group).keys()].map((i) => start + i).sort((a, b) => scores[b] - scores[a] || a - b);
      own.slice(Math.round(left * group / scores.length)).forEach((unit) => gone.add(unit));
    }
    return gone;
  };

  const heads = (box, data, rows, words, local, draw, trigger) => {
    const t = theme(), {shape} = data, count = rows[0].length, group = shape.groups < count ? count / shape.groups : count;
    const left = wanted().heads ?? count, crosses = {x: [], y: []};
    if (left < count) rows.forEach((row, layer) => going(row, left, group).forEach((head) => { crosses.x.push(layer); crosses.y.push(head); }));
    const lines = [...Array(Math.max(0, count / group - 1)).keys()].map((i) => ({type: "line", x0: -.5, x1: rows.length - .5, y0: (i + 1) * group - .5, y1: (i + 1) * group - .5, line: {color: t.text, width: 2}}));
    const frame = local.cell ? [{type: "rect", x0: local.cell[1] - .5, x1: local.cell[1] + .5, y0: local.cell[0] - .5, y1: local.cell[0] + .5, line: {color: t.fold, width: 3}}] : [];
    plot(box, [
      {type: "heatmap", z: transposed(shares(rows)), customdata: transposed(rows), colorscale: "Cividis", zmin: 0, zmax: 1, xgap: 1, ygap: 1, colorbar: colorbar(words.score_share), hovertemplate: `${words.layer} %{x}, ${words.head} %{y}<br>%{customdata:.4g}<extra></extra>`},
      {type: "scatter", mode: "text", x: crosses.x, y: crosses.y, text: crosses.x.map(() => "×"), textfont: {size: 15, color: t.fold}, hoverinfo: "skip"},
    ], {xaxis: {title: {text: words.layer}, showgrid: false, zeroline: false}, yaxis: {title: {text: words.head}, showgrid: false, zeroline: false, dtick: count > 16 ? undefined : 1}, shapes: [...lines, ...frame]}, Math.max(260, Math.min(560, 90 + 24 * count)));
    const pick = (head, layer) => { local.cell = [head, layer]; draw(); trigger("pick", {layer, head}); };
    box.removeAllListeners?.("plotly_click");
    box.on("plotly_click", (event) => pick(event.points[0].y, event.points[0].x));
    ls.cursor(box, words.importance_label, count, rows.length, local, draw, pick);
    return [words.head_says, left < count ? fill(words.importance_cut, {count: left, all: count}) : ""].filter(Boolean).join(" ");
  };

  const curve = (box, rows, axis, words, local, draw) => {
    const t = theme(), layer = Math.min(local.layer ?? 0, rows.length - 1), sorted = [...rows[layer]].sort((a, b) => b - a);
    const total = sorted.reduce((sum, v) => sum + v, 0);
    let sum = 0;
    const energy = sorted.map((v) => (sum += v) / total), left = Math.min(wanted()[axis] ?? sorted.length, sorted.length);
    const x = sorted.map((_, i) => i + 1);
    plot(box, [
      {type: "scatter", mode: "lines", name: words.axis_score, x, y: sorted, line: {color: t.accent, width: 2}, hovertemplate: "%{x}: %{y:.4g}<extra></extra>"},
      {type: "scatter", mode: "lines", name: words.energy, x, y: energy, yaxis: "y2", line: {color: t.fold, width: 2, dash: "dash"}, hovertemplate: "%{x}: %{y:.3f}<extra></extra>"},
    ], {
      showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, margin: {l: 60, r: 50, t: 34, b: 44},
      xaxis: {title: {text: words.unit_axis}}, yaxis: {title: {text: words.axis_score}, type: "log", exponentformat: "none", dtick: 1},
      yaxis2: {overlaying: "y", side: "right", range: [0, 1.02], tickmode: "array", tickvals: [0, .25, .5, .75, 1], showgrid: false, title: {text: words.energy}},
      shapes: left < sorted.length ? [{type: "line", x0: left, x1: left, yref: "paper", y0: 0, y1: 1, line: {color: t.text, width: 2, dash: "dot"}}] : [],
    }, 320);
    const row = part(box.parentElement, "ls-layer-row");
    if (!row.childElementCount) {
      const range = element("input", {type: "range", min: 0, max: rows.length - 1, "aria-label": words.layer, class: "ls-layer"});
      range.oninput = () => { local.layer = Number(range.value); draw(); };
      row.append(range);
    }
    row.firstChild.max = rows.length - 1;
    row.firstChild.value = layer;
    return fill(words.energy_says, {layer, count: left, all: sorted.length, share: (100 * energy[left - 1]).toFixed(1)});
  };

  const projections = (box, found, words) => {
    plot(box, [{type: "heatmap", z: transposed(shares(found.means)), customdata: transposed(found.means), y: found.projections.map((name) => name.split(".").pop()), colorscale: "Cividis", xgap: 1, ygap: 1, colorbar: colorbar(words.score_share), hovertemplate: `%{y}, ${words.layer} %{x}<br>${words.mean_score} %{customdata:.4g}<extra></extra>`}],
      {xaxis: {title: {text: words.layer}, showgrid: false}, yaxis: {autorange: "reversed", showgrid: false}}, 290);
    return "";
  };

  const agreement = (box, found, words) => {
    if (!found?.length) { box.replaceChildren(); return; }
    const table = element("table", {class: "ls-board-table ls-agreement"}), head = element("tr", {});
    [words.agreement_pair, words.agreement_mean, words.agreement_range].forEach((text) => head.append(element("th", {}, text)));
    table.append(head);
    found.forEach((pair) => {
      const row = element("tr", {}), known = pair.layers.filter((v) => v !== null), mean = known.reduce((a, b) => a + b, 0) / known.length;
      [`${pair.first} · ${pair.second}`, number(mean, 2), `[${number(Math.min(...known), 2)}, ${number(Math.max(...known), 2)}]`].forEach((text, i) => row.append(element(i ? "td" : "th", {}, text)));
      table.append(row);
    });
    box.replaceChildren(element("h4", {}, words.agreement_title), element("p", {class: "ls-rule"}, words.agreement_read), table);
  };

  const opened = (box, head, words) => {
    if (!head) { box.replaceChildren(); return; }
    const title = element("h4", {}, fill(words.head_title, {layer: head.layer, head: head.head}));
    if (!head.role) { box.replaceChildren(title, element("p", {class: "ls-waiting"}, words.head_wait)); return; }
    const told = {role: words[`role_${head.role}`], previous: percent(head.previous), first: percent(head.first), induction: percent(head.induction), diffuse: percent(head.diffuse)};
    const loss = head.cost ? fill(words.head_loss, {ratio: ls.costWords(head.cost, words)}) : words.cost_measuring;
    const text = element("div", {class: "ls-pattern", "aria-label": words.head_edges});
    head.tokens.forEach((token, place) => {
      const row = element("div", {}), to = head.edges[place].map(([at, share]) => `${head.tokens[at].trim() || "·"} ${percent(share)} %`).join("  ");
      row.append(element("b", {}, token.trim() || "·"), element("span", {}, to || "–"), element("i", {style: `--share:${percent(head.sink[place])}%`, title: words.head_sink}, `${percent(head.sink[place])} %`));
      text.append(row);
    });
    box.replaceChildren(title, element("p", {}, loss), element("p", {}, fill(words.head_role, told)), element("p", {class: "ls-rule"}, words.head_rule), element("p", {class: "ls-rule"}, words.head_edges), text);
  };

  views.importance = (box, {data, value, words, local, draw, trigger}) => {
    const {axis, score} = value, found = data.measured?.[axis]?.[score];
    const map = part(box, "ls-map"), layers = part(box, "ls-layer-row"), says = part(box, "ls-says"), detail = part(box, "ls-one-head"), beside = part(box, "ls-agree");
    layers.hidden = !found || axis === "heads" || axis === "weights";
    if (!found) {
      window.Plotly.purge(map);
      map.replaceChildren(element("p", {class: "ls-hint"}, fill(words.importance_none, {tokens: data.tokens_asked ?? 12000})));
      says.replaceChildren(); detail.replaceChildren();
    } else {
      map.querySelector(".ls-hint")?.remove();
      const line = axis === "heads" ? heads(map, data, found, words, local, draw, trigger) : axis === "weights" ? projections(map, found, words) : curve(map, found, axis, words, local, draw);
      says.replaceChildren(...[line, fill(words.importance_from, {tokens: data.tokens, texts: data.texts})].filter(Boolean).map((text) => element("p", {class: "ls-rule"}, text)));
      opened(detail, axis === "heads" ? data.head : null, words);
    }
    agreement(beside, data.agreement?.[axis], words);
  };
})(window.layerscope);
