"""What each check did, why it dropped what it dropped, and examples of everything."""

from __future__ import annotations

from collections.abc import Sequence

from safer_instruct.report.document import Section, Table
from safer_instruct.report.gather import RunView

_REASONS_SHOWN = 25


def verdicts(views: Sequence[RunView]) -> Section:
    """A row per filter, and the commonest reasons."""
    parts = [table for view in views for table in (_filters(view, views), _reasons(view, views))]
    intro = (
        "Seen and failed count texts, instructions or responses; dropped counts examples. Alone: those that only this check stands in the way of, "
        "so that at most as many would come back without it."
    )
    legend = "A check that is underlined leads to samples of what it dropped or flagged."
    return Section("verdicts", "Checks", "What each check did", intro, tuple(parts), legend=legend)


def samples(views: Sequence[RunView]) -> Section:
    """Kept, dropped and flagged examples, drawn by their ids."""
    intro = "A sample of what was kept, of what each check dropped, and of what was flagged. The rejected response is the source text as it stood."
    if any(sample.outcome == "twin" for view in views for sample in view.samples):
        intro += " Of a contrast twin it is a needless refusal, and the source of a dropped one is the instruction that it was to look like."
    return Section("samples", "Samples", "Read the data", intro, samples=tuple(sample for view in views for sample in view.samples))


def _filters(view: RunView, views: Sequence[RunView]) -> Table:
    rows = []
    for f in view.figures.filters:
        overlap = ", ".join(f"{o.other} ({o.both:,})" for o in f.overlaps[:2])
        passed = "" if f.keep_rate is None else f"{f.keep_rate:.1%}"
        rows.append((f.name, f"{f.unit}, flag only" if f.flag else f.unit, f.seen, f.failed, passed, f.dropped, f.alone, overlap))
    caption = "Checks" + (f" of {view.name}" if len(views) > 1 else "")
    return Table(caption, ("check", "looks at", "seen", "failed", "passed", "dropped", "alone", "fails with"), tuple(rows), _sampled(view))


def _reasons(view: RunView, views: Sequence[RunView]) -> Table:
    every = [(name, reason, count) for name, reasons in view.reasons.items() for reason, count in reasons.items()]
    every.sort(key=lambda row: (-row[2], row[0], row[1]))
    caption = "Commonest reasons, numbers left out" + (f": {view.name}" if len(views) > 1 else "")
    return Table(caption, ("check", "reason", "examples"), tuple(every[:_REASONS_SHOWN]), _sampled(view))


def _sampled(view: RunView) -> frozenset[str]:
    return frozenset(sample.by for sample in view.samples if sample.by)
