"""Some pairs of finished runs, to be read: python bench/pairs_sample.py runs/civility [RUN ...] [--n 5]

They are taken at equal distances over the set, the first at a place that follows from --seed, so nobody has picked them. Markdown.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from safer_instruct.rundir import read_summary
from safer_instruct.tables import pairs_and_twins, read_pairs
from safer_instruct.visible import visible


def main() -> None:
    """Print them, run by run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for path in args.runs:
        summary = read_summary(path)
        models = ", ".join(f"{role} {name}" for role, name in summary["models"].items())
        print(f"## {summary['domain']['name']}: {pairs_and_twins(summary):,} pairs of {summary['rows']:,} rows\n\n{models}\n")
        for row in some(path, pairs_and_twins(summary), args.n, args.seed):
            print(as_markdown(row))


def some(path: Path, count: int, wanted: int, seed: int) -> Iterator[dict[str, Any]]:
    """`wanted` pairs of `count`, at equal distances."""
    step = max(count / max(wanted, 1), 1)
    start = random.Random(seed).random() * step
    places = {int(start + number * step) for number in range(wanted)}
    yield from islice((row for at, row in enumerate(read_pairs(path)) if at in places), wanted)


def as_markdown(row: dict[str, Any]) -> str:
    """One pair; what was said before its prompt first."""
    twin = f", twin of {row['twin_of']}" if row.get("twin_of") else ""
    before = [(message["role"], message["content"]) for message in row.get("history") or ()]
    parts = [*before, ("prompt", row["prompt"]), ("chosen", row["chosen"]), ("rejected", row["rejected"])]
    lines = [f"**{row['id']}** ({row['category']}{twin})\n"]
    for name, text in parts:
        shown = "\n  ".join(visible(line) for line in text.splitlines()) or "(empty)"
        lines.append(f"- *{name}*: {shown}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
