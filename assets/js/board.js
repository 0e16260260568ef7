// The board: pinned plans as a table with their strips, depth against perplexity with the Pareto front, parallel coordinates over
// the settings, and all measurements of the selected plan.
"use strict";

(({views, plot, fill, number, times, rated, size, ratioAxis, element, part, theme, strip, grid}) => {
  const ratio = (entry) => entry.evaluation?.perplexity.ratio;
  const judged = (entry) => Number.isFinite(ratio(entry) ?? NaN);

  // The Pareto front in size and perplexity; `large` is layers or parameters.
  const front = (entries, large) => entries.filter((a) => !entries.some((b) => b !== a && large(b) <= large(a) && ratio(b) <= ratio(a) && (large(b) < large(a) || ratio(b) < ratio(a))))
    .sort((a, b) => large(a) - large(b));

  const button = (text, act) => { const made = element("button", {type: "button", class: "ls-button"}, text); made.onclick = act; return made; };

  const marked = (entry) => (entry.mark ? ` (${entry.mark})` : ""); // another protocol than most

  const table = (box, data, words, local, choose) => {
    const by = (key, cell, ...more) => ({label: words[`col_${key}`], cell, keys: more});
    const judging = (e) => (e ? fill(words.protocol_short, {texts: e.protocol.texts, tokens: e.protocol.tokens, context: e.protocol.context, stride: e.protocol.stride, bos: e.protocol.bos ? words.with_bos : words.without_bos}) : "–");
    const columns = [
      by("plan", (entry) => entry.label || entry.plan.method, "plan"),
      by("layers", (entry) => `${entry.depth}`, "layers"),
      by("ratio_short", (entry, e) => (!e ? "–" : ratio(entry) === null ? words.broken : rated(ratio(entry), e.perplexity.interval)) + marked(entry), "ratio"),
      by("kl_short", (entry, e) => (e ? number(e.kl, 3) : "–"), "kl"),
      by("agreement_short", (entry, e) => (!e || e.top1_agreement === null ? "–" : `${Math.round(e.top1_agreement * 100)} %`), "top1_agreement"),
      by("decode_short", (entry) => (entry.speed ? times(entry.speed.decode_ratio) : "–"), "decode_ratio"),
      by("parameters_short", (entry) => `${(entry.parameters / 1e6).toFixed(1)} M`, "parameters"),
      by("memory", (entry) => size(entry.bytes), "bytes"),
      by("verdict_short", (entry) => (entry.verdict ? words[`verdict_${entry.verdict}`] : "–"), "writes"),
      by("judged_on", (entry, e) => judging(e), ...["texts", "tokens", "context", "stride", "bos"].map((name) => `judged_${name}`)),
    ];
    const of = (row) => data.entries.find((entry) => entry.row === row);
    const [most, ...others] = data.protocols ?? [];
    const apart = (one) => fill(words.apart, {mark: one.mark, texts: one.texts, tokens: one.tokens, context: one.context, others: most.texts, other_tokens: most.tokens, other_context: most.context});
    grid(box, {
      under: others.map((one) => element("p", {class: "ls-warning ls-apart"}, apart(one))),
      sheet: data.sheet, words, local, rest: data.entries.map((entry) => entry.row),
      columns: columns.map((column) => ({...column, text: (row) => column.cell(of(row), of(row).evaluation)})),
      dress: (line, row) => {
        const {name} = of(row);
        line.className = name === local.chosen ? "ls-chosen" : "";
        line.dataset.entry = name;
        line.tabIndex = 0;
        line.onclick = () => choose(name);
        line.onkeydown = (event) => { if (event.key === "Enter") choose(name); };
      },
    });
  };

  const scatter = (box, data, words, chosen, choose) => {
    const wide = data.entries.some((e) => e.plan.width), large = (e) => (wide ? e.parameters / 1e6 : e.depth); // layers are enough where no plan was trimmed
    const t = theme(), known = data.entries.filter(judged), best = front(known.filter((e) => !e.mark), large); // only plans of one protocol are compared
    const sizes = [large(data), ...known.map(large)], ends = [Math.min(...sizes), Math.max(...sizes)], room = wide ? .06 * ends[1] : 1, highest = Math.max(2, ...known.map(ratio));
    plot(box, [
      {type: "scatter", mode: "lines", x: best.map(large), y: best.map(ratio), line: {color: t.accent, width: 1.5, shape: "hv", dash: "dot"}, hoverinfo: "skip"},
      {type: "scatter", mode: "markers+text", x: [large(data)], y: [1], text: [words.of_source], textposition: "top center", textfont: {color: t.faint}, marker: {symbol: "star", size: 11, color: t.faint}, hovertemplate: `${words.of_source}<extra></extra>`},
      {type: "scatter", mode: "markers", x: known.map(large), y: known.map(ratio), customdata: known.map((e) => e.name), text: known.map((e) => `${e.label || e.plan.method}${marked(e)}`),
        marker: {size: known.map((e) => (e.name === chosen ? 15 : 10)), symbol: known.map((e) => (best.includes(e) ? "diamond" : e.mark ? "x-thin-open" : "circle-open")), color: known.map((e) => (e.name === chosen ? t.fold : t.accent)), line: {width: 2}},
        hovertemplate: `%{text}<br>${wide ? "%{x:.1f} M" : `%{x} ${words.layers}`}, ×%{y:.2f}<extra></extra>`},
    ], {
      xaxis: {title: {text: wide ? words.shapes_size_axis : words.layers_left}, range: [ends[0] - room, ends[1] + room], ...(wide ? {} : {tickformat: "d"}), ...(!wide && ends[1] - ends[0] < 12 ? {dtick: 1} : {})},
      yaxis: {title: {text: words.perplexity_ratio}, ...ratioAxis(known.map(ratio), highest, [.08, .12], highest >= 2000)},
    }, 300);
    box.removeAllListeners?.("plotly_click");
    box.on("plotly_click", (event) => { const name = event.points[0].customdata; if (name) choose(name); });
  };

  const parallel = (box, data, words) => {
    const t = theme(), known = data.entries.filter((e) => judged(e) && e.plan.settings.C !== undefined && e.plan.settings.T !== undefined);
    box.hidden = known.length < 2;
    if (box.hidden) return;
    const cost = known.map((e) => Math.log10(ratio(e))), worst = Math.max(.1, ...cost);
    const counted = (label, of) => { const values = known.map(of), tickvals = [...new Set(values)], at = [Math.min(...values), Math.max(...values)]; return {label, values, tickvals, range: at[0] === at[1] ? [at[0] - 1, at[1] + 1] : at}; };
    const measured = [1, 1.5, 2, 5, 10, 20, 50, 100, 1000, 1e4, 1e6].filter((v) => Math.log10(v) <= worst);
    plot(box, [{type: "parcoords", meta: {columns: Object.fromEntries([["plan", (e) => e.label || e.plan.method], ...["C", "I", "T"].map((name) => [name, (e) => e.plan.settings[name]]), ["layers", (e) => e.depth], ["ratio", ratio]].map(([name, of]) => [name, known.map(of)]))}, line: {color: cost, colorscale: "Cividis", reversescale: true}, labelfont: {color: t.text}, tickfont: {color: t.text}, rangefont: {size: 1, color: "rgba(0,0,0,0)"}, // the ticks show the range
      dimensions: [
        counted("C", (e) => e.plan.settings.C), counted("I", (e) => e.plan.settings.I), {label: "T", values: known.map((e) => e.plan.settings.T)}, counted(words.layers, (e) => e.depth),
        {label: words.perplexity, values: cost, range: [Math.min(0, ...cost), worst], tickvals: measured.map(Math.log10), ticktext: measured.map((v) => `×${v}`)},
      ]}], {margin: {l: 36, r: 64, t: 50, b: 20}}, 280);
  };

  const strips = (box, data, words, width, chosen, choose) => {
    box.replaceChildren(...data.entries.map((entry) => {
      const row = element("div", {class: `ls-strip-row${entry.name === chosen ? " ls-chosen" : ""}`}), inside = element("div", {});
      row.append(element("span", {}, `${entry.label || entry.plan.method} · ${entry.depth}${judged(entry) ? ` · ${times(ratio(entry))}` : ""}`), inside);
      strip(inside, data.depth, entry.plan.blocks, words, width - 4);
      row.onclick = () => choose(entry.name);
      return row;
    }));
  };

  const passage = (words, who, made) => {
    const item = element("div", {class: "ls-passage"});
    item.append(element("b", {}, who), element("p", {}, made.text), element("p", {class: "ls-hint"}, fill(words.sample_facts, {d1: number(made.distinct_1, 2), d2: number(made.distinct_2, 2), run: made.longest_repeat}) + (made.loops ? ` ${words.sample_loops}` : "")));
    return item;
  };

  const beside = (sample, words) => {
    const pair = element("div", {class: "ls-pair"});
    pair.append(passage(words, words.of_source, sample.source), passage(words, words.of_plan, sample.plan));
    return [element("p", {class: "ls-prompt"}, `${sample.prompt} … (${words[`decoding_${sample.decoding}`]})`), pair];
  };

  const spread = (box, entry, words) => { // the rise on every text, so that noise is not read as signal
    const t = theme(), texts = entry.evaluation.texts, rise = texts.map((s) => (s.plan_nll - s.source_nll) / s.tokens);
    plot(box, [{type: "scatter", mode: "markers", x: rise.map((r) => Math.exp(r)), y: texts.map((_, index) => index), marker: {color: t.accent, size: 7, opacity: .7}, hovertemplate: `${words.text} %{y}: ×%{x:.2f}<extra></extra>`}],
      {xaxis: {title: {text: words.ratio_by_text}, type: "log"}, yaxis: {title: {text: words.text}, showgrid: false}}, 220);
  };

  const details = (box, entry, words, act, local) => {
    if (!entry) { box.replaceChildren(element("p", {class: "ls-hint"}, words.board_choose)); return; }
    const e = entry.evaluation, made = [element("h4", {}, `${entry.label || entry.plan.method}, ${entry.depth} ${words.layers}`)];
    const row = element("div", {class: "ls-row-buttons"});
    row.append(...["show", "samples", "speed", "tasks", "remove"].map((what) => button(words[`row_${what}`], () => act(what, entry.name))));
    made.push(row);
    if (e) made.push(element("p", {class: "ls-rule"}, fill(words.protocol, {tokens: e.protocol.tokens, texts: e.protocol.texts, context: e.protocol.context, stride: e.protocol.stride, bos: e.protocol.bos ? words.with_bos : words.without_bos, source: number(e.perplexity.source, 2), plan: e.perplexity.plan === null ? words.broken : number(e.perplexity.plan, 2)})));
    if (e && judged(entry) && e.texts.length > 1) { const dots = element("div", {class: "ls-by-text"}); made.push(dots); setTimeout(() => dots.isConnected && spread(dots, entry, words), 0); }
    if (entry.speed) made.push(element("p", {class: "ls-rule"}, fill(words.speed_says, {decode: times(entry.speed.decode_ratio), prefill: times(entry.speed.prefill_ratio), theory: times(1 / entry.speed.depth_ratio)})));
    if (entry.memory) { const m = entry.memory; made.push(element("p", {class: "ls-rule"}, fill(words.memory_says, {context: m.context, batch: m.batch, plan_cache: size(m.plan_cache), source_cache: size(m.source_cache), plan_weights: size(m.plan_weights), source_weights: size(m.source_weights), disk: size(m.plan_disk)}))); }
    if (entry.speed?.source_peak) made.push(element("p", {class: "ls-rule"}, fill(words.peak_says, {source: size(entry.speed.source_peak), plan: size(entry.speed.plan_peak), read: entry.speed.prompt_tokens, written: entry.speed.new_tokens})));
    (entry.tasks ?? []).forEach((one) => {
      const says = (value) => (value === null ? "–" : /^(acc|exact_match|f1)/.test(one.metric) ? `${number(100 * value, 1)} %` : number(value, 3));
      made.push(element("p", {class: "ls-rule"}, fill(words.task_says, {task: one.task.replace("layerscope_", ""), metric: one.metric, source: says(one.source), source_error: says(one.source_stderr), plan: says(one.plan), plan_error: says(one.plan_stderr)})));
    });
    const [first, ...others] = (entry.samples ?? []).map((sample) => beside(sample, words));
    if (first) made.push(...first);
    if (others.length) { // closed by default, so that the parts below stay visible
      const rest = element("details", {class: "ls-samples"});
      rest.append(element("summary", {}, fill(words.samples_more, {count: others.length})), ...others.flat());
      rest.open = Boolean(local.samples);
      rest.ontoggle = () => { local.samples = rest.open; };
      made.push(rest);
    }
    box.replaceChildren(...made);
  };

  views.ablation = (box, {data, words, local}) => {
    const judged = (one) => one.evaluation ?? one;
    const columns = [
      ["plan", words.col_plan, (one) => one.label], ["layers", words.col_layers, (one) => `${one.depth}`], ["similarity", words.final_similarity, (one) => number(one.similarity, 3)],
      ["ratio", words.col_ratio_short, (one) => times(judged(one).ratio)], ["kl", words.col_kl_short, (one) => number(judged(one).kl, 3)],
    ].map(([key, label, cell]) => ({label, keys: [key], text: (row) => cell(data.rows[row])}));
    const telling = (data.telling ?? []).map((one) => element("p", {class: "ls-rule"}, fill(words.telling, {measure: one.measure, correlation: number(one.correlation, 2), low: number(one.lowest, 3), high: number(one.highest, 3), plans: one.plans})));
    const table = element("div", {class: "ls-grid"});
    grid(table, {sheet: data.sheet, columns, words, local, rest: data.rows.map((_, row) => row)});
    box.replaceChildren(element("p", {class: "ls-rule"}, words[`asks_${data.name}`]), table, ...telling);
  };

  views.board = (box, {data, words, trigger, local, draw, width}) => {
    if (!data.entries.length) { box.replaceChildren(element("p", {class: "ls-waiting"}, words.board_empty)); return; }
    if (box.querySelector(".ls-waiting")) box.replaceChildren();
    data.entries.forEach((entry, row) => { entry.row ??= row; }); // its row in the sheet, before sorting
    data.entries.sort((a, b) => b.depth - a.depth || (ratio(a) ?? Infinity) - (ratio(b) ?? Infinity)); // most layers first, then the lowest ratio
    const choose = (name) => { local.chosen = name; draw(); };
    const act = (what, name) => trigger("row", {what, name});
    const entry = data.entries.find((one) => one.name === local.chosen);
    table(part(box, "ls-grid"), data, words, local, choose);
    details(part(box, "ls-details"), entry, words, act, local);
    const pair = part(box, "ls-charts");
    scatter(part(pair, "ls-front"), data, words, local.chosen, choose);
    parallel(part(pair, "ls-parallel"), data, words);
    strips(part(box, "ls-strips"), data, words, width, local.chosen, choose);
  };
})(window.layerscope);
