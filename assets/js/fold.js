// Fold: looks T up in the map without the server; draws the cost, the strip, the charts, and the plan in words.
"use strict";

(({views, fill, number, times, size, element, part, theme, parse, strip, redraw}) => {
  const ls = window.layerscope;
  const stepAt = (map, T) => map.steps.find((step) => T >= step.t_from) ?? map.steps.at(-1);
  const steps = (map, layers) => map.steps.filter((step) => step.depth === layers);

  // A T of four decimals within the step, or its exact lower end where the step is narrower.
  const shortest = (step) => { const T = Math.ceil(step.t_from * 1e4) / 1e4; return T < step.t_to ? T : step.t_from; };

  // Join neighbouring intervals of T with the same depth; their folds may differ.
  const joined = (found) => found.reduce((done, step) => {
    if (done.length && done.at(-1)[0] === step.t_to) done.at(-1)[0] = step.t_from; else done.push([step.t_from, step.t_to]);
    return done;
  }, []);

  ls.map = null; // the map shown; the slider handlers below read it
  const whole = () => ls.map && !ls.map.filling; // otherwise one step, while the others are computed
  const holds = (step, T) => T >= step.t_from && (T < step.t_to || T === 1);
  ls.snap = (T, on) => (on && whole() ? shortest(stepAt(ls.map, T)) : T);
  ls.depthAt = (T) => (whole() || (ls.map && holds(ls.map.steps[0], T)) ? stepAt(ls.map, T).depth : null);
  const nearest = (map, layers) => { // the steps with the nearest depth
    const best = Math.min(...map.steps.map((step) => Math.abs(step.depth - layers)));
    return map.steps.filter((step) => Math.abs(step.depth - layers) === best);
  };
  // The T of the cheapest measured step; without any, of the highest T.
  ls.nearest = (layers) => {
    if (!whole()) return null;
    const found = nearest(ls.map, layers);
    return shortest(ls.cheapest(found) ?? found[0]);
  };
  Object.assign(ls, {stepAt, shortest});
  ls.choose = (step, following = false) => { // moves T to a step that the user clicked, or that is cheaper
    ls.following = following;
    if (!following) ls.touched();
    ls.picked = shortest(step);
    ls.pick?.();
  };

  // After a choice of depth, and before any input, T follows the cheapest step of that depth, also when a cheaper one is measured
  // later. Any input on the controls ends that.
  ls.pursued = null;
  ls.touched = () => { ls.pursued = null; ls.first = false; };
  ls.aim = (layers) => { ls.pursued = layers; return ls.nearest(layers); };
  ls.follow = () => {
    if (ls.first && whole()) ls.pursued = ls.depthAt(ls.firstT);
    const best = whole() && ls.pursued !== null && ls.choice === "map" ? ls.cheapest(nearest(ls.map, ls.pursued)) : null;
    if (best && best !== stepAt(ls.map, ls.T)) ls.choose(best, true);
  };
  ["input", "click"].forEach((kind) => document.addEventListener(kind, (event) => { if (event.target.closest?.("#fold-controls")) ls.touched(); }, true));

  // Plans are saved here; the server packs a plan that has tensors.
  const planFile = (plan) => ({source_depth: ls.map.depth, blocks: plan.blocks, method: plan.method, settings: plan.settings, ...(plan.repairs ? {repairs: plan.repairs} : {}), ...(plan.parts ?? {}), model: {name: ls.map.model, fingerprint: ls.map.fingerprint}});
  ls.savePlan = () => {
    if (ls.shown?.tensors) ls.keepPlan?.();
    else if (ls.shown) ls.save(`plan-${ls.shown.depth}-layers.json`, JSON.stringify(planFile(ls.shown), null, 1));
  };

  const runs = ls.runs = (layers) => layers.reduce((found, layer) => {
    const last = found.at(-1);
    if (last && layer === last[1] + 1) last[1] = layer; else found.push([layer, layer]);
    return found;
  }, []);
  const name = ls.layerNames = (first, last) => (first === last ? `${first}` : `${first}–${last}`);

  // The same sentences as describe() in engine/plans/files.py, in the page's language.
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

  const figures = (cost, row, plan, data, words, measure) => {
    const figure = (value, label) => { const item = element("div", {class: "ls-figure"}); item.append(element("b", {}, value), element("span", {}, label)); return item; };
    cost.replaceChildren(ls.costFigure(plan, words, measure));
    row.replaceChildren(
      figure(`${plan.depth} / ${data.depth}`, words.layers_left),
      figure(`${(plan.parameters / 1e6).toFixed(1)} M`, fill(words.parameters, {share: Math.round((100 * plan.parameters) / data.parameters)})),
      figure(size(plan.bytes), fill(words.weight_of, {dtype: data.dtype})),
      figure(number(plan.similarity, 3), words.final_similarity),
    );
  };

  // Says whether a cheaper step of the same depth is known. Empty for a plan that is not from the map.
  const compared = (box, data, step, hand, words) => {
    if (hand) { box.textContent = ""; return; }
    if (data.filling || data.stopped) { box.textContent = fill(ls.busy ? words.map_filling : words.map_stopped, {from: number(step.t_from, 4), to: number(step.t_to, 4)}); return; }
    const same = steps(data, step.depth), known = same.filter((one) => ls.costOf(one)), best = ls.cheapest(same);
    if (!best) { box.textContent = fill(words.cost_unknown, {layers: step.depth, count: same.length}); return; }
    if (ls.costOf(step)?.ratio === ls.costOf(best).ratio) { box.textContent = fill(same.length > 1 ? words.cost_cheapest : words.cost_only, {layers: step.depth, count: same.length, known: known.length}); return; }
    const go = element("button", {class: "ls-link", type: "button"}, fill(words.cost_cheaper, {layers: step.depth, T: number(shortest(best), 4), ratio: times(ls.costOf(best).ratio)}));
    go.onclick = () => ls.choose(best);
    box.replaceChildren(go);
  };

  // Names a plan that is not from the map, and marks the controls as not describing it.
  const named = (box, choice, plan, words) => {
    const from = {"hand-made": words["plan_hand-made"], file: words.plan_file, found: words.plan_found}[choice];
    const settings = plan?.settings ?? {}, told = ["C", "I", "T"].filter((key) => settings[key] !== undefined).map((key) => `${key} ${settings[key]}`).join(", ");
    const repaired = plan?.blocks.some((block) => block.repair);
    box.hidden = !plan;
    if (plan) box.textContent = [from, choice === "hand-made" ? "" : plan.method, told, repaired ? words.is_repaired : ""].filter(Boolean).join(" · ");
    document.getElementById("fold-bench")?.classList.toggle("ls-other", Boolean(plan));
    ls.described = !plan;
    redraw("described");
  };
  views.described = (box, {words}) => { box.textContent = ls.described === false ? words.sliders_other : ""; };

  const inWords = (box, plan, data, step, hand, words) => {
    const list = element("ul", {});
    const {solved, width, masks} = ls.partsOf(plan, data.depth, words), more = [solved, ...(plan.width || plan.masks ? [width, masks] : [])].filter(Boolean);
    [...sentences(data.depth, plan.blocks, words), ...more].forEach((sentence) => list.append(element("li", {}, sentence)));
    box.replaceChildren(list, element("p", {class: "ls-rule"}, fill(hand ? words.ran_hand : words.ran, {rule: data.rule, definition: data.definition, texts: data.texts, calibration: data.calibration, model: data.model})));
    if (plan.conflicts?.length) box.append(element("p", {class: "ls-warning"}, fill(words.conflict, {homes: plan.conflicts.join(", ")})));
    if (data.monotone === false && !hand) {
      const found = joined(steps(data, step.depth));
      box.append(element("p", {class: "ls-hint"}, fill(found.length > 1 ? words.several : words.single, {layers: step.depth, count: found.length, intervals: found.slice(0, 4).map(([from, to]) => `[${number(from, 4)}, ${number(to, 4)})`).join(" ") + (found.length > 4 ? " …" : "")})));
    }
  };

  // A closed part; its content is drawn when it is opened.
  const away = (box, name, title, draw) => {
    if (box.querySelector(`.${name}`)) return box.querySelector(`.${name}`);
    const made = element("details", {class: `ls-more ${name}`});
    made.append(element("summary", {}, title), element("div", {}));
    made.ontoggle = draw;
    return box.appendChild(made);
  };

  // After a cancel, T must change before the map is requested again.
  document.addEventListener("click", (event) => { if (event.target.closest?.("#cancel")) ls.giveUp?.(); }, true);

  views.fold = (box, {data, value, words, props, trigger, local, width, draw}) => {
    const T = Number(value.T), choice = value.plan ?? "map", {hand, step} = local, plan = ls.shown;
    ls.pick = () => trigger("pick", {T: ls.picked});
    ls.keepPlan = () => trigger("keep", {});
    ls.stand = (plan, T) => trigger("stand", {plan, T});
    if (local.judgedText !== props.judged) [local.judgedText, local.judged] = [props.judged, parse(props.judged, {})];
    const rest = () => ls.stand(hand ? choice : "map", T);
    const standing = `${choice} ${plan.name} ${T}`, open = data.filling || data.stopped || props.stale === "yes"; // then the server needs to know T
    clearTimeout(local.rest);
    ls.giveUp = () => { clearTimeout(local.rest); local.stood = standing; };
    if ((open || !ls.costOf(plan)) && local.stood !== standing) local.rest = setTimeout(() => { local.stood = standing; rest(); }, 600); // T has rested for 600 ms
    box.classList.toggle("ls-behind", !hand && !holds(step, T));
    figures(part(box, "ls-costbox"), part(box, "ls-figures"), plan, data, words, rest);
    named(part(box, "ls-named"), choice, hand, words);
    strip(part(box, "ls-stripbox"), data.depth, plan.blocks, words, width);
    key(part(box, "ls-legend"), theme(), words, plan.blocks.some((block) => block.repair));
    compared(part(box, "ls-same"), data, step, hand, words);
    ls.overT(part(box, "ls-steps"), data, step, T, words, width, local.judged ?? {});
    part(box, "ls-from").textContent = ls.costFrom(words);
    inWords(away(box, "ls-says", words.in_words, draw).lastChild, plan, data, step, hand, words);
    const tried = away(box, "ls-tried", words.every_try, draw);
    if (tried.open) ls.trace(tried.lastChild, data, step, T, words, tried.lastChild.clientWidth || width);
  };
  // The plan shown, from the map or elsewhere; also set while Fold is hidden.
  views.fold.told = ({data, value, props, trigger, local}) => {
    if (!data) { views.fold.none(); return; }
    const T = Number(value.T), choice = value.plan ?? "map";
    if (local.drawn !== props.data) { // a new map: update what depends on it outside this view
      [ls.map, local.drawn, local.stood] = [data, props.data, null];
      setTimeout(() => trigger("synced", {}), 0);
    }
    [ls.T, ls.choice] = [T, choice];
    ls.firstT ??= T;
    const step = stepAt(data, T);
    const hand = {"hand-made": parse(props.hand), file: parse(props.file), found: parse(props.found)}[choice] ?? null; // otherwise the map's
    ls.shown = hand ?? {...step, method: "laco", settings: {...data.settings, T: step.t_from}};
    [local.hand, local.step] = [hand, step];
    if (local.told !== (local.told = `${choice} ${ls.shown.name} ${T} ${props.data?.length}`)) setTimeout(() => ["making", "status", "widths", "zeros", "shapes", "search", "lineage", "summary"].forEach(redraw), 0);
  };
  views.fold.none = () => { ls.map = ls.shown = null; ["making", "zeros", "summary"].forEach(redraw); }; // their model is no longer open
})(window.layerscope);
