// Elements, made without any markup in a string: texts are untrusted and only ever become text nodes.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

export function say(message) {
  byId("status").textContent = message;
}

export function button(label, key, attributes) {
  return el("button", { type: "button", "aria-keyshortcuts": key, ...attributes }, label, key ? el("kbd", { "aria-hidden": "true" }, key.toLowerCase()) : null);
}

export function select(label, name, options, chosen, onchange) {
  const list = el("select", { name, onchange: (event) => onchange(event.target.value) },
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
  return el("label", { class: "field" }, el("span", {}, label), list);
}
