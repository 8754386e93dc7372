# /// script
# requires-python = ">=3.11"
# dependencies = ["rensa==0.5.0"]
# ///
"""rensa as its documentation shows it, 128 permutations, candidates checked by signature."""

from collections.abc import Iterator

from dedup_harness import THRESHOLD, measure, trigrams
from rensa import RMinHashDeduplicator


def drop(texts: list[str]) -> Iterator[int]:
    seen = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=128, use_lsh=True)
    kept = seen.add_pairs((str(i), trigrams(text)) for i, text in enumerate(texts))
    return (i for i, keep in enumerate(kept) if not keep)


if __name__ == "__main__":
    measure(drop)
