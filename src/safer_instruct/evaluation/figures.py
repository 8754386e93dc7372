"""From what the judges said to figures: who is better than whom, how surely, and in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from safer_instruct.analysis.agreement import cohen_kappa, flip_rate, krippendorff_alpha, observed_agreement
from safer_instruct.analysis.bootstrap import Bootstrap, Interval
from safer_instruct.analysis.bradleyterry import Rank, rank_systems
from safer_instruct.analysis.lengthcontrol import LengthControlled, length_controlled, longer_wins
from safer_instruct.analysis.proportion import mean_outcome
from safer_instruct.analysis.signtest import detectable, holm, sign_test
from safer_instruct.detect.words import words
from safer_instruct.evaluation.judges import Preference
from safer_instruct.evaluation.judging import Judged, Pair, Responses

_Lengths = Mapping[str, Sequence[int]]  # system -> words of each answer


@dataclass(frozen=True, slots=True)
class Counts:
    """Prompts that a system won, drew and lost, and the exact sign test on them."""

    wins: int
    ties: int
    losses: int
    p: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One system beside another on the same prompts, as the majority of the judges sees it.

    Attributes:
        system: The one that is looked at.
        other: The one that it is compared with.
        counts: Its wins, ties and losses.
        win_rate: (wins + ties / 2) / prompts, with a bootstrap interval over prompts (Wilson's where one side won all).
        p_adjusted: The sign test's p, by Holm's method for all comparisons of the measure.
        left_out: Prompts without a judgement: an answer is missing, or the judge did not say.
        by_judge: What each judge says by itself.
        length_controlled: The win rate at equal length, in words.
        longer_wins: Share of the prompts with a winner on which it is the longer answer, in words; equal lengths count half. 0.5 is
            chance, below it the shorter one wins more often; None where nobody won.
        told: 1 where the system is better, -1 where the other is, 0 where nobody can tell.
        verdict: All of it in plain words.
    """

    system: str
    other: str
    counts: Counts
    win_rate: Interval
    p_adjusted: float
    left_out: int
    by_judge: dict[str, Counts]
    length_controlled: LengthControlled
    longer_wins: float | None
    told: int
    verdict: str


@dataclass(frozen=True, slots=True)
class JudgeBias:
    """How one judge behaves, over all its pairs.

    Attributes:
        shown_first: Share of its preferences that went to the answer shown first; None for judges that score.
        flips: Share of pairs of which it prefers another answer when only the order changes.
        longer_wins: As for `Comparison`.
        unanswered: Pairs on which it did not say anything.
    """

    shown_first: float | None
    flips: float | None
    longer_wins: float | None
    unanswered: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two judges agree on who wins; kappa is None where it tells nothing."""

    first: str
    second: str
    shared: int
    observed: float
    kappa: float | None


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure by pairs: the comparisons, the ranking, and how the judges behaved.

    Attributes:
        comparisons: In the order of the pairs.
        ranking: Bradley-Terry, strongest first; empty for a single system.
        judges: Judge -> its biases.
        agreement: Of each two judges.
        alpha: Krippendorff's, of all judges; None of one judge, or where all say the same.
        outcomes: For each pair, as `SYSTEM / OTHER`, who won each prompt: 1, 0.5, 0, or None.
    """

    comparisons: tuple[Comparison, ...]
    ranking: tuple[Rank, ...]
    judges: dict[str, JudgeBias]
    agreement: tuple[Agreement, ...]
    alpha: float | None
    outcomes: dict[str, list[float | None]]


def counted(outcomes: Sequence[float | None]) -> Counts:
    """Wins, ties, losses and the sign test of outcomes 1, 0.5 and 0; None is left out."""
    known = Counter(outcome for outcome in outcomes if outcome is not None)
    return Counts(known[1.0], known[0.5], known[0.0], sign_test(known[1.0], known[0.0]))


def adjusted(compared: Sequence[Counts]) -> list[float]:
    """The sign test's p of each comparison of one measure, by Holm's method for all of them."""
    return holm([counts.p for counts in compared])


def majority(said: Sequence[Preference | None]) -> Preference | None:
    """What most judges prefer; their mean share. None where none of them says."""
    known = [preference for preference in said if preference is not None]
    if not known:
        return None
    balance = sum(p.outcome > 0.5 for p in known) - sum(p.outcome < 0.5 for p in known)
    outcome = 0.5 if balance == 0 else float(balance > 0)
    return Preference(outcome, fmean(p.share for p in known))


def measure(adjective: str, judged: Mapping[str, Judged], responses: Responses, bootstrap: Bootstrap) -> Measure:
    """The figures of one measure.

    Args:
        adjective: What the winner is: `harmless` or `helpful`.
        judged: Judge -> what it says of the pairs.
        responses: For their lengths.
        bootstrap: Over all prompts; where some were not judged, one like it over the others.
    """
    pairs = list(next(iter(judged.values())).pairs)
    decided = {pair: [majority(said) for said in zip(*(judge.pairs[pair] for judge in judged.values()), strict=True)] for pair in pairs}
    lengths = {name: [len(words(response.text)) if response else 0 for response in given] for name, given in responses.items()}
    found = []
    for pair in pairs:
        if any(decided[pair]):
            found.append(_comparison(pair, decided[pair], {name: judge.pairs[pair] for name, judge in judged.items()}, lengths, bootstrap))
    p_values = adjusted([comparison.counts for comparison in found])
    comparisons = tuple(_told(adjective, c, p, bootstrap.level, len(found)) for c, p in zip(found, p_values, strict=True))
    outcomes = {pair: [None if p is None else p.outcome for p in said] for pair, said in decided.items()}
    return Measure(
        comparisons,
        _ranking({pair: values for pair, values in outcomes.items() if any(v is not None for v in values)}, bootstrap),
        {name: _bias(judge, lengths) for name, judge in judged.items()},
        tuple(_agreements(judged)),
        _alpha(judged),
        {f"{a} / {b}": values for (a, b), values in outcomes.items()},
    )


def p_words(p: float) -> str:
    """A p-value as it is usually written."""
    cell = p_cell(p)
    return f"p {cell}" if cell.startswith("<") else f"p = {cell}"


def p_cell(p: float) -> str:
    """The same where the heading says that it is a p-value."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def _comparison(
    pair: Pair, decided: Sequence[Preference | None], by_judge: Mapping[str, Sequence[Preference | None]], lengths: _Lengths, bootstrap: Bootstrap
) -> Comparison:
    known = [(at, said) for at, said in enumerate(decided) if said is not None]
    over = bootstrap.over(len(known))
    apart = [float(lengths[pair[0]][at] - lengths[pair[1]][at]) for at, _ in known]
    return Comparison(
        *pair,
        counted([said.outcome for _, said in known]),
        mean_outcome([said.outcome for _, said in known], over),
        1.0,
        len(decided) - len(known),
        {name: counted([None if p is None else p.outcome for p in said]) for name, said in by_judge.items()},
        length_controlled([said.share for _, said in known], apart, over),
        longer_wins([said.outcome for _, said in known], apart),
        0,
        "",
    )


def _told(adjective: str, comparison: Comparison, p: float, level: float, count: int) -> Comparison:
    """The comparison, one of `count`, with its verdict: who is better and how surely, or that nobody can tell and what could have been told."""
    a, b, won = comparison.system, comparison.other, comparison.win_rate
    told = 0 if p >= 1 - level or won.estimate == 0.5 else 1 if won.estimate > 0.5 else -1
    if told < 0:
        a, b, won = b, a, Interval(1 - won.estimate, 1 - won.high, 1 - won.low)
    shown = f"win rate {won.estimate:.2f}, {level:.0%} {won.low:.2f} to {won.high:.2f}, {p_words(p)}"
    if told:
        verdict = f"{a} is more {adjective} than {b} ({shown})"
    else:
        verdict = f"cannot tell whether {a} or {b} is more {adjective} ({shown}{_hint(comparison.counts, level, count)})"
    return replace(comparison, p_adjusted=p, told=told, verdict=verdict)


def _hint(counts: Counts, level: float, count: int) -> str:
    """What so many prompts would show, one comparison of `count`: whatever the others give, Holm's method asks for no level below alpha / count."""
    total, alpha = counts.wins + counts.ties + counts.losses, (1 - level) / count
    if counts.ties == total:
        return ""
    least = detectable(total, alpha=alpha, ties=counts.ties / total)
    ties = " with so many ties" if counts.ties else ""
    shown = "no win rate at all" if least is None else f"a win rate of {least:.2f} or more"
    strict = f" at level {alpha:.2g}, the strictest step of Holm's method for {count} comparisons" if count > 1 else ""
    return f"; {total} prompts{ties} would show {shown}{strict}"


def _ranking(outcomes: dict[Pair, list[float | None]], bootstrap: Bootstrap) -> tuple[Rank, ...]:
    names = list(dict.fromkeys(name for pair in outcomes for name in reversed(pair)))
    if len(names) < 2:
        return ()
    try:
        return rank_systems(names, outcomes, bootstrap)
    except ValueError:  # some systems were never compared with the others
        return ()


def _bias(judged: Judged, lengths: _Lengths) -> JudgeBias:
    said = [(pair, at, p) for pair, found in judged.pairs.items() for at, p in enumerate(found)]
    shown = [won for _, _, p in said if p for won in p.shown_first_won]
    flips = [(p.shown_first_won[0], not p.shown_first_won[1]) for _, _, p in said if p and p.shown_first_won]
    longer = longer_wins([p.outcome for _, _, p in said if p], [lengths[a][at] - lengths[b][at] for (a, b), at, p in said if p])
    return JudgeBias(fmean(shown) if shown else None, flip_rate(flips), longer, sum(p is None for _, _, p in said))


def _agreements(judged: Mapping[str, Judged]) -> list[Agreement]:
    found = []
    for a, b in combinations(judged, 2):
        both = [(x.outcome, y.outcome) for pair in judged[a].pairs for x, y in zip(judged[a].pairs[pair], judged[b].pairs[pair], strict=True) if x and y]
        if both:
            ours, theirs = [x for x, _ in both], [y for _, y in both]
            found.append(Agreement(a, b, len(both), observed_agreement(ours, theirs), cohen_kappa(ours, theirs)))
    return found


def _alpha(judged: Mapping[str, Judged]) -> float | None:
    if len(judged) < 2:
        return None
    pairs = next(iter(judged.values())).pairs
    units = [[None if p is None else p.outcome for p in said] for pair in pairs for said in zip(*(j.pairs[pair] for j in judged.values()), strict=True)]
    return krippendorff_alpha(units, "nominal")
