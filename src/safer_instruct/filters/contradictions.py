"""Contradictory answers to one prompt: a refusal is the chosen response in one pair, help in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safer_instruct.detect.refusal import RefusalClass, classify
from safer_instruct.filters.near import best_first, resolve
from safer_instruct.filters.shingles import Shingles, shingle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from safer_instruct.filters.shingles import Rows

_COMPARED = 64  # kept pairs of the other kind, the best first, that a pair is compared with


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A pair that says the opposite of a better one.

    Attributes:
        loser: Position of the pair that should go.
        winner: Position of the pair that stands against it.
        similarity: Jaccard similarity of word trigrams of their prompts; 1.0 where they have the same words.
        refuses: Whether it is the loser that refuses.
    """

    loser: int
    winner: int
    similarity: float
    refuses: bool


def find_contradictions(prompts: Sequence[str], chosen: Sequence[str], scores: Sequence[float] | None = None, *, threshold: float) -> list[Contradiction]:
    """Go through the pairs, best first: one whose answer contradicts a better one to the same or nearly the same prompt is named.

    Partial refusals contradict nobody, nor do pairs without a prompt. Only answers to prompts that come twice are read, each once.

    Args:
        prompts: The prompts.
        chosen: The answer that each pair prefers.
        scores: What makes a pair better; a tie goes to the first. NaN is worst.
        threshold: Jaccard similarity of word trigrams from which two prompts count as one, above 0.

    Returns:
        In the order of their positions. What is left without the losers holds no contradiction, but where more than 64 near
        prompts are answered in the other way.
    """
    order, shingles = best_first(len(prompts), scores), shingle(prompts)
    known: dict[str, RefusalClass] = {}
    found: list[Contradiction] = []
    for group in _groups(order, shingles, threshold):
        if not prompts[group[0]].strip():
            continue
        kept: dict[RefusalClass, list[int]] = {"refusal": [], "compliance": []}
        for at in group:
            label = known.get(chosen[at]) or known.setdefault(chosen[at], classify(chosen[at]).label)
            if label == "partial":
                continue
            other = kept["compliance" if label == "refusal" else "refusal"]
            winner, similarity = _nearest(at, other, shingles)
            if winner is not None and similarity >= threshold:
                found.append(Contradiction(at, winner, similarity, label == "refusal"))
            else:
                kept[label].append(at)
    return sorted(found, key=lambda one: one.loser)


def _groups(order: Rows, shingles: Shingles, threshold: float) -> Iterator[list[int]]:
    """Positions of each cluster of near prompts that has two or more, best first."""
    cluster = resolve(order, shingles, threshold).cluster
    groups: dict[int, list[int]] = {}
    for at in order.tolist():
        groups.setdefault(int(cluster[at]), []).append(at)
    return (group for group in groups.values() if len(group) > 1)


def _nearest(at: int, others: Sequence[int], shingles: Shingles) -> tuple[int | None, float]:
    import numpy as np

    if not others:
        return None, 0.0
    compared = np.array(others[:_COMPARED])
    similarity = shingles.similarity(np.full(len(compared), at), compared)
    best = int(similarity.argmax())
    return int(compared[best]), round(float(similarity[best]), 4)
