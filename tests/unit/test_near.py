"""Set-level near-duplicates, beside a search that compares all with all."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.detect.words import words
from safer_instruct.filters.near import deduplicate

WORDS = ["kettle", "parcel", "late", "again", "broken", "invoice"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), max_size=14)


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    parts = words(text)
    return frozenset(zip(parts, parts[1:], parts[2:], strict=False)) or frozenset([tuple(parts) or (f"\0{text}",)])


def jaccard(left: str, right: str) -> float:
    a, b = shingles(left), shingles(right)
    return len(a & b) / len(a | b)


def greedy(texts: list[str], scores: list[float], threshold: float) -> dict[int, int]:
    """Position -> position of what is kept in its place, by the definition."""
    kept: dict[int, int] = {}
    for i in sorted(range(len(texts)), key=lambda i: (-scores[i], i)):
        twin = next((j for j in kept if shingles(texts[j]) == shingles(texts[i])), None)
        near = [j for j in kept if kept[j] == j and jaccard(texts[i], texts[j]) >= threshold]
        kept[i] = kept[twin] if twin is not None else max(near, key=lambda j: jaccard(texts[i], texts[j]), default=i)
    return kept


@given(TEXTS, st.randoms(use_true_random=False), st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_what_is_kept_is_what_comparing_all_with_all_would_keep(texts: list[str], rng: random.Random, threshold: float) -> None:
    texts = [*texts, *(" ".join(w if rng.random() < 0.8 else rng.choice(WORDS) for w in text.split()) for text in texts)]
    scores = [float(rng.randint(0, 2)) for _ in texts]
    found = deduplicate(texts, scores, threshold=threshold)
    expected = greedy(texts, scores, threshold)
    assert found.kept.tolist() == [expected[i] for i in range(len(texts))]
    assert found.keep.tolist() == [expected[i] == i for i in range(len(texts))]
    assert found.similarity.tolist() == pytest.approx([jaccard(texts[i], texts[expected[i]]) for i in range(len(texts))])


@given(TEXTS, st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_a_cluster_is_all_that_near_pairs_link(texts: list[str], threshold: float) -> None:
    first = list(range(len(texts)))
    for a, b in combinations(range(len(texts)), 2):
        if jaccard(texts[a], texts[b]) >= threshold:
            old, new = max(first[a], first[b]), min(first[a], first[b])
            first = [new if at == old else at for at in first]
    assert deduplicate(texts, threshold=threshold).cluster.tolist() == first


def test_nothing_in_nothing_out() -> None:
    found = deduplicate([], threshold=0.7)
    assert (len(found.keep), len(found.cluster), len(found.kept), len(found.similarity)) == (0, 0, 0, 0)


def test_of_near_duplicates_the_best_stays_and_scores_that_are_missing_are_worst() -> None:
    text = "my kettle arrived broken again and nobody from the shop has answered me since last tuesday"
    texts = [text, text + " morning", text + " evening"]
    assert deduplicate(texts, threshold=0.7).keep.tolist() == [True, False, False]
    assert deduplicate(texts, [0.1, 0.2, 0.3], threshold=0.7).keep.tolist() == [False, False, True]
    assert deduplicate(texts, [float("nan"), float("-inf"), float("nan")], threshold=0.7).keep.tolist() == [True, False, False]


def test_texts_without_a_word_equal_only_themselves() -> None:
    assert deduplicate(["?!", "!?", "?!", "", ""], threshold=0.7).keep.tolist() == [True, True, False, True, False]


def test_many_texts_with_known_duplicates_are_found_whatever_batch_they_fall_in() -> None:
    rng = random.Random(1)
    originals = [" ".join(str(rng.randrange(5_000)) for _ in range(24)) for _ in range(18_000)]  # more than one chunk holds
    copies = [text.rsplit(" ", 1)[0] + " changed" for text in originals[:400]]
    found = deduplicate([*originals, *copies], threshold=0.7)
    assert found.keep.tolist() == [True] * 18_000 + [False] * 400
    assert found.kept[18_000:].tolist() == list(range(400))


def test_a_crowd_that_shares_all_but_a_word_leaves_one() -> None:
    rng = random.Random(2)
    common = " ".join(str(i) for i in range(40))
    crowd = [f"{common[:60]} {rng.randrange(10**9)} {common[60:]}" for _ in range(9_000)]
    found = deduplicate(crowd, [rng.random() for _ in crowd], threshold=0.7)
    assert found.keep.sum() == 1
    assert set(found.cluster.tolist()) == {0}


def test_of_several_that_are_near_the_most_similar_is_kept_in_its_place() -> None:
    row = [f"w{at}" for at in range(18)]
    first, second, last = (" ".join(row[begin:end]) for begin, end in ((0, 12), (4, 18), (3, 16)))
    assert deduplicate([first, second, last], threshold=0.4).kept.tolist() == [0, 1, 1]
    assert deduplicate([second, first, last], threshold=0.4).kept.tolist() == [0, 1, 0]
