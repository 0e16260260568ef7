// The six steps of Present. Each draws the page's data into its box. `s` is {words, plan, map, profile, entry, status, take, ask,
// go, draw, local, room}: the plan shown, its row on the board, the height available (room), and the actions of buttons.
"use strict";

(({plot, colorbar, fill, number, times, rated, size, ratioAxis, element, part, theme, knows}) => {
  const ls = window.layerscope;
  const letters = (width) => Math.max(12, Math.min(20, Math.round(width / 42)));
  const font = (width) => ({color: theme().text, size: letters(width), family: "inherit"});
  const button = (text, act, more = "") => { const made = element("button", {type: "button", class: `ls-button ${more}`}, text); made.onclick = act; return made; };
  const say = (text, kind = "ls-point") => element("p", {class: kind}, text);
  const two = (box) => { const pair = part(box, "ls-two"); return [part(pair, "ls-scene"), part(pair, "ls-points")]; };

  // Offers to measure what is missing; shows the progress of a running measurement.
  const MEASURES = ["judge", "samples", "speed"];
  const offer = (box, what, s) => {
    const {words, status, local} = s, made = element("div", {class: "ls-offer", role: "status"});
    if (MEASURES.includes(status.kind)) made.append(say(ls.jobLine(status, words)), say(words.present_working));
    else if (local.asked) made.append(say(words.present_asked));
    else made.append(say(fill(words.present_missing, {what: what.map((one) => words[`also_${one}`]).join(", ")})), button(words.present_measure, () => s.ask(what), "ls-main"));
    if ((status.problem ?? null) !== null) made.append(say(status.problem || words.bug, "ls-warning"));
    box.replaceChildren(made);
  };
  const missing = ({entry}) => ["samples", "speed"].filter((what) => !entry?.[what]);

  const repeat = (box, s) => {
    const {words, profile, map, plan} = s, [scene, points] = two(box);
    if (!profile) { scene.replaceChildren(say(s.waiting, "ls-wait")); return; }
    const rest = knows("similarity").value.tokens === "rest", t = theme(), groups = plan ? ls.groups(map.depth, plan.blocks, s.rule) : [];
    const least = profile.layers.map((layer) => (rest ? layer.block_influence_rest : layer.block_influence)).reduce((best, value, layer, all) => (value !== null && value < all[best] ? layer : best), 0);
    const z = rest ? profile.similarity_rest : profile.similarity, side = Math.min(scene.clientWidth, s.room), width = scene.clientWidth;
    plot(scene, [{
      type: "heatmap", z, colorscale: "Cividis", zmax: 1, colorbar: {...colorbar(words.cosine), thickness: 16}, hovertemplate: `${words.state} %{y} · ${words.state} %{x}<br>%{z:.4f}<extra></extra>`,
    }], {
      font: font(width), margin: {l: 60, r: 12, t: 10, b: 60},
      xaxis: {title: {text: words.state_axis}, showgrid: false, constrain: "domain"}, yaxis: {title: {text: words.state}, autorange: "reversed", showgrid: false, scaleanchor: "x", constrain: "domain"},
      shapes: groups.map(({first, last}) => ({type: "rect", x0: first - .5, x1: last + 1.5, y0: first - .5, y1: last + 1.5, line: {color: t.fold, width: 4}, layer: "above"})),
    }, side);
    const found = z[least]?.[least + 1];
    points.replaceChildren(
      say(words.present_repeat_read), say(fill(words.present_least, {layer: least, cosine: number(found, 3)})),
      ...(groups.length ? [say(fill(words.present_framed, {layers: groups.map(({first, last}) => ls.layerNames(first, last)).join(", ")}))] : []),
    );
    const gaps = missing(s);
    if (plan && gaps.length) offer(points.appendChild(element("div")), gaps, s);
  };

  const foldWords = (group, words) => {
    const {block, kind, lost} = group, of = ls.layerNames, gone = ls.runs(lost).map(([a, b]) => of(a, b)).join(", ");
    const values = {layers: of(group.first, group.last), kept: block?.home, home: block?.home, donor: block?.mix[0][0], lost: gone};
    if (kind === "dropped") return [fill(words.present_dropped, {layers: values.layers})];
    if (kind === "one") return [fill(words.present_one, {layers: values.layers, kept: values.kept, lost: values.lost})];
    const said = kind === "donor" ? fill(words.present_donor, {layers: values.layers, home: values.home, donor: values.donor})
      : kind === "mean" ? fill(words.present_mean, {layers: values.layers, home: values.home}) : fill(words.present_mix, {layers: values.layers, home: values.home});
    return [said, ...(gone ? [fill(words.present_lost, {lost: gone})] : [])];
  };

  const oneFold = (box, s) => {
    const {words, plan, map} = s;
    if (!plan) { box.replaceChildren(say(s.waiting, "ls-wait")); return; }
    const groups = ls.groups(map.depth, plan.blocks, s.rule), repaired = plan.blocks.filter((block) => block.repair).length;
    if (!groups.length) { box.replaceChildren(say(words.present_no_fold, "ls-wait")); return; }
    const widest = groups.reduce((best, one) => (one.last - one.first > best.last - best.first ? one : best)), width = box.clientWidth;
    const said = foldWords(widest, words), whole = part(box, "ls-whole"), strip = part(box, "ls-stripbox");
    part(box, "ls-lead").replaceChildren(say(said.join(" ")));
    box.prepend(part(box, "ls-lead"), part(box, "ls-foldpicture"));
    ls.foldPicture(part(box, "ls-foldpicture"), widest, map.depth, said.join(" "), words, width, Math.max(250, Math.min(440, s.room - (s.room < 700 ? 330 : 380))));
    whole.replaceChildren(say(fill(words.present_folds, {source: map.depth, left: plan.depth, count: groups.length})));
    ls.strip(strip, map.depth, plan.blocks, words, Math.round(width / (width > 1200 ? 1.5 : 1)));
    const [drawn] = strip.getElementsByTagName("svg");
    drawn.setAttribute("viewBox", `0 0 ${drawn.getAttribute("width")} ${drawn.getAttribute("height")}`);
    Object.assign(drawn.style, {width: "100%", height: "auto"});
    part(box, "ls-after").replaceChildren(...(repaired ? [say(fill(words.present_repaired, {count: repaired}), "ls-small")] : []), say(words.present_parts, "ls-small"));
  };

  const middleOf = (map, step) => (Math.max(step.t_from, map.t_min) + Math.min(step.t_to, 1)) / 2;
  const leftOf = (width) => (width < 700 ? 64 : 96); // aligns the slider's ends with the axis
  const drawCosts = (box, map, T, words, width, height) => {
    const t = theme(), costs = map.steps.map(ls.costOf), limits = knows("costs").value.limits ?? [], known = costs.map((cost) => cost?.ratio).filter(Number.isFinite);
    const highest = Math.min(1e6, Math.max(4, ...known) * 1.3), y = (cost) => (cost ? Math.min(cost.ratio ?? highest, highest) : null);
    const middle = map.steps.map((one) => middleOf(map, one)), now = ls.stepAt(map, T);
    const axis = ratioAxis(known, highest, [.05, .05]), [low, high] = axis.range, ends = [low, ...limits.map(Math.log10), high].map((value) => Math.min(value, high));
    const bands = t.costs.map((color, level) => ({color, level, from: ends[level], to: ends[level + 1]})).filter(({from, to}) => to > from);
    plot(box, [
      {type: "scatter", mode: "lines", hoverinfo: "skip", line: {color: t.faint, width: 3}, x: map.steps.flatMap((one) => [Math.max(one.t_from, map.t_min), Math.min(one.t_to, 1), null]), y: costs.flatMap((cost) => [y(cost), y(cost), null])},
      {type: "scatter", mode: "markers", x: middle, y: costs.map(y), marker: {size: 10, color: costs.map((cost) => (cost ? t.costs[cost.level] : t.faint))}, text: map.steps.map((one) => `${one.depth} ${words.layers}`), hovertemplate: "T %{x:.3f}: %{text}, ×%{y:.2f}<extra></extra>"},
      {type: "scatter", mode: "markers", x: [T], y: [y(ls.costOf(now))], hoverinfo: "skip", marker: {size: 26, symbol: "circle-open", color: t.text, line: {width: 4}}},
    ], {
      font: font(width), margin: {l: leftOf(width), r: 24, t: 10, b: 44, autoexpand: false}, xaxis: {title: {text: "T"}, range: [1.005, map.t_min], automargin: false},
      yaxis: {title: {text: words.cost_axis}, ...axis, automargin: false},
      shapes: bands.map(({color, from, to}) => ({type: "rect", xref: "paper", x0: 0, x1: 1, y0: 10 ** from, y1: 10 ** to, fillcolor: color, opacity: .1, line: {width: 0}, layer: "below"})),
      annotations: width < 700 ? [] : bands.filter(({from, to}) => (to - from) / (high - low) > .13).map(({color, level, from, to}) => ({xref: "paper", x: .01, y: (from + to) / 2, xanchor: "left", showarrow: false, text: ls.levels(words)[level], font: {color, size: letters(width)}})),
    }, height);
  };

  const slider = (box, s) => {
    const {words, map, plan, local} = s;
    if (!map) { box.replaceChildren(say(s.waiting, "ls-wait")); return; }
    local.T ??= Math.max(map.t_min, ls.T);
    const T = local.T, step = ls.stepAt(map, T), at = map.steps.indexOf(step), last = map.steps.length - 1, width = box.clientWidth, cost = ls.costOf(step), same = ls.choice === "map" && ls.stepAt(map, ls.T) === step;
    const to = (place) => { local.T = middleOf(map, map.steps[Math.max(0, Math.min(last, place))]); };
    const still = () => { clearInterval(local.playing); local.playing = null; };
    if (!box.querySelector("input")) {
      const top = part(box, "ls-told"), line = part(box, "ls-drag"), range = element("input", {type: "range", step: "any", "aria-label": "T"});
      part(box, "ls-plotted");
      box.append(line, part(box, "ls-deeds"));
      top.before(say(words.present_slider_read));
      line.append(element("span", {}, words.present_gentle), range, element("span", {}, words.present_too_far));
      range.oninput = () => { still(); local.T = 1 - Number(range.value); s.draw(); };
      range.onpointerup = () => range.blur(); // so that the arrow keys change the step again
      range.onkeydown = (event) => {
        const by = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
        if (by) { event.preventDefault(); event.stopPropagation(); still(); local.by(by); }
      };
    }
    box.querySelector(".ls-drag").style.marginLeft = `${leftOf(width) - 14}px`;
    const range = box.querySelector("input"), figure = (value, label) => { const made = element("div", {class: "ls-figure"}); made.append(element("b", {}, value), element("span", {}, label)); return made; };
    Object.assign(range, {min: 0, max: 1 - map.t_min});
    if (Math.abs(1 - Number(range.value) - T) > 1e-9) range.value = 1 - T;
    local.by = (by) => { to(at + by); s.draw(); }; // from the step drawn, of any map
    range.setAttribute("aria-valuetext", `T ${number(T, 4)}, ${step.depth} ${words.layers}, ${cost ? ls.costWords(cost, words) : words.cost_measuring}`);
    part(box, "ls-told").replaceChildren(figure(number(T, 4), "T"), figure(`${step.depth} / ${map.depth}`, words.layers_left), ls.costFigure(step, words, () => ls.stand("map", T)));
    drawCosts(part(box, "ls-plotted"), map, T, words, width, Math.max(240, s.room - part(box, "ls-told").clientHeight - 280));
    const play = button(local.playing ? words.present_pause : words.present_play, () => {
      if (local.playing) still(); else {
        if (at === last) to(0);
        local.playing = setInterval(() => { if (!range.isConnected || ls.stepAt(map, local.T) === map.steps.at(-1)) { still(); s.draw(); } else local.by(1); }, Math.max(150, Math.min(900, 12000 / map.steps.length)));
      }
      s.draw();
    }, "ls-main ls-play");
    const other = ls.choice !== "map" && plan ? [say(fill(words.present_other, {left: plan.depth, cost: ls.costOf(plan) ? ls.costWords(ls.costOf(plan), words) : "–"}), "ls-small")] : [];
    const deeds = part(box, "ls-deeds"), focused = deeds.contains(document.activeElement) && document.activeElement.className;
    deeds.replaceChildren(play, same ? say(words.present_is_shown, "ls-small") : button(words.present_take, () => { still(); s.take(step); }, "ls-take"), ...other, ...(map.filling ? [say(words.present_filling, "ls-small")] : []));
    if (focused) [...deeds.children].find((one) => one.className === focused)?.focus();
  };

  const writing = (box, s) => {
    const {words, entry, local} = s;
    if (!entry?.samples?.length) { offer(box, ["samples"], s); return; }
    const samples = entry.samples, at = (local.sample ?? 0) % samples.length, one = samples[at], pair = element("div", {class: "ls-two ls-beside"});
    [["of_source", one.source], ["of_plan", one.plan]].forEach(([who, made]) => {
      const side = element("section", {class: "ls-passage"});
      side.append(element("h3", {}, who === "of_source" ? words.of_source : `${words.of_plan} · ${entry.depth}`), say(made.text.trim() || "–"), say(fill(words.sample_facts, {d1: number(made.distinct_1, 2), d2: number(made.distinct_2, 2), run: made.longest_repeat}) + (made.loops ? ` ${words.sample_loops}` : ""), "ls-small"));
      pair.append(side);
    });
    const row = element("div", {class: "ls-deeds"}), decoding = one.decoding === "greedy" ? words.decoding_greedy : words.decoding_sampled;
    const again = button(`${words.present_another} (${at + 1} / ${samples.length})`, () => { local.sample = (at + 1) % samples.length; s.draw(); box.querySelector(".ls-again").focus(); }, "ls-again");
    row.append(again);
    box.replaceChildren(say(`“${one.prompt} …” (${decoding})`), pair, row);
  };

  const meter = (label, [source, plan], ratio, kind, note, words) => {
    const made = element("div", {class: "ls-meter"}), most = Math.max(source, plan) || 1, text = kind === "bytes" ? size : (value) => number(value, value < 100 ? 1 : 0);
    const bars = element("div", {class: "ls-bars2"});
    [[words.of_source, source, "ls-of-source"], [words.of_plan, plan, "ls-of-plan"]].forEach(([who, value, name]) => {
      const bar = element("div", {class: name});
      bar.append(element("span", {}, who), element("i", {style: `--part:${value / most}`}), element("em", {}, text(value)));
      bars.append(bar);
    });
    made.append(element("b", {}, times(ratio)), element("span", {class: "ls-measured"}, label), bars);
    if (note) made.append(say(note, "ls-small"));
    return made;
  };

  const gained = (box, s) => {
    const {words, entry} = s, {speed, memory, evaluation: judged} = entry ?? {};
    if (!speed || !memory) { offer(box, ["speed"], s); return; }
    const rounds = ([low, high]) => (low <= 1 && high >= 1 ? fill(words.present_even, {low: times(low), high: times(high), rounds: speed.rounds}) : fill(words.present_rounds, {low: times(low), high: times(high), rounds: speed.rounds}));
    const bytes = (label, source, plan) => (source ? [meter(label, [source, plan], plan / source, "bytes", "", words)] : []);
    const column = (title, ...rows) => { const made = element("section"); made.append(element("h3", {}, title), ...rows); return made; };
    const meters = element("div", {class: "ls-two ls-meters"});
    meters.append(column(words.present_memory,
      ...bytes(words.present_peak, speed.source_peak, speed.plan_peak), ...bytes(words.present_weights, memory.source_weights, memory.plan_weights),
      ...bytes(fill(words.present_cache, {context: memory.context, batch: memory.batch}), memory.source_cache, memory.plan_cache),
    ), column(words.present_speed,
      meter(words.present_decode, [speed.source_decode, speed.plan_decode], speed.decode_ratio, "rate", rounds(speed.decode_range), words),
      meter(words.present_prefill, [speed.source_prefill, speed.plan_prefill], speed.prefill_ratio, "rate", rounds(speed.prefill_range), words),
    ));
    const machine = say(fill(words.present_machine, {device: speed.device, dtype: speed.dtype, threads: speed.threads, read: speed.prompt_tokens, written: speed.new_tokens}), "ls-small"), price = element("p", {class: "ls-point ls-price"});
    if (judged) price.textContent = judged.perplexity.ratio === null ? words.present_price_broken : fill(words.present_price, {ratio: rated(judged.perplexity.ratio, judged.perplexity.interval), tokens: judged.protocol.tokens, texts: judged.protocol.texts});
    box.replaceChildren(meters, price, machine);
  };

  const next = (box, s) => {
    const {words, plan, map} = s, cost = ls.costOf(plan);
    const advice = !plan ? s.waiting : plan.depth === map.depth ? words.present_then_none : !cost ? words.present_then_unknown : cost.level <= 1 ? words.present_then_good : cost.level === 2 ? words.present_then_fair : words.present_then_poor;
    const card = (title, text, act, main) => { const made = element("section", {class: "ls-card"}); made.append(say(text), button(title, act, main ? "ls-main" : "")); return made; };
    const good = plan && cost && cost.level <= 1, cards = element("div", {class: "ls-cards"});
    cards.append(
      card(words.present_to_export, words.present_to_export_read, () => s.go("export", "#export-button"), good), card(words.present_to_report, words.present_to_report_read, () => s.go("compare", "#make-report")),
      card(words.present_to_better, words.present_to_better_read, () => s.go("search", "#search-button"), cost && !good), card(words.present_to_fold, words.present_to_fold_read, () => s.go("fold", "#T input")),
    );
    const [made] = knows("terminal-fold").value.lines ?? [], written = (knows("terminal-export").value.lines ?? []).filter((line) => !line.startsWith("#"));
    box.replaceChildren(say(advice), cards);
    if (!plan || !ls.facts || !made) return;
    const lines = ls.commands([made, ...written], ls.T, words);
    box.append(element("h3", {}, words.in_terminal), element("pre", {class: "ls-command", tabindex: 0}, lines), ls.copyButton(words.copy, () => lines));
  };

  ls.slides = (words) => [[words.present_repeat, repeat], [words.present_fold, oneFold], [words.present_slider, slider], [words.present_write, writing], [words.present_gain, gained], [words.present_then, next]];
})(window.layerscope);
