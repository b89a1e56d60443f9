// The circuit that responds: point at a part to see what it is connected with, press to keep it, hide weak edges, open a latent's card.

import { element } from "./dom.mjs";

export function mountCircuit(host, state, changed) {
  const picture = host.querySelector("svg"), edges = [...picture.querySelectorAll("[data-source]")], boxes = [...picture.querySelectorAll("[data-id]")];
  const said = element("p", { class: "fine", "aria-live": "polite", text: "Point at a part to see what it is connected with; press to keep it." });
  const card = (box) => document.getElementById(`latent-${/latent\D*(\d+)/.exec(box.dataset.id)?.[1] ?? ""}`);
  let over = null;
  const shown = (edge) => +edge.dataset.share >= state.share;
  const draw = () => {
    const at = over ?? state.part, near = new Set([at]);
    for (const edge of edges) {
      const own = at === null || edge.dataset.source === at || edge.dataset.target === at;
      edge.classList.toggle("gone", !shown(edge));
      edge.classList.toggle("dim", !own);
      if (own && shown(edge)) near.add(edge.dataset.source).add(edge.dataset.target);
    }
    for (const box of boxes) {
      box.classList.toggle("dim", at !== null && !near.has(box.dataset.id));
      box.setAttribute("aria-pressed", String(box.dataset.id === state.part));
    }
    const box = boxes.find((one) => one.dataset.id === at);
    if (!box) return said.replaceChildren("Point at a part to see what it is connected with; press to keep it.");
    const ways = edges.filter((edge) => shown(edge) && (edge.dataset.source === at || edge.dataset.target === at)).length, own = card(box);
    const open = own && element("button", { type: "button", text: "Open its card", onclick: () => { own.open = true; own.scrollIntoView(); own.querySelector("summary").focus({ preventScroll: true }); } });
    said.replaceChildren(...[`${box.querySelector("title").textContent}; ${ways} edge${ways === 1 ? "" : "s"} shown. `, open].filter(Boolean));
  };
  const keep = (box) => { state.part = state.part === box.dataset.id ? null : box.dataset.id; over = null; changed(); draw(); };
  picture.setAttribute("role", "group");
  for (const box of boxes) {
    const label = [...box.querySelectorAll("text"), box.querySelector("title")].map((node) => node.textContent).join(" ");
    for (const [name, value] of [["tabindex", 0], ["role", "button"], ["aria-label", label]]) box.setAttribute(name, value);
    box.addEventListener("pointerenter", () => { over = box.dataset.id; draw(); });
    box.addEventListener("pointerleave", () => { over = null; draw(); });
    box.addEventListener("click", () => keep(box));
    box.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); keep(box); } });
  }
  const least = Math.min(...edges.map((edge) => +edge.dataset.share), 1), count = element("span");
  const slider = element("input", { type: "range", min: 0, max: 60, step: 1, value: Math.round(100 * state.share), "aria-label": "Least fraction of an edge, percent" });
  const slide = () => { state.share = +slider.value / 100; count.textContent = `${slider.value} %: ${edges.filter(shown).length} of ${edges.length}`; draw(); };
  slider.addEventListener("input", slide);
  slider.addEventListener("change", changed);
  const controls = document.querySelector("[data-controls=circuit]");
  controls.hidden = least > 0.6;
  controls.append(element("label", { class: "choice" }, element("span", { text: "Edges of at least" }), slider), count);
  host.after(said);
  if (!boxes.some((box) => box.dataset.id === state.part)) state.part = null;
  slide();
  return { clear: () => { state.part = null; changed(); draw(); } };
}
