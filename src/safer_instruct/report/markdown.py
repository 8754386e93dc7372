"""The document as Markdown: the same findings, tables in the place of charts."""

from __future__ import annotations

from collections.abc import Iterator

from safer_instruct.report.document import Cell, Document, Figure, Sample, Section, Table
from safer_instruct.visible import plain, shorten

_ROWS, _SAMPLES = 40, 10


def as_markdown(document: Document) -> str:
    """The whole report; text from data is escaped, so that no renderer takes it for Markdown or HTML."""
    lines = [f"# {plain(document.title)}", "", plain(document.subtitle), ""]
    lines += _table(Table("", tuple(label for label, _, _ in document.tiles), (tuple(f"{value} ({note})" for _, value, note in document.tiles),)))
    for section in document.sections:
        lines += ["", f"## {plain(section.title)}", "", *_section(section)]
    lines += ["", *(f"> {plain(note)}" for note in document.notes)]
    return "\n".join(lines) + "\n"


def _section(section: Section) -> Iterator[str]:
    if section.intro:
        yield from (plain(section.intro), "")
    for problem in section.problems or ():
        yield f"- **{'Serious' if problem.level == 'serious' else 'Look'}**: {plain(problem.what)} {plain(problem.why)} *What to do:* {plain(problem.do)}"
    if section.problems == ():
        yield "Nothing was found."
    for part in section.parts:
        if isinstance(part, Figure):
            yield from (f"### {plain(part.title)}", "", plain(part.says), "", *_table(part.table), "")
        else:
            yield from (f"### {plain(part.caption)}", "", *_table(part), "")
    for sample in [s for s in section.samples or () if s.outcome == "kept"][:_SAMPLES]:
        yield from _sample(sample)


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(map(plain, table.columns))} |"
    yield f"|{'|'.join('---:' if table.numeric(i) else '---' for i in range(len(table.columns)))}|"
    for row in table.rows[:_ROWS]:
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"
    if len(table.rows) > _ROWS:
        yield f"\n{len(table.rows) - _ROWS} more rows are in the HTML report."


def _sample(sample: Sample) -> Iterator[str]:
    yield f"### {plain(sample.id)} ({plain(sample.category)})"
    for role, text in sample.history:
        yield f"\n*{plain(role)}, before*: {plain(shorten(text, 300))}"
    for name, text in (("prompt", sample.prompt), ("chosen", sample.chosen), ("rejected", sample.rejected)):
        yield f"\n*{name}*: {plain(shorten(text, 600))}"
    yield ""


def show(cell: Cell) -> str:
    """A cell as people read it."""
    if cell is None:
        return ""
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.3f}" if isinstance(cell, float) else cell


def _cell(cell: Cell) -> str:
    return plain(cell) if isinstance(cell, str) else show(cell)
