"""What the filters of a run did, on a terminal: their figures, and examples that one of them dropped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from safer_instruct.analysis.filters import FilterFigures, SetFigures, alone
from safer_instruct.example import Example
from safer_instruct.oneline import many
from safer_instruct.remote.arguments import shown
from safer_instruct.terminal import safe
from safer_instruct.texts import judged_texts

_SHOWN_CHARS = 600
_HEADINGS = ("seen", "failed", "kept", "dropped", "alone", "other prompt")
_WHAT_THE_COLUMNS_SAY = (
    "seen, failed: texts, instructions, responses or pairs. dropped: examples, as in the funnel. alone: dropped examples that only\n"
    "this filter stands in the way of, so that without it up to as many would come back. other prompt: pairs that would have a\n"
    "likelier instruction without it. A model is asked only about what filters without a model let through."
)


def show_filters(console: Console, path: Path, figures: SetFigures) -> None:
    """A row per filter; where a table has no room for its numbers, a few lines."""
    table = Table(title=safe(f"{shown(path)}: {many(figures.pairs, 'pair')} from {many(figures.examples, 'example')}"), title_justify="left")
    table.add_column("filter", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    for f in figures.filters:
        table.add_row(_name(f), *_cells(f))
    if console.measure(table, options=console.options.update(max_width=10_000)).minimum <= console.width:  # or it would say that it fits
        console.print(table)
    else:
        console.print(table.title, style="italic", soft_wrap=True)
        for f in figures.filters:
            said = zip(_HEADINGS, _cells(f), strict=True)
            console.print(Text.assemble(_name(f), ": ", ", ".join(f"{heading} {cell}" for heading, cell in said if cell)))
    for f in figures.filters:
        if f.overlaps:
            console.print(Text.assemble(safe(f.name), " fails with ", _fails_with(f)), soft_wrap=True)
    console.print(Text(_WHAT_THE_COLUMNS_SAY, style="dim"), soft_wrap=True)


def show_failed(console: Console, name: str, examples: Sequence[Example], total: int) -> None:
    """A panel per example: its text, what was looked at, and why the filter did not pass it."""
    for example in examples:
        console.print(_panel(example, name, min(100, console.width)))
    what = "dropped" if any(e.dropped_by and e.dropped_by.name == name for e in examples) else "flagged"
    console.print(safe(f"{len(examples)} of {total:,} {what} by {name}; 'safer-instruct why DIR ID' tells the whole story of one"), soft_wrap=True)


def _cells(f: FilterFigures) -> list[str]:
    kept = "" if f.keep_rate is None else f"{f.keep_rate:.1%}"
    return [f"{f.seen:,}", f"{f.failed:,}", kept, *("" if n == 0 else f"{n:,}" for n in (f.dropped, f.alone, f.changed))]


def _name(figures: FilterFigures) -> Text:
    name = safe(figures.name)
    if figures.flag:
        name.append(" (flag)", style="dim")
    if figures.raised:
        name.append(f"\nraised an error {figures.raised:,} times", style="red")
    return name


def _fails_with(figures: FilterFigures, most: int = 2) -> Text:
    return safe(", ".join(f"{o.other}: {o.both:,} ({o.jaccard:.0%})" for o in figures.overlaps[:most]))


def _panel(example: Example, name: str, width: int) -> Panel:
    verdict = next(v for v in example.verdicts if v.name == name and not v.passed)
    lines = Text()
    said = "\n".join(f"{turn.role}: {turn.content}" for turn in example.history)
    asked = example.prompt or _likeliest(example)
    draft = "" if example.chosen else judged_texts(example, "rejected").chosen
    for heading, text in (("said before", said), ("text", example.text), ("instruction", asked), ("chosen", example.chosen), ("draft", draft)):
        if text:
            lines.append(f"{heading}: ", style="bold").append(safe(text, _SHOWN_CHARS)).append("\n")
    why = example.drop_reason if verdict == example.dropped_by else verdict.reason
    lines.append("flagged: " if verdict.flag else "dropped: ", style="bold red").append(safe(why))
    others = sorted({v.name for v in example.verdicts if v.drops} - {name})
    if others:
        lines.append("\nalso fails: ", style="bold").append(safe(", ".join(others)))
    elif name in alone(example):
        lines.append("\nnothing else stands in its way", style="dim")
    return Panel(lines, title=safe(example.id), title_align="left", width=width)


def _likeliest(example: Example) -> str:
    return example.candidates[0].text if example.candidates else ""
