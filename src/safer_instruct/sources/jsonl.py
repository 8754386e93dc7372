"""Reader of JSONL: one JSON object per line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial

from safer_instruct.sources.files import File
from safer_instruct.sources.records import BadRow, RowRefused, wrapped
from safer_instruct.sources.rows import Made, Reading, decoded, kind, make_row
from safer_instruct.sources.streams import bounded_lines, byte_limit, opened

_ROWS = re.compile(rb'"([^"\\]{1,200})"\s*:\s*\[\s*\{')  # a key with a list of objects


def read_jsonl(file: File, reading: Reading[Made]) -> Iterator[Made | BadRow]:
    """One result per line of `file` that is not blank."""
    with opened(file) as stream:
        head = stream.peek(1)
        for line, raw, flaw in bounded_lines(stream, byte_limit(reading.max_chars)):
            if flaw or raw.strip():
                yield make_row(file, line, raw, partial(_first_fields, raw, flaw, head) if line == 1 else partial(_json_fields, raw, flaw), reading)


def _first_fields(raw: bytes, flaw: RowRefused | None, head: bytes) -> Mapping[str, object]:
    """Those of the first line; where it opens more than it closes, the file may be one object over many lines that holds the rows."""
    try:
        return _json_fields(raw, flaw)
    except RowRefused as exc:
        goes_on = raw.count(b"{") + raw.count(b"[") > raw.count(b"}") + raw.count(b"]")
        rows = _ROWS.search(head) if goes_on else None
        raise RowRefused(f"{exc}{wrapped(rows[1].decode('utf-8', 'replace') if rows else None)}", unread=exc.unread) from None


def _json_fields(raw: bytes, flaw: RowRefused | None) -> Mapping[str, object]:
    text = decoded(raw, flaw, "line").rstrip()
    if "\0" in text:
        raise RowRefused("the line holds NUL characters; is the file UTF-16?")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as exc:
        hint = "; the file must hold one JSON object per line" if text.lstrip() in ("[", "{", "]", "}") else ""
        raise RowRefused(f"broken JSON: {exc.msg.removesuffix(' at')} at column {exc.colno}{hint}") from None
    except RecursionError:
        raise RowRefused("JSON nested too deeply") from None
    except ValueError as exc:  # whole numbers of more than 4,300 digits
        raise RowRefused(f"broken JSON: {exc}") from None
    if not isinstance(value, dict):
        raise RowRefused(f"JSON is {kind(value)}, not an object")
    return value
