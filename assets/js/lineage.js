// The open model's lineage as a chain of boxes: its first source, its plans and training runs, and last the plan shown.
"use strict";

(({views, fill, times, element}) => {
  const ls = window.layerscope;
  const methods = (step) => [step.method, step.width, step.masks].filter(Boolean).join(", ");
  const SAYS = {
    source: (step, words) => [step.base_model ?? step.name, fill(words.lineage_layers, {depth: step.depth})],
    plan: (step, words) => [fill(words.lineage_pruned, {depth: step.depth, all: step.of}), methods(step)],
    recovery: (step, words) => [fill(words.lineage_learned, {tokens: ls.many(step.tokens), texts: ls.textNames(step.text, words), before: times(step.before.other.ratio), after: times(step.after.other.ratio)})],
  };

  const link = (kind, title, lines) => {
    const made = element("li", {class: `ls-link-${kind}`});
    made.append(element("b", {}, title), ...lines.filter(Boolean).map((line) => element("span", {}, line)));
    return made;
  };

  views.lineage = (box, {value, words}) => {
    const steps = (value.steps ?? []).filter((step) => SAYS[step.step]), {shown, map} = ls;
    if (steps.length < 2) { box.replaceChildren(); return; }
    const chain = element("ol", {class: "ls-lineage-chain", "aria-label": words.lineage_title});
    chain.append(...steps.map((step) => link(step.step, {source: words.lineage_source, plan: words.lineage_plan, recovery: words.lineage_recovery}[step.step], SAYS[step.step](step, words))));
    if (shown && map) chain.append(link("shown", words.lineage_shown, [fill(words.lineage_pruned, {depth: shown.depth, all: map.depth})]));
    box.replaceChildren(element("h4", {}, words.lineage_title), chain);
  };
})(window.layerscope);
