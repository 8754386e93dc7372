"use strict";
const key = "safer-instruct people " + document.body.dataset.name;
const names = [...new Set([...document.querySelectorAll("input")].map((input) => input.name))];
const read = () => { try { return JSON.parse(localStorage.getItem(key)) || {}; } catch { return {}; } };
const said = read();
const tell = () => {
  document.getElementById("count").textContent = names.filter((name) => said[name]).length + " of " + names.length + " answered";
};
for (const input of document.querySelectorAll("input")) {
  input.checked = said[input.name] === input.value;
  input.addEventListener("change", () => {
    said[input.name] = input.value;
    try { localStorage.setItem(key, JSON.stringify(said)); } catch { /* a private window keeps nothing; the file does */ }
    tell();
  });
}
document.getElementById("save").addEventListener("click", () => {
  const lines = ["id,answer", ...names.filter((name) => said[name]).map((name) => name + "," + said[name])];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = document.body.dataset.name + "-answers.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
tell();
