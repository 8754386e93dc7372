"""Fields of a row made into a text or a bad row, the columns that a source needs, and the messages about both."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping

from safer_instruct.config import SourceConfig
from safer_instruct.errors import SourceError
from safer_instruct.sources.files import File
from safer_instruct.sources.records import BadRow, RowRefused, SourceText, excerpt, visible


def make_row(file: File, line: int, raw: object, fields: Callable[[], Mapping[str, object]], config: SourceConfig) -> SourceText | BadRow:
    """What one row gives: a text, or a bad row where `fields` refuses it or a value cannot be used. `raw` is what a bad row shows."""
    try:
        row = fields()
        text = _string(row, config.text, "text").strip()
        if len(text) > config.max_chars:
            raise RowRefused(f"text longer than {config.max_chars:,} characters: {len(text):,}")
        id = None if config.id is None else _id(row, config.id)
        category = config.category if config.category_column is None else _string(row, config.category_column, "category").strip()
        return SourceText(text, file.name, line, id, category)
    except RowRefused as exc:
        return BadRow(file.name, line, str(exc), excerpt(raw))


def _id(row: Mapping[str, object], column: str) -> str:
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _string(row, column, "id", "a string or whole number")


def _string(row: Mapping[str, object], column: str, role: str, expected: str = "a string") -> str:
    if column not in row:
        raise RowRefused(f"{role} column '{visible(column)}' is missing{_nearest(column, row)}")
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


def decoded(raw: bytes, flaw: str, unit: str) -> str:
    """`raw` as text.

    Raises:
        RowRefused: For its `flaw`, if it has one, or because it is not UTF-8.
    """
    if flaw:
        raise RowRefused(flaw)
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise RowRefused(not_utf8(exc, 0, unit)) from None


def not_utf8(exc: UnicodeDecodeError, before: int, unit: str) -> str:
    """Where the invalid UTF-8 is; `before` bytes of the `unit` came before those of `exc`."""
    hint = "; the file looks like UTF-16, convert it to UTF-8" if exc.object.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
    return f"invalid UTF-8 at byte offset {before + exc.start} of the {unit}{hint}"


def _columns(config: SourceConfig) -> list[str]:
    return list(dict.fromkeys(column for column in (config.text, config.id, config.category_column) if column is not None))


def require_columns(file: File, names: list[str], config: SourceConfig) -> list[str]:
    """The columns to read, all of which `names` holds once.

    Raises:
        SourceError: A column is missing, or its name stands twice.
    """
    listed = ", ".join(visible(name) for name in names[:50]) + (f" and {len(names) - 50} more" if len(names) > 50 else "")
    for column in _columns(config):
        if names.count(column) != 1:
            problem = f"two columns are named '{column}'" if column in names else f"no column '{visible(column)}'{_nearest(column, names)}"
            raise SourceError(f"{file.name}: {problem}; columns: {listed}; set 'text', 'id' or 'category_column' to one of them")
    return _columns(config)


def _nearest(column: str, names: Iterable[str]) -> str:
    folded = {name.lower(): name for name, _ in zip(names, range(50), strict=False)}
    near = difflib.get_close_matches(column.lower(), folded, n=1, cutoff=0.5)
    return f" (nearest: '{visible(folded[near[0]])}')" if near else ""
