"""Sign test, power, Holm, Wilson, Bradley-Terry, length control: against scipy, against values in print, and against what must hold."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from safer_instruct.analysis.bootstrap import Bootstrap
from safer_instruct.analysis.bradleyterry import fit_strengths, rank_systems
from safer_instruct.analysis.lengthcontrol import fit_logistic, length_controlled, longer_wins
from safer_instruct.analysis.proportion import rate, wilson
from safer_instruct.analysis.signtest import detectable, flip_test, holm, least_wins, pairs_needed, sign_test, sign_test_power

COUNTS = st.integers(0, 400)


@settings(deadline=None, max_examples=50)
@given(wins=COUNTS, losses=COUNTS)
def test_the_sign_test_is_the_exact_binomial_test(wins: int, losses: int) -> None:
    p = sign_test(wins, losses)
    assert p == pytest.approx(binomtest(wins, wins + losses).pvalue if wins + losses else 1.0, rel=1e-9)
    assert p == sign_test(losses, wins) and 0 < p <= 1


def test_the_sign_test_stands_many_pairs_and_refuses_what_is_no_count() -> None:
    assert sign_test(8000, 7000) == pytest.approx(binomtest(8000, 15000).pvalue, rel=1e-8)
    with pytest.raises(ValueError, match="are counts"):
        sign_test(-1, 3)


def test_the_randomisation_test_is_the_sign_test_where_all_differences_are_alike() -> None:
    for wins, losses in ((9, 1), (5, 5), (12, 2), (3, 0), (1, 0)):
        assert flip_test([1.0] * wins + [-1.0] * losses + [0.0] * 4) == pytest.approx(sign_test(wins, losses))
    assert flip_test([]) == flip_test([0.0, 0.0]) == 1.0


def test_the_randomisation_test_of_many_differences_is_near_the_exact_one() -> None:
    assert flip_test([1.0] * 16 + [-1.0] * 6, seed=1) == pytest.approx(sign_test(16, 6), abs=0.01)
    assert flip_test([1.0] * 60) == pytest.approx(1 / 10_001)
    assert flip_test([1.0, -1.0] * 20) == 1.0
    draws = random.Random(7)
    signs = [draws.getrandbits(15) for _ in range(200)]
    differences = [1.0 + at for at in range(14)] + [-60.0]
    extreme = sum(abs(sum(d if bits >> at & 1 else -d for at, d in enumerate(differences))) >= 45 for bits in signs)
    assert flip_test(differences, resamples=200, seed=7) == (extreme + 1) / 201, "from 15 on, by draws, and what was seen counts with them"


def test_the_randomisation_test_weighs_differences_by_their_size() -> None:
    assert flip_test([3.0, 1.0, 1.0]) == 2 / 8 and flip_test([3.0, 1.0, -1.0]) == 6 / 8, "sums of +-3 +-1 +-1: 5, 3, 3, 1 and their opposites"
    fourteen = [1.0] * 13 + [-1.0]
    assert flip_test(fourteen) == flip_test(fourteen, resamples=1, seed=1) == pytest.approx(30 / 2**14), "14 are gone through one by one"


def test_holm_gives_the_values_of_the_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_a_p_and_keeps_their_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(v <= a <= 1 for v, a in zip(values, adjusted, strict=True))
    assert [a for _, a in sorted(zip(values, adjusted, strict=True))] == sorted(adjusted)


def test_the_prompts_needed_are_those_of_noethers_formula() -> None:
    z = (1.959964 + 0.841621) ** 2  # Noether 1987: alpha 0.05 two-sided, power 0.8
    assert pairs_needed(0.6) == math.ceil(z / 0.04) == 197 and pairs_needed(0.7) == math.ceil(z / 0.16) == 50
    assert pairs_needed(0.4) == pairs_needed(0.6) and pairs_needed(0.6, power=0.9) > 197 and pairs_needed(0.6, alpha=0.01) > 197
    assert pairs_needed(0.6, ties=0.5) == math.ceil(z / (4 * 0.2**2) / 0.5)
    for wrong in ({"win_rate": 0.5}, {"win_rate": 0.9, "ties": 0.5}, {"win_rate": 0.7, "alpha": 0.0}, {"win_rate": 0.7, "ties": 1.0}):
        with pytest.raises(ValueError, match=r"win rate|alpha|ties"):
            pairs_needed(**wrong)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 150), chance=st.floats(0.5, 1.0), alpha=st.floats(0.001, 0.3))
def test_the_power_is_the_chance_of_as_many_wins_as_the_test_asks_for(count: int, chance: float, alpha: float) -> None:
    least = least_wins(count, alpha)
    expected = 0.0 if least is None else float(binom.sf(least - 1, count, chance))
    assert sign_test_power(count, chance, alpha=alpha) == pytest.approx(expected, abs=1e-9)
    if least is not None:
        assert sign_test(least, count - least) <= alpha
        assert least - 1 < count / 2 or sign_test(least - 1, count - least + 1) > alpha


def test_what_many_prompts_show_is_less_than_what_few_show() -> None:
    assert least_wins(20) == 15 and least_wins(4) is None and detectable(4) is None
    few, many = detectable(30), detectable(300)
    assert few is not None and many is not None and 0.5 < many < few < 1
    assert sign_test_power(300, many) >= 0.8 > sign_test_power(300, many - 0.01)
    assert sign_test_power(20_000, 0.51) == pytest.approx(float(binom.sf((least_wins(20_000) or 0) - 1, 20_000, 0.51)), abs=0.01)


@settings(deadline=None, max_examples=50)
@given(of=st.integers(1, 300), data=st.data())
def test_wilsons_interval_is_scipys(of: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, of))
    ours, theirs = wilson(count, of), binomtest(count, of).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9) and ours.low <= ours.estimate <= ours.high


def test_a_rate_counts_what_is_known() -> None:
    found = rate([True, None, False, True])
    assert (found.count, found.of) == (2, 3) and found.share and found.share.estimate == pytest.approx(2 / 3)
    assert rate([None]).share is None
    with pytest.raises(ValueError, match="no proportion"):
        wilson(3, 2)


def test_two_systems_stand_as_far_apart_as_their_odds() -> None:
    strengths = fit_strengths(2, [(0, 1)], [299.5], [399])  # with the prior's tie: 300 of 400
    assert strengths[0] - strengths[1] == pytest.approx(math.log(3), abs=1e-6) and sum(strengths) == pytest.approx(0)


def test_the_strengths_are_those_that_the_likelihood_wants() -> None:
    """At the maximum each system's wins are what its strengths predict (Hunter 2004, equation 2)."""
    pairs, won, met = [(0, 1), (1, 2), (0, 2), (2, 3)], [7.0, 6.5, 9.0, 8.0], [10.0, 10.0, 12.0, 10.0]
    s = [math.exp(v) for v in fit_strengths(4, pairs, won, met)]
    for at in range(4):
        wins = sum((w if a == at else n - w) + 0.5 for (a, b), w, n in zip(pairs, won, met, strict=True) if at in (a, b))
        predicted = sum((n + 1) * s[at] / (s[a] + s[b]) for (a, b), n in zip(pairs, met, strict=True) if at in (a, b))
        assert predicted == pytest.approx(wins, abs=1e-5)


def test_a_ranking_says_which_places_the_intervals_allow() -> None:
    draw = random.Random(1)
    count, chance = 120, {("a", "b"): 0.52, ("b", "c"): 0.9, ("a", "c"): 0.9}
    scores = {pair: [float(draw.random() < p) for _ in range(count)] for pair, p in chance.items()}
    ranks = {r.name: r for r in rank_systems(["c", "b", "a"], scores, Bootstrap(count, resamples=300))}
    assert ranks["c"].rank == 3 and (ranks["c"].best_rank, ranks["c"].worst_rank) == (3, 3)
    assert {(ranks[n].best_rank, ranks[n].worst_rank) for n in "ab"} == {(1, 2)}
    assert sum(r.strength.estimate for r in ranks.values()) == pytest.approx(0)


def test_a_sweep_has_a_finite_strength_and_unlinked_systems_have_no_ranking() -> None:
    ranks = rank_systems(["a", "b"], {("a", "b"): [1.0] * 10}, Bootstrap(10, resamples=50))
    assert [r.name for r in ranks] == ["a", "b"] and ranks[0].strength.estimate < 3
    with pytest.raises(ValueError, match="link"):
        rank_systems(["a", "b", "c"], {("a", "b"): [1.0]}, Bootstrap(1, resamples=5))


def test_systems_that_cannot_be_told_apart_share_their_places() -> None:
    ranks = rank_systems(["b", "a"], {("b", "a"): [0.5] * 10}, Bootstrap(10, resamples=20))
    assert [(r.name, r.rank, r.best_rank, r.worst_rank) for r in ranks] == [("a", 1, 1, 2), ("b", 2, 1, 2)]


def test_prompts_that_were_not_judged_count_for_nobody() -> None:
    scores: dict[tuple[str, str], list[float | None]] = {("a", "b"): [1.0, None, 0.0, None]}
    both = rank_systems(["a", "b"], scores, Bootstrap(4, resamples=20))
    assert both[0].strength.estimate == pytest.approx(0, abs=1e-9)


def test_without_a_part_of_the_length_the_win_rate_stays_what_it_is() -> None:
    bootstrap = Bootstrap(200, resamples=200)
    found = length_controlled([1.0] * 150 + [0.0] * 50, [0.0] * 200, bootstrap)
    assert found.win_rate.estimate == pytest.approx(0.75, abs=1e-3) and found.phi == 0


def test_a_win_rate_that_comes_of_length_alone_goes_back_to_even() -> None:
    draw = random.Random(3)
    apart = [draw.gauss(120, 100) for _ in range(400)]  # mostly longer
    liked = [float(draw.random() < 1 / (1 + math.exp(-3 * math.tanh(d / 100)))) for d in apart]
    raw = sum(liked) / len(liked)
    found = length_controlled(liked, apart, Bootstrap(400, resamples=100))
    assert raw > 0.75 and abs(found.win_rate.estimate - 0.5) < 0.1 and found.phi > 1


def test_the_fit_is_where_the_gradient_is_nought() -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    design = np.column_stack([np.ones(60), draw.normal(size=60)])
    targets = draw.uniform(size=60)
    beta = fit_logistic(design, targets, (0.01, 1.0))
    gradient = design.T @ (1 / (1 + np.exp(-design @ beta)) - targets) + np.array([0.01, 1.0]) * beta
    assert np.abs(gradient).max() < 1e-4
    with pytest.raises(ValueError, match="per prompt"):
        length_controlled([1.0], [1.0, 2.0], Bootstrap(1, resamples=2))


def test_the_fit_comes_to_an_end_however_strong_the_priors_and_one_sided_the_targets() -> None:
    import numpy as np

    for seed in range(40):
        draw = np.random.default_rng(seed)
        design = draw.normal(size=(30, 2)) * 10 ** draw.uniform(-1, 1.5)
        ridge = 10 ** draw.uniform(-3, 2, size=2)
        targets = np.full(30, seed % 2) if seed % 4 < 2 else draw.integers(0, 2, size=30)
        beta = fit_logistic(design, targets.astype(float), ridge)
        gradient = design.T @ (1 / (1 + np.exp(-design @ beta)) - targets) + ridge * beta
        assert np.abs(gradient).max() < 1e-3, seed


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-5, 5), st.sampled_from((0.0, 0.5, 1.0))), max_size=40))
def test_the_longer_answer_wins_so_often_whoever_is_named_first(pairs: list[tuple[int, float]]) -> None:
    found = longer_wins([outcome for _, outcome in pairs], [apart for apart, _ in pairs])
    decided = [apart * (outcome - 0.5) for apart, outcome in pairs if outcome != 0.5]
    longer, equal = sum(value > 0 for value in decided), sum(value == 0 for value in decided)
    assert found is None if not decided else found == pytest.approx((longer + equal / 2) / len(decided))
    assert longer_wins([1 - outcome for _, outcome in pairs], [-apart for apart, _ in pairs]) == found


def test_the_longer_answers_wins_are_those_that_one_counts() -> None:
    """Five of twelve, and one of equal length; how far apart they are, by which an AUC goes, is not asked."""
    apart = [200, 150, 100, 90, 80, 0, -1, -2, -3, -4, -5, -6]
    assert longer_wins([1.0] * 12, apart) == pytest.approx(5.5 / 12)
    assert longer_wins([1.0] * 6, [-1] * 6) == 0.0 and longer_wins([0.5], [3]) is None
