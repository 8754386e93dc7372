"""How alike two texts are, and how varied many: chrF, ROUGE-L, copying, distinct-n."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from safer_instruct.detect.words import words

_ORDER, _BETA = 6, 2.0


def chrf(hypothesis: str, reference: str) -> float:
    """chrF2 of one sentence, 0 to 100: F2 of character n-grams of orders 1 to 6, white space left out (Popovic 2015).

    Precision and recall are averaged over the orders that both sides are long enough for, as sacrebleu does.
    """
    left, right = "".join(hypothesis.split()), "".join(reference.split())
    precisions, recalls = [], []
    for order in range(1, _ORDER + 1):
        mine, theirs = _ngrams(left, order), _ngrams(right, order)
        if not mine or not theirs:
            break
        shared = sum((mine & theirs).values())
        precisions.append(shared / mine.total())
        recalls.append(shared / theirs.total())
    if not precisions:
        return 0.0
    return 100 * _f(sum(precisions) / len(precisions), sum(recalls) / len(recalls), _BETA)


def rouge_l(hypothesis: str, reference: str) -> float:
    """ROUGE-L F1, 0 to 1: the longest common subsequence of words, without stemming (Lin 2004, section 3)."""
    left, right = words(hypothesis), words(reference)
    if not left or not right:
        return 0.0
    common = _common_subsequence(left, right)
    return _f(common / len(left), common / len(right), 1.0)


def copied_share(text: str, source: str, *, run: int = 3) -> float:
    """Share of the words of `text` that stand in runs of at least `run` words taken from `source`; 0 for an empty text."""
    mine = words(text)
    known = {tuple(run_) for run_ in _windows(words(source), run)}
    covered: set[int] = set()
    for at, window in enumerate(_windows(mine, run)):
        if tuple(window) in known:
            covered.update(range(at, at + run))
    return len(covered) / len(mine) if mine else 0.0


def distinct(texts: Iterable[str], order: int) -> float:
    """distinct-n: different word n-grams over all word n-grams of `texts` (Li et al. 2016, section 4.3); 0 where there are none."""
    grams = [tuple(window) for text in texts for window in _windows(words(text), order)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[i : i + order] for i in range(len(text) - order + 1))


def _windows(parts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [parts[i : i + size] for i in range(len(parts) - size + 1)]


def _f(precision: float, recall: float, beta: float) -> float:
    below = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / below if below else 0.0


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence: O(len(left) * len(right)) time, O(len(right)) memory."""
    previous = [0] * (len(right) + 1)
    for word in left:
        current = [0]
        for j, other in enumerate(right, 1):
            current.append(previous[j - 1] + 1 if word == other else max(previous[j], current[-1]))
        previous = current
    return previous[-1]
