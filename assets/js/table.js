// A table from Python: sorted by any column, without columns that are the same in all rows, copied as Markdown or CSV.
"use strict";

(() => {
  const ls = window.layerscope, {element, fill} = ls;

  // Without clipboard access (an address that is neither https nor this machine), copy by execCommand.
  ls.copy = async (text) => {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = element("textarea", {style: "position:fixed;opacity:0"});
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  ls.copyButton = (label, text) => {
    const made = element("button", {type: "button", class: "ls-button"}, label);
    made.onclick = async () => {
      await ls.copy(text());
      made.textContent = ls.words.copied;
      setTimeout(() => { made.textContent = label; }, 1500);
    };
    return made;
  };

  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null); // missing values last, in both directions
    return typeof a === "string" ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
  };

  // `columns` are {label, keys, text(row)}: `keys` are the sheet's columns that it shows, the first of them to sort by.
  // `dress(element, row)` may add to a row; `under` are elements below the table. `rest` is the order of rows before the user
  // sorts.
  ls.grid = (box, {sheet, columns, words, local, rest, dress = () => {}, under = []}) => {
    const value = (row, key) => sheet.rows[row][sheet.columns.indexOf(key)] ?? null;
    const has = (key) => sheet.columns.includes(key);
    const alike = columns.filter((column, index) => index && column.keys.every((key) => !has(key) || sheet.same.includes(key)));
    const shown = columns.filter((column) => local.everything || !alike.includes(column));
    const order = [...rest];
    if (local.sort) order.sort((a, b) => { const [x, y] = [a, b].map((row) => value(row, local.sort.key)); return (x === null || y === null ? 1 : local.sort.way) * compare(x, y); });
    const again = () => ls.grid(box, {sheet, columns, words, local, rest, dress, under});

    const made = element("table", {class: "ls-board-table"}), head = element("tr", {});
    shown.forEach(({label, keys: [key]}) => {
      const way = local.sort?.key === key ? local.sort.way : 0, cell = element("th", {scope: "col", "aria-sort": {1: "ascending", [-1]: "descending"}[way] ?? "none"});
      const button = element("button", {type: "button", class: "ls-sort", "data-sort": key}, `${label}${{1: " ▲", [-1]: " ▼"}[way] ?? ""}`);
      button.onclick = () => { local.sort = {key, way: way === 1 ? -1 : 1}; again(); box.querySelector(`[data-sort="${key}"]`)?.focus(); };
      cell.append(button);
      head.append(cell);
    });
    made.append(head);
    order.forEach((row) => {
      const line = element("tr", {});
      shown.forEach(({text}, index) => line.append(element(index ? "td" : "th", index ? {} : {scope: "row"}, text(row))));
      dress(line, row);
      made.append(line);
    });

    const scroll = element("div", {class: "ls-board-scroll"}), foot = element("div", {class: "ls-row-buttons"});
    const lines = (all) => [all[0], ...order.map((row) => all[row + 1])].join("");
    scroll.append(made);
    foot.append(
      ls.copyButton(words.copy_markdown, () => lines(sheet.markdown[local.everything ? "all" : "varying"])),
      ls.copyButton(words.copy_csv, () => lines(sheet.csv)),
    );
    if (alike.length) {
      const button = element("button", {type: "button", class: "ls-button", "data-same": ""}, local.everything ? words.hide_same : words.show_same);
      button.onclick = () => { local.everything = !local.everything; again(); box.querySelector("[data-same]")?.focus(); };
      const told = alike.map(({label, keys, text}) => `${label} ${text(rest.find((row) => value(row, keys[0]) !== null) ?? rest[0])}`).join(", ");
      foot.append(button, element("span", {class: "ls-hint"}, local.everything ? "" : fill(words.same_hidden, {columns: told})));
    }
    const at = box.firstChild?.scrollTop ?? 0;
    box.replaceChildren(scroll, ...under, foot);
    scroll.scrollTop = at;
  };
})();
