// Recover's lower half: the runs as a table, and the training of the selected run: training loss, both held-out losses, and its
// sample texts.
"use strict";

(({views, several, plot, fill, times, size, ratioAxis, element, part, theme}) => {
  const ls = window.layerscope;
  const many = ls.many = (count) => (count >= 1e6 ? `${(count / 1e6).toFixed(1)} M` : count >= 1e4 ? `${Math.round(count / 1e3)} k` : `${Math.round(count)}`);
  const alone = (path) => path.split(/[\\/]/).pop();
  const textNames = ls.textNames = (texts, words) => texts.map((text) => ({self: words.learn_from_self, practice: words.learn_from_practice})[text] ?? (text.startsWith("hub:") ? text : alone(text))).join(", ");
  const named = {showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, margin: {l: 58, r: 14, t: 44, b: 44}}; // a chart with a legend above it
  const button = (what, text, act) => { const made = element("button", {type: "button", class: "ls-button", "data-deed": what}, text); made.onclick = act; return made; };

  // Draw a part only if its data has changed, so that focus and selection stay.
  const anew = (box, told, make) => { const from = JSON.stringify(told); if (box.drawnFrom !== from) { box.drawnFrom = from; box.replaceChildren(...make()); } };

  const stateOf = (run, words) => `${words[`state_${run.state}`]}${run.state === "running" && run.total ? ` ${Math.floor((100 * run.tokens) / run.total)} %` : ""}`;
  const change = (run, name) => (run.before ? [run.before, run.after].filter(Boolean).map((ratios) => times(ratios[name])).join(" → ") : "–");

  const table = (runs, shown, words, choose) => {
    const made = element("table", {class: "ls-board-table"}), head = element("tr"), scroll = element("div", {class: "ls-board-scroll"});
    [words.run_name, words.run_state, words.run_layers, words.run_tokens, words.run_on_kind, words.run_on_other].forEach((text) => head.append(element("th", {scope: "col"}, text)));
    made.append(head, ...runs.map((run) => {
      const row = element("tr", {"data-entry": run.name, tabindex: 0, class: run.name === shown ? "ls-chosen" : ""});
      row.append(element("th", {scope: "row"}, run.name), ...[stateOf(run, words), `${run.asked.plan.depth} / ${run.asked.plan.of}`, many(run.tokens), change(run, "kind"), change(run, "other")].map((text) => element("td", {}, text)));
      row.onclick = () => choose(run.name);
      row.onkeydown = (event) => { if (event.key === "Enter") choose(run.name); };
      return row;
    }));
    scroll.append(made);
    return [element("h4", {}, words.runs_title), scroll];
  };

  const budgetOf = ({budget, until}, words) => {
    const told = budget.tokens ? fill(words.run_tokens_of, {count: many(budget.tokens)}) : fill(words.minutes, {count: budget.minutes});
    return until ? fill(words.run_until, {budget: told, ratio: until}) : told;
  };
  const kindsOf = (target, words) => Object.entries(target).map(([name, count]) => `${words[`shear_${name}`] ?? name} ${count}`).join(", ");
  const asked = ({asked: of}, words) => fill(of.target ? words.run_sheared : words.run_asked, {
    depth: of.plan.depth, all: of.plan.of, model: of.name, texts: textNames(of.text, words), loss: of.loss, budget: budgetOf(of, words),
    train: of.target ? fill(words.train_shear, {target: kindsOf(of.target, words)}) : words[`train_${of.train}`] ?? of.train,
  });

  // The run's state, with its pace once a step was measured.
  const toGo = (run, words) => {
    const time = ls.duration(run.left, words);
    return run.state === "running" ? [fill(words.time_left, {time})] : run.state === "paused" ? [fill(words.run_to_go, {time})] : [];
  };
  const progress = (run, words) => {
    const pace = run.pace ? [fill(words.run_pace, {pace: many(run.pace)})] : [], memory = run.asked.memory ? [fill(words.run_memory, {size: size(run.asked.memory)})] : [];
    const done = run.total ? [fill(words.run_done_of, {done: many(run.tokens), all: many(run.total)})] : [], left = run.left ? toGo(run, words) : [];
    return [...(run.label ? [run.label] : []), ...(run.state === "done" ? [] : [...done, ...pace, ...left, ...memory])].join(" · ");
  };
  const notes = (run, words) => {
    if (run.state === "waiting") return words.run_queued;
    if (run.state !== "running") return "";
    return run.pausing ? words.run_pausing : run.finishing ? words.run_finishing : run.elsewhere ? words.run_elsewhere : "";
  };

  const DEEDS = {running: ["pause", "finish"], waiting: ["pause"], paused: ["resume", "finish", "delete"], failed: ["resume", "finish", "delete"], done: ["open", "delete"]};
  const deeds = (run, words, {act, ask, asking}) => {
    if (asking) {
      const says = element("p", {class: "ls-warning", role: "alert"}, fill(run.state === "done" ? (run.asked.target ? words.run_delete_asks_plan : words.run_delete_asks_done) : words.run_delete_asks, {name: run.name}));
      return [says, button("sure", words.run_delete, () => { ask(""); act("delete"); }), button("keep", words.run_keep, () => ask(""))];
    }
    const does = {open: () => ls.openModel(run.path), delete: () => ask(run.name)};
    const offered = DEEDS[run.state].map((what) => (what === "open" && run.asked.target ? "plan" : what)).filter((what) => what !== "finish" || run.looks.length).filter(() => !run.pausing || run.state !== "running");
    return offered.map((what) => button(what, words[`run_${what}`], does[what] ?? (() => act(what))));
  };

  // The axis covers the whole budget until it is spent, so that the curves grow into it.
  const tokensAxis = (run, words) => { const end = (run.state === "done" ? run.tokens : run.total ?? run.tokens) || 1; return {title: {text: words.run_tokens_axis}, range: [-.02 * end, 1.03 * end]}; };

  // A linear axis for ratios near 1, a log axis for wide ones; and a ratio's position on that axis.
  const ratioScale = (ratios) => {
    const [least, highest] = [Math.min(1, ...ratios), Math.max(1.02, ...ratios)], room = .08 * (highest - least);
    return highest > 8 ? {axis: ratioAxis(ratios, highest, [.02, .02]), at: Math.log10} : {axis: {range: [least - room, highest + room], tickprefix: "×"}, at: (ratio) => ratio};
  };

  const losses = (box, run, words) => {
    const t = theme();
    plot(box, [{type: "scatter", mode: "lines", name: words.run_loss, x: run.loss.map(([at]) => at), y: run.loss.map(([, loss]) => loss), line: {color: t.accent, width: 2}, hovertemplate: "%{x:.3s}: %{y:.3f}<extra></extra>"}],
      {xaxis: tokensAxis(run, words), yaxis: {title: {text: words.run_loss}}}, 280);
  };

  // Always both held-out texts: a small training text is soon memorised.
  const ratios = (box, run, words) => {
    const t = theme(), {until} = run.asked, x = run.looks.map((look) => look.tokens), all = run.looks.flatMap((look) => [...look.kind, ...look.other]).filter((ratio) => ratio > 0);
    const curve = (name, label, color, symbol, dash) => {
      const y = run.looks.map((look) => look[name][0]), arm = (end) => run.looks.map((look, place) => Math.abs((look[name][end] ?? y[place]) - y[place]));
      return {type: "scatter", mode: "lines+markers", name: label, x, y, line: {color, width: 2, dash}, marker: {color, size: 8, symbol}, error_y: {type: "data", symmetric: false, array: arm(2), arrayminus: arm(1), color, thickness: 1, width: 3},
        meta: {columns: {low: run.looks.map((look) => look[name][1]), high: run.looks.map((look) => look[name][2])}}, hovertemplate: `×%{y:.3f}<extra>${label}</extra>`};
    };
    const scale = ratioScale([...all, ...(until ? [until] : [])]);
    const target = until ? {shapes: [{type: "line", xref: "paper", x0: 0, x1: 1, y0: until, y1: until, line: {color: t.faint, width: 1.5, dash: "dash"}}], annotations: [{xref: "paper", x: 1, xanchor: "right", y: scale.at(until), yanchor: "bottom", text: `${words.run_target}: ×${until}`, showarrow: false, font: {color: t.faint, size: 11}}]} : {};
    plot(box, [curve("kind", words.run_kind, t.accent, "circle", "solid"), curve("other", words.run_other, t.fold, "diamond", "dash")], {
      ...target, ...named,
      xaxis: tokensAxis(run, words), yaxis: {title: {text: words.run_ratio_axis}, ...scale.axis},
    }, 280);
  };

  // The proportion of each domain, where it follows the loss.
  const domains = (box, run, words) => {
    const names = Object.keys(run.domains);
    plot(box, names.map((name, place) => ({
      type: "scatter", mode: "lines+markers", name: alone(name), x: run.domains[name].map(([at]) => at), y: run.domains[name].map(([, , share]) => share), meta: {columns: {cost: run.domains[name].map(([, cost]) => cost)}},
      line: {color: several[place % several.length], width: 2}, marker: {symbol: place, size: 7}, hovertemplate: `%{y:.1%}<extra>%{fullData.name}</extra>`,
    })), {...named, xaxis: tokensAxis(run, words), yaxis: {title: {text: words.run_share}, tickformat: ".0%", rangemode: "tozero"}}, 280);
  };

  // A shearing: the expected and the wanted share kept, the undecided masks, the multipliers.
  const masks = (box, run, words) => {
    const kinds = Object.entries(run.masks), told = (name) => words[`shear_${name}`] ?? name;
    const line = (place, name, x, y, dash) => ({type: "scatter", mode: "lines", name, x, y, line: {color: several[place % several.length], width: 2, dash}, hovertemplate: "%{y:.3g}<extra>%{fullData.name}</extra>"});
    const pairs = (one, other, called) => kinds.flatMap(([kind, found], place) => {
      const [through, dashed] = called(told(kind));
      return [line(place, through, found.tokens, found[one], "solid"), line(place, dashed, found.tokens, found[other], "dash")];
    });
    const drawn = {
      shape: [pairs("expected", "wanted", (kind) => [fill(words.run_expected, {kind}), fill(words.run_wanted, {kind})]), {title: {text: words.run_parts}, tickformat: ".0%"}],
      undecided: [kinds.map(([kind, found], place) => line(place, told(kind), found.tokens, found.undecided)), {title: {text: words.run_undecided}, tickformat: ".0%", rangemode: "tozero"}],
      multipliers: [pairs("first", "second", (kind) => [fill(words.run_first, {kind}), fill(words.run_second, {kind})]), {title: {text: words.run_multipliers}}],
    };
    for (const [name, [traces, yaxis]] of Object.entries(drawn)) {
      plot(part(box, `ls-${name}`), traces, {...named, xaxis: tokensAxis(run, words), yaxis}, 300);
    }
  };

  // The runs of one source in one chart, on text of the training kind (line) and on other text (dashes).
  const BESIDE = 6;
  const beside = (box, runs, words) => {
    const all = runs.flatMap((run) => run.looks.flatMap((look) => [look.kind[0], look.other[0]])).filter((ratio) => ratio > 0), scale = ratioScale(all);
    const end = Math.max(...runs.map((run) => run.looks.at(-1).tokens)) || 1;
    const curve = (run, place, name) => ({
      type: "scatter", mode: "lines+markers", name: run.name, legendgroup: run.name, showlegend: name === "kind", x: run.looks.map((look) => look.tokens), y: run.looks.map((look) => look[name][0]), meta: {columns: {text: run.looks.map(() => words[`run_${name}`])}},
      line: {color: several[place % several.length], width: 2, dash: name === "kind" ? "solid" : "dash"}, marker: {symbol: place, size: 7}, hovertemplate: `×%{y:.3f}<extra>${run.name}: ${words[`run_${name}`]}</extra>`,
    });
    plot(box, runs.flatMap((run, place) => ["kind", "other"].map((name) => curve(run, place, name))), {
      ...named,
      xaxis: {title: {text: words.run_tokens_axis}, range: [-.02 * end, 1.03 * end]}, yaxis: {title: {text: words.run_ratio_axis}, ...scale.axis},
    }, 300);
  };

  const spoken = (run, prompt, words) => {
    const list = element("ol", {class: "ls-spoken", tabindex: 0, "aria-label": fill(words.run_speaks, {prompt})});
    list.append(...[...run.looks].reverse().map((look) => {
      const row = element("li");
      row.append(element("b", {}, fill(words.run_after, {tokens: many(look.tokens)})), element("span", {}, look.spoken.trim() || "–"));
      return row;
    }));
    return [element("h4", {}, fill(words.run_speaks, {prompt})), list];
  };

  const said = (run, words) => {
    const last = run.looks.at(-1), best = run.state === "done" && run.best !== null ? [element("p", {class: "ls-hint"}, fill(words.run_best, {tokens: many(run.best)}))] : [];
    return [...best, ...(run.apart ? [element("p", {class: "ls-warning"}, fill(words.run_apart, {other: times(last.other[0]), kind: times(last.kind[0])}))] : [])];
  };

  const detail = (box, run, prompt, words, doing) => {
    anew(part(box, "ls-title"), run.name, () => [element("h4", {}, run.name)]);
    anew(part(box, "ls-asked"), run.asked, () => [element("p", {class: "ls-rule"}, asked(run, words))]);
    anew(part(box, "ls-where"), [run.state, run.error, progress(run, words), notes(run, words)], () => [
      ...(run.error ? [element("p", {class: "ls-problem", role: "alert"}, run.error)] : []),
      ...[progress(run, words), notes(run, words)].filter(Boolean).map((text) => element("p", {}, text))]);
    const deed = part(box, "ls-row-buttons");
    anew(deed, [run.name, run.state, run.pausing, run.looks.length > 0, doing.asking], () => deeds(run, words, doing));
    const charts = part(box, "ls-charts"), [loss, ratio, shares] = [part(charts, "ls-loss"), part(charts, "ls-ratios"), part(charts, "ls-shares")];
    loss.hidden = !run.loss.length;
    ratio.hidden = !run.looks.length;
    if (run.loss.length) losses(loss, run, words);
    if (run.looks.length) ratios(ratio, run, words);
    shares.hidden = Object.keys(run.domains).length < 2;
    if (!shares.hidden) domains(shares, run, words);
    const learned = part(box, "ls-masks");
    learned.classList.add("ls-pair");
    learned.hidden = !Object.keys(run.masks).length;
    if (!learned.hidden) masks(learned, run, words);
    anew(part(box, "ls-gap"), [run.apart, run.best, run.state, run.looks.length], () => said(run, words));
    anew(part(box, "ls-says"), run.looks.map((look) => look.spoken), () => (run.looks.length ? spoken(run, prompt, words) : []));
  };

  // Request the runs when they become visible: another tab or a terminal may have changed them.
  const watched = (box, trigger) => { const seen = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) trigger("browse", {}); }); seen.observe(box); return seen; };

  views.recovery = (box, {value, words, trigger, local, draw}) => {
    local.seen ??= watched(box, trigger);
    const runs = value.runs ?? [], {shown} = value, act = (what, name) => trigger("row", {what, name});
    part(box, "ls-none").replaceChildren(...(runs.length ? [] : [element("p", {class: "ls-waiting"}, words.waiting_recovery)]));
    const list = part(box, "ls-runs"), together = part(box, "ls-beside"), one = part(box, "ls-run");
    [list, one].forEach((each) => { each.hidden = !shown; });
    const drawn = runs.filter((run) => run.looks.length > 1).slice(0, BESIDE);
    together.hidden = drawn.length < 2;
    if (!together.hidden) beside(part(together, "ls-curves"), drawn, words);
    anew(part(together, "ls-read"), words.run_beside_read, () => [element("p", {class: "ls-hint"}, words.run_beside_read)]);
    if (!shown) return;
    const told = runs.map((run) => [run.name, stateOf(run, words), many(run.tokens), run.before, run.after]);
    const held = list.contains(document.activeElement) ? document.activeElement.dataset.entry : null;
    anew(list, [told, shown.name], () => table(runs, shown.name, words, (name) => act("show", name)));
    if (held) [...list.querySelectorAll("tr[data-entry]")].find((row) => row.dataset.entry === held)?.focus();
    const ask = (name) => { local.asking = name; draw(); one.querySelector(name ? '[data-deed="keep"]' : '[data-deed="delete"]')?.focus(); };
    detail(one, shown, value.prompt, words, {act: (what) => act(what, shown.name), ask, asking: local.asking === shown.name});
  };
})(window.layerscope);
