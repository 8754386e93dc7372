"""Reader of CSV and TSV, which goes on behind rows whose quoting is broken."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain, islice, zip_longest
from typing import IO, TextIO

from safer_instruct.errors import SourceError
from safer_instruct.sources.files import File
from safer_instruct.sources.records import EXCERPT_CHARS, BadRow, RowRefused, excerpt
from safer_instruct.sources.rows import Made, Reading, make_row
from safer_instruct.sources.streams import Line, bounded_lines, byte_limit, opened
from safer_instruct.utf8 import not_utf8

_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_PACKED = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
_OTHERS = (  # how the first line begins, what it is then, and the ending of such a file
    (re.compile(rb"%PDF-"), "a PDF", ".pdf"),
    (re.compile(rb'\s*\{\s*("|$)'), "JSON lines", ".jsonl"),
    (re.compile(rb'\s*\[\s*(\{\s*("|$)|$)'), "a JSON array", ".json"),
)
_Record = tuple[int, bytes, list[str], RowRefused | None]  # the line that it begins on, its head as written, its cells, its flaw
_CSV_ERRORS = {
    "unexpected end": "a quoted field is never closed",
    "expected after": "a quote within a quoted field is not doubled",
    "new-line": "a carriage return within an unquoted field",
}


def read_csv(file: File, reading: Reading[Made], delimiter: str | None = None) -> Iterator[Made | BadRow]:
    """One result per row of `file` below its header, blank lines left out; without a `delimiter` the header tells it."""
    with opened(file) as stream:
        records = _csv_records(stream, byte_limit(reading.max_chars), delimiter)
        line, head, header, flaw = next(records, (1, b"", [], None))
        skipped = str(flaw or "")
        if head.startswith(_WORKBOOKS):
            skipped = "it is an Excel workbook or another archive, whatever its name; save it as CSV from the program that wrote it"
        elif packing := next((ending for magic, ending in _PACKED.items() if head.startswith(magic)), ""):
            skipped = f"it is compressed, whatever its name; rename it to {file.name.rpartition('/')[2]}{packing}"
        elif other := next((f"{what}, whatever its name; rename it so that it ends in {ending}" for begins, what, ending in _OTHERS if begins.match(head)), ""):
            skipped = f"it looks like {other}"
        elif b"\0" in head:
            skipped = "NUL characters; is the file UTF-16?"
        if skipped:
            yield BadRow(file.name, line, f"the header cannot be read, so the file was skipped: {skipped}", excerpt(head), unread=True)
        elif header and not any(name.strip() for name in header):
            raise SourceError(f"{file.name}: the header names no column; write the names of the columns into the first line of the file")
        elif header:
            places = {name: header.index(name) for name in reading.columns(file, header)}
            for line, head, cells, flaw in records:
                yield make_row(file, line, head, partial(_csv_fields, cells, len(header), places, flaw), reading)


def delimiter_of(header: str) -> str:
    """What separates the cells of `header`: a semicolon, as Excel writes where the comma is the decimal mark, a tab, or else a comma."""
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(",;\t", key=unquoted.count)  # the first of equals: the comma


class FilledRows:
    """The rows of a small file that people filled in, perhaps with Excel; the header tells what separates its cells.

    Attributes:
        fieldnames: The cells of the header; none of an empty file.
        first_line: On which line of the file the row begins that came last: its cells may hold line breaks.
    """

    def __init__(self, file: TextIO) -> None:
        """Read the header of a file that was opened with `newline=""`."""
        header = file.readline()
        file.seek(0)
        self._rows = csv.reader(file, delimiter=delimiter_of(header))
        self.fieldnames = next(self._rows, [])
        self.first_line = 0

    def __iter__(self) -> Iterator[dict[str, str | None]]:
        """The rows, blank lines left out; cells beyond the header are, too, and missing ones are None."""
        self.first_line = self._rows.line_num + 1
        for cells in self._rows:
            if cells:
                yield dict(zip_longest(self.fieldnames, cells[: len(self.fieldnames)]))
            self.first_line = self._rows.line_num + 1


def _csv_records(stream: IO[bytes], max_bytes: int, delimiter: str | None) -> Iterator[_Record]:
    """Rows: the line each begins on, the head of it as written, its cells, and what is wrong with it.

    A row whose quoting is broken ends on the line where that shows; reading goes on at the next line.
    """
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))  # of the whole process, so never lowered; `_CsvLines` bounds rows
    unread = bounded_lines(stream, max_bytes)
    first = list(islice(unread, 1))
    if delimiter is None:
        delimiter = delimiter_of(first[0][1].decode("utf-8", "replace") if first else "")
    lines = _CsvLines(chain(first, unread), max_bytes)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.start_row()
        cells: list[str] = []
        flaw: RowRefused | None = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except RowRefused as exc:
            flaw = exc
        except csv.Error as exc:
            flaw = RowRefused(f"broken CSV: {next((plain for said, plain in _CSV_ERRORS.items() if said in str(exc)), exc)} ({lines.span})")
        if cells or flaw:
            yield lines.first, lines.head, cells, flaw or lines.flaw


class _CsvLines:
    """Physical lines for `csv.reader`, which knows where the current row began and stops a row that never ends."""

    def __init__(self, lines: Iterator[Line], max_bytes: int) -> None:
        self._lines = lines
        self._max_bytes = max_bytes
        self._last = 0
        self.start_row()

    def start_row(self) -> None:
        self.first, self.head, self._size = self._last + 1, b"", 0
        self.flaw: RowRefused | None = None

    @property
    def span(self) -> str:
        return f"line {self.first}" if self.first >= self._last else f"lines {self.first} to {self._last}"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._last, raw, flaw = next(self._lines)
        self.head = self.head or raw[: 4 * EXCERPT_CHARS]
        before, self._size = self._size, self._size + len(raw)
        if not flaw and self._size > self._max_bytes:
            flaw = RowRefused(f"row longer than {self._max_bytes:,} bytes ({self.span}); is a closing quote missing?")
        if flaw:
            raise flaw  # csv.reader passes it on, and begins a new row at the next line
        try:
            return raw.decode()
        except UnicodeDecodeError as exc:
            self.flaw = self.flaw or RowRefused(not_utf8(exc, before, "row"))
            return raw.decode("utf-8", "replace")  # keeps the quotes, so that the row ends where it ends


def _csv_fields(cells: list[str], width: int, places: dict[str, int], flaw: RowRefused | None) -> Mapping[str, object]:
    if flaw:
        raise flaw
    if len(cells) != width:
        raise RowRefused(f"too {'many' if len(cells) > width else 'few'} columns: {len(cells)}, the header has {width}")
    return {name: cells[place] for name, place in places.items()}
