"""Which score tells good induced instructions from bad ones, and what a bound on it keeps.

    python bench/gates.py [FILE]

FILE (default bench/data/induction-labelled.jsonl): one JSON object a line with `text`, `prompt` (the likeliest candidate of the shipped
inducer for a reply of a held-out trade), `logprob`, `gain` and `plausible` (0 or 1, by reading: is `text` a plausible answer to `prompt`?).
Then which combination of them and of leakage (longest run of shared words, share of covered words) orders the instructions best: AUC of a
logistic regression on rows that it was not fitted to, five folds, 20 times.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from verifier import auc

from safer_instruct.detect.leakage import longest_shared_run
from safer_instruct.detect.words import words

COMBINATIONS = (
    *(("logprob",), ("gain",), ("run",), ("cover",)),
    *(("logprob", "gain"), ("logprob", "run"), ("logprob", "cover"), ("gain", "run"), ("gain", "cover")),
    *(("logprob", "gain", "run"), ("logprob", "gain", "run", "cover")),
)
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
    print("\n| ordered by | AUC | standard deviation over the repetitions |\n|---|---|---|")
    for names in COMBINATIONS:
        mean, spread = combined(rows, names)
        print(f"| {', '.join(names)} | {mean:.3f} | {spread:.3f} |")


def features(row: dict[str, Any]) -> dict[str, float]:
    prompt, text = words(row["prompt"]), words(row["text"])
    covered = len({*prompt} & {*text}) / max(1, len({*prompt}))
    return {"logprob": row["logprob"], "gain": row["gain"], "run": float(longest_shared_run(prompt, text)), "cover": covered}


def combined(rows: list[dict[str, Any]], names: tuple[str, ...]) -> tuple[float, float]:
    x = numpy.array([[features(row)[name] for name in names] for row in rows])
    y = numpy.array([row["plausible"] for row in rows])
    found = []
    for repetition in range(20):
        aucs = []
        for train, test in StratifiedKFold(5, shuffle=True, random_state=repetition).split(x, y):
            unseen = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[train], y[train]).predict_proba(x[test])[:, 1]
            aucs.append(auc([v for v, label in zip(unseen, y[test], strict=True) if label], [v for v, label in zip(unseen, y[test], strict=True) if not label]))
        found.append(float(numpy.mean(aucs)))
    return float(numpy.mean(found)), float(numpy.std(found))


if __name__ == "__main__":
    main()
