// How far the annotators agree on what more than one of them has read.

import { ask } from "./api.js";
import { el } from "./dom.js";
import { visible } from "./text.js";

const figure = (value) => (value === null ? "–" : value.toFixed(2));

export function agreementView(page, main) {
  async function load() {
    const found = await ask("agreement");
    main.replaceChildren(el("h1", {}, "Agreement"), ...(found.shared ? content(page, found) : [nothing(page)]));
  }
  return { shown: load() };
}

function nothing(page) {
  const share = Math.round(100 * page.about.overlap);
  return el("p", { class: "empty" }, `No pair has been decided by two annotators yet. Of all pairs, ${share}% are given to two: start the review with one `
    + "--annotator for each, and read on.");
}

function content(page, found) {
  const questions = Object.fromEntries(page.about.questions.map((q) => [q.id, q.ask]));
  const told = page.about.blind ? [] : found.annotators;
  return [
    el("div", { class: "tiles" },
      tile("pairs decided by at least two", found.shared), tile("Krippendorff’s alpha, accept or reject", figure(found.alpha)),
      tile("on which they differ", found.disagreements.length)),
    el("p", { class: "dim" }, "1 is full agreement, 0 is what chance gives; below 0.4 the annotators do not mean the same thing: talk, then sharpen the guideline."),
    table("Each two annotators", ["first", "second", "both decided", "agree", "Cohen’s kappa"],
      found.pairs.map((p) => [p.first, p.second, p.shared, `${Math.round(100 * p.observed)}%`, figure(p.kappa)])),
    found.questions.length ? table("Each question", ["question", "both answered", "alpha"],
      found.questions.map((q) => [questions[q.id] ?? q.id, q.shared, figure(q.alpha)])) : null,
    found.disagreements.length ? table("Where they differ", ["pair", ...told],
      found.disagreements.map((d) => [el("a", { href: `#/read/${encodeURIComponent(d.id)}` }, visible(d.id)), ...told.map((n) => d.said[n] ?? "")])) : null,
  ].filter(Boolean);
}

const tile = (label, value) => el("div", { class: "tile" }, el("strong", {}, String(value)), el("span", {}, label));

function table(caption, headings, rows) {
  const cell = (value) => el("td", { class: typeof value === "number" ? "number" : null }, value instanceof Node ? value : visible(String(value)));
  return el("div", { class: "scroll" }, el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, headings.map((h) => el("th", { scope: "col" }, visible(h))))),
    el("tbody", {}, rows.map((r) => el("tr", {}, r.map(cell))))));
}
