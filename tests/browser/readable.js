// What a person cannot read or a screen reader cannot name on the page as it stands.
({
  // Every visible piece of text with too little contrast against what is behind it, by WCAG 2: the text and its ratio.
  faint: () => {
    const parse = (color) => { const v = color.match(/[\d.]+/g).map(Number); return {rgb: v.slice(0, 3), a: v[3] ?? 1}; };
    const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
    const over = (top, under) => top.rgb.map((v, i) => v * top.a + under[i] * (1 - top.a));
    const behind = (node) => { const found = []; for (let at = node; at; at = at.parentElement) { const c = parse(getComputedStyle(at).backgroundColor); if (c.a) found.push(c); if (c.a === 1) break; } return found.reverse().reduce((under, top) => over(top, under), [255, 255, 255]); };
    const rects = (node) => [...node.ownerSVGElement.querySelectorAll("rect")].filter((rect) => { // those drawn under an SVG's text
      const at = node.getBoundingClientRect(), box = rect.getBoundingClientRect(), [x, y] = [at.x + at.width / 2, at.y + at.height / 2];
      return rect.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING && box.left <= x && x <= box.right && box.top <= y && y <= box.bottom;
    });
    const painted = (node) => rects(node).map((rect) => getComputedStyle(rect)).filter(({fill}) => fill.startsWith("rgb"))
      .map((style) => ({...parse(style.fill), a: parse(style.fill).a * style.fillOpacity * style.opacity}));
    const walk = document.createTreeWalker(document.querySelector(".gradio-container"), NodeFilter.SHOW_TEXT), found = new Set();
    while (walk.nextNode()) {
      const node = walk.currentNode.parentElement, style = getComputedStyle(node), box = node.getBoundingClientRect();
      if (!walk.currentNode.textContent.trim() || !box.width || !node.checkVisibility({opacityProperty: true, visibilityProperty: true}) || node.closest("script, style, title, [aria-disabled=true], :disabled")) continue;
      let opacity = 1;
      for (let at = node; at; at = at.parentElement) opacity *= getComputedStyle(at).opacity;
      const drawn = node.ownerSVGElement, ground = (drawn ? painted(node) : []).reduce((under, top) => over(top, under), behind(node)), ink = parse(drawn ? style.fill : style.color), [a, b] = [light(over({rgb: ink.rgb, a: ink.a * opacity}, ground)), light(ground)].sort((x, y) => y - x);
      const ratio = (a + .05) / (b + .05);
      if (ratio < 4.5) found.add(`${walk.currentNode.textContent.trim().slice(0, 40)} (${node.className}): ${ratio.toFixed(2)}`);
    }
    return [...found];
  },

  // Every control a person can reach that a screen reader could not name.
  nameless: () => [...document.querySelectorAll(".gradio-container :is(input, textarea, select, button, [tabindex='0'], [role=button], [role=img])")]
    .filter((node) => node.checkVisibility({visibilityProperty: true}) && node.getBoundingClientRect().width && node.type !== "hidden")
    .filter((node) => !(node.getAttribute("aria-label")?.trim() || node.getAttribute("aria-labelledby") || node.labels?.[0]?.textContent.trim() || node.title || node.innerText?.trim()))
    .map((node) => node.outerHTML.slice(0, 120)),
})
