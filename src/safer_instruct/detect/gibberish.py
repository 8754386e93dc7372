"""Texts that are no language: keyboard mash, encoded or binary junk, broken encodings. Code, lists, names and other languages pass.

Letters are told by a table of letter pairs (`bigrams.json`, made by `bench/gibberish.py --fit` from text in six languages written for
it), the rest by shares of characters. Why these: bench/README.md, "Gibberish".
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

from safer_instruct.detect.words import words_of

_MAX_CHARS = 2_000
_LETTERS = re.compile(r"[a-z]+")
_RUN = re.compile(r"\S{40,}")
_ENCODED = re.compile(r"^[A-Za-z0-9+/=_-]+$")
_MOJIBAKE = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]|\u00e2\u20ac."
    "|\u00ef\u00bf\u00bd|\u00d0[\u0080-\u00bf]|\ufffd"
)
_SAME = re.compile(r"(.)\1{14,}", re.S)
_LONG_CHARS = 15  # of a piece without a blank: shorter ones are no encoded data
_MIN_PAIRS = 8  # fewer letter pairs tell nothing
_MAX_ODD_WORDS = 0.5


@lru_cache(maxsize=1)
def _bigrams() -> tuple[dict[str, float], float]:
    """Log-probability in nats of a letter after another, by pair ('^' before a word, '$' behind it), and the bound on a word's mean."""
    stored = json.loads(files("safer_instruct.detect").joinpath("bigrams.json").read_text("utf-8"))
    return stored["logprob"], stored["bound"]


def gibberish_reason(text: str) -> str:
    """Why `text` is no language, in a few words, or '' where nothing speaks against it."""
    text = text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS]
    size = len(text)
    pieces = text.split()
    if not text.isascii() or not (text.isprintable() or "".join(pieces).isprintable()):
        controls = sum(not c.isprintable() and not c.isspace() and c not in "\u200c\u200d\ufeff" for c in text)
        if controls > max(2, 0.02 * size):
            return f"{controls} of {size} characters are control codes or unassigned"
        broken = len(_MOJIBAKE.findall(text))
        if broken >= 2 and broken > 0.01 * size:
            return f"{broken} marks of a broken encoding"
    if max(map(len, pieces), default=0) >= _LONG_CHARS and (reason := _long(text)):
        return reason
    return _letters(text)


def _long(text: str) -> str:
    if (same := _SAME.search(text)) and not same.group(1).isspace() and same.group(1) not in "-=_*#.~+":
        return f"the same character {same.group(1)!r} many times in a row"
    encoded = sum(len(run) for run in _RUN.findall(text) if _ENCODED.match(run) and any(map(str.isdigit, run)) and any(map(str.isupper, run)))
    return f"{encoded} of {len(text)} characters are encoded data" if encoded > 0.5 * len(text) else ""


def _letters(text: str) -> str:
    if text.isascii():
        if _all_plain(words_of(text).vocabulary):
            return ""
        parts = [word for word in words_of(text).list if word.isalpha()]
    elif sum(map(str.isascii, text)) < 0.7 * len(text):
        return ""  # another script: the table knows nothing of it
    else:
        parts = _LETTERS.findall(text.lower())
    bound = _bigrams()[1]
    pairs = sum(map(len, parts))
    if pairs < _MIN_PAIRS:
        marks = sum(not c.isalnum() and not c.isspace() for c in text)
        return f"{marks} of {len(text)} characters are signs" if pairs < 3 and marks > max(8, 0.6 * len(text)) else ""
    odd = sum([len(word) for word in parts if len(word) >= 4 and _word_score(word) < bound])
    return f"{odd} of {pairs} letters are in words that no language has" if odd > _MAX_ODD_WORDS * pairs else ""


_PLAIN_WORDS: set[str] = set()  # met before and told to be a language's
_MOST_PLAIN_WORDS = 50_000


def _all_plain(vocabulary: frozenset[str]) -> bool:
    """Whether these are words of a language, and enough of them to tell."""
    unmet = vocabulary - _PLAIN_WORDS
    if unmet:
        bound = _bigrams()[1]
        plain = {word for word in unmet if len(word) < 4 or not word.isalpha() or _word_score(word) >= bound}
        if len(_PLAIN_WORDS) + len(plain) <= _MOST_PLAIN_WORDS:
            _PLAIN_WORDS.update(plain)
        if len(plain) < len(unmet):
            return False
    letters = 0
    for word in vocabulary:  # the first few are enough nearly always
        if word.isalpha():
            letters += len(word)
            if letters >= _MIN_PAIRS:
                return True
    return False


@lru_cache(maxsize=16_384)
def _word_score(word: str) -> float:
    return word_logprob(word, _bigrams()[0])


def word_logprob(word: str, table: dict[str, float]) -> float:
    """Mean log-probability per letter pair of a lower-case word, its two ends counted, in nats."""
    marked = f"^{word}$"
    return sum(table.get(a + b, -9.0) for a, b in pairwise(marked)) / (len(word) + 1)
