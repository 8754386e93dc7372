// The page: which view is shown, the header, and the keys.

import { ask, complain, deliverKept, passRefused, Refused, setPage } from "./api.js";
import { byId, el } from "./dom.js";
import { helpContent } from "./help.js";
import { agreementView } from "./agreement.js";
import { listView } from "./list.js";
import { readView } from "./read.js";
import { runView } from "./run.js";

const VIEWS = { read: readView, list: listView, agreement: agreementView, run: runView };
const page = { about: null, view: null, filters: storedFilters(), showProgress, keepFilters };

async function start() {
  try {
    page.about = await ask("about");
  } catch (error) {
    if (!(error instanceof Refused)) complain("The server does not answer: start 'safer-instruct review' again.");
    return;
  }
  const { about } = page;
  setPage(about);
  byId("run").textContent = about.run ?? "A run that is not finished";
  if (about.unfinished) {
    for (const link of document.querySelectorAll("nav a")) link.hidden = !link.hash.endsWith("run");
    location.hash = "#/run";
  } else {
    byId("help").replaceChildren(...helpContent(about));
    showProgress(about.progress);
    await deliverKept();
  }
  addEventListener("hashchange", route);
  await route();
}

async function route() {
  const [, name = "read", ...rest] = location.hash.split("/");
  const view = VIEWS[name] ?? readView;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${name || "read"}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  page.view?.leave?.();
  page.view = view(page, byId("main"), rest.map(decodeURIComponent).join("/"));
  await page.view.shown.catch(passRefused);
}

function showProgress(progress) {
  const pace = progress.seconds_each === null ? "" : `${progress.seconds_each < 10 ? progress.seconds_each.toFixed(1) : Math.round(progress.seconds_each)} s each`;
  const { read = progress.accepted + progress.rejected, edited } = progress;
  const accepted = `${progress.accepted} accepted${edited ? ` (${edited} as corrected)` : ""}`;
  const share = !read ? "nothing read yet" : page.about.blind ? `${read} read` : `${accepted}, ${progress.rejected} rejected`;
  byId("pace").replaceChildren(
    el("strong", {}, page.about.annotator), el("span", {}, share),
    ...(progress.skipped ? [el("span", {}, `${progress.skipped} skipped`)] : []),
    ...(pace ? [el("span", {}, pace)] : []));
}

function storedFilters() {
  const usual = { category: "", outcome: "pair", state: "open", search: "" };
  try {
    return { ...usual, ...JSON.parse(sessionStorage.getItem("filters") ?? "{}") };
  } catch {
    return usual;
  }
}

function keepFilters() {
  sessionStorage.setItem("filters", JSON.stringify(page.filters));
}

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select");
  if (event.isComposing || event.altKey || document.querySelector("dialog[open]")) return;
  if (!typing && event.key === "?") {
    event.preventDefault();
    byId("help").showModal();
    return;
  }
  page.view?.key?.(event, Boolean(typing));
});
byId("help-button").addEventListener("click", () => byId("help").showModal());
byId("help").addEventListener("click", (event) => event.target === byId("help") && byId("help").close());

start();
