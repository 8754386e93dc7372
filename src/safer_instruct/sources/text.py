"""Reader of plain text: one document per file, or one per paragraph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from safer_instruct.config import SourceConfig
from safer_instruct.sources.files import File
from safer_instruct.sources.records import BadRow, RowRefused, SourceText
from safer_instruct.sources.rows import Texts, decoded, make_row, refuse_columns
from safer_instruct.sources.streams import Line, bounded_lines, byte_limit, opened


def read_text(file: File, config: SourceConfig) -> Iterator[SourceText | BadRow]:
    """One result per document of `file`: the whole file, or each block between blank lines."""
    refuse_columns(file, config, "plain text")
    with opened(file) as stream:
        for line, raw, flaw in _documents(bounded_lines(stream, byte_limit(config.max_chars)), config):
            yield make_row(file, line, raw, partial(_document_fields, raw, flaw, config), Texts(config))


def _documents(lines: Iterable[Line], config: SourceConfig) -> Iterator[Line]:
    """Join lines to one document, or to the blocks between blank lines; each begins on the line that it gives."""
    limit, paragraphs = byte_limit(config.max_chars), config.unit == "paragraph"
    first, held, flaw = 0, bytearray(), None
    for number, raw, problem in lines:
        if paragraphs and not problem and not raw.strip():
            if first:
                yield first, bytes(held), flaw
            first, held, flaw = 0, bytearray(), None
            continue
        first = first or number
        if not flaw and not problem and len(held) + len(raw) > limit:
            problem = RowRefused(f"{config.unit} longer than {limit:,} bytes")
        if flaw and problem and problem.unread:
            flaw = RowRefused(f"{flaw}; {problem}", unread=True)
        flaw = flaw or problem
        if not flaw or not held:
            held += raw
    if first or not paragraphs:
        yield first or 1, bytes(held), flaw


def _document_fields(raw: bytes, flaw: RowRefused | None, config: SourceConfig) -> Mapping[str, object]:
    return {config.text: decoded(raw, flaw, config.unit).replace("\r\n", "\n")}
