// Saving pictures as SVG and PNG, and their figures as CSV.

import { alike, element, fit, pen, put, shape, SVG, write } from "./dom.mjs";

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
  scatter: (data) => [["search", "prompt", "objective", "cross_entropy", "selection_rate", "chosen"], ...Object.entries(data.frontier).flatMap(([name, s]) => s.candidates.map((c) => [name, c.text, c.objective, c.fluency, c.selection_rate, c.chosen]))],
  matrix: (data) => [["position", "token", "quantity", "estimator", "mean", "low", "high", "sd"], ...data.ledger.estimators.flatMap(({ key }) => data.ledger.targets.flatMap((t, r) => data.ledger.tokens.map((token, i) => [data.ledger.positions[i], token, t.name, key, ...(data.ledger.cells[key][r][i] ?? [null, null, null, null])])))],
  layers: (data) => [["layer", "method", "auc", "predicts"], ...data.layers.map((r) => [r.layer, r.method, r.auc, r.predicts])],
};

export function exports_(data, state) {
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
