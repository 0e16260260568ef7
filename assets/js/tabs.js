// The tabs in groups, and the strip of the current plan, visible on all of them.
"use strict";

(({views, fill, element, size}) => {
  const ls = window.layerscope;
  const GROUPS = {look: ["explore", "importance"], cut: ["fold", "widths", "masks", "search"], judge: ["compare"], recover: ["recover"], export: ["export"]};
  const NAMES = Object.values(GROUPS).flat();
  const groupOf = (name) => Object.keys(GROUPS).find((group) => GROUPS[group].includes(name));

  // Arrow keys go to the next visible button.
  const arrows = (row) => { row.onkeydown = (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key], all = [...row.querySelectorAll("button:not([hidden])")], at = all.indexOf(document.activeElement);
    if (step && at >= 0) { const next = all[(at + step + all.length) % all.length]; next.click(); next.focus(); }
  }; };

  views.tabs = (box, {words}) => {
    if (box.childElementCount) return;
    const last = {}; // each group's last open tab
    const groups = element("div", {class: "ls-tabrow ls-groups", role: "tablist"}), tabs = element("div", {class: "ls-tabrow ls-inner", role: "tablist"});
    const button = (id, text, panel) => element("button", {type: "button", role: "tab", id, class: "ls-tab", ...(panel ? {"aria-controls": panel} : {})}, text);
    const buttons = Object.fromEntries(NAMES.map((name) => [name, button(`tab-${name}`, words[name], `panel-${name}`)]));
    const tops = Object.fromEntries(Object.keys(GROUPS).map((group) => [group, button(`group-${group}`, words[`group_${group}`])]));
    const mark = (one, chosen) => { one.setAttribute("aria-selected", `${chosen}`); one.tabIndex = chosen ? 0 : -1; };
    const open = ls.openTab = (name) => {
      const own = groupOf(name);
      last[own] = name;
      NAMES.forEach((other) => {
        document.getElementById(`panel-${other}`)?.classList.toggle("ls-open", other === name);
        mark(buttons[other], other === name);
        buttons[other].hidden = groupOf(other) !== own;
      });
      Object.keys(GROUPS).forEach((group) => mark(tops[group], group === own));
      tabs.hidden = GROUPS[own].length < 2;
      history.replaceState(null, "", `${location.pathname}${location.search}#${name}`);
    };
    NAMES.forEach((name) => { buttons[name].onclick = () => open(name); });
    Object.keys(GROUPS).forEach((group) => { tops[group].onclick = () => open(last[group] ?? GROUPS[group][0]); });
    groups.append(...Object.values(tops));
    tabs.append(...NAMES.map((name) => buttons[name]));
    [groups, tabs].forEach(arrows);
    box.replaceChildren(groups, tabs);
    const asked = location.hash.slice(1);
    open(NAMES.includes(asked) ? asked : NAMES[0]);
  };

  // The parts of a plan in words. Parts that it lacks are left out, except width and masks.
  ls.partsOf = (plan, depth, words) => {
    const shape = ls.knows("widths").data?.shape ?? {}, width = plan.width ?? {}, masks = plan.masks;
    const said = {
      heads: fill(words.making_heads, {count: width.heads, all: shape.heads}),
      neurons: fill(words.making_neurons, {count: width.neurons, all: shape.neurons}),
      channels: fill(words.making_channels, {count: width.channels, all: shape.channels}),
    };
    const cut = Object.keys(said).filter((axis) => width[axis] && width[axis] !== shape[axis]);
    const kinds = [...new Set((plan.repairs ?? []).map((repair) => repair.kind))].join(", ");
    return {
      depth: fill(words.making_depth, {depth: plan.depth, source: depth}),
      ...(kinds ? {seams: fill(words.making_repaired, {count: plan.repairs.length, kind: kinds})} : {}),
      ...(plan.blocks.some((block) => block.refits) ? {solved: words.making_solved} : {}),
      width: cut.length ? cut.map((axis) => said[axis]).concat(width.done.map((done) => words[`making_${done}`])).join(", ") : words.making_whole,
      masks: masks ? fill(words.making_masks, {share: Math.round(100 * masks.sparsity), method: [masks.method, masks.pattern].filter(Boolean).join(", ")}) : words.making_dense,
    };
  };

  // The current plan: its three parts, its size, its cost.
  views.making = (box, {words}) => {
    const plan = ls.shown, data = ls.map;
    if (!plan || !data) { box.replaceChildren(); return; }
    const made = Object.entries(ls.partsOf(plan, data.depth, words)).map(([name, text]) => element("span", {class: `ls-part ls-part-${name}`}, text));
    const weight = element("span", {class: "ls-part"}, fill(words.making_size, {parameters: (plan.parameters / 1e6).toFixed(1), bytes: size(plan.bytes)}));
    const cost = ls.costOf(plan), price = element("b", {class: "ls-part"}, cost ? ls.costWords(cost, words) : words.cost_measuring);
    box.setAttribute("aria-label", words.making);
    box.replaceChildren(...made, weight, price);
  };
})(window.layerscope);
