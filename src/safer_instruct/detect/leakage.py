"""How much of a response stands in the instruction that was induced from it.

An instruction that quotes its response teaches a model to copy. Some tasks need a quotation all the same (rewrite, translate,
classify ...): there the quoted block is left out of the count, but for texts that it holds whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from safer_instruct.detect.words import Words, words, words_of

GRAM = 8  # words: the run that per-run measures count, as published measurements of this method's sets do
_SHINGLE = 3
_GONE = "''"  # a word to these detectors, and none that an instruction holds
_WHOLE_FROM_WORDS = 4  # "Yes" and "Option B" stand in many a fair question
_QUOTED_FROM_WORDS = 4  # shorter runs are no quotation, and no bound is as tight
_BY_SUBSTRING_BELOW = 4_000_000  # characters of text times words of instruction; beyond, sets of n-grams are faster than substring search
_STOP = frozenset(
    words(
        "a about after again all also am an and any are as at be because been before being but by can can't could did do does doing don't down each "
        "few for from further had has have having he her here hers him his how i i'll i'm i've if in into is isn't it it's its itself just me more "
        "most my no nor not of off on once only or other our out over own same she should so some such than that that's the their them then there "
        "there's these they this those through to too under until up very was we we're were what when where which while who whom why will with won't "
        "would you you're your yours"
    )
)
_TASK = re.compile(
    r"\b(?:re-?write|re-?phrase|para-?phrase|translate|classify|categori[sz]e|label|summari[sz]e|sum up|shorten|condense|fix|correct|proof-?read|edit"
    r"|revise|improve|polish|simplify|"
    r"expand|extract|annotate|analy[sz]e|explain|identify|find|count|sort|convert|transcribe|format|tag|rate|score|complete|continue|respond|reply"
    r"|answer|decide|determine|compare|critique|review|evaluate|"
    r"what does|what is the (?:tone|sentiment|meaning|topic|main)|is (?:this|the following)|which of)\b",
    re.I,
)
_BLOCK = re.compile(
    r"```.+?(?:```|\Z)|\"[^\"]{12,}\"|\N{LEFT DOUBLE QUOTATION MARK}[^\N{RIGHT DOUBLE QUOTATION MARK}]{12,}\N{RIGHT DOUBLE QUOTATION MARK}"
    r"|\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}[^\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}]{12,}\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    r"|(?<=:)\s*\n.+\Z|(?:^>.*(?:\n|\Z))+|(?<=[.:?!\n])\n.{12,}\Z|(?<=[a-z]:)\s.{12,}\Z",
    re.S | re.M,
)

_BLOCK_MARKS = ('"', ":", "\n", "`", ">", "\N{LEFT DOUBLE QUOTATION MARK}", "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}")  # no block without one


class Leakage(NamedTuple):
    """What an instruction holds of a response.

    Attributes:
        identical: The instruction is the response, word for word.
        whole: The instruction contains the response, of four words or more, from its first word to its last.
        longest: Words in the longest run that both have, outside of what a task may quote.
        contained: Share of the response's word trigrams that stand in the instruction, outside of what a task may quote.
        covered: Share of the response's different content words that stand there.
        quoting: What both have was looked for outside of a block that the instruction quotes for its task.
    """

    identical: bool
    whole: bool
    longest: int
    contained: float
    covered: float
    quoting: bool

    @property
    def shares_gram(self) -> bool:
        """Whether a run of eight words stands in both."""
        return self.longest >= GRAM


@dataclass(frozen=True, slots=True)
class LeakageRates:
    """Leakage of a set of instructions: shares of all, 0 to 1."""

    instructions: int
    identical: float
    whole: float
    shared_gram: float
    quoting: float


def measure_leakage(prompt: str, text: str, *, allow_quotes: bool = True) -> Leakage:
    """Compare an instruction with the response it was induced from.

    Args:
        prompt: The instruction.
        text: The response.
        allow_quotes: Leave out a block that the instruction quotes for a task on it; `whole` and `identical` count it all the same.
    """
    asked, said = words_of(prompt), words_of(text)
    content = len(said.vocabulary) - len(said.vocabulary & _STOP)
    longest = longest_shared_run(asked.list, said.list, said)
    own, quoting, longest_with_quotes = asked, False, longest
    if allow_quotes and longest >= _QUOTED_FROM_WORDS and (block := quoted_block(prompt)):
        own, quoting = Words(f"{prompt[: block[0]]} | {prompt[block[1] :]}"), True
        longest = longest_shared_run(own.list, said.list, said)
    return Leakage(
        identical=bool(said.list) and asked.list == said.list,
        whole=_WHOLE_FROM_WORDS <= len(said.list) <= longest_with_quotes,
        longest=longest,
        contained=_shared_shingles(own, said) if longest >= _SHINGLE else 0.0,
        covered=len((own.vocabulary & said.vocabulary) - _STOP) / content if content else 0.0,
        quoting=quoting,
    )


def leakage_rates(pairs: Iterable[tuple[str, str]], *, allow_quotes: bool = False) -> LeakageRates:
    """Leakage over (instruction, response) pairs; by default quotations count, so that the figures are the strict ones."""
    found = [measure_leakage(prompt, text, allow_quotes=allow_quotes) for prompt, text in pairs]
    many = max(1, len(found))
    return LeakageRates(
        len(found),
        sum(f.identical for f in found) / many,
        sum(f.whole for f in found) / many,
        sum(f.shares_gram for f in found) / many,
        sum(f.quoting for f in found) / many,
    )


def without_said(text: str, said: Iterable[str]) -> str:
    """The words of a text without the runs of three or more that stand in one of the texts `said` before it; a mark stands in the place of each."""
    known = {trigram for other in said for trigram in _trigrams(words_of(other).list)}
    mine = words_of(text).list
    gone = {place for at, trigram in enumerate(_trigrams(mine)) if trigram in known for place in range(at, at + _SHINGLE)}
    return " ".join(_GONE if at in gone else word for at, word in enumerate(mine))


def quoted_block(prompt: str) -> tuple[int, int] | None:
    """Where an instruction quotes the text that its task works on: in quotation marks, fenced, or set off behind a colon; else None."""
    if not any(mark in prompt for mark in _BLOCK_MARKS):
        return None
    found = max(_BLOCK.finditer(prompt), key=lambda m: m.end() - m.start(), default=None)
    if not found or not (_TASK.search(prompt, 0, found.start()) or _TASK.search(prompt, found.end())):
        return None
    return found.span()


def longest_shared_run(left: list[str], right: list[str], right_view: Words | None = None) -> int:
    """Length of the longest run of words that both sides have.

    Short sides: a window over `left` that only grows or moves on, each step one substring search. Long ones: binary search for the
    length, as a shared run of n words holds one of n - 1; O((len(left) + len(right)) log) set operations.

    Args:
        left: Words of one side, the shorter one preferably.
        right: Words of the other.
        right_view: The `Words` that `right` is the list of, where it is at hand.
    """
    if len(left) * 6 * len(right) >= _BY_SUBSTRING_BELOW:
        return _longest_by_sets(left, right)
    joined = right_view.joined if right_view else f" {' '.join(right)} "
    known = right_view.vocabulary if right_view else frozenset(right)
    best = start = 0
    for end, word in enumerate((*left, "")):
        if word not in known:  # no run goes across a word that the other side lacks
            if end - start > best:
                best = _longest_within(left, start, end, joined, best)
            start = end + 1
    return best


def _longest_within(left: list[str], start: int, end: int, joined: str, best: int) -> int:
    """`best`, or the length of a longer run between `start` and `end`, all of whose words stand in `joined`."""
    while start + best < end:
        if best == 0 or f" {' '.join(left[start : start + best + 1])} " in joined:
            best += 1
        else:
            start += 1
    return best


def _longest_by_sets(left: list[str], right: list[str]) -> int:
    numbers: dict[str, int] = {}
    mine, theirs = ([numbers.setdefault(word, len(numbers)) for word in side] for side in (left, right))
    low, high = 0, min(len(mine), len(theirs))
    step = 4  # runs are short nearly always: gallop up to the first length that is not shared, then halve
    while low < high:
        middle = min(low + step, high) if step else (low + high + 1) // 2
        if _share(mine, theirs, middle):
            low, step = middle, 2 * step
        else:
            high, step = middle - 1, 0
    return low


_BASE, _PRIME = 1_000_003, (1 << 61) - 1


def _share(left: list[int], right: list[int], length: int) -> bool:
    """Whether a run of `length` words stands in both: rolling hashes (Karp and Rabin 1987), then the words themselves."""
    seen: dict[int, list[int]] = {}
    for at, value in _rolling(left, length):
        seen.setdefault(value, []).append(at)
    return any(left[i : i + length] == right[at : at + length] for at, value in _rolling(right, length) for i in seen.get(value, ())[:1])


def _rolling(numbers: list[int], length: int) -> Iterable[tuple[int, int]]:
    value, high = 0, pow(_BASE, length - 1, _PRIME)
    for at, number in enumerate(numbers):
        if at >= length:
            value = (value - (numbers[at - length] + 1) * high) % _PRIME
        value = (value * _BASE + number + 1) % _PRIME
        if at >= length - 1:
            yield at - length + 1, value


def _shared_shingles(prompt: Words, text: Words) -> float:
    """Share of the trigrams of a text of three words or more that stand in the prompt."""
    mine = set(_trigrams(prompt.list))
    if len(text.list) - len(text.vocabulary) < _SHINGLE:  # no trigram comes twice
        return sum(map(mine.__contains__, _trigrams(text.list))) / (len(text.list) - 2)
    theirs = set(_trigrams(text.list))
    return len(theirs & mine) / len(theirs)


def _trigrams(parts: list[str]) -> Iterable[tuple[str, str, str]]:
    return zip(parts, parts[1:], parts[2:], strict=False)
