"""Variety: known values, and that each figure moves the way it should."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from safer_instruct.analysis.diversity import hashed, near_clusters, plane, self_bleu, vendi

WORDS = [f"w{i}" for i in range(400)]


def texts(count: int, vocabulary: int) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS[:vocabulary], k=12)) for _ in range(count)]


def test_self_bleu_of_equal_texts_is_one_and_of_strangers_near_nothing() -> None:
    assert self_bleu(["the cat sat on the mat"] * 3) == pytest.approx(1.0)
    assert self_bleu(["a b c d e", "f g h i j"]) < 0.05
    assert self_bleu(["only one"]) == 0.0


def test_self_bleu_is_bleu_4_with_the_other_texts_as_references() -> None:
    """By hand: 'a b c d e' against 'a b c d f': 4/5, 3/4, 2/3 and 1/2 of the n-grams, equal lengths."""
    expected = math.exp(sum(math.log(p) for p in (4 / 5, 3 / 4, 2 / 3, 1 / 2)) / 4)
    assert self_bleu(["a b c d e", "a b c d f"]) == pytest.approx(expected)


def test_self_bleu_does_not_count_an_n_gram_of_its_own() -> None:
    """'x x' occurs twice in the first text only, so nothing of it is found elsewhere."""
    assert self_bleu(["x x x x x x", "a b c d e f"]) < 0.05


def test_a_small_vocabulary_is_more_alike() -> None:
    assert self_bleu(texts(100, 12)) > self_bleu(texts(100, 400))


def test_vendi_counts_different_texts() -> None:
    assert vendi(np.eye(7, dtype=np.float32)) == pytest.approx(7)
    assert vendi(np.tile(np.eye(3, dtype=np.float32), (5, 1))) == pytest.approx(3)
    assert vendi(np.ones((9, 1), np.float32)) == pytest.approx(1)
    assert vendi(np.empty((0, 4), np.float32)) == 0.0


def test_near_duplicates_are_grouped_largest_first() -> None:
    found = near_clusters(["one two three four five six"] * 3 + ["alpha beta gamma delta", "alpha beta gamma delta", "something else altogether here"])
    assert (found.texts, found.clustered, found.sizes, found.examples) == (6, 5, (3, 2), (0, 3))
    assert near_clusters([]).sizes == ()


def test_hashed_vectors_are_near_where_words_are_shared() -> None:
    a, b, c = hashed(["my green kettle leaks", "the green kettle leaks", "write a poem of spring"])
    assert a @ b > 0.3 > a @ c
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)


def test_the_plane_shows_the_directions_of_most_variance() -> None:
    draw = np.random.default_rng(0)
    points = draw.normal(size=(200, 5)) * [9, 4, 0.1, 0.1, 0.1]
    flat, share = plane(points.astype(np.float32))
    assert share > 0.99 and abs(np.corrcoef(flat[:, 0], points[:, 0])[0, 1]) > 0.999
    assert (plane(points.astype(np.float32))[0] == flat).all()
    assert plane(np.ones((2, 3), np.float32))[0].shape == (2, 2)
