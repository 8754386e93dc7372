"""Choosing N of M beside random choice and the best by quality: what is covered, how good it is, what it takes.

python bench/selection.py ../shared/data/instruction_response_585.jsonl
python bench/selection.py --synthetic 100000 --targets 1000 10000

Coverage is the mean cosine of every text to its nearest chosen one; words the share of the corpus's distinct words (those of two
texts or more) that the choice holds, which the method never looks at; topics, for the synthetic corpus, the share of its 1,000
topics. Quality is the mean rank, 0 to 1. For the shared data the answer's length stands for quality; in the synthetic corpus it goes
with the topic, so that the best by quality come from few of them. Random: mean of 10 draws, and their best coverage.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from safer_instruct.detect.words import words
from safer_instruct.embed import load_embedder
from safer_instruct.selection import coverage, select

DRAWS = 10
TOPICS = 1_000
FIELD = "instruction"


@dataclass(frozen=True)
class Corpus:
    """Texts, what each is worth, and its topic where that is known."""

    texts: list[str]
    quality: list[float]
    topics: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="JSONL with instruction and output")
    parser.add_argument("--synthetic", type=int, metavar="M")
    parser.add_argument("--targets", type=int, nargs="+", default=[25, 50, 100])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.2, 0.5])
    arguments = parser.parse_args()
    corpus = synthetic(arguments.synthetic) if arguments.synthetic else read(arguments.file)
    began = time.perf_counter()
    vectors = load_embedder().embed(corpus.texts)
    print(f"{len(corpus.texts):,} texts, embedded in {time.perf_counter() - began:.1f} s\n")
    print("| N | choice | coverage | worst covered 1% | words | topics | quality | s |\n|---|---|---|---|---|---|---|---|")
    for target in arguments.targets:
        for line in compare(corpus, vectors, target, arguments.weights):
            print(line, flush=True)
    print(f"\npeak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def read(path: Path) -> Corpus:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Corpus([row[FIELD] for row in rows], [float(len(row["output"])) for row in rows], [0] * len(rows))


def synthetic(count: int) -> Corpus:
    """Topics as frequent as words are (Zipf), each with words of its own beside those of all."""
    rng = random.Random(0)
    frequent = list(accumulate(1 / (i + 1) for i in range(TOPICS)))
    vocabulary = [" ".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(3, 8))).replace(" ", "") for _ in range(20_000)]
    own = [rng.sample(vocabulary, 12) for _ in range(TOPICS)]
    worth = [rng.random() for _ in range(TOPICS)]
    topics = rng.choices(range(TOPICS), cum_weights=frequent, k=count)
    texts = [" ".join(rng.choices(own[topic], k=9) + rng.choices(vocabulary[:300], k=6)) for topic in topics]
    return Corpus(texts, [worth[topic] + rng.gauss(0, 0.1) for topic in topics], topics)


def compare(corpus: Corpus, vectors: np.ndarray, target: int, weights: Sequence[float]) -> Iterator[str]:
    """The rows of the table for one N."""
    count = len(corpus.texts)
    draws = [figures(corpus, vectors, random.Random(seed).sample(range(count), target)) for seed in range(DRAWS)]
    best = max(draw[0] for draw in draws)
    yield row(target, f"random (best coverage {best:.4f})", np.mean(draws, axis=0), None)
    top = sorted(range(count), key=lambda i: -corpus.quality[i])[:target]
    yield row(target, "top by quality", figures(corpus, vectors, top), None)
    for weight in weights:
        began = time.perf_counter()
        chosen = select(vectors, corpus.quality, target, quality_weight=weight)
        yield row(target, f"select, quality weight {weight}", figures(corpus, vectors, chosen), time.perf_counter() - began)


def figures(corpus: Corpus, vectors: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Coverage, its lowest percentile, words, topics, quality."""
    near = coverage(vectors, chosen)
    known = Counter(word for text in corpus.texts for word in set(words(text)))
    common = {word for word, n in known.items() if n >= 2}
    held = {word for i in chosen for word in words(corpus.texts[i])} & common
    ranks = np.argsort(np.argsort(corpus.quality)) / (len(corpus.quality) - 1)
    topics = len({corpus.topics[i] for i in chosen}) / len(set(corpus.topics))
    return np.array([near.mean(), np.quantile(near, 0.01), len(held) / len(common), topics, ranks[list(chosen)].mean()])


def row(target: int, name: str, values: np.ndarray, seconds: float | None) -> str:
    cells = [f"{value:.4f}" for value in values[:2]] + [f"{value:.3f}" for value in values[2:]]
    return f"| {target:,} | {name} | " + " | ".join([*cells, "" if seconds is None else f"{seconds:.1f}"]) + " |"


if __name__ == "__main__":
    main()
