// The linked view of tokens and quantities: strip, matrix and detail. The report and the notebook's panel share it.

import { alike, element, figure, range, signed } from "./dom.mjs";

/** Draws the linked view into {strip, matrix, detail, agreement, cells}; `changed` is told of what the reader pins or picks. Of what
 *  it gives, `show` draws another ledger in its place, and `clear` lets go of what is pinned. */
export function linked(hosts, first, state, changed) {
  let data = first;
  const few = 14;
  const view = { token: null, target: null };
  const grid = () => data.cells[state.by];
  const cell = (target, token) => grid()[target]?.[token] ?? null;
  const peak = (target) => Math.max(1e-12, state.peak?.(data.targets[target].name, state.by) ?? 0, ...grid()[target].map((c) => Math.abs(c?.[0] ?? 0)));
  const at = () => ({ token: view.token ?? state.token, target: view.target ?? state.target ?? 0 });
  const tint = (node, value, most) => {
    node.classList.remove("plus", "minus");
    if (value) node.classList.add(value > 0 ? "plus" : "minus");
    node.style.setProperty("--v", (Math.abs(value ?? 0) / most) ** 0.8);
  };
  const sure = (c) => c[1] !== null && c[2] !== null && (c[1] > 0 || c[2] < 0);
  const interval = (low, high) => (low === null || high === null ? "no interval" : `95 % interval ${range([low, high], signed)}`);
  let rows = [];

  function strip() {
    const { target } = at(), most = peak(target);
    const drawn = [...hosts.strip.children].map((button) => button.firstChild.textContent);
    if (drawn.length !== data.tokens.length || data.tokens.some((token, i) => drawn[i] !== (token || "∅"))) {
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
      hosts.detail.replaceChildren(element("h3", { text: `The whole prompt on ${name}${label ? ` (${label})` : ""}` }), element("p", { class: "note", text: total ? `${signed(total.mean)} (${interval(total.low, total.high)}), measured with and without the prompt.` : "Point at a token or a cell to read it; press to keep it." }));
      return;
    }
    const said = data.estimators.map(({ key, name: title }) => {
      const c = data.cells[key][target]?.[token];
      return element("p", { class: "note" }, element("b", { text: c ? signed(c[0]) : "–" }), ` ${title}${c ? `: ${interval(c[1], c[2])}${c[3] !== null ? `; spread over questions ${figure(c[3])}` : ""}` : ": not computed"}`);
    });
    const c = cell(target, token), verb = !c ? "" : c[1] === null ? (c[0] > 0 ? " seems to raise " : " seems to lower ") : !sure(c) ? " may not change " : c[0] > 0 ? " raises " : " lowers ";
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
  const show = (next) => {
    data = next;
    if (state.token !== null && state.token >= data.tokens.length) Object.assign(state, { token: null, target: null });
    Object.assign(view, { token: null, target: null });
    all();
  };
  return { redraw: all, show, clear: () => { Object.assign(state, { token: null, target: null }); Object.assign(view, { token: null, target: null }); changed(); marks(); } };
}
