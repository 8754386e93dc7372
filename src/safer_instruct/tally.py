"""What a run counts of its two sides as pairs come through: how long they are, where the rejected one comes from, and the twins apart."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from safer_instruct.detect.words import words
from safer_instruct.example import Example
from safer_instruct.sources import BadRow

_PLACES = 5


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
