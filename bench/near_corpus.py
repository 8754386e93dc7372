"""Instructions of which one in five is a near-duplicate, known by construction, and one in twenty a decoy that only looks like one.

Rows {"id", "text", "of", "jaccard"}: `of` is the earlier row that the text was edited from, `jaccard` the exact similarity of
their word trigrams. Near-duplicates have 0.7 to 1, decoys 0.4 to 0.65. No row is edited twice, so the pairs are the whole truth.

python bench/near_corpus.py 100000 corpus.jsonl
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

NEAR, DECOY = 0.2, 0.05
SYLLABLES = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]
OPENINGS = ("write", "explain", "rewrite this", "tell me", "give me", "how do i", "please", "list", "sum up", "can you", "what is")
POOL = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_corpus(arguments.out, arguments.rows, arguments.seed)


def write_corpus(path: Path, count: int, seed: int = 0) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(count, seed))


def rows(count: int, seed: int) -> Iterator[dict[str, object]]:
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(30_000)]
    weights = list(itertools.accumulate(1 / (i + 10) for i in range(len(words))))
    pool: list[tuple[int, list[str]]] = []  # texts that no row was edited from yet
    for number in range(count):
        kind = rng.random()
        if kind < NEAR + DECOY and pool:
            at = rng.randrange(len(pool))
            pool[at], pool[-1] = pool[-1], pool[at]
            of, original = pool.pop()
            text, similarity = edit(original, words, rng, (0.7, 0.999) if kind < NEAR else (0.4, 0.65))
            yield {"id": number, "text": " ".join(text), "of": of, "jaccard": similarity}
            continue
        text = [*rng.choice(OPENINGS).split(), *rng.choices(words, cum_weights=weights, k=rng.randint(12, 45))]
        if len(pool) < POOL:
            pool.append((number, text))
        else:
            pool[rng.randrange(POOL)] = (number, text)
        yield {"id": number, "text": " ".join(text), "of": None, "jaccard": None}


def edit(original: list[str], words: list[str], rng: random.Random, bounds: tuple[float, float]) -> tuple[list[str], float]:
    """Replace, insert, drop or swap words until the similarity falls between the bounds."""
    text = [*original]
    while True:
        at = rng.randrange(len(text) - 1)
        match rng.randrange(4):
            case 0:
                text[at] = rng.choice(words)
            case 1:
                text.insert(at, rng.choice(words))
            case 2:
                del text[at]
            case _:
                text[at], text[at + 1] = text[at + 1], text[at]
        similarity = jaccard(original, text)
        if bounds[0] <= similarity <= bounds[1]:
            return text, round(similarity, 4)
        if similarity < bounds[0]:
            text = [*original]


def jaccard(left: list[str], right: list[str]) -> float:
    a, b = set(zip(left, left[1:], left[2:], strict=False)), set(zip(right, right[1:], right[2:], strict=False))
    return len(a & b) / len(a | b)


if __name__ == "__main__":
    main()
