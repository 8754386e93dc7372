"""What reading gives: usable texts, and bad rows that say what is wrong with them."""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass

from safer_instruct.example import Turn

EXCERPT_CHARS = 200
_NO_UTF8 = ("invalid UTF-8 at", "UTF-16")  # in reasons


@dataclass(frozen=True, slots=True)
class SourceText:
    """One usable text.

    Attributes:
        text: The text, without surrounding white space, otherwise unchanged.
        file: Relative to the base folder when below it, else absolute.
        line: Counted from 1: the line on which the row or document begins (JSONL, CSV, TSV, plain text), the row (Parquet), the element
            (a JSON array), or the record (WARC).
        id: The user's own id, where a column has one.
        category: From its column, else the config's constant.
        history: What was said before `asked`; see `Example`.
        asked: The user's message that the text answers, where it comes from a conversation.
        license: From its column; '' where there is none.
        place: Of a passage, where it stands in its document, and of a crawl's also the record's byte, id, date and address; of a document `line` is then
            the number of its first paragraph.
    """

    text: str
    file: str
    line: int
    id: str | None
    category: str | None
    history: tuple[Turn, ...] = ()
    asked: str = ""
    license: str = ""
    place: str = ""

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the text; of the text and what it answers, where that is known."""
        known = self.text if not self.asked else repr((self.history, self.asked, self.text))
        return hashlib.sha256(known.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row with all its columns; `file` and `line` as in `SourceText`, but of a JSON array the line on which the element begins."""

    fields: Mapping[str, object]
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row, or the damaged rest of a file, that cannot be used.

    Attributes:
        file: As in `SourceText`.
        line: As in `SourceText`.
        reason: What is wrong, in plain words.
        excerpt: The first 200 characters, invisible ones escaped.
        unread: Whether nothing was read of the file from here on.
    """

    file: str
    line: int
    reason: str
    excerpt: str
    unread: bool = False

    def of_all(self, count: int, rows: str) -> str:
        """That none of so many such rows is usable, of which this is the first: `none of the 3 rows of texts.csv is usable; the first: ...`."""
        if count == 1:
            return f"the only one of the {rows} is not usable: {self.told}"
        return f"none of the {count:,} {rows} is usable; the first: {self.told}"

    @property
    def told(self) -> str:
        """Place, reason and what to do, for errors that name one row for all."""
        return f"{self.file}:{self.line}: {self.reason}{advice(self.reason)}"


def advice(reason: str) -> str:
    """What to do about the reason of a bad row, for errors that name one row for all; empty where the reason says it."""
    return "; save the file in UTF-8 (in Excel: save as 'CSV UTF-8')" if any(sign in reason for sign in _NO_UTF8) else ""


class RowRefused(Exception):
    """Why a row cannot be used; becomes the reason of a `BadRow`.

    Attributes:
        unread: As in `BadRow`.
    """

    def __init__(self, reason: str, *, unread: bool = False) -> None:
        super().__init__(reason)
        self.unread = unread


def lacking(column: str, fields: Mapping[str, object]) -> str:
    """The reason of a row that lacks a column: which it has."""
    return f"no column '{column}'; {keys_of(fields)}"


def keys_of(fields: Mapping[str, object]) -> str:
    """What a reason says of the columns that a row has, and of one that may hold the rows themselves."""
    there = ", ".join(visible(str(name)) for name in list(fields)[:30])
    return f"this row has {there or 'none'}{wrapped(next((name for name, value in fields.items() if _holds_rows(value)), None))}"


def wrapped(key: str | None) -> str:
    """What to do where `key` of an object holds what seem to be the rows; empty where there is no such key."""
    if key is None:
        return ""
    return f"; '{visible(str(key))}' holds a list of objects: if those are the rows, leave only that list in the file, from its '[' to its ']'"


def _holds_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def excerpt(raw: object) -> str:
    """What `BadRow.excerpt` shows of `raw`: its first characters, invisible ones escaped."""
    if isinstance(raw, UnicodeDecodeError):
        raw = raw.object
    if isinstance(raw, bytes):
        raw = raw[: 4 * EXCERPT_CHARS].decode("utf-8", "backslashreplace").rstrip("\r\n")
    return visible(raw if isinstance(raw, str) else reprlib.repr(raw))


def visible(text: str, most_chars: int = EXCERPT_CHARS) -> str:
    """The first characters of `text`, invisible ones escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:most_chars])
