"use strict";
// No string ever becomes HTML: the only one that may be assigned is the empty one, with which the chart library clears its elements.
if (window.trustedTypes) {
  trustedTypes.createPolicy("default", {
    createHTML(text) {
      if (text === "" || text === "null") return "";
      throw new TypeError("no text becomes HTML in this page");
    },
  });
}

// Samples: choose by outcome, check, category, run and words; a dozen at a time.
(() => {
  const STEP = 12;
  const form = document.querySelector(".pick");
  if (!form) return;
  const cards = [...document.querySelectorAll(".sample")];
  const words = cards.map((card) => card.textContent.toLowerCase());
  const more = document.querySelector(".more");
  const status = form.querySelector("output");
  let most = STEP;

  function choose() {
    const wanted = ["outcome", "by", "category", "run"].filter((name) => form.elements[name]).map((name) => [name, form.elements[name].value]);
    const text = form.elements.text.value.trim().toLowerCase();
    let found = 0;
    cards.forEach((card, i) => {
      const fits = wanted.every(([name, value]) => !value || card.dataset[name] === value) && words[i].includes(text);
      found += fits;
      card.hidden = !fits || found > most;
    });
    status.textContent = `${Math.min(found, most)} of ${found} samples`;
    more.hidden = found <= most;
    document.body.classList.toggle("blurred", form.elements.blur.checked);
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    most = STEP;
    choose();
  });
  more.addEventListener("click", () => {
    most += STEP;
    choose();
  });
  // A check in a table leads to what it dropped or flagged.
  document.querySelectorAll(".explore").forEach((button) =>
    button.addEventListener("click", () => {
      ["outcome", "category", "run"].forEach((name) => form.elements[name] && (form.elements[name].value = ""));
      form.elements.text.value = "";
      form.elements.by.value = button.dataset.by;
      most = STEP;
      choose();
      form.scrollIntoView();
      form.elements.by.focus({ preventScroll: true });
    }),
  );
  choose();
})();

// The section that is being read is marked in the navigation.
(() => {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver(
    (entries) =>
      entries.forEach(({ target, isIntersecting }) => {
        links.get(target.id).classList.toggle("here", isIntersecting);
      }),
    { rootMargin: "-20% 0px -75% 0px" },
  );
  document.querySelectorAll("main section").forEach((section) => watcher.observe(section));
})();
