// Small panels: the open model, the running job, the export's report. Text goes in as text, never as markup.
"use strict";

(({views, fill, element, number, times, size}) => {
  const rows = (pairs) => {
    const list = element("dl", {class: "ls-facts"});
    pairs.forEach(([key, value]) => list.append(element("dt", {}, key), element("dd", {}, value)));
    return list;
  };

  views.spec = (box, {value, words}) => {
    if (!value.name) { box.replaceChildren(element("p", {class: "ls-hint"}, words.no_model)); return; }
    box.replaceChildren(element("p", {class: "ls-name"}, value.name), rows([
      [words.family, value.type],
      [words.depth, `${value.depth}`],
      [words.parameter_count, `${(value.parameters / 1e6).toFixed(1)} M`],
      [words.memory, `${size(value.bytes)} (${value.dtype}, ${value.device})`],
      [words.free_memory, size(value.available)],
      [words.fingerprint, value.fingerprint],
    ]));
    window.layerscope.opened({model: value.source});
    if (value.terminal) window.layerscope.terminal(value.terminal);
    window.layerscope.model = value.name; // used in the names of saved files
  };

  const duration = window.layerscope.duration = (seconds, words) => {
    if (seconds < 90) return fill(words.seconds, {count: seconds < 10 ? Math.ceil(seconds) : 5 * Math.ceil(seconds / 5)});
    return seconds < 5400 ? fill(words.minutes, {count: Math.ceil(seconds / 60)}) : fill(words.hours, {count: (seconds / 3600).toFixed(1)});
  };

  const percentOf = ({fraction}) => (fraction === null || fraction === undefined ? null : Math.round(fraction * 100));
  const jobName = (kind, words) => words[`job_${kind}`] ?? kind;
  window.layerscope.jobLine = (value, words) => {
    if (!value.kind) return words.idle;
    const percent = percentOf(value), rest = !value.stopping && Number.isFinite(value.left ?? NaN) ? ` · ${fill(words.time_left, {time: duration(value.left, words)})}` : "";
    return `${jobName(value.kind, words)}${percent === null ? "" : ` ${percent} %`}${rest}`;
  };

  // Show the later of two answers, in any order of arrival. An answer that arrives too late may have stopped the timer, so wake
  // it.
  const latest = (value, local, trigger) => {
    if (!(value.at < local.latest?.at)) local.latest = value;
    else if (value.at !== local.late) { local.late = value.at; trigger("wake", {}); }
    return local.latest;
  };

  // Elements that stick below the status line need its height, which a notice changes.
  const underneath = (row) => { new ResizeObserver(() => document.body.style.setProperty("--ls-status", `${row.offsetHeight}px`)).observe(row); return true; };

  views.status = (box, {value: told, words, local, trigger}) => {
    const value = latest(told, local, trigger);
    window.layerscope.wake = () => trigger("wake", {});
    if (value.gone) location.reload();
    local.sized ??= underneath(document.querySelector(".ls-status-row"));
    box.replaceChildren();
    if (document.body.classList.contains("ls-away")) { // a change of this class redraws all views
      box.append(element("p", {class: "ls-problem", role: "alert"}, words.away));
      return;
    }
    box.classList.toggle("ls-busy", Boolean(value.kind));
    window.layerscope.atWork(Boolean(value.kind));
    if (value.problem !== null && value.problem !== undefined) {
      box.append(element("p", {class: "ls-problem", role: "alert"}, value.problem || words.bug));
      if (!value.kind) return;
    }
    if (value.notice && (!value.of || value.of === window.layerscope.shown?.name)) box.append(element("p", {class: "ls-notice", role: "status"}, value.notice));
    const percent = percentOf(value);
    const detail = value.stopping ? words.stopping : value.behind !== null && value.behind !== undefined ? fill(words.behind, {job: value.behind ? jobName(value.behind, words) : words.another_job}) : value.label ?? (value.learns ? fill(words.run_beside, {name: value.learns}) : "");
    const line = window.layerscope.jobLine(value, words);
    const bar = element("div", {class: "ls-progress", role: "progressbar", "aria-label": line, ...(percent === null ? {} : {"aria-valuenow": percent})});
    bar.append(element("i", {style: value.kind ? (percent === null ? "width:100%" : `width:${percent}%`) : "width:0", class: percent === null && value.kind ? "ls-unknown" : ""}));
    box.append(element("p", {class: "ls-job"}, line), element("p", {class: "ls-detail"}, detail), bar);
  };

  // The estimated time of some buttons' jobs, requested while they are visible.
  const takes = (button, called, says, wanted = () => true) => (box, {value, words, local, trigger, draw}) => {
    const looked = () => document.getElementById(button)?.clientWidth > 0; // no request while the buttons are hidden
    window.layerscope.whenMoved(draw, () => { if (looked() && wanted(local)) trigger("browse", {}); });
    const known = Object.entries(value.seconds ?? {}).filter(([, seconds]) => seconds > 0 && Number.isFinite(seconds));
    const took = known.map(([kind, seconds]) => `${called(words, kind)}: ${duration(seconds, words)}`).join(" · ");
    box.replaceChildren(...(took ? [element("p", {class: "ls-hint"}, says(words, value.tokens, took))] : []));
  };
  const once = (local) => { const first = local.facts !== window.layerscope.facts; local.facts = window.layerscope.facts; return first; }; // true once per opened model
  views["repair-times"] = takes("repair-ridge", (words, kind) => words[`repair_${kind}`] ?? kind, (words, tokens, times) => fill(words.repair_takes, {tokens, times}));
  views["importance-times"] = takes("measure-score", (words, kind) => (kind === "all" ? words.importance_all : words.importance_button), (words, tokens, times) => fill(words.importance_takes, {tokens, times}));
  views["trim-times"] = takes("trim-button", (words) => words.width_button, (words, tokens, times) => fill(words.importance_takes, {tokens, times}), once);
  views["mask-times"] = takes("prune-button", (words) => words.masks_button, (words, tokens, times) => fill(words.importance_takes, {tokens, times}));

  views.repaired = (box, {value, words, trigger}) => {
    if (!value.kind) { box.replaceChildren(element("p", {class: "ls-hint"}, words.repair_read)); return; }
    const [before, after] = [times(value.before), times(value.after)];
    const solved = value.solved ? fill(words.repaired_solved, {solved: value.solved, tokens: value.tokens, before, after}) : "";
    const text = value.seams ? fill(words.repaired_says, {seams: value.seams, tokens: value.tokens, before, after}) : solved || fill(words.repaired_none, {before});
    box.replaceChildren(element("p", {class: solved && value.worse ? "ls-warning" : "ls-rule"}, text));
    if (!value.seams && !solved) return;
    const on = {practice: value.practice, texts: value.texts, kl_before: number(value.practice_before), kl_after: number(value.practice_after)};
    const undo = element("button", {type: "button", class: "ls-button ls-undo-repair"}, words.undo_repair);
    undo.onclick = () => trigger("undo", {});
    if (value.seams) box.append(element("p", {class: value.worse ? "ls-warning" : "ls-hint"}, fill(value.worse ? words.repaired_worse : words.repaired_better, on)));
    box.append(undo);
  };

  views.download = (box, {data}) => { // the browser saves a file of the server, once
    if (!data || sessionStorage.getItem("layerscope-saved") === data.id) return;
    sessionStorage.setItem("layerscope-saved", data.id);
    window.layerscope.save(data.name, data.text, "text/html");
  };

  // The checkpoint that Export will write, with its default name.
  views.summary = (box, {value, words}) => {
    const ls = window.layerscope, {shown} = ls, name = document.querySelector("#export-name :is(input, textarea)");
    if (name) name.placeholder = !shown ? "" : value.form === "gguf" ? `${shown.folder}.gguf` : [shown.folder, value.dtype === "auto" ? "" : value.dtype].filter(Boolean).join("-");
    if (!shown) { box.replaceChildren(element("p", {}, words.waiting)); return; }
    const said = fill(words.will_export, {parts: Object.values(ls.partsOf(shown, ls.map.depth, words)).join("; "), size: size(shown.bytes)});
    box.replaceChildren(element("p", {}, said), ...ls.zerosOf(shown, words));
  };

  views.report = (box, {value, words}) => {
    if (!value.path) { box.replaceChildren(); return; }
    const table = element("table", {class: "ls-checks"});
    value.checks.forEach((check) => {
      const row = element("tr", {class: !check.ran ? "" : check.passed ? "ls-pass" : "ls-fail"});
      row.append(element("td", {}, !check.ran ? "–" : check.passed ? "✓" : "✗"), element("td", {}, words[`check_${check.name}`] ?? check.name), element("td", {}, check.detail));
      table.append(row);
    });
    const name = value.path.split(/[\\/]/).pop(), command = `hf upload <you>/${name} ${/\s/.test(value.path) ? `"${value.path}"` : value.path}`;
    const upload = value.passed ? [element("p", {}, words.upload), element("pre", {class: "ls-command"}, command)] : []; // a failed export is not offered for upload
    const files = rows(value.files.map(([file, bytes]) => [file, size(bytes)]));
    const whole = value.checks.every((check) => check.ran);
    const verdict = !value.passed ? words.not_verified : whole ? words.verified : words.not_all_run;
    box.replaceChildren(
      element("p", {class: !value.passed ? "ls-verdict ls-fail" : whole ? "ls-verdict ls-pass" : "ls-verdict"}, verdict),
      table, element("p", {}, fill(words.written, {path: value.path})), files, ...upload,
    );
  };
})(window.layerscope);
