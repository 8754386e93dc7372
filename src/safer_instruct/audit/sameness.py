"""Checks across pairs: what comes again and again, and what contradicts itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from safer_instruct.audit.finding import Finding, graded, share
from safer_instruct.audit.reading import PairSet
from safer_instruct.detect.refusal import RefusalFinding, classify
from safer_instruct.detect.words import words
from safer_instruct.filters.contradictions import find_contradictions
from safer_instruct.filters.near import deduplicate
from safer_instruct.oneline import one_line, shortened

_NEAR = 0.7  # Jaccard similarity of word trigrams, as the filters of a run have it
_SAME_PROMPT = 0.9  # two prompts that differ by more may well want different answers
_SAMPLED = 2_000
_MOST_SHOWN = 10


def duplicates(pairs: PairSet) -> Finding:
    """Rows that stand twice: the same prompt and the same two responses."""
    seen: dict[tuple[str, str, str], int] = {}
    rows: dict[int, str] = {}
    for at, texts in enumerate(zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True)):
        first = seen.setdefault(texts, at)
        if first != at:
            rows[at] = f"the same as {pairs.where(first)}"
    near = deduplicate(("\n".join(texts) for texts in zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True)), threshold=_NEAR)
    exact, alike = len(rows), int((~near.keep).sum())
    for at, (kept, similarity) in enumerate(zip(near.kept.tolist(), near.similarity.tolist(), strict=True)):
        if kept != at:
            rows.setdefault(at, f"{similarity:.0%} like {pairs.where(kept)}")
    found = f"{exact:,} rows repeat an earlier one, {alike:,} with near-duplicates"
    level = graded(share(alike, len(pairs)), 0.01, 0.1)
    do = "Remove them, and split train from test by cluster: near-duplicates on both sides make every evaluation too good." if alike else ""
    return Finding("duplicates", level, found, do, sorted(rows), rows, {"exact": exact, "near": alike})


def repeats(pairs: PairSet) -> Finding:
    """Chosen responses that are pasted again and again."""
    count = len(pairs)
    counts = Counter(pairs.chosen)
    unique = share(len(counts), count)
    near = deduplicate(pairs.chosen, threshold=_NEAR)
    distinct = share(int(near.keep.sum()), count)
    often = [(text, n) for text, n in counts.most_common(_MOST_SHOWN) if n > 1]
    rows = [at for at, text in enumerate(pairs.chosen) if counts[text] > 1]
    rows.sort(key=lambda at: -counts[pairs.chosen[at]])
    notes = {at: f"stands {counts[pairs.chosen[at]]:,} times" for at in rows}
    for at, (kept, similarity) in enumerate(zip(near.kept.tolist(), near.similarity.tolist(), strict=True)):
        if kept != at and at not in notes:
            rows.append(at)
            notes[at] = f"{similarity:.0%} like {pairs.where(kept)}"
    found = f"{unique:.1%} of the chosen responses are unique, {distinct:.1%} without near-duplicates"
    if often:
        found += f"; the commonest stands {often[0][1]:,} times ({often[0][1] / count:.1%}): '{shortened(one_line(often[0][0]), 60)}'"
    level = graded(1 - min(unique, distinct), 0.05, 0.2)
    do = "" if level == "ok" else "Write them anew, each for its prompt: what is pasted is learned before anything else, refusals most of all."
    figures = {"unique": unique, "unique_near": distinct, "commonest": [{"text": shortened(one_line(text), 200), "count": n} for text, n in often]}
    return Finding("repeats", level, found, do, rows, notes, figures)


def contradictions(pairs: PairSet) -> Finding:
    """The same or nearly the same prompt, refused in one pair and answered in another."""
    if not any(pairs.prompts):
        return Finding("contradictions", "none", "there are no prompts to compare")
    lost = find_contradictions(pairs.prompts, pairs.chosen, list(pairs.margins), threshold=_SAME_PROMPT)
    rows, notes = [], {}
    for one in lost:
        rows += [one.loser, one.winner]
        how = "the same prompt" if one.similarity == 1 else f"a prompt {one.similarity:.0%} alike"
        notes[one.loser] = f"chosen {'refuses' if one.refuses else 'answers'} {how} as {pairs.where(one.winner)}, which {_does(not one.refuses)}"
        notes.setdefault(one.winner, f"chosen {'refuses' if not one.refuses else 'answers'} what {pairs.where(one.loser)} {_does(one.refuses)}")
    exact = sum(one.similarity == 1 for one in lost)
    found = f"{len(lost):,} pairs answer the opposite of another to the same or nearly the same prompt ({exact:,} to the same)"
    do = "Decide which is right and drop the other; in a run of ours: select: {contradictions: 0.9}." if lost else ""
    level = graded(share(len(lost), len(pairs)), 1e-9, 0.001) if lost else "ok"
    return Finding("contradictions", level, found, do, list(dict.fromkeys(rows)), notes, {"pairs": len(lost), "same_prompt": exact})


def _does(refuses: bool) -> str:
    return "refuses" if refuses else "answers"


def circles(pairs: PairSet) -> Finding:
    """A preferred to B in one pair and B to A in another, directly or through others."""
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for at, prompt in enumerate(pairs.prompts):
        if prompt.strip():
            by_prompt[_folded(prompt)].append(at)
    rows: dict[int, str] = {}
    prompts = 0
    for members in by_prompt.values():
        found = _circle(members, pairs) if len(members) > 1 else {}
        prompts += bool(found)
        rows |= found
    told = f"{prompts:,} prompts whose pairs prefer in a circle (A to B, B to A)"
    do = "Keep one order of each, or none: the loss of one is the gain of the other." if rows else ""
    level = graded(share(len(rows), len(pairs)), 1e-9, 0.01) if rows else "ok"
    return Finding("circles", level, told, do, list(rows), rows, {"prompts": prompts, "rows": len(rows)})


def _circle(members: Sequence[int], pairs: PairSet) -> dict[int, str]:
    """The pairs of one prompt that lie on a circle that was found, with where the next one stands."""
    edges: dict[tuple[str, str], int] = {}
    for at in members:
        better, worse = _folded(pairs.chosen[at]), _folded(pairs.rejected[at])
        if better != worse:
            edges.setdefault((better, worse), at)
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for better, worse in edges:
        sorter.add(better, worse)
    try:
        sorter.prepare()
    except CycleError as exc:
        circle: list[str] = exc.args[1]  # each is followed by one that it stands behind
        steps = [edges[after, before] for before, after in pairwise(circle)]
        return {at: f"prefers the other way round than {pairs.where(steps[(number + 1) % len(steps)])}" for number, at in enumerate(steps)}
    return {}


def _folded(text: str) -> str:
    return " ".join(words(text)) or text


def refusals(pairs: PairSet) -> Finding:
    """How often each side refuses, on a sample."""
    count = min(len(pairs), _SAMPLED)
    taken = [number * len(pairs) // count for number in range(count)]
    refusing: dict[str, dict[int, str]] = {}  # side -> the words that decided, by row
    for name, side in (("chosen", pairs.chosen), ("rejected", pairs.rejected)):
        known: dict[str, RefusalFinding] = {}
        for at in taken:
            if side[at] not in known:
                known[side[at]] = classify(side[at])
        refusing[name] = {at: known[side[at]].span for at in taken if known[side[at]].label == "refusal"}
    ours, theirs = (share(len(refusing[name]), count) for name in ("chosen", "rejected"))
    found = f"{ours:.0%} of the chosen and {theirs:.0%} of the rejected responses refuse ({'all' if count == len(pairs) else f'{count:,}'} pairs read)"
    gap = ours - theirs
    level = graded(gap, 0.2, 0.5)
    do = "Mostly refusals are preferred, so refusing is what is learned: add harmless prompts of the same surface that are answered." if level != "ok" else ""
    notes = {at: "; ".join(_refuses(name, spans[at]) for name, spans in refusing.items() if at in spans) for at in taken}
    rows = [at for at in taken if notes[at]]
    rows.sort(key=lambda at: at not in refusing["chosen"] or at in refusing["rejected"])  # what widens the gap comes first
    return Finding("refusals", level, found, do, rows, {at: notes[at] for at in rows}, {"chosen": ours, "rejected": theirs, "read": count})


def _refuses(name: str, span: str) -> str:
    return f"the {name} response reads like a refusal" + (f", most of all in: {shortened(one_line(span), 80)}" if span else "")
