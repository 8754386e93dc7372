"""Words of a text, split once and kept for the detectors that ask for the same text one after the other."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"[\w']+")
_KEPT_TEXTS = 64  # an example's texts and candidates, of a few examples at a time
_KEPT_CHARS = 20_000  # longer texts are split anew each time, so that what is kept stays small
_CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"
_COMMON_MARKS = (
    (_CURLY, "'"),
    *((mark, " ") for mark in "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{EM DASH}\N{EN DASH}\N{HORIZONTAL ELLIPSIS}\N{NO-BREAK SPACE}"),
)
_ASCII_WORDS = bytes(ord(chr(code).lower()) if code < 128 and _WORD.match(chr(code)) else 32 for code in range(256))


class Words:
    """What detectors read of one text.

    Attributes:
        list: Its words in order.
        vocabulary: The different words.
    """

    __slots__ = ("_joined", "list", "vocabulary")  # no cached_property: its lock costs more than what it keeps

    def __init__(self, text: str) -> None:
        self.list = words(text)
        self.vocabulary = frozenset(self.list)
        self._joined = ""

    @property
    def joined(self) -> str:
        """The words with one blank around each: a run of words is a substring of it."""
        if not self._joined:
            self._joined = f" {' '.join(self.list)} "
        return self._joined


def words(text: str) -> list[str]:
    """Lower-case words of a text, curly apostrophes made straight."""
    if not text.isascii():
        for mark, plain in _COMMON_MARKS:
            text = text.replace(mark, plain)
    if text.isascii():  # the same words as by the pattern, five times as fast
        return text.encode("ascii").translate(_ASCII_WORDS).decode("ascii").split()
    return _WORD.findall(text.lower())


def words_of(text: str) -> Words:
    """The `Words` of a text, from memory where it was asked for a moment ago."""
    return _kept(text) if len(text) <= _KEPT_CHARS else Words(text)


@lru_cache(maxsize=_KEPT_TEXTS)
def _kept(text: str) -> Words:
    return Words(text)
