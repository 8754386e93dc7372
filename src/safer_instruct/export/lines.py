"""JSON lines: one way to write them, for every format that is nothing but a reshaped row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from safer_instruct.export.rows import Row

Reshape = Callable[[Row], Iterator[Any]]


def write_lines(path: Path, rows: Iterable[Row], reshape: Reshape) -> None:
    """Write what becomes of each row, an object a line."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in reshape(row))


def beside(row: Row) -> Row:
    """All columns but the pair itself: category, id, provenance; of a conversation which one it is."""
    return {name: value for name, value in row.items() if name not in ("prompt", "chosen", "rejected", "history")}
