"""Embedders on paraphrases: do they put the same request nearer than another one in like words, and how fast.

python bench/embedders.py                       # the static one
python bench/embedders.py static sentence-transformers:FOLDER

`bench/data/paraphrases.jsonl`: 100 requests and complaints, each with a paraphrase in other words and with one that shares its words
and means something else. AUC of the cosine over the 200 pairs; triples ordered rightly; the cosine above which at most 1 pair in
100 is not a paraphrase, and the share of paraphrases above it. The word-trigram similarity of `filters/near.py` as a floor.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from safer_instruct.embed import load_embedder
from safer_instruct.filters.shingles import shingle

DATA = Path(__file__).parent / "data" / "paraphrases.jsonl"
SPEED_TEXTS = 20_000


def main(names: Sequence[str]) -> None:
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    texts = list(chain.from_iterable((row["text"], row["paraphrase"], row["other"]) for row in rows))
    print("| embedder | AUC | triples | cosine bound | found at that bound | texts/s |\n|---|---|---|---|---|---|")
    shingles, at = shingle(texts), np.arange(0, len(texts), 3)
    print(line("word trigrams", shingles.similarity(at, at + 1), shingles.similarity(at, at + 2), None))
    for name in names:
        embedder = load_embedder(name)
        vectors = embedder.embed(texts)
        many = [texts[i % len(texts)] for i in range(SPEED_TEXTS)]
        began = time.perf_counter()
        embedder.embed(many)
        speed = SPEED_TEXTS / (time.perf_counter() - began)
        print(line(name, (vectors[::3] * vectors[1::3]).sum(1), (vectors[::3] * vectors[2::3]).sum(1), speed))


def line(name: str, same: np.ndarray, other: np.ndarray, speed: float | None) -> str:
    auc = float((same[:, None] > other).mean() + (same[:, None] == other).mean() / 2)
    bounds = np.sort(np.concatenate([same, other]))
    bound = next((b for b in bounds if (other > b).sum() <= 0.01 * max((same > b).sum() + (other > b).sum(), 1)), bounds[-1])
    return f"| {name} | {auc:.3f} | {(same > other).mean():.2f} | {bound:.2f} | {(same > bound).mean():.2f} | {'' if speed is None else f'{speed:,.0f}'} |"


if __name__ == "__main__":
    main(sys.argv[1:] or ["static"])
