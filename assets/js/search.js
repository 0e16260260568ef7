// Search: the best score over time, the baselines' scores, and the best plan as a strip.
"use strict";

(({views, plot, fill, number, times, element, part, theme, strip}) => {

  views.search = (box, {data, words, width}) => {
    const t = theme();
    const {shown} = window.layerscope;
    part(box, "ls-hint").textContent = shown?.width || shown?.masks ? words.search_depth_only : "";
    const says = part(box, "ls-rule"), chart = part(box, "ls-score"), stripBox = part(box, "ls-stripbox");
    const best = data.history.at(-1);
    const unit = words[`score_${data.objective ?? "kl"}`] ?? data.objective;
    says.textContent = best ? fill(words.search_best, {score: number(best.score, 4), unit, seconds: number(best.seconds, 1), forwards: Math.round(best.forwards), layers: data.keep, stage: words[`stage_${best.stage}`]}) : words.search_none;
    const name = (method) => (method === "search" ? words.search_line : words[`baseline_${method}`] ?? method);
    if (data.others) {
      const others = Object.entries(data.others.times).map(([method, ratio]) => `${name(method)} ${times(ratio)}`);
      says.append(element("p", {class: "ls-others"}, fill(words.search_others, {optimum: number(data.others.optimum, 4), others: others.join(", ")})));
    }
    const end = Math.max(1, ...data.history.map((point) => point.seconds)) * 1.05;
    const beside = data.baselines.filter((one) => one.depth === data.keep && one.objective === data.objective);
    plot(chart, [
      {type: "scatter", mode: "lines+markers", name: words.search_line, x: [...data.history.map((p) => p.seconds), ...(best ? [end] : [])], y: [...data.history.map((p) => p.score), ...(best ? [best.score] : [])],
        text: [...data.history.map((p) => words[`stage_${p.stage}`]), ...(best ? [""] : [])], line: {shape: "hv", color: t.accent, width: 2}, marker: {size: data.history.map(() => 8).concat(best ? [0] : [])}, hovertemplate: `%{y:.4f} · %{x:.1f} s<br>%{text}<extra></extra>`},
      ...beside.map((one, index) => ({type: "scatter", mode: "lines+text", name: name(one.method), x: [0, end], y: [one.score, one.score], line: {dash: ["dash", "dot", "dashdot", "longdash", "longdashdot"][index % 5], color: t.fold, width: 1.5},
        text: ["", name(one.method)], textposition: "top left", cliponaxis: false, hovertemplate: `${name(one.method)}: %{y:.4f}<extra></extra>`})),
    ], {xaxis: {title: {text: words.search_time}, range: [0, end]}, yaxis: {title: {text: unit}, rangemode: "tozero"}}, 260);
    if (data.plan) strip(stripBox, data.depth, data.plan.blocks, words, width); else stripBox.replaceChildren();
  };
})(window.layerscope);
