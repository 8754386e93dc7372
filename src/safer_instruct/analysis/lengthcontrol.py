"""The win rate that would be had if both systems wrote at equal length, and how often the longer answer wins.

AlpacaEval 2's model of a preference (Dubois, Galambosi, Liang and Hashimoto 2024, "Length-Controlled AlpacaEval", equation 2):

    P(system beats baseline on x) = logistic( theta + phi * tanh((len(system) - len(baseline)) / std) + (psi_s - psi_b) * gamma_x )

and the length-controlled win rate is its mean over x with the term of the length left out. Here the third term is left out
too: gamma_x, how hard instruction x is, is fitted in AlpacaEval on the answers of some hundred models of its leaderboard, which
nobody's own prompts have. What remains is logistic(theta). The fit is a logistic regression on preferences between 0 and 1 with
Gaussian priors: weak on theta (it keeps a sweep finite), standard normal on phi (AlpacaEval regularises it too, so that nobody
gains by writing all answers short).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from safer_instruct.analysis.bootstrap import Bootstrap, Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Reals = NDArray[np.float64]

_PRECISION = (0.01, 1.0)  # of the priors on theta and phi
_STEPS, _ENOUGH = 50, 1e-10


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A length-controlled win rate.

    Attributes:
        win_rate: logistic(theta), with its interval.
        phi: What length does: above 0 the longer answer is liked more.
    """

    win_rate: Interval
    phi: float


def length_controlled(preferences: Sequence[float], differences: Sequence[float], bootstrap: Bootstrap) -> LengthControlled:
    """Fit the model above.

    Args:
        preferences: Per prompt how far the system is preferred to the baseline, 0 to 1.
        differences: Per prompt the length of the system's answer less that of the baseline's, in any unit.
        bootstrap: Over prompts; the lengths are scaled by their spread over all of them in every resample.

    Raises:
        ValueError: Not the same number of both, or none.
    """
    import numpy as np

    if not preferences or len(preferences) != len(differences):
        raise ValueError(f"a preference and a difference per prompt are needed: {len(preferences)} and {len(differences)} were given")
    liked, apart = np.asarray(preferences, float), np.asarray(differences, float)
    spread = float(apart.std())
    scaled = np.tanh(apart / spread) if spread > 0 else np.zeros_like(apart)
    design = np.stack([np.ones_like(scaled), scaled], axis=1)

    def rate(indices: Sequence[int]) -> float:
        rows = np.asarray(indices)
        return _logistic(float(fit_logistic(design[rows], liked[rows], _PRECISION)[0]))

    return LengthControlled(bootstrap.interval(rate), float(fit_logistic(design, liked, _PRECISION)[1]))


def fit_logistic(design: Reals, targets: Reals, precision: Sequence[float]) -> Reals:
    """Coefficients [k] that maximise the Bernoulli likelihood of `targets` [n], each 0 to 1, under logistic(design [n, k] @ coefficients).

    With Gaussian priors of that `precision` around 0; Newton's method, halved where a step would overshoot.
    """
    import numpy as np

    ridge = np.asarray(precision, float)
    beta = np.zeros(design.shape[1])

    def loss(at: Reals) -> float:
        z = design @ at
        return float(np.sum(np.logaddexp(0.0, z) - targets * z) + 0.5 * np.sum(ridge * at**2))

    now = loss(beta)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-(design @ beta)))
        gradient = design.T @ (chance - targets) + ridge * beta
        hessian = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (new := loss(beta - size * step)) > now + 1e-12 and size > 1e-6:
            size /= 2
        beta, before, now = beta - size * step, now, new
        if before - now < _ENOUGH:
            break
    return beta


def longer_wins(outcomes: Sequence[float], differences: Sequence[float]) -> float | None:
    """Share of the prompts with a winner on which the longer answer is the winner; equal lengths count half.

    Args:
        outcomes: Per prompt 1 where the system wins, 0.5 for a tie, 0 where the other does.
        differences: Per prompt the length of the system's answer less that of the other's.

    Returns:
        1/2 is chance, and below it the shorter answer wins more often; None where nobody won.
    """
    decided = [(outcome > 0.5, apart) for outcome, apart in zip(outcomes, differences, strict=True) if outcome != 0.5]
    return fmean(0.5 if apart == 0 else float(won == (apart > 0)) for won, apart in decided) if decided else None


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
