// One fold as a picture with large letters: the source layers with their neighbours above, the remaining layers below.
"use strict";

(({theme}) => {
  const ls = window.layerscope;
  const svg = (tag, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // The groups of source layers that become fewer, in order: {first, last, kind, lost, block}. A removed layer belongs to the
  // block whose rule removed it. Without such a rule its kind is `dropped` and its block null.
  ls.groups = (depth, blocks, rule) => {
    const groups = blocks.map((block) => {
      const layers = [block.home, ...block.mix.map(([layer]) => layer)], [[layer, weight]] = block.mix;
      const kind = block.mix.length > 1 ? (new Set(block.mix.map(([, one]) => one)).size === 1 ? "mean" : "mix") : layer === block.home && weight === 1 ? "one" : "donor";
      return {first: Math.min(...layers), last: Math.max(...layers), kind, block};
    });
    const inside = (layer) => groups.some(({first, last}) => first <= layer && layer <= last);
    const used = new Set(blocks.flatMap((block) => [block.home, ...block.mix.map(([layer]) => layer)]));
    ls.runs([...Array(depth).keys()].filter((layer) => !inside(layer))).forEach(([first, last]) => {
      const after = rule === "keep-last" && groups.find((one) => one.block && one.first === last + 1), before = rule === "keep-first" && groups.find((one) => one.block && one.last === first - 1);
      if (after) after.first = first; else if (before) before.last = last; else groups.push({first, last, kind: "dropped", block: null});
    });
    return groups.filter(({first, last, kind}) => last > first || kind === "dropped").sort((a, b) => a.first - b.first)
      .map((group) => ({...group, lost: [...Array(group.last - group.first + 1).keys()].map((place) => group.first + place).filter((layer) => !used.has(layer))}));
  };

  // The layers drawn: the group and a neighbour on either side; null stands for layers left out in the middle for lack of room.
  const shownIn = ({first, last}, depth, most) => {
    const layers = [...Array(last - first + 1).keys()].map((place) => first + place), side = Math.max(1, Math.floor((most - 3) / 2));
    const inner = layers.length > most - 2 ? [...layers.slice(0, side), null, ...layers.slice(-side)] : layers;
    return [...(first > 0 ? [first - 1] : []), ...inner, ...(last < depth - 1 ? [last + 1] : [])];
  };

  ls.foldPicture = (box, group, depth, says, words, width, height) => {
    const t = theme(), {block, kind} = group, cells = shownIn(group, depth, Math.max(5, Math.min(14, Math.floor(width / 62))));
    const cell = Math.min(150, (width - 8) / cells.length), high = Math.min(74, cell * .72), big = Math.max(14, Math.min(34, cell * .36)), small = Math.max(13, Math.min(24, width / 38)), gap = Math.min(10, cell / 9);
    const top = small + 12, below = height - high - 6, left = (width - cell * cells.length) / 2;
    const root = svg("svg", {width, height, role: "img", "aria-label": says});
    const outer = (layer) => layer < group.first || layer > group.last;
    const paint = {kept: [t.kept, t.text], home: [t.costs[3], t.dark ? "#111" : "#fff"], donor: [t.costs[2], t.dark ? "#111" : "#fff"], gone: ["none", t.text]};
    const part = (layer) => {
      if (outer(layer)) return "kept";
      if (!block) return "gone";
      if (layer === block.home) return "home";
      return block.mix.some(([one]) => one === layer) ? "donor" : "gone";
    };
    const draw = (x, y, text, role) => {
      const [ground, ink] = paint[role], group = svg("g", {class: `ls-${role}`});
      group.append(svg("rect", {x: x + gap / 2, y, width: cell - gap, height: high, rx: 8, fill: ground, stroke: role === "gone" ? t.faint : "none", "stroke-width": 2, "stroke-dasharray": "7 5"}));
      group.append(svg("text", {x: x + cell / 2, y: y + high / 2 + big * .36, "text-anchor": "middle", "font-size": big, fill: ink, "font-weight": 600, ...(role === "gone" ? {"text-decoration": "line-through"} : {})}, text));
      root.append(group);
    };
    const place = (layer) => left + cells.indexOf(layer) * cell;
    const row = [...cells.filter((layer) => layer !== null && layer < group.first), ...(block ? ["new"] : []), ...cells.filter((layer) => layer !== null && layer > group.last)];
    const under = (what) => (width - cell * row.length) / 2 + row.indexOf(what) * cell;
    root.append(svg("text", {x: left + gap / 2, y: small, "font-size": small, fill: t.text}, words.of_source), svg("text", {x: under(row[0]) - 12, y: below + high / 2 + small * .36, "text-anchor": "end", "font-size": small, fill: t.text}, words.of_plan));
    row.filter((layer) => layer !== "new").forEach((layer) => {
      const [a, c] = [place(layer), under(layer)];
      root.append(svg("path", {d: `M${a + gap / 2},${top + high} h${cell - gap} L${c + cell - gap / 2},${below} h${gap - cell} Z`, fill: t.kept, "fill-opacity": .35}));
    });
    cells.forEach((layer, index) => (layer === null ? root.append(svg("text", {x: left + (index + .5) * cell, y: top + high / 2, "text-anchor": "middle", "font-size": big, fill: t.text}, "…")) : draw(place(layer), top, layer, part(layer))));
    row.forEach((what) => draw(under(what), below, what === "new" ? block.home : what, what === "new" ? "home" : "kept"));
    if (block) gives(root, {block, kind, cells, place, x: under("new") + cell / 2, from: top + high, to: below, cell, small, t}, words);
    box.replaceChildren(root);
  };

  // The parts of the new block: an arrow from each layer that contributes, labelled with its contribution.
  const gives = (root, {block, kind, cells, place, x, from, to, cell, small, t}, words) => {
    const arrow = (layer, color, text, side) => {
      const at = place(layer) + cell / 2, end = x + side * cell * .2, half = (from + to) / 2;
      root.append(svg("path", {d: `M${at},${from + 3} C${at},${half} ${end},${half} ${end},${to - 14}`, fill: "none", stroke: color, "stroke-width": 6}), svg("path", {d: `M${end - 10},${to - 15} h20 l-10,13 Z`, fill: color}));
      if (text) root.append(svg("text", {x: (at + end) / 2 + (side || 1) * 14, y: half + small * .3, "text-anchor": side < 0 ? "end" : "start", "font-size": small, fill: t.text, stroke: t.dark ? "#0b0f19" : "#fff", "stroke-width": 6, "paint-order": "stroke", "stroke-linejoin": "round"}, text));
    };
    const [home, donor] = [t.costs[3], t.costs[2]];
    if (kind === "one") { arrow(block.home, home, words.present_whole, place(block.home) + cell / 2 > x ? 1 : -1); return; }
    if (kind === "donor") { arrow(block.mix[0][0], donor, words.present_projections, 1); arrow(block.home, home, words.present_norms, -1); return; }
    block.mix.filter(([layer]) => cells.includes(layer)).forEach(([layer, weight]) => {
      arrow(layer, layer === block.home ? home : donor, "", Math.sign(place(layer) + cell / 2 - x) || 0);
      root.append(svg("text", {x: place(layer) + cell / 2 + 8, y: from + small + 8, "font-size": small, fill: t.text, stroke: t.dark ? "#0b0f19" : "#fff", "stroke-width": 6, "paint-order": "stroke"}, `×${Math.round(weight * 100) / 100}`.replace("-", "−")));
    });
  };
})(window.layerscope);
