// Correct the texts of a pair. The originals stay as they are.

import { button, el } from "./dom.js";
import { countHidden, isBlank } from "./text.js";

export function editor(item, { save, cancel }) {
  const fields = [["prompt", item.prompt], ...["left", "right"].map((name) => [item[name].side, item[name].text])];
  const areas = fields.map(([side, original]) => {
    const hidden = el("p", { class: "dim" });
    const count = (text) => {
      const found = countHidden(text);
      hidden.textContent = found ? `${found} invisible ${found === 1 ? "character" : "characters"} in this text` : "";
    };
    const value = item.label.edit[side] ?? original;
    count(value);
    const area = el("textarea", { id: `edit-${side}`, rows: side === "prompt" ? "3" : "9", dir: "auto", maxlength: "200000", value, oninput: (event) => count(event.target.value) });
    const fault = el("p", { class: "fault", role: "alert", id: `fault-${side}` });
    const back = el("button", { type: "button", class: "quiet", onclick: () => { area.value = original; count(original); } }, "Back to the original");
    const blank = () => isBlank(area.value) && area.value !== original;
    return { side, area, blank, fault, node: el("div", { class: `card ${side}` }, el("label", { for: `edit-${side}` }, side[0].toUpperCase() + side.slice(1)), area, fault, hidden, back) };
  });
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
    else save(Object.fromEntries(areas.map(({ side, area }) => [side, area.value])));
  };
  const [prompt, ...sides] = areas;
  const form = el("form", { class: "editor", "aria-label": "Correct the texts", onsubmit: (event) => { event.preventDefault(); submit(); } },
    prompt.node, el("div", { class: "sides" }, sides.map(({ node }) => node)),
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
