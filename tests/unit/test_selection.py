"""Choosing N of M."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from safer_instruct.errors import ConfigError
from safer_instruct.selection import coverage, select, share_out


def clusters(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Unit vectors around as many directions as sizes."""
    rng = np.random.default_rng(seed)
    points = np.concatenate([np.eye(16)[i] + rng.normal(0, 0.05, (size, 16)) for i, size in enumerate(sizes)])
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_one_of_each_cluster_is_chosen_however_large_the_others_are() -> None:
    sizes = [200, 100, 40, 5, 3]
    label = np.repeat(np.arange(5), sizes)
    assert {int(label[i]) for i in select(clusters(sizes), [0.0] * 348, 5)} == set(range(5))


def test_it_comes_near_the_best_set_there_is() -> None:
    vectors = clusters([4, 4, 4], seed=3)
    best = max(float(coverage(vectors, subset).mean()) for subset in combinations(range(12), 3))
    assert float(coverage(vectors, select(vectors, [0.0] * 12, 3, quality_weight=0)).mean()) >= 0.99 * best


def test_quality_decides_alone_with_weight_one() -> None:
    quality = [float(i % 7) for i in range(21)]
    chosen = select(clusters([7, 7, 7]), [*quality], 3, quality_weight=1)
    assert {quality[i] for i in chosen} == {6.0}


def test_within_a_cluster_the_better_ones_are_chosen() -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    quality = [random.Random(i).random() for i in range(20)]
    expected = {max(range(k, k + 5), key=quality.__getitem__) for k in range(0, 20, 5)}
    assert set(select(vectors, quality, 4)) == expected


def test_the_same_input_gives_the_same_choice() -> None:
    vectors, quality = clusters([60, 30, 10]), [float(i) for i in range(100)]
    assert select(vectors, quality, 20, seed=5) == select(vectors, quality, 20, seed=5)
    assert select(vectors, quality, 20) == select(vectors, quality, 20, seed=0)


def test_quotas_are_kept_and_what_a_category_lacks_stays_empty() -> None:
    vectors, groups = clusters([30, 30, 2]), ["a"] * 30 + ["b"] * 30 + ["c"] * 2
    chosen = select(vectors, [0.0] * 62, 12, groups=groups, quotas={"a": 3, "b": 4, "c": 5})
    assert Counter(groups[i] for i in chosen) == {"a": 3, "b": 4, "c": 2}
    assert len(set(chosen)) == 9


def test_a_category_without_a_quota_gets_none() -> None:
    chosen = select(clusters([5, 5]), [0.0] * 10, 4, groups=["a"] * 5 + ["b"] * 5, quotas={"b": 4})
    assert sorted(chosen)[0] >= 5 and len(chosen) == 4


def test_all_are_taken_where_there_are_no_more() -> None:
    assert sorted(select(clusters([3, 2]), [float("nan")] * 5, 50)) == [0, 1, 2, 3, 4]
    assert select(clusters([1])[:0], [], 3) == []


@pytest.mark.parametrize(
    ("target", "shares", "expected"),
    [(10, {"a": 1, "b": 1}, {"a": 5, "b": 5}), (10, {"a": 2, "b": 1}, {"a": 7, "b": 3}), (2, {"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 1, "c": 0})],
)
def test_shares_become_whole_numbers_that_add_up(target: int, shares: dict[str, float], expected: dict[str, int]) -> None:
    assert share_out(target, shares) == expected


def test_shares_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="add up to nothing"):
        share_out(5, {"a": 0})


def test_with_weight_one_the_best_are_chosen_though_they_say_the_same() -> None:
    vectors = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    assert set(select(vectors, [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 2, quality_weight=1)) == {0, 1}
    assert {i // 3 for i in select(vectors, [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 2, quality_weight=0)} == {0, 1}


def test_the_weight_says_what_coverage_is_given_up_for() -> None:
    """Of a near twin of the first and a text of another direction: the twin adds 0.5 of rank over 2 places, the other 0.5 of coverage less."""
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    quality = [3.0, 2.0, 1.0, 0.0]
    assert set(select(vectors, quality, 2, quality_weight=0.7)) == {0, 2}, "0.3 * 0.5 + 0.35 / 3 > 0.35 * 2 / 3"
    assert set(select(vectors, quality, 2, quality_weight=0.9)) == {0, 1}, "0.1 * 0.5 + 0.45 / 3 < 0.45 * 2 / 3"


def test_coverage_is_told_for_every_text_whatever_the_size_of_the_blocks() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(4_100, 3)).astype(np.float32)
    chosen = [7, 4_099]
    assert np.allclose(coverage(vectors, chosen), (vectors @ vectors[chosen].T).max(axis=1), atol=1e-5)
