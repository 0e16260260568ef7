// The strip: source layers above, the plan's blocks below, and the folds between them. On a wide page its menu is to the right.
"use strict";

window.layerscope.strip = (box, depth, blocks, words, width) => {
  const {theme, fill} = window.layerscope;
  const t = theme();
  const svg = (tag, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const gap = width / depth > 14 ? 3 : 1.5;
  const cell = (width - 2 - (width > 600 ? 30 : 0)) / depth;
  const high = 30, between = 46, top = cell > 11 ? 1 : 14, below = top + high + between;
  const root = svg("svg", {width, height: below + high + 6, role: "img", class: "ls-strip", "aria-label": fill(words.strip_label, {from: depth, to: blocks.length})});

  // What each source layer contributes: its place (home), its projections (donor), both, or nothing.
  const homes = new Set(blocks.map((block) => block.home));
  const donors = new Set(blocks.flatMap((block) => block.mix.map(([layer]) => layer)));
  const folded = (block) => !(block.mix.length === 1 && block.mix[0][0] === block.home && block.mix[0][1] === 1);
  const part = (layer) => {
    const block = blocks.find((b) => b.home === layer);
    if (block) return folded(block) ? "home" : "kept";
    return donors.has(layer) ? "donor" : "gone";
  };
  const paint = {kept: t.kept, home: t.fold, donor: t.accent, gone: "none"};
  const x = (place, count) => 1 + place * cell + ((depth - count) * cell) / 2; // the plan's row is centred
  if (cell <= 11) { // too narrow for numbers inside: every fifth is written above
    for (let layer = 0; layer < depth; layer += 5) root.append(svg("text", {x: x(layer, depth) + cell / 2, y: 10, "text-anchor": "middle", "font-size": 9, fill: t.faint}, layer));
  }

  blocks.forEach((block, place) => {
    const last = Math.max(block.home, ...block.mix.map(([layer]) => layer));
    const first = Math.min(block.home, ...block.mix.map(([layer]) => layer));
    const [a, b, c, d] = [x(first, depth) + gap / 2, x(last + 1, depth) - gap / 2, x(place + 1, blocks.length) - gap / 2, x(place, blocks.length) + gap / 2];
    root.append(svg("path", {d: `M${a},${top + high} L${b},${top + high} L${c},${below} L${d},${below} Z`, fill: folded(block) ? t.fold : t.kept, "fill-opacity": folded(block) ? .3 : .12, class: "ls-link"}));
  });
  const draw = (layer, count, y, kind, name, title) => {
    const group = svg("g", {class: `ls-cell ls-${kind}`, [name]: layer.id});
    const left = x(layer.place, count) + gap / 2;
    group.append(svg("title", {}, title));
    group.append(svg("rect", {x: left, y, width: Math.max(1, cell - gap), height: high, rx: Math.min(4, cell / 5), fill: paint[kind], stroke: kind === "gone" ? t.faint : "none", "stroke-dasharray": "3 2"}));
    if (kind === "gone") group.append(svg("path", {d: `M${left + cell * .28},${y + 10} l${cell * .3},10 m0,-10 l-${cell * .3},10`, stroke: t.faint, "stroke-width": 1.2}));
    else if (cell > 11) group.append(svg("text", {x: left + (cell - gap) / 2, y: y + high / 2 + 4, "text-anchor": "middle", "font-size": Math.min(11, cell * .62), fill: kind === "kept" ? t.text : t.dark || kind === "home" ? "#111" : "#fff"}, layer.text));
    root.append(group);
  };
  for (let layer = 0; layer < depth; layer++) draw({id: layer, place: layer, text: layer}, depth, top, part(layer), "data-layer", `${words.layer} ${layer}: ${words[`is_${part(layer)}`]}`);
  blocks.forEach((block, place) => {
    const mix = block.mix.map(([layer, weight]) => (weight === 1 ? layer : `${Math.round(weight * 1000) / 1000}·${layer}`)).join(" + ");
    draw({id: place, place, text: block.home}, blocks.length, below, folded(block) ? "home" : "kept", "data-block", fill(words.block_title, {place, home: block.home, mix}));
    if (block.repair) root.append(svg("path", {d: `M${x(place, blocks.length) + gap / 2},${below + high + 4} h${Math.max(2, cell - gap)}`, stroke: t.accent, "stroke-width": 3, class: "ls-repair"}));
  });
  const [before] = box.getElementsByTagName("svg");
  if (before) before.replaceWith(root); else box.replaceChildren(root); // keeps the menu in place, and its focus
  window.layerscope.saving(box, () => blocks.map((block, place) => ({
    block: place, norms_of: block.home, projections_of: block.mix.map(([layer, weight]) => (weight === 1 ? layer : `${weight}*${layer}`)).join(" + "), repair: block.repair ?? "",
  })));
};
