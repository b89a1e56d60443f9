// The pictures of a report, in one module without dependencies. Data come in as plain JSON whose texts are already visible;
// every text goes into the page as a text node, never as markup. Each picture is a function (host, data, state) that can be
// called again at another width. The linked view of tokens and latents is shared with the notebook's panel.

const SVG = "http://www.w3.org/2000/svg";
const MINUS = "\u2212";

// ---------------------------------------------------------------- small tools

function put(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...(children ?? []).filter((child) => child !== null && child !== undefined));
  return node;
}
export const element = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const shape = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);

export function figure(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 0.01 || size >= 10000) ? value.toPrecision(2) : value.toFixed(size >= 100 ? 0 : digits);
  return text.replace("-", MINUS);
}
/** Decimals for figures of which the largest is `peak`: all of one row are written alike. */
const decimals = (peak) => (peak >= 100 ? 0 : peak >= 10 ? 1 : peak >= 0.1 || peak < 1e-6 ? 2 : Math.min(6, 1 - Math.floor(Math.log10(peak))));
const alike = (value, peak) => (value > 0 ? "+" : "") + value.toFixed(decimals(peak)).replace("-", MINUS);
const signed = (value, digits = 2) => (value > 0 ? "+" : "") + figure(value, digits);
const range = (pair, form) => (pair && pair[0] !== null && pair[1] !== null ? `${form(pair[0])} to ${form(pair[1])}` : "no interval");

const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function fit(text, width, size = 13, weight = 400) {
  pen.font = `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
  if (pen.measureText(text).width <= width) return text;
  const characters = [...text].slice(0, 200);
  while (characters.length > 1 && pen.measureText(characters.join("") + "…").width > width) characters.pop();
  return characters.join("") + "…";
}

function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= raw) ?? raw;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}
const linear = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);
function extent(values, pad = 0.06) {
  const known = values.filter((value) => Number.isFinite(value));
  if (!known.length) return [-1, 1];
  const low = Math.min(...known), high = Math.max(...known), room = (high - low || Math.abs(high) || 1) * pad;
  return [low - room, high + room];
}
const canvas = (host, width, height, label, role = "img") => {
  const node = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role, "aria-label": label });
  host.replaceChildren(node);
  return node;
};
const write = (x, y, text, attributes = {}) => shape("text", { x, y, "font-size": 13, text, ...attributes });

const MARKS = {
  circle: (r) => `M${-r},0a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0`,
  square: (r) => `M${-r * 0.9},${-r * 0.9}h${r * 1.8}v${r * 1.8}h${-r * 1.8}z`,
  diamond: (r) => `M0,${-r * 1.25}L${r * 1.25},0L0,${r * 1.25}L${-r * 1.25},0z`,
  triangle: (r) => `M0,${-r * 1.2}L${r * 1.15},${r * 0.85}L${-r * 1.15},${r * 0.85}z`,
};
const GROUP_MARKS = { found: ["circle", "c-fill"], answer: ["diamond", "c-fill"], written: ["square", "c-fill"], inside: ["triangle", "c-fill"], control: ["circle", "c-open"] };
const DASHES = [null, "7 4", "2 3", "9 3 2 3", "1 4"];
const mark = (group, x, y, r = 6) => {
  const [name, style] = GROUP_MARKS[group] ?? GROUP_MARKS.control;
  return shape("path", { d: MARKS[name](r), transform: `translate(${x},${y})`, class: style });
};

function choices(label, options, current, pick) {
  const buttons = options.map(([key, name]) => element("button", { type: "button", "aria-pressed": String(key === current), text: name, onclick: () => {
    for (const [i, button] of buttons.entries()) button.setAttribute("aria-pressed", String(options[i][0] === key));
    pick(key);
  } }));
  return element("div", { class: "choice", role: "group", "aria-label": label }, element("span", { text: label }), ...buttons);
}

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
  const left = narrow ? 12 : Math.min(250, width * 0.27), right = narrow ? 12 : 175;
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
  for (const tick of ticks(low, high, narrow ? 4 : 7)) {
    node.append(shape("line", { x1: x(tick), x2: x(tick), y1: top, y2: bottom, class: "axis" }));
    node.append(write(x(tick), bottom + 17, points ? signed(tick, 0) : signed(tick, 1), { "text-anchor": "middle", class: "soft", "font-size": 12 }));
  }
  let y = top;
  for (const row of rows) {
    if (row.title) {
      node.append(write(12, y + 23, fit(row.title, width - 24, 12.5, 600), { "font-weight": 600, "font-size": 12.5, class: "soft" }));
    } else node.append(forestRow(row, read(row), { x, y, width, left, right, narrow, height: line(row), points }));
    y += line(row);
  }
  node.append(shape("line", { x1: x(0), x2: x(0), y1: top - 6, y2: bottom, class: "zero" }));
  node.append(write(x(0), 16, "no prompt", { "text-anchor": x(0) > width - right - 40 ? "end" : "middle", class: "soft", "font-size": 12 }));
  const caption = points ? "change of the rate, percentage points" : "change of the mean log-odds";
  node.append(write((left + width - right) / 2, height - 10, caption, { "text-anchor": "middle", "font-size": 12.5 }));
  if (!narrow) {
    node.append(write(left + 10, height - 10, `← less ${fit(data.persona, 110)}`, { class: "soft", "font-size": 12 }));
    node.append(write(width - right - 10, height - 10, `more ${fit(data.persona, 110)} →`, { class: "soft", "font-size": 12, "text-anchor": "end" }));
  }
}

function forestRow(row, value, at) {
  const middle = at.narrow ? at.y + 30 : at.y + at.height / 2, form = (v) => signed(v, at.points ? 0 : 2);
  const group = shape("g", { class: `g-${row.group}` }, shape("title", { text: `${row.name}: ${form(value.value)} (${range([value.low, value.high], form)})${row.prompt ? `\n${row.prompt}` : ""}` }));
  if (row.best) group.append(shape("rect", { x: 4, width: at.width - 8, y: at.y + 1, height: at.height - 2, rx: 6, class: "hot" }));
  const label = (row.best ? "★ " : "") + row.name, weight = row.best ? 650 : 400;
  group.append(write(at.narrow ? 12 : 22, at.narrow ? at.y + 16 : middle + 4.5, fit(label, (at.narrow ? at.width : at.left) - 34, 13, weight), { "font-weight": weight }));
  if (value.low !== null && value.high !== null) {
    group.append(shape("line", { x1: at.x(value.low), x2: at.x(value.high), y1: middle, y2: middle, class: "c-line", "stroke-width": 2.4, "stroke-linecap": "round" }));
  }
  group.append(mark(row.group, at.x(value.value), middle, 6));
  if (!at.narrow) {
    group.append(write(at.width - at.right + 52, middle + 4.5, form(value.value), { "text-anchor": "end", "font-weight": weight }));
    const interval = value.low === null ? "" : `${form(value.low)} to ${form(value.high)}`;
    group.append(write(at.width - 14, middle + 4.5, interval, { "text-anchor": "end", class: "soft", "font-size": 12 }));
  }
  return group;
}

export function strips(host, answers, data) {
  const width = Math.max(280, host.clientWidth), names = Object.keys(answers), left = width < 620 ? 12 : 220, step = width < 620 ? 44 : 28;
  const groups = Object.fromEntries((data?.rows ?? []).map((row) => [row.name, row.group]));
  const all = Object.values(answers).flat(), bound = Math.min(10, Math.max(1, ...all.map(Math.abs)));
  const x = linear(-bound, bound, left + 8, width - 12), height = names.length * step + 50;
  const node = canvas(host, width, height, `Log-odds of single questions for ${names.length} conditions`);
  names.forEach((name, i) => {
    const y = 8 + i * step, low = y + step - 6, group = shape("g", { class: `g-${groups[name] ?? "control"}` });
    group.append(write(12, width < 620 ? y + 14 : y + step / 2 + 4, fit(name, width < 620 ? width - 24 : left - 24)));
    for (const value of answers[name]) {
      const at = x(Math.max(-bound, Math.min(bound, value)));
      group.append(shape("line", { x1: at, x2: at, y1: low - 15, y2: low, class: "c-line", "stroke-width": 1.2, "stroke-opacity": 0.45 }));
    }
    node.append(group);
  });
  node.append(shape("line", { x1: x(0), x2: x(0), y1: 4, y2: height - 36, class: "zero" }));
  for (const tick of ticks(-bound, bound, 5)) node.append(write(x(tick), height - 22, signed(tick, 0), { "text-anchor": "middle", class: "soft", "font-size": 12 }));
  node.append(write((left + width) / 2, height - 5, "log-odds of the answer that shows the persona", { "text-anchor": "middle", "font-size": 12.5 }));
}

// ---------------------------------------------------------------- the prompts that the search found

export function scatter(host, searches, state, hover, pin) {
  const search = searches[state.search], all = search.candidates;
  const width = Math.max(260, host.clientWidth), height = Math.round(Math.min(430, Math.max(300, width * 0.62)));
  const [x0, x1] = extent(all.map((c) => c.fluency)), [y0, y1] = extent(all.map((c) => c.objective), 0.1);
  const x = linear(x0, x1, 56, width - 16), y = linear(y0, y1, height - 48, 16);
  const node = canvas(host, width, height, `${all.length} prompts of ${state.search}. Left and right arrows go from prompt to prompt, Enter keeps one, Escape lets go.`, "application");
  node.setAttribute("tabindex", "0");
  for (const tick of ticks(y0, y1, 5)) {
    node.append(shape("line", { x1: 52, x2: width - 12, y1: y(tick), y2: y(tick), class: "axis" }));
    node.append(write(47, y(tick) + 4, figure(tick, 1), { "text-anchor": "end", class: "soft", "font-size": 12 }));
  }
  for (const tick of ticks(x0, x1, width < 480 ? 4 : 7)) node.append(write(x(tick), height - 30, figure(tick, 1), { "text-anchor": "middle", class: "soft", "font-size": 12 }));
  node.append(write((56 + width) / 2, height - 9, width < 480 ? "← more fluent (nats a token)" : "surprise, nats a token", { "text-anchor": "middle", "font-size": 12.5 }));
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
  for (const tick of ticks(y0, y1, 5)) {
    node.append(shape("line", { x1: 50, x2: width - right, y1: y(tick), y2: y(tick), class: tick === 0 ? "zero" : "axis" }));
    node.append(write(44, y(tick) + 4, figure(tick, 1), { "text-anchor": "end", class: "soft", "font-size": 12 }));
  }
  const xs = labels.whole ? [...new Set(points.map((p) => p[0]))].filter((v, i, a) => i % Math.ceil(a.length / 14) === 0) : ticks(x0, x1, width < 480 ? 3 : 6);
  for (const tick of xs) node.append(write(x(tick), height - 28, tick >= 1000 ? tick.toLocaleString("en") : figure(tick, 0), { "text-anchor": "middle", class: "soft", "font-size": 12 }));
  node.append(write((52 + width - right) / 2, height - 8, labels.x, { "text-anchor": "middle", "font-size": 12.5 }));
  const ends = series.map((s) => y(s.points.at(-1)[1])), order = ends.map((_, i) => i).sort((a, b) => ends[a] - ends[b]);
  order.forEach((i, rank) => { if (rank) ends[i] = Math.max(ends[i], ends[order[rank - 1]] + 15); });
  series.forEach((s, i) => {
    const group = shape("g", { class: `s${(s.colour ?? i) % 5}` });
    group.append(shape("path", { d: s.points.map((p, j) => `${j ? "L" : "M"}${x(p[0])},${y(p[1])}`).join(""), class: "c-line", "stroke-width": 2.2, "stroke-dasharray": DASHES[(s.dash ?? i) % 5], "stroke-linejoin": "round" }));
    if (s.mark) for (const p of s.points) group.append(shape("path", { d: MARKS[s.mark](p[0] === labels.chosen ? 6 : 4), transform: `translate(${x(p[0])},${y(p[1])})`, class: "c-fill" }));
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
  for (const tick of ticks(low, high, narrow ? 4 : 7)) node.append(shape("line", { x1: x(tick), x2: x(tick), y1: 6, y2: height - 50, class: "axis" }), write(x(tick), height - 34, signed(tick, 1), { "text-anchor": "middle", class: "soft", "font-size": 12 }));
  rows.forEach((row, i) => {
    const y = 10 + i * step + (narrow ? 18 : 0), bar = (value, at, thick, name) => value === null || value === undefined ? null : shape("rect", { x: Math.min(x(0), x(value)), width: Math.abs(x(value) - x(0)), y: at, height: thick, rx: 2, class: name });
    node.append(write(12, narrow ? y - 4 : y + 19, fit(String(row.target), narrow ? width - 24 : left - 20)));
    node.append(...[bar(row.total, y, 28, "band"), bar(row.mediated, y + 7, 14, row.mediated < 0 ? "minus-fill" : "plus-fill")].filter(Boolean));
    if (Number.isFinite(row.mediated_low) && Number.isFinite(row.mediated_high)) node.append(shape("line", { x1: x(row.mediated_low), x2: x(row.mediated_high), y1: y + 14, y2: y + 14, class: "ring" }));
  });
  node.append(shape("line", { x1: x(0), x2: x(0), y1: 4, y2: height - 50, class: "zero" }));
  node.append(write((left + width) / 2, height - 10, narrow ? "log-odds; broad: whole, narrow: through it" : "change of the log-odds (broad bar: the whole effect; narrow bar: the part through it)", { "text-anchor": "middle", "font-size": 12.5 }));
}

// ---------------------------------------------------------------- the linked view: strip, matrix, detail

/** Draws the linked view into {strip, matrix, detail, agreement, cells}; `changed` is told of what the reader pins or picks. */
export function linked(hosts, data, state, changed) {
  const few = 14;
  const view = { token: null, target: null };
  const grid = () => data.cells[state.by];
  const cell = (target, token) => grid()[target]?.[token] ?? null;
  const peak = (target) => Math.max(1e-12, ...grid()[target].map((c) => Math.abs(c?.[0] ?? 0)));
  const at = () => ({ token: view.token ?? state.token, target: view.target ?? state.target ?? 0 });
  const tint = (node, value, most) => {
    node.classList.remove("plus", "minus");
    if (value) node.classList.add(value > 0 ? "plus" : "minus");
    node.style.setProperty("--v", (Math.abs(value ?? 0) / most) ** 0.8);
  };
  const sure = (c) => c[1] !== null && c[2] !== null && (c[1] > 0 || c[2] < 0);
  let rows = [];

  function strip() {
    const { target } = at(), most = peak(target);
    if (hosts.strip.childElementCount !== data.tokens.length) {
      hosts.strip.replaceChildren(...data.tokens.map((token, i) => element("button", { type: "button", "data-token": i, tabindex: i ? -1 : 0 }, element("span", { text: token || "∅" }), element("small"))));
    }
    [...hosts.strip.children].forEach((button, i) => {
      const c = cell(target, i);
      tint(button, c?.[0] ?? null, most);
      button.lastChild.textContent = c ? alike(c[0], most) : "–";
      button.setAttribute("aria-pressed", String(state.token === i));
      button.classList.toggle("over", view.token === i);
    });
  }

  function matrix() {
    const shown = state.rows === "all" ? data.targets.length : Math.min(few, data.targets.length);
    const head = element("tr", { role: "row" }, element("th", { scope: "col", role: "columnheader", text: "quantity \\ token" }), ...data.tokens.map((t, i) => element("th", { scope: "col", role: "columnheader", title: t, "data-column": i, text: t || "∅" })));
    rows = data.targets.slice(0, shown).map((target, r) => {
      const most = peak(r), cells = data.tokens.map((_, i) => {
        const c = cell(r, i), td = element("td", { role: "gridcell", tabindex: -1, "data-r": r, "data-c": i, text: c ? alike(c[0], most) : "–" });
        if (c) { tint(td, c[0], most); td.classList.add(sure(c) ? "sure" : "unsure"); }
        return td;
      });
      return { cells, head: element("th", { scope: "row", role: "rowheader", title: target.label ? `${target.name}: ${target.label}` : target.name, text: target.label ? `${target.name} · ${target.label}` : target.name }) };
    });
    const body = element("tbody", { role: "rowgroup" }, ...rows.map((row) => element("tr", { role: "row" }, row.head, ...row.cells)));
    const table = element("table", { role: "grid", "aria-label": "Effect of each token on each quantity", "aria-rowcount": data.targets.length + 1, "aria-colcount": data.tokens.length + 1 }, element("thead", { role: "rowgroup" }, head), body);
    const rest = data.targets.length - few;
    const more = rest > 0 ? element("button", { type: "button", class: "more", text: state.rows === "all" ? "Show fewer rows" : `Show ${rest} more rows`, onclick: () => { state.rows = state.rows === "all" ? null : "all"; changed(); matrix(); marks(); } }) : null;
    hosts.matrix.replaceChildren(table, ...(more ? [more] : []));
  }

  let lit = [];
  function marks() {
    const { token, target } = at();
    for (const [node, name] of lit) node.classList.remove(name);
    for (const node of hosts.matrix.querySelectorAll("[aria-selected=true]")) node.removeAttribute("aria-selected");
    lit = [];
    const light = (node, name) => { if (node) { node.classList.add(name); lit.push([node, name]); } };
    if (token !== null) light(hosts.matrix.querySelector(`[data-column="${token}"]`), "over");
    light(rows[target]?.head, "over");
    if (token !== null) light(rows[target]?.cells[token], "here");
    if (state.token !== null && state.target !== null) rows[state.target]?.cells[state.token]?.setAttribute("aria-selected", "true");
    const stop = rows[target]?.cells[token ?? 0] ?? rows[0]?.cells[0];
    for (const node of hosts.matrix.querySelectorAll("td[tabindex='0']")) node.setAttribute("tabindex", "-1");
    stop?.setAttribute("tabindex", "0");
    strip();
    detail();
  }

  function detail() {
    const { token, target } = at(), name = data.targets[target].name, label = data.targets[target].label;
    if (token === null) {
      const total = data.totals.find((t) => t.target === name);
      hosts.detail.replaceChildren(element("h3", { text: `The whole prompt on ${name}${label ? ` (${label})` : ""}` }), element("p", { class: "note", text: total ? `${signed(total.mean)} (95 % interval ${range([total.low, total.high], signed)}), measured with and without the prompt.` : "Point at a token or a cell to read it; press to keep it." }));
      return;
    }
    const said = data.estimators.map(({ key, name: title }) => {
      const c = data.cells[key][target]?.[token];
      return element("p", { class: "note" }, element("b", { text: c ? signed(c[0]) : "–" }), ` ${title}${c ? `: 95 % interval ${range([c[1], c[2]], signed)}${c[3] !== null ? `; spread over questions ${figure(c[3])}` : ""}` : ": not computed"}`);
    });
    const c = cell(target, token), verb = !c ? "" : !sure(c) ? " may not change " : c[0] > 0 ? " raises " : " lowers ";
    const heading = element("h3", {}, "Token ", element("code", { text: data.tokens[token] }), c ? `${verb}${name}` : ` and ${name}: not computed`, label ? ` (${label})` : "", state.token === token && state.target === target ? " · kept" : "");
    hosts.detail.replaceChildren(heading, ...said);
  }

  function agreement() {
    const parts = data.estimators.filter(({ key }) => data.rank_correlation[key]).map(({ key, name }) => {
      const known = Object.values(data.rank_correlation[key]).filter((v) => v !== null).sort((a, b) => a - b);
      return known.length ? `${name} ranks the tokens as exact removal does with a rank correlation of ${figure(known[known.length >> 1])} (median of ${known.length} rows; 1 is the same order)${known[known.length >> 1] < 0.5 ? ", too little to rely on" : ""}` : null;
    }).filter(Boolean);
    hosts.agreement.textContent = parts.length ? `How far the estimates can be trusted: ${parts.join("; ")}.` : "";
  }

  function cells() {
    const body = data.targets.slice(0, 60).flatMap((target, r) => grid()[r].map((c, i) => ({ c, i })).filter(({ c }) => c).sort((a, b) => Math.abs(b.c[0]) - Math.abs(a.c[0])).slice(0, 3)
      .map(({ c, i }) => element("tr", {}, element("th", { scope: "row", text: target.name }), element("td", { class: "text" }, element("code", { text: data.tokens[i] })), element("td", { class: "n", text: signed(c[0]) }), element("td", { class: "n", text: range([c[1], c[2]], signed) }))));
    hosts.cells.replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...["Quantity", "Token"].map((t) => element("th", { scope: "col", text: t })), ...["Effect", "95 % interval"].map((t) => element("th", { scope: "col", class: "n", text: t })))), element("tbody", {}, ...body)));
  }

  const keep = (token, target) => {
    const same = state.token === token && state.target === target;
    Object.assign(state, same ? { token: null, target: null } : { token, target });
    changed(); marks();
  };
  const preview = (token, target) => { if (view.token !== token || view.target !== target) { Object.assign(view, { token, target }); marks(); } };
  const found = (event, name) => event.target.closest?.(`[data-${name}]`);
  hosts.matrix.addEventListener("pointerover", (event) => { const td = found(event, "r"); if (td) preview(+td.dataset.c, +td.dataset.r); });
  hosts.matrix.addEventListener("pointerleave", () => preview(null, null));
  hosts.matrix.addEventListener("click", (event) => { const td = found(event, "r"); if (td) keep(+td.dataset.c, +td.dataset.r); });
  hosts.matrix.addEventListener("focusin", (event) => { const td = found(event, "r"); if (td) preview(+td.dataset.c, +td.dataset.r); });
  hosts.matrix.addEventListener("keydown", (event) => {
    const td = found(event, "r");
    if (!td) return;
    const [r, c] = [+td.dataset.r, +td.dataset.c];
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -c], End: [0, data.tokens.length - 1 - c] };
    if (event.key in moves) rows[Math.max(0, Math.min(rows.length - 1, r + moves[event.key][0]))].cells[Math.max(0, Math.min(data.tokens.length - 1, c + moves[event.key][1]))].focus();
    else if (event.key === "Enter" || event.key === " ") keep(c, r);
    else return;
    event.preventDefault();
  });
  hosts.strip.addEventListener("pointerover", (event) => { const b = found(event, "token"); if (b) preview(+b.dataset.token, null); });
  hosts.strip.addEventListener("pointerleave", () => preview(null, null));
  hosts.strip.addEventListener("focusin", (event) => { const b = found(event, "token"); if (b) preview(+b.dataset.token, null); });
  hosts.strip.addEventListener("click", (event) => { const b = found(event, "token"); if (b) keep(+b.dataset.token, at().target); });
  hosts.strip.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], b = found(event, "token");
    if (!step || !b) return;
    const next = hosts.strip.children[Math.max(0, Math.min(data.tokens.length - 1, +b.dataset.token + step))];
    b.setAttribute("tabindex", -1); next.setAttribute("tabindex", 0); next.focus();
    event.preventDefault();
  });
  const all = () => { matrix(); marks(); agreement(); cells(); };
  all();
  return { redraw: all, clear: () => { Object.assign(state, { token: null, target: null }); Object.assign(view, { token: null, target: null }); changed(); marks(); } };
}

/** The matrix as a picture of its own, for papers. */
function matrixPicture(data, state) {
  const grid = data.cells[state.by], count = state.rows === "all" ? data.targets.length : Math.min(14, data.targets.length), w = 58, h = 24, left = 190, top = 90;
  const node = shape("svg", { viewBox: `0 0 ${left + w * data.tokens.length + 20} ${top + h * count + 14}`, width: left + w * data.tokens.length + 20, height: top + h * count + 14 });
  data.tokens.forEach((token, i) => node.append(write(0, 0, fit(token, 84, 12.5), { transform: `translate(${left + w * (i + 0.5) + 4},${top - 8}) rotate(-45)`, "font-size": 12.5 })));
  data.targets.slice(0, count).forEach((target, r) => {
    const most = Math.max(1e-12, ...grid[r].map((c) => Math.abs(c?.[0] ?? 0)));
    node.append(write(left - 8, top + h * r + 16, fit(target.label ? `${target.name} · ${target.label}` : target.name, left - 16), { "text-anchor": "end" }));
    grid[r].forEach((c, i) => {
      if (!c) return;
      const unsure = !(c[1] !== null && c[2] !== null && (c[1] > 0 || c[2] < 0));
      node.append(shape("rect", { x: left + w * i + 1, y: top + h * r + 1, width: w - 2, height: h - 2, rx: 3, class: c[0] > 0 ? "plus-fill" : "minus-fill", "fill-opacity": (0.62 * (Math.abs(c[0]) / most) ** 0.8).toFixed(3) }));
      node.append(write(left + w * (i + 0.5), top + h * r + 16, alike(c[0], most), { "text-anchor": "middle", "font-size": 12, "font-weight": unsure ? 400 : 600, "font-style": unsure ? "italic" : "normal" }));
    });
  });
  return node;
}

// ---------------------------------------------------------------- saving pictures and figures

const PAINT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap", "font-family", "font-size", "font-weight", "font-style", "text-anchor"];
function hex(colour) {
  if (!colour || colour === "none") return "none";
  pen.canvas.width = pen.canvas.height = 1;
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return "#" + [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)].map((v) => v.toString(16).padStart(2, "0")).join("");
}

/** A copy of a picture that needs no style sheet: what the page's styles say is written into each element. */
function standalone(source) {
  const copy = source.cloneNode(true), [, , width, height] = source.getAttribute("viewBox").split(" ");
  const from = [source, ...source.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((node, i) => {
    const style = getComputedStyle(node);
    for (const name of PAINT) to[i].setAttribute(name, name === "fill" || name === "stroke" ? hex(style.getPropertyValue(name)) : style.getPropertyValue(name));
    for (const name of ["class", "tabindex", "aria-label", "role"]) to[i].removeAttribute(name);
  });
  copy.prepend(shape("rect", { width, height, fill: hex(getComputedStyle(document.documentElement).getPropertyValue("--export") || getComputedStyle(document.querySelector(".card, .picture, body")).backgroundColor) }));
  put(copy, { xmlns: SVG, width, height });
  return new XMLSerializer().serializeToString(copy);
}

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 4000);
}
async function saveImage(text, name) {
  const picture = new Image(), url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  picture.src = url;
  await picture.decode();
  const paper = element("canvas", { width: picture.width * 2, height: picture.height * 2 });
  paper.getContext("2d").drawImage(picture, 0, 0, paper.width, paper.height);
  URL.revokeObjectURL(url);
  paper.toBlob((blob) => save(blob, name), "image/png");
}
/** Cells that a spreadsheet would run as a formula get a leading apostrophe. */
function csv(rows) {
  const quote = (v) => { const text = typeof v === "string" && /^[=+\-@\t\r]/.test(v) ? `'${v}` : String(v ?? ""); return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text; };
  return rows.map((row) => row.map(quote).join(",")).join("\r\n") + "\r\n";
}
const TABLES = {
  forest: (data) => [["condition", "kind", "prompt", "rate", "rate_low", "rate_high", "change", "change_low", "change_high", "log_odds_change", "log_odds_low", "log_odds_high", "p", "p_adjusted"],
    ...data.comparison.rows.map((r) => { const d = r.difference ?? { ci: [null, null], log_odds_ci: [null, null] }; return [r.name, r.kind, r.prompt, r.rate, ...r.ci, d.value, ...d.ci, d.log_odds, ...d.log_odds_ci, d.p, d.p_adjusted]; })],
  scatter: (data) => [["search", "prompt", "objective", "fluency", "selection_rate", "chosen"], ...Object.entries(data.frontier).flatMap(([name, s]) => s.candidates.map((c) => [name, c.text, c.objective, c.fluency, c.selection_rate, c.chosen]))],
  matrix: (data) => [["position", "token", "quantity", "estimator", "mean", "low", "high", "sd"], ...data.ledger.estimators.flatMap(({ key }) => data.ledger.targets.flatMap((t, r) => data.ledger.tokens.map((token, i) => [data.ledger.positions[i], token, t.name, key, ...(data.ledger.cells[key][r][i] ?? [null, null, null, null])])))],
  layers: (data) => [["layer", "method", "auc", "predicts"], ...data.layers.map((r) => [r.layer, r.method, r.auc, r.predicts])],
};

function exports_(data, state) {
  for (const tools of document.querySelectorAll("[data-tools]")) {
    const name = tools.dataset.tools;
    tools.hidden = false;
    tools.addEventListener("click", (event) => {
      const kind = event.target.dataset?.export;
      if (!kind) return;
      if (kind === "csv") return save(new Blob(["\ufeff", csv(TABLES[name](data))], { type: "text/csv" }), `${name}.csv`);
      const stage = element("div", { class: "sr" });
      document.body.append(stage);
      if (name === "matrix") stage.append(matrixPicture(data.ledger, state));
      const text = standalone(name === "matrix" ? stage.firstChild : document.querySelector(`#${name} svg`));
      stage.remove();
      if (kind === "svg") save(new Blob([text], { type: "image/svg+xml" }), `${name}.svg`);
      else saveImage(text, `${name}.png`);
    });
  }
}

// ---------------------------------------------------------------- the page

function readState(data) {
  const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const names = Object.keys(data.frontier ?? {}), whole = (key, limit) => { const v = Number(given.get(key) ?? NaN); return Number.isInteger(v) && v >= 0 && v < limit ? v : null; };
  const search = names.includes(given.get("search")) ? given.get("search") : names[0];
  const estimators = (data.ledger?.estimators ?? []).map((e) => e.key);
  const pins = (given.get("pins") ?? "").split("|").map((p) => p.split("~")).map(([s, i]) => ({ search: names[+s], index: +i })).filter((p) => p.search !== undefined && data.frontier[p.search].candidates[p.index]);
  return {
    scale: given.get("scale") === "points" ? "points" : "log_odds", search, point: null, pins,
    by: estimators.includes(given.get("by")) ? given.get("by") : estimators[0], rows: given.get("rows") === "all" ? "all" : null,
    token: whole("token", data.ledger?.tokens.length ?? 0), target: whole("target", data.ledger?.targets.length ?? 0),
  };
}
function writeState(data, state) {
  const names = Object.keys(data.frontier ?? {}), out = new URLSearchParams();
  if (state.scale === "points") out.set("scale", "points");
  if (state.search && state.search !== names[0]) out.set("search", state.search);
  if (state.pins.length) out.set("pins", state.pins.map((p) => `${names.indexOf(p.search)}~${p.index}`).join("|"));
  if (data.ledger && state.by !== data.ledger.estimators[0].key) out.set("by", state.by);
  for (const key of ["rows", "token", "target"]) if (state[key] !== null && state[key] !== undefined) out.set(key, state[key]);
  history.replaceState(null, "", out.size ? `#${out}` : location.pathname + location.search);
}

function mountFrontier(data, state, changed) {
  const [host, hovered, pinned] = ["scatter", "hovered", "pinned"].map((id) => document.getElementById(id));
  const facts = (c) => [element("p", { class: "said", text: c.text }), element("p", { class: "note", text: `objective ${figure(c.objective)} · fluency ${figure(c.fluency)} nats${c.selection_rate !== null ? ` · rate on selection questions ${figure(100 * c.selection_rate, 0)} %` : ""}` })];
  const names = Object.keys(data.frontier);
  const show = () => {
    const search = data.frontier[state.search], best = search.candidates.findIndex((c) => c.chosen), i = state.point ?? (best >= 0 ? best : null);
    hovered.replaceChildren(...(i === null ? [element("p", { class: "note", text: "Point at a prompt to read it." })] : [element("h3", { text: `${state.search}${state.point === null ? ": chosen" : `: prompt ${i + 1} of ${search.candidates.length}`}` }), ...facts(search.candidates[i])]),
      element("p", { class: "note", text: [search.objective && `Objective: ${search.objective}.`, search.slot && `Slot: ${search.slot.replaceAll("_", " ")}.`].filter(Boolean).join(" ") }));
    pinned.replaceChildren(...state.pins.map((p, n) => element("li", {}, element("b", { text: String(n + 1) }), element("div", {}, ...facts(data.frontier[p.search].candidates[p.index])), element("button", { type: "button", "aria-label": `Let prompt ${n + 1} go`, text: "×", onclick: () => { state.pins.splice(n, 1); changed(); draw(); } }))));
  };
  const draw = () => {
    const focused = host.contains(document.activeElement);
    scatter(host, data.frontier, state, (i) => { state.point = i; draw(); }, (i) => {
      const at = state.pins.findIndex((p) => p.search === state.search && p.index === i);
      if (at >= 0) state.pins.splice(at, 1); else state.pins.push({ search: state.search, index: i });
      state.point = i; changed(); draw();
    });
    if (focused) host.firstChild.focus();
    show();
  };
  if (names.length > 1) {
    const controls = document.querySelector("[data-controls=frontier]");
    controls.hidden = false;
    controls.append(choices("Search", names.map((n) => [n, fit(n, 220)]), state.search, (key) => { state.search = key; state.point = null; changed(); draw(); }));
  }
  return draw;
}

function boot(data) {
  const state = readState(data), changed = () => writeState(data, state), at = (id) => document.getElementById(id), draws = [];
  const add = (id, draw) => { if (at(id)) draws.push([at(id), draw]); };
  if (data.comparison && at("forest")) {
    add("forest", () => forest(at("forest"), data.comparison, state));
    const controls = document.querySelector("[data-controls=forest]");
    controls.hidden = false;
    controls.append(choices("Show the change as", [["log_odds", "log-odds"], ["points", "percentage points"]], state.scale, (key) => { state.scale = key; changed(); forest(at("forest"), data.comparison, state); }));
  }
  if (data.answers) add("strips", () => strips(at("strips"), data.answers, data.comparison));
  if (data.frontier && at("scatter")) add("scatter", mountFrontier(data, state, changed));
  if (data.history) add("progress", () => progress(at("progress"), data.history));
  if (data.layers) add("layers", () => layers(at("layers"), data.layers, data.layer));
  if (data.ledger?.mediation?.length) add("mediation", () => mediation(at("mediation"), data.ledger.mediation));
  let view = null;
  if (data.ledger && at("matrix")) {
    view = linked({ strip: at("strip"), matrix: at("matrix"), detail: at("detail"), agreement: at("agreement"), cells: at("cells") }, data.ledger, state, changed);
    const controls = document.querySelector("[data-controls=ledger]");
    controls.hidden = data.ledger.estimators.length < 2;
    controls.append(choices("Measured by", data.ledger.estimators.map((e) => [e.key, e.name]), state.by, (key) => { state.by = key; changed(); view.redraw(); }));
  }
  const widths = new Map(), watch = new ResizeObserver((seen) => {
    for (const { target, contentRect } of seen) {
      const width = Math.round(contentRect.width);
      if (!width || widths.get(target) === width) continue;
      widths.set(target, width);
      requestAnimationFrame(() => draws.find(([host]) => host === target)[1]());
    }
  });
  for (const [host] of draws) watch.observe(host);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && view && !event.defaultPrevented) view.clear(); });
  addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });
  theme();
  exports_(data, state);
}

function theme() {
  const button = document.getElementById("theme"), names = ["system", "light", "dark"];
  let now = 0;
  button.hidden = false;
  button.addEventListener("click", () => {
    now = (now + 1) % 3;
    if (now) document.documentElement.dataset.theme = names[now]; else delete document.documentElement.dataset.theme;
    button.textContent = `Theme: ${names[now]}`;
  });
}

const block = document.getElementById("wb-data");
if (block) boot(JSON.parse(block.textContent));
