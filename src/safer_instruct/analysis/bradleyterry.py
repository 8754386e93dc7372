"""One scale for many systems from who beat whom (Bradley and Terry 1952): P(i beats j) = s_i / (s_i + s_j)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safer_instruct.analysis.bootstrap import Bootstrap, Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Reals = NDArray[np.float64]

_PRIOR_TIES = 1.0  # between any two that met: without it a system that never lost would stand at infinity
_STEPS, _ENOUGH = 2_000, 1e-9


@dataclass(frozen=True, slots=True)
class Rank:
    """Where one system stands.

    Attributes:
        name: The system.
        strength: ln s, the mean over all systems being 0; a difference of d means odds of e^d.
        rank: 1 for the strongest.
        best_rank: Lowest rank that the interval allows: 1 + how many systems lie above it as a whole.
        worst_rank: Highest: 1 + how many do not lie below it as a whole.
    """

    name: str
    strength: Interval
    rank: int
    best_rank: int
    worst_rank: int


def rank_systems(names: Sequence[str], scores: Mapping[tuple[str, str], Sequence[float | None]], bootstrap: Bootstrap) -> tuple[Rank, ...]:
    """The systems, strongest first.

    Args:
        names: Of the systems.
        scores: For each two that were compared, by prompt: 1 where the first won, 0 where it lost, between for ties; None where
            the prompt was not judged. All in the order of the bootstrap's prompts.
        bootstrap: Over prompts, so that all comparisons of a prompt stay together.

    Raises:
        ValueError: Fewer than two systems, or not all of them are linked by comparisons.
    """
    import numpy as np

    place = {name: at for at, name in enumerate(names)}
    if len(names) < 2 or not _linked(names, list(scores)):
        raise ValueError(f"a ranking needs two or more systems that comparisons link: {', '.join(names)}")
    pairs = [(place[a], place[b]) for a, b in scores]
    won = np.array([[0.0 if v is None else v for v in values] for values in scores.values()])  # [pairs, prompts]
    met = np.array([[float(v is not None) for v in values] for values in scores.values()])

    def strengths(indices: Sequence[int]) -> Reals:
        counts = np.bincount(np.asarray(indices), minlength=bootstrap.count).astype(float)
        return fit_strengths(len(names), pairs, won @ counts, met @ counts)

    estimate = strengths(range(bootstrap.count))
    drawn = bootstrap.intervals(strengths, len(names))
    order = sorted(range(len(names)), key=lambda at: (-estimate[at], names[at]))
    return tuple(
        Rank(
            names[at],
            drawn[at],
            rank,
            1 + sum(other.low > drawn[at].high for other in drawn),
            1 + sum(other.high >= drawn[at].low for i, other in enumerate(drawn) if i != at),
        )
        for rank, at in enumerate(order, 1)
    )


def fit_strengths(count: int, pairs: Sequence[tuple[int, int]], won: Sequence[float] | Reals, met: Sequence[float] | Reals) -> Reals:
    """[count] Maximum-likelihood ln s with mean 0, by Hunter's MM algorithm (2004, Annals of Statistics 32(1), equation 3).

    A tie is half a win for each, and each pair that met is given one tie more, which keeps all strengths finite.

    Args:
        count: Systems.
        pairs: Which two, by number.
        won: Wins of the first of each pair, ties counting half.
        met: Times that the pair met.
    """
    import numpy as np

    wins, games = np.zeros(count), np.zeros((count, count))
    for (a, b), w, n in zip(pairs, won, met, strict=True):
        wins[a] += w + _PRIOR_TIES / 2
        wins[b] += n - w + _PRIOR_TIES / 2
        games[a, b] += n + _PRIOR_TIES
        games[b, a] += n + _PRIOR_TIES
    s = np.ones(count)
    for _ in range(_STEPS):
        new = wins / (games / (s[:, None] + s[None, :])).sum(axis=1)
        new /= math.exp(float(np.log(new).mean()))
        if float(np.abs(np.log(new) - np.log(s)).max()) < _ENOUGH:
            s = new
            break
        s = new
    logs: Reals = np.log(s)
    return logs


def _linked(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether comparisons lead from each system to every other."""
    reached, waiting = {names[0]}, [names[0]]
    while waiting:
        at = waiting.pop()
        new = {b if a == at else a for a, b in pairs if at in (a, b)} - reached
        reached |= new
        waiting += new
    return reached == set(names)
