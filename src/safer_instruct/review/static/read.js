// One pair at a time: what it says, what is said of it, and the keys for that.

import { ask, click, passRefused } from "./api.js";
import { button, el, say } from "./dom.js";
import { draftOf, keepDraft } from "./drafts.js";
import { editor } from "./edit.js";
import { filterBar } from "./filters.js";
import { compare, marked, visible } from "./text.js";

const UNLIKE = 0.35; // below this share of common words, marking what differs marks nearly all
const DECIDED = { accept: "accepted", reject: "rejected", skip: "skipped", left: "left is better", right: "right is better" };

export function readView(page, main, id) {
  const { about } = page;
  const view = { item: null, since: 0, bare: false, differ: null, why: false, editing: null, busy: Promise.resolve() };
  const place = el("div", { class: "pair" });
  const bar = filterBar(page, () => queue(() => go(null, false)));
  main.replaceChildren(el("h1", { class: "unseen" }, "Read pairs"), bar, place);

  // One thing at a time, in the order in which the keys were pressed.
  function queue(work) {
    view.busy = view.busy.then(work).catch(passRefused);
    return view.busy;
  }

  async function go(after, back) {
    const { item } = await ask("step", { ...page.filters, after, back: back ? "1" : "" });
    if (item || !view.item || after === null) show(item);
    else if (back) say("This is the first pair.");
    else if (page.filters.state === "open") await go(null, false); // those passed over are still open
    else say("This is the last pair.");
  }

  function show(item) {
    view.item = item;
    view.since = performance.now();
    view.bare = sessionStorage.getItem("bare") === "1";
    view.editing = null;
    history.replaceState(null, "", item ? `#/read/${encodeURIComponent(item.id)}` : "#/read");
    render();
    if (item && draftOf(item, "edit")) edit();
    if (!place.contains(document.activeElement) && !main.contains(document.activeElement)) main.focus({ preventScroll: true });
    scrollTo({ top: 0 });
  }

  const seconds = () => Math.min(86400, (performance.now() - view.since) / 1000);

  async function tell(change) {
    const { id, digest } = view.item;
    const said = await click("label", { id }, { digest, seconds: "decision" in change || "prefer" in change ? seconds() : 0, ...change });
    view.item.label = said.label;
    page.showProgress(said.progress);
    return said;
  }

  const decide = (change, word) => queue(async () => {
    if (!view.item) return;
    const { id } = view.item;
    await tell(change);
    say(`${word} ${id}`);
    await go(id, false);
  });

  const undo = () => queue(async () => {
    const said = await click("undo", {}, { digest: "", seconds: 0 });
    page.showProgress(said.progress);
    if (said.item) {
      show(said.item);
      say(`Undone: ${said.item.id}`);
    } else say("There is nothing to undo.");
  });

  const move = (back) => queue(() => go(view.item?.id ?? null, back));

  const amend = (change) => queue(async () => {
    if (!view.item) return;
    await tell(change);
    render();
  });

  const remark = (item, comment) => queue(async () => {
    if (view.item !== item || item.label.comment === comment) return;
    await tell({ comment }); // and nothing is drawn anew: the mouse may be down on a button
    if (draftOf(item, "comment") === comment) keepDraft(item, "comment", null);
  });

  function render() {
    const { item } = view;
    if (!item) {
      place.replaceChildren(finished(page));
      return;
    }
    if (view.editing) {
      place.replaceChildren(view.editing);
      return;
    }
    const focused = document.activeElement?.dataset?.keep;
    const { label } = item;
    const texts = { prompt: item.prompt, left: item.left.text, right: item.right.text };
    const sides = { prompt: "prompt", left: item.left.side, right: item.right.side };
    const now = Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, label.edit[sides[name]] ?? text]));
    const found = compare(now.left, now.right);
    const differ = view.differ ?? (found !== null && found.likeness >= UNLIKE);
    const body = (name) => (differ && found && name !== "prompt" ? marked(found[name]) : visible(now[name]));
    const response = (name) => panel({ name, item: item[name], body: body(name), original: now[name] === texts[name] ? null : texts[name], now: now[name] });
    place.replaceChildren(...[
      head(item, label),
      before(item.history, item.left.veiled || item.right.veiled),
      panel({ name: "prompt", item: { text: item.prompt, side: "prompt", veiled: item.veiled }, body: body("prompt"), original: now.prompt === item.prompt ? null : item.prompt, now: now.prompt }),
      el("div", { class: "sides" }, response("left"), response("right")),
      el("p", { class: "dim differ" }, el("button", { type: "button", class: "quiet", "aria-pressed": String(differ), onclick: toggleDiffer, "data-keep": "differ" }, "Mark the words that differ", el("kbd", { "aria-hidden": "true" }, "d")),
        found === null ? " Too long to compare." : differ ? "" : ` ${Math.round(100 * found.likeness)}% of the words are common.`),
      el("div", { class: "said" }, checklist(label), notes(label)),
      about.blind ? null : reasons(item),
      actions(label),
    ].filter(Boolean));
    if (focused) place.querySelector(`[data-keep="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  function head(item, label) {
    const outcome = item.outcome && item.outcome !== "pair" ? `dropped by ${item.outcome}` : null;
    return el("p", { class: "head" },
      el("span", { class: "id" }, visible(item.id)),
      el("span", { class: "chip", title: about.guidelines[item.category]?.definition }, visible(item.category)),
      outcome ? el("span", { class: "chip warn" }, visible(outcome)) : null,
      label.decision ? el("span", { class: `badge ${label.decision}`, id: "decision" }, DECIDED[label.decision]) : null,
      item.margin !== undefined && item.margin !== null ? el("span", { class: "dim" }, `margin ${item.margin.toFixed(2)}`) : null);
  }

  // What was said before the prompt. The assistant's earlier turns are of the corpus as well: they are veiled with the sides.
  function before(turns, veiled) {
    if (!turns.length) return null;
    const hide = (turn) => veiled && !view.bare && turn.role === "assistant";
    return el("section", { class: "card before", "aria-label": "Said before" }, el("h2", {}, "Said before"),
      el("ol", { class: "turns" }, turns.map((turn) => el("li", { class: turn.role === "assistant" ? "assistant" : "user" },
        el("span", { class: "dim" }, visible(turn.role)),
        el("div", { class: hide(turn) ? "text small veil" : "text small", dir: "auto", inert: hide(turn), "aria-hidden": hide(turn) ? "true" : null, tabindex: hide(turn) ? null : "0", role: "group", "aria-label": `${turn.role}, before: text` }, visible(turn.content))))));
  }

  function panel({ name, item, body, original, now }) {
    const title = item.side ? item.side[0].toUpperCase() + item.side.slice(1) : name === "left" ? "Left" : "Right";
    const hide = item.veiled && !view.bare;
    const text = el("div", { class: "text", dir: "auto", "data-side": item.side ?? name, inert: hide, "aria-hidden": hide ? "true" : null, tabindex: hide ? null : "0", role: "group", "aria-label": `${title}: text` }, body.length ? body : [el("span", { class: "dim" }, "(empty)")]);
    return el("section", { class: `card ${item.side ?? "blind"} ${name}`, "aria-label": title },
      el("h2", {}, title, el("span", { class: "dim count" }, words(now)), original === null ? null : el("span", { class: "chip warn" }, "corrected")),
      hide ? el("div", { class: "veiled" }, text, el("button", { type: "button", class: "unveil", onclick: unveil, "data-keep": `unveil-${name}` }, "Show this text", el("kbd", { "aria-hidden": "true" }, "b"))) : text,
      original === null ? null : el("details", {}, el("summary", {}, "The original"), el("div", { class: "text small", dir: "auto" }, hide ? "veiled" : visible(original))));
  }

  function checklist(label) {
    const { questions } = about;
    if (!questions.length) return null;
    const set = (question, value) => {
      const answers = { ...view.item.label.answers };
      if (value === null || answers[question.id] === value) delete answers[question.id];
      else answers[question.id] = value;
      return amend({ answers });
    };
    const choice = (question, value, text) => el("button", {
      type: "button", "aria-pressed": String(label.answers[question.id] === value), "aria-label": `${question.ask} ${text}`,
      class: value ? "yes" : "no", "data-keep": `${question.id}-${value}`, onclick: () => set(question, value),
    }, text);
    return el("section", { class: "card questions", "aria-label": "Questions" }, el("h2", {}, "Questions"),
      el("ol", {}, questions.map((question, at) => el("li", {}, el("kbd", { "aria-hidden": "true" }, String(at + 1)), el("span", { class: "ask" }, question.ask),
        el("span", { class: "choice" }, choice(question, true, "yes"), choice(question, false, "no"))))));
  }

  function notes(label) {
    const tags = [...new Set([...about.tags, ...label.tags])];
    const flip = (tag) => amend({ tags: label.tags.includes(tag) ? view.item.label.tags.filter((t) => t !== tag) : [...view.item.label.tags, tag] });
    const other = el("input", { type: "text", maxlength: "40", placeholder: "another tag, then Enter", "aria-label": "Tag", "data-keep": "tag", id: "tag", autocomplete: "off", list: "tags",
      onkeydown: (event) => {
        const tag = event.target.value.trim();
        if (event.key !== "Enter" || !tag) return;
        event.preventDefault();
        if (!view.item.label.tags.includes(tag)) flip(tag);
      } });
    const { item } = view;
    const comment = el("textarea", { rows: "2", maxlength: "10000", "aria-label": "Comment", id: "comment", "data-keep": "comment", placeholder: "a comment", value: draftOf(item, "comment") ?? label.comment, dir: "auto",
      oninput: ({ target }) => keepDraft(item, "comment", target.value === item.label.comment ? null : target.value),
      onblur: ({ target }) => remark(item, target.value) });
    return el("section", { class: "card notes", "aria-label": "Notes" }, el("h2", {}, "Tags", el("kbd", { "aria-hidden": "true" }, "t")),
      el("p", { class: "tags" }, tags.map((tag) => el("button", { type: "button", class: "tag", "aria-pressed": String(label.tags.includes(tag)), "data-keep": `tag-${tag}`, onclick: () => flip(tag) }, visible(tag))), other),
      el("datalist", { id: "tags" }, tags.map((tag) => el("option", { value: tag }))),
      el("h2", {}, "Comment", el("kbd", { "aria-hidden": "true" }, "c")), comment);
  }

  function reasons(item) {
    const details = el("details", { class: "why", open: view.why, ontoggle: (event) => { view.why = event.target.open; } },
      el("summary", {}, "Why: what the checks said ", el("kbd", { "aria-hidden": "true" }, "w")),
      el("p", { class: "dim" }, "from ", visible(item.source), about.guidelines[item.category] ? `. Guideline: ${about.guidelines[item.category].guideline}` : ""),
      el("ul", {}, item.verdicts.map((v) => el("li", {}, el("span", { class: v.passed ? "ok" : "not" }, v.passed ? "passed" : "failed"), " ", visible(v.name),
        v.score === null ? "" : ` ${Number(v.score.toPrecision(4))}`, v.reason ? ": " : "", visible(v.reason)))));
    return details;
  }

  function actions(label) {
    const edited = Object.keys(label.edit).length > 0;
    const deciding = about.blind
      ? [button("Left is better", "F", { class: "main accept", onclick: () => keys.f() }), button("Right is better", "J", { class: "main accept", onclick: () => keys.j() })]
      : [button(edited ? "Accept as corrected" : "Accept", "A", { class: "main accept", onclick: () => keys.a() }), button("Reject", "R", { class: "main reject", onclick: () => keys.r() }),
        button("Correct", "E", { onclick: () => keys.e() })];
    return el("div", { class: "actions", role: "toolbar", "aria-label": "Decide" }, deciding,
      button("Skip", "S", { onclick: () => keys.s() }), button("Undo", "U", { onclick: () => keys.u() }),
      el("span", { class: "grow" }),
      el("button", { type: "button", "aria-label": "The pair before", onclick: () => move(true) }, "←"), el("button", { type: "button", "aria-label": "The next pair", onclick: () => move(false) }, "→"));
  }

  function unveil() {
    view.bare = true;
    render();
  }

  function toggleDiffer() {
    view.differ = place.querySelector("[data-keep=differ]")?.getAttribute("aria-pressed") !== "true";
    render();
  }

  function edit() {
    if (!view.item) return;
    const { item } = view;
    const kept = (texts) => keepDraft(item, "edit", texts);
    view.editing = editor(item, draftOf(item, "edit"), {
      kept,
      save: (texts) => queue(async () => {
        await tell({ edit: texts });
        kept(null);
        view.editing = null;
        render();
        main.focus({ preventScroll: true });
        say(view.item.label.decision === "accept" ? "Corrected; your acceptance holds for the corrected texts." : "Corrected; accept it with A.");
      }),
      cancel: () => {
        kept(null);
        view.editing = null;
        render();
        main.focus({ preventScroll: true });
      },
    });
    render();
    view.editing.querySelector("textarea").focus();
  }

  const keys = {
    s: () => decide({ decision: "skip" }, "Skipped"),
    u: undo,
    t: () => place.querySelector("#tag")?.focus(),
    c: () => place.querySelector("#comment")?.focus(),
    b: () => view.item && unveil(),
    B: () => {
      sessionStorage.setItem("bare", "1");
      if (view.item) unveil();
    },
    d: () => view.item && toggleDiffer(),
    ArrowLeft: () => move(true),
    ArrowRight: () => move(false),
    "/": () => bar.querySelector("input[type=search]").focus(),
    ...(about.blind
      ? { f: () => decide({ prefer: "left" }, "Left is better:"), j: () => decide({ prefer: "right" }, "Right is better:") }
      : {
        a: () => decide({ decision: "accept" }, "Accepted"), r: () => decide({ decision: "reject" }, "Rejected"), e: () => queue(async () => edit()),
        w: () => place.querySelector("details.why > summary")?.click(),
      }),
  };
  about.questions.forEach((question, at) => {
    keys[String(at + 1)] = () => queue(async () => {
      if (!view.item) return;
      const { [question.id]: said, ...answers } = view.item.label.answers;
      if (said !== false) answers[question.id] = said === undefined;
      await tell({ answers });
      render();
    });
  });

  return {
    shown: queue(async () => (id ? show(await ask("item", { id }).catch(unknown)) : go(null, false))),
    key(event, typing) {
      if (view.editing) {
        view.editing.dispatchEvent(new CustomEvent("key", { detail: event }));
        return;
      }
      if (typing) {
        if (event.key === "Escape" || (event.key === "Enter" && (event.ctrlKey || event.metaKey))) {
          event.preventDefault();
          event.target.blur();
          main.focus({ preventScroll: true });
        }
        return;
      }
      if (event.ctrlKey || event.metaKey || event.repeat) return;
      const act = keys[event.key] ?? keys[event.key.toLowerCase()];
      if (!act) return;
      event.preventDefault();
      act();
    },
  };
}

function unknown(error) {
  if (error.status !== 404) throw error;
  return null;
}

function finished(page) {
  const { filters } = page;
  const all = filters.state === "open" && !filters.search;
  return el("div", { class: "empty" }, el("h2", {}, all ? "All read." : "Nothing fits these filters."),
    el("p", {}, all ? "Every pair that these filters let through has been decided, by you or by others, is on another reader's screen, or was skipped by you ('Show': 'skipped by me' brings those back). The labels: safer-instruct review DIR --labels labels.csv" : "Change what is shown above."));
}

const words = (text) => {
  const count = text.match(/[\p{L}\p{N}][\p{L}\p{N}'’-]*/gu)?.length ?? 0;
  return count === 1 ? "1 word" : `${count} words`;
};
