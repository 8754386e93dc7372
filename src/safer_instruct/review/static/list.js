// All pairs that the filters let through, in a few words each.

import { ask } from "./api.js";
import { el } from "./dom.js";
import { filterBar } from "./filters.js";
import { visible } from "./text.js";

export function listView(page, main) {
  const table = el("div", { class: "rows" });
  const total = el("p", { class: "dim", role: "status" });
  const more = el("button", { type: "button", onclick: () => load(false) }, "Show more");
  let last = null;
  let asked = 0;

  async function load(anew) {
    const mine = ++asked;
    const found = await ask("list", { ...page.filters, after: anew ? null : last });
    if (mine !== asked) return; // the filters have changed since
    if (anew) table.replaceChildren();
    table.append(...found.items.map((item) => row(page, item)));
    last = found.items.at(-1)?.id ?? last;
    more.hidden = found.items.length < 50;
    const number = found.total.toLocaleString("en");
    total.textContent = found.more ? `more than ${number}` : found.total === 1 ? "1 example" : `${number} examples`;
  }

  main.replaceChildren(el("h1", {}, "All examples"), filterBar(page, () => load(true)), total, table, more);
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

function row(page, item) {
  const veiled = page.about.veil.includes("prompt");
  const decision = item.decision ?? "to read";
  return el("a", { class: "row", href: `#/read/${encodeURIComponent(item.id)}` },
    el("span", { class: `badge ${item.decision ?? "open"}` }, decision),
    el("span", { class: veiled ? "excerpt veil" : "excerpt", dir: "auto" }, visible(item.prompt || "(no prompt was found)")),
    el("span", { class: "dim" }, item.category, item.outcome && item.outcome !== "pair" ? ` · dropped by ${item.outcome}` : ""),
    el("span", { class: "dim id" }, visible(item.id)));
}
