"""Checks of single pairs: rows that are no pair, sides that are the same, prompts and responses that hold each other."""

from __future__ import annotations

import math
from collections import Counter

from safer_instruct.audit.finding import Finding, graded, share
from safer_instruct.audit.reading import PairSet
from safer_instruct.detect.leakage import measure_leakage
from safer_instruct.detect.words import words_of
from safer_instruct.models.said import reasoning_mark

_MANY, _SOME = 0.01, 0.0001  # shares of all pairs: from the one on it is bad, from the other on one should look
_ECHO_WORDS = 6  # a shorter prompt stands in many a fair response


def unreadable(pairs: PairSet) -> Finding:
    """Rows that give no pair."""
    if not pairs.set_aside:
        return Finding("rows", "ok", f"all {len(pairs):,} rows are pairs", figures={"pairs": len(pairs), "set_aside": 0})
    reasons = Counter(row.reason for row in pairs.bad).most_common(3)
    told = "; ".join(f"{reason} ({count:,})" for reason, count in reasons)
    total = len(pairs) + pairs.set_aside
    return Finding(
        "rows",
        graded(share(pairs.set_aside, total), 0, 0.05),
        f"{pairs.set_aside:,} of {total:,} rows give no pair: {told}",
        "Mend or remove these rows: a trainer stops at them, or reads them as something else.",
        figures={"pairs": len(pairs), "set_aside": pairs.set_aside},
    )


def empty(pairs: PairSet) -> Finding:
    """Sides without a word."""
    rows = {
        at: ", ".join(name for name, side in zip(("prompt", "chosen", "rejected"), texts, strict=True) if not side.strip())
        for at, texts in enumerate(zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True))
        if not all(map(str.strip, texts))
    }
    without = sum("prompt" in note for note in rows.values())
    if without == len(pairs):  # a set without prompts is one fault, and not one per row
        rows = {at: note for at, note in rows.items() if note != "prompt"}
        found = f"no row has a prompt; {len(rows):,} have an empty side"
        return Finding("empty", "bad", found, "Say which column holds the prompt: --prompt COLUMN. A policy cannot be tuned without one.", list(rows), rows)
    level = graded(share(len(rows), len(pairs)), _SOME, _MANY)
    return Finding("empty", level, f"{len(rows):,} pairs have an empty side", "Remove them." if rows else "", list(rows), rows, {"rows": len(rows)})


def identical(pairs: PairSet) -> Finding:
    """Both sides the same, to the letter or word for word."""
    rows: dict[int, str] = {}
    for at, (chosen, rejected) in enumerate(zip(pairs.chosen, pairs.rejected, strict=True)):
        if chosen == rejected:
            rows[at] = "to the letter"
        elif len(chosen) < 2 * len(rejected) + 9 and len(rejected) < 2 * len(chosen) + 9 and _said(chosen) == _said(rejected) != []:
            rows[at] = "but for case, marks and white space"
    exact = sum(note == "to the letter" for note in rows.values())
    found = f"{len(rows):,} pairs with the same response on both sides ({exact:,} to the letter)"
    do = "Remove them: they teach nothing, and their loss never falls." if rows else ""
    return Finding("identical", graded(share(len(rows), len(pairs)), _SOME, _MANY), found, do, list(rows), rows, {"rows": len(rows), "exact": exact})


def ties(pairs: PairSet) -> Finding:
    """Scores that are equal, or say the opposite of the order."""
    known = [at for at, margin in enumerate(pairs.margins) if not math.isnan(margin)]
    if not known:
        return Finding("ties", "none", "no column tells a score or margin (score_chosen and score_rejected, or margin)")
    rows = {at: "equal scores" if pairs.margins[at] == 0 else "the rejected one scores higher" for at in known if pairs.margins[at] <= 0}
    tied, inverted = (sum(note.startswith(what) for note in rows.values()) for what in ("equal", "the rejected"))
    found = f"{tied:,} of {len(known):,} scored pairs are ties, {inverted:,} are scored the other way round"
    level = "bad" if inverted > 0.001 * len(known) else graded(share(len(rows), len(known)), _SOME, 0.05)
    do = "Drop the ties, and ask why a higher score was rejected." if rows else ""
    return Finding("ties", level, found, do, list(rows), rows, {"scored": len(known), "ties": tied, "inverted": inverted})


def prompt_equal(pairs: PairSet) -> Finding:
    """A prompt that is one of its responses."""
    rows: dict[int, str] = {}
    for at, (prompt, chosen, rejected) in enumerate(zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True)):
        asked = _said(prompt)
        same = [name for name, text in (("chosen", chosen), ("rejected", rejected)) if asked and len(text) <= 2 * len(prompt) + 9 and _said(text) == asked]
        if same:
            rows[at] = f"the {' and the '.join(same)} response is the prompt"
    level = graded(share(len(rows), len(pairs)), _SOME, _MANY)
    do = "Remove them: a response that repeats its prompt answers nothing." if rows else ""
    return Finding("prompt-is-response", level, f"{len(rows):,} prompts are one of their responses, word for word", do, list(rows), rows, {"rows": len(rows)})


def contained(pairs: PairSet) -> Finding:
    """A whole response in its prompt, a whole prompt in a response, or a model's reasoning at the beginning of either."""
    rows: dict[int, str] = {}
    counts: Counter[str] = Counter()
    reasoned = 0
    for at, (prompt, chosen, rejected) in enumerate(zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True)):
        notes = [note for name, text in (("chosen", chosen), ("rejected", rejected)) for note in _holds(prompt, text, name)]
        sides = (("prompt", prompt), ("chosen response", chosen), ("rejected response", rejected))
        thoughts = [f"the {name} begins with reasoning ({mark})" for name, text in sides if (mark := reasoning_mark(text))]
        reasoned += bool(thoughts)
        if notes or thoughts:
            rows[at] = "; ".join([*thoughts, *notes])
            counts.update([*thoughts, *notes])
    figures = dict(sorted(counts.items()))
    told = ", ".join(f"{note}: {count:,}" for note, count in counts.most_common()) or "no prompt holds a response, no response its prompt"
    level = graded(share(len(rows), len(pairs)), 0.01, 0.1)
    do = "Read some: a prompt that holds its answer teaches copying, a response that begins by repeating the question teaches echoing."
    if reasoned:
        do = "Take the reasoning off the texts, or have the server do it (a reasoning parser), and make them again: it teaches the marks." + (
            f" {do}" if len(rows) > reasoned else ""
        )
    return Finding("containment", level, told, do if rows else "", list(rows), rows, figures)


def _holds(prompt: str, response: str, name: str) -> list[str]:
    asked, said = _said(prompt), _said(response)
    if asked == said:
        return []  # told by `prompt_equal`
    if len(said) < len(asked):
        return [f"the prompt holds the {name} response"] if measure_leakage(prompt, response, allow_quotes=False).whole else []
    if len(asked) < _ECHO_WORDS or words_of(prompt).joined not in words_of(response).joined:
        return []
    return [f"the {name} response holds the prompt"]


def _said(text: str) -> list[str]:
    return words_of(text).list
