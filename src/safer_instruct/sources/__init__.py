"""Readers of source texts: JSONL, CSV, TSV, Parquet and plain text, each also packed as `.gz` or `.zst`.

Everything streams, and no line is ever held beyond a bound, so memory is flat in the size of a file, of its longest line
and of what a packed file unpacks to. (A Parquet file is held one page per column and 1,024 rows at a time.) A row that cannot
be used comes out as a `BadRow` beside the good ones; only what makes the whole source unusable is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from safer_instruct.config import SourceConfig
from safer_instruct.sources.files import File, describe, find
from safer_instruct.sources.jsonl import read_jsonl
from safer_instruct.sources.parquet import read_parquet
from safer_instruct.sources.records import BadRow, SourceText, excerpt
from safer_instruct.sources.tables import read_csv
from safer_instruct.sources.text import read_text

__all__ = ["BadRow", "SourceText", "excerpt", "read_source"]

_READERS: dict[str, Callable[[File, SourceConfig], Iterator[SourceText | BadRow]]] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "tsv": partial(read_csv, delimiter="\t"),
    "parquet": read_parquet,
    "text": read_text,
}


def read_source(config: SourceConfig, base: Path) -> Iterator[SourceText | BadRow]:
    """Read every text that `config.path` leads to, in a fixed order. Files are looked for now, opened when reached.

    Args:
        config: Where the texts are, and which column is which.
        base: The folder that relative paths start from.

    Returns:
        One result per row or document, in order. Blank lines of JSONL and CSV are counted, but give no result.

    Raises:
        SourceError: Nothing matches, or a file's ending tells no format; and, while iterating: a file cannot be opened, is
            broken from its start, or lacks a column.
    """
    files = [describe(path, config, base) for path in find(config, base)]
    return (row for file in files for row in _READERS[file.format](file, config))
