"""Which score tells good induced instructions from bad ones, and what a bound on it keeps.

    python bench/gates.py [FILE]

FILE (default bench/data/induction-labelled.jsonl): one JSON object a line with `text`, `prompt` (the likeliest candidate of the shipped
inducer for a reply of a held-out trade), `logprob`, `gain` and `plausible` (0 or 1, by reading: is `text` a plausible answer to `prompt`?).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from verifier import auc

SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data" / "induction-labelled.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    labels = [row["plausible"] for row in rows]
    print(f"{len(rows)} instructions, {sum(labels)} plausible ({sum(labels) / len(rows):.2f})")
    for score in ("logprob", "gain"):
        order = sorted(rows, key=lambda row: -row[score])
        good, bad = ([row[score] for row in rows if row["plausible"] == label] for label in (1, 0))
        print(f"\n{score}: AUC {auc(good, bad):.3f}\n  kept   bound  precision")
        for share in SHARES:
            kept = order[: max(1, round(share * len(order)))]
            print(f"  {share:4.0%}  {kept[-1][score]:+6.3f}  {sum(row['plausible'] for row in kept) / len(kept):.2f}")


if __name__ == "__main__":
    main()
