// Texts as they are: what would be invisible, or would change how its surroundings look, is named instead.

import { el } from "./dom.js";

// Control codes, soft hyphen, direction marks, zero-width space, separators, tags, and halves of surrogate pairs. Joiners stay:
// emoji and several scripts are written with them.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb]|[\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]|[\ud800-\udfff]/gu;
const NAMES = { 0x1b: "ESC", 0x00: "NUL", 0x07: "BEL", 0x08: "BS", 0x0d: "CR", 0x200b: "ZWSP", 0x202e: "RLO", 0x202d: "LRO", 0xfeff: "BOM" };

export function visible(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > end) parts.push(text.slice(end, match.index));
    const code = match[0].codePointAt(0);
    const number = `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
    parts.push(el("span", { class: "hidden-char", title: `${number}: not shown by itself` }, NAMES[code] ?? number));
    end = match.index + match[0].length;
  }
  if (end < text.length) parts.push(text.slice(end));
  return parts;
}

export const countHidden = (text) => [...text.matchAll(HIDDEN)].length;

// Whether nothing of it can be read: blanks, breaks and characters that are not shown.
export const isBlank = (text) => !/[^\p{C}\p{Z}]/u.test(text);

const WORD = /[\p{L}\p{N}]/u;
const MOST_WORDS = 1500; // the table below has the product of both sides' words

// Which words of each side the other lacks, by the common subsequence with the most words, and of those the one with the most blanks and signs;
// null where the texts are too long for it.
export function compare(left, right) {
  const a = left.match(/\s+|[\p{L}\p{N}']+|[^\s]/gu) ?? [];
  const b = right.match(/\s+|[\p{L}\p{N}']+|[^\s]/gu) ?? [];
  if (a.length > MOST_WORDS || b.length > MOST_WORDS) return null;
  const width = b.length + 1;
  const table = new Uint32Array((a.length + 1) * width);
  const worth = a.map((word) => (WORD.test(word) ? MOST_WORDS : 1));
  const same = (i, j) => a[i].toLowerCase() === b[j].toLowerCase();
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i * width + j] = same(i, j) ? table[(i + 1) * width + j + 1] + worth[i] : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  const sides = [a.map((word) => [word, true]), b.map((word) => [word, true])];
  let i = 0;
  let j = 0;
  while (i < a.length && j < b.length) {
    if (same(i, j)) {
      sides[0][i++][1] = false;
      sides[1][j++][1] = false;
    } else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
    else j++;
  }
  const words = (side) => side.filter(([word]) => WORD.test(word));
  const shared = words(sides[0]).filter(([, own]) => !own).length;
  return { left: sides[0], right: sides[1], likeness: (2 * shared) / Math.max(1, words(sides[0]).length + words(sides[1]).length) };
}

// A side with its own words marked; blanks between two marked words are marked with them.
export function marked(words) {
  const nodes = [];
  let run = "";
  const flush = () => {
    if (run) nodes.push(el("mark", {}, visible(run)));
    run = "";
  };
  words.forEach(([word, own], at) => {
    const blank = /^\s+$/.test(word);
    const follows = words[at + 1]?.[1] && !/^\s+$/.test(words[at + 1][0]);
    if (blank ? run && follows : own) run += word;
    else {
      flush();
      nodes.push(...visible(word));
    }
  });
  flush();
  return nodes;
}
