// Shapes for a budget: cost over parameters and over decode speed, and both rankings against the measurements.
"use strict";

(({views, plot, fill, number, times, rated, ratioAxis, element, part, theme, grid}) => {
  const ls = window.layerscope;
  const says = (row, words) => fill(words.shape_says, {layers: row.shape.depth, heads: row.shape.heads, neurons: row.shape.neurons, channels: row.shape.channels});
  const ratioOf = (row) => row.cost?.ratio ?? null;
  const costOf = (row, words) => (!row?.cost ? words.broken : rated(row.cost.ratio, [row.cost.low, row.cost.high]));
  const arm = (value, end) => (end === null || end === undefined ? 0 : Math.abs(value - end));
  const arms = (rows, value, low, high, color) => ({type: "data", symmetric: false, array: rows.map((row) => arm(value(row), high(row))), arrayminus: rows.map((row) => arm(value(row), low(row))), thickness: 1, width: 3, color});

  // Padding at both ends for the names of the outermost points; longer error bars are cut off.
  const roomy = (values, share) => { const ends = [Math.min(...values), Math.max(...values)], room = Math.max(share * (ends[1] - ends[0]), .01 * ends[1]); return [ends[0] - room, ends[1] + room]; };

  // Cost over a second figure: the front as a line, the first of each ranking named. The lower of two names goes below its point,
  // so that they do not overlap.
  const cloud = (box, rows, {title, x, spread, front, named}, words, choose) => {
    const t = theme(), ratios = rows.map(ratioOf), chosen = (row) => row.name === ls.shown?.name, best = rows.filter((row) => front.includes(row)).sort((a, b) => x(a) - x(b));
    const names = rows.filter((row) => named(row)), lowest = [...names].sort((a, b) => ratioOf(a) - ratioOf(b))[0];
    plot(box, [
      {type: "scatter", mode: "lines", x: best.map(x), y: best.map(ratioOf), line: {color: t.accent, width: 1.5, dash: "dot"}, hoverinfo: "skip"},
      {type: "scatter", mode: "markers", x: rows.map(x), y: ratios, customdata: rows, text: rows.map(named), cliponaxis: false,
        hovertext: rows.map((row) => `${says(row, words)}<br>${ls.costWords({...row.cost, level: row.level}, words)}`), hovertemplate: "%{hovertext}<extra></extra>",
        error_y: arms(rows, ratioOf, (row) => row.cost.low, (row) => row.cost.high, t.faint), ...(spread ? {error_x: arms(rows, x, (row) => spread(row)[0], (row) => spread(row)[1], t.faint)} : {}),
        marker: {size: rows.map((row) => (chosen(row) ? 15 : 10)), symbol: rows.map((row) => (front.includes(row) ? "diamond" : "circle-open")), color: rows.map((row) => (chosen(row) ? t.fold : t.accent)), line: {width: 2}}},
      // A trace of their own: once a point has no label, Plotly never shows one again.
      {type: "scatter", mode: "text", x: names.map(x), y: names.map(ratioOf), text: names.map(named), textposition: names.map((row) => (names.length > 1 && row === lowest ? "bottom center" : "top center")), textfont: {color: t.faint, size: 11}, cliponaxis: false, hoverinfo: "skip"},
    ], {
      xaxis: {title: {text: title}, range: roomy(rows.map(x), spread ? .4 : .16)}, margin: {l: 58, r: 16, t: 24, b: 44}, hovermode: "closest",
      yaxis: {title: {text: words.cost_axis}, ...ratioAxis(ratios, Math.max(2, ...rows.map((row) => row.cost.high ?? ratioOf(row))), [names.length > 1 ? .12 : .06, .1])},
    }, 300);
    box.removeAllListeners?.("plotly_click");
    box.on("plotly_click", (event) => { const row = event.points[0].customdata; if (row) choose(row); });
  };

  const charts = (box, data, rows, words, choose) => {
    const first = data.rankings.map((one) => data.rows[one.first]), at = (places) => places.map((place) => data.rows[place]);
    const named = (row) => [row === first[0] ? words.shapes_first : "", row === first[1] ? words.shapes_largest : ""].filter(Boolean).join(", ");
    cloud(part(box, "ls-front"), rows, {title: words.shapes_size_axis, x: (row) => row.parameters / 1e6, front: at(data.front), named}, words, choose);
    const timed = rows.filter((row) => row.speed), speed = part(box, "ls-fast");
    speed.hidden = !timed.length;
    if (timed.length) cloud(speed, timed, {title: words.shapes_speed_axis, x: (row) => row.speed.decode_ratio, spread: (row) => row.speed.decode_range, front: at(data.fast_front), named}, words, choose);
  };

  const table = (box, data, words, local, choose) => {
    const by = (key, label, cell, ...keys) => ({label, keys: [key, ...keys], text: (row) => cell(data.rows[row])});
    grid(box, {
      sheet: data.sheet, words, local, rest: data.rows.map((_, row) => row),
      columns: [
        by("layers", words.col_shape, (row) => says(row, words), "heads", "neurons", "channels"),
        by("parameters", words.col_parameters_short, (row) => `${(row.parameters / 1e6).toFixed(row.parameters < 1e6 ? 4 : 1)} M`),
        by("ratio", words.col_cost, (row) => costOf(row, words)),
        by("by_estimate", words.col_by_estimate, (row) => `${row.by_estimate}`),
        by("by_size", words.col_by_size, (row) => `${row.by_size}`),
        by("decode_ratio", words.col_decode_short, (row) => (row.speed ? rated(row.speed.decode_ratio, row.speed.decode_range) : "–")),
      ],
      dress: (line, row) => {
        const one = data.rows[row];
        line.className = one.name === ls.shown?.name ? "ls-chosen" : "";
        line.dataset.entry = one.name;
        line.tabIndex = 0;
        line.onclick = () => choose(one);
        line.onkeydown = (event) => { if (event.key === "Enter") choose(one); };
      },
    });
  };

  const compared = (box, data, words) => {
    const [estimate, size] = data.rankings.map((one) => number(one.correlation, 2));
    const [best, largest] = data.rankings.map((one) => data.rows[one.first]).map((row) => (row ? `${says(row, words)} (${costOf(row, words)})` : words.shapes_unmeasured));
    box.textContent = data.rows.length > 2 ? fill(words.shapes_rankings, {count: data.rows.length, estimate, size, best, largest}) : "";
  };

  views.shapes = (box, {data, words, trigger, local}) => {
    if (!data.rows.length) { box.replaceChildren(element("p", {class: "ls-waiting"}, words.waiting_shapes)); return; }
    if (box.querySelector(".ls-waiting")) box.replaceChildren();
    const choose = (row) => trigger("row", {name: row.name}), finite = data.rows.filter((row) => row.cost);
    part(box, "ls-rule").textContent = fill(words.shapes_count, {legal: data.legal, count: data.rows.length});
    table(part(box, "ls-grid"), data, words, local, choose);
    compared(part(box, "ls-rankings"), data, words);
    if (finite.length) charts(part(box, "ls-charts"), data, finite, words, choose);
    part(box, "ls-from").textContent = ls.costFrom(words);
  };
})(window.layerscope);
