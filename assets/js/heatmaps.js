// Explore: the similarity heatmap with its per-layer bars, the fold landscape, the weight distance, the token norms.
"use strict";

(({views, plot, colorbar, fill, number, element, part, theme, parse}) => {
  const ls = window.layerscope;

  // A cell cursor for the keyboard: arrows move it, Page Up and Page Down by a tenth of a row, Enter acts as a click.
  const cursor = (box, label, rows, columns, local, changed, chosen) => {
    box.tabIndex = 0;
    box.setAttribute("role", "application");
    box.setAttribute("aria-label", label);
    const tenth = Math.ceil(columns / 10);
    box.onkeydown = (event) => {
      const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [0, -tenth], PageDown: [0, tenth]}[event.key];
      if (!move && event.key !== "Enter") return;
      event.preventDefault();
      const [row, column] = local.cell ?? [0, 0];
      if (event.key === "Enter") return chosen(row, column);
      local.cell = [Math.min(rows - 1, Math.max(0, row + move[0])), Math.min(columns - 1, Math.max(0, column + move[1]))];
      changed(...local.cell);
    };
  };

  ls.cursor = cursor;

  // Ticks on a log axis: 1, 2 and 5 of each power of ten; powers alone in a wide range, every digit within one power.
  const ticks = (values) => {
    const finite = values.filter((v) => v > 0);
    const [low, high] = [Math.floor(Math.log10(Math.min(...finite))), Math.ceil(Math.log10(Math.max(...finite)))];
    const tickvals = [];
    for (let power = low; power <= high; power++) (high - low > 3 ? [1] : high - low > 1 ? [1, 2, 5] : [1, 2, 3, 4, 5, 6, 7, 8, 9]).forEach((digit) => tickvals.push(digit * 10 ** power));
    return {tickvals, ticktext: tickvals.map((v) => `${Number(v.toPrecision(1))}`)};
  };

  ls.ticks = ticks;

  const onClick = (box, act) => {
    box.removeAllListeners?.("plotly_click");
    box.on("plotly_click", (event) => { const [row, column] = event.points[0].pointNumber; act(row, column); });
  };

  const frame = (x0, x1, y0, y1, color, width = 2.5) => ({type: "rect", x0, x1, y0, y1, line: {color, width}, layer: "above"});

  views.similarity = (box, {data, value, words, trigger, local, draw, width}) => {
    const t = theme();
    const rest = value.tokens === "rest";
    const angular = value.measure === "angular";
    const z = angular ? data.angular : rest ? data.similarity_rest : data.similarity;
    const points = z.length;
    const maps = part(box, "ls-map"), bars = part(box, "ls-bars"), says = part(box, "ls-says");
    const [a, b] = [...(local.cell ?? [0, 0])].sort((x, y) => x - y);
    const chosen = local.cell && a !== b;
    const shapes = chosen ? [frame(a - .5, b + .5, a - .5, b + .5, t.fold)] : [];
    if (local.cell) shapes.push(frame(local.cell[1] - .5, local.cell[1] + .5, local.cell[0] - .5, local.cell[0] + .5, t.dark ? "#fff" : "#000", 2));
    const side = Math.min(520, Math.max(300, width > 760 ? width * .52 : width));
    plot(maps, [{
      type: "heatmap", z, colorscale: "Cividis", reversescale: angular, zmin: angular ? 0 : undefined, zmax: angular ? .5 : 1, zsmooth: false,
      colorbar: colorbar(angular ? words.angular : words.cosine), hovertemplate: `${words.state} %{y} · ${words.state} %{x}<br>%{z:.4f}<extra></extra>`,
    }], {xaxis: {title: {text: words.state_axis}, showgrid: false, constrain: "domain"}, yaxis: {title: {text: words.state_axis}, autorange: "reversed", showgrid: false, scaleanchor: "x", constrain: "domain"}, shapes}, side);
    const pick = (row, column) => { local.cell = [row, column]; draw(); };
    onClick(maps, pick);
    cursor(maps, words.similarity_label, points, points, local, draw, pick);

    const influence = data.layers.map((layer) => (rest ? layer.block_influence_rest : layer.block_influence));
    const inside = (index) => chosen && index >= a && index < b;
    const removal = data.removal;
    const traces = [{
      type: "bar", orientation: "v", x: influence.map((_, i) => i), y: influence, name: words.influence,
      marker: {color: influence.map((_, i) => (inside(i) ? t.fold : t.accent))}, hovertemplate: `${words.layer} %{x}: %{y:.4f}<extra>${words.influence}</extra>`,
    }];
    const more = {xaxis: {title: {text: words.layer}}, yaxis: {title: {text: words.influence}, type: "log", ...ticks(influence)}, bargap: .2};
    if (removal) {
      traces.push({
        type: "bar", x: removal.removed.map((_, i) => i), y: removal.removed.map((p) => (p === null ? null : p / removal.source)), xaxis: "x2", yaxis: "y2",
        marker: {color: removal.removed.map((_, i) => (inside(i) ? t.fold : t.kept))}, hovertemplate: `${words.layer} %{x}: %{y:.3f}×<extra>${words.removal}</extra>`,
      });
      const axis = {gridcolor: t.line, linecolor: t.line, automargin: true};
      Object.assign(more, {
        xaxis: {anchor: "y", showticklabels: false}, yaxis: {...more.yaxis, domain: [.56, 1]},
        xaxis2: {...axis, anchor: "y2", title: {text: words.layer, standoff: 8}, matches: "x"},
        yaxis2: {...axis, domain: [0, .44], title: {text: words.removal, standoff: 8}, type: "log", exponentformat: "none", nticks: 4},
      });
    }
    plot(bars, traces, more, width > 760 ? side : removal ? 380 : 240);
    onClickBar(bars, (layer) => pick(layer, layer + 1));

    says.replaceChildren();
    if (!chosen) { says.append(element("p", {}, words.pick_pair)); return; }
    says.append(element("p", {}, fill(b - a === 1 ? words.pair_one : words.pair, {a, b, first: a, last: b - 1, value: number(z[a][b], 4), what: angular ? words.angular : words.cosine})));
    if (b - a > 1) {
      const button = element("button", {class: "ls-button", type: "button"}, fill(words.add_span, {first: a, last: b - 1}));
      button.onclick = () => trigger("span", {first: a, last: b - 1});
      says.append(button);
    }
  };

  const onClickBar = (box, act) => {
    box.removeAllListeners?.("plotly_click");
    box.on("plotly_click", (event) => act(event.points[0].x));
  };

  // The hand-made plan, and the cost of each of its folds alone.
  const byHand = (box, plan, spans, names, words, width, depth) => {
    if (!plan) { box.replaceChildren(); return; }
    const row = element("div", {class: "ls-figures"}), figure = element("div", {class: "ls-figure"}), bar = element("div", {});
    figure.append(element("b", {}, `${plan.depth} / ${depth}`), element("span", {}, words.layers_left));
    const like = element("div", {class: "ls-figure"});
    like.append(element("b", {}, number(plan.similarity, 3)), element("span", {}, words.final_similarity));
    row.append(ls.costFigure(plan, words), figure, like);
    const list = element("ul", {class: "ls-alone"});
    if (spans.length > 1) spans.forEach(([first, last], index) => {
      const cost = ls.costOf({name: names[index]});
      list.append(element("li", {}, `${first}–${last}: ${cost ? ls.costWords(cost, words) : words.cost_measuring}`));
    });
    box.replaceChildren(element("h4", {}, words["plan_hand-made"]), row, bar, ...(list.childElementCount ? [element("p", {class: "ls-rule"}, words.cost_alone), list] : []), element("p", {class: "ls-rule"}, ls.costFrom(words)));
    ls.strip(bar, depth, plan.blocks, words, width);
  };

  views.landscape = (box, {data, words, props, trigger, local, draw, width}) => {
    const t = theme();
    const map = part(box, "ls-map");
    const spans = JSON.parse(props.marks || "[]");
    const low = Math.min(...data.similarity.flat().filter((v) => v !== null));
    const shapes = spans.flatMap(([first, last]) => {
      const row = data.widths.indexOf(last - first + 1);
      return row < 0 ? [] : [frame(first - .5, first + .5, row - .5, row + .5, t.fold, 3)];
    });
    if (local.cell) shapes.push(frame(local.cell[1] - .5, local.cell[1] + .5, local.cell[0] - .5, local.cell[0] + .5, t.dark ? "#fff" : "#000", 2));
    plot(map, [{
      type: "heatmap", z: data.similarity, y: data.widths.map(String), colorscale: "Cividis", zmin: Math.max(0, low), zmax: 1, xgap: 1, ygap: 1, hoverongaps: false,
      customdata: data.similarity.map((row, i) => row.map((_, base) => base + data.widths[i] - 1)),
      colorbar: colorbar(words.cosine), hovertemplate: `${words.layers} %{x}–%{customdata}<br>${words.cosine} %{z:.4f}<extra></extra>`,
    }], {xaxis: {title: {text: words.base}, showgrid: false}, yaxis: {title: {text: words.width}, type: "category", showgrid: false}, shapes}, 300);
    const choose = (row, column) => {
      if (data.similarity[row][column] === null) return;
      local.cell = [row, column];
      trigger("span", {first: column, last: column + data.widths[row] - 1});
    };
    byHand(part(box, "ls-hand"), parse(props.hand), spans, parse(props.alone, []), words, width, data.similarity[0].length);
    onClick(map, choose);
    cursor(map, words.landscape_label, data.widths.length, data.similarity[0].length, local, draw, choose);
  };

  views.weights = (box, {data, value, words}) => {
    const map = part(box, "ls-map");
    const cosine = value.weights === "cosine";
    plot(map, [{
      type: "heatmap", z: cosine ? data.cosine : data.relative_l2, y: data.projections.map((name) => name.split(".").pop()), meta: {y: "projection"}, colorscale: "Cividis", reversescale: !cosine, ygap: 1,
      colorbar: colorbar(cosine ? words.cosine : words.relative), hovertemplate: `%{y}, ${words.layer} %{x} → +1<br>%{z:.3f}<extra></extra>`,
    }], {xaxis: {title: {text: words.pair_axis}, showgrid: false}, yaxis: {autorange: "reversed", showgrid: false}}, 290);
  };

  views.norms = (box, {data, words}) => {
    const t = theme();
    const line = (y, name, color, dash) => ({type: "scatter", mode: "lines+markers", x: y.map((_, i) => i), y, name, line: {color, dash, width: 2}, marker: {size: 5}, hovertemplate: `${words.state} %{x}: %{y:.1f}<extra>${name}</extra>`});
    plot(part(box, "ls-map"), [
      line(data.norms.first_token, words.first_token, t.fold, "solid"),
      line(data.norms.other_max, words.other_max, t.faint, "dot"),
      line(data.norms.other_median, words.other_median, t.accent, "dash"),
    ], {showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, margin: {l: 48, r: 12, t: 34, b: 44},
      xaxis: {title: {text: words.state_axis}}, yaxis: {title: {text: words.norm}, type: "log", exponentformat: "power", nticks: 6}}, 300);
  };
})(window.layerscope);
