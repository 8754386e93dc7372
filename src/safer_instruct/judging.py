"""How the judges of a finished run behaved: how often order turned an answer, and how far several of them agree."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from safer_instruct import rundir, tables
from safer_instruct.analysis.agreement import cohen_kappa, krippendorff_alpha, observed_agreement
from safer_instruct.stages.panel import VOTE
from safer_instruct.terminal import safe

_FLIPS = "judge.flips"
_IN_ORDERS = re.compile(r"in (\d) of 2 orders$")


@dataclass(frozen=True, slots=True)
class Judging:
    """What the drafts of a run tell of its judges.

    Attributes:
        flips: Judge -> share of its questions that it answered otherwise when only the order changed, and over how many drafts. A single judge
            that writes is asked one of them in both orders: which response is better.
        votes: Point (a verdict's name) -> for each draft what each judge said, 1 or 0, None where it was not asked.
        judges: In the order of the votes.
    """

    flips: dict[str, tuple[float, int]]
    votes: dict[str, list[list[float | None]]]
    judges: tuple[str, ...]


def read_judging(path: Path) -> Judging:
    """What the drafts of the finished run in `path` tell.

    Raises:
        RunDirectoryError: There is no finished run.
    """
    flips: dict[str, list[float]] = defaultdict(list)
    said: list[dict[str, dict[str, float]]] = []  # for each draft: point -> judge -> vote
    for verdicts in _verdicts_of_drafts(path):
        if (won := _orders_won(verdicts)) is not None:
            flips["judge"].append(float(won == 1))
        if not (scores := {v["name"]: v["score"] for v in verdicts if v["score"] is not None}):
            continue
        points: dict[str, dict[str, float]] = defaultdict(dict)
        for name, score in scores.items():
            judge, _, point = name.removeprefix(VOTE).partition(".") if name.startswith(VOTE) else ("judge", "", name)
            if point == _FLIPS and (name.startswith(VOTE) or f"{VOTE}judge.{_FLIPS}" not in scores):
                flips[judge].append(score)
            elif name.startswith(VOTE) and point != _FLIPS:
                points[point][judge] = score
        said.append(points)
    judges = tuple(dict.fromkeys(judge for points in said for votes in points.values() for judge in votes))
    names = dict.fromkeys(point for points in said for point in points)
    votes = {name: [[points[name].get(judge) for judge in judges] for points in said if name in points] for name in names}
    return Judging({judge: (fmean(values), len(values)) for judge, values in flips.items()}, votes, judges)


def show_judging(console: Console, found: Judging) -> None:
    """Flips per judge, and agreement per point."""
    for judge, (share, drafts) in found.flips.items():
        console.print(safe(f"{judge}: {share:.1%} of its answers turned when only the order changed ({drafts} drafts)"), highlight=False)
    if not found.flips:
        console.print("no judge was asked in both orders (verify: {form: question})", markup=False, highlight=False)
    if len(found.judges) < 2:
        return
    table = Table(title="Agreement of the judges", title_justify="left")
    for heading in ("point", "drafts", "Krippendorff's alpha", "judges", "agree", "Cohen's kappa"):
        table.add_column(heading, justify="left" if heading in ("point", "judges") else "right")
    for point, units in found.votes.items():
        lead: list[Text | str] = [safe(point), str(len(units)), _shown(krippendorff_alpha(units))]
        for a, b in combinations(range(len(found.judges)), 2):
            both = [(unit[a], unit[b]) for unit in units if unit[a] is not None and unit[b] is not None]
            ours, theirs = [x for x, _ in both], [y for _, y in both]
            cells = [f"{observed_agreement(ours, theirs):.3f}", _shown(cohen_kappa(ours, theirs))] if both else ["none", ""]
            table.add_row(*lead, safe(f"{found.judges[a]}, {found.judges[b]}"), *cells)
            lead = ["", "", ""]
    console.print(table)


def _verdicts_of_drafts(run: Path) -> Iterator[list[dict[str, Any]]]:
    """The verdicts of each draft."""
    with tables.opened(run, rundir.EXAMPLES) as parquet:
        for batch in parquet.iter_batches(500, columns=["drafts"]):
            for row in batch.to_pylist():
                yield from (draft["verdicts"] for draft in row["drafts"])


def _orders_won(verdicts: list[dict[str, Any]]) -> int | None:
    """In how many of two orders a single judge that writes preferred the draft; None where none was asked so."""
    better = next((v for v in verdicts if v["name"] == "verify.better"), None)
    if better is None or better["score"] is not None or any(v["name"].startswith(VOTE) for v in verdicts):
        return None
    told = _IN_ORDERS.search(better["reason"])
    return int(told[1]) if told else 2 if better["passed"] else None


def _shown(value: float | None) -> str:
    return "not told" if value is None else f"{value:.3f}"
