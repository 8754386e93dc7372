"""Tables as Markdown, LaTeX and CSV: numbers with their intervals stay numbers in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from safer_instruct.analysis.bootstrap import Interval
from safer_instruct.evaluation.escaping import escaped
from safer_instruct.evaluation.figures import p_cell
from safer_instruct.evaluation.report import interval
from safer_instruct.oneline import no_formula

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", **{c: f"\\{c}" for c in "&%$#_{}"}}


@dataclass(frozen=True, slots=True)
class P:
    """A p-value."""

    value: float


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    count: int
    of: int


@dataclass(frozen=True, slots=True)
class Percent:
    """A rate with its interval, or a difference of rates where it is `signed`."""

    value: Interval
    signed: bool = False


Cell = str | int | float | Interval | Percent | Share | P | None
"""None is what there is not."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        name: Of its files, without ending.
        title: Above it.
        headings: One per column.
        rows: Of cells.
        notes: Below it, a sentence each; the first of a quick study says so.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def markdown(table: Table) -> str:
    """The table with its title and notes."""
    lines = [f"**{escaped(table.title)}**", "", f"| {' | '.join(map(escaped, table.headings))} |", "|---" * len(table.headings) + "|"]
    lines += [f"| {' | '.join(escaped(shown(cell)) for cell in row)} |" for row in table.rows]
    return "\n".join([*lines, "", *(line for note in table.notes for line in (escaped(note), ""))])


def latex(table: Table) -> str:
    """The table for `booktabs`, with its notes in the caption."""
    columns = "l" + "r" * (len(table.headings) - 1)
    rows = [" & ".join(_latex(shown(cell)) for cell in row) + r" \\" for row in table.rows]
    body = [r"\toprule", " & ".join(map(_latex, table.headings)) + r" \\", r"\midrule", *rows, r"\bottomrule"]
    caption = _latex(" ".join([f"{table.title}.", *table.notes]))
    head = [r"\begin{table}[t]", r"\centering", r"\begin{tabular}{" + columns + "}"]
    return "\n".join([*head, *body, r"\end{tabular}", rf"\caption{{{caption}}}", rf"\label{{tab:{table.name}}}", r"\end{table}", ""])


def comma_separated(table: Table) -> str:
    """The table for machines: an interval takes three columns, a count of some two; each row begins with the notes' first sentence where there is one."""
    found = io.StringIO()
    writer = csv.writer(found, lineterminator="\n")
    widths = [max((len(_numbers(row[at])) for row in table.rows), default=1) for at in range(len(table.headings))]
    endings = {1: ("",), 2: ("", " of"), 3: ("", " low", " high")}
    marked = table.notes[:1]
    headings = [f"{heading}{ending}" for heading, width in zip(table.headings, widths, strict=True) for ending in endings[width]]
    writer.writerow([*headings, *("note" for _ in marked)])
    for row in table.rows:
        cells = [value for cell, width in zip(row, widths, strict=True) for value in (*_numbers(cell), "", "")[:width]]
        writer.writerow([*(no_formula(value) if isinstance(value, str) else value for value in cells), *marked])
    return found.getvalue()


def shown(cell: Cell) -> str:
    """A cell as people read it."""
    match cell:
        case None:
            return "not told"
        case P(value):
            return p_cell(value)
        case Share(count, of):
            return f"{count} of {of}" if of else "none asked"
        case Percent(value, signed):
            sign = "+" if signed else ""
            return f"{value.estimate:{sign}.0%} ({value.low:{sign}.0%} to {value.high:{sign}.0%})"
        case Interval():
            return interval(cell)
        case float():
            return f"{cell:.3g}"
        case int():
            return f"{cell:,}"
    return cell


def _numbers(cell: Cell) -> tuple[str | float | int, ...]:
    match cell:
        case None:
            return ("",)
        case P(value):
            return (round(value, 6),)
        case Share(count, of):
            return (count, of)
        case Percent(value):
            return (round(value.estimate, 6), round(value.low, 6), round(value.high, 6))
        case Interval():
            return (round(cell.estimate, 6), round(cell.low, 6), round(cell.high, 6))
    return (cell,)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def rendered(table: Table) -> Sequence[tuple[str, str]]:
    """File name and content, of all three forms."""
    return ((f"{table.name}.md", markdown(table)), (f"{table.name}.tex", latex(table)), (f"{table.name}.csv", comma_separated(table)))
