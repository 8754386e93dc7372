"""An audit on a terminal, as Markdown and as JSON, and the rows behind one of its lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from safer_instruct.audit.finding import Finding, Level
from safer_instruct.audit.reading import PairSet
from safer_instruct.oneline import many
from safer_instruct.remote.arguments import shown
from safer_instruct.sources import BadRow
from safer_instruct.terminal import safe
from safer_instruct.visible import plain, shorten

_STYLES: dict[Level, str] = {"ok": "green", "look": "yellow", "bad": "bold red", "none": "dim"}
_WORDS: dict[Level, str] = {"ok": "ok", "look": "look", "bad": "BAD", "none": "not asked"}
_SHOWN_CHARS = 500
_ROWS_LISTED = 20
_OF_THE_SET = ("style", "order-flips", "provenance")  # checks that mark no row, whatever they find


def show_audit(console: Console, pairs: PairSet, found: Sequence[Finding]) -> None:
    """One line a check; what could not be asked stands below."""
    table = Table(title=safe(f"{_named(pairs)}: {many(len(pairs), 'pair')}"), title_justify="left")
    for heading in ("check", "verdict", "found, and what to do"):
        table.add_column(heading, no_wrap=heading in ("check", "verdict"), overflow="fold")
    for one in found:
        if one.level != "none":
            told = safe(one.found)
            if one.do:
                told.append("\n").append(safe(one.do).plain, style="italic")
            table.add_row(one.check, Text(_WORDS[one.level], style=_STYLES[one.level]), told)
    console.print(table)
    for one in found:
        if one.level == "none":
            console.print(Text(f"{one.check} was not asked: ", style="dim").append(safe(one.found)), soft_wrap=True)
    for row in pairs.bad[:3]:
        console.print(safe(f"{row.file}:{row.line}: {row.reason}"), soft_wrap=True)
    console.print(safe(f"{count(found)}; read the rows behind a line with --show CHECK"), soft_wrap=True)


def _named(pairs: PairSet) -> str:
    return f"{shown(pairs.path)}, split {pairs.split}" if pairs.split else shown(pairs.path)


def count(found: Sequence[Finding]) -> str:
    """How many checks came out how."""
    levels = [one.level for one in found]
    return ", ".join(f"{levels.count(level)} {_WORDS[level]}" for level in _WORDS if level in levels)


def show_rows(console: Console, pairs: PairSet, finding: Finding, most: int) -> None:
    """Some of the rows that a check speaks of."""
    if finding.check == "rows":
        _show_bad(console, pairs.bad[:most], pairs.set_aside)
        return
    if not finding.rows:
        about = "was not asked" if finding.level == "none" else "is about the whole set" if finding.check in _OF_THE_SET else "marks no row"
        console.print(safe(f"'{finding.check}' {about}: {finding.found}"), soft_wrap=True)
        return
    for at in finding.rows[:most]:
        lines = Text()
        for name, text in (("prompt", pairs.prompts[at]), ("chosen", pairs.chosen[at]), ("rejected", pairs.rejected[at])):
            lines.append(f"{name}: ", style="bold").append(safe(text, _SHOWN_CHARS)).append("\n")
        lines.append(safe(finding.notes.get(at, "")))
        lines.rstrip()
        console.print(Panel(lines, title=safe(pairs.where(at)), title_align="left", width=min(100, console.width)))
    shown = min(most, len(finding.rows))
    console.print(safe(f"{shown:,} of {many(len(finding.rows), 'row')} of '{finding.check}': {finding.found}"), soft_wrap=True)


def _show_bad(console: Console, rows: Sequence[BadRow], total: int) -> None:
    for row in rows:
        console.print(safe(f"{row.file}:{row.line}: {row.reason}: {row.excerpt}"), soft_wrap=True)
    console.print(f"{len(rows):,} of {total:,} rows that give no pair")


def as_markdown(pairs: PairSet, found: Sequence[Finding]) -> str:
    """The table and the first rows behind each line, with file and line but without their texts."""
    lines = [f"# Audit of {plain(_named(pairs))}", "", f"{many(len(pairs), 'pair')}; {count(found)}.", ""]
    lines += ["| check | verdict | found | what to do |", "|---|---|---|---|"]
    lines += [f"| {one.check} | {_WORDS[one.level]} | {plain(one.found)} | {plain(one.do)} |" for one in found]
    for one in found:
        if one.rows and one.level != "ok":
            lines += ["", f"## {one.check}: {many(len(one.rows), 'row')}", "", *_listed(pairs, one)]
    if pairs.bad:
        lines += ["", f"## rows that give no pair: {pairs.set_aside:,}", ""]
        lines += [f"- {plain(row.file)}:{row.line} {plain(row.reason)}" for row in pairs.bad[:_ROWS_LISTED]]
    return "\n".join(lines) + "\n"


def _listed(pairs: PairSet, one: Finding) -> Iterator[str]:
    for at in one.rows[:_ROWS_LISTED]:
        yield f"- {plain(pairs.where(at))} {plain(shorten(one.notes.get(at, ''), 160))}".rstrip()
    if len(one.rows) > _ROWS_LISTED:
        yield f"- and {len(one.rows) - _ROWS_LISTED:,} more"


def as_record(pairs: PairSet, found: Sequence[Finding]) -> dict[str, Any]:
    """Everything for programs: figures, and where the first hundred rows of each check stand."""
    return {
        "path": shown(pairs.path),
        "pairs": len(pairs),
        "set_aside": [{"file": row.file, "line": row.line, "reason": row.reason} for row in pairs.bad[:100]],
        "checks": [
            {
                "check": one.check,
                "verdict": one.level,
                "found": one.found,
                "do": one.do,
                "figures": {name: _finite(value) for name, value in one.figures.items()},
                "rows": len(one.rows),
                "where": [{"file": pairs.files[at], "line": pairs.lines[at], "note": one.notes.get(at, "")} for at in one.rows[:100]],
            }
            for one in found
        ],
    }


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
