"""What each filter did to a set: how much it keeps, how far it agrees with the others, and what the set would be without it.

All of it is counted from verdicts that are there already. Filters without a model are all asked of whatever they look at, so their
overlap is known; a model is asked only about what they let through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, takewhile
from typing import Any, Literal

from safer_instruct.example import Example, Verdict
from safer_instruct.filters.checks import RAISED
from safer_instruct.state import STAGES, stage_of

Unit = Literal["example", "instruction", "response"]
"""What a filter passes or fails: the example, one of its candidates, or one of its drafts."""

_FORM: dict[str, tuple[str, ...]] = {
    "induce": ("induce.empty", "induce.unfinished"),
    "verify": ("respond.content_filter", "verify.unfinished", "verify.length", "verify.copy"),
    "rejected": ("rejected.content_filter", "rejected.unfinished", "rejected.length", "rejected.copy"),
}
"""Checks of form, asked one after the other before all others, of which only the first that fails leaves a verdict."""
_FAILURES = (".unreadable", ".content_filter", ".empty", ".refused", ".refusal_unfinished", "twins.unfinished", "twins.equal", "twins.whole")
"""How others are called of which only failures are known, so that nothing tells how many were looked at."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How often another filter failed the same.

    Attributes:
        other: That filter.
        both: Units that both failed.
        jaccard: `both` over the units that either failed.
    """

    other: str
    both: int
    jaccard: float


@dataclass(frozen=True, slots=True)
class FilterFigures:
    """What one filter did.

    Attributes:
        name: As in the verdicts.
        unit: What it looks at.
        flag: Whether it only records.
        seen: Units it was asked about; those that failed where no others are known.
        failed: Those it did not pass.
        raised: Those it raised an error on; they count as failed.
        dropped: Examples that were dropped with this verdict, as in the funnel.
        alone: Examples that nothing else known stands in the way of: without the filter they would come back, or as many of
            them as later stages let through.
        alone_by_category: The same by category.
        changed: Pairs whose instruction would be a likelier one without the filter.
        overlaps: With others of the same unit, the largest first.
    """

    name: str
    unit: Unit
    flag: bool
    seen: int
    failed: int
    raised: int
    dropped: int
    alone: int
    alone_by_category: dict[str, int]
    changed: int
    overlaps: tuple[Overlap, ...]

    @property
    def keep_rate(self) -> float | None:
        """Share of the units that it passed; None where only failures are known."""
        if self.seen == self.failed and self.name.endswith(_FAILURES):
            return None
        return 1 - self.failed / self.seen


@dataclass(frozen=True, slots=True)
class SetFigures:
    """A set and its filters, in the order of the stages."""

    examples: int
    pairs: int
    filters: tuple[FilterFigures, ...]


def describe_filters(examples: Iterable[Example]) -> SetFigures:
    """Count what each filter said; examples need their category and all their verdicts, not their texts."""
    tally = _Tally()
    for example in examples:
        tally.add(example)
    names = sorted(tally.units, key=lambda name: (_stage_number(name), tally.units[name] == "example"))
    return SetFigures(tally.examples, tally.pairs, tuple(_figures(name, tally) for name in names))


def as_record(figures: SetFigures) -> dict[str, Any]:
    """As plain data."""
    filters = [
        {**asdict(f), "keep_rate": None if f.keep_rate is None else round(f.keep_rate, 6), "pairs_without_at_most": figures.pairs + f.alone}
        for f in figures.filters
    ]
    return {**asdict(figures), "filters": filters}


def alone(example: Example) -> set[str]:
    """Filters any one of which would have to be gone for a dropped example to come back."""
    dropped = example.dropped_by
    if dropped is None:
        return set()
    units = next((units for units in _units(example).values() if any(v.name == dropped.name for unit in units for v in unit)), [])
    return {name for unit in units if (name := _only_one(unit))}


@dataclass(slots=True)
class _Tally:
    examples: int = 0
    pairs: int = 0
    units: dict[str, Unit] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    raised: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    alone: Counter[tuple[str, str]] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    both: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, example: Example) -> None:
        """Count one example."""
        self.examples += 1
        for kind, units in _units(example).items():
            for unit in units:
                self._add_unit(kind, unit)
        if dropped := example.dropped_by:
            self.dropped[dropped.name] += 1
            self.alone.update((name, example.category) for name in alone(example))
        else:
            self.pairs += 1
            self.changed.update(_stood_before_the_taken(example))

    def _add_unit(self, kind: Unit, unit: Sequence[Verdict]) -> None:
        for verdict in unit:
            self.units.setdefault(verdict.name, kind)
            self.seen[verdict.name] += 1
            if verdict.flag:
                self.flags.add(verdict.name)
        self.seen.update(_passed_without_a_word(kind, unit))
        failed = [v for v in unit if not v.passed]
        self.failed.update(v.name for v in failed)
        self.raised.update(v.name for v in failed if v.reason.startswith(RAISED))
        self.both.update(combinations(sorted(v.name for v in failed), 2))


def _stage_number(name: str) -> int:
    """Where a verdict stands in the flow; at the end if another version of this package gave it."""
    stage = stage_of(Verdict(name, False))
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def _units(example: Example) -> dict[Unit, list[Sequence[Verdict]]]:
    """Verdicts by what they are of; those that an example has from its candidate and its draft count there."""
    candidates: list[Sequence[Verdict]] = [c.verdicts for c in example.candidates if c.verdicts]
    drafts: list[Sequence[Verdict]] = [d.verdicts for d in example.drafts if d.verdicts]
    elsewhere = {v.name for unit in (*candidates, *drafts) for v in unit}
    own = [v for v in example.verdicts if v.name not in elsewhere]
    return {"example": [own] if own else [], "instruction": candidates, "response": drafts}


def _passed_without_a_word(kind: Unit, unit: Sequence[Verdict]) -> Iterator[str]:
    """The checks of form that a unit came past."""
    names = {v.name for v in unit}
    families = {name.partition(".")[0] for name in names}
    if kind == "example" or ("twins" in families and "twins.chosen_complies" not in names):  # a twin's instruction or refusal has checks of its own
        return iter(())
    family = "induce" if kind == "instruction" else "rejected" if "rejected" in families else "verify"
    return takewhile(lambda name: name not in names, _FORM[family])


def _only_one(unit: Sequence[Verdict]) -> str | None:
    """The filter that alone stands in the way of a unit."""
    names = {v.name for v in unit if v.drops}
    return names.pop() if len(names) == 1 else None


def _stood_before_the_taken(example: Example) -> set[str]:
    """Filters that alone stood in the way of a likelier instruction than the one taken."""
    found: set[str] = set()
    for candidate in example.candidates:
        if not any(v.drops for v in candidate.verdicts):
            break
        if name := _only_one(candidate.verdicts):
            found.add(name)
    return found


def _figures(name: str, tally: _Tally) -> FilterFigures:
    by_category = {category: n for (who, category), n in sorted(tally.alone.items()) if who == name}
    return FilterFigures(
        name,
        tally.units[name],
        name in tally.flags,
        tally.seen[name],
        tally.failed[name],
        tally.raised[name],
        tally.dropped[name],
        sum(by_category.values()),
        by_category,
        tally.changed[name],
        _overlaps(name, tally),
    )


def _overlaps(name: str, tally: _Tally) -> tuple[Overlap, ...]:
    found = []
    for pair, both in tally.both.items():
        if name in pair:
            other = pair[pair[0] == name]
            found.append(Overlap(other, both, round(both / (tally.failed[name] + tally.failed[other] - both), 4)))
    return tuple(sorted(found, key=lambda o: (-o.both, o.other)))
