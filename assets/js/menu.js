// The menu of every chart: save it as SVG, as PNG for a slide or a paper's column, or its data as CSV. All charts share one menu.
// A picture is drawn again in the paper's colours, in any theme, without the server.
"use strict";

(() => {
  const ls = window.layerscope, {element} = ls;
  const PAPER = {text: "#1f2328", faint: "#57606a", line: "#d5d8de", kept: "#b9c0cb", accent: "#0072B2", fold: "#D55E00"};
  const FONT = "Arial, 'Noto Sans KR', 'Noto Sans CJK KR', 'Apple SD Gothic Neo', 'Malgun Gothic', sans-serif";
  const SLIDE = [640, 360, 5]; // 3200 x 1800 pixels: a slide of 1600 x 900 at double resolution, with letters of 30 pixels on it
  const COLUMN = [335, null, 3]; // 1005 pixels: 3.35 inches at 300 dpi, with letters of nine points

  const onPaper = (text) => { const t = ls.theme(); return Object.entries(PAPER).reduce((done, [name, color]) => done.replaceAll(t[name], color), text); };
  const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

  const plotly = (box) => ({
    svg: () => picture(box, box.clientWidth, box.clientHeight, 1, "svg"),
    png: async ([width, height, scale]) => bytes(await picture(box, width, height ?? Math.round(width * Math.min(1, Math.max(.62, box.clientHeight / box.clientWidth))), scale, "png")),
    rows: () => box.data.filter((trace) => trace.hoverinfo !== "skip").flatMap((trace) => rowsOf(trace, box.layout)), // traces without hover are decoration
  });
  const picture = (box, width, height, scale, format) => {
    const {data, layout} = JSON.parse(onPaper(JSON.stringify({data: box.data, layout: box.layout})));
    Object.assign(layout, {width, height, autosize: false, paper_bgcolor: "#fff", plot_bgcolor: "#fff", font: {...layout.font, family: FONT}});
    return ls.Plotly.toImage({data, layout, config: {}}, {format, width, height, scale, imageDataOnly: true});
  };

  const title = (layout, axis) => layout[`${axis[0]}axis${axis.slice(1)}`]?.title?.text;
  const rowsOf = (trace, layout) => {
    const meta = trace.meta ?? {};
    const extra = (place) => Object.fromEntries(Object.entries(meta.columns ?? {}).map(([name, values]) => [name, values[place]]));
    if (!trace.z && !trace.x) return Object.values(meta.columns ?? {})[0]?.map((_, place) => extra(place)) ?? [];
    let [x, y] = ["x", "y"].map((axis) => meta[axis] ?? title(layout, trace[`${axis}axis`] ?? axis) ?? axis);
    if (x === y) [x, y] = [`${x}, x`, `${y}, y`];
    if (trace.z) return trace.z.flatMap((row, i) => row.map((z, j) => ({[y]: trace.y?.[i] ?? i, [x]: trace.x?.[j] ?? j, [trace.colorbar?.title?.text ?? "z"]: z})));
    return trace.x.map((value, i) => ({...(trace.name ? {series: trace.name} : {}), [x]: value, [y]: trace.y[i], ...(trace.text ? {note: trace.text[i]} : {}), ...extra(i)}))
      .filter((row) => row[x] !== null && row[y] !== undefined);
  };

  const strip = (box, rows) => {
    const [root] = box.getElementsByTagName("svg"), [width, height] = ["width", "height"].map((name) => Number(root.getAttribute(name)));
    const svg = () => {
      const made = root.cloneNode(true);
      made.setAttribute("xmlns", "http://www.w3.org/2000/svg");
      made.setAttribute("viewBox", `0 0 ${width} ${height}`);
      made.setAttribute("font-family", FONT);
      made.insertAdjacentHTML("afterbegin", `<rect width="${width}" height="${height}" fill="#fff"/>`);
      made.querySelectorAll(".ls-donor text").forEach((text) => text.setAttribute("fill", "#fff"));
      return onPaper(new XMLSerializer().serializeToString(made));
    };
    const png = async ([wide, , scale]) => {
      const image = new Image(), canvas = element("canvas", {width: wide * scale, height: Math.round((wide * scale * height) / width)});
      image.src = `data:image/svg+xml,${encodeURIComponent(svg())}`;
      await image.decode();
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      return bytes(canvas.toDataURL("image/png").split(",")[1]);
    };
    return {svg, png, rows};
  };

  const quoted = (value) => { const text = `${value ?? ""}`; return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
  const csv = (rows) => {
    const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
    const text = [names, ...rows.map((row) => names.map((name) => row[name]))].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
    return /[^\x00-\x7f]/.test(text) ? `\ufeff${text}` : text; // without a byte order mark Excel misreads all but ASCII
  };

  // A chart's name: its view, and its part of the view.
  const nameOf = (box) => {
    const view = box.closest(".ls-view")?.parentElement.closest("[id^=ls-]")?.id.slice(3) ?? "chart";
    const inside = [...box.classList].find((name) => name.startsWith("ls-") && !["ls-map", "ls-chart"].includes(name))?.slice(3).replace(/box$/, "");
    const place = [...(box.closest(".ls-strips")?.children ?? [])].indexOf(box.parentElement) + 1;
    return [ls.model ?? "model", view, place ? `strip-${place}` : inside !== view && inside].filter(Boolean).join("-").replace(/[^\p{L}\p{N}._-]+/gu, "-");
  };

  const list = element("div", {class: "ls-menu", role: "menu", id: "ls-menu"});
  list.popover = "auto"; // closes on Escape and on a click elsewhere, and returns the focus
  let from = null;
  const open = (box) => {
    const name = nameOf(box), kind = () => (box.savedRows ? strip(box, box.savedRows) : plotly(box));
    const items = {
      save_svg: async () => ls.save(`${name}.svg`, await kind().svg(), "image/svg+xml"),
      save_slide: async () => ls.save(`${name}-slide.png`, await kind().png(SLIDE), "image/png"),
      save_column: async () => ls.save(`${name}-column.png`, await kind().png(COLUMN), "image/png"),
      save_csv: async () => ls.save(`${name}.csv`, csv(kind().rows()), "text/csv"),
    };
    list.replaceChildren(...Object.entries(items).map(([what, act]) => {
      const item = element("button", {type: "button", role: "menuitem", tabindex: -1, "data-save": what}, ls.words[what]);
      item.onclick = () => { list.hidePopover(); act(); };
      return item;
    }));
  };
  list.onkeydown = (event) => {
    const items = [...list.children], at = items.indexOf(document.activeElement);
    const to = {ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1}[event.key];
    if (event.key === "Tab") list.hidePopover();
    if (to === undefined) return;
    event.preventDefault();
    items.at(to % items.length).focus();
  };
  list.addEventListener("toggle", (event) => {
    if (event.newState !== "open") return;
    const at = from.getBoundingClientRect(), below = at.bottom + list.offsetHeight + 8 < innerHeight;
    Object.assign(list.style, {left: `${Math.max(8, at.right - list.offsetWidth)}px`, top: `${below ? at.bottom + 4 : at.top - list.offsetHeight - 4}px`});
    list.firstChild.focus();
  });
  addEventListener("scroll", (event) => { if (event.target !== list && list.matches(":popover-open")) list.hidePopover(); }, {capture: true, passive: true});

  // Add the menu button to a chart, once. `rows` gives the data of a chart without Plotly.
  ls.saving = (box, rows = null) => {
    box.savedRows = rows;
    if (box.savedBy?.isConnected) return;
    if (!list.isConnected) document.body.append(list);
    const button = box.savedBy = element("button", {type: "button", class: "ls-save", "aria-label": ls.words.save_chart, title: ls.words.save_chart, "aria-haspopup": "menu"}, "⋯");
    button.popoverTargetElement = list;
    button.onclick = (event) => { event.stopPropagation(); from = button; open(box); };
    button.onkeydown = (event) => event.stopPropagation(); // the charts have their own keys
    box.classList.add("ls-chart");
    box.append(button);
  };
})();
