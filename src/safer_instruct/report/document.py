"""What a report is made of, whatever it is written as: sections of figures and tables."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

Cell = str | int | float | None
Kind = Literal["sankey", "bars", "histogram", "sunburst", "scatter", "curve"]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; numbers stay numbers until they are written.

    Attributes:
        caption: What it shows; empty where the figure above it says so.
        columns: Headings.
        rows: One cell per column; None is an empty cell.
        explores: Checks of which samples stand in the report: where one is a row's first cell, it leads to them.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    explores: frozenset[str] = frozenset()

    def numeric(self, column: int) -> bool:
        """Whether the column holds numbers or shares only, so that it is set to the right."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and all(not isinstance(cell, str) or re.fullmatch(r"-?[\d.,]+%?", cell) for cell in cells)


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, what it says in a sentence, and its numbers as a table.

    Attributes:
        id: Unique in the report, fit for an HTML id.
        title: Heading.
        says: The finding, for everybody; a screen reader reads it in the chart's place.
        kind: Which chart draws `data`.
        data: What the chart needs, as JSON can carry it.
        table: The numbers behind it.
        wide: Whether it takes the page's whole width.
    """

    id: str
    title: str
    says: str
    kind: Kind
    data: dict[str, Any]
    table: Table
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the data that its user should know.

    Attributes:
        level: `serious` spoils training or misleads; `look` deserves a look.
        what: What was found, with its number.
        why: What comes of it.
        do: What to do about it.
    """

    level: Literal["serious", "look"]
    what: str
    why: str
    do: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One example for people to read.

    Attributes:
        run: Name of the run it is from.
        outcome: `kept`, `dropped`, `flagged`, or `twin` for a contrast twin that came through.
        by: The filter that dropped or flagged it.
        prompt: The instruction taken; of a dropped example, the likeliest one.
        verdicts: (name, passed, score, reason) of each check, in order.
        history: (role, text) of what was said before the prompt.
    """

    run: str
    id: str
    category: str
    outcome: str
    by: str
    prompt: str
    chosen: str
    rejected: str
    verdicts: tuple[tuple[str, bool, float | None, str], ...]
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands below it; `short` is its name in the navigation, `legend` says how to read what only the page draws."""

    id: str
    short: str
    title: str
    intro: str = ""
    parts: tuple[Figure | Table, ...] = ()
    problems: tuple[Problem, ...] | None = None
    samples: tuple[Sample, ...] | None = None
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report.

    Attributes:
        title: Of the page.
        subtitle: One line on what was read.
        tiles: (label, value, note) of the few numbers that stand on top.
        sections: In order.
        notes: How it was made: samples, heuristics, versions.
    """

    title: str
    subtitle: str
    tiles: tuple[tuple[str, str, str], ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = field(default=())
