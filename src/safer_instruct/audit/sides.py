"""Checks of what tells the sides apart without saying anything: length, format, how they begin, style."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from safer_instruct.analysis.style import LAYOUT, LEAST_PAIRS, has_layout, length_gap, separability
from safer_instruct.audit.finding import Finding, graded, share
from safer_instruct.audit.reading import PairSet
from safer_instruct.detect.words import words
from safer_instruct.errors import MissingExtraError
from safer_instruct.oneline import many

_OPENING_WORDS = 3


def length(pairs: PairSet) -> Finding:
    """How far length alone tells the sides apart."""
    gap = length_gap(pairs.chosen, pairs.rejected)
    level = gap.level
    found = (
        f"median {gap.chosen:g} words chosen, {gap.rejected:g} rejected ({gap.ratio:.2f} times as many in all); "
        f"chosen is longer in {gap.longer:.0%}, shorter in {gap.shorter:.0%}: "
        f"'take the {'longer' if gap.longer >= gap.shorter else 'shorter'}' gets {100 * gap.tells:.3g}% right, ties counted half"
    )
    do = "" if level == "ok" else "Match lengths, or train with a length-normalised loss; evaluate with length control."
    sign = 1 if gap.longer >= gap.shorter else -1
    sizes = [(len(words(c)), len(words(r))) for c, r in zip(pairs.chosen, pairs.rejected, strict=True)]
    rows = sorted((at for at, (ours, theirs) in enumerate(sizes) if sign * (ours - theirs) > 0), key=lambda at: sign * (sizes[at][1] - sizes[at][0]))
    notes = {at: f"{sizes[at][0]:,} words chosen, {sizes[at][1]:,} rejected" for at in rows}
    figures = {"chosen_median": gap.chosen, "rejected_median": gap.rejected, "ratio": gap.ratio, "longer": gap.longer, "shorter": gap.shorter}
    return Finding("length", level, found, do, rows, notes, figures | {"tells": gap.tells})


def layout(pairs: PairSet) -> Finding:
    """Markdown, lists, code, capitals and marks on one side more than on the other."""
    shares = {name: _shares(name, pairs) for name in (*LAYOUT, *_SHAPES)}
    gaps = sorted(shares, key=lambda name: -abs(shares[name][0] - shares[name][1]))
    largest = max(abs(ours - theirs) for ours, theirs in shares.values())
    found = [
        f"{name} {shares[name][0]:.0%} of chosen, {shares[name][1]:.0%} of rejected"
        for name in gaps[:3]
        if round(shares[name][0], 2) != round(shares[name][1], 2)
    ]
    told = ", ".join(found) or "lists, headings, paragraphs, capitals and marks stand as often on both sides"
    level = graded(largest, 0.15, 0.3)
    do = "" if level == "ok" else "Give both sides the same format (a rewrite of the rejected side), or strip it from both."
    notes: dict[int, str] = {}
    if found:
        name = gaps[0]
        sides = {"chosen": pairs.chosen, "rejected": pairs.rejected}
        more, less = sides if shares[name][0] > shares[name][1] else reversed(sides)
        rows = (at for at, (a, b) in enumerate(zip(sides[more], sides[less], strict=True)) if _has(name, a) and not _has(name, b))
        notes = dict.fromkeys(rows, f"{name}: the {more} response, and not the {less} one")
    return Finding("format", level, told, do, list(notes), notes, {name: {"chosen": a, "rejected": b} for name, (a, b) in shares.items()})


_SHAPES: dict[str, Callable[[str], bool]] = {
    "several paragraphs": lambda text: "\n\n" in text.strip(),
    "exclamation marks": lambda text: "!" in text,
    "a question at the end": lambda text: text.rstrip().endswith("?"),
    "no capital at the start": lambda text: text.lstrip()[:1].islower(),
    "no mark at the end": lambda text: text.rstrip()[-1:].isalnum(),
    "capitals throughout": lambda text: text.isupper(),
}


def _has(name: str, text: str) -> bool:
    return _SHAPES[name](text) if name in _SHAPES else has_layout(name, text)


def _shares(name: str, pairs: PairSet) -> tuple[float, float]:
    ours, theirs = (sum(_has(name, text) for text in side) / len(pairs) for side in (pairs.chosen, pairs.rejected))
    return ours, theirs


def openings(pairs: PairSet) -> Finding:
    """The first words that stand on one side and not on the other."""
    ours, theirs = (_openings(side) for side in (pairs.chosen, pairs.rejected))
    counts = {"chosen": Counter(ours), "rejected": Counter(theirs)}
    found = []
    for name, other in (("chosen", "rejected"), ("rejected", "chosen")):
        opening = max(counts[name], key=lambda o: (counts[name][o] - counts[other][o], o))
        found.append((share(counts[name][opening] - counts[other][opening], len(pairs)), name, opening))
    gap, side, opening = max(found)
    level = graded(gap, 0.05, 0.3)
    rows = [at for at, one in enumerate(ours if side == "chosen" else theirs) if one == opening]
    other = "rejected" if side == "chosen" else "chosen"
    told = f"'{opening}' begins {share(counts[side][opening], len(pairs)):.0%} of the {side} and {share(counts[other][opening], len(pairs)):.0%} of the {other}"
    do = "" if level == "ok" else "Vary how that side begins (temperature, several experts): three words tell it apart already."
    notes = dict.fromkeys(rows, f"the {side} response begins with it")
    return Finding("openings", level, told, do, rows, notes, {"side": side, "opening": opening, "gap": gap})


def _openings(side: Sequence[str]) -> list[str]:
    return [" ".join(words(text[:120])[:_OPENING_WORDS]) for text in side]


def style_only(pairs: PairSet) -> Finding:
    """A classifier that knows no word, asked which side a text is from."""
    if len(pairs) < LEAST_PAIRS:
        return Finding("style", "none", f"too few for a classifier: {many(len(pairs), 'pair')}, and {LEAST_PAIRS} are the least")
    try:
        told = separability(pairs.prompts, pairs.chosen, pairs.rejected)
    except MissingExtraError as exc:
        return Finding("style", "none", str(exc))
    auc = told.auc
    telling = ", ".join(f"{name} {weight:+.2f}" for name, weight in told.telling[:3])
    found = (
        f"AUC {auc.estimate:.3f} ({auc.low:.3f} to {auc.high:.3f}) by style alone, right in {told.within:.0%} of {told.pairs:,} pairs; what tells: {telling}"
    )
    level = graded(auc.estimate, 0.65, 0.8)
    do = "" if level == "ok" else "A reward model can win by form: match style (rewrite the rejected side), or write both sides with one model."
    figures = {"auc": auc.estimate, "low": auc.low, "high": auc.high, "within": told.within, "pairs": told.pairs, "telling": dict(told.telling)}
    return Finding("style", level, found, do, figures=figures)
