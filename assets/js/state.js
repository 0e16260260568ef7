// The page's state in the browser: the address bar, undo and redo, and one session per browser tab.
"use strict";

(() => {
  const ls = window.layerscope;
  const past = [], future = [];
  let now = null, restoring = false, waiting = null;

  // A first view: the link names no setting and the user has changed none. The address stays empty, so that a reload is a first
  // view again.
  const given = new URLSearchParams(location.search);
  ls.first = !["T", "C", "I", "L", "H", "rule", "similarity"].some((name) => given.get(name));

  // A tab keeps its session through a reload and a change of language.
  ls.session = () => {
    const id = sessionStorage.getItem("layerscope") ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("layerscope", id);
    if (innerWidth < 768) document.querySelector(".sidebar.open .toggle-button")?.click(); // on a phone the side bar would cover the page
    return [id, location.search, stored().own ?? ""];
  };

  // Typed inputs stay in this browser tab, through a reload and a change of language.
  const stored = () => ls.parse(sessionStorage.getItem("layerscope-typed"), null) ?? {};
  ls.keep = (names, values) => sessionStorage.setItem("layerscope-typed", JSON.stringify(Object.fromEntries(names.map((name, index) => [name, values[index]]))));
  ls.kept = (names, values) => { const known = stored(); return names.map((name, index) => known[name] ?? values[index]); };

  // Poll the server while the page is visible. This detects a server that is down and one that restarted, which has lost the
  // session. The server also closes idle sessions, so a visible page wakes it once a minute, and at once after the page was
  // hidden or the machine asleep.
  let served = null, missed = 0, here = Date.now();
  const away = (is) => { if (document.body.classList.contains("ls-away") !== is) document.body.classList.toggle("ls-away", is); };
  const look = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch("/gradio_api/app_id", {cache: "no-store", signal: AbortSignal.timeout(20000)});
        if (!answer.ok && answer.status !== 401) throw new Error(answer.status);
        const {app_id} = answer.ok ? await answer.json() : {}; // signed out: the reload shows the login page
        if (served !== null && served !== app_id) location.reload();
        if (Date.now() - here > 60000) { here = Date.now(); ls.wake?.(); }
        [served, missed] = [app_id, 0];
      } catch { missed += 1; }
      away(missed > 1);
    }
    setTimeout(look, missed ? 1500 : 5000);
  };
  look();

  const write = (state) => {
    const query = new URLSearchParams(location.search);
    Object.entries(state).forEach(([key, value]) => (value === null || value === "" || value === "[]" ? query.delete(key) : query.set(key, value)));
    history.replaceState(null, "", `${location.pathname}?${query}${location.hash}`);
  };

  // Every control's change ends here: the address is updated at once, the history after a pause.
  ls.changed = (names, values) => {
    const state = Object.fromEntries(names.map((name, index) => [name, values[index]]));
    if (state.plan !== "map" || state.spans !== "[]") ls.first = false;
    if (!ls.first) write(state);
    ls.moved(state);
    clearTimeout(waiting);
    const byItself = ls.first || ls.following; // not a user's step, so no undo step
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
  const download = (name, href) => { const link = document.createElement("a"); link.href = href; link.download = name; link.click(); };
  ls.save = (name, text, type = "application/json") => {
    const href = URL.createObjectURL(new Blob([text], {type}));
    download(name, href);
    URL.revokeObjectURL(href);
  };
  ls.fetched = (file) => { if (file) download(file.orig_name, file.url); }; // null where the server refused
})();
