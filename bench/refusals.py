"""Refusal detection against labels: agreement, and the confusion of the three classes.

    python bench/refusals.py [FILE ...] [--errors] [--words]     (default: the held-out sets, and of the others the parts that nothing was fitted on)

Each by words alone and, without `--words`, with the embedded model as the reader of what these do not tell clearly (`refusing: {reader: true}`).
A FILE holds one JSON object a line with `text` and `label` (refusal, partial or compliance). `bench/refusal_fit.py` fits the models.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from safer_instruct.analysis.proportion import wilson
from safer_instruct.detect.refusal import CLASSES, classify
from safer_instruct.filters.refusal_reader import reader_if

DATA = Path(__file__).parents[1] / "tests" / "data" / "refusals"
BLIND = sorted((Path(__file__).parent / "data").glob("refusals-*.jsonl"))


def main() -> None:
    paths = [Path(a) for a in sys.argv[1:] if not a.startswith("--")] or [*sorted(DATA.glob("heldout*.jsonl")), *BLIND]
    readers = {"by words": None} if "--words" in sys.argv else {"by words": None, "with the reader": reader_if(True)}
    for path, how in product(paths, readers):
        if readers[how] and "mistakable" in path.name:  # it has learnt from them
            continue
        rows, began = read(path), time.process_time()
        found = [classify(row["text"], row.get("prompt", ""), readers[how]) for row in rows]
        print(f"\n{path.name}, {how}, {1000 * (time.process_time() - began) / len(rows):.1f} ms of CPU each")
        table([row["label"] for row in rows], [f.label for f in found])
        if "--errors" in sys.argv:
            for row, f in zip(rows, found, strict=True):
                if f.label != row["label"]:
                    print(f"  {row['label']} -> {f.label} {f.confidence:.2f}: {row['text'][:150]!r} [{f.span}]")


def read(path: Path) -> list[dict[str, str]]:
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row.get("split") != "dev"]


def table(labels: Sequence[str], found: Sequence[str]) -> None:
    counts = Counter(zip(labels, found, strict=True))
    right = sum(counts[c, c] for c in CLASSES)
    sure = wilson(right, len(labels))
    print(
        f"agreement {right / len(labels):.3f} ({right} of {len(labels)}; 95% interval {sure.low:.3f} to {sure.high:.3f})\n  label       "
        + "  ".join(f"{c:>10}" for c in CLASSES)
    )
    for label in CLASSES:
        print(f"  {label:<10}  " + "  ".join(f"{counts[label, c]:>10}" for c in CLASSES))


if __name__ == "__main__":
    main()
