"""Reader of HTML, PDF and DOCX: passages with their place in the document; a document that cannot be read is set aside whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from safer_instruct.config import SourceConfig
from safer_instruct.errors import MissingExtraError, SourceError
from safer_instruct.oneline import many
from safer_instruct.sources.docx import read_docx
from safer_instruct.sources.files import File
from safer_instruct.sources.html import read_html
from safer_instruct.sources.passages import Block, Passage, cut
from safer_instruct.sources.pdf import read_pdf
from safer_instruct.sources.records import BadRow, RowRefused, SourceText, excerpt
from safer_instruct.sources.rows import Texts, make_row, refuse_columns
from safer_instruct.sources.streams import DAMAGE, MIB, opened


def read_document(file: File, config: SourceConfig) -> Iterator[SourceText | BadRow]:
    """One result per passage of `file`; `line` is the number of its first paragraph.

    Raises:
        SourceError: The config names columns, which documents do not have.
        MissingExtraError: The extra `docs` is not installed.
    """
    refuse_columns(file, config, "a document")
    try:
        passages = list(cut(_blocks(file, config), config.documents))
    except RowRefused as exc:
        yield BadRow(file.name, 1, str(exc), "")
        return
    if not passages:
        yield BadRow(file.name, 1, "the document holds no text", "")
    for passage in passages:
        yield _row(file, passage, config)


def _blocks(file: File, config: SourceConfig) -> list[Block]:
    """All blocks of a document, read to its end, so that a broken one gives nothing rather than half.

    Raises:
        RowRefused: It cannot be read.
    """
    most = config.documents
    try:
        with opened(file) as stream:
            raw = stream.read(most.max_mb * MIB + 1)
    except (SourceError, *DAMAGE) as exc:
        raise RowRefused(f"the file cannot be read: {exc}") from None
    if len(raw) > most.max_mb * MIB:
        raise RowRefused(f"the document is larger than {most.max_mb} MB (source.documents.max_mb)")
    try:
        match file.format:
            case "pdf":
                return list(read_pdf(raw, most.max_pages))
            case "docx":
                return list(read_docx(raw, most.max_mb))
            case _:
                return list(read_html(raw))
    except (RowRefused, MissingExtraError):
        raise
    except Exception as exc:  # parsers of foreign files raise whatever they meet; it becomes the reason of the bad row
        raise RowRefused(f"the document is broken: {type(exc).__name__}: {str(exc)[:200]}") from exc


def _row(file: File, passage: Passage, config: SourceConfig) -> SourceText | BadRow:
    words = len(passage.text.split())
    if words < config.documents.min_words:
        reason = f"{passage.place}: a passage of {many(words, 'word')}, fewer than {config.documents.min_words} (source.documents.min_words)"
        return BadRow(file.name, passage.paragraph, reason, excerpt(passage.text))
    made = make_row(file, passage.paragraph, passage.text, lambda: {config.text: passage.text}, Texts(config))
    return replace(made, place=passage.place) if isinstance(made, SourceText) else made
