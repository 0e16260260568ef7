// The list below the Model box: a combobox on Gradio's own text box, so that typed paths keep working.
"use strict";

(({views, element, part, size}) => {
  const GROUPS = ["demo", "recent", "export", "hub"];
  const set = (input, text) => { // as if typed: Gradio listens to input events
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(input), "value").set.call(input, text);
    input.dispatchEvent(new Event("input", {bubbles: true}));
  };

  const option = (model, index, words) => {
    const row = element("div", {role: "option", id: `ls-model-${index}`, class: "ls-option", "aria-selected": "false", "aria-disabled": `${!model.supported}`, title: model.source});
    const about = [model.model_type, model.bytes ? size(model.bytes) : "", model.supported ? "" : words.models_not].filter(Boolean).join(" · ");
    row.append(element("b", {}, model.name), element("span", {}, about));
    if (model.source !== model.name) row.append(element("span", {class: "ls-option-source"}, model.source));
    if (!model.supported) row.append(element("span", {class: "ls-option-reason"}, model.reason));
    return row;
  };

  views.models = (box, {value, words, trigger, local}) => {
    const button = box.querySelector("button") ?? box.appendChild(element("button", {type: "button", class: "ls-picker", "aria-haspopup": "listbox", "aria-controls": "ls-models-list"}));
    const list = part(box, "ls-options");
    const input = document.querySelector("#model input, #model textarea");
    const models = value.models ?? [];
    Object.assign(local, {input, models, words, trigger, list, button});
    button.textContent = words.models_show;
    Object.entries({id: "ls-models-list", role: "listbox", "aria-label": words.models_show}).forEach(([name, text]) => list.setAttribute(name, text));
    if (!local.wired) wire(box, local);
    refill(local);
  };

  // The models shown: all, or those whose name or source contains the typed text.
  const refill = (local) => {
    const {models, list, words, typed} = local;
    const found = (model) => !typed || `${model.name} ${model.source} ${model.model_type}`.toLowerCase().includes(typed.toLowerCase());
    local.rows = [];
    list.replaceChildren();
    GROUPS.forEach((kind) => {
      const members = models.map((model, index) => [model, index]).filter(([model]) => model.group === kind && found(model));
      if (!members.length) return;
      const group = element("div", {role: "group", "aria-label": words[`models_${kind}`]});
      group.append(element("p", {class: "ls-group", "aria-hidden": "true"}, words[`models_${kind}`]));
      members.forEach(([model, index]) => {
        const row = option(model, index, words);
        local.rows.push([row, model]);
        row.onpointerdown = (event) => event.preventDefault(); // keeps the focus in the box
        row.onclick = () => choose(local, model);
        group.append(row);
      });
      list.append(group);
    });
    if (!local.rows.length) list.append(element("p", {class: "ls-hint"}, words.models_none));
    mark(local, local.rows.findIndex(([, model]) => model.source === local.active));
    show(local, local.open);
  };

  const mark = (local, place) => {
    local.rows.forEach(([row], index) => row.setAttribute("aria-selected", `${index === place}`));
    local.active = local.rows[place]?.[1].source ?? null;
    if (local.active === null) { local.input?.removeAttribute("aria-activedescendant"); return; }
    local.input?.setAttribute("aria-activedescendant", local.rows[place][0].id);
    local.rows[place][0].scrollIntoView({block: "nearest"});
  };

  const show = (local, open) => {
    local.open = Boolean(open);
    local.list.hidden = !local.open;
    local.button.setAttribute("aria-expanded", `${local.open}`);
    local.input?.setAttribute("aria-expanded", `${local.open}`);
  };
  const opened = (local) => {
    if (local.open) return;
    Object.assign(local, {typed: "", active: null, open: true});
    refill(local);
    local.trigger("browse", {}); // the answer adds models opened or exported meanwhile
  };

  const choose = (local, model) => {
    if (!model.supported) return; // the list shows the reason
    local.choosing = true;
    set(local.input, model.source);
    local.choosing = false;
    show(local, false);
    local.input.focus({preventScroll: true});
  };

  // Open a model as a user who types its name would; Gradio receives typed text a moment later.
  window.layerscope.openModel = (source) => {
    set(document.querySelector("#model input, #model textarea"), source);
    setTimeout(() => document.getElementById("open").click(), 100);
  };

  const wire = (box, local) => {
    const {button, input} = local;
    if (!input) return;
    local.wired = true;
    Object.entries({role: "combobox", "aria-autocomplete": "list", "aria-controls": "ls-models-list", autocomplete: "off"}).forEach(([name, text]) => input.setAttribute(name, text));
    button.onclick = () => {
      if (local.open) { show(local, false); return; }
      opened(local);
      if (!matchMedia("(pointer: coarse)").matches) input.focus(); // on a phone its keyboard would cover the list
    };
    input.addEventListener("input", () => {
      if (local.choosing || !local.open) return;
      Object.assign(local, {typed: input.value.trim(), active: null});
      refill(local);
    });
    const keys = (event) => {
      const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
      if (step) {
        event.preventDefault();
        if (!local.open) { opened(local); return; }
        const now = local.rows.findIndex(([, model]) => model.source === local.active);
        mark(local, now < 0 && step < 0 ? local.rows.length - 1 : (now + step + local.rows.length) % Math.max(local.rows.length, 1));
      } else if (event.key === "Escape" && local.open) {
        event.preventDefault();
        show(local, false);
      } else if (event.key === "Enter" && local.open) {
        const picked = local.rows.find(([, model]) => model.source === local.active)?.[1];
        if (picked) { event.preventDefault(); event.stopImmediatePropagation(); choose(local, picked); } else if (event.target === input) show(local, false);
      }
    };
    input.addEventListener("keydown", keys, true); // before Gradio's handler, where Enter opens the typed text
    button.addEventListener("keydown", keys);
    document.addEventListener("pointerdown", (event) => { if (local.open && !box.contains(event.target) && event.target !== input) show(local, false); });
    input.addEventListener("blur", (event) => { if (!box.contains(event.relatedTarget)) show(local, false); });
  };
})(window.layerscope);
