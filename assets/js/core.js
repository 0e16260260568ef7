// Shared chart code: one private handle on Plotly, colours from the page's theme, mounting and redrawing. A view is a function
// draw(box, state) that paints `state` into `box`; state is {data, value, words, ...}.
"use strict";

window.layerscope = (() => {
  // Gradio's <base href="./"> makes Plotly name clip paths by the page's whole address. When a slider changes the address, the
  // browser would fetch every clip path again and not find it. Gradio's own files do not need the tag.
  document.querySelector('base[href="./"]')?.remove();
  const Plotly = window.Plotly;
  const views = {};
  const mounted = new Map(); // every mounted view by name: {take, draw, told}

  // Okabe-Ito colours: distinct for colour-blind readers, in both themes.
  const ink = {fold: "#D55E00", donor: "#0072B2", good: "#009E73", warn: "#CC79A7"};
  const several = [ink.donor, ink.fold, ink.good, ink.warn, "#E69F00", "#56B4E9"]; // for several curves in one chart

  let known = null; // cached: reading a computed style forces a layout, and the theme changes rarely
  const theme = () => (known ??= readTheme());
  const readTheme = () => {
    const style = getComputedStyle(document.body);
    const of = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
    const dark = document.body.classList.contains("dark");
    return {
      dark,
      text: of("--body-text-color", dark ? "#eee" : "#222"),
      faint: of("--body-text-color-subdued", "#888"),
      line: dark ? "#4a4f5a" : "#d5d8de",
      kept: dark ? "#5b6472" : "#b9c0cb",
      accent: dark ? "#56B4E9" : ink.donor,
      costs: dark ? ["#3CC79B", "#3CC79B", "#56B4E9", "#F28E3C", "#F28E3C"] : ["#00724F", "#00724F", "#0072B2", "#B34700", "#B34700"], // the report's colours
      fold: dark ? "#F28E3C" : ink.fold,
    };
  };

  // Axes and background for both themes; `more` is merged over them.
  const layout = (height, more = {}) => {
    const t = theme();
    const axis = {gridcolor: t.line, zerolinecolor: t.line, linecolor: t.line, automargin: true, title: {standoff: 8}};
    return {
      height, paper_bgcolor: "transparent", plot_bgcolor: "transparent", showlegend: false, dragmode: false,
      font: {color: t.text, size: 12, family: "inherit"}, margin: {l: 48, r: 12, t: 10, b: 44},
      hoverlabel: {font: {family: "inherit"}},
      ...more, xaxis: {...axis, ...more.xaxis}, yaxis: {...axis, ...more.yaxis},
    };
  };

  const config = {displayModeBar: false, displaylogo: false, showSendToCloud: false, responsive: false};
  const plot = (box, traces, more, height) => { Plotly.react(box, traces, layout(height, more), config); window.layerscope.saving(box); };
  const colorbar = (title) => ({thickness: 10, outlinewidth: 0, title: {text: title, side: "right"}});

  const parse = (text, fallback = null) => { try { return JSON.parse(text); } catch { return fallback; } };
  const fill = (template, values) => template.replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
  const number = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits));

  const times = (ratio) => (ratio === null || ratio === undefined ? "–" : ratio < 10 ? `×${ratio.toFixed(2)}` : ratio < 1e6 ? `×${Math.round(ratio)}` : `×${ratio.toExponential(1)}`);
  const between = (low, high) => (low === null || high === null ? "" : `[${number(low, 2)}–${number(high, 2)}]`); // a single text has no interval
  const rated = (ratio, [low, high]) => [times(ratio), between(low, high)].filter(Boolean).join(" ");
  const size = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : bytes >= 1e3 ? `${(bytes / 1e3).toFixed(1)} kB` : `${bytes} B`);

  // A log axis of ratios from 1, or their minimum, to `highest`, with padding (in powers of ten) below and above. Ticks at 1, 2
  // and 5 of each power of ten, or at powers alone where the range is wide.
  const ratioAxis = (ratios, highest, [below, above], wide = highest >= 50) => {
    const least = Math.max(1e-3, Math.min(1, ...ratios.filter((ratio) => ratio > 0)));
    const ends = [Math.log10(least), Math.log10(highest)], room = .06 * (ends[1] - ends[0]); // padding of half a marker
    const range = [ends[0] - Math.max(below, room), ends[1] + Math.max(above, room)];
    const values = [-3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8].flatMap((power) => (wide ? [1] : [1, 2, 5]).map((digit) => Number(`${digit}e${power}`)));
    const tickvals = values.filter((value) => Math.log10(value) >= range[0] && Math.log10(value) <= range[1]);
    return {type: "log", range, tickvals, ticktext: tickvals.map((v) => `×${v}`)};
  };

  const element = (tag, attributes = {}, text = null) => {
    const made = document.createElement(tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    if (text !== null) made.textContent = text; // textContent, so that user input is never parsed as markup
    return made;
  };

  const transposed = (rows) => rows[0].map((_, column) => rows.map((row) => row[column]));
  // Projections by the last part of their names, or the whole name where two share it.
  const projectionNames = (names) => { const short = names.map((name) => name.split(".").pop()); return new Set(short).size < names.length ? names : short; };
  const percent = (share) => `${Math.round(100 * share)}`;

  // The element of a view with this class name, made on first use.
  const part = (box, name) => box.querySelector(`.${name}`) ?? box.appendChild(element("div", {class: name}));

  // The properties that updates set on a view. Only `value` goes through Gradio too, because Gradio's events may set it.
  const TOLD = ["data", "value", "stale", "hand", "file", "found", "judged", "marks", "alone", "opened"];
  const early = {}; // updates for views that are not mounted yet, by name

  // Called by the component once its element is on the page. Redraws on updates and on a change of theme or width.
  const mount = (name, host, given, trigger, watch) => {
    const words = window.layerscope.words = window.layerscopeWords[given.language], {panel} = given;
    const props = Object.fromEntries(TOLD.map((prop) => [prop, given[prop]]));
    const box = host.querySelector(".ls-view");
    const local = {}; // the user's choices in this view: survive redraws, not reloads
    let [sent, data] = [null, null]; // the last data from Python, parsed once
    const read = () => { if (sent !== props.data) [sent, data] = [props.data, parse(props.data ?? "")]; return data; };
    const value = () => parse(props.value, {});
    const look = () => views[name].told?.({data: read(), value: value(), props, trigger, local}); // keeps the state that other views read, also while this tab is hidden
    let width = 0, due = false; // width: from the observer, because reading it forces a layout
    const draw = () => {
      look();
      box.classList.toggle("ls-stale", props.stale === "yes");
      if (!box.isConnected || !width) return;
      read();
      box.classList.toggle("ls-empty", !data && !panel);
      if (!data && !panel) {
        views[name].none?.(); // clears the state that other views read
        box.replaceChildren(element("p", {class: "ls-waiting"}, words[`waiting_${name}`] ?? words.waiting));
        return;
      }
      if (box.querySelector(".ls-waiting")) box.replaceChildren();
      views[name](box, {data, value: value(), words, props, trigger, local, draw, width});
    };
    const soon = () => { if (!due) { due = true; queueMicrotask(() => { due = false; draw(); }); } }; // one draw for all updates of a microtask
    const take = (fresh) => {
      if (Object.entries(fresh).every(([prop, now]) => props[prop] === now)) return;
      Object.assign(props, fresh);
      if (given.value !== props.value) given.value = props.value;
      look();
      soon();
      heard();
    };
    watch("value", () => take({value: given.value}));
    new ResizeObserver(() => { if (box.clientWidth !== width) { width = box.clientWidth; draw(); } }).observe(box);
    mounted.set(name, {take, draw: soon, told: () => ({data: read(), value: value(), stale: props.stale === "yes", trigger})});
    draw();
    heard();
    take(early[name] ?? {});
  };

  // One component receives all updates and hands them on: updating each view through Gradio costs ten times as much.
  views.news = () => {};
  views.news.told = ({value}) => Object.entries(value.views ?? {}).forEach(([name, fresh]) => {
    if (mounted.has(name)) mounted.get(name).take(fresh);
    else early[name] = {...early[name], ...fresh};
  });

  new MutationObserver(() => { known = null; mounted.forEach(({draw}) => draw()); })
    .observe(document.body ?? document.documentElement, {attributes: true, attributeFilter: ["class"]});

  // A view's last update, also while its tab is hidden. `heard` runs after every update.
  const knows = (name) => mounted.get(name)?.told() ?? {data: null, value: {}};
  const heard = () => window.layerscope.heard?.();

  const redraw = (name) => mounted.get(name)?.draw(); // for a view that shows another view's state

  return {Plotly, views, knows, redraw, ink, several, theme, plot, colorbar, parse, fill, number, times, between, rated, size, ratioAxis, transposed, percent, projectionNames, element, part, mount};
})();
