"""Refusal detection against labels: agreement, and the confusion of the three classes.

    python bench/refusals.py [FILE ...]     (default: the set it was fitted on, by cross-validation, and the held-out sets)
    python bench/refusals.py --fit          fit the two models again and write src/safer_instruct/detect/refusal.json (needs scikit-learn)

A FILE holds one JSON object a line with `text` and `label` (refusal, partial or compliance).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from safer_instruct.detect.refusal import classify, features

DATA = Path(__file__).parents[1] / "tests" / "data" / "refusals"
MODEL = Path(__file__).parents[1] / "src" / "safer_instruct" / "detect" / "refusal.json"
CLASSES = ("refusal", "partial", "compliance")
FOLDS, SEED = 10, 0


def main() -> None:
    if "--fit" in sys.argv:
        train = read(DATA / "train.jsonl")
        MODEL.write_text(json.dumps(fit(train), indent=1) + "\n", encoding="utf-8")
        cross_validate(train)
    paths = [Path(a) for a in sys.argv[1:] if not a.startswith("--")] or sorted(DATA.glob("*.jsonl"))
    for path in paths:
        rows = read(path)
        print(f"\n{path.name}")
        found = [classify(row["text"]) for row in rows]
        table([row["label"] for row in rows], [f.label for f in found])
        if "--errors" in sys.argv:
            for row, f in zip(rows, found, strict=True):
                if f.label != row["label"]:
                    print(f"  {row['label']} -> {f.label} {f.confidence:.2f}: {row['text'][:150]!r} [{f.span}]")


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(labels: list[str], found: list[str]) -> None:
    counts = Counter(zip(labels, found, strict=True))
    right = sum(counts[c, c] for c in CLASSES)
    print(f"agreement {right / len(labels):.3f} ({right} of {len(labels)})\n  label       " + "  ".join(f"{c:>10}" for c in CLASSES))
    for label in CLASSES:
        print(f"  {label:<10}  " + "  ".join(f"{counts[label, c]:>10}" for c in CLASSES))


def fit(rows: list[dict[str, str]]) -> dict[str, dict[str, float]]:
    found = [(f, row["label"]) for row in rows if (f := features(row["text"]))]  # without a clause that declines the answer is known
    helping = [(f.helps, label == "partial") for f, label in found if label != "compliance"]
    return {
        "declines": weights([f.declines for f, _ in found], [label != "compliance" for _, label in found]),
        "helps": weights([values for values, _ in helping], [label for _, label in helping]),
    }


def weights(values: list[dict[str, float]], labels: list[bool]) -> dict[str, float]:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression

    vectors: Any = DictVectorizer(sparse=False)
    model = LogisticRegression(C=3.0, max_iter=5000).fit(vectors.fit_transform(values), labels)
    named = zip(vectors.get_feature_names_out(), model.coef_[0], strict=True)
    return {"bias": round(float(model.intercept_[0]), 4)} | {str(name): round(float(weight), 4) for name, weight in named}


def cross_validate(rows: list[dict[str, str]]) -> None:
    from sklearn.model_selection import StratifiedKFold

    from safer_instruct.detect import refusal

    found = [""] * len(rows)
    shipped = refusal._models
    for inside, outside in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(rows, [row["label"] for row in rows]):
        model = fit([rows[i] for i in inside])
        refusal._models = lambda model=model: (model["declines"], model["helps"])  # type: ignore[assignment]
        for i in outside:
            found[i] = classify(rows[i]["text"]).label
    refusal._models = shipped
    print(f"train.jsonl, {FOLDS}-fold")
    table([row["label"] for row in rows], found)


if __name__ == "__main__":
    main()
