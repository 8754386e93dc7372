// Texts that were typed and are not stored yet, by pair: they outlast a move within the page, and the browser asks before it leaves them.

const drafts = new Map();
const place = (item, field) => JSON.stringify([item.id, item.digest, field]);

export const draftOf = (item, field) => drafts.get(place(item, field)) ?? null;

export function keepDraft(item, field, draft) {
  if (draft === null) drafts.delete(place(item, field));
  else drafts.set(place(item, field), draft);
}

addEventListener("beforeunload", (event) => {
  if (drafts.size) event.preventDefault();
});
