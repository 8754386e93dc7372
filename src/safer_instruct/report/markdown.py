"""The document as Markdown: the same findings, tables in the place of charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    for sample in _shown_here(section.samples or ()):
        yield from _sample(sample)


def _shown_here(samples: Sequence[Sample]) -> list[Sample]:
    """Some that were kept, and the first of each other outcome by each check: all of them would be long to scroll through."""
    kept = [sample for sample in samples if sample.outcome == "kept"][:_SAMPLES]
    others = {(sample.outcome, sample.by): sample for sample in reversed(samples) if sample.outcome != "kept"}
    return [*kept, *reversed(others.values())]


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(map(plain, table.columns))} |"
    yield f"|{'|'.join('---:' if table.numeric(i) else '---' for i in range(len(table.columns)))}|"
    for row in table.rows[:_ROWS]:
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"
    if len(table.rows) > _ROWS:
        yield f"\n{len(table.rows) - _ROWS} more rows are in the HTML report."


def _sample(sample: Sample) -> Iterator[str]:
    ended = "" if sample.outcome == "kept" else f", {sample.outcome}{f' by {plain(sample.by)}' if sample.by else ''}"
    yield f"### {plain(sample.id)} ({plain(sample.category)}){ended}"
    reasons = [reason for name, passed, _, reason in sample.verdicts if name == sample.by and not passed and reason]
    yield from (f"\n*why*: {plain(shorten(reason, 300))}" for reason in reasons[-1:])
    for role, text in sample.history:
        yield f"\n*{plain(role)}, before*: {plain(shorten(text, 300))}"
    for name, text in (("prompt", sample.prompt), ("chosen", sample.chosen), ("rejected", sample.rejected)):
        if not text:
            continue
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
