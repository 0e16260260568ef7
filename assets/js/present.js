// Present: a guided view for presentations over the whole page. It draws the page's data and requests only the command lines by itself;
// a button measures what is missing. The link has `?present=1` while it is open.
"use strict";

(({views, fill, element, knows}) => {
  const ls = window.layerscope;
  const button = (name, text, act) => { const made = element("button", {type: "button", class: `ls-button ${name}`}, text); made.onclick = act; return made; };

  const stage = (words) => {
    const show = element("dialog", {class: "ls-show", "aria-label": words.present_label}), head = element("header"), foot = element("footer");
    const [model, job, count, heading, body] = [element("b"), element("span", {class: "ls-show-job", role: "status"}), element("output", {class: "ls-count"}), element("h2", {tabindex: -1}), element("div", {class: "ls-stage"})];
    show.append(head, heading, body, foot);
    return Object.assign(show, {head, foot, model, job, count, heading, body});
  };

  const build = (box, words, trigger) => {
    const show = stage(words), titles = ls.slides(words), local = show.local = {};
    let at = 0, before = "explore", waiting = null;
    const still = () => { clearInterval(local.playing); local.playing = null; };
    const turn = (place) => {
      still();
      at = Math.max(0, Math.min(titles.length - 1, place));
      show.body.querySelectorAll(".js-plotly-plot").forEach((chart) => ls.Plotly.purge(chart));
      show.body.replaceChildren();
      show.body.className = `ls-stage ls-step-${at + 1}`;
      show.body.scrollTop = 0;
      show.heading.textContent = titles[at][0];
      show.count.textContent = `${at + 1} / ${titles.length}`;
      show.back.disabled = at === 0;
      show.next.disabled = at === titles.length - 1;
      if (at === titles.length - 1) told();
      draw();
      show.heading.focus();
    };
    const draw = () => {
      if (!show.open || !ls.slides) return;
      const status = knows("status").value, plan = ls.map && ls.shown;
      const board = knows("board"), entry = plan && !board.stale ? board.data?.entries.find((one) => one.name === plan.name) : null;
      if (local.map !== ls.map) { still(); [local.map, local.T, local.sample] = [ls.map, null, 0]; }
      if (local.heardStatus !== status.kind) [local.heardStatus, local.asked] = [status.kind, false];
      if (status.problem) local.asked = false;
      show.model.textContent = [ls.model, plan ? fill(words.present_plan, {left: plan.depth, source: ls.map.depth}) : ""].filter(Boolean).join(" · ");
      show.job.textContent = status.kind ? ls.jobLine(status, words) : "";
      show.body.classList.toggle("ls-stale", Boolean(knows("fold").stale)); // greyed as on the page: the settings have changed since
      show.body.querySelectorAll(".ls-wait").forEach((one) => one.remove());
      const room = innerWidth < 700 ? 320 : show.body.clientHeight - 8;
      titles[at][1](show.body, {
        words, status, plan, entry, local, room, draw, go, map: ls.map, profile: knows("similarity").data, rule: plan?.settings?.rule ?? (ls.choice === "map" ? ls.map?.rule : null),
        waiting: status.kind ? words.present_working : words.present_stopped,
        ask: (also) => { local.asked = true; trigger("ask", {also}); setTimeout(() => { local.asked = false; later(); }, 15000); draw(); }, // a server that is down answers nothing
        take: (step) => { ls.picked = ls.shortest(step); trigger("take", {}); setTimeout(told, 600); },
      });
    };
    const told = () => knows("terminal-fold").trigger?.("browse", {}); // the command lines for the present controls
    const later = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => { if (show.open) underneath(); draw(); }); };
    const underneath = () => { // Fold holds the plan shown, and draws only while its tab is open
      const tab = document.getElementById("tab-fold");
      if (tab && location.hash !== "#fold") tab.click();
    };
    const enter = () => {
      before = location.hash.slice(1) || "explore";
      show.showModal();
      ls.opened({present: 1});
      turn(0);
      later();
    };
    const go = (tab, target) => { before = tab; show.close(); setTimeout(() => document.querySelector(target)?.focus(), 0); };
    show.onclose = () => {
      still();
      ls.opened({present: null});
      document.getElementById(`tab-${before}`)?.click();
      box.querySelector(".ls-present-open").focus();
    };
    show.back = button("ls-back", words.present_back, () => turn(at - 1));
    show.next = button("ls-next ls-main", words.present_next, () => turn(at + 1));
    show.head.append(show.model, show.job, button("ls-leave", words.present_leave, () => show.close()));
    show.foot.append(show.back, show.count, show.next);
    keys(show, (by) => turn(by === -Infinity ? 0 : by === Infinity ? titles.length - 1 : at + by));
    new ResizeObserver(later).observe(show.body);
    ls.heard = later;
    box.replaceChildren(button("ls-present-open", words.present, enter), show);
    if (new URLSearchParams(location.search).get("present") === "1") enter();
    return draw;
  };

  // Keys and swipes change the step, unless the slider or a button uses them.
  const keys = (show, turn) => {
    document.addEventListener("keydown", (event) => { // on the document: a pressed button may be removed, and the focus with it
      if (!show.open || event.altKey || event.ctrlKey || event.metaKey || (event.key === " " && event.target.closest("button"))) return;
      const by = {ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1, Home: -Infinity, End: Infinity}[event.key];
      if (by) { event.preventDefault(); turn(by); }
    });
    let from = null;
    show.addEventListener("touchstart", (event) => { from = event.touches.length === 1 && !event.target.closest("input, pre") ? event.touches[0] : null; }, {passive: true});
    show.addEventListener("touchend", (event) => {
      const to = event.changedTouches[0], across = from && to.clientX - from.clientX;
      if (from && Math.abs(across) > 60 && Math.abs(across) > 2 * Math.abs(to.clientY - from.clientY)) turn(across < 0 ? 1 : -1);
    }, {passive: true});
  };

  views.present = (box, {words, trigger, local}) => { (local.redraw ??= build(box, words, trigger))(); };
})(window.layerscope);
