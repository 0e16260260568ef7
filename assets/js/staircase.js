// The charts under the strip: cost and depth over T, and every trial. Marks that follow T are positioned over the charts, so that
// moving T redraws neither.
"use strict";

(({plot, fill, number, times, ratioAxis, element, theme}) => {
  const ls = window.layerscope;

  // Fixed margins and ranges from map to map, so that nothing jumps and no second layout is needed.
  const HEIGHT = window.innerHeight >= 1000 ? 380 : 290, LOW = 230, ROOM = {l: 58, r: 14, t: 8, b: 40, autoexpand: false}, TOP = {...ROOM, t: 34};
  const COST = [.43, 1], DEPTH = [0, .36]; // the two panels, as fractions of the height
  const still = {automargin: false};
  const across = (value, [from, to], width) => ROOM.l + ((value - from) / (to - from)) * (width - ROOM.l - ROOM.r);
  const down = (value, [from, to], height, room, [low, high] = [0, 1]) => {
    const inside = height - room.b - room.t;
    return height - room.b - (low + ((value - from) / (to - from)) * (high - low)) * inside;
  };
  const mark = (box, name, style, text = "") => {
    const made = box.querySelector(`.${name}`) ?? box.appendChild(element("div", {class: `ls-mark ${name}`}));
    Object.assign(made.style, style);
    if (made.textContent !== text) made.textContent = text;
    return made;
  };
  const redrawn = (box, ...as) => { // true if the chart's data has changed
    const same = box.drawnAs?.every((value, index) => value === as[index]);
    box.drawnAs = as;
    return !same;
  };

  const trace = (box, map, step, T, words, width) => {
    const t = theme();
    const range = map.range ??= (() => { // over all trials, so that the axis does not move
      const all = map.steps.flatMap((s) => s.trials).filter((r) => r.similarity !== null);
      return [Math.min(.9, ...all.map((r) => r.similarity - r.spread)) - .03, 1.02];
    })();
    if (redrawn(box, map, step, t.dark, width)) {
      const of = (accepted) => step.trials.filter((trial) => trial.accepted === accepted);
      const dots = (trials, title, marker) => ({
        type: "scatter", mode: "markers", name: title, x: trials.map((r) => r.pointer), y: trials.map((r) => r.similarity), marker,
        meta: {columns: {spread: trials.map((r) => r.spread)}},
        text: trials.map((r) => fill(words.trial, {first: r.pointer + 1, last: r.pointer + r.absorbed, pointer: r.pointer, depth: r.depth_after})),
        hovertemplate: `%{text}<br>${words.cosine} %{y:.4f}<extra>${title}</extra>`,
      });
      const spread = { // over texts, as one broken line: error bars would be one path each
        type: "scatter", mode: "lines", showlegend: false, hoverinfo: "skip", line: {color: t.faint, width: 1},
        x: step.trials.flatMap((r) => [r.pointer, r.pointer, null]), y: step.trials.flatMap((r) => [r.similarity - r.spread, r.similarity + r.spread, null]),
      };
      plot(box, [
        spread,
        dots(of(false), words.rejected, {symbol: "x-thin", size: 9, line: {color: t.faint, width: 2}}),
        dots(of(true), words.accepted, {symbol: "circle", size: 11, color: t.fold}),
      ], {
        showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, margin: TOP,
        xaxis: {...still, title: {text: words.pointer}, range: [map.depth - 1, -1]}, yaxis: {...still, title: {text: words.cosine}, range},
      }, LOW);
    }
    mark(box, "ls-t", {left: `${TOP.l}px`, right: `${TOP.r}px`, top: `${down(T, range, LOW, TOP)}px`, borderTop: `2px dashed ${t.accent}`, color: t.accent}, `T = ${number(T, 4)}`);
  };

  // Distinct without colour too.
  const SYMBOLS = ["circle", "circle-open", "diamond", "triangle-up", "x"];

  const stairs = (map, costs, judged, words, t, highest) => {
    const from = (s) => Math.max(s.t_from, map.t_min), to = (s) => Math.min(s.t_to, 1), middle = (s) => (from(s) + to(s)) / 2;
    const height = (cost) => (cost.ratio === null ? highest : Math.min(cost.ratio, highest));
    const says = (s, cost) => `T ${number(from(s), 4)}: ${s.depth} ${words.layers}<br>${cost ? `${ls.costWords(cost, words)} ${ls.costInterval(cost)}` : words.cost_measuring}`;
    const steps = map.steps.map((s, index) => ({s, cost: costs[index], judged: judged[index]})).reverse();
    const known = steps.filter(({cost}) => cost), rated = known.filter(({cost}) => cost.ratio !== null);
    const line = (some, y, color, more) => ({type: "scatter", mode: "lines", hoverinfo: "skip", line: {color, width: 3}, x: some.flatMap(({s}) => [from(s), to(s), null]), y: some.flatMap((one) => [y(one), y(one), null]), ...more});
    const levels = t.costs.map((color, level) => ({color, some: known.filter(({cost}) => cost.level === level)})).filter(({some}) => some.length);
    const beside = steps.filter(({judged}) => Number.isFinite(judged ?? NaN));
    return [
      {...line(steps, ({s}) => s.depth, t.faint), line: {color: t.faint, width: 1}}, // not measured yet
      ...levels.map(({color, some}) => line(some, ({s}) => s.depth, color)),
      ...levels.map(({color, some}) => line(some, ({cost}) => height(cost), color, {yaxis: "y2"})),
      {type: "scatter", mode: "lines", hoverinfo: "skip", yaxis: "y2", line: {color: t.faint, width: 1}, x: rated.flatMap(({s}) => [middle(s), middle(s), null]), y: rated.flatMap(({cost}) => [cost.low, cost.high, null])}, // 95 %
      {type: "scatter", mode: "markers", yaxis: "y2", x: known.map(({s}) => middle(s)), y: known.map(({cost}) => height(cost)), text: known.map(({s, cost}) => says(s, cost)), hovertemplate: "%{text}<extra></extra>",
        marker: {size: 8, line: {width: 1.5}, color: known.map(({cost}) => t.costs[cost.level]), symbol: known.map(({cost}) => SYMBOLS[cost.level])}},
      {type: "scatter", mode: "markers", yaxis: "y2", x: beside.map(({s}) => middle(s)), y: beside.map((one) => Math.min(one.judged, highest)), text: beside.map((one) => times(one.judged)), hovertemplate: `${words.perplexity_ratio} %{text}<extra></extra>`,
        marker: {size: 9, symbol: "star", color: t.text}}, // on the evaluation texts, if it is on the board
      {type: "scatter", mode: "markers", x: steps.map(({s}) => middle(s)), y: steps.map(({s}) => s.depth), text: steps.map(({s, cost}) => says(s, cost)), hovertemplate: "%{text}<extra></extra>", marker: {size: 4, color: steps.map(({cost}) => (cost ? t.costs[cost.level] : t.faint))}},
    ];
  };

  const overT = (box, map, step, T, words, width, judged) => {
    const t = theme(), costs = map.steps.map(ls.costOf);
    const depths = map.steps.map((s) => s.depth), ratios = [...costs.map((cost) => cost?.ratio), ...Object.values(judged)].filter(Number.isFinite);
    const highest = Math.min(1e6, Math.max(4, ...ratios) * 1.25);
    const xs = [map.t_min, 1.005], ys = [Math.min(...depths) - .6, Math.max(...depths) + .6];
    if (redrawn(box, map, t.dark, width, judged, costs.map((cost) => cost?.ratio).join())) {
      box.costAxis = ratioAxis(ratios, highest, [.06, .08]);
      plot(box, stairs(map, costs, judged, words, t, highest), {
        margin: ROOM, hovermode: "closest", xaxis: {...still, title: {text: "T"}, range: xs, anchor: "y"},
        yaxis: {...still, title: {text: words.layers_left}, range: ys, tickformat: "d", ...(ys[1] - ys[0] < 6 ? {dtick: 1} : {nticks: 5}), domain: DEPTH},
        yaxis2: {automargin: false, gridcolor: t.line, linecolor: t.line, title: {text: words.cost_axis, standoff: 8}, ...box.costAxis, domain: COST},
      }, HEIGHT);
      box.removeAllListeners?.("plotly_click");
      box.on("plotly_click", (event) => ls.choose(ls.stepAt(map, event.points[0].x)));
    }
    const left = `${across(T, xs, width)}px`, cost = ls.costOf(step);
    const line = mark(box, "ls-now", {left, top: `${ROOM.t}px`, bottom: `${ROOM.b}px`, borderLeft: `2px dashed ${t.fold}`});
    line.dataset.t = T;
    mark(box, "ls-dot", {left, top: `${down(step.depth, ys, HEIGHT, ROOM, DEPTH)}px`, background: t.fold});
    mark(box, "ls-cost-dot", {left, top: `${cost ? down(Math.log10(Math.min(cost.ratio ?? highest, highest)), box.costAxis.range, HEIGHT, ROOM, COST) : 0}px`, background: t.fold, display: cost ? "" : "none"});
  };

  Object.assign(ls, {trace, overT});
})(window.layerscope);
