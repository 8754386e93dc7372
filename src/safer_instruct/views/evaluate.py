"""Evaluations shown on a terminal: verdicts, tables, warnings, and what a wanted difference needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from safer_instruct.analysis.signtest import detectable, pairs_needed, sign_test_power
from safer_instruct.errors import ConfigError
from safer_instruct.estimate import estimate, show_estimate
from safer_instruct.evaluation.figures import Comparison, p_words
from safer_instruct.evaluation.report import interval, share, untrained, verdicts
from safer_instruct.evaluation.result import REPORT, Evaluation
from safer_instruct.oneline import calls_words, many
from safer_instruct.prices import cost_words
from safer_instruct.terminal import safe, show_budget

if TYPE_CHECKING:
    from safer_instruct.evaluation.run import Rehearsal
    from safer_instruct.settings.models import BudgetConfig

_SHORT = ("pair", "wins / ties / losses", "win rate", "sign test", "at equal length")
_WIN_RATES = (0.55, 0.6, 0.65, 0.7, 0.75, 0.8)


def show(console: Console, result: Evaluation) -> None:
    """Verdicts, then the tables in short, then what to mind."""
    for measure, title in ((result.harmlessness, "Harmlessness"), (result.helpfulness, "Helpfulness")):
        if measure and measure.comparisons:
            console.print(_table(f"{title}, {result.prompts} prompts", _SHORT, [_short(c) for c in measure.comparisons]))
        if measure and measure.ranking:
            rows = [[str(r.rank), r.name, interval(r.strength)] for r in measure.ranking]
            console.print(_table(f"{title}: Bradley-Terry", ("rank", "system", "strength"), rows))
    if result.harmful:
        console.print(_table("Harmful answers", ("system", "harmful"), [[name, share(found.all)] for name, found in result.harmful.items()]))
    if result.refusals:
        labels = list(next(iter(result.refusals.values())).refused)
        rows = [[name, *(share(found.refused[label]) for label in labels)] for name, found in result.refusals.items()]
        console.print(_table("Refusals", ("system", *(f"{label} prompts" for label in labels)), rows))
    if result.people:
        said = [[pair, f"{n.wins} / {n.ties} / {n.losses}", interval(result.people.win_rates[pair])] for pair, n in result.people.counts.items()]
        console.print(_table(f"What people said ({', '.join(result.people.people)})", _SHORT[:3], said))
    for sentence in verdicts(result):
        console.print(safe(sentence), style="bold", soft_wrap=True)
    if apart := untrained(result):
        console.print(apart, highlight=False, soft_wrap=True)
    for warning in result.warnings:
        console.print(safe(f"mind: {warning}"), soft_wrap=True)
    if result.set_aside:
        first = result.set_aside[0]
        console.print(safe(f"{many(len(result.set_aside), 'row')} of prompts set aside; the first, {first.file}:{first.line}: {first.reason}"), soft_wrap=True)
    cost = cost_words(result.cost, result.calls_without_usage)
    calls = calls_words(result.calls, result.from_ledger, result.repeated)
    console.print(f"{calls}, {cost}, {result.seconds:.0f} s", highlight=False, soft_wrap=True)
    show_budget(console, result.budget)
    console.print(safe(f"report: {result.path / REPORT}"), soft_wrap=True)


def show_power(console: Console, wanted: float | None, prompts: int | None, *, alpha: float, power: float, ties: float) -> None:
    """How many prompts a win rate needs, and what so many prompts show."""
    rates = _WIN_RATES if wanted is None else (wanted,)
    try:
        rows = [[f"{r:g}", str(n := pairs_needed(r, alpha=alpha, power=power, ties=ties)), _power(n, r, alpha, ties)] for r in rates]
        table = _table(f"Prompts needed at level {alpha:g}, power {power:g}, {ties:.0%} ties", ("win rate", "prompts (Noether 1987)", "exact power"), rows)
        least = None if prompts is None else detectable(prompts, alpha=alpha, power=power, ties=ties)
    except ValueError as exc:
        raise ConfigError(f"--power: {exc}") from exc
    console.print(table)
    if prompts is not None:
        shown = "no win rate at all" if least is None else f"a win rate of {least:.3f} or more"
        console.print(f"{prompts} prompts show {shown} with power {power:g}", highlight=False)


def show_rehearsal(console: Console, taken: Rehearsal, budget: BudgetConfig) -> None:
    """What all prompts will take, from those that were answered."""
    found = estimate(taken.rows, taken.total, list(taken.slots), slots=taken.slots, paced=taken.paced, in_process_s=taken.in_process_s)
    show_estimate(console, found, max_cost=budget.max_cost, max_tokens=budget.max_tokens, in_turn=True)


def show_sheet(console: Console, count: int, files: Sequence[Path]) -> None:
    """What was written for people."""
    for file in files:
        console.print(safe(str(file)), soft_wrap=True)
    console.print(f"{count} questions, blinded; give the answers back with --answers FILE.csv, one file for each person", highlight=False)


def _short(found: Comparison) -> list[str]:
    counts, at_equal_length = found.counts, found.length_controlled.win_rate.estimate
    outcomes = f"{counts.wins} / {counts.ties} / {counts.losses}"
    return [f"{found.system} / {found.other}", outcomes, interval(found.win_rate), p_words(found.p_adjusted), f"{at_equal_length:.2f}"]


def _power(prompts: int, win_rate: float, alpha: float, ties: float) -> str:
    return f"{sign_test_power(prompts, win_rate, alpha=alpha, ties=ties):.2f}"


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for at, heading in enumerate(headings):
        table.add_column(safe(heading), justify="left" if at == 0 else "right")
    for row in rows:
        table.add_row(*map(safe, row))
    return table
