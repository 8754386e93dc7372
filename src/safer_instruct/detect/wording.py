"""What an answer does, told by the words of the whole of it: a linear model of the three classes over runs of words.

Three kinds of grams: runs of one and two words; the same with the place of their clause (`F` first, `M` middle, `L` last) and the beginnings
of clauses (`^`); pairs of words with one to three others between. Each kind is weighed by tf-idf and brought to length 1 (Salton and Buckley
1988), so that long answers and short ones weigh the same. `bench/refusal_wording.py` fits the weights.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

from safer_instruct.detect import cues

KINDS = {"runs": 1.0, "places": 0.5, "pairs": 0.5}  # how much each kind counts beside the others
_TOKEN = re.compile(r"[a-z']+|\d+|[?!|:;,.\"()]")
_END = frozenset(".?!|:;")
_OPENING_WORDS = 4
_LEAST_KNOWN = 1 / 3  # of the words
_GAPS = (2, 3, 4)
Grams = dict[str, list[str]]
Weights = dict[str, tuple[float, float, float, float]]


@dataclass(frozen=True, slots=True)
class Wording:
    """The model: by kind, the inverse document frequency of each gram and its weights for refusal, partial and compliance; and the biases of these."""

    weights: dict[str, Weights]
    bias: tuple[float, ...]

    def shares(self, text: str) -> tuple[float, ...] | None:
        """Probability of refusal, partial and compliance, summing to 1: a multinomial logistic model.

        None where less than a third of the words are known: too short a text, or another language.
        """
        scores, all_grams = list(self.bias), grams(text)
        words = [gram for gram in all_grams["runs"] if gram.isalpha()]
        if sum(word in self.weights["runs"] for word in words) <= _LEAST_KNOWN * len(words):
            return None
        for kind, found in all_grams.items():
            for at, score in enumerate(_scores(Counter(found), self.weights[kind], KINDS[kind])):
                scores[at] += score
        shares = [math.exp(score - max(scores)) for score in scores]
        return tuple(share / sum(shares) for share in shares)

    def leaning(self, clause: str) -> float:
        """How much the words of one clause speak for compliance and against the other classes; cheaper than `shares`."""
        tokens = _TOKEN.findall(clause)
        scores = _scores(Counter((*tokens, *_neighbours(tokens))), self.weights["runs"], 1.0)
        return scores[2] - max(scores[:2])


@lru_cache(maxsize=1)
def shipped() -> Wording:
    """The model that `bench/refusal_wording.py` wrote; numbers are kept as hundredths."""
    stored = json.loads(files("safer_instruct.detect").joinpath("wording.json").read_text("utf-8"))
    weights = {kind: {gram: _numbers(numbers) for gram, numbers in table.items()} for kind, table in stored["weights"].items()}
    return Wording(weights, tuple(stored["bias"]))


def _numbers(written: str) -> tuple[float, float, float, float]:
    idf, refusal, partial, compliance = (int(number) / 100 for number in written.split())
    return idf, refusal, partial, compliance


def grams(text: str) -> Grams:
    """The grams of a text by kind, each as often as it stands there."""
    tokens = _TOKEN.findall(cues.plain(text).replace("\n", " | "))
    runs = [*tokens, *_neighbours(tokens)]
    pairs = [f"{tokens[at]}_{tokens[at + gap]}" for gap in _GAPS for at in range(len(tokens) - gap)]
    return {"runs": runs, "places": list(_places(tokens)), "pairs": pairs}


def scaled(counts: Counter[str], idf: dict[str, float], length: float) -> list[tuple[str, float]]:
    """(1 + ln count) * idf of each known gram, the whole brought to Euclidean length `length`."""
    values = [(gram, (1 + math.log(count)) * idf[gram]) for gram, count in counts.items() if gram in idf]
    norm = math.sqrt(sum(value * value for _, value in values)) or 1.0
    return [(gram, length * value / norm) for gram, value in values]


def _scores(counts: Counter[str], weights: Weights, length: float) -> tuple[float, float, float]:
    """What `scaled` values times each class's weights add up to, in one loop: half of the time that an answer takes is spent here."""
    refusal = partial = compliance = squares = 0.0
    for gram, count in counts.items():
        if known := weights.get(gram):
            value = known[0] if count == 1 else (1 + math.log(count)) * known[0]
            squares += value * value
            refusal += value * known[1]
            partial += value * known[2]
            compliance += value * known[3]
    scale = length / math.sqrt(squares) if squares else 0.0
    return refusal * scale, partial * scale, compliance * scale


def _neighbours(tokens: list[str]) -> list[str]:
    return [f"{a} {b}" for a, b in pairwise(tokens)]


def _places(tokens: list[str]) -> Iterator[str]:
    clauses = _clauses(tokens)
    for at, clause in enumerate(clauses):
        place = "F" if at == 0 else ("L" if at == len(clauses) - 1 else "M")
        yield from (f"{place}{gram}" for gram in (*clause, *_neighbours(clause)))
        yield from (f"^{' '.join(clause[:size])}" for size in range(1, _OPENING_WORDS + 1))


def _clauses(tokens: list[str]) -> list[list[str]]:
    """Tokens up to each mark that ends a clause, the mark with them; a mark alone is none."""
    clauses: list[list[str]] = []
    start = 0
    for at, token in enumerate((*tokens, "|")):
        if token in _END:
            if at > start:
                clauses.append(tokens[start : at + 1])
            start = at + 1
    return clauses
