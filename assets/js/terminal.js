// "In the terminal": the commands of a tab, as Python wrote them for the controls. T and the open model are filled in here.
"use strict";

(() => {
  const ls = window.layerscope, {views, element, fill} = ls;
  const told = new Map(); // draw function to {ask, everyT}: how to request new lines, and whether a change of T alone does
  let waiting = null, more = false; // true if more than T has changed
  let at = null, others = null; // the T that the lines were drawn for, and the rest of the state
  const again = (onlyT = false) => {
    more ||= !onlyT;
    clearTimeout(waiting);
    waiting = setTimeout(() => { told.forEach(({ask, everyT}) => { if (more || everyT) ask(); }); more = false; }, 300);
  };
  ls.moved = (state) => { const now = JSON.stringify({...state, T: null}); again(now === others); others = now; at = state.T ?? at; told.forEach((_, draw) => draw()); };
  ls.whenMoved = (draw, ask) => told.set(draw, {ask, everyT: true}); // for other views whose value Python computes from the controls
  ls.terminal = (facts) => { ls.facts = facts; again(); told.forEach((_, draw) => draw()); };
  const commands = ls.commands = (lines, T, words) => {
    const notes = ls.facts.own && lines.some((line) => line.includes("{calibration}")) ? [words.terminal_calibration] : [];
    return [...notes, ...lines.map((line) => fill(line, {...ls.facts, T}))].join("\n");
  };
  // Controls outside the address send no change here, so any input event may mean a change.
  ["input", "change", "click"].forEach((event) => document.addEventListener(event, (from) => { if (!from.target.closest?.(".ls-terminal")) again(Boolean(from.target.closest?.("#T"))); }, true));

  ["explore", "importance", "fold", "widths", "masks", "search", "compare", "recover", "export"].forEach((tab) => {
    views[`terminal-${tab}`] = (box, {value, words, trigger, draw}) => {
      const opened = () => box.clientWidth > 0 && box.querySelector("details")?.open;
      told.set(draw, {ask: () => { if (opened()) trigger("browse", {}); }});
      if (!ls.facts || !value.lines?.length) { box.replaceChildren(); return; }
      const lines = commands(value.lines, at ?? value.T, words);
      if (box.shownText === lines) return; // keeps the details element while T moves
      box.shownText = lines;
      const whole = box.querySelector("details") ?? element("details", {class: "ls-terminal"});
      whole.ontoggle = () => again();
      whole.replaceChildren(element("summary", {}, words.in_terminal), element("pre", {class: "ls-command", tabindex: 0}, lines), ls.copyButton(words.copy, () => lines));
      if (!whole.isConnected) box.replaceChildren(whole);
    };
  });
})();
