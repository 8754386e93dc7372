"""What a reader makes of a row: a text with its id and category, or the row as it is; and the messages about what it cannot use."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from safer_instruct.config import SourceConfig
from safer_instruct.errors import ColumnError, SourceError
from safer_instruct.oneline import listed
from safer_instruct.sources.conversations import Answer, answers, read_conversation
from safer_instruct.sources.files import File
from safer_instruct.sources.records import BadRow, RowRefused, SourceRow, SourceText, excerpt, keys_of, visible
from safer_instruct.utf8 import not_utf8

Made = TypeVar("Made", covariant=True)
_EXACT = 2**53  # floats below it hold every whole number as it is


class Reading(Protocol[Made]):
    """What is wanted of the rows of a file."""

    @property
    def max_chars(self) -> int:
        """Longest value; bounds what a reader holds of one row."""

    def columns(self, file: File, names: list[str]) -> list[str]:
        """Which of a table's columns to read.

        Raises:
            ColumnError: One is missing.
            SourceError: The name of one stands twice.
        """

    def make(self, file: File, line: int, fields: Mapping[str, object]) -> Made:
        """What one row gives.

        Raises:
            RowRefused: It cannot be used.
        """


def make_row(file: File, line: int, raw: object, fields: Callable[[], Mapping[str, object]], reading: Reading[Made]) -> Made | BadRow:
    """What one row gives, or a bad row where `fields` or `reading` refuses it. `raw` is what a bad row shows."""
    try:
        return reading.make(file, line, fields())
    except RowRefused as exc:
        return BadRow(file.name, line, str(exc), excerpt(raw), exc.unread)


@dataclass(frozen=True, slots=True)
class Texts:
    """Rows read as texts with their id and category."""

    config: SourceConfig

    @property
    def max_chars(self) -> int:
        """See `Reading.max_chars`."""
        return self.config.max_chars

    def columns(self, file: File, names: list[str]) -> list[str]:
        """See `Reading.columns`: those that the config names."""
        return _columns(self.config, self.config.text, file, names, "text")

    def make(self, file: File, line: int, fields: Mapping[str, object]) -> SourceText:
        """See `Reading.make`."""
        config = self.config
        text = _string(fields, config.text, "text").strip()
        _bounded(text, config.max_chars)
        id, category, license = _of_row(fields, config)
        return SourceText(text, file.name, line, id, category, license=license)


@dataclass(frozen=True, slots=True)
class Conversations:
    """Rows read as conversations: from each the assistant's last turn, or all of them, with what led to it."""

    config: SourceConfig

    @property
    def max_chars(self) -> int:
        """See `Reading.max_chars`."""
        return self.config.max_chars

    def columns(self, file: File, names: list[str]) -> list[str]:
        """See `Reading.columns`: those that the config names."""
        return _columns(self.config, self._column, file, names, "messages")

    def make(self, file: File, line: int, fields: Mapping[str, object]) -> tuple[SourceText | BadRow, ...]:
        """See `Reading.make`; a turn that is too long leaves the others as they are."""
        if self._column not in fields:
            raise RowRefused(f"messages column '{visible(self._column)}' is missing{_nearest(self._column, fields)}; {keys_of(fields)}")
        found = answers(read_conversation(fields[self._column], self._column))
        id, category, license = _of_row(fields, self.config)
        if self.config.turns == "last":
            return (self._made(file, line, found[-1], id, category, license),)
        return tuple(self._made(file, line, answer, None if id is None else f"{id}#{answer.turn}", category, license) for answer in found)

    @property
    def _column(self) -> str:
        return self.config.messages or ""

    def _made(self, file: File, line: int, answer: Answer, id: str | None, category: str | None, license: str) -> SourceText | BadRow:
        try:
            _bounded(answer.text, self.max_chars)
            _bounded("".join((answer.asked, *(turn.content for turn in answer.history))), self.max_chars, "what was said before the text is")
        except RowRefused as exc:
            return BadRow(file.name, line, f"turn {answer.turn}: {exc}", excerpt(answer.text))
        return SourceText(answer.text, file.name, line, id, category, answer.history, answer.asked, license)


@dataclass(frozen=True, slots=True)
class Whole:
    """Rows read with all their columns."""

    max_chars: int = 1_000_000

    def columns(self, file: File, names: list[str]) -> list[str]:
        """See `Reading.columns`: all of them."""
        return require_columns(file, names, names, "")

    def make(self, file: File, line: int, fields: Mapping[str, object]) -> SourceRow:
        """See `Reading.make`."""
        return SourceRow(fields, file.name, line)


def refuse_columns(file: File, config: SourceConfig, what: str) -> None:
    """For files of which the config can name no column.

    Raises:
        SourceError: It does; `what` says what has none.
    """
    named = (("id", config.id), ("category_column", config.category_column), ("license_column", config.license_column), ("messages", config.messages))
    for key, column in named:
        if column is not None:
            raise SourceError(f"{file.name}: {what} has no columns, so '{key}: {column}' cannot be read; remove the key, or narrow 'path'")


def _columns(config: SourceConfig, text: str, file: File, names: list[str], key: str) -> list[str]:
    wanted = list(dict.fromkeys(column for column in (text, config.id, config.category_column, config.license_column) if column is not None))
    return require_columns(file, names, wanted, f"set '{key}', 'id', 'category_column' or 'license_column' to one of them")


def _of_row(row: Mapping[str, object], config: SourceConfig) -> tuple[str | None, str | None, str]:
    """Id, category and licence."""
    id = None if config.id is None else _id(row, config.id)
    category = config.category if config.category_column is None else _string(row, config.category_column, "category").strip()
    return id, category, _license(row, config.license_column)


def _bounded(text: str, max_chars: int, what: str = "text") -> None:
    if len(text) > max_chars:
        raise RowRefused(f"{what} longer than {max_chars:,} characters: {len(text):,}")


def _license(row: Mapping[str, object], column: str | None) -> str:
    """Of one text; '' where its column is empty, so that the config's own holds."""
    return "" if column is None or row.get(column) in (None, "") else _string(row, column, "license").strip()


def _id(row: Mapping[str, object], column: str) -> str:
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:  # pandas has a column of whole numbers as these, where one is missing
        return str(int(value))
    expected = "a string or whole number"
    return _string(row, column, "id", expected if value is None else f"{expected}; cast the column to text")


def _string(row: Mapping[str, object], column: str, role: str, expected: str = "a string") -> str:
    if column not in row:
        raise RowRefused(f"{role} column '{visible(column)}' is missing{_nearest(column, row)}; {keys_of(row)}")
    value = row[column]
    if isinstance(value, UnicodeDecodeError):
        raise RowRefused(f"{role}: {not_utf8(value, 0, 'value')}")
    if not isinstance(value, str):
        raise RowRefused(f"{role} is {kind(value)}, not {expected}")
    if not value or value.isspace():
        raise RowRefused(f"{role} is empty or only white space")
    if "\0" in value:
        raise RowRefused(f"{role} holds NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise RowRefused(f"{role} holds a lone surrogate (\\u{ord(value[exc.start]):04x}), which is no character") from None
    return value


def kind(value: object) -> str:
    """What a JSON value is, in plain words."""
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value)) or ("an object" if isinstance(value, dict) else f"of type {type(value).__name__}")


def decoded(raw: bytes, flaw: RowRefused | None, unit: str) -> str:
    """`raw` as text.

    Raises:
        RowRefused: For its `flaw`, if it has one, or because it is not UTF-8.
    """
    if flaw:
        raise flaw
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise RowRefused(not_utf8(exc, 0, unit)) from None


def require_columns(file: File, names: list[str], wanted: list[str], remedy: str) -> list[str]:
    """The `wanted` columns, all of which `names` holds once.

    Raises:
        ColumnError: A column is missing; `remedy` says what to do.
        SourceError: The name of a column stands twice.
    """
    there = listed([visible(name) for name in names], 50)
    for column in wanted:
        if names.count(column) > 1:
            raise SourceError(f"{file.name}: two columns are named '{visible(column)}'; rename one of them in the file; columns: {there}")
        if column not in names:
            raise ColumnError(f"{file.name}: no column '{visible(column)}'{_nearest(column, names)}; columns: {there}", remedy)
    return wanted


def _nearest(column: str, names: Iterable[str]) -> str:
    folded = {name.lower(): name for name, _ in zip(names, range(50), strict=False)}
    near = difflib.get_close_matches(column.lower(), folded, n=1, cutoff=0.6)
    return f" (nearest: '{visible(folded[near[0]])}')" if near else ""
