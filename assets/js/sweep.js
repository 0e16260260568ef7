// The sweep: cost over depth for every plan that Layer Collapse can reach, and for other methods' plans on the same texts.
"use strict";

(({views, plot, fill, number, times, rated, ratioAxis, element, part, theme}) => {
  const ls = window.layerscope;
  const SHAPES = {reference: "circle", paper: "x-thin-open", mean: "square", "keep-first": "triangle-up", "keep-last": "triangle-down"};
  const finite = (one) => Number.isFinite(one.ratio ?? NaN);
  const named = (one) => `${one.rule}, C ${one.C}, I ${one.I}, T ${number(one.T, 4)}`;

  // The cheapest plan of each depth, the most layers first.
  const cheapest = (entries) => Object.values(entries.filter(finite).reduce((best, one) => ({...best, [one.depth]: best[one.depth]?.ratio <= one.ratio ? best[one.depth] : one}), {}))
    .sort((a, b) => b.depth - a.depth);

  const chart = (box, data, best, words, take) => {
    const t = theme(), known = data.entries.filter(finite), same = data.others.filter(finite), apart = data.others.filter((one) => !finite(one) && Number.isFinite(one.judged ?? NaN));
    const highest = Math.max(4, ...best.map((one) => one.ratio), ...same.map((one) => one.ratio)) * 3; // larger ratios are cut off: they add nothing
    const inside = known.filter((one) => one.ratio <= highest), depths = [data.depth, ...known.map((one) => one.depth), ...data.others.map((one) => one.depth)];
    const says = (one) => `${named(one)}<br>${one.depth} ${words.layers}: ${ls.costWords(one, words)}`;
    plot(box, [
      {type: "scatter", mode: "markers", name: "Layer Collapse", x: inside.map((one) => one.depth), y: inside.map((one) => one.ratio), customdata: inside, text: inside.map(says), hovertemplate: "%{text}<extra></extra>",
        marker: {size: 7, opacity: .75, color: inside.map((one) => t.costs[one.level]), symbol: inside.map((one) => SHAPES[one.rule] ?? "circle"), line: {width: 1}}},
      {type: "scatter", mode: "lines", name: words.sweep_best, x: best.map((one) => one.depth), y: best.map((one) => one.ratio), line: {color: t.text, width: 1.5, dash: "dot"}, hoverinfo: "skip"},
      {type: "scatter", mode: "markers", name: words.sweep_others, x: same.map((one) => one.depth), y: same.map((one) => one.ratio), text: same.map((one) => one.label), hovertemplate: "%{text}: ×%{y:.2f}<extra></extra>", marker: {size: 13, symbol: "star", color: t.fold, line: {width: 1, color: t.text}}},
      ...(apart.length ? [{type: "scatter", mode: "markers", name: fill(words.sweep_judged, {texts: [...new Set(apart.map((one) => one.texts))].join(", ")}), x: apart.map((one) => one.depth), y: apart.map((one) => one.judged), text: apart.map((one) => one.label), hovertemplate: "%{text}: ×%{y:.2f}<extra></extra>", marker: {size: 12, symbol: "star-open", color: t.fold}}] : []),
    ], {
      showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, margin: {l: 58, r: 12, t: 44, b: 44}, hovermode: "closest",
      xaxis: {title: {text: words.layers_left}, tickformat: "d", range: [Math.min(...depths) - .7, data.depth + .7]},
      yaxis: {title: {text: words.cost_axis}, ...ratioAxis([...inside, ...same].map((one) => one.ratio), highest, [.06, .04])},
    }, 360);
    box.removeAllListeners?.("plotly_click");
    box.on("plotly_click", (event) => { const one = event.points[0].customdata; if (one) take(one); });
  };

  const table = (box, data, best, words, take) => {
    const made = element("table", {class: "ls-board-table"}), head = element("tr", {});
    [words.col_layers, words.col_cost, words.rule, "C", "I", "T", words.sweep_gain].forEach((text) => head.append(element("th", {}, text)));
    made.append(head);
    best.forEach((one) => {
      const row = element("tr", {"data-entry": one.depth, tabindex: 0});
      const others = data.others.filter((other) => finite(other) && other.depth === one.depth).sort((a, b) => a.ratio - b.ratio);
      const cells = [`${one.depth}`, rated(one.ratio, [one.low, one.high]), one.rule, `${one.C}`, `${one.I}`, number(one.T, 4), others.length ? `${times(others[0].ratio)} (${others[0].label})` : "–"];
      cells.forEach((text, index) => row.append(element(index ? "td" : "th", {}, text)));
      row.onclick = () => take(one);
      row.onkeydown = (event) => { if (event.key === "Enter") take(one); };
      made.append(row);
    });
    box.replaceChildren(element("p", {class: "ls-rule"}, fill(words.sweep_count, {count: data.entries.length})), made);
  };

  views.sweep = (box, {data, words, trigger}) => {
    if (!data.entries.length) { box.replaceChildren(element("p", {class: "ls-waiting"}, words.waiting_sweep)); return; }
    if (box.querySelector(".ls-waiting")) box.replaceChildren();
    const best = cheapest(data.entries);
    const take = (one) => { ls.taken = one; trigger("take", {}); };
    chart(part(box, "ls-cloud"), data, best, words, take);
    table(part(box, "ls-board-scroll"), data, best, words, take);
    part(box, "ls-from").textContent = ls.costFrom(words);
  };
})(window.layerscope);
