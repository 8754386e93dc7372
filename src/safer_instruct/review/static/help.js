import { byId, el } from "./dom.js";

const OPEN = [["a", "accept"], ["r", "reject"], ["e", "correct the texts"]];
const BLIND = [["f", "the left response is better"], ["j", "the right response is better"]];
const ALWAYS = [
  ["s", "skip"], ["u", "undo the last click"], ["← →", "the pair before, the next one"], ["1–9", "answer a question: yes, no, unsaid"], ["t", "tag"],
  ["c", "comment"], ["b", "show what is veiled, for this pair"], ["B", "show it always, until the window is closed"], ["d", "mark the words that differ"],
  ["/", "search"], ["Esc", "leave a field"], ["?", "this"],
];

export function helpContent(about) {
  const keys = [...(about.blind ? BLIND : OPEN), ...ALWAYS, ...(about.blind ? [] : [["w", "why: what the checks of the run said"]])];
  return [
    el("h2", { id: "help-title" }, "Keys"),
    el("dl", { class: "keys" }, keys.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)))),
    el("p", {}, "Every click is on the disk before the page goes on. Corrections never replace the original texts."),
    el("button", { type: "button", class: "main", onclick: () => byId("help").close() }, "Close"),
  ];
}
