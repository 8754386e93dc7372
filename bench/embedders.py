"""Embedders on paraphrases: do they put the same request nearer than another one in like words, and how fast.

python bench/embedders.py                       # the static one
python bench/embedders.py static sentence-transformers:FOLDER

`bench/data/paraphrases.jsonl`: 100 requests and complaints, each with a paraphrase in other words and with one that shares its words
and means something else. AUC of the cosine of paraphrases against those, and against the paraphrases of other rows; and how many
paraphrases, and of the others in like words, lie above a bound. Word trigrams, as in `filters/near.py`, for comparison.
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


def main(names: Sequence[str]) -> None:
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    texts = list(chain.from_iterable((row["text"], row["paraphrase"], row["other"]) for row in rows))
    print("| embedder | AUC, like words | AUC, other rows | above 0.8 | above 0.9 | texts per CPU second |\n|---|---|---|---|---|---|")
    shingles, at = shingle(texts), np.arange(0, len(texts), 3)
    grid = np.stack([shingles.similarity(at, np.roll(at + 1, -shift)) for shift in range(len(rows))], axis=1)
    print(line("word trigrams", grid, shingles.similarity(at, at + 2), None))
    for name in names:
        embedder = load_embedder(name)
        vectors = embedder.embed(texts)
        began = time.process_time()
        embedder.embed(texts)
        speed = len(texts) / (time.process_time() - began)
        ours, same, other = vectors[::3], vectors[1::3], vectors[2::3]
        grid = np.stack([(ours * np.roll(same, -shift, axis=0)).sum(axis=1) for shift in range(len(rows))], axis=1)
        print(line(name, grid, (ours * other).sum(axis=1), speed))


def line(name: str, grid: np.ndarray, other: np.ndarray, speed: float | None) -> str:
    """A row of the table; column k of the grid is the similarity of each text to the paraphrase k rows on."""
    same, foreign = grid[:, 0], grid[:, 1:].ravel()
    above = " | ".join(f"{(same >= bound).mean():.0%} and {(other >= bound).mean():.0%}" for bound in (0.8, 0.9))
    return f"| {name} | {auc(same, other):.3f} | {auc(same, foreign):.3f} | {above} | {'' if speed is None else f'{speed:,.0f}'} |"


def auc(higher: np.ndarray, lower: np.ndarray) -> float:
    return float((higher[:, None] > lower).mean() + (higher[:, None] == lower).mean() / 2)


if __name__ == "__main__":
    main(sys.argv[1:] or ["static"])
