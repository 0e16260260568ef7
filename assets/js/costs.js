// What plans cost: told by the server a plan at a time, kept by the names of their blocks. Words and colours are the report's.
"use strict";

(({views, fill, number, times, between, element, theme, redraw}) => {
  const ls = window.layerscope;
  let told = {of: {}, limits: []};
  ls.costOf = (plan) => told.of[plan?.name]; // undefined where nobody has measured it yet

  // A level in words; the places are those of LEVELS in engine/judge/cost.py.
  const levels = ls.levels = (words) => [words.cost_little, words.cost_small, words.cost_clear, words.cost_heavy, words.cost_broken];
  ls.costWords = (cost, words) => (cost.ratio === null ? words.broken : `${times(cost.ratio)}, ${levels(words)[cost.level]}`);
  ls.costInterval = (cost) => (cost.ratio === null ? "" : [between(cost.low, cost.high), `KL ${number(cost.kl, 2)}`].filter(Boolean).join(" · "));
  ls.costFrom = (words) => (told.tokens ? fill(words.cost_from, {tokens: told.tokens, texts: told.texts}) : "");

  // The figure as it stands on Fold and under the landscape; `measure` asks for one that nobody is measuring.
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

  // The cheapest measured of some steps; of equals the one with the highest T.
  ls.cheapest = (steps) => steps.filter((step) => Number.isFinite(ls.costOf(step)?.ratio ?? NaN))
    .reduce((best, step) => (best && ls.costOf(best).ratio <= ls.costOf(step).ratio ? best : step), null);

  views.costs = (box, {value, local, props}) => {
    if (local.told === props.value) return;
    local.told = props.value;
    told = {of: {}, limits: [], ...value};
    ls.follow?.();
    ["fold", "landscape", "sweep", "making"].forEach(redraw);
  };

  // While nobody is at work, "measuring" would be a lie.
  ls.atWork = (busy) => { if (ls.busy !== busy) { ls.busy = busy; ["fold", "landscape", "zeros"].forEach(redraw); } };
})(window.layerscope);
