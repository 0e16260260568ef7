// Fold: T answered from the map without asking anybody; the strip, the trace, depth over T, the plan in words.
"use strict";

(({views, plot, fill, number, times, size, element, part, theme, parse, strip}) => {
  const ls = window.layerscope;
  const stepAt = (map, T) => map.steps.find((step) => T >= step.t_from) ?? map.steps.at(-1);
  const steps = (map, layers) => map.steps.filter((step) => step.depth === layers);

  // A T of four decimals that lies in the step, or its exact lower end where the step is narrower than that.
  const shortest = (step) => { const T = Math.ceil(step.t_from * 1e4) / 1e4; return T < step.t_to ? T : step.t_from; };

  // Neighbouring intervals of T joined into one where only the folds differ, not the depth.
  const joined = (found) => found.reduce((done, step) => {
    if (done.length && done.at(-1)[0] === step.t_to) done.at(-1)[0] = step.t_from; else done.push([step.t_from, step.t_to]);
    return done;
  }, []);

  ls.map = null; // the map the page shows; the sliders' handlers below look things up in it
  ls.snap = (T, on) => (on && ls.map ? shortest(stepAt(ls.map, T)) : T);
  ls.depthAt = (T) => (ls.map ? stepAt(ls.map, T).depth : null);
  ls.nearest = (layers) => {
    if (!ls.map) return null;
    const best = Math.min(...ls.map.steps.map((step) => Math.abs(step.depth - layers)));
    return shortest(ls.map.steps.find((step) => Math.abs(step.depth - layers) === best));
  };

  ls.savePlan = () => {
    if (ls.shown) ls.save(`plan-${ls.shown.depth}-layers.json`, JSON.stringify({source_depth: ls.map.depth, blocks: ls.shown.blocks, method: ls.shown.method, settings: ls.shown.settings, ...(ls.shown.repairs ? {repairs: ls.shown.repairs} : {}), model: {name: ls.map.model, fingerprint: ls.map.fingerprint}}, null, 1));
  };

  const runs = (layers) => layers.reduce((found, layer) => {
    const last = found.at(-1);
    if (last && layer === last[1] + 1) last[1] = layer; else found.push([layer, layer]);
    return found;
  }, []);
  const name = (first, last) => (first === last ? `${first}` : `${first}–${last}`);

  // The same sentences as engine/plans/files.py describe(), in the page's language.
  const sentences = (depth, blocks, words) => {
    const used = new Set(blocks.flatMap((block) => [block.home, ...block.mix.map(([layer]) => layer)]));
    const gone = new Set([...Array(depth).keys()].filter((layer) => !used.has(layer)));
    const said = blocks.filter((block) => block.mix.length > 1 || block.mix[0][0] !== block.home).map((block) => {
      const layers = block.mix.map(([layer]) => layer);
      const last = Math.max(block.home, ...layers);
      const lost = runs([...gone].filter((layer) => layer > block.home && layer < last)).map(([a, b]) => name(a, b)).join(", ");
      for (let layer = block.home; layer <= last; layer++) gone.delete(layer);
      const values = {layers: name(block.home + 1, last), home: block.home, donor: layers[0], lost, mix: block.mix.map(([layer, weight]) => `${weight > 0 ? "+" : ""}${Math.round(weight * 1000) / 1000}·W${layer}`).join(" ")};
      if (layers.length === 1) return fill(lost ? words.fold_lost : words.fold_one, values);
      return fill(new Set(block.mix.map(([, weight]) => weight)).size === 1 ? words.fold_mean : words.fold_mix, values);
    });
    blocks.forEach((block, place) => { if (block.repair) said.push(fill(words.repaired_at, {place, home: block.home})); });
    runs([...gone].sort((a, b) => a - b)).forEach(([first, last]) => said.push(fill(words.dropped, {layers: name(first, last)})));
    return said.length ? said : [words.nothing];
  };

  const key = (box, t, words, repaired) => {
    if (box.dataset.drawn === `${t.dark} ${repaired}`) return;
    box.dataset.drawn = `${t.dark} ${repaired}`;
    box.replaceChildren(...[["kept", t.kept], ["home", t.fold], ["donor", t.accent], ["gone", "none"], ...(repaired ? [["repaired", t.accent]] : [])].map(([kind, color]) => {
      const item = element("span", {class: "ls-key"});
      const look = kind === "repaired" ? `height:3px;background:${color}` : `background:${color};border:1px ${kind === "gone" ? `dashed ${t.faint}` : `solid ${color}`}`;
      item.append(element("i", {style: look}), element("span", {}, words[`is_${kind}`]));
      return item;
    }));
  };

  // Both charts keep their room and their ranges from map to map, so that nothing jumps, no second layout is needed, and
  // the marks that follow T can be laid over them by arithmetic, without asking Plotly to draw.
  const HEIGHT = 280, ROOM = {l: 52, r: 14, t: 34, b: 46, autoexpand: false};
  const still = {automargin: false};
  const across = (value, [from, to], width) => ROOM.l + ((value - from) / (to - from)) * (width - ROOM.l - ROOM.r);
  const down = (value, [from, to]) => HEIGHT - ROOM.b - ((value - from) / (to - from)) * (HEIGHT - ROOM.b - ROOM.t);
  const mark = (box, name, style, text = "") => {
    const made = box.querySelector(`.${name}`) ?? box.appendChild(element("div", {class: `ls-mark ${name}`}));
    Object.assign(made.style, style);
    if (made.textContent !== text) made.textContent = text;
    return made;
  };
  const redrawn = (box, ...as) => { // true where what the chart was drawn from has changed
    const same = box.drawnAs?.every((value, index) => value === as[index]);
    box.drawnAs = as;
    return !same;
  };

  const trace = (box, map, step, T, words, width) => {
    const t = theme();
    const range = map.range ??= (() => { // of all that was ever tried, so that the axis stands still
      const all = map.steps.flatMap((s) => s.trials).filter((r) => r.similarity !== null);
      return [Math.min(.9, ...all.map((r) => r.similarity - r.spread)) - .03, 1.02];
    })();
    if (redrawn(box, map, step, t.dark, width)) {
      const of = (accepted) => step.trials.filter((trial) => trial.accepted === accepted);
      const dots = (trials, title, marker) => ({
        type: "scatter", mode: "markers", name: title, x: trials.map((r) => r.pointer), y: trials.map((r) => r.similarity), marker,
        meta: {columns: {spread: trials.map((r) => r.spread)}},
        text: trials.map((r) => fill(words.trial, {first: r.pointer + 1, last: r.pointer + r.absorbed, pointer: r.pointer, depth: r.depth_after})),
        hovertemplate: `%{text}<br>${words.cosine} %{y:.4f}<extra>${title}</extra>`,
      });
      const spread = { // over texts, as one broken line: error bars would be a path each
        type: "scatter", mode: "lines", showlegend: false, hoverinfo: "skip", line: {color: t.faint, width: 1},
        x: step.trials.flatMap((r) => [r.pointer, r.pointer, null]), y: step.trials.flatMap((r) => [r.similarity - r.spread, r.similarity + r.spread, null]),
      };
      plot(box, [
        spread,
        dots(of(false), words.rejected, {symbol: "x-thin", size: 9, line: {color: t.faint, width: 2}}),
        dots(of(true), words.accepted, {symbol: "circle", size: 11, color: t.fold}),
      ], {
        showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, margin: ROOM,
        xaxis: {...still, title: {text: words.pointer}, range: [map.depth - 1, -1]}, yaxis: {...still, title: {text: words.cosine}, range},
      }, HEIGHT);
    }
    const line = mark(box, "ls-t", {left: `${ROOM.l}px`, right: `${ROOM.r}px`, top: `${down(T, range)}px`, borderTop: `2px dashed ${t.accent}`, color: t.accent}, `T = ${number(T, 4)}`);
    line.dataset.t = T;
  };

  const overT = (box, map, step, T, words, width, judged) => {
    const t = theme();
    const depths = map.steps.map((s) => s.depth);
    const xs = [map.t_min, 1.005], ys = [Math.min(...depths) - .5, Math.max(...depths) + .5];
    if (redrawn(box, map, t.dark, width, judged)) {
      const known = map.steps.map((s, index) => ({s, ratio: judged[index]})).filter(({ratio}) => ratio !== undefined);
      const ends = [...map.steps].reverse();
      plot(box, [{
        type: "scatter", mode: "lines", x: ends.flatMap((s) => [Math.max(s.t_from, map.t_min), Math.min(s.t_to, 1)]), y: ends.flatMap((s) => [s.depth, s.depth]),
        line: {color: t.accent, width: 2}, hovertemplate: `T %{x:.4f}: %{y} ${words.layers}<extra></extra>`,
      }, { // what judging has measured, where it has
        type: "scatter", mode: "markers", x: known.map(({s}) => (Math.max(s.t_from, map.t_min) + Math.min(s.t_to, 1)) / 2), y: known.map(({s}) => s.depth), text: known.map(({ratio}) => times(ratio)),
        marker: {symbol: "diamond", size: 9, line: {color: t.text, width: 1}, colorscale: "Cividis", reversescale: true, cmin: 0, cmax: 2, color: known.map(({ratio}) => (ratio === null ? 9 : Math.log10(ratio)))},
        hovertemplate: `${words.perplexity_ratio} %{text}<extra></extra>`,
      }], {margin: ROOM, xaxis: {...still, title: {text: "T"}, range: xs}, yaxis: {...still, title: {text: words.layers_left}, range: ys, tickformat: "d", nticks: 7}}, HEIGHT);
      box.removeAllListeners?.("plotly_click");
      box.on("plotly_click", (event) => { ls.picked = shortest(stepAt(map, event.points[0].x)); ls.pick?.(); });
    }
    const left = `${across(T, xs, width)}px`;
    mark(box, "ls-now", {left, top: `${ROOM.t}px`, bottom: `${ROOM.b}px`, borderLeft: `2px dashed ${t.fold}`});
    mark(box, "ls-dot", {left, top: `${down(step.depth, ys)}px`, background: t.fold});
  };

  views.fold = (box, {data, value, words, props, trigger, local, width}) => {
    if (local.drawn !== props.data) { // a new map: what depends on it outside this view follows
      ls.map = data;
      local.drawn = props.data;
      setTimeout(() => trigger("synced", {}), 0);
    }
    ls.pick = () => trigger("pick", {T: ls.picked});
    const T = Number(value.T ?? .65);
    const step = stepAt(data, T);
    const hand = {"hand-made": parse(props.hand), file: parse(props.file), found: parse(props.found)}[value.plan] ?? null; // else the map's
    const plan = hand ?? {...step, method: "laco", settings: {...data.settings, T: step.t_from}};
    ls.shown = plan;
    if (local.judgedText !== props.judged) [local.judgedText, local.judged] = [props.judged, parse(props.judged, {})];
    const judged = local.judged ?? {};
    const row = part(box, "ls-figures"), says = part(box, "ls-says"), stripBox = part(box, "ls-stripbox"), legend = part(box, "ls-legend"), charts = part(box, "ls-pair");
    const figure = (value, label) => { const item = element("div", {class: "ls-figure"}); item.append(element("b", {}, value), element("span", {}, label)); return item; };
    row.replaceChildren(
      figure(`${plan.depth} / ${data.depth}`, words.layers_left),
      figure(`${(plan.parameters / 1e6).toFixed(1)} M`, fill(words.parameters, {share: Math.round((100 * plan.parameters) / data.parameters)})),
      figure(size(plan.bytes), fill(words.weight_of, {dtype: data.dtype})),
      figure(number(plan.similarity, 3), words.final_similarity),
      ...(!hand && judged[data.steps.indexOf(step)] !== undefined ? [figure(times(judged[data.steps.indexOf(step)]), words.perplexity_ratio)] : []),
    );
    strip(stripBox, data.depth, plan.blocks, words, width);
    key(legend, theme(), words, plan.blocks.some((block) => block.repair));
    const list = element("ul", {});
    sentences(data.depth, plan.blocks, words).forEach((sentence) => list.append(element("li", {}, sentence)));
    says.replaceChildren(element("p", {class: "ls-rule"}, fill(hand ? words.ran_hand : words.ran, {rule: data.rule, definition: data.definition, texts: data.texts, calibration: data.calibration, model: data.model})), list);
    if (plan.conflicts?.length) says.append(element("p", {class: "ls-warning"}, fill(words.conflict, {homes: plan.conflicts.join(", ")})));
    if (data.monotone === false) {
      const found = joined(steps(data, step.depth));
      says.append(element("p", {class: "ls-hint"}, fill(found.length > 1 ? words.several : words.single, {layers: step.depth, count: found.length, intervals: found.slice(0, 4).map(([from, to]) => `[${number(from, 4)}, ${number(to, 4)})`).join(" ") + (found.length > 4 ? " …" : "")})));
    }
    const left = part(charts, "ls-trace"), right = part(charts, "ls-steps");
    const half = window.innerWidth >= 1000 ? (width - 8) / 2 : width; // as the style sheet has it
    trace(left, data, step, T, words, half);
    overT(right, data, step, T, words, half, judged);
  };
  views.fold.none = () => { ls.map = ls.shown = null; }; // of a model that is no longer open
})(window.layerscope);
