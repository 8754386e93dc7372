// Correct the texts of a pair. The originals stay as they are.

import { button, el } from "./dom.js";
import { countHidden, isBlank } from "./text.js";

// `draft` is what `kept` was told last of this pair, where that was neither saved nor given up; it is told null where nothing differs.
export function editor(item, draft, { kept, save, cancel }) {
  const fields = [["prompt", item.prompt], ...["left", "right"].map((name) => [item[name].side, item[name].text])];
  const areas = fields.map(([side, original]) => {
    const hidden = el("p", { class: "dim" });
    const count = (text) => {
      const found = countHidden(text);
      hidden.textContent = found ? `${found} invisible ${found === 1 ? "character" : "characters"} in this text` : "";
    };
    const area = el("textarea", { id: `edit-${side}`, rows: side === "prompt" ? "3" : "9", dir: "auto", maxlength: "200000", value: item.label.edit[side] ?? original, oninput: () => typed() });
    const stored = area.value; // as a text field gives it back: with its own line breaks
    if (draft) area.value = draft[side];
    const typed = () => {
      count(area.value);
      kept(areas.some((one) => one.area.value !== one.stored) ? texts() : null);
    };
    count(area.value);
    const fault = el("p", { class: "fault", role: "alert", id: `fault-${side}` });
    const back = el("button", { type: "button", class: "quiet", onclick: () => { area.value = original; typed(); } }, "Back to the original");
    const blank = () => isBlank(area.value) && area.value !== original;
    return { side, area, stored, blank, fault, node: el("div", { class: `card ${side}` }, el("label", { for: `edit-${side}` }, side[0].toUpperCase() + side.slice(1)), area, fault, hidden, back) };
  });
  const texts = () => Object.fromEntries(areas.map(({ side, area }) => [side, area.value]));
  const submit = () => {
    const blank = areas.filter((one) => one.blank());
    for (const { area, fault } of areas) {
      const found = blank.some((one) => one.area === area);
      area.setAttribute("aria-invalid", String(found));
      if (found) area.setAttribute("aria-describedby", fault.id);
      else area.removeAttribute("aria-describedby");
      fault.textContent = found ? "There is nothing to read in this text: write one, or reject the pair." : "";
    }
    if (blank.length) blank[0].area.focus();
    else save(texts());
  };
  const [prompt, ...sides] = areas;
  const form = el("form", { class: "editor", "aria-label": "Correct the texts", onsubmit: (event) => { event.preventDefault(); submit(); } },
    draft ? el("p", { class: "note" }, "This correction was begun before, and is not saved yet.") : null, prompt.node, el("div", { class: "sides" }, sides.map(({ node }) => node)),
    el("div", { class: "actions" }, el("button", { type: "submit", class: "main accept" }, "Save ", el("kbd", { "aria-hidden": "true" }, "Ctrl Enter")),
      button("Leave it as it was", "Esc", { onclick: cancel }), el("span", { class: "dim" }, "The originals are kept; export takes the corrections.")));
  form.addEventListener("key", ({ detail: event }) => {
    if (event.key === "Escape") {
      event.preventDefault();
      cancel();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      submit();
    }
  });
  return form;
}
