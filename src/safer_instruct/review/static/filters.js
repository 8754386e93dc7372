// The bar that says which pairs are shown, for the views 'Read' and 'All'.

import { el, select } from "./dom.js";

const states = (about) => about.blind
  ? [["open", "to read"], ["done", "read by me"], ["skip", "skipped by me"], ["any", "all"]]
  : [["open", "to read"], ["accept", "accepted by me"], ["reject", "rejected by me"], ["skip", "skipped by me"], ["done", "read or skipped by me"], ["any", "all"]];

export const stateName = (about, state) => states(about).find(([value]) => value === state)?.[1] ?? state;

export function filterBar(page, changed) {
  const { about, filters } = page;
  const set = (name) => (value) => {
    filters[name] = value;
    page.keepFilters();
    changed();
  };
  const categories = [...new Set(about.facets.map((f) => f.category))].sort();
  const count = (fits) => about.facets.filter(fits).reduce((sum, f) => sum + f.count, 0).toLocaleString("en");
  const droppers = [...new Set(about.facets.map((f) => f.outcome))].filter((o) => o !== "pair");
  const outcomes = [
    ["pair", `pairs (${count((f) => f.outcome === "pair")})`],
    ...(droppers.length ? [["dropped", `dropped (${count((f) => f.outcome !== "pair")})`]] : []),
    ...droppers.map((o) => [o, `dropped by ${o} (${count((f) => f.outcome === o)})`]),
    ["", `everything (${count(() => true)})`],
  ];
  let timer = 0;
  const search = el("input", {
    type: "search", name: "search", value: filters.search, placeholder: "words", autocomplete: "off", spellcheck: "false", "aria-keyshortcuts": "/",
    oninput: (event) => {
      clearTimeout(timer);
      const { value } = event.target;
      timer = setTimeout(() => set("search")(value), 120);
    },
  });
  return el("form", { class: "filters", role: "search", "aria-label": "Which pairs are shown", onsubmit: (event) => event.preventDefault() },
    select("Show", "state", states(about), filters.state, set("state")),
    select("of", "outcome", outcomes, filters.outcome, set("outcome")),
    categories.length > 1 ? select("in", "category", [["", "all categories"], ...categories.map((c) => [c, c])], filters.category, set("category")) : null,
    el("label", { class: "field grow" }, el("span", {}, "with"), search));
}
