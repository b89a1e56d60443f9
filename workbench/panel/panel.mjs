// The live panel, an anywidget module: `render({ model, el })`. It draws the kernel's readings, and requests a new one while the
// reader types: one request at a time, the latest text wins. Everything lives in a shadow root, so that neither the notebook's
// styles nor the panel's reach the other side; every text goes in as a text node.

import { choices, element, figure, pen, range, signed } from "./dom.mjs";
import { linked } from "./linked_views.mjs";

const DEBOUNCE = 40, SETTLED = 1200, SILENT = 10000;
const percent = (p) => `${figure(100 * p, 0)} %`;

/** One prompt: its field, buttons and line of words, and the linked view of its ledger. */
function prompt(index, model, name, shared) {
  const part = (tag, attributes, ...children) => element(tag, attributes, ...children);
  const area = part("textarea", { id: `prompt-${index}`, rows: 2, spellcheck: "false", "aria-describedby": `line-${index}` });
  const line = part("p", { class: "line", id: `line-${index}`, role: "status" }), bar = part("progress", { hidden: true, "aria-label": "Tokens removed so far" });
  const read = part("button", { type: "button", text: "Read", hidden: true, onclick: () => ask("read") });
  const exact = part("button", { type: "button", text: `All ${model.get("about").n} contexts, with intervals`, title: "Control and Enter", onclick: () => ask("exact") });
  const hosts = {
    strip: part("div", { class: "strip", role: "group", "aria-label": `Tokens of ${name}` }), matrix: part("div", { class: "matrix" }),
    detail: part("div", { class: "card detail", "aria-live": "polite" }), agreement: part("p", { class: "note" }), cells: part("div", {}),
  };
  const odds = part("div", { class: "odds" }), by = part("div", { class: "controls", hidden: true });
  const result = part("div", { class: "result", hidden: true }, part("h3", { text: "The answer" }), odds, part("h3", { text: "Token by token" }), by, hosts.agreement, hosts.strip, hosts.detail,
    part("div", { class: "scroll" }, hosts.matrix), part("details", {}, part("summary", { text: "The strongest cells as a table" }), part("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Strongest cells of ${name}` }, hosts.cells)));
  const root = part("section", { class: "side", "aria-label": name }, part("label", { for: `prompt-${index}`, text: name }), area, part("div", { class: "buttons" }, read, exact), line, bar, result);
  const state = { by: null, rows: null, token: null, target: null, peak: shared }, timers = {};
  let view = null, shown = null, flight = null, sent = "", queued = null, began = 0, count = 0;
  const own = Math.random().toString(36).slice(2);
  const later = (key, wait, what) => { clearTimeout(timers[key]); timers[key] = setTimeout(what, wait); };
  const say = (text, bad = false) => {
    if (line.textContent !== text) line.textContent = text;
    line.classList.toggle("bad", bad);
    area.setAttribute("aria-invalid", String(bad));
  };

  function ask(how) {
    if (flight !== null) { if (how !== "typed") queued = how; return; }
    clearTimeout(timers.settled);
    sent = area.value;
    flight = `${own}-${++count}`;
    if (how !== "typed") say("reading …");
    model.send({ kind: "read", side: index, text: sent, ask: flight, how });
    later("silent", SILENT, () => { if (bar.hidden) say("No answer from the kernel (is it running?): this is the last reading."); });
  }

  function controls(ledger) {
    if (!ledger.estimators.some(({ key }) => key === state.by)) state.by = ledger.estimators[0].key;
    by.hidden = ledger.estimators.length < 2;
    by.replaceChildren(...(by.hidden ? [] : [choices("Measured by", ledger.estimators.map((e) => [e.key, e.name]), state.by, (key) => { state.by = key; view.redraw(); })]));
  }

  function answers(ledger) {
    const row = (label, entry, style) => {
      const fill = part("div", { class: `fill ${style}` });
      fill.style.setProperty("--v", entry.p);
      const interval = entry.low === null ? "" : ` (${range([entry.low, entry.high], percent)})`;
      return [part("span", { text: label }), part("div", { class: "track", "aria-hidden": "true" }, fill), part("b", { text: percent(entry.p) + interval })];
    };
    odds.replaceChildren(...row("with this prompt", ledger.answer.with, ""), ...row("no prompt", ledger.answer.without, "bare"));
    result.firstChild.textContent = `Probability of the answer that shows ${model.get("about").persona}`;
  }

  function draw(ledger) {
    controls(ledger);
    answers(ledger);
    if (view) view.show(ledger); else view = linked(hosts, ledger, state, () => {});
    shown = ledger;
  }

  const told = (ledger) => {
    const names = ledger.estimators.map((e) => e.name).join(" and ");
    return ledger.exact ? `Exact: ${names}, all ${ledger.n} contexts in ${ledger.groups} groups, 95 % intervals; ${figure(ledger.ms / 1000)} s.` : `Quick: ${names}, ${ledger.n} contexts, no intervals; ${figure(ledger.ms, 0)} ms.`;
  };

  function update() {
    const entry = model.get("readings")[index], mine = flight !== null && entry.ask === flight;
    if (flight !== null && !mine) return;
    if (!mine && area.getRootNode().activeElement !== area) area.value = entry.text;
    if (mine) { flight = null; clearTimeout(timers.silent); }
    if (entry.ledger && JSON.stringify(entry.ledger) !== JSON.stringify(shown)) draw(entry.ledger);
    result.hidden = !entry.ledger;
    root.classList.toggle("stale", Boolean(entry.error || entry.waiting !== null));
    read.hidden = entry.waiting === null;
    say(entry.error ? `✕ ${entry.error}` : entry.waiting !== null ? `Press Read: a reading takes about ${figure(entry.waiting, 1)} s here.` : entry.ledger ? told(entry.ledger) : "Type a prompt: it is read while you type.", Boolean(entry.error));
    if (!mine) return;
    root.dataset.ms = (performance.now() - began).toFixed(1);
    const next = queued ?? (area.value !== sent ? "typed" : null);
    queued = null;
    if (next) later("typed", 0, () => ask(next));
    else later("settled", SETTLED, () => model.send({ kind: "settled" }));
  }

  function step() {
    const { side, done, total } = model.get("progress");
    bar.hidden = side !== index;
    if (!bar.hidden) { bar.max = total; bar.value = done; say(`reading … ${done} of ${total} tokens removed`); }
  }

  area.addEventListener("input", () => { began = performance.now(); later("typed", DEBOUNCE, () => ask("typed")); });
  area.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); began = performance.now(); ask("exact"); } });
  area.value = model.get("readings")[index].text;
  return { root, update, step, redraw: () => view?.redraw(), clear: () => view?.clear(), stop: () => Object.values(timers).forEach(clearTimeout) };
}

/** The largest effect on a quantity over both prompts while they are compared, so that their colours have one scale. */
const sharedPeak = (model) => (name, by) => {
  if (!model.get("comparing")) return 0;
  const rows = model.get("readings").map(({ ledger }) => ledger?.cells[by]?.[ledger.targets.findIndex((target) => target.name === name)] ?? []);
  return Math.max(0, ...rows.flat().map((cell) => Math.abs(cell?.[0] ?? 0)));
};

/** Control and S saves the notebook: JupyterLab's own shortcuts do not reach into the panel, and the browser would save the page. */
function saveNotebook(event, host) {
  if (event.key.toLowerCase() !== "s" || !(event.ctrlKey || event.metaKey) || event.altKey || !("jpThemeLight" in document.body.dataset)) return;
  event.preventDefault();
  event.stopPropagation();
  const { key, code, ctrlKey, metaKey, shiftKey, keyCode } = event;
  (host.parentElement ?? document.body).dispatchEvent(new KeyboardEvent("keydown", { key, code, ctrlKey, metaKey, shiftKey, keyCode, bubbles: true, cancelable: true }));
}

/** All quantities at once: without a prompt, with each, and what the second prompt does more than the first. */
function whole(host, model) {
  const two = model.get("comparing"), ledgers = model.get("readings").map((r) => r.ledger), [a, b] = two ? ledgers : [ledgers[0], null];
  const first = a ?? b;
  if (!first) return host.replaceChildren();
  const difference = two && a && b ? model.get("difference") : [];
  const change = (entry) => entry ? element("td", { class: `n ${entry.mean > 0 ? "up" : entry.mean < 0 ? "down" : ""}` }, signed(entry.mean), entry.low === null ? null : element("small", { text: range([entry.low, entry.high], signed) })) : element("td", { class: "n", text: "–" });
  const value = (v) => element("td", { class: "n", text: figure(v) });
  const heads = ["quantity", "no prompt", ...(two ? ["A", "A − none", "B", "B − none", ...(difference.length ? ["B − A"] : [])] : ["this prompt", "change"])];
  const rows = first.totals.map((row, i) => {
    const { label } = first.targets[i], sides = two ? [a, b] : [a];
    const cells = sides.flatMap((ledger) => (ledger ? [value(ledger.totals[i].with), change(ledger.totals[i])] : [element("td", { class: "n", text: "–" }), element("td", { class: "n", text: "–" })]));
    return element("tr", {}, element("th", { scope: "row", text: label ? `${row.target} · ${label}` : row.target }), value(row.without), ...cells, difference.length ? change(difference[i]) : null);
  });
  const mixed = two && a && b && a.exact !== b.exact ? element("p", { class: "note", text: "A and B were read on different contexts (one exact, one quick): no difference is shown." }) : null;
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads.map((text, i) => element("th", { scope: "col", class: i ? "n" : "", text })))), element("tbody", {}, ...rows));
  host.replaceChildren(element("h3", { text: "The whole prompt on each quantity, mean over contexts" }), ...[mixed].filter(Boolean), element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The whole prompt on each quantity" }, table));
}

/** A text of one's own on a latent: its activation at every token; and a name for the latent, kept in the run. */
function ownText(model) {
  const listed = () => model.get("about").latents ?? [];
  if (!listed().length) return { root: null, update() {} };
  const named = () => { name.value = listed().find((l) => String(l.latent) === pick.value)?.label ?? ""; };
  const pick = element("select", { id: "own-latent", onchange: named });
  const text = element("textarea", { id: "own-text", rows: 2, spellcheck: "false" }), tokens = element("p", { class: "fires", "aria-live": "polite" }), line = element("p", { class: "line", role: "status" });
  const name = element("input", { id: "own-label", type: "text", maxlength: 200 });
  const send = (kind, what) => model.send({ kind, latent: Number(pick.value), text: what });
  const run = model.get("about").run;
  const naming = element("div", { class: "buttons" }, element("label", { for: "own-label", text: "Its name" }), name, element("button", { type: "button", text: "Keep in the run", onclick: () => send("label", name.value) }));
  naming.hidden = !run;
  text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send("fires", text.value); } });
  const root = element("details", { class: "own" }, element("summary", { text: "A text of your own on a latent" }), element("label", { for: "own-latent", text: "Latent " }), pick,
    element("label", { for: "own-text", text: "Text" }), text, element("div", { class: "buttons" }, element("button", { type: "button", text: "Where does it fire?", title: "Control and Enter", onclick: () => send("fires", text.value) })), tokens, line, naming);
  const fill = () => {
    const chosen = pick.value;
    pick.replaceChildren(...listed().map(({ latent, label }) => element("option", { value: latent, text: label ? `${latent} · ${label}` : String(latent) })));
    if (chosen) pick.value = chosen;
  };
  fill();
  named();
  const update = () => {
    fill();
    const found = model.get("firing") ?? {}, rows = found.tokens ?? [], peak = Math.max(0, ...rows.map(([, value]) => value));
    line.classList.toggle("bad", Boolean(found.error));
    line.textContent = found.error ? `✕ ${found.error}` : found.saved ? found.saved : rows.length && peak === 0 ? "It does not fire in this text." : "";
    tokens.replaceChildren(...rows.map(([token, value]) => {
      const node = element("span", { class: "fire", title: `${token}: ${figure(value)}` }, element("code", { text: token }), element("small", { text: value > 0 ? figure(value, 1) : "" }));
      node.style.setProperty("--v", peak > 0 ? value / peak : 0);
      return node;
    }));
  };
  return { root, update };
}

/** "light" or "dark", as JupyterLab says it; elsewhere by the first opaque background of the panel's ancestors; null where there is none. */
function ground(node) {
  if ("jpThemeLight" in document.body.dataset) return document.body.dataset.jpThemeLight === "true" ? "light" : "dark";
  for (let at = node.parentElement; at; at = at.parentElement) {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = getComputedStyle(at).backgroundColor;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, alpha] = pen.getImageData(0, 0, 1, 1).data;
    if (alpha > 127) return 0.2126 * r + 0.7152 * g + 0.0722 * b < 128 ? "dark" : "light";
  }
  return null;
}

function render({ model, el }) {
  const host = element("div", { class: "wb-panel", "data-lm-suppress-shortcuts": "true" }), shadow = host.attachShadow({ mode: "open" });
  const sides = [0, 1].map((i) => prompt(i, model, `Prompt ${"AB"[i]}`, sharedPeak(model)));
  const grid = element("div", { class: "sides" }, ...sides.map((side) => side.root)), table = element("div", { class: "whole" }), own = ownText(model);
  const compare = element("button", { type: "button", onclick: () => { model.set("comparing", !model.get("comparing")); model.save_changes(); } });
  shadow.append(element("style", { text: STYLE }), element("div", { class: "panel", role: "region", "aria-label": "Live panel" }, element("div", { class: "top" }, element("h2", { text: "Live panel" }), compare),
    element("p", { class: "note", text: `${model.get("about").title} A cell says how much one token changes one quantity: + raises it, − lowers it; italics may be zero or have no interval. Arrow keys move, Enter keeps a cell, Escape lets go.` }), grid, table, ...[own.root].filter(Boolean)));
  el.append(host);
  // while the panel lives, what the notebook keeps for readers without a kernel would only stand in the way
  const hide = document.head.appendChild(element("style", { text: `.${model.get("about").kept}{display:none}` }));

  const theme = () => { const found = ground(host); if (found) host.dataset.theme = found; else delete host.dataset.theme; };
  let drawn = "";
  const both = () => {
    const two = model.get("comparing");
    grid.classList.toggle("two", two);
    sides[1].root.hidden = !two;
    compare.textContent = two ? "One prompt only" : "Compare with a second prompt";
    compare.setAttribute("aria-expanded", String(two));
    whole(table, model);
    const scale = JSON.stringify([two, model.get("readings").map((reading) => reading.ledger?.cells)]);
    if (scale !== drawn) for (const side of sides) side.redraw();
    drawn = scale;
  };
  const update = () => { for (const side of sides) side.update(); both(); };
  const step = () => { for (const side of sides) side.step(); };
  const listeners = [["change:readings", update], ["change:difference", both], ["change:comparing", both], ["change:progress", step], ["change:firing", own.update], ["change:about", own.update]];
  for (const [name, what] of listeners) model.on(name, what);
  host.addEventListener("keydown", (event) => saveNotebook(event, host));
  host.addEventListener("keydown", (event) => { if (event.key === "Escape") for (const side of sides) side.clear(); });
  const watch = new MutationObserver(() => setTimeout(theme, 60)), system = matchMedia("(prefers-color-scheme: dark)");
  for (const node of [document.documentElement, document.body]) watch.observe(node, { attributes: true });
  system.addEventListener("change", theme);
  requestAnimationFrame(theme);
  theme();
  update();
  return () => {
    for (const [name, what] of listeners) model.off(name, what);
    for (const side of sides) side.stop();
    watch.disconnect();
    system.removeEventListener("change", theme);
    hide.remove();
  };
}

export default { render };
