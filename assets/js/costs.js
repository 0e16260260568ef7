// Costs of plans: the server sends them one by one, keyed by the names of their blocks. Words and colours are the report's.
"use strict";

(({views, plot, fill, number, times, between, ratioAxis, element, theme, redraw}) => {
  const ls = window.layerscope;
  let told = {of: {}, limits: []};
  ls.costOf = (plan) => told.of[plan?.name]; // undefined where it is not measured yet

  // A level in words, in the order of LEVELS in engine/judge/cost.py.
  const levels = ls.levels = (words) => [words.cost_little, words.cost_small, words.cost_clear, words.cost_heavy, words.cost_broken];
  ls.costWords = (cost, words) => (cost.ratio === null ? words.broken : `${times(cost.ratio)}, ${levels(words)[cost.level]}`);
  ls.costInterval = (cost) => (cost.ratio === null ? "" : [between(cost.low, cost.high), `KL ${number(cost.kl, 2)}`].filter(Boolean).join(" · "));
  ls.costFrom = (words) => (told.tokens ? fill(words.cost_from, {tokens: told.tokens, texts: told.texts}) : "");

  // The cost on Fold and under the landscape; `measure` requests it where no job measures it.
  ls.costFigure = (plan, words, measure) => {
    const cost = ls.costOf(plan), made = element("div", {class: "ls-cost", "aria-live": "polite"});
    if (cost) {
      made.append(element("b", {style: `color:${theme().costs[cost.level]}`}, ls.costWords(cost, words)), element("span", {}, `${words.cost} ${ls.costInterval(cost)}`));
    } else if (ls.busy || !measure) {
      made.append(element("b", {class: "ls-measuring"}, words.cost_measuring), element("span", {}, words.cost));
    } else {
      const button = element("button", {class: "ls-button", type: "button"}, words.cost_measure);
      button.onclick = measure;
      made.append(button, element("span", {}, words.cost));
    }
    return made;
  };

  // The cheapest measured step; of equals the one with the highest T.
  ls.cheapest = (steps) => steps.filter((step) => Number.isFinite(ls.costOf(step)?.ratio ?? NaN))
    .reduce((best, step) => (best && ls.costOf(best).ratio <= ls.costOf(step).ratio ? best : step), null);

  // Cost curves, one line per name, over points {x, name, ratio, low, high}; `at` is the slider's value on the axis `xaxis`.
  // Charts side by side share `names`, and so the colours.
  ls.costCurves = (box, points, words, at, xaxis, names = points.map((point) => point.name)) => {
    const t = theme(), lines = [...new Set(names)].sort(), highest = 1.3 * Math.max(2, ...points.map((point) => point.ratio));
    const inks = [t.fold, t.accent, ls.ink.good, ls.ink.warn, t.faint], dashes = ["solid", "dash", "dot", "dashdot", "longdash"], symbols = ["circle", "diamond", "square", "triangle-up", "x"];
    plot(box, lines.map((name, index) => {
      const own = points.filter((point) => point.name === name).sort((a, b) => a.x - b.x), of = (key) => own.map((point) => point[key]);
      return {type: "scatter", mode: "lines+markers", name, x: of("x"), y: of("ratio"), line: {color: inks[index % 5], dash: dashes[index % 5], width: 2}, marker: {size: 8, symbol: symbols[index % 5]},
        error_y: {type: "data", symmetric: false, array: own.map((point) => point.high - point.ratio), arrayminus: own.map((point) => point.ratio - point.low), thickness: 1}, hovertemplate: `${name}, %{x}: ×%{y:.2f}<extra></extra>`};
    }).filter((line) => line.x.length), {
      showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, margin: {l: 58, r: 12, t: 44, b: 44}, xaxis,
      yaxis: {title: {text: words.cost_axis}, ...ratioAxis(points.map((point) => point.ratio), highest, [.06, .04])},
      shapes: [{type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: {color: t.text, width: 1.5, dash: "dot"}}],
    }, 340);
  };

  views.costs = () => {};
  views.costs.told = ({value, local, props}) => {
    if (local.told === props.value) return;
    local.told = props.value;
    told = {of: {}, limits: [], ...value};
    ls.follow?.();
    ["fold", "landscape", "sweep", "making"].forEach(redraw);
  };

  // Redraw when a job starts or ends: without a job, nothing is being measured.
  ls.atWork = (busy) => { if (ls.busy !== busy) { ls.busy = busy; ["fold", "landscape", "zeros"].forEach(redraw); } };
})(window.layerscope);
