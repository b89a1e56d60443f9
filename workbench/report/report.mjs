// The page of a report: state in the address, and every picture in its place. Data come in as plain JSON whose texts are already
// visible. The modules are joined in order into the page (page_assets.py), which loads nothing.

import { forest, layers, mediation, progress, scatter } from "./charts.mjs";
import { linked } from "./linked_views.mjs";
import { mountQuestions } from "./questions.mjs";
import { mountCircuit } from "./circuit.mjs";
import { exports_ } from "./export.mjs";
import { choices, element, figure, fit } from "./dom.mjs";

function readState(data) {
  const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const names = Object.keys(data.frontier ?? {}), whole = (key, limit) => { const v = Number(given.get(key) ?? NaN); return Number.isInteger(v) && v >= 0 && v < limit ? v : null; };
  const search = names.includes(given.get("search")) ? given.get("search") : names[0];
  const estimators = (data.ledger?.estimators ?? []).map((e) => e.key);
  const pins = (given.get("pins") ?? "").split("|").map((p) => p.split("~")).map(([s, i]) => ({ search: names[+s], index: +i })).filter((p) => p.search !== undefined && data.frontier[p.search].candidates[p.index]);
  return {
    scale: given.get("scale") === "points" ? "points" : "log_odds", search, point: null, pins,
    by: estimators.includes(given.get("by")) ? given.get("by") : estimators[0], rows: given.get("rows") === "all" ? "all" : null,
    part: given.get("part"), share: Math.min(0.6, Math.max(0, Number(given.get("share") ?? 0) || 0)), condition: given.get("condition"), question: whole("question", data.questions?.items.length ?? 0), only: ["flipped", "worse", "true"].includes(given.get("only")) ? given.get("only") : "all",
    token: whole("token", data.ledger?.tokens.length ?? 0), target: whole("target", data.ledger?.targets.length ?? 0),
  };
}
function writeState(data, state) {
  const names = Object.keys(data.frontier ?? {}), out = new URLSearchParams();
  if (state.scale === "points") out.set("scale", "points");
  if (state.search && state.search !== names[0]) out.set("search", state.search);
  if (state.pins.length) out.set("pins", state.pins.map((p) => `${names.indexOf(p.search)}~${p.index}`).join("|"));
  if (data.ledger && state.by !== data.ledger.estimators[0].key) out.set("by", state.by);
  const best = data.comparison?.rows.find((row) => row.best)?.name;
  if (state.condition && state.condition !== best && state.condition in (data.questions?.odds ?? {})) out.set("condition", state.condition);
  if (state.part) out.set("part", state.part);
  if (state.share) out.set("share", state.share);
  if (state.only !== "all") out.set("only", state.only);
  for (const key of ["question", "rows", "token", "target"]) if (state[key] !== null && state[key] !== undefined) out.set(key, state[key]);
  history.replaceState(null, "", out.size ? `#${out}` : location.pathname + location.search);
}

function mountFrontier(data, state, changed) {
  const [host, hovered, pinned] = ["scatter", "hovered", "pinned"].map((id) => document.getElementById(id));
  const facts = (c) => [element("p", { class: "said", text: c.text }), element("p", { class: "note", text: `objective ${figure(c.objective)} · cross-entropy ${figure(c.fluency)} nats per token${c.selection_rate !== null ? ` · rate on selection questions ${figure(100 * c.selection_rate, 0)} %` : ""}` })];
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
  if (data.questions && data.comparison && at("strips")) add("strips", mountQuestions(data.questions, data.comparison, state, changed));
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
  const circuit = at("circuit")?.querySelector("svg") ? mountCircuit(at("circuit"), state, changed) : null;
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !event.defaultPrevented) { view?.clear(); if (state.part) circuit.clear(); } });
  const openCard = () => { const card = document.getElementById(location.hash.slice(1)); if (card?.matches("details")) { card.open = true; card.scrollIntoView(); } };
  addEventListener("hashchange", openCard);
  openCard();
  // every fold is open on paper, and what was never seen is drawn before the page is taken
  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    for (const [host, draw] of draws) if (host.clientWidth && !host.firstChild) draw();
  });
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
