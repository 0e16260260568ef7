// Costs of widths: one chart per axis, one curve per score, with the slider's value marked.
"use strict";

(({views, element, part}) => {
  const ls = window.layerscope;
  const AXES = ["heads", "neurons", "channels"];

  views.widthcosts = (box, {data, value, words}) => {
    const {shape, fixed} = ls.knows("widths").data ?? {}, row = part(box, "ls-width-curves");
    const all = data.filter((point) => Number.isFinite(point.ratio ?? NaN)).map((point) => ({...point, x: point.count, name: [point.score, words[`width_arm_${point.beside}`]].filter(Boolean).join(", ")}));
    AXES.forEach((axis) => { part(row, `ls-width-${axis}`).hidden = !data.length || !shape || axis in fixed; }); // set all first: a chart takes its width when drawn
    AXES.map((axis) => [axis, part(row, `ls-width-${axis}`)]).filter(([, chart]) => !chart.hidden).forEach(([axis, chart]) => {
      const points = all.filter((point) => point.axis === axis), whole = shape[axis], least = Math.min(.5 * whole, value[axis], ...points.map((point) => point.x));
      ls.costCurves(chart, points, words, value[axis], {title: {text: words[`width_${axis}`]}, range: [.9 * least, 1.04 * whole], ...(whole > 16 ? {} : {dtick: 1})}, all.map((point) => point.name));
    });
    part(box, "ls-from").replaceChildren(...(data.length ? [words.width_curves_from, ls.costFrom(words)] : [words.width_curves_none]).map((text) => element("p", {class: "ls-hint"}, text)));
  };
})(window.layerscope);
