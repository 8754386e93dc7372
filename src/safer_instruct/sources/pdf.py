"""PDF as paragraphs, told from the lines of its text layer; running heads and page numbers are left out."""

from __future__ import annotations

import io
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from safer_instruct.extras import require
from safer_instruct.sources.passages import Block
from safer_instruct.sources.records import RowRefused

_ENDS = (".", "!", "?", ":", '"', "\N{RIGHT DOUBLE QUOTATION MARK}", ")")
_SHORT = 0.8  # of the page's longest common line: a line that ends a sentence and is shorter ends a paragraph
_EDGE = 2  # lines at the top and bottom of a page that may be running heads
_RUNNING = 0.5  # of the pages: such a line that stands on more is one
_LIGATURES = str.maketrans({chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)})  # one glyph for 'fi' and the like
_ITEM = re.compile(r"(?:[-*\N{BULLET}\N{EN DASH}]|\d{1,3}[.)]) ")
_PAGES_FOR_RUNNING = 3


def read_pdf(raw: bytes, max_pages: int) -> Iterator[Block]:
    """The paragraphs of a PDF with their pages, and its bookmarks as headings.

    Args:
        raw: The file.
        max_pages: A longer one is refused.

    Raises:
        RowRefused: It is encrypted, too long, or has no text layer.
        MissingExtraError: The extra `docs` is not installed.
    """
    reader = _opened(raw)
    if len(reader.pages) > max_pages:
        raise RowRefused(f"the document has {len(reader.pages):,} pages, more than {max_pages:,} (source.documents.max_pages)")
    pages = [_lines(page.extract_text()) for page in reader.pages]
    if not any(pages):
        raise RowRefused(f"none of its {len(pages):,} pages has a text layer; they are pictures: run OCR on them first (for example ocrmypdf)")
    running = _running(pages)
    marks = _bookmarks(reader)
    held: Block | None = None
    for number, lines in enumerate(pages, 1):
        for level, title in marks.get(number, ()):
            if held:
                yield held
                held = None
            yield Block(title, "heading", level, number)
        for text in _paragraphs(_without(lines, running)):
            if held and _goes_on(held.text, text):
                held = Block(_glued(held.text, text), held.kind, page=held.page)
                continue
            if held:
                yield held
            held = Block(text, "item" if _ITEM.match(text) else "paragraph", page=number)
    if held:
        yield held


def _opened(raw: bytes) -> Any:
    pypdf = require("pypdf", extra="docs", purpose="reading PDF")
    errors = require("pypdf.errors", extra="docs", purpose="reading PDF")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells every flaw that it mends, in words of the file
    reader = pypdf.PdfReader(io.BytesIO(raw))
    if reader.is_encrypted:
        try:
            opened = reader.decrypt("")  # many are locked against printing only
        except (errors.DependencyError, NotImplementedError, errors.PyPdfError):
            opened = 0
        if not opened:
            raise RowRefused("the document is encrypted; save it without a password")
    return reader


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.translate(_LIGATURES).splitlines()]
    while lines and not lines[0].strip():
        lines.pop(0)
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _running(pages: Sequence[list[str]]) -> frozenset[str]:
    """Lines at the edges of a page that stand at those of most pages, whatever numbers they hold."""
    if len(pages) < _PAGES_FOR_RUNNING:
        return frozenset()
    counts = Counter(mark for lines in pages for mark in {_mark(line) for line in (*lines[:_EDGE], *lines[-_EDGE:])})
    return frozenset(mark for mark, count in counts.items() if count > _RUNNING * len(pages))


def _without(lines: list[str], running: frozenset[str]) -> list[str]:
    begin, end = 0, len(lines)
    while begin < end and _mark(lines[begin]) in running:
        begin += 1
    while end > begin and _mark(lines[end - 1]) in running:
        end -= 1
    return lines[begin:end]


def _mark(line: str) -> str:
    return re.sub(r"\d+", "#", line.strip())


def _paragraphs(lines: Sequence[str]) -> Iterator[str]:
    """Lines joined: an empty one parts, and so does one that ends a sentence short of the margin."""
    margin = sorted(map(len, lines))[len(lines) * 9 // 10] if lines else 0
    held = ""
    for line in lines:
        text = line.strip()
        if held and (not text or _ITEM.match(text)):
            yield held
            held = ""
        held = _glued(held, text) if held else text
        if held and held.endswith(_ENDS) and len(line) < _SHORT * margin:
            yield held
            held = ""
    if held:
        yield held


def _glued(before: str, after: str) -> str:
    """Two lines as one, without the hyphen that parted a word."""
    if before.endswith("-") and before[-2:-1].isalpha() and after[:1].islower():
        return before[:-1] + after
    return f"{before} {after}"


def _goes_on(before: str, after: str) -> bool:
    """Whether a paragraph that a page ends with is continued on the next."""
    return not before.endswith(_ENDS) and after[:1].islower()


def _bookmarks(reader: Any) -> dict[int, list[tuple[int, str]]]:
    """Titles of the outline with their levels, by page; a broken outline is none."""
    errors = require("pypdf.errors", extra="docs", purpose="reading PDF")
    found: dict[int, list[tuple[int, str]]] = {}
    try:
        waiting = [(1, entry) for entry in reversed(reader.outline)]
        while waiting:
            level, entry = waiting.pop()
            if isinstance(entry, list):
                waiting += [(level + 1, inner) for inner in reversed(entry)]
            elif (page := reader.get_destination_page_number(entry)) is not None and page >= 0 and str(entry.title).strip():
                found.setdefault(page + 1, []).append((level, str(entry.title)))
    except (errors.PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return found
