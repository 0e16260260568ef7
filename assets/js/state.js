// The page's state outside Python: the address bar, undo and redo, one workbench for each tab of the browser.
"use strict";

(() => {
  const ls = window.layerscope;
  const past = [], future = [];
  let now = null, restoring = false, waiting = null;

  // A first view: the link names no setting, and nobody has touched one. It is in no address, so that it stays one.
  const given = new URLSearchParams(location.search);
  ls.first = !["T", "C", "I", "L", "H", "rule", "similarity"].some((name) => given.get(name));

  // A tab keeps its workbench through a reload and through a change of language.
  ls.session = () => {
    const id = sessionStorage.getItem("layerscope") ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("layerscope", id);
    if (innerWidth < 768) document.querySelector(".sidebar.open .toggle-button")?.click(); // on a phone it would cover the page
    return [id, location.search];
  };

  const write = (state) => {
    const query = new URLSearchParams(location.search);
    Object.entries(state).forEach(([key, value]) => (value === null || value === "" || value === "[]" ? query.delete(key) : query.set(key, value)));
    history.replaceState(null, "", `${location.pathname}?${query}${location.hash}`);
  };

  // Every control's change ends here: the address follows at once, the history when the hand has come to rest.
  ls.changed = (names, values) => {
    const state = Object.fromEntries(names.map((name, index) => [name, values[index]]));
    if (state.plan !== "map" || state.spans !== "[]") ls.first = false;
    if (!ls.first) write(state);
    clearTimeout(waiting);
    const byItself = ls.first || ls.following; // nobody's step to go back to
    ls.following = false;
    waiting = setTimeout(() => {
      const text = JSON.stringify(values);
      if (!restoring && !byItself && now !== null && now !== text) { past.push(now); future.length = 0; }
      now = text;
      restoring = false;
    }, 400);
  };
  const restore = (from, to, values) => {
    if (!from.length) return values;
    to.push(now);
    restoring = true;
    now = from.pop();
    return JSON.parse(now);
  };
  ls.undo = (values) => restore(past, future, values);
  ls.redo = (values) => restore(future, past, values);
  ls.opened = (state) => write(state);

  ls.language = (path) => { location.href = `${path}${location.search}${location.hash}`; };
  ls.save = (name, text, type = "application/json") => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type}));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  };
})();
