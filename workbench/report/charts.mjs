// The charts of a report. Each is a function (host, data, state) that can be called again at another width.

import { alike, canvas, DASHES, extent, figure, fit, linear, mark, MARKS, range, shape, signed, ticked, ticks, write } from "./dom.mjs";

// ---------------------------------------------------------------- the comparison

export function forest(host, data, state) {
  const points = state.scale === "points";
  const read = (row) => {
    const d = row.difference;
    if (!d) return null;
    const value = points ? d.value : d.log_odds, ci = points ? d.ci : d.log_odds_ci, k = points ? 100 : 1;
    return value === null ? null : { value: value * k, low: ci[0] === null ? null : ci[0] * k, high: ci[1] === null ? null : ci[1] * k };
  };
  const width = Math.max(280, host.clientWidth), narrow = width < 620;
  const left = narrow ? 12 : Math.min(250, width * 0.27), right = narrow ? 12 : 195;
  const rows = [];
  for (const group of data.groups) {
    const members = data.rows.filter((row) => row.group === group.key && read(row)).sort((a, b) => data.wanted * (read(b).value - read(a).value));
    if (members.length) rows.push({ title: group.name, group: group.key }, ...members);
  }
  const line = (row) => (row.title ? 34 : narrow ? 44 : 30);
  const top = 30, height = top + rows.reduce((sum, row) => sum + line(row), 0) + 52;
  const values = rows.flatMap((row) => (row.title ? [] : Object.values(read(row)))).concat(0);
  const [low, high] = extent(values), x = linear(low, high, left + 10, width - right - 10);
  const node = canvas(host, width, height, `Change against no prompt for ${rows.filter((row) => !row.title).length} conditions; the same figures are in the table below.`);
  const bottom = height - 46;
  const marks = ticks(low, high, narrow ? 4 : 7), label = ticked(marks, signed), peak = Math.max(...values.filter(Number.isFinite).map(Math.abs));
  for (const tick of marks) {
    node.append(shape("line", { x1: x(tick), x2: x(tick), y1: top, y2: bottom, class: "axis" }));
    node.append(write(x(tick), bottom + 17, label(tick), { "text-anchor": "middle", class: "soft", "font-size": 12 }));
  }
  let y = top;
  for (const row of rows) {
    if (row.title) {
      node.append(write(12, y + 23, fit(row.title, width - 24, 12.5, 600), { "font-weight": 600, "font-size": 12.5, class: "soft" }));
    } else node.append(forestRow(row, read(row), { x, y, width, left, right, narrow, height: line(row), points, peak }));
    y += line(row);
  }
  node.append(shape("line", { x1: x(0), x2: x(0), y1: top - 6, y2: bottom, class: "zero" }));
  node.append(write(x(0), 16, "no prompt", { "text-anchor": x(0) > width - right - 40 ? "end" : "middle", class: "soft", "font-size": 12 }));
  const caption = points ? "change of the rate, percentage points" : "change of the mean log-odds";
  node.append(write((left + width - right) / 2, height - 10, caption, { "text-anchor": "middle", "font-size": 12.5 }));
  if (width - left - right >= 440) {
    node.append(write(left + 10, height - 10, `← less ${fit(data.persona, 110)}`, { class: "soft", "font-size": 12 }));
    node.append(write(width - right - 10, height - 10, `more ${fit(data.persona, 110)} →`, { class: "soft", "font-size": 12, "text-anchor": "end" }));
  }
}

function forestRow(row, value, at) {
  const middle = at.narrow ? at.y + 30 : at.y + at.height / 2, form = (v) => (at.points ? signed(v, 0) : alike(v, at.peak));
  const group = shape("g", { class: `g-${row.group}` }, shape("title", { text: `${row.name}: ${form(value.value)} (${range([value.low, value.high], form)})${row.prompt ? `\n${row.prompt}` : ""}` }));
  if (row.best) group.append(shape("rect", { x: 4, width: at.width - 8, y: at.y + 1, height: at.height - 2, rx: 6, class: "hot" }));
  const label = (row.best ? "★ " : "") + row.name, weight = row.best ? 650 : 400;
  group.append(write(at.narrow ? 12 : 22, at.narrow ? at.y + 16 : middle + 4.5, fit(label, (at.narrow ? at.width : at.left) - 34, 13, weight), { "font-weight": weight }));
  if (value.low !== null && value.high !== null) {
    group.append(shape("line", { x1: at.x(value.low), x2: at.x(value.high), y1: middle, y2: middle, class: "c-line", "stroke-width": 2.4, "stroke-linecap": "round" }));
  }
  group.append(mark(row.group, at.x(value.value), middle, 6));
  if (!at.narrow) {
    group.append(write(at.width - at.right + 58, middle + 4.5, form(value.value), { "text-anchor": "end", "font-weight": weight }));
    const interval = value.low === null ? "" : `${form(value.low)} to ${form(value.high)}`;
    group.append(write(at.width - 14, middle + 4.5, interval, { "text-anchor": "end", class: "soft", "font-size": 12 }));
  }
  return group;
}

// ---------------------------------------------------------------- the prompts that the search found

export function scatter(host, searches, state, hover, pin) {
  const search = searches[state.search], all = search.candidates;
  const width = Math.max(260, host.clientWidth), height = Math.round(Math.min(430, Math.max(300, width * 0.62)));
  const [x0, x1] = extent(all.map((c) => c.fluency)), [y0, y1] = extent(all.map((c) => c.objective), 0.1);
  const x = linear(x0, x1, 56, width - 16), y = linear(y0, y1, height - 48, 16);
  const node = canvas(host, width, height, `${all.length} prompts of ${state.search}. Left and right arrows go from prompt to prompt, Enter keeps one, Escape lets go.`, "application");
  node.setAttribute("tabindex", "0");
  const across = ticks(x0, x1, width < 480 ? 4 : 7), up = ticks(y0, y1, 5);
  for (const tick of up) {
    node.append(shape("line", { x1: 52, x2: width - 12, y1: y(tick), y2: y(tick), class: "axis" }));
    node.append(write(47, y(tick) + 4, ticked(up)(tick), { "text-anchor": "end", class: "soft", "font-size": 12 }));
  }
  for (const tick of across) node.append(write(x(tick), height - 30, ticked(across)(tick), { "text-anchor": "middle", class: "soft", "font-size": 12 }));
  node.append(write((56 + width) / 2, height - 9, width < 480 ? "← more fluent (nats per token)" : "cross-entropy, nats per token", { "text-anchor": "middle", "font-size": 12.5 }));
  if (width >= 480) node.append(write(56, height - 9, "← more fluent", { class: "soft", "font-size": 12 }), write(width - 16, height - 9, "less fluent →", { class: "soft", "font-size": 12, "text-anchor": "end" }));
  node.append(write(14, (height - 40) / 2, "objective", { "text-anchor": "middle", "font-size": 12.5, transform: `rotate(-90 14 ${(height - 40) / 2})` }));
  const path = all.map((c, i) => (i ? `H${x(c.fluency)}V${y(c.objective)}` : `M${x(c.fluency)},${y(c.objective)}`)).join("");
  const group = shape("g", { class: "g-found" }, shape("path", { d: path, class: "c-line", "stroke-width": 1.5, "stroke-opacity": 0.45 }));
  const pinned = (i) => state.pins.some((p) => p.search === state.search && p.index === i);
  all.forEach((c, i) => {
    const now = i === state.point;
    group.append(mark("found", x(c.fluency), y(c.objective), now ? 8 : 5.5));
    if (c.chosen) group.append(shape("circle", { cx: x(c.fluency), cy: y(c.objective), r: 11, class: "ring" }), write(x(c.fluency), y(c.objective) - 15, "chosen", { "text-anchor": x(c.fluency) > width - 50 ? "end" : "middle", "font-size": 12, "font-weight": 600 }));
    if (pinned(i)) group.append(write(x(c.fluency), y(c.objective) + 22, String(1 + state.pins.findIndex((p) => p.search === state.search && p.index === i)), { "text-anchor": "middle", "font-size": 12, "font-weight": 700 }));
  });
  node.append(group);
  const nearest = (event) => {
    const box = node.getBoundingClientRect(), k = width / box.width, px = (event.clientX - box.left) * k, py = (event.clientY - box.top) * k;
    const far = all.map((c) => Math.hypot(x(c.fluency) - px, y(c.objective) - py)), i = far.indexOf(Math.min(...far));
    return far[i] < 44 ? i : null;
  };
  node.addEventListener("pointermove", (event) => { const i = nearest(event); if (i !== null && i !== state.point) hover(i); });
  node.addEventListener("click", (event) => { const i = nearest(event); if (i !== null) pin(i); });
  node.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
    if (event.key in moves) hover(Math.max(0, Math.min(all.length - 1, (state.point ?? (moves[event.key] > 0 ? -1 : all.length)) + moves[event.key])));
    else if (event.key === "Home" || event.key === "End") hover(event.key === "Home" ? 0 : all.length - 1);
    else if ((event.key === "Enter" || event.key === " ") && state.point !== null) pin(state.point);
    else if (event.key === "Escape") hover(null);
    else return;
    event.preventDefault();
  });
}

function lines(host, series, labels) {
  const width = Math.max(260, host.clientWidth), height = Math.round(Math.min(340, Math.max(240, width * 0.45)));
  const widest = Math.max(...series.map((s) => s.name.length)) * 7 + 16, right = width < 560 ? 12 : Math.min(widest, 240);
  const key = width < 560 ? 18 * series.length + 4 : 0, points = series.flatMap((s) => s.points);
  const [x0, x1] = extent(points.map((p) => p[0]), 0.02), [y0, y1] = labels.y01 ?? extent(points.map((p) => p[1]));
  const x = linear(x0, x1, 52, width - right), y = linear(y0, y1, height - 48, 14 + key);
  const node = canvas(host, width, height, labels.title);
  const up = ticks(y0, y1, 5);
  for (const tick of up) {
    node.append(shape("line", { x1: 50, x2: width - right, y1: y(tick), y2: y(tick), class: tick === 0 ? "zero" : "axis" }));
    node.append(write(44, y(tick) + 4, ticked(up)(tick), { "text-anchor": "end", class: "soft", "font-size": 12 }));
  }
  const xs = labels.whole ? [...new Set(points.map((p) => p[0]))].filter((v, i, a) => i % Math.ceil(a.length / 14) === 0) : ticks(x0, x1, width < 480 ? 3 : 6);
  for (const tick of xs) node.append(write(x(tick), height - 28, tick >= 1000 ? tick.toLocaleString("en") : figure(tick, 0), { "text-anchor": "middle", class: "soft", "font-size": 12 }));
  node.append(write((52 + width - right) / 2, height - 8, labels.x, { "text-anchor": "middle", "font-size": 12.5 }));
  const ends = series.map((s) => y(s.points.at(-1)[1])), order = ends.map((_, i) => i).sort((a, b) => ends[a] - ends[b]);
  order.forEach((i, rank) => { if (rank) ends[i] = Math.max(ends[i], ends[order[rank - 1]] + 15); });
  series.forEach((s, i) => {
    const group = shape("g", { class: `s${(s.colour ?? i) % 5}` });
    group.append(shape("path", { d: s.points.map((p, j) => `${j ? "L" : "M"}${x(p[0])},${y(p[1])}`).join(""), class: "c-line", "stroke-width": 2.2, "stroke-dasharray": DASHES[(s.dash ?? i) % 5], "stroke-linejoin": "round" }));
    const drawn = s.mark ?? (s.points.length === 1 ? "circle" : null); // one point makes no line
    if (drawn) for (const p of s.points) group.append(shape("path", { d: MARKS[drawn](p[0] === labels.chosen ? 6 : 4), transform: `translate(${x(p[0])},${y(p[1])})`, class: "c-fill" }));
    if (key) group.append(shape("line", { x1: 56, x2: 88, y1: 14 + 18 * i, y2: 14 + 18 * i, class: "c-line", "stroke-width": 2.2, "stroke-dasharray": DASHES[(s.dash ?? i) % 5] }), write(96, 18 + 18 * i, fit(s.name, width - 110, 12.5), { "font-size": 12.5 }));
    else group.append(write(width - right + 8, ends[i] + 4, fit(s.name, right - 10, 12.5), { "font-size": 12.5 }));
    node.append(group);
  });
}
export const progress = (host, history) => lines(host, Object.entries(history).filter(([, points]) => points.length).map(([name, points]) => ({ name, points })),
  { title: "Best objective against model calls", x: "model calls" });

export function layers(host, rows, chosen) {
  const methods = [...new Set(rows.map((row) => row.method))], series = [];
  methods.forEach((method, i) => {
    const take = (key) => rows.filter((row) => row.method === method && row[key] !== null).sort((a, b) => a.layer - b.layer).map((row) => [row.layer, row[key]]);
    const name = method.replaceAll("_", " ");
    if (take("auc").length) series.push({ name: `${name}: tells apart`, points: take("auc"), colour: i, dash: 0, mark: "circle" });
    if (take("predicts").length) series.push({ name: `${name}: predicts`, points: take("predicts"), colour: i, dash: 1, mark: "square" });
  });
  if (!series.length) return;
  const low = Math.min(0, ...series.flatMap((s) => s.points.map((p) => p[1])));
  lines(host, series, { title: "Layer sweep: AUC of telling texts apart, and correlation of the reading with what prompts do", x: "layer (solid: AUC; dashed: correlation with what prompts do)", whole: true, y01: [low < 0 ? Math.min(-0.2, low * 1.1) : 0, 1.04], chosen });
}

export function mediation(host, rows) {
  const width = Math.max(260, host.clientWidth), narrow = width < 560, left = narrow ? 12 : 190, step = narrow ? 62 : 46, height = rows.length * step + 58;
  const [low, high] = extent(rows.flatMap((r) => [0, r.total, r.mediated, r.direct, r.mediated_low, r.mediated_high]));
  const x = linear(low, high, left + 8, width - 16), node = canvas(host, width, height, "Whole effect of the prompt and the part that goes through each named part of the model; figures in the table below.");
  const marks = ticks(low, high, narrow ? 4 : 7), label = ticked(marks, signed);
  for (const tick of marks) node.append(shape("line", { x1: x(tick), x2: x(tick), y1: 6, y2: height - 50, class: "axis" }), write(x(tick), height - 34, label(tick), { "text-anchor": "middle", class: "soft", "font-size": 12 }));
  rows.forEach((row, i) => {
    const y = 10 + i * step + (narrow ? 18 : 0), bar = (value, at, thick, name) => value === null || value === undefined ? null : shape("rect", { x: Math.min(x(0), x(value)), width: Math.abs(x(value) - x(0)), y: at, height: thick, rx: 2, class: name });
    node.append(write(12, narrow ? y - 4 : y + 19, fit(String(row.target), narrow ? width - 24 : left - 20)));
    node.append(...[bar(row.total, y, 28, "band"), bar(row.mediated, y + 7, 14, row.mediated < 0 ? "minus-fill" : "plus-fill")].filter(Boolean));
    if (Number.isFinite(row.mediated_low) && Number.isFinite(row.mediated_high)) node.append(shape("line", { x1: x(row.mediated_low), x2: x(row.mediated_high), y1: y + 14, y2: y + 14, class: "ring" }));
  });
  node.append(shape("line", { x1: x(0), x2: x(0), y1: 4, y2: height - 50, class: "zero" }));
  node.append(write((left + width) / 2, height - 10, narrow ? "log-odds; broad: whole, narrow: through it" : "change of the log-odds (broad bar: the whole effect; narrow bar: the part through it)", { "text-anchor": "middle", "font-size": 12.5 }));
}
