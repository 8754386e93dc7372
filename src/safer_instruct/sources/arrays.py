"""Reader of a JSON file that is one array of objects, an element at a time: the form that Alpaca and ShareGPT are published in."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import IO

from safer_instruct.sources.files import File
from safer_instruct.sources.records import BadRow, RowRefused, excerpt
from safer_instruct.sources.rows import Made, Reading, kind, make_row
from safer_instruct.sources.streams import DAMAGE, byte_limit, opened

_READ_BYTES = 256 * 1024
_BLANK = " \t\r\n"


def is_array(file: File) -> bool:
    """Whether the first character of a JSON file that is not blank opens an array; no more is read than `opened` has, for that may be damaged."""
    if file.format != "jsonl":
        return False
    with opened(file) as stream:
        head = stream.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"[")


def read_array(file: File, reading: Reading[Made], *, counted: bool = False) -> Iterator[Made | BadRow]:
    """One result per element; what stands behind a broken one cannot be told apart, so reading ends there with a bad row.

    A row says the line on which its element begins, or, where they are `counted`, which element it is: a whole array may be one line.
    """
    with opened(file) as stream:
        elements, number = _Elements(stream, byte_limit(reading.max_chars)), 0
        try:
            for number, value in enumerate(elements, 1):
                yield make_row(file, number if counted else elements.line, value, partial(_object, value), reading)
        except (*DAMAGE, RowRefused, UnicodeDecodeError, RecursionError) as exc:
            reason = f"the file is damaged; nothing from this element on was read: {exc}"
            yield BadRow(file.name, number + 1 if counted else elements.line, reason, excerpt(elements.rest), unread=True)


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise RowRefused(f"the element is {kind(value)}, not an object")
    return value


class _Elements:
    """The elements of an array, decoded one by one from a stream; `line` is where the last one begins."""

    def __init__(self, stream: IO[bytes], most_chars: int) -> None:
        self._stream, self._most = stream, most_chars
        self._utf8, self._json = codecs.getincrementaldecoder("utf-8-sig")(), json.JSONDecoder()
        self._held, self._at, self._ended, self._lines = "", 0, False, 0
        self.line = 1

    @property
    def rest(self) -> str:
        """What has been read and not decoded."""
        return self._held[self._at :]

    def __iter__(self) -> Iterator[object]:
        self._expect("[")
        if self._next() == "]":
            self._expect("]")
        else:
            yield from self._to_the_end()
        if self._next():
            raise RowRefused("the array ends here, and more stands behind it")

    def _to_the_end(self) -> Iterator[object]:
        while True:
            yield self._element()
            if self._expect(",]") == "]":
                return
            self._next()

    def _element(self) -> object:
        """Decode one element, reading on for as long as it may only be cut short."""
        step, self.line = _READ_BYTES, 1 + self._lines
        while True:
            try:
                value, end = self._json.raw_decode(self._held, self._at)
            except json.JSONDecodeError as exc:
                if self._ended or len(self._held) - self._at > self._most:
                    raise RowRefused(f"broken JSON: {exc.msg.removesuffix(' at')}") from None
                self._more(step)
                step *= 2  # a long element is tried a logarithmic number of times
                continue
            if end < len(self._held) or self._ended:  # a number may go on behind what is here
                self._pass(end)
                return value
            self._more(step)

    def _expect(self, wanted: str) -> str:
        found = self._next()
        if not found or found not in wanted:
            raise RowRefused(f"broken JSON: {found!r} where one of {wanted!r} should stand" if found else "broken JSON: the array is never closed")
        self._pass(self._at + 1)
        return found

    def _next(self) -> str:
        """The next character that is not blank, which stays; '' at the end. An element begins there."""
        while True:
            end = self._at
            while end < len(self._held) and self._held[end] in _BLANK:
                end += 1
            self._pass(end)
            if self._at < len(self._held) or self._ended:
                return self._held[self._at : self._at + 1]
            self._more(_READ_BYTES)

    def _pass(self, end: int) -> None:
        self._lines += self._held.count("\n", self._at, end)
        self._at = end

    def _more(self, size: int) -> None:
        raw = self._stream.read(size)
        self._ended = not raw
        self._held = self._held[self._at :] + self._utf8.decode(raw, final=self._ended)
        self._at = 0
