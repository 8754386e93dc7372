"""Problems of the data that its figures show, in plain words, each with what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from safer_instruct.analysis.style import length_gap_of
from safer_instruct.calibration.calibrate import CALIBRATION
from safer_instruct.detect.words import words
from safer_instruct.notes import against_cuts, unread_said
from safer_instruct.oneline import listed
from safer_instruct.report.document import Problem
from safer_instruct.report.gather import RunView
from safer_instruct.report.scores import calibration_of, uses
from safer_instruct.review.store import read_labels
from safer_instruct.thresholds import is_calibrated

_FEW_PAIRS = 200
_LOW_YIELD, _ONE_CHECK = 0.1, 0.5
_UNEVEN, _SMALL_CATEGORY = 10, 20
_NEAR, _OPENING, _UNIQUE = 0.05, 0.15, 0.95
_OPENING_WORDS = 4
_ENOUGH_TO_JUDGE = 20


def find_problems(view: RunView) -> tuple[Problem, ...]:
    """What the user of the set should know, serious ones first."""
    found = [problem for check in _CHECKS for problem in check(view)]
    return tuple(sorted(found, key=lambda problem: problem.level != "serious"))


def _size(view: RunView) -> Iterator[Problem]:
    pairs, rows = view.summary["pairs"], view.summary["rows"]
    if not pairs:
        yield Problem("serious", "No text became a pair.", "There is nothing to train on.", "See the funnel: the check that drops the most is where to begin.")
        return
    if pairs < _FEW_PAIRS:
        yield Problem("look", f"{pairs:,} pairs are few.", "Figures below rest on few texts, and preference tuning wants thousands.", "Add source texts.")
    if pairs < _LOW_YIELD * rows:
        yield Problem("look", f"Only {pairs / rows:.1%} of the source rows became pairs.", "What is left may no longer stand for the source.", _READ_DROPPED)


def _one_check(view: RunView) -> Iterator[Problem]:
    rows = view.summary["rows"]
    for stage in view.summary["stages"].values():
        for check, count in stage["dropped"].items():
            if count <= _ONE_CHECK * rows:
                continue
            cut = against_cuts(check)
            texts = "instructions" if check.startswith("induce.") else "responses"
            why = f"The {texts} did not end within the tokens that they may take." if cut else "Its bound may not fit this data."
            do = f"{cut[0].upper()}{cut[1:]}." if cut else _READ_DROPPED
            yield Problem("look", f"{check} alone dropped {count / rows:.0%} of all rows.", why, do)


def _length(view: RunView) -> Iterator[Problem]:
    chosen, rejected = view.words["chosen"], view.words["rejected"]
    if len(chosen) < _ENOUGH_TO_JUDGE:
        return
    gap = length_gap_of(chosen, rejected)
    if gap.level == "ok":
        return
    which = "longer" if gap.longer > gap.shorter else "shorter"
    alike = f", and as long as the other in {1 - gap.longer - gap.shorter:.0%}" if gap.longer + gap.shorter < 1 else ""
    what = f"The chosen response is the {which} one in {max(gap.longer, gap.shorter):.0%} of the pairs{alike} ({gap.ratio:.2f} times as many words in all)."
    do = "Bound the expert's length (respond.max_tokens), or train with a length-normalised loss; evaluate with length control."
    told = "the sides" if gap.level == "bad" else "the sides of many pairs"
    why = f"Length alone tells {told} apart, so a model can learn to write {which} answers and nothing else."
    yield Problem("serious" if gap.level == "bad" else "look", what, why, do)


def _balance(view: RunView) -> Iterator[Problem]:
    if len(view.rows) < 2 or not view.kept:
        return
    most, least = max(view.rows, key=lambda c: view.kept[c]), min(view.rows, key=lambda c: view.kept[c])
    if view.kept[most] > _UNEVEN * max(1, view.kept[least]):
        what = f"The categories are uneven: {view.kept[most]:,} pairs of '{most}', {view.kept[least]:,} of '{least}'."
        yield Problem(
            "look",
            what,
            "Training will hardly see the small ones.",
            "Collect more of them, or choose an even set: safer-instruct select DIR --quota CATEGORY=SHARE.",
        )
    small = [category for category in sorted(view.rows) if view.kept[category] < _SMALL_CATEGORY]
    if small and len(small) < len(view.rows):
        named = listed([f"'{category}'" for category in small])
        yield Problem(
            "look",
            f"{len(small)} categories have fewer than {_SMALL_CATEGORY} pairs: {named}.",
            "They can neither be learned nor evaluated.",
            "Collect more, or leave them out.",
        )


def _sameness(view: RunView) -> Iterator[Problem]:
    if len(view.prompts) < _ENOUGH_TO_JUDGE:
        return
    clusters = view.clusters
    if clusters.clustered > _NEAR * clusters.texts:
        what = f"{clusters.clustered / clusters.texts:.0%} of the prompts are near-duplicates of others (the largest group has {clusters.sizes[0]:,})."
        yield Problem(
            "serious",
            what,
            "The model sees the same again and again, and a test split leaks into training.",
            "safer-instruct select DIR keeps the best of each group.",
        )
    for name, texts, why in (
        ("prompts", [p.prompt for p in view.pairs], "A model tuned on them meets other beginnings for the first time in use."),
        ("chosen responses", [p.chosen for p in view.pairs], "A phrase that marks one side is learned before anything else."),
    ):
        opening, count = _commonest_opening(texts)
        if count > _OPENING * len(texts):
            what = f"{count / len(texts):.0%} of the {name} begin with '{opening}'."
            do = "Raise the temperature, vary the template, or give the model examples that begin in different ways."
            yield Problem("look", what, why, do)


def _repeats(view: RunView) -> Iterator[Problem]:
    unique = view.summary.get("unique_chosen") or {}
    share = unique.get("share")
    if share is None or share >= _UNIQUE:
        return
    repeats = f"{unique['exact_repeats']:,} repeat an earlier one word for word, {unique['near_repeats']:,} nearly"
    what = f"Only {share:.1%} of the chosen responses are unique: {repeats}."
    do = "Set respond.boilerplate, which has repeats written anew, and a guideline that asks for an answer to what this message says."
    yield Problem("serious", what, "A model learns the repeated answer and gives it to everything.", do)


def _commonest_opening(texts: list[str]) -> tuple[str, int]:
    openings = Counter(" ".join(words(text[:200])[:_OPENING_WORDS]) for text in texts)
    return openings.most_common(1)[0] if openings else ("", 0)


def _texts(view: RunView) -> Iterator[Problem]:
    if view.identical:
        yield Problem(
            "serious",
            f"In {view.identical:,} pairs the chosen and the rejected response are the same.",
            "They teach nothing.",
            "Switch the verifier on (verify.min_margin).",
        )
    if view.hidden:
        what = f"{view.hidden:,} texts hold characters that nobody sees (terminal escapes, bidirectional or zero-width controls)."
        yield Problem(
            "serious",
            what,
            "They can hide instructions to a model. This report shows them as marks such as \u27e8U+202E\u27e9.",
            "Read these texts before training on them, or strip them from the source.",
        )
    if view.summary["set_aside"]:
        what = f"{view.summary['set_aside']:,} source rows could not be read or used."
        yield Problem("look", what, "They are missing from everything here.", "rejected_rows.jsonl says which and why.")
    if unread := view.summary.get("unread"):
        why = "Such an end counts as one row, however many are lost with it, so shares of the source rows may be far too high."
        yield Problem("serious", f"{unread_said(unread)}.", why, "Replace the file, and give the 'run' command again; rejected_rows.jsonl says why.")


def _checks(view: RunView) -> Iterator[Problem]:
    for figures in view.figures.filters:
        if figures.raised:
            what = f"The filter {figures.name} raised an error {figures.raised:,} times."
            yield Problem("serious", what, "Each error counts as failed, so good texts may be gone.", f"safer-instruct filters DIR --dropped-by {figures.name}")
        elif figures.flag and figures.failed:
            what = f"{figures.name} flagged {figures.failed:,} of {figures.seen:,}, and dropped none."
            yield Problem("look", what, "They are in the set.", f"Read them below, or with: safer-instruct filters DIR --dropped-by {figures.name}")
    if view.unread_ledger:
        why = "The cost below is told without models, and no call can be looked up or used again."
        yield Problem("look", "The ledger cannot be read.", why, view.unread_ledger)
    if view.summary["cost"] is None:
        yield Problem("look", "The cost is unknown.", "No price is known for a model that was called.", "Set price_per_million for it in the config.")


def _thresholds(view: RunView) -> Iterator[Problem]:
    found = calibration_of(view)
    if found and not uses(view, found):
        what = f"The thresholds are not those of {CALIBRATION}, which lies here and rests on {found.labels['used']} labels."
        do = f"Name it in the config (calibration: PATH of {CALIBRATION}, from the config's folder), and give the 'run' command again with --continue."
        yield Problem("look", what, f"What its labels said has no effect on this run, whose thresholds are {view.summary['thresholds']}.", do)
    for key, auc in found.by_chance.items() if found and uses(view, found) else ():
        yield Problem(
            "serious",
            f"The bound {key} rests on a score that may tell good from bad no better than chance: its AUC is {auc}.",
            "It may drop as many good pairs as bad ones.",
            "Label more, use a stronger judge, or take that bound out again.",
        )
    if found or is_calibrated(view.summary):
        return
    read = any(label.decision in ("accept", "reject") for *_, label in read_labels(view.path))
    yield Problem(
        "look",
        "The thresholds are defaults or the config's own, fitted to no label.",
        "Nobody knows how many good pairs they drop, or bad ones they keep.",
        f"{'What was decided in the review can tell' if read else 'Read some (safer-instruct review DIR), then'}: safer-instruct calibrate DIR --reviewed",
    )


_READ_DROPPED = "Read what was dropped (the samples below), and move the bound if those are good."
_CHECKS: tuple[Callable[[RunView], Iterator[Problem]], ...] = (_size, _one_check, _length, _balance, _sameness, _repeats, _texts, _checks, _thresholds)
