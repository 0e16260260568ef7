// Weights: the share of the score that a sparsity removes, from the measured scores as the slider moves; and the cost of
// sparsities.
"use strict";

(({views, plot, colorbar, fill, element, part, transposed, percent, projectionNames}) => {
  const ls = window.layerscope;

  // The share of the score that a sparsity removes, interpolated between the two nearest measured ones.
  const lost = (row, sparsity) => { const at = Math.min(sparsity * row.length, row.length - 1), low = Math.floor(at), high = Math.min(low + 1, row.length - 1); return row[low] + (row[high] - row[low]) * (at - low); };

  // The share of weights that the controls on Weights would set to zero.
  const sparsityOf = ls.sparsityOf = ({pattern, sparsity}) => (pattern ? pattern.split(":").reduce((n, m) => n / m) : Number(sparsity));

  views.masks = (box, {data, value, words}) => {
    const {method} = value, sparsity = sparsityOf(value);
    const found = data.lost?.[method], map = part(box, "ls-map"), chart = part(box, "ls-curves");
    if (found) {
      map.querySelector(".ls-hint")?.remove();
      plot(map, [{type: "heatmap", z: transposed(found.lost.map((layer) => layer.map((row) => lost(row, sparsity)))), y: projectionNames(found.projections), colorscale: "Cividis", zmin: 0, xgap: 1, ygap: 1, colorbar: colorbar(words.score_lost), hovertemplate: `%{y}, ${words.layer} %{x}: %{z:.3f}<extra></extra>`}],
        {title: {text: fill(words.masks_lost, {share: percent(sparsity), method}), font: {size: 13}}, margin: {l: 70, r: 12, t: 34, b: 44}, xaxis: {title: {text: words.layer}, showgrid: false}, yaxis: {autorange: "reversed", showgrid: false}}, 300);
    } else {
      window.Plotly.purge(map);
      map.replaceChildren(element("p", {class: "ls-hint"}, fill(words.masks_lost_none, {method})));
    }
    const known = (data.curves ?? []).filter((one) => Number.isFinite(one.ratio ?? NaN)).map((one) => ({...one, x: one.sparsity, name: one.method}));
    if (!known.length) { window.Plotly.purge(chart); chart.replaceChildren(element("p", {class: "ls-hint"}, words.masks_curves_none)); return; }
    chart.querySelector(".ls-hint")?.remove();
    ls.costCurves(chart, known, words, sparsity, {title: {text: words.masks_zeros}, tickformat: ".0%", range: [0, 1]});
    part(box, "ls-from").textContent = ls.costFrom(words);
  };
})(window.layerscope);
