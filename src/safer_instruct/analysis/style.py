"""What a text looks like, whatever it says: lengths, marks, layout. And how well that alone tells two sides apart.

A feature counts characters and shapes and knows no word, so a model that separates chosen from rejected by them has learned
form and nothing else. The fit is a logistic regression, judged on pairs that it was not fitted to.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from safer_instruct.analysis.bootstrap import Bootstrap, Interval
from safer_instruct.detect.words import words
from safer_instruct.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TELLS_LOOK, _TELLS_BAD = 0.65, 0.8  # of lengths: share of pairs that these tell apart
_RATIO_LOOK, _RATIO_BAD = 1.25, 1.5
_MARKS = {
    "full stops": ".",
    "commas": ",",
    "semicolons": ";",
    "colons": ":",
    "exclamation marks": "!",
    "question marks": "?",
    "parentheses": "(",
    "double quotes": '"',
    "apostrophes": "'",
    "curly quotes": "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}",
    "dashes": "\N{EM DASH}\N{EN DASH}",
    "ellipses": "\N{HORIZONTAL ELLIPSIS}",
    "asterisks": "*",
    "backticks": "`",
    "hash signs": "#",
    "bars": "|",
}
LAYOUT = {
    "bullet lists": re.compile(r"^[ \t]*[-*+\N{BULLET}] ", re.M),
    "numbered lists": re.compile(r"^[ \t]*\d{1,3}[.)] ", re.M),
    "headings": re.compile(r"^#{1,6} ", re.M),
    "bold": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
    "code blocks": re.compile(r"^```", re.M),
    "inline code": re.compile(r"(?<!`)`[^`\n]+`(?!`)"),
    "tables": re.compile(r"^\|.*\|[ \t]*$", re.M),
    "links": re.compile(r"\]\(|https?://"),
}
"""Marks of layout by name."""
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_SHOUTED = re.compile(r"\b[A-Z]{2,}\b")
NAMES = (
    *("words", "sentences", "lines", "paragraphs", "words a sentence", "characters a word", "different words"),
    *_MARKS,
    *LAYOUT,
    *("capitals", "shouted words", "digits", "beyond ASCII", "begins with a capital", "begins with a mark", "ends a sentence", "ends with a question"),
)
"""Name of each feature, in order."""
FOLDS, _FITTED, _JUDGED, _RESAMPLES, _SEED = 5, 20_000, 5_000, 400, 0
LEAST_PAIRS = 50
_TOLD = 5


@dataclass(frozen=True, slots=True)
class Separability:
    """How well style alone tells the sides apart.

    Attributes:
        pairs: How many pairs it was fitted to and judged on, by folds.
        auc: Probability that a chosen text looks more like a chosen one than a rejected text does, each judged by a fit that
            knew no pair with its prompt; 0.5 is chance. The interval is over pairs (bootstrap).
        within: Share of pairs in which the chosen side looks more like a chosen one; ties count half.
        telling: Features with the largest weights, standardised; positive speaks for the chosen side.
    """

    pairs: int
    auc: Interval
    within: float
    telling: tuple[tuple[str, float], ...]


def style(text: str) -> list[float]:
    """The features of a text, in the order of `NAMES`: logarithms of lengths, counts per 100 words, shares, and yes or no."""
    parts, stripped = text.split(), text.strip()
    count, letters = max(1, len(parts)), max(1, len(text))
    sentences, lines = len(_SENTENCE_END.findall(text)), text.count("\n") + 1
    per = 100 / count
    return [
        math.log1p(len(parts)),
        math.log1p(sentences),
        math.log1p(lines),
        math.log1p(text.count("\n\n")),
        math.log1p(count / max(1, sentences)),
        sum(map(len, parts)) / count,
        len(set(parts)) / count,
        *(_log(per * sum(map(text.count, marks))) for marks in _MARKS.values()),
        *(_log(per * len(pattern.findall(text))) if _may(name, text) else 0.0 for name, pattern in LAYOUT.items()),
        sum(map(str.isupper, text)) / letters,
        _log(per * len(_SHOUTED.findall(text))),
        sum(map(str.isdigit, text)) / letters,
        0.0 if text.isascii() else sum(c > "\x7f" for c in text) / letters,
        float(stripped[:1].isupper()),
        float(bool(stripped) and not stripped[0].isalnum()),
        float(stripped[-1:] in (".", "!", "?")),
        float(stripped[-1:] == "?"),
    ]


_HINTS = {"headings": "#", "bold": ("**", "__"), "code blocks": "```", "inline code": "`", "tables": "|", "links": ("](", "://")}


def has_layout(name: str, text: str) -> bool:
    """Whether the text holds a mark of `LAYOUT`."""
    return _may(name, text) and bool(LAYOUT[name].search(text))


def _may(name: str, text: str) -> bool:
    """A substring that must be there is found much faster than a pattern."""
    hint = _HINTS.get(name, "")
    return hint in text if isinstance(hint, str) else any(h in text for h in hint)


def _log(rate: float) -> float:
    return math.log1p(rate)


def separability(prompts: Sequence[str], chosen: Sequence[str], rejected: Sequence[str]) -> Separability:
    """Fit style to sides, five folds; pairs with one prompt stand in one fold.

    Of more than 20,000 pairs as many are taken, evenly; the interval comes from 5,000 of these.

    Args:
        prompts: [n] Only to keep equal ones together.
        chosen: [n] The preferred responses.
        rejected: [n] The others.

    Raises:
        ValueError: There are fewer than `LEAST_PAIRS` pairs.
        MissingExtraError: The extra `calibrate` is not installed.
    """
    if len(chosen) < LEAST_PAIRS:
        raise ValueError(f"{len(chosen)} pairs are too few to tell; {LEAST_PAIRS} are the least")
    import numpy as np

    taken = _evenly(len(chosen), _FITTED)
    x = np.array([style(side[i]) for i in taken for side in (chosen, rejected)], np.float64)  # 2k: chosen, 2k + 1: rejected
    y = np.arange(len(x)) % 2 == 0
    scores = _out_of_fold(x, y, np.repeat(_folds([prompts[i] for i in taken]), 2))
    left, right = scores[0::2], scores[1::2]
    judged = np.array(_evenly(len(left), _JUDGED))
    metrics = require("sklearn.metrics", extra="calibrate", purpose="telling sides apart by style")

    def auc(pairs: Sequence[int]) -> float:
        at = judged[np.asarray(pairs)]
        return float(metrics.roc_auc_score(np.repeat([True, False], len(at)), np.concatenate([left[at], right[at]])))

    interval = Bootstrap(len(judged), resamples=_RESAMPLES, seed=_SEED).interval(auc)
    weights = _fitted(x, y)[-1].coef_[0]
    order = np.argsort(-np.abs(weights))[:_TOLD]
    telling = tuple((NAMES[i], round(float(weights[i]), 3)) for i in order)
    return Separability(len(taken), interval, float((left > right).mean() + (left == right).mean() / 2), telling)


def _folds(prompts: Sequence[str]) -> NDArray[np.int64]:
    """[n] A fold for each pair, equal prompts in the same one, shuffled by a fixed seed."""
    import numpy as np

    numbers: dict[str, int] = {}
    which = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts])
    if len(numbers) < FOLDS:  # no prompts, or hardly any: each pair by itself
        which, count = np.arange(len(prompts)), len(prompts)
    else:
        count = len(numbers)
    folds: NDArray[np.int64] = np.random.default_rng(_SEED).permutation(count)[which] % FOLDS
    return folds


def _out_of_fold(x: Any, y: Any, fold: Any) -> Any:
    """[2n] Log-odds of being chosen, from the fit to the other folds."""
    import numpy as np

    scores = np.zeros(len(x))
    for number in range(FOLDS):
        test = fold == number
        if test.any():
            scores[test] = _fitted(x[~test], y[~test]).decision_function(x[test])
    return scores


def _fitted(x: Any, y: Any) -> Any:
    linear = require("sklearn.linear_model", extra="calibrate", purpose="telling sides apart by style")
    pipeline = require("sklearn.pipeline", extra="calibrate", purpose="telling sides apart by style")
    scaling = require("sklearn.preprocessing", extra="calibrate", purpose="telling sides apart by style")
    return pipeline.make_pipeline(scaling.StandardScaler(), linear.LogisticRegression(C=1.0, solver="newton-cholesky")).fit(x, y)


def _evenly(count: int, most: int) -> list[int]:
    return list(range(count)) if count <= most else [number * count // most for number in range(most)]


@dataclass(frozen=True, slots=True)
class LengthGap:
    """How lengths differ between the sides, in words.

    Attributes:
        chosen: Median of the chosen side.
        rejected: Median of the rejected side.
        ratio: Words of all chosen responses over words of all rejected ones; infinite where those have none.
        longer: Share of pairs in which the chosen response is the longer one.
        shorter: Share in which it is the shorter one.
    """

    chosen: float
    rejected: float
    ratio: float
    longer: float
    shorter: float

    @property
    def tells(self) -> float:
        """Share of pairs that the better of 'take the longer' and 'take the shorter' gets right; a tie is a coin's throw."""
        return max(self.longer, self.shorter) + (1 - self.longer - self.shorter) / 2

    @property
    def level(self) -> Literal["ok", "look", "bad"]:
        """The verdict of the audit, and of the report on a run: the worse of those on that share and on the ratio, either way round."""
        ratio = self.ratio if self.ratio >= 1 else 1 / max(self.ratio, 1e-9)
        if self.tells >= _TELLS_BAD or ratio >= _RATIO_BAD:
            return "bad"
        return "look" if self.tells >= _TELLS_LOOK or ratio >= _RATIO_LOOK else "ok"


def length_gap(chosen: Sequence[str], rejected: Sequence[str]) -> LengthGap:
    """Compare the lengths of both sides, pair by pair, in words; signs by themselves, such as the mark of a list, are none.

    Raises:
        ValueError: There is no pair.
    """
    return length_gap_of(*([len(words(text)) for text in side] for side in (chosen, rejected)))


def length_gap_of(chosen: Sequence[int], rejected: Sequence[int]) -> LengthGap:
    """The same of words that are counted already.

    Raises:
        ValueError: There is no pair.
    """
    if not len(chosen):
        raise ValueError("there is no pair to compare")
    longer = sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(chosen)
    shorter = sum(a < b for a, b in zip(chosen, rejected, strict=True)) / len(chosen)
    ratio = sum(chosen) / total if (total := sum(rejected)) else math.inf
    return LengthGap(statistics.median(chosen), statistics.median(rejected), ratio, longer, shorter)
