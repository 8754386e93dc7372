"""Words of a text, split once and kept for the detectors that ask for the same text one after the other."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"[\w']+")
_KEPT_TEXTS = 64  # an example's texts and candidates, of a few examples at a time
_KEPT_CHARS = 20_000  # longer texts are split anew each time, so that what is kept stays small
_CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"


class Words:
    """What detectors read of one text.

    Attributes:
        text: The text as it is.
        list: Its words in order.
        vocabulary: The different words.
    """

    __slots__ = ("_joined", "list", "text", "vocabulary")  # no cached_property: its lock costs more than what it keeps

    def __init__(self, text: str) -> None:
        self.text = text
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
    text = text.lower()
    return _WORD.findall(text if text.isascii() else text.replace(_CURLY, "'"))


def words_of(text: str) -> Words:
    """The `Words` of a text, from memory where it was asked for a moment ago."""
    return _kept(text) if len(text) <= _KEPT_CHARS else Words(text)


@lru_cache(maxsize=_KEPT_TEXTS)
def _kept(text: str) -> Words:
    return Words(text)
