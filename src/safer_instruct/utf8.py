"""Bytes that are no UTF-8: where they are, and what they look like instead."""

from __future__ import annotations


def not_utf8(exc: UnicodeDecodeError, before: int, unit: str) -> str:
    """Where the invalid UTF-8 is; `before` bytes of the `unit` came before those of `exc`."""
    hint = "; the file looks like UTF-16, convert it to UTF-8" if exc.object.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
    return f"invalid UTF-8 at byte offset {before + exc.start} of the {unit}{hint}"
