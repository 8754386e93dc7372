"""Filters of what crawls bring that is no running text, after the rules of Gopher, C4 and FineWeb.

Their rules were made for whole pages. Here they look at passages and replies, so those that only measure length are left out (50 words,
five sentences: `length` does that), each rule is asked from a size on at which it says something, and a text is dropped whole or kept
whole: no line is taken out of it. Written anew from the papers; datatrove, whose filters are the usual ones, wants a tokenizer's library and a runtime
for each of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from safer_instruct.detect.words import words_of
from safer_instruct.example import Example
from safer_instruct.filters.protocol import Filter, Finding

_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0)]
_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_SYMBOL = re.compile(r"#|\.\.\.|\N{HORIZONTAL ELLIPSIS}")
_BULLETS = ("-", "*", "\N{BULLET}", "\N{HYPHEN BULLET}", "\N{BLACK CIRCLE}", "\N{TRIANGULAR BULLET}", "\N{EN DASH}")
_ELLIPSES = ("...", "\N{HORIZONTAL ELLIPSIS}")
_END_MARKS = (".", "!", "?", ":", ";", '"', "'", ")", "\N{RIGHT DOUBLE QUOTATION MARK}", "\N{HORIZONTAL ELLIPSIS}", "\N{IDEOGRAPHIC FULL STOP}")
_SENTENCE_ENDS = (".", "!", "?", '"', "\N{RIGHT DOUBLE QUOTATION MARK}")
_POLICY = re.compile(r"\b(?:terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies)\b", re.I)
_SCRIPT = re.compile(r"\bjavascript\b", re.I)


class Gopher(Filter):
    """Texts that are no prose (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1, quality filtering).

    Attributes:
        min_mean_word: Least mean length of a word, in characters.
        max_mean_word: Largest.
        max_symbols: Most number signs and ellipses per word.
        max_bullets: Largest share of the lines that may begin with a bullet; asked from three lines on.
        max_ellipses: Largest share of the lines that may end in an ellipsis; asked from three lines on.
        min_alphabetic: Least share of the words with a letter in them.
        min_stop_words: Least number of different ones of the, be, to, of, and, that, have, with; English only, so 0 for other languages.
        stop_words_from: Words from which on they are asked for; fewer than the paper's 50 hit one reply of people in fifteen.
    """

    min_mean_word: Annotated[float, Field(ge=0)] = 3.0
    max_mean_word: Annotated[float, Field(gt=0)] = 10.0
    max_symbols: Annotated[float, Field(ge=0)] = 0.1
    max_bullets: _Share = 0.9
    max_ellipses: _Share = 0.3
    min_alphabetic: _Share = 0.8
    min_stop_words: _Count = 2
    stop_words_from: _Count = 50

    def check(self, example: Example) -> Finding:
        """Ask rule after rule; the score is the first number that is out of bounds."""
        text = self.subject(example)
        return _first(self._flaws(text, text.split()))

    def _flaws(self, text: str, parts: list[str]) -> Iterator[tuple[float, str]]:
        if not parts:
            return
        count, lines = len(parts), _lines(text)
        mean = sum(map(len, parts)) / count
        if not self.min_mean_word <= mean <= self.max_mean_word:
            yield mean, f"its words have {mean:.1f} characters on average, not {self.min_mean_word:g} to {self.max_mean_word:g}"
        if (symbols := len(_SYMBOL.findall(text)) / count) > self.max_symbols:
            yield symbols, f"has {symbols:.2f} number signs and ellipses per word, more than {self.max_symbols:g}"
        if len(lines) >= 3:
            yield from _more(sum(line.startswith(_BULLETS) for line in lines) / len(lines), self.max_bullets, "of its lines begin with a bullet")
            yield from _more(sum(line.endswith(_ELLIPSES) for line in lines) / len(lines), self.max_ellipses, "of its lines end in an ellipsis")
        if (spelled := sum(any(map(str.isalpha, part)) for part in parts) / count) < self.min_alphabetic:
            yield spelled, f"{spelled:.0%} of its words have a letter, fewer than {self.min_alphabetic:.0%}"
        if count >= self.stop_words_from and (stops := len(words_of(text).vocabulary & _STOP_WORDS)) < self.min_stop_words:
            yield stops, f"holds {stops} of the commonest words of English, fewer than {self.min_stop_words}"


class GopherRepetition(Filter):
    """Texts that say the same again and again (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1, repetition removal, table A1).

    Attributes:
        max_repeated_lines: Largest share of the lines that may repeat an earlier one.
        max_repeated_line_chars: Largest share of the characters in such lines.
        max_top_2: Largest share of the characters in the commonest two words in a row, where these stand more than once.
        max_top_3: Of three.
        max_top_4: Of four.
        max_repeated_5: Largest share of the characters in runs of five words that stood before.
        max_repeated_10: Of ten.
        top_from: Words of a text from which on the commonest runs are looked at: in short ones three words said twice are a fifth of it.
    """

    max_repeated_lines: _Share = 0.3
    max_repeated_line_chars: _Share = 0.2
    max_top_2: _Share = 0.2
    max_top_3: _Share = 0.18
    max_top_4: _Share = 0.16
    max_repeated_5: _Share = 0.15
    max_repeated_10: _Share = 0.1
    top_from: _Count = 50

    def check(self, example: Example) -> Finding:
        """Ask rule after rule; the score is the first number that is out of bounds."""
        text = self.subject(example)
        return _first(self._flaws(_lines(text), words_of(text).list))

    def _flaws(self, lines: list[str], parts: list[str]) -> Iterator[tuple[float, str]]:
        repeated = _repeats(lines)
        yield from _more(len(repeated) / max(1, len(lines)), self.max_repeated_lines, "of its lines stood before")
        yield from _more(_chars(repeated) / max(1, _chars(lines)), self.max_repeated_line_chars, "of its characters are in lines that stood before")
        if len(parts) == len(set(parts)):
            return
        whole = _chars(parts)
        tops = () if len(parts) < self.top_from else ((2, self.max_top_2), (3, self.max_top_3), (4, self.max_top_4))
        for size, most in tops:
            top, times = _commonest(parts, size)
            yield from _more(_chars(top) * times / whole if times > 1 else 0.0, most, f"of its characters are in the same {size} words")
        for size, most in ((5, self.max_repeated_5), (10, self.max_repeated_10)):
            yield from _more(_chars(_repeated_words(parts, size)) / whole, most, f"of its characters are in runs of {size} words that stood before")


class C4(Filter):
    """What stands around texts on pages and is none (Raffel et al. 2020, arXiv 1910.10683, section 2.2).

    The rule on words that one does not say is left out: they are what some corpora are collected for.

    Attributes:
        script: Drop texts that speak of Javascript, as warnings do that it is off.
        policy: Drop texts that speak of a cookie or privacy policy or of terms of use.
        lorem_ipsum: Drop the printers' filler.
        curly_brackets: Drop texts with a curly bracket, which are code; off for corpora of code.
        min_sentence_lines: Least share of the lines that end in . ! ? or a quotation mark; asked from three lines on.
    """

    script: bool = True
    policy: bool = True
    lorem_ipsum: bool = True
    curly_brackets: bool = True
    min_sentence_lines: _Share = 0.0

    def check(self, example: Example) -> Finding:
        """Ask rule after rule."""
        return _first(self._flaws(self.subject(example)))

    def _flaws(self, text: str) -> Iterator[tuple[float, str]]:
        if self.script and _SCRIPT.search(text):
            yield 1, "speaks of Javascript"
        if self.policy and (found := _POLICY.search(text)):
            yield 1, f"speaks of a policy: {found[0]!r}"
        if self.lorem_ipsum and "lorem ipsum" in text.lower():
            yield 1, "holds 'lorem ipsum'"
        if self.curly_brackets and ("{" in text or "}" in text):
            yield 1, "holds a curly bracket"
        if self.min_sentence_lines and len(lines := _lines(text)) >= 3:
            yield from _fewer(sum(line.endswith(_SENTENCE_ENDS) for line in lines) / len(lines), self.min_sentence_lines, "of its lines end as a sentence does")


class FineWeb(Filter):
    """Lists and menus that were taken for texts (Penedo et al. 2024, arXiv 2406.17557, section 3.6). All ask from `min_lines` lines on.

    Attributes:
        min_lines: Fewer lines tell nothing.
        min_punctuated: Least share of the lines that end in a punctuation mark.
        max_repeated_chars: Largest share of the characters in lines that stood before.
        max_short: Largest share of the lines that may be shorter than `short_chars`.
        short_chars: Length in characters below which a line is short.
    """

    min_lines: Annotated[int, Field(gt=0)] = 3
    min_punctuated: _Share = 0.12
    max_repeated_chars: _Share = 0.1
    max_short: _Share = 0.67
    short_chars: Annotated[int, Field(gt=0)] = 30

    def check(self, example: Example) -> Finding:
        """Ask rule after rule; the score is the first number that is out of bounds."""
        lines = _lines(self.subject(example))
        return _first(self._flaws(lines)) if len(lines) >= self.min_lines else Finding(True)

    def _flaws(self, lines: list[str]) -> Iterator[tuple[float, str]]:
        yield from _fewer(sum(line.endswith(_END_MARKS) for line in lines) / len(lines), self.min_punctuated, "of its lines end in a punctuation mark")
        yield from _more(_chars(_repeats(lines)) / max(1, _chars(lines)), self.max_repeated_chars, "of its characters are in lines that stood before")
        short = sum(len(line) < self.short_chars for line in lines) / len(lines)
        yield from _more(short, self.max_short, f"of its lines are shorter than {self.short_chars} characters")


def _first(flaws: Iterator[tuple[float, str]]) -> Finding:
    """What the first rule that does not pass found; no other is asked."""
    for score, reason in flaws:
        return Finding(False, round(score, 4), reason)
    return Finding(True)


def _more(share: float, most: float, what: str) -> Iterator[tuple[float, str]]:
    if share > most:
        yield share, f"{share:.0%} {what}, more than {most:.0%}"


def _fewer(share: float, least: float, what: str) -> Iterator[tuple[float, str]]:
    if share < least:
        yield share, f"{share:.0%} {what}, fewer than {least:.0%}"


def _lines(text: str) -> list[str]:
    """Lines without white space around them; empty ones are none."""
    return [stripped for line in text.split("\n") if (stripped := line.strip())] if "\n" in text else [text.strip()]


def _chars(parts: list[str] | tuple[str, ...]) -> int:
    return sum(map(len, parts))


def _repeats(lines: list[str]) -> list[str]:
    """The lines that stood before."""
    if len(lines) == len(set(lines)):
        return []
    left = Counter(lines) - Counter(set(lines))
    return list(left.elements())


def _commonest(parts: list[str], size: int) -> tuple[tuple[str, ...], int]:
    """The run of `size` words that stands there most often, and how often; of several the first."""
    counts = Counter(zip(*(parts[begin:] for begin in range(size)), strict=False))
    return counts.most_common(1)[0] if counts else ((), 0)


def _repeated_words(parts: list[str], size: int) -> list[str]:
    """Words of the runs of `size` words that stood before, each word once."""
    seen: set[tuple[str, ...]] = set()
    repeated: set[int] = set()
    for begin, run in enumerate(zip(*(parts[begin:] for begin in range(size)), strict=False)):
        if run in seen:
            repeated.update(range(begin, begin + size))
        seen.add(run)
    return [parts[at] for at in repeated]
