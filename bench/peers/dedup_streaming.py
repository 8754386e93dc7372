"""Ours while streaming, keep-first: signatures in SQLite on disk."""

from dedup_harness import THRESHOLD, measure

from safer_instruct.filters.dedup import Deduplicator


def drop(texts: list[str]) -> list[int]:
    seen = Deduplicator("text", THRESHOLD)
    return [i for i, text in enumerate(texts) if not seen.check(text, str(i)).passed]


if __name__ == "__main__":
    measure(drop)
