"""What a run counts of its two sides as pairs come through: how long they are, where the rejected one comes from, the twins apart; and what is said of it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from safer_instruct.detect.words import words
from safer_instruct.example import Example
from safer_instruct.oneline import many
from safer_instruct.sources import BadRow

_PLACES = 5
_AGAINST_CUTS = {
    "induce.unfinished": "raise induce.max_tokens, or turn the model's reasoning off",
    "verify.unfinished": "raise max_tokens, of 'respond' or of the expert, turn the model's reasoning off, or ask for shorter answers in the guideline",
    "rejected.unfinished": "raise rejected.max_tokens, or turn the model's reasoning off",
}


@dataclass(slots=True)
class UnreadTally:
    """Files of the source that were not read to their end.

    Attributes:
        files: How many.
        places: File and line of the first of them, from where on nothing was read.
    """

    files: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, row: BadRow) -> None:
        """Count a row that was set aside, where a file ends with it."""
        if not row.unread:
            return
        self.files += 1
        if self.files <= _PLACES:
            self.places.append(f"{row.file}:{row.line}")

    def record(self) -> dict[str, Any]:
        """For the summary."""
        return {"files": self.files, "places": self.places}


@dataclass(slots=True)
class Gaps:
    """Words of the chosen response less those of the rejected one, as white space separates them: gap -> how many pairs."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, chosen: str, rejected: str) -> None:
        """Count one pair."""
        self.counts[len(words(chosen)) - len(words(rejected))] += 1

    def record(self) -> dict[str, float] | None:
        """Mean and median; None where nothing was counted."""
        gaps = sorted(self.counts.elements())
        return {"mean": round(fmean(gaps), 2), "median": float(median(gaps))} if gaps else None


@dataclass(slots=True)
class SideTally:
    """The pairs of the rows, without twins.

    Attributes:
        before: With the source text as the rejected response.
        after: As the pairs are.
        replaced: Pairs whose rejected response is not the source text.
        fallback: Pairs whose rejected response was to be another one, but none passed.
        form: Who writes the rejected response: `rejected.form` of the config.
    """

    before: Gaps = field(default_factory=Gaps)
    after: Gaps = field(default_factory=Gaps)
    replaced: int = 0
    fallback: int = 0
    form: str = "source"

    def add(self, example: Example) -> None:
        """Count one pair."""
        self.after.add(example.chosen, example.rejected_text)
        self.before.add(example.chosen, example.rejected_text if example.source_is_chosen else example.text)
        self.replaced += bool(example.rejected)
        self.fallback += any(v.name.startswith("rejected.") and not v.passed for v in example.verdicts)


@dataclass(slots=True)
class TwinTally:
    """Contrast twins.

    Attributes:
        begun: How many were tried.
        pairs: How many came through.
        reasons: How many each verdict dropped.
        near: chrF2 of each that came through to its instruction, as a share of 1.
        refusals: Digests of the different rejected responses.
        gaps: Of those that came through.
    """

    begun: int = 0
    pairs: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    near: array[float] = field(default_factory=lambda: array("d"))
    refusals: set[int] = field(default_factory=set)
    gaps: Gaps = field(default_factory=Gaps)

    def add(self, twin: Example) -> None:
        """Count one twin, dropped or not."""
        self.begun += 1
        if dropped := twin.dropped_by:
            self.reasons[dropped.name] += 1
            return
        self.pairs += 1
        self.near.extend(v.score for v in twin.verdicts if v.name == "twins.near" and v.score is not None)
        self.refusals.add(hash(" ".join(twin.rejected.split()).casefold()))
        self.gaps.add(twin.chosen, twin.rejected)

    def record(self) -> dict[str, Any]:
        """For the summary: in = dropped + out."""
        near = {"least": min(self.near), "mean": round(fmean(self.near), 4)} if self.near else None
        return {
            "in": self.begun,
            "dropped": dict(sorted(self.reasons.items())),
            "out": self.pairs,
            "similarity": near,
            "different_refusals": len(self.refusals),
            "length_gap": self.gaps.record(),
        }


def unread_said(unread: Mapping[str, Any]) -> str:
    """Which files were not read to their end, in words without a stop; `unread` as in the summary."""
    files, places = unread["files"], unread["places"]
    rest = f" and {files - len(places):,} more" if files > len(places) else ""
    return f"{many(files, 'file')} {'was' if files == 1 else 'were'} not read to the end; nothing was read from {', '.join(places)}{rest} on"


def unread_note(unread: Mapping[str, Any]) -> str:
    """The same for terminal and card, with what to do."""
    return (
        f"{unread_said(unread)}. However many rows are lost with it, such an end counts as one row set aside; "
        "rejected_rows.jsonl says why: replace the file, and give the 'run' command again"
    )


def changed_notes(changed: Mapping[str, bool]) -> list[str]:
    """Which files were written to while they were read, and what to do, for terminal and card; `changed` says of each whether it only grew."""
    mixed = "rows of two versions may stand in this run"
    missing = f"rows added since may be missing, and where it was written anew, {mixed}"
    notes = []
    for grew, verb, result in ((False, "changed", mixed), (True, "grew", missing)):
        if names := [name for name, only_grew in changed.items() if only_grew == grew]:
            read = f"{verb} while {'it was' if len(names) == 1 else 'they were'} read"
            notes.append(f"{_some(names)} {read}: {result}; give the same command again once nothing writes there, finished calls are not made twice")
    return notes


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _PLACES
    return ", ".join(names[:_PLACES]) + (f" and {rest:,} more" if rest > 0 else "")


def no_pair(path: Path, summary: Mapping[str, Any]) -> str:
    """What to say of the finished run at `path` where it has no pair, with what dropped the most and what to do."""
    check, count = most_dropped(summary)
    if not count:
        return f"{path} holds no pair: every example was dropped; what dropped them: safer-instruct filters {path}"
    empty = f"all answers, as they came: safer-instruct ledger {path} --export calls.jsonl" if check.endswith(".empty") else ""
    steps = (
        against_cuts(check) or empty,
        f"some of those, with the reason: safer-instruct filters {path} --dropped-by {check}",
        f"what dropped the others: safer-instruct filters {path}" if count < summary["dropped"] else "",
    )
    return f"{path} holds no pair: every example was dropped, {count:,} of {summary['dropped']:,} by {check}; {'; '.join(filter(None, steps))}"


def most_dropped(summary: Mapping[str, Any]) -> tuple[str, int]:
    """The check that dropped the most examples, of equal ones the first in the order of the flow, and how many; 0 where nothing was dropped."""
    dropped = (each for stage in summary["stages"].values() for each in stage["dropped"].items())
    return max(dropped, key=lambda each: each[1], default=("", 0))


def against_cuts(check: str) -> str:
    """What to do where `check` drops completions that did not end; empty for any other check."""
    return _AGAINST_CUTS.get(check, "")


def side_notes(summary: Mapping[str, Any]) -> list[str]:
    """What a person should know of the two sides, in sentences for terminal and card."""
    notes = []
    if side := summary.get("rejected"):
        before, after = summary["length_gap"]["source"], summary["length_gap"]["pairs"]
        gap = f"; chosen minus rejected, in words: mean {before['mean']:+.1f} with the source text, {after['mean']:+.1f} as the pairs are" if after else ""
        kept = f", {side['fallback']} keep the source text because none passed, {side['fitting']} because it fits as it is"
        notes.append(f"rejected side '{side['form']}': {side['replaced']} of {summary['pairs']} pairs{kept}{gap}")
    if twins := summary.get("twins"):
        near = f"; their chrF to the instruction is {twins['similarity']['mean']:.2f} on the mean" if twins["similarity"] else ""
        dropped = ", ".join(f"{name} {n}" for name, n in twins["dropped"].items())
        notes.append(
            f"contrast twins, counted apart: {twins['out']} of {twins['in']} came through{f' (dropped: {dropped})' if dropped else ''}{near}; "
            f"the column 'twin_of' marks them"
        )
    return notes
