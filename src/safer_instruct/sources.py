"""Readers of source texts: JSONL, CSV, TSV, Parquet and plain text, each also packed as `.gz` or `.zst`.

Everything streams, and no line is ever held beyond a bound, so memory is flat in the size of a file, of its longest line
and of what a packed file unpacks to. (A Parquet file is held one page per column and 1,024 rows at a time.) A row that cannot
be used comes out as a `BadRow` beside the good ones; only what makes the whole source unusable is raised.
"""

from __future__ import annotations

import csv
import difflib
import glob
import gzip
import io
import json
import os
import reprlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from safer_instruct.config import SourceConfig
from safer_instruct.errors import SourceError

_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
}
_PACKINGS = (".gz", ".zst")
_CSV_ERRORS = {
    "unexpected end": "a quoted field is never closed",
    "expected after": "a quote within a quoted field is not doubled",
    "new-line": "a carriage return within an unquoted field",
}
_BATCH_ROWS = 1024
_BUFFER_BYTES = 32 * 1024
_CHARACTER_BYTES = 12  # the longest way to write one character: two \uXXXX escapes in JSON
_EXCERPT_CHARS = 200
_MIB = 1024 * 1024
_DAMAGE = (OSError, EOFError, zlib.error)  # what gzip and pyarrow raise for broken streams, and files for lost disks

_Line = tuple[int, bytes, str]  # number, bytes (the head of them when the line is flawed), flaw


@dataclass(frozen=True, slots=True)
class SourceText:
    """One usable text.

    Attributes:
        text: The text, without surrounding white space, otherwise unchanged.
        file: Relative to the base folder when below it, else absolute.
        line: Counted from 1: the line on which the row or document begins (JSONL, CSV, TSV, plain text), or the row (Parquet).
        id: The user's own id, where a column has one.
        category: From its column, else the config's constant.
    """

    text: str
    file: str
    line: int
    id: str | None
    category: str | None


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row, or the damaged rest of a file, that cannot be used.

    Attributes:
        file: As in `SourceText`.
        line: As in `SourceText`.
        reason: What is wrong, in plain words.
        excerpt: The first 200 characters, invisible ones escaped.
    """

    file: str
    line: int
    reason: str
    excerpt: str


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
    files = [_describe(path, config, base) for path in _find(config, base)]
    return (row for file in files for row in _READERS[file.format](file, config))


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    name: str
    format: str
    packing: str


class _RowRefused(Exception):
    """Why a row cannot be used; becomes the reason of a `BadRow`."""


def _find(config: SourceConfig, base: Path) -> list[Path]:
    target = base / config.path
    try:
        if target.is_dir():
            found = _files_below(target, config.format)
            missing = f"no file below this folder ends in {_known_endings(config.format)}; name files with a glob to read others"
        elif target.exists():
            return [target]
        else:
            matches = sorted(glob.glob(config.path, root_dir=base, recursive=True))
            found = [base / match for match in matches if (base / match).is_file()]
            missing = "no file, folder or glob match; 'path' is relative to the folder of the config"
    except (OSError, ValueError) as exc:
        raise SourceError(f"source '{_visible(config.path)}', looked for in {base.absolute()}: {exc}") from exc
    if not found:
        raise SourceError(f"source '{_visible(config.path)}', looked for in {base.absolute()}: {missing}")
    return found


def _files_below(folder: Path, format: str) -> list[Path]:
    found = []
    for at, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(at, name) for name in names if not name.startswith("."))
        found += [path for path in paths if (known := _split_ending(path)[0]) and format in ("auto", known) and path.is_file()]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _known_endings(format: str) -> str:
    return " ".join(ending for ending, known in _ENDINGS.items() if format in ("auto", known)) + " (or these with .gz or .zst)"


def _split_ending(path: Path) -> tuple[str, str]:
    """The format that the ending tells ('' for none), and the packing ('' for none)."""
    endings = [ending.lower() for ending in path.suffixes]
    packing = endings.pop() if endings and endings[-1] in _PACKINGS else ""
    return _ENDINGS.get(endings[-1], "") if endings else "", packing


def _describe(path: Path, config: SourceConfig, base: Path) -> _File:
    absolute, root = Path(os.path.abspath(path)), os.path.abspath(base)
    shown = absolute.relative_to(root) if absolute.is_relative_to(root) else absolute
    name = os.fsencode(shown).decode("utf-8", "backslashreplace")
    known, packing = _split_ending(path)
    format = known if config.format == "auto" else config.format
    if not format:
        raise SourceError(f"{name}: the ending tells no format; rename the file to one of {_known_endings('auto')}, or set 'format'")
    return _File(path, name, format, packing)


def _read_jsonl(file: _File, config: SourceConfig) -> Iterator[SourceText | BadRow]:
    with _opened(file) as stream:
        for line, raw, flaw in _lines(stream, _max_bytes(config)):
            if flaw or raw.strip():
                yield _row(file, line, raw, partial(_json_fields, raw, flaw), config)


def _json_fields(raw: bytes, flaw: str) -> Mapping[str, object]:
    text = _decoded(raw, flaw, "line").rstrip()
    if "\0" in text:
        raise _RowRefused("the line holds NUL characters; is the file UTF-16?")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as exc:
        hint = "; the file must hold one JSON object per line" if text.lstrip() in ("[", "{", "]", "}") else ""
        raise _RowRefused(f"broken JSON: {exc.msg} at column {exc.colno}{hint}") from None
    except RecursionError:
        raise _RowRefused("JSON nested too deeply") from None
    except ValueError as exc:  # whole numbers of more than 4,300 digits
        raise _RowRefused(f"broken JSON: {exc}") from None
    if not isinstance(value, dict):
        raise _RowRefused(f"JSON is {_kind(value)}, not an object")
    return value


def _read_csv(file: _File, config: SourceConfig, delimiter: str = ",") -> Iterator[SourceText | BadRow]:
    with _opened(file) as stream:
        records = _csv_records(stream, _max_bytes(config), delimiter)
        line, head, header, flaw = next(records, (1, b"", [], ""))
        if any("\0" in name for name in header):
            flaw = "NUL characters; is the file UTF-16?"
        if flaw:
            yield BadRow(file.name, line, f"the header cannot be read, so the file was skipped: {flaw}", excerpt(head))
        elif header:
            places = {name: header.index(name) for name in _require_columns(file, header, config)}
            for line, head, cells, flaw in records:
                yield _row(file, line, head, partial(_csv_fields, cells, len(header), places, flaw), config)


def _csv_records(stream: IO[bytes], max_bytes: int, delimiter: str) -> Iterator[tuple[int, bytes, list[str], str]]:
    """Rows: the line each begins on, the head of it as written, its cells, and what is wrong with it.

    A row whose quoting is broken ends on the line where that shows; reading goes on at the next line.
    """
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))  # of the whole process, so never lowered; `_CsvLines` bounds rows
    lines = _CsvLines(_lines(stream, max_bytes), max_bytes)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.start_row()
        cells, flaw = [], ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _RowRefused as exc:
            flaw = str(exc)
        except csv.Error as exc:
            flaw = f"broken CSV: {next((plain for said, plain in _CSV_ERRORS.items() if said in str(exc)), exc)} ({lines.span})"
        if cells or flaw:
            yield lines.first, lines.head, cells, flaw or lines.flaw


class _CsvLines:
    """Physical lines for `csv.reader`, which knows where the current row began and stops a row that never ends."""

    def __init__(self, lines: Iterator[_Line], max_bytes: int) -> None:
        self._lines = lines
        self._max_bytes = max_bytes
        self._last = 0
        self.start_row()

    def start_row(self) -> None:
        self.first, self.head, self.flaw, self._size = self._last + 1, b"", "", 0

    @property
    def span(self) -> str:
        return f"line {self.first}" if self.first >= self._last else f"lines {self.first} to {self._last}"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._last, raw, flaw = next(self._lines)
        self.head = self.head or raw[: 4 * _EXCERPT_CHARS]
        before, self._size = self._size, self._size + len(raw)
        if not flaw and self._size > self._max_bytes:
            flaw = f"row longer than {self._max_bytes:,} bytes ({self.span}); is a closing quote missing?"
        if flaw:
            raise _RowRefused(flaw)  # csv.reader passes it on, and begins a new row at the next line
        try:
            return raw.decode()
        except UnicodeDecodeError as exc:
            self.flaw = self.flaw or _not_utf8(exc, before, "row")
            return raw.decode("utf-8", "replace")  # keeps the quotes, so that the row ends where it ends


def _csv_fields(cells: list[str], width: int, places: dict[str, int], flaw: str) -> Mapping[str, object]:
    if flaw:
        raise _RowRefused(flaw)
    if len(cells) != width:
        raise _RowRefused(f"too {'many' if len(cells) > width else 'few'} columns: {len(cells)}, the header has {width}")
    return {name: cells[place] for name, place in places.items()}


def _read_parquet(file: _File, config: SourceConfig) -> Iterator[SourceText | BadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    damage: Any = (*_DAMAGE, pa.ArrowException, UnicodeDecodeError)  # the last from broken column names
    row = 0
    with _opened(file) as stream, tempfile.TemporaryFile() if file.packing else nullcontext(stream) as seekable:
        if file.packing:  # Parquet is read from its end
            try:
                shutil.copyfileobj(stream, seekable, _MIB)
            except _DAMAGE as exc:
                yield BadRow(file.name, 1, f"the file cannot be unpacked and was skipped: {exc}", "")
                return
        try:  # pre_buffer would hold every row group until the end
            parquet = pq.ParquetFile(seekable, buffer_size=_MIB, pre_buffer=False, page_checksum_verification=True)
            names = parquet.schema_arrow.names
        except damage as exc:
            raise SourceError(f"{file.name}: cannot be read as Parquet: {exc}; replace the file, or leave it out of 'path'") from exc
        columns = _require_columns(file, names, config)
        try:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                for values in zip(*(map(_value, batch.column(name)) for name in columns), strict=True):
                    row += 1
                    yield _row(file, row, values[0], partial(dict, zip(columns, values, strict=True)), config)
        except damage as exc:
            yield BadRow(file.name, row + 1, f"the file is damaged; nothing from this row on was read: {exc}", "")


def _value(scalar: Any) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as exc:
        return exc


def _read_text(file: _File, config: SourceConfig) -> Iterator[SourceText | BadRow]:
    for key, column in (("id", config.id), ("category_column", config.category_column)):
        if column is not None:
            raise SourceError(f"{file.name}: plain text has no columns, so '{key}: {column}' cannot be read; remove the key, or narrow 'path'")
    with _opened(file) as stream:
        for line, raw, flaw in _documents(_lines(stream, _max_bytes(config)), config):
            yield _row(file, line, raw, partial(_document_fields, raw, flaw, config), config)


def _documents(lines: Iterable[_Line], config: SourceConfig) -> Iterator[_Line]:
    """Join lines to one document, or to the blocks between blank lines; each begins on the line that it gives."""
    limit, paragraphs = _max_bytes(config), config.unit == "paragraph"
    first, held, flaw = 0, bytearray(), ""
    for number, raw, problem in lines:
        if paragraphs and not problem and not raw.strip():
            if first:
                yield first, bytes(held), flaw
            first, held, flaw = 0, bytearray(), ""
            continue
        first = first or number
        if not flaw and not problem and len(held) + len(raw) > limit:
            problem = f"{config.unit} longer than {limit:,} bytes"
        flaw = flaw or problem
        if not flaw or not held:
            held += raw
    if first or not paragraphs:
        yield first or 1, bytes(held), flaw


def _document_fields(raw: bytes, flaw: str, config: SourceConfig) -> Mapping[str, object]:
    return {config.text: _decoded(raw, flaw, config.unit).replace("\r\n", "\n")}


_READERS: dict[str, Callable[[_File, SourceConfig], Iterator[SourceText | BadRow]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "tsv": partial(_read_csv, delimiter="\t"),
    "parquet": _read_parquet,
    "text": _read_text,
}


@contextmanager
def _opened(file: _File) -> Iterator[IO[bytes]]:
    """The unpacked bytes of `file`; its beginning has been read once, so a wrong packing is known now."""
    with _open(file) as plain:
        stream = _unpacked(plain, file.packing)
        try:
            stream.peek(1)
        except _DAMAGE as exc:
            packing = f"unpacked as {file.packing}" if file.packing else "read"
            raise SourceError(f"{file.name}: cannot be {packing}: {exc}; replace the file, or leave it out of 'path'") from exc
        yield stream


def _open(file: _File) -> io.BufferedReader:
    try:
        return io.BufferedReader(io.FileIO(file.path), _BUFFER_BYTES)
    except OSError as exc:
        raise SourceError(f"{file.name}: cannot be opened: {exc.strerror}; check its permissions, or leave it out of 'path'") from exc


def _unpacked(plain: io.BufferedReader, packing: str) -> io.BufferedReader:
    if not packing:
        return plain
    if packing == ".gz":
        return io.BufferedReader(_Unpacked(gzip.GzipFile(fileobj=plain)), _BUFFER_BYTES)
    import pyarrow as pa

    return io.BufferedReader(_Unpacked(pa.CompressedInputStream(plain, "zstd")), _BUFFER_BYTES)


class _Unpacked(io.RawIOBase):
    """A packed stream read in steps that grow from small: damage costs the step it falls in, not what was unpacked before."""

    def __init__(self, packed: Any) -> None:
        self._packed = packed
        self._step_bytes = 256

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        data = self._packed.read1(min(len(into), self._step_bytes))
        self._step_bytes = min(2 * self._step_bytes, _BUFFER_BYTES)
        into[: len(data)] = data
        return len(data)


def _max_bytes(config: SourceConfig) -> int:
    """The most bytes that one line, CSV row or document may have: enough for `max_chars` and other columns beside it."""
    return min(max(_CHARACTER_BYTES * config.max_chars, _MIB) + 64 * 1024, 2**31 - 2)


def _lines(stream: IO[bytes], max_bytes: int) -> Iterator[_Line]:
    """Lines, none held beyond `max_bytes`. A longer one comes as its beginning with a flaw, and so does damage, as the last line."""
    number = 0
    try:
        while raw := stream.readline(max_bytes + 1):
            number += 1
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if len(raw) <= max_bytes:
                yield number, raw, ""
                continue
            ended = raw.endswith(b"\n")
            yield number, raw[: 4 * _EXCERPT_CHARS], f"line longer than {max_bytes:,} bytes"
            while not ended:
                raw = stream.readline(_BUFFER_BYTES)
                ended = not raw or raw.endswith(b"\n")
    except _DAMAGE as exc:
        yield number + 1, b"", f"the file is damaged; nothing from this line on was read: {exc}"


def _row(file: _File, line: int, raw: object, fields: Callable[[], Mapping[str, object]], config: SourceConfig) -> SourceText | BadRow:
    try:
        row = fields()
        text = _string(row, config.text, "text").strip()
        if len(text) > config.max_chars:
            raise _RowRefused(f"text longer than {config.max_chars:,} characters: {len(text):,}")
        id = None if config.id is None else _id(row, config.id)
        category = config.category if config.category_column is None else _string(row, config.category_column, "category").strip()
        return SourceText(text, file.name, line, id, category)
    except _RowRefused as exc:
        return BadRow(file.name, line, str(exc), excerpt(raw))


def _id(row: Mapping[str, object], column: str) -> str:
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _string(row, column, "id", "a string or whole number")


def _string(row: Mapping[str, object], column: str, role: str, expected: str = "a string") -> str:
    if column not in row:
        raise _RowRefused(f"{role} column '{_visible(column)}' is missing{_nearest(column, row)}")
    value = row[column]
    if isinstance(value, UnicodeDecodeError):
        raise _RowRefused(f"{role}: {_not_utf8(value, 0, 'value')}")
    if not isinstance(value, str):
        raise _RowRefused(f"{role} is {_kind(value)}, not {expected}")
    if not value or value.isspace():
        raise _RowRefused(f"{role} is empty or only white space")
    if "\0" in value:
        raise _RowRefused(f"{role} holds NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise _RowRefused(f"{role} holds a lone surrogate (\\u{ord(value[exc.start]):04x}), which is no character") from None
    return value


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value)) or ("an object" if isinstance(value, dict) else f"of type {type(value).__name__}")


def _decoded(raw: bytes, flaw: str, unit: str) -> str:
    if flaw:
        raise _RowRefused(flaw)
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise _RowRefused(_not_utf8(exc, 0, unit)) from None


def _not_utf8(exc: UnicodeDecodeError, before: int, unit: str) -> str:
    hint = "; the file looks like UTF-16, convert it to UTF-8" if exc.object.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
    return f"invalid UTF-8 at byte offset {before + exc.start} of the {unit}{hint}"


def _columns(config: SourceConfig) -> list[str]:
    return list(dict.fromkeys(column for column in (config.text, config.id, config.category_column) if column is not None))


def _require_columns(file: _File, names: list[str], config: SourceConfig) -> list[str]:
    listed = ", ".join(_visible(name) for name in names[:50]) + (f" and {len(names) - 50} more" if len(names) > 50 else "")
    for column in _columns(config):
        if names.count(column) != 1:
            problem = f"two columns are named '{column}'" if column in names else f"no column '{_visible(column)}'{_nearest(column, names)}"
            raise SourceError(f"{file.name}: {problem}; columns: {listed}; set 'text', 'id' or 'category_column' to one of them")
    return _columns(config)


def _nearest(column: str, names: Iterable[str]) -> str:
    folded = {name.lower(): name for name, _ in zip(names, range(50), strict=False)}
    near = difflib.get_close_matches(column.lower(), folded, n=1, cutoff=0.5)
    return f" (nearest: '{_visible(folded[near[0]])}')" if near else ""


def excerpt(raw: object) -> str:
    """What `BadRow.excerpt` shows of `raw`: its first characters, invisible ones escaped."""
    if isinstance(raw, UnicodeDecodeError):
        raw = raw.object
    if isinstance(raw, bytes):
        raw = raw[: 4 * _EXCERPT_CHARS].decode("utf-8", "backslashreplace").rstrip("\r\n")
    return _visible(raw if isinstance(raw, str) else reprlib.repr(raw))


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:_EXCERPT_CHARS])
