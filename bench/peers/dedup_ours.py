"""Ours at set level: exact, by prefix filtering."""

from dedup_harness import THRESHOLD, measure

from safer_instruct.filters.near import deduplicate


def drop(texts: list[str]) -> list[int]:
    return (~deduplicate(texts, threshold=THRESHOLD).keep).nonzero()[0].tolist()


if __name__ == "__main__":
    measure(drop)
