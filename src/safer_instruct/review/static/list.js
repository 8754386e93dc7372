// All pairs that the filters let through, in a few words each.

import { ask, passRefused } from "./api.js";
import { el } from "./dom.js";
import { filterBar, stateName } from "./filters.js";
import { visible } from "./text.js";

export function listView(page, main) {
  const table = el("div", { class: "rows" });
  const total = el("p", { class: "dim", role: "status" });
  const more = el("button", { type: "button", onclick: () => load(false) }, "Show more");
  const hidden = el("div", {});
  let bar = filterBar(page, () => load(true));
  let last = null;
  let asked = 0;

  const load = (anew) => fill(anew).catch(passRefused);

  async function fill(anew) {
    const mine = ++asked;
    const found = await ask("list", { ...page.filters, after: anew ? null : last });
    const none = found.total ? null : await behind(page);
    if (mine !== asked) return; // the filters have changed since
    hidden.replaceChildren(...(none ? [offer(none)] : []));
    if (anew) table.replaceChildren();
    table.append(...found.items.map((item) => row(page, item)));
    last = found.items.at(-1)?.id ?? last;
    more.hidden = found.items.length < 50;
    const number = found.total.toLocaleString("en");
    total.textContent = found.more ? `more than ${number}` : found.total === 1 ? "1 example" : `${number} examples`;
  }

  function offer({ said, show, filters }) {
    const widen = () => {
      Object.assign(page.filters, filters);
      page.keepFilters();
      const wider = filterBar(page, () => load(true));
      bar.replaceWith(wider);
      bar = wider;
      bar.querySelector("select").focus();
      return load(true);
    };
    return el("div", { class: "empty" }, el("p", {}, said), el("button", { type: "button", onclick: widen }, show));
  }

  main.replaceChildren(el("h1", {}, "All examples"), bar, total, hidden, table, more);
  return {
    shown: load(true),
    key(event, typing) {
      if (event.key === "/" && !typing) {
        event.preventDefault();
        main.querySelector("input[type=search]").focus();
      }
    },
  };
}

// What the filters hide where they let nothing through, and which ones would show it; null where there is nothing to show.
async function behind(page) {
  const { filters } = page;
  const all = { category: "", outcome: "", state: "any", search: "" };
  const states = filters.state === "any" ? null : await ask("list", { ...filters, state: "any" });
  if (states?.total) {
    const number = `${states.more ? "more than " : ""}${states.total.toLocaleString("en")}`;
    const said = `'Show' stands at '${stateName(page.about, filters.state)}', which hides all that the other filters let through: ${number}.`;
    return { said, show: `Show all (${number})`, filters: { state: "any" } };
  }
  const count = page.about.facets.reduce((sum, facet) => sum + facet.count, 0).toLocaleString("en");
  return count === "0" ? null : { said: `The filters hide all examples of the run: ${count}.`, show: `Show all (${count})`, filters: all };
}

function row(page, item) {
  const veiled = page.about.veil.includes("prompt");
  const decision = item.decision ?? "to read";
  return el("a", { class: "row", href: `#/read/${encodeURIComponent(item.id)}` },
    el("span", { class: `badge ${item.decision ?? "open"}` }, decision),
    el("span", { class: veiled ? "excerpt veil" : "excerpt", dir: "auto" }, visible(item.prompt || "(no prompt was found)")),
    el("span", { class: "dim" }, item.category, item.outcome && item.outcome !== "pair" ? ` · dropped by ${item.outcome}` : ""),
    el("span", { class: "dim id" }, visible(item.id)));
}
