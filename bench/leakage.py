"""Leakage of the responses into the instructions that were induced from them, before and after filtering.

    python bench/leakage.py RUN ...     run directories

Before: the likeliest candidate of every text. After: the instruction that the filters took. Quotations count as leakage here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from safer_instruct.detect.leakage import leakage_rates


def main() -> None:
    print(f"{'':<44} instructions  identical   whole  8-gram")
    for run in map(Path, sys.argv[1:]):
        rows = pq.read_table(run / "examples.parquet", columns=["text", "prompt", "candidates"]).to_pylist()
        report(f"{run.name}, before", ((row["candidates"][0]["text"], row["text"]) for row in rows if row["candidates"]))
        report(f"{run.name}, every candidate", ((c["text"], row["text"]) for row in rows for c in row["candidates"] or ()))
        report(f"{run.name}, after", ((row["prompt"], row["text"]) for row in rows if row["prompt"]))


def report(name: str, pairs: Iterable[tuple[str, str]]) -> None:
    rates = leakage_rates(pairs)
    print(f"{name:<44} {rates.instructions:>12}  {rates.identical:9.1%}  {rates.whole:6.1%}  {rates.shared_gram:6.1%}")


if __name__ == "__main__":
    main()
