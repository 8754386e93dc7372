// Questions to the server, and clicks. A click is kept in this browser until the server says that it is on the disk.

import { byId, el } from "./dom.js";

const KEPT = "unsent-clicks";
let reader = "";
let headers = {};

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null)); // an empty one says something: of which outcome, all
  return answer(await fetch(`/api/${path}?${query}`, { headers }));
}

// Whose page this is, and of which run, goes with every request from now on: another annotator's address, opened in this browser, takes
// the session over, and the run may be made again.
export function setPage({ annotator, made }) {
  reader = annotator;
  headers = { "reads-as": encodeURIComponent(annotator), ...(made && { "of-run": made }) };
}

export async function click(path, parameters, body) {
  const sent = { reader, path: `/api/${path}?${new URLSearchParams(parameters)}`, body: { key: crypto.randomUUID(), ...body } };
  keep([...kept(), sent]);
  return deliver(sent);
}

// What an earlier page, or an earlier server, left without an answer.
export async function deliverKept() {
  for (const sent of kept().filter((one) => one.reader === reader)) await deliver(sent).catch(() => null);
}

// A refusal has been shown by then; anything else is a fault.
export function passRefused(error) {
  if (!(error instanceof Refused)) throw error;
}

export function complain(message) {
  byId("alert").replaceChildren(...(message ? [el("p", {}, message)] : []));
}

async function deliver(sent) {
  for (let pause_ms = 250; ; pause_ms = Math.min(4000, 2 * pause_ms)) {
    try {
      const response = await fetch(sent.path, { method: "POST", headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify(sent.body) });
      if (response.status !== 401) keep(kept().filter((one) => one.body.key !== sent.body.key));
      const said = await answer(response);
      complain("");
      return said;
    } catch (error) {
      if (error instanceof Refused) throw error;
      complain("The server does not answer. Your last click is kept here and will be sent when it is back: start 'safer-instruct review' again.");
      await new Promise((done) => setTimeout(done, pause_ms));
    }
  }
}

async function answer(response) {
  if (response.ok) return response.json();
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error ?? text;
  } catch {
    // not JSON: the text itself is the message
  }
  complain(message);
  throw new Refused(response.status, message);
}

function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT) ?? "[]");
  } catch {
    return [];
  }
}

function keep(clicks) {
  if (clicks.length) localStorage.setItem(KEPT, JSON.stringify(clicks));
  else localStorage.removeItem(KEPT);
}
