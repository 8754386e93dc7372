// A run: live while it goes on, its funnel when it is finished.

import { ask } from "./api.js";
import { el } from "./dom.js";
import { visible } from "./text.js";

const EVERY_MS = 1000;
const PHASES = { running: "running", finished: "finished", stopped: "stopped before its end", lost: "silent: its process is gone, or hangs" };
const number = (value) => value.toLocaleString("en");
const money = (value) => (value === null ? "price unknown" : value ? `$${value.toFixed(4)}` : "$0");

export function runView(page, main) {
  let timer = 0;
  async function load() {
    const said = await ask("live");
    const going = said.progress?.phase === "running";
    const shown = said.progress && (going || !said.summary) ? live(said.progress) : said.summary ? funnel(said.summary) : [el("p", { class: "empty" }, "No run has begun here.")];
    const over = page.about.unfinished && said.summary;
    main.replaceChildren(el("h1", {}, "Run"), ...(over ? [el("p", { class: "note" }, "The run is finished: reload this page to read its pairs.")] : []), ...shown);
    if (!said.summary || going) timer = setTimeout(() => load().catch(() => null), EVERY_MS);
  }
  return { shown: load(), leave: () => clearTimeout(timer) };
}

function live(progress) {
  const seconds = Math.max(progress.elapsed_s, 0.001);
  return [
    el("p", { class: "lead" }, el("span", { class: `badge ${progress.phase}` }, PHASES[progress.phase] ?? progress.phase),
      ` ${number(Math.round(progress.elapsed_s))} s, ${number(progress.pairs)} pairs, ${number(progress.set_aside)} rows set aside, spent ${progress.spent}`),
    stages(Object.entries(progress.stages).map(([name, s]) => ({
      name, done: s.done, of: name === "twins" ? s.total : progress.usable, dropped: s.dropped, calls: s.calls, refused: s.refused,
      rate: s.fresh_tokens ? `${number(Math.round(s.fresh_tokens / seconds))} a second` : "", cost: s.calls ? money(s.cost) : "",
    }))),
    ...progress.waits.map((wait) => el("p", { class: "note" }, "waiting: ", visible(wait))),
    reasons(progress.reasons),
  ];
}

function funnel(summary) {
  const dropped = Object.entries(summary.stages).flatMap(([stage, s]) => Object.entries(s.dropped).map(([by, count]) => ({ stage, by, count })));
  const aside = summary.set_aside;
  return [
    el("p", { class: "lead" }, el("span", { class: "badge finished" }, "finished"), ` ${number(summary.pairs)} pairs from ${number(summary.rows)} rows`),
    ...(aside ? [el("p", { class: "note" }, `${number(aside)} of the rows ${aside === 1 ? "was" : "were"} set aside, not read or not usable: rejected_rows.jsonl has the reasons.`)] : []),
    came(summary),
    reasons(dropped.sort((a, b) => b.count - a.count)),
  ];
}

// The same numbers as the funnel that a finished run prints on its terminal.
function came(summary) {
  const beside = [["rejected", "rejected (part of verify)"], ["twins", "twins (counted apart)"]].filter(([name]) => summary[name]);
  const rows = [...Object.entries(summary.stages), ...beside.map(([name, title]) => [title, summary[name]])];
  const sum = (s) => Object.values(s.dropped).reduce((all, n) => all + n, 0);
  const cells = (...values) => values.map((value) => el("td", { class: "number" }, value));
  const aside = summary.set_aside;
  return el("div", { class: "scroll" }, el("table", { class: "stages" },
    el("caption", {}, "Funnel"),
    el("thead", {}, el("tr", {}, ["stage", "in", "dropped", "out", "calls", "tokens", "cost"].map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {},
      el("tr", {}, el("th", { scope: "row" }, "read"), cells(number(summary.rows), aside ? `set aside: ${number(aside)}` : "", number(summary.rows - aside), "", "", "")),
      rows.map(([name, s]) => el("tr", {}, el("th", { scope: "row" }, name),
        cells(number(s.in), number(sum(s)), number(s.out), number(s.calls), s.calls ? number(s.prompt_tokens + s.completion_tokens) : "", s.calls ? money(s.cost) : ""))))));
}

function stages(rows) {
  return el("div", { class: "scroll" }, el("table", { class: "stages" },
    el("caption", {}, "Stages"),
    el("thead", {}, el("tr", {}, ["stage", "examples", "", "dropped by then", "calls", "refused", "tokens", "cost"].map((h) => el(h ? "th" : "td", h ? { scope: "col" } : {}, h)))),
    el("tbody", {}, rows.map((r) => el("tr", {},
      el("th", { scope: "row" }, r.name),
      el("td", { class: "number" }, r.of ? `${number(r.done)} of ${number(r.of)}` : number(r.done)),
      el("td", { class: "bar" }, r.of ? el("progress", { max: r.of, value: r.done, "aria-label": `${r.name}: ${r.done} of ${r.of}` }) : ""),
      el("td", { class: "number" }, number(r.dropped)), el("td", { class: "number" }, number(r.calls)),
      el("td", { class: "number" }, number(r.refused)), el("td", { class: "number" }, r.rate), el("td", { class: "number" }, r.cost))))));
}

function reasons(rows) {
  if (!rows.length) return "";
  return el("div", { class: "scroll" }, el("table", {}, el("caption", {}, "What dropped examples"),
    el("thead", {}, el("tr", {}, ["stage", "check", "examples"].map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, rows.map((r) => el("tr", {}, el("td", {}, r.stage), el("td", {}, visible(r.by)), el("td", { class: "number" }, number(r.count)))))));
}
