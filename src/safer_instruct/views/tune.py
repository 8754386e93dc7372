"""Tuning data and evaluations of inducers, shown on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from safer_instruct.bars import watched
from safer_instruct.oneline import calls_words
from safer_instruct.prices import cost_words
from safer_instruct.terminal import safe

if TYPE_CHECKING:
    from safer_instruct.evaluation.inducer import Evaluation, Plan
    from safer_instruct.evaluation.sitting import Progress
    from safer_instruct.tuning.data import Funnel, Prepared


def show_prepared(console: Console, prepared: Prepared, *, samples: int = 3) -> None:
    """The funnel of tuning data, and the first of what was left out, with the reason."""
    for line in prepared.funnel.formats:
        console.print(safe(line))
    console.print(_funnel(prepared.funnel))
    seen: set[str] = set()
    for pair, verdict in prepared.dropped:
        if verdict.name not in seen:
            seen.add(verdict.name)
            console.print(safe(f"  {pair.file}:{pair.line}: {verdict.name}: {verdict.reason}"), style="dim")
    for row in prepared.bad_rows[:samples]:
        console.print(safe(f"  {row.file}:{row.line}: set aside: {row.reason}"), style="dim")


@contextmanager
def watch_evaluation(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Yields the `report` function for `evaluate_inducers`: a bar with calls done and time left."""
    with watched(console, "opening the models") as told:

        def report(progress: Progress) -> None:
            told.tell(progress.done, progress.total, doing=progress.doing)

        yield report


def show_evaluation(console: Console, plan: Plan, result: Evaluation) -> None:
    """The table, side by side, and where the report is."""
    from safer_instruct.evaluation.inducer.report import table

    shown = Table(title=f"{len(plan.pairs)} held-out pairs", title_justify="left")
    shown.add_column("")
    shown.add_column("better")
    for name in result.systems:
        shown.add_column(safe(name), justify="right")
    for row in table(result.systems):
        shown.add_row(*row)
    console.print(shown)
    for system in plan.systems:
        if system.note:
            console.print(safe(f"note: {system.note}"))
    cost = cost_words(result.cost, result.calls_without_usage)
    console.print(f"{calls_words(result.calls, result.from_ledger, result.repeated)}, {cost}, {result.seconds:.0f} s", highlight=False)
    console.print(safe(f"report: {result.path / 'evaluation.md'}"), soft_wrap=True)
    if plan.adapter:
        console.print(safe(f"and in the adapter's card: {plan.adapter / 'README.md'}"), soft_wrap=True)


def show_written(console: Console, files: list[Path]) -> None:
    """Which files were written."""
    for path in files:
        console.print(safe(f"  {path}"), soft_wrap=True)


def _funnel(funnel: Funnel) -> Table:
    table = Table(title="Tuning data", title_justify="left")
    for heading in ("step", "in", "dropped", "out"):
        table.add_column(heading, justify="left" if heading in ("step", "dropped") else "right")

    def reasons(counts: dict[str, int]) -> str:
        return "\n".join(f"{reason}: {count}" for reason, count in counts.items())

    cleaned = funnel.pairs - sum(funnel.cleaned.values())
    table.add_row("read", "", f"rows set aside: {funnel.set_aside}" if funnel.set_aside else "", f"{funnel.pairs}")
    table.add_row("clean", f"{funnel.pairs}", reasons(dict(funnel.cleaned)), f"{cleaned}")
    table.add_row("split", f"{cleaned}", reasons(dict(funnel.straddling)), f"{funnel.train} to train on\n{funnel.held_out} held out")
    return table
