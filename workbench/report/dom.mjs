// Small tools of the page and the panel: elements, figures as a reader sees them, scales. Every text goes into the page as a
// text node, never as markup.

export const SVG = "http://www.w3.org/2000/svg";
export const MINUS = "\u2212";

export function put(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...(children ?? []).filter((child) => child !== null && child !== undefined));
  return node;
}
export const element = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
export const shape = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);

export function figure(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 0.01 || size >= 10000) ? value.toPrecision(2) : value.toFixed(size >= 100 ? 0 : digits);
  return text.replace("-", MINUS);
}
/** Decimals for figures of which the largest is `peak`: all of one row are written alike. */
export const decimals = (peak) => (peak >= 100 ? 0 : peak >= 10 ? 1 : peak >= 0.1 || peak < 1e-6 ? 2 : Math.min(6, 1 - Math.floor(Math.log10(peak))));
export const alike = (value, peak) => (value > 0 ? "+" : "") + value.toFixed(decimals(peak)).replace("-", MINUS);
export const signed = (value, digits = 2) => (value > 0 ? "+" : "") + figure(value, digits);
export const range = (pair, form) => (pair && pair[0] !== null && pair[1] !== null ? `${form(pair[0])} to ${form(pair[1])}` : "no interval");

export const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
export function fit(text, width, size = 13, weight = 400) {
  pen.font = `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
  if (pen.measureText(text).width <= width) return text;
  const characters = [...text].slice(0, 200);
  while (characters.length > 1 && pen.measureText(characters.join("") + "…").width > width) characters.pop();
  return characters.join("") + "…";
}

export function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= raw) ?? raw;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}
/** How an axis writes its ticks: with the decimals that their step needs. */
export function ticked(marks, form = figure) {
  const step = marks.length > 1 ? marks[1] - marks[0] : 1, places = Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  return (tick) => (places < 2 ? form(tick, places) : (form === signed && tick > 0 ? "+" : "") + tick.toFixed(places).replace("-", MINUS));
}
export const linear = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);
export function extent(values, pad = 0.06) {
  const known = values.filter((value) => Number.isFinite(value));
  if (!known.length) return [-1, 1];
  const low = Math.min(...known), high = Math.max(...known), room = (high - low || Math.abs(high) || 1) * pad;
  return [low - room, high + room];
}
export const canvas = (host, width, height, label, role = "img") => {
  const node = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role, "aria-label": label });
  host.replaceChildren(node);
  return node;
};
export const write = (x, y, text, attributes = {}) => shape("text", { x, y, "font-size": 13, text, ...attributes });

export const MARKS = {
  circle: (r) => `M${-r},0a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0`,
  square: (r) => `M${-r * 0.9},${-r * 0.9}h${r * 1.8}v${r * 1.8}h${-r * 1.8}z`,
  diamond: (r) => `M0,${-r * 1.25}L${r * 1.25},0L0,${r * 1.25}L${-r * 1.25},0z`,
  triangle: (r) => `M0,${-r * 1.2}L${r * 1.15},${r * 0.85}L${-r * 1.15},${r * 0.85}z`,
};
const GROUP_MARKS = { found: ["circle", "c-fill"], answer: ["diamond", "c-fill"], written: ["square", "c-fill"], inside: ["triangle", "c-fill"], control: ["circle", "c-open"], other: ["diamond", "c-open"] };
export const DASHES = [null, "7 4", "2 3", "9 3 2 3", "1 4"];
export const mark = (group, x, y, r = 6) => {
  const [name, style] = GROUP_MARKS[group] ?? GROUP_MARKS.control;
  return shape("path", { d: MARKS[name](r), transform: `translate(${x},${y})`, class: style });
};

export function choices(label, options, current, pick) {
  const buttons = options.map(([key, name]) => element("button", { type: "button", "aria-pressed": String(key === current), text: name, onclick: () => {
    for (const [i, button] of buttons.entries()) button.setAttribute("aria-pressed", String(options[i][0] === key));
    pick(key);
  } }));
  return element("div", { class: "choice", role: "group", "aria-label": label }, element("span", { text: label }), ...buttons);
}
