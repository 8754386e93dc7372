"""Paired comparisons without assumptions: the exact sign test, how many pairs it needs, and correction for several tests."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist

_ALL_SIGNS = 14  # differences: so many signs are gone through one by one
_EXACT_PAIRS = 10_000  # beyond, the power is Noether's alone


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of the exact sign test (Dixon and Mood 1946): ties are left out, and wins are Binomial(n, 1/2).

    Raises:
        ValueError: A count is below 0.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"wins and losses are counts: {wins} and {losses} were given")
    count = wins + losses
    if count == 0:
        return 1.0
    return min(1.0, 2 * _lower_tail(min(wins, losses), count, 0.5))


def flip_test(differences: Sequence[float], *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the paired randomisation test (Fisher 1935, section 21): were the sides of each pair named by a coin, how often
    would the mean difference be as large as it is?

    Unlike the bootstrap's, its p cannot be smaller than so few differences allow: 2 of 2 to the number that are not 0.

    Args:
        differences: One per pair; those of 0 tell nothing.
        resamples: Draws of the signs, where they are too many to go through.
        seed: Equal seeds give equal p.
    """
    known = [value for value in differences if value]
    if not known:
        return 1.0
    least = abs(math.fsum(known)) - 1e-9
    if len(known) <= _ALL_SIGNS:
        sums = [0.0]
        for value in known:
            sums = [total + sign * value for total in sums for sign in (1, -1)]
        return sum(abs(total) >= least for total in sums) / len(sums)
    rng = random.Random(seed)
    signs = [rng.getrandbits(len(known)) for _ in range(resamples)]
    extreme = sum(abs(math.fsum(value if bits >> at & 1 else -value for at, value in enumerate(known))) >= least for bits in signs)
    return (extreme + 1) / (resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): so many tests together keep the error rate of one."""
    count = len(p_values)
    adjusted, largest = [1.0] * count, 0.0
    for rank, at in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (count - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def pairs_needed(win_rate: float, *, alpha: float = 0.05, power: float = 0.8, ties: float = 0.0) -> int:
    """Prompts that a sign test needs to find a win rate, by Noether's formula (1987, JASA 82(398), section 2).

    n = (z(1 - alpha/2) + z(power))^2 / (4 (p - 1/2)^2) decided pairs, where p is the win rate among them; with a share of
    ties so many more prompts are needed.

    Args:
        win_rate: Of all prompts, a tie counting half; not 1/2.
        alpha: Two-sided level of the test.
        power: Probability of finding it.
        ties: Share of prompts without a winner.

    Raises:
        ValueError: A value is outside its range, or the win rate cannot be with so many ties.
    """
    decided = _decided_rate(win_rate, ties)
    if not 0 < alpha < 1 or not 0 < power < 1:
        raise ValueError(f"alpha and power lie between 0 and 1: {alpha} and {power} were given")
    if decided == 0.5:
        raise ValueError("a win rate of 0.5 is no difference, and no number of prompts shows it")
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    return math.ceil(max(1.0, z**2 / (4 * (decided - 0.5) ** 2)) / (1 - ties) - 1e-9)


def sign_test_power(prompts: int, win_rate: float, *, alpha: float = 0.05, ties: float = 0.0) -> float:
    """Probability that the exact sign test on so many prompts finds a win rate: in the right direction, at level alpha.

    The share of ties is taken as it is; the test is discrete, so more prompts may now and then give a little less.

    Raises:
        ValueError: As for `pairs_needed`.
    """
    decided = _decided_rate(win_rate, ties)
    count = round(prompts * (1 - ties))
    better = max(decided, 1 - decided)
    if count > _EXACT_PAIRS:
        normal = NormalDist()
        return normal.cdf(2 * (better - 0.5) * math.sqrt(count) - normal.inv_cdf(1 - alpha / 2))
    least = least_wins(count, alpha)
    return 0.0 if least is None else _lower_tail(count - least, count, 1 - better)


def least_wins(count: int, alpha: float = 0.05) -> int | None:
    """Fewest wins of `count` decided pairs that the exact sign test calls a difference; None where not even all of them do."""
    low, high = count // 2, count + 1
    while low < high:  # the p-value falls with the number of wins
        middle = (low + high) // 2
        if middle <= count and sign_test(middle, count - middle) > alpha:
            low = middle + 1
        else:
            high = middle
    return low if low <= count else None


def detectable(prompts: int, *, alpha: float = 0.05, power: float = 0.8, ties: float = 0.0) -> float | None:
    """The smallest win rate above 1/2 that so many prompts show with that power; None where there is none below 1."""
    low, high = 0.5, 1 - ties / 2
    if sign_test_power(prompts, high, alpha=alpha, ties=ties) < power:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        if middle > low and sign_test_power(prompts, middle, alpha=alpha, ties=ties) < power:
            low = middle
        else:
            high = middle
    return high


def _decided_rate(win_rate: float, ties: float) -> float:
    """The win rate among the prompts that have a winner."""
    if not 0 <= ties < 1:
        raise ValueError(f"a share of ties lies from 0 to below 1: {ties} was given")
    decided = (win_rate - ties / 2) / (1 - ties)
    if not -1e-12 <= decided <= 1 + 1e-12:
        raise ValueError(f"with {ties:g} of ties a win rate lies between {ties / 2:g} and {1 - ties / 2:g}: {win_rate:g} was given")
    return min(1.0, max(0.0, decided))


def _lower_tail(most: int, count: int, chance: float) -> float:
    """P(X <= most) for X ~ Binomial(count, chance): logarithms keep small terms from vanishing."""
    if most < 0:
        return 0.0
    if chance in (0.0, 1.0):
        return float(chance == 0.0 or most >= count)
    logs = [_log_choose(count, k) + k * math.log(chance) + (count - k) * math.log1p(-chance) for k in range(most + 1)]
    largest = max(logs)
    return min(1.0, math.exp(largest) * math.fsum(math.exp(value - largest) for value in logs))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
