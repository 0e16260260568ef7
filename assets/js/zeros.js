// Zeros: they change neither size nor speed by themselves; shows the measurements, on Weights and on Export, for a plan with
// masks.
"use strict";

(({views, fill, times, number, size, element, redraw}) => {
  const ls = window.layerscope;

  const ratio = (speed, part, words) => { const [low, high] = speed[`${part}_range`].map((one) => number(one, 2)); return fill(words.zeros_range, {ratio: times(speed[`${part}_ratio`]), low, high, rounds: speed.rounds}); };
  const measured = ({speed, memory}, words) => element("p", {class: "ls-rule"}, fill(words.zeros_measured, {decode: ratio(speed, "decode", words), prefill: ratio(speed, "prefill", words), plan: size(memory.plan_weights), source: size(memory.source_weights)}));
  const offer = (words, ask) => { const button = element("button", {type: "button", class: "ls-button"}, words.zeros_measure); button.onclick = ask; return button; };

  // The lines for a plan; empty without masks.
  ls.zerosOf = (plan, words) => {
    if (!plan?.masks) return [];
    const {value, trigger} = ls.knows("zeros"), known = value.of?.[plan.name], lines = [element("p", {class: "ls-hint"}, words.zeros_kept)];
    if (known) lines.push(measured(known, words), ...(plan.parameters < ls.map.parameters ? [element("p", {class: "ls-hint"}, words.zeros_smaller)] : []));
    else lines.push(ls.busy ? element("p", {class: "ls-hint"}, words.zeros_measuring) : offer(words, () => trigger("ask", {})));
    return lines;
  };

  views.zeros = (box, {words}) => { box.replaceChildren(...ls.zerosOf(ls.shown, words)); redraw("summary"); };
})(window.layerscope);
