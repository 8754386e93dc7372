"""Readers of source texts: JSONL and JSON arrays, CSV, TSV, Parquet and plain text, each also packed as `.gz` or `.zst`; HTML, PDF, DOCX; and crawls.

Everything streams, and no line is ever held beyond a bound, so memory is flat in the size of a file, of its longest line
and of what a packed file unpacks to. (A Parquet file is held one page per column and 1,024 rows at a time; a document or the record
of a crawl whole, up to a bound.) A row that cannot
be used comes out as a `BadRow` beside the good ones; only what makes the whole source unusable is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path, PurePath

from safer_instruct.config import SourceConfig
from safer_instruct.errors import MissingExtraError, SourceError
from safer_instruct.sources.arrays import is_array, read_array
from safer_instruct.sources.documents import read_document
from safer_instruct.sources.files import DOCUMENTS, OLD, OLD_IS_NOT_READ, File, describe, find, only_grew, version_of
from safer_instruct.sources.jsonl import read_jsonl
from safer_instruct.sources.parquet import read_parquet
from safer_instruct.sources.records import BadRow, SourceRow, SourceText, excerpt
from safer_instruct.sources.rows import Conversations, Made, Reading, Texts, Whole
from safer_instruct.sources.tables import read_csv
from safer_instruct.sources.text import read_text
from safer_instruct.sources.warc import read_warc
from safer_instruct.storage.address import is_remote

__all__ = ["BadRow", "SourceRow", "SourceText", "check_columns", "excerpt", "read_rows", "read_source"]

_TABLES = ("csv", "tsv", "parquet")
_ONLY_OTHERS = "; or, if that file is not meant, name the others with a glob, such as 'path: {}/*.json'"
_LOOKED_AT = 1_000  # files, before anything else is done


def read_source(config: SourceConfig, base: Path, changed: Callable[[str, bool], None] | None = None) -> Iterator[SourceText | BadRow]:
    """Read every text that `config.path` leads to, in a fixed order. Files are looked for now, opened when reached.

    Args:
        config: Where the texts are, and which column is which.
        base: The folder that relative paths start from.
        changed: Told the name of each file on this machine that is another one behind its last row than before its first, and whether it only
            grew.

    Returns:
        One result per row or document, in order; of a conversation one per turn that is asked for. Blank lines of JSONL and
        CSV are counted, but give no result.

    Raises:
        SourceError: Nothing matches, or a file's ending tells no format; and, while iterating: a file cannot be opened, is
            broken from its start, or lacks a column.
    """
    files = [describe(path, config, base) for path in find(config, base)]
    return (row for file in files for row in _texts(file, config, changed))


def check_columns(config: SourceConfig, base: Path) -> None:
    """Look at the first row of the first tables that `config.path` leads to: better than when the others have been worked on, and paid for.

    Raises:
        SourceError: As `read_source`.
    """
    if not is_remote(config.path):
        tables = (file for path in find(config, base) if (file := describe(path, config, base)).format in _TABLES)
        for file in islice(tables, _LOOKED_AT):
            with closing(_texts(file, config)) as rows:
                next(rows, None)


def read_rows(config: SourceConfig, base: Path) -> Iterator[SourceRow | BadRow]:
    """Like `read_source`, but every row comes whole.

    Raises:
        SourceError: As for `read_source`, or a file is plain text.
    """
    files = [describe(path, config, base, rows=True) for path in find(config, base)]
    tables = [file for file in files if file.format not in DOCUMENTS]
    for file in tables or files:
        if file.format in ("text", *DOCUMENTS):
            what = "plain text" if file.format == "text" else "a document"
            raise SourceError(f"{file.name}: {what} has no columns; give a file of rows: JSONL, JSON, CSV, TSV or Parquet")
    reading = Whole()
    return (row for file in tables for row in (read_array(file, reading) if is_array(file) else _rows(file, reading)))


def _texts(file: File, config: SourceConfig, changed: Callable[[str, bool], None] | None = None) -> Generator[SourceText | BadRow]:
    before = version_of(file)
    try:
        yield from _texts_of(file, config)
    except MissingExtraError as exc:
        alone = PurePath(config.path).name == PurePath(file.name).name
        others = "" if alone else _ONLY_OTHERS.format("FOLDER" if "*" in config.path else config.path.rstrip("/"))
        raise MissingExtraError(exc.package, exc.extra, f"{file.name}: {exc.purpose}", others) from None
    finally:
        after = version_of(file)
        if changed and before and after and before != after:
            changed(file.name, only_grew(before, after))


def _texts_of(file: File, config: SourceConfig) -> Generator[SourceText | BadRow]:
    if file.format == "warc":
        yield from read_warc(file, config)
    elif file.format == OLD:
        yield BadRow(file.name, 1, OLD_IS_NOT_READ, "")
    elif file.format in DOCUMENTS:
        yield from read_document(file, config)
    elif file.format == "text":
        yield from read_text(file, config)
    elif config.messages is None:
        yield from _rows(file, Texts(config))
    else:
        for found in _rows(file, Conversations(config)):
            yield from (found,) if isinstance(found, BadRow) else found


def _rows(file: File, reading: Reading[Made]) -> Iterator[Made | BadRow]:
    match file.format:
        case "jsonl":
            return read_array(file, reading, counted=True) if is_array(file) else read_jsonl(file, reading)
        case "parquet":
            return read_parquet(file, reading)
        case _:
            return read_csv(file, reading, "\t" if file.format == "tsv" else None)
