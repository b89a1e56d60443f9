// Every single question: a tick in the strip plot and a row in the table, both of which open it.

import { canvas, choices, element, figure, fit, linear, shape, signed, ticked, ticks, write } from "./dom.mjs";

const FILTERS = [["all", "all"], ["flipped", "flipped"], ["worse", "got worse"], ["true", "true statements"]];
const FIRST = 25, MAX_TICKS = 160;

/** What the chosen condition does to each question: index, before, after, change, flipped, worse; the largest changes first. */
export function questionChanges(data, wanted, condition) {
  const before = data.odds[data.baseline] ?? [], after = data.odds[condition] ?? [];
  return data.items.map((item, i) => ({ item, i, before: before[i], after: after[i] })).filter((q) => Number.isFinite(q.before) && Number.isFinite(q.after))
    .map((q) => ({ ...q, change: q.after - q.before, flipped: q.before > 0 !== q.after > 0, worse: (q.item.kind === "true" ? 1 : wanted) * (q.after - q.before) < 0 }))
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
}
const kept = (q, only) => (only === "true" ? q.item.kind === "true" : q.item.kind === "test" && (only === "all" || q[only]));

/** One line a condition, one tick a test question; a press on a tick opens its question. */
export function strips(host, data, rows, state, open) {
  const names = rows.map((row) => row.name).filter((name) => name in data.odds), width = Math.max(280, host.clientWidth), narrow = width < 620, left = narrow ? 12 : 220, step = narrow ? 44 : 28;
  const groups = Object.fromEntries(rows.map((row) => [row.name, row.group])), tests = data.items.flatMap((item, i) => (item.kind === "test" ? [i] : []));
  const shown = tests.filter((_, k) => tests.length <= MAX_TICKS || Math.floor((k * MAX_TICKS) / tests.length) !== Math.floor(((k - 1) * MAX_TICKS) / tests.length));
  const values = names.flatMap((name) => shown.map((i) => data.odds[name][i])).filter(Number.isFinite), bound = Math.min(10, Math.max(1, ...values.map(Math.abs)));
  const x = linear(-bound, bound, left + 8, width - 12), height = names.length * step + 50;
  const node = canvas(host, width, height, `Log-odds of single questions for ${names.length} conditions; the same questions are in the table below.`);
  names.forEach((name, n) => {
    const y = 8 + n * step, low = y + step - 6, group = shape("g", { class: `g-${groups[name] ?? "control"}` });
    group.append(write(12, narrow ? y + 14 : y + step / 2 + 4, fit(name, narrow ? width - 24 : left - 24)));
    for (const i of shown) {
      const value = data.odds[name][i];
      if (!Number.isFinite(value)) continue;
      const at = x(Math.max(-bound, Math.min(bound, value)));
      group.append(shape("line", { x1: at, x2: at, y1: low - 15, y2: low, class: "c-line tick", "stroke-width": i === state.question ? 3.5 : 1.4, "stroke-opacity": i === state.question ? 1 : 0.45, "data-i": i, "data-name": name }));
    }
    node.append(group);
  });
  node.append(shape("line", { x1: x(0), x2: x(0), y1: 4, y2: height - 36, class: "zero" }));
  const marks = ticks(-bound, bound, 5), label = ticked(marks, signed);
  for (const tick of marks) node.append(write(x(tick), height - 22, label(tick), { "text-anchor": "middle", class: "soft", "font-size": 12 }));
  node.append(write((left + width) / 2, height - 5, "log-odds of the answer that shows the persona", { "text-anchor": "middle", "font-size": 12.5 }));
  node.addEventListener("click", (event) => {
    const tick = nearest(node, event);
    if (tick) open(+tick.dataset.i, tick.dataset.name);
  });
}
/** The tick under the pointer, or the nearest one within 8 pixels. */
function nearest(node, event) {
  const boxes = [...node.querySelectorAll(".tick")].map((tick) => ({ tick, box: tick.getBoundingClientRect() })).filter(({ box }) => event.clientY >= box.top - 3 && event.clientY <= box.bottom + 3);
  const far = ({ box }) => Math.abs((box.left + box.right) / 2 - event.clientX), best = boxes.sort((a, b) => far(a) - far(b))[0];
  return best && far(best) <= 8 ? best.tick : null;
}

function card(q, persona, condition) {
  const right = q.item.kind === "true", leans = (value) => `${signed(value)} (${figure(100 / (1 + Math.exp(-value)), 0)} %)`;
  return element("div", { class: "card question" }, element("p", { class: "said", text: q.item.question }), element("dl", {},
    element("dt", { text: right ? "right answer" : `answer that shows ${persona}` }), element("dd", { text: q.item.matching || "–" }),
    element("dt", { text: "other answer" }), element("dd", { text: q.item.other || "–" }),
    element("dt", { text: "without a prompt" }), element("dd", { text: leans(q.before) }),
    element("dt", { text: `with ${condition}` }), element("dd", { text: leans(q.after) }),
    element("dt", { text: "question group" }), element("dd", { text: q.item.group || "–" })));
}

export function mountQuestions(data, comparison, state, changed) {
  const host = document.getElementById("questions"), picture = document.getElementById("strips");
  const conditions = comparison.rows.map((row) => row.name).filter((name) => name in data.odds && name !== data.baseline), best = comparison.rows.find((row) => row.best)?.name;
  state.condition = conditions.includes(state.condition) ? state.condition : conditions.includes(best) ? best : conditions[0];
  let limit = FIRST;
  const open = (i, name) => {
    state.question = state.question === i && (!name || name === state.condition) ? null : i;
    if (name && conditions.includes(name)) state.condition = name;
    const q = questionChanges(data, comparison.wanted, state.condition), at = q.filter((one) => kept(one, state.only)).findIndex((one) => one.i === i);
    if (at < 0) state.only = data.items[i].kind === "true" ? "true" : "all";
    limit = Math.max(limit, at + 1, q.filter((one) => kept(one, state.only)).findIndex((one) => one.i === i) + 1);
    changed();
    draw();
    host.querySelector(`[data-i="${i}"]`)?.focus({ preventScroll: !name });
  };
  const row = (q) => {
    const here = q.i === state.question, text = q.item.question.length > 160 ? `${q.item.question.slice(0, 159)}…` : q.item.question;
    const cells = [element("th", { scope: "row" }, element("button", { type: "button", class: "opens", "aria-expanded": String(here), "data-i": q.i, text, onclick: () => open(q.i) })),
      ...[q.before, q.after, q.change].map((value) => element("td", { class: "n", text: signed(value) })), element("td", { text: q.flipped ? "flipped" : "–" })];
    return [element("tr", { class: here ? "chosen" : null }, ...cells), here ? element("tr", {}, element("td", { colspan: 5 }, card(q, comparison.persona, state.condition))) : null];
  };
  const draw = () => {
    strips(picture, data, comparison.rows, state, open);
    const all = questionChanges(data, comparison.wanted, state.condition), counts = Object.fromEntries(FILTERS.map(([key]) => [key, all.filter((q) => kept(q, key)).length]));
    const found = all.filter((q) => kept(q, state.only)), offered = FILTERS.filter(([key]) => key !== "true" || counts.true).map(([key, name]) => [key, `${name} (${counts[key]})`]);
    const pick = element("select", { "aria-label": "Condition", onchange: (event) => { state.condition = event.target.value; changed(); draw(); } }, ...conditions.map((name) => element("option", { value: name, text: fit(name, 260), selected: name === state.condition })));
    const head = element("thead", {}, element("tr", {}, ...["Question", "Without", "With", "Change, log-odds", "Answer"].map((text, k) => element("th", { scope: "col", class: k > 0 && k < 4 ? "n" : null, text }))));
    host.replaceChildren(...[element("div", { class: "controls" }, element("label", { class: "choice" }, element("span", { text: "Condition" }), pick), choices("Only", offered, state.only, (key) => { state.only = key; limit = FIRST; changed(); draw(); })),
      found.length ? element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of questions" }, element("table", {}, head, element("tbody", {}, ...found.slice(0, limit).flatMap(row).filter(Boolean)))) : element("p", { class: "fine", text: "No question is of this kind." }),
      found.length > limit ? element("button", { type: "button", class: "more", text: `Show ${Math.min(50, found.length - limit)} more of ${found.length}`, onclick: () => { limit += 50; draw(); } }) : null,
      found.length > limit ? element("p", { class: "fine print-only", text: `${limit} of ${found.length} questions are listed, the largest changes first; questions.parquet and evaluation.parquet of the run hold all.` }) : null].filter(Boolean));
  };
  return draw;
}
