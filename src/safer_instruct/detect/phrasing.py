"""What one clause of an answer does, told by its words: two linear models over runs of one to three words.

Patterns (`cues`) know the phrases that somebody thought of; these models, fitted on clauses labelled by role, know which words such
phrases are made of. Words outside their vocabulary count by their ending, so that a phrase is known whatever it speaks of.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

_TOKEN = re.compile(r"[a-z']+|\d+|[?!:]")
_ENDING = re.compile(r"(?:ing|ed|ly|s)$")
_MAX_TOKENS = 60
Weights = dict[str, float]


@dataclass(frozen=True, slots=True)
class Roles:
    """The two models: which words are known, and the weight of each run of words for declining and for helping."""

    vocabulary: frozenset[str]
    declines: Weights
    helps: Weights

    def of(self, clause: str) -> tuple[float, float]:
        """P(declines) and P(helps) of a plain clause; 0 and 0 of one without words."""
        found = grams(clause, self.vocabulary)
        return (_probability(found, self.declines), _probability(found, self.helps)) if found else (0.0, 0.0)


@lru_cache(maxsize=1)
def shipped() -> Roles:
    """The models that `bench/refusal_fit.py` wrote."""
    stored = json.loads(files("safer_instruct.detect").joinpath("phrasing.json").read_text("utf-8"))
    return Roles(frozenset(stored["vocabulary"]), stored["declines"], stored["helps"])


def tokens(clause: str) -> list[str]:
    """Words, numbers and marks of a plain clause, as many as are looked at."""
    return _TOKEN.findall(clause)[:_MAX_TOKENS]


def grams(clause: str, vocabulary: frozenset[str]) -> set[str]:
    """Runs of one to three words of a plain clause; `^` stands before the first and `$` behind the last."""
    words = ["^", *(_general(token, vocabulary) for token in tokens(clause)), "$"]
    pairs = [f"{a} {b}" for a, b in pairwise(words)]
    return {*words[1:-1], *pairs, *(f"{pair} {c}" for pair, c in zip(pairs, words[2:], strict=False))} if len(words) > 2 else set()


def _probability(found: set[str], weights: Weights) -> float:
    return 1 / (1 + math.exp(-weights["bias"] - sum(weights[gram] for gram in found if gram in weights)))


def _general(token: str, vocabulary: frozenset[str]) -> str:
    if token in vocabulary:
        return token
    if token[0].isdigit():
        return "0"
    ending = _ENDING.search(token)
    return f"_{ending.group()}" if ending else "_"
