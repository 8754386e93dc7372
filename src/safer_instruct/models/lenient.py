"""Finds the objects that a model meant to write as JSON, in one pass over whatever it wrote around and into them.

Read without complaint: prose and code fences around, comments, trailing and missing commas, single and curly quotes, quotes
inside of quotes, bare words, Python's literals, brackets left open at the end. Never invented: a value that is not there.
The time is linear in the text, however it is made: answers are steered by untrusted texts, and parsed in the event loop.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import Any, Final

_DEEPEST = 32  # objects and lists inside of one another
_CLOSERS = {'"': '"', "'": "'", "\u201c": '"\u201d\u201c', "\u201e": '"\u201d\u201c', "\u2018": "'\u2019\u2018", "`": "`"}
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "'": "'", "\\": "\\", "/": "/"}
_WORDS = {"true": True, "false": False, "null": None, "none": None, "undefined": None, "nan": math.nan, "infinity": math.inf, "-infinity": -math.inf}
_PLAIN = re.compile("[^\\\\\"'\u201c\u201d\u2018\u2019`]+")
_SPACE = re.compile(r"\s+")
_BARE_KEY = re.compile(r"(?:(?!\s(?://|#|/\*))[^,:{}\[\]\n])+")  # up to a comment
_BARE_VALUE = re.compile(r"(?:(?!\s(?://|#|/\*))[^,{}\[\]\n])+")
_AFTER_KEY = re.compile(r"\s*+:")
_AFTER_VALUE = re.compile(  # a comma or bracket, the end, a comment, a quote on the next line, a whole key on this one
    r"[^\S\n]*+(?:\n\s*+[#\"'\u201c\u2018]|(?<=\s)#|\s*+(?:[,}\]]|\Z|/[/*]|[\"'\u201c\u2018][\w-][\w -]{0,63}[\"'\u201d\u2019]\s*+:))"
)
_NUMBER = re.compile(r"[+-]?(?:\d{1,300}(?:\.\d{0,300})?|\.\d{1,300})(?:[eE][+-]?\d{1,4})?")


class Cut(str):
    """A text that the end of the answer broke off."""

    __slots__ = ()


class _Missing:
    """Stands where a value should."""


_MISSING: Final = _Missing()


class _TooDeepError(Exception):
    """More brackets inside of one another than any answer needs."""


def objects(text: str) -> list[dict[str, Any]]:
    """Every object in `text`, in the order in which they end: an inner one before the one around it.

    An object that the end of the text broke off counts with the members it has by then.
    """
    reader, start = _Reader(text), text.find("{")
    while start >= 0:
        reader.at = start
        with suppress(_TooDeepError):  # then it goes on behind the place where it got too deep
            reader.value(0)
        start = text.find("{", max(reader.at, start + 1))
    return reader.found


def number(text: str) -> int | float | None:
    """The number that `text` is, or None."""
    if not _NUMBER.fullmatch(text):
        return None
    return int(text) if text.lstrip("+-").isdigit() else float(text)


class _Reader:
    """A place in a text that only moves forward, and the objects met on the way."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.found = text, 0, list[dict[str, Any]]()

    def value(self, depth: int) -> Any:
        """The value that begins here, or `_MISSING`."""
        char = self._next()
        if char == "{":
            return self._object(depth + 1)
        if char == "[":
            return self._list(depth + 1)
        if char in _CLOSERS:
            return self._string(_AFTER_VALUE)
        return self._bare()

    def _object(self, depth: int) -> dict[str, Any]:
        self._descend(depth)
        members: dict[str, Any] = {}
        while (char := self._next()) not in ("", "}", "]"):
            if char in ",:":
                self.at += 1
            elif char in "{[":  # a value where a key should stand
                self.value(depth)
            else:
                key = self._string(_AFTER_KEY) if char in _CLOSERS else self._word(_BARE_KEY)
                if self._next() == ":":
                    self.at += 1
                    value = self.value(depth)
                    if value is not _MISSING:
                        members[key] = value
        self.at += char == "}"
        self.found.append(members)
        return members

    def _list(self, depth: int) -> list[Any]:
        self._descend(depth)
        items = []
        while (char := self._next()) not in ("", "}", "]"):
            if char in ",:":
                self.at += 1
            elif (value := self.value(depth)) is not _MISSING:
                items.append(value)
        self.at += char == "]"
        return items

    def _descend(self, depth: int) -> None:
        self.at += 1
        if depth > _DEEPEST:
            raise _TooDeepError

    def _string(self, after: re.Pattern[str]) -> str:
        """A quoted text; a quote ends it only where what comes `after` follows, so quotes may stand inside of quotes."""
        text, closers, parts = self.text, _CLOSERS[self.text[self.at]], list[str]()
        self.at += 1
        while self.at < len(text):
            if plain := _PLAIN.match(text, self.at):
                parts.append(plain.group())
                self.at = plain.end()
                continue
            char = text[self.at]
            self.at += 1
            if char == "\\":
                parts.append(self._escape())
            elif char in closers and after.match(text, self.at):
                return _joined(parts)
            else:
                parts.append(char)
        return Cut(_joined(parts))

    def _escape(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        if char == "u" and re.fullmatch("[0-9a-fA-F]{4}", digits := self.text[self.at : self.at + 4]):
            self.at += 4
            return chr(int(digits, 16))
        return _ESCAPES.get(char, f"\\{char}")

    def _bare(self) -> Any:
        word = self._word(_BARE_VALUE)
        if word.lower() in _WORDS:
            return _WORDS[word.lower()]
        known = None if isinstance(word, Cut) else number(word)
        return (word if word else _MISSING) if known is None else known

    def _word(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if not found:
            return ""
        self.at = found.end()
        word = found.group().strip()
        return Cut(word) if self.at == len(self.text) and word else word

    def _next(self) -> str:
        """The character here, behind white space and comments; empty at the end."""
        text = self.text
        while True:
            if space := _SPACE.match(text, self.at):
                self.at = space.end()
            if text.startswith(("//", "#"), self.at):
                end = text.find("\n", self.at)
            elif text.startswith("/*", self.at):
                end = text.find("*/", self.at) + 1 or -1
            else:
                return text[self.at : self.at + 1]
            self.at = len(text) if end < 0 else end + 1


def _joined(parts: list[str]) -> str:
    """The parts of a text as one; characters that were escaped in two halves are made whole."""
    return "".join(parts).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
