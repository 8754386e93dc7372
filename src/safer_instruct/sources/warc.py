"""Reader of web crawls: WARC (pages as they were sent) and WET (the plain text of pages), packed record by record, as a whole, or not at all.

The records are found and unpacked by FastWARC, which streams in fixed memory. What it does not do is done here: a record that was cut is
noticed by its length, and behind damage reading goes on at the next record that can be found. A crawl is other people's bytes: no record is
held beyond a bound, and each that cannot be used is set aside with its number, its byte offset in the file as it lies there, and the reason.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, Any

from safer_instruct.config import SourceConfig
from safer_instruct.errors import SourceError
from safer_instruct.extras import require
from safer_instruct.oneline import many
from safer_instruct.settings.web import WebConfig
from safer_instruct.sources.files import File
from safer_instruct.sources.passages import Passage, cut
from safer_instruct.sources.records import BadRow, RowRefused, SourceText, excerpt, visible
from safer_instruct.sources.rows import Texts, make_row, refuse_columns
from safer_instruct.sources.streams import DAMAGE, MIB, opened_packed
from safer_instruct.sources.webpage import Page, blocks_of, page_of

_PURPOSE = "reading WARC files"
_SCAN_BYTES = 256 * 1024
_GZIP = b"\x1f\x8b\x08"
_BEGIN = b"WARC/1."
_MAYBE_BEGIN = re.compile(re.escape(_GZIP) + rb"|(?<=\n\r\n)" + re.escape(_BEGIN))
_BEGIN_WITHIN = 512  # packed bytes, enough to unpack the first of a record
_SKIPPED_BY_READING_BYTES = 256 * MIB  # a larger record is not unpacked to its end, but looked past


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a crawl.

    Attributes:
        number: In its file, from 1; records of all types are counted.
        offset: Byte of the file at which it begins, or for files that were packed as a whole, nearly so.
        id: `WARC-Record-ID`.
        uri: `WARC-Target-URI`: the address of the page.
        date: `WARC-Date`.
        kind: `response`, `conversion` or `resource`.
        type: `Content-Type` of the record.
        block: Its content.
    """

    number: int
    offset: int
    id: str
    uri: str
    date: str
    kind: str
    type: str
    block: bytes

    @property
    def place(self) -> str:
        """Where a text of it is found again: 'byte 1200 <urn:uuid:...>, 2026-01-31T10:00:00Z, https://...'."""
        return f"byte {self.offset} {self.id}, {self.date}, {self.uri}"


def read_warc(file: File, config: SourceConfig) -> Iterator[SourceText | BadRow]:
    """One result per passage of every page of `file`; `line` is the number of the record.

    Raises:
        SourceError: The config names columns, which crawls do not have.
        MissingExtraError: The extra `web` is not installed.
    """
    refuse_columns(file, config, "a crawl")
    web = config.web or WebConfig()
    found: BadRow | Record
    for found in _records(file, web):
        if isinstance(found, BadRow):
            yield found
            continue
        try:
            page = page_of(found.kind, found.type, found.block, web)
            passages = list(cut(blocks_of(page, web), config.documents))
        except RowRefused as exc:
            yield BadRow(file.name, found.number, f"{found.place}: {exc}", "")
            continue
        if not passages:
            yield BadRow(file.name, found.number, f"{found.place}: the page holds no text", "")
        for passage in passages:
            yield _row(file, found, page, passage, config)


def _row(file: File, record: Record, page: Page, passage: Passage, config: SourceConfig) -> SourceText | BadRow:
    words = len(passage.text.split())
    if words < config.documents.min_words:
        reason = f"{record.place}, {passage.place}: a passage of {many(words, 'word')}, fewer than {config.documents.min_words} (source.documents.min_words)"
        return BadRow(file.name, record.number, reason, excerpt(passage.text))
    made = make_row(file, record.number, passage.text, partial(dict, {config.text: passage.text}), Texts(config))
    return replace(made, place=f"{record.place}, {passage.place}") if isinstance(made, SourceText) else made


def _records(file: File, web: WebConfig) -> Iterator[Record | BadRow]:
    """Records that may hold a page, and in their places what cannot be read; requests, metadata and the like are passed over."""
    fastwarc = require("fastwarc.warc", extra="web", purpose=_PURPOSE)
    wanted = fastwarc.WarcRecordType.response | fastwarc.WarcRecordType.conversion | fastwarc.WarcRecordType.resource
    try:
        with opened_packed(file) as stream:
            yield from _Walk(file, stream, fastwarc, int(wanted), web.max_mb * MIB).records()
    except SourceError as exc:
        yield BadRow(file.name, 1, f"the file cannot be read: {exc}", "", unread=True)


class _Walk:
    """The way through one file, which knows where it is, so that it can go on behind damage."""

    def __init__(self, file: File, stream: IO[bytes], fastwarc: Any, wanted: int, max_bytes: int) -> None:
        self._file, self._stream, self._fastwarc, self._wanted, self._max_bytes = file, stream, fastwarc, wanted, max_bytes
        self._at = -1  # where the last record begins, or the last place at which one was looked for
        self._number = 0
        self._damage: BadRow | None = None  # what ended a stretch of records
        self._met = self._ended = False  # whether that stretch had a record, and whether it came to the end of the file

    def records(self) -> Iterator[Record | BadRow]:
        """See `_records`."""
        begin: int | None = 0
        while begin is not None:
            self._damage, self._met, self._ended = None, False, False
            yield from self._stretch(begin)
            found = self._next_begin(max(self._at, begin) + 1)
            if self._ended:
                if found is not None:  # FastWARC ends without a word in a record that is cut within its head
                    self._number, self._at = self._number + 1, found
                    yield replace(self._bad("the file is cut short within this record"), unread=True)
                return
            if self._damage is not None and (self._met or begin == 0):
                where = "no record was found behind it" if found is None else f"reading went on at byte {found}"
                yield replace(self._damage, reason=f"{self._damage.reason}; {where}", unread=found is None)
            elif self._damage is not None:  # the same that was told before, met again where its record begins
                self._number -= 1
            begin = found
            self._at = self._at if found is None else found

    def _stretch(self, begin: int) -> Iterator[Record | BadRow]:
        """Records from `begin` to the end, to the first damage, or to one that is too large to be read past."""
        self._stream.seek(begin)
        archive = iter(self._fastwarc.ArchiveIterator(_Forward(self._stream), parse_http=False))
        while True:
            self._number += 1
            try:
                record = next(archive)
                self._at, self._met = max(self._at, begin + record.stream_pos), True
                _check_head(record)
                if int(record.record_type) & self._wanted:
                    yield self._read(record)
            except StopIteration:
                self._number, self._ended = self._number - 1, True
                return
            except DAMAGE as exc:
                self._damage = self._bad(f"the file is damaged: {exc}")
                return
            except RowRefused as exc:
                yield self._bad(str(exc))
                if record.content_length > _SKIPPED_BY_READING_BYTES:
                    return

    def _read(self, record: Any) -> Record:
        """The record with its content.

        Raises:
            RowRefused: It is too large.
            OSError: It ends before its length.
        """
        length, most = record.content_length, self._max_bytes
        if length > most:
            raise RowRefused(f"the record is larger than {most // MIB} MB (source.web.max_mb): {length:,} bytes")
        block = bytearray()
        while len(block) < length and (piece := record.reader.read(length - len(block))):
            block += piece
        if len(block) < length:
            raise OSError(f"it ends after {len(block):,} of {length:,} bytes")
        return Record(
            number=self._number,
            offset=self._at,
            id=_header(record, "WARC-Record-ID"),
            uri=_header(record, "WARC-Target-URI"),
            date=_header(record, "WARC-Date"),
            kind=_header(record, "WARC-Type").lower(),
            type=_header(record, "Content-Type"),
            block=bytes(block),
        )

    def _bad(self, reason: str) -> BadRow:
        return BadRow(self._file.name, self._number, f"at or behind byte {max(0, self._at)}: {visible(reason)}", "")

    def _next_begin(self, at: int) -> int | None:
        """Where the next record begins, at `at` or behind; None where there is none, or the file cannot be read there."""
        held, ended = b"", False
        while not ended:
            try:
                self._stream.seek(at + len(held))
                piece = self._stream.read(_SCAN_BYTES)
            except OSError:
                return None
            held, ended = held + piece, len(piece) < _SCAN_BYTES
            for maybe in _MAYBE_BEGIN.finditer(held):
                if not ended and maybe.start() > len(held) - _BEGIN_WITHIN:
                    break  # looked at again with more behind it
                if _begins(held[maybe.start() : maybe.start() + _BEGIN_WITHIN]):
                    return at + maybe.start()
            left = max(0, len(held) - _BEGIN_WITHIN - 3)
            at, held = at + left, held[left:]
        return None


def _begins(head: bytes) -> bool:
    """Whether a record begins here: the three bytes that open a packed one also stand elsewhere by chance."""
    if not head.startswith(_GZIP):
        return True
    try:
        return _BEGIN.startswith(zlib.decompressobj(31).decompress(head, len(_BEGIN)))  # one that the file cuts short may unpack to less
    except zlib.error:
        return False


def _check_head(record: Any) -> None:
    """Raises RowRefused where the head of a record is cut or broken, which FastWARC takes for a short one."""
    for name in ("WARC-Type", "Content-Length"):
        if name not in record.headers:
            raise RowRefused(f"the head of the record is cut or broken: it has no {name}")


def _header(record: Any, name: str) -> str:
    """A header of the record, made safe to show; '' where there is none."""
    return visible(record.headers.get(name) or "", 2_000).strip()


class _Forward:
    """A stream that is read forward only, and counts from where it was handed over: FastWARC must not go back on its own."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._read_bytes = stream, 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        piece = self._stream.read(size)
        self._read_bytes += len(piece)
        return piece

    def tell(self) -> int:
        """Bytes read."""
        return self._read_bytes
