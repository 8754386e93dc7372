"""Fits the model of whole answers (`detect/wording.json`), and measures it on authors that it was not fitted on.

    python bench/refusal_wording.py                 fits on everything but the halves that are kept for testing, and writes the model
    python bench/refusal_wording.py --left-out      fits once for each set of another author, without that set, and prints what it finds there

Needs scikit-learn, and `../shared/data` for some real answers. `bench/refusals.py` measures what is shipped.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from refusal_fit import DATA, PACKAGE, Row, composed, kind_replies, read, real_answers
from refusals import table

from safer_instruct.detect import refusal, wording

SETS = {name: Path(__file__).parent / "data" / f"refusals-{name}.jsonl" for name in ("people", "borders", "assistants", "varied", "blind")}

PENALTY, MOST_GRAMS = 10.0, 24_000
COMPOSED_WEIGHT = 0.15
REAL_WEIGHT, KIND_WEIGHT = 0.2, 0.3  # long ones that nobody doubts: few of them, so that they do not crowd out the labelled
Values = list[dict[str, float]]


def main() -> None:
    if "--left-out" in sys.argv:
        leave_out()
        return
    model = fit([*own_answers(), *(row for path in SETS.values() for row in read(path) if row["split"] == "dev"), *undoubted()])
    weights = {
        kind: {gram: " ".join(str(round(100 * number)) for number in numbers) for gram, numbers in sorted(table.items())}
        for kind, table in model.weights.items()
    }
    text = json.dumps({"bias": [round(bias, 3) for bias in model.bias], "weights": weights}, ensure_ascii=False, separators=(",", ":"))
    (PACKAGE / "wording.json").write_text(text + "\n", encoding="utf-8")


def own_answers() -> list[Row]:
    """Those written to fit on, and some put together from phrases."""
    made = [row | {"weight": str(COMPOSED_WEIGHT)} for row in composed(read(DATA / "phrases.jsonl"))]
    return [*(row for name in ("train", "voices", "replies") for row in read(DATA / f"{name}.jsonl")), *made]


def undoubted() -> list[Row]:
    return [row | {"weight": str(weight)} for rows, weight in ((real_answers(), REAL_WEIGHT), (kind_replies(), KIND_WEIGHT)) for row in rows]


def leave_out() -> None:
    """The figure to trust: each set by a model that saw nothing of its author."""
    for left in SETS:
        others = [row for name, path in SETS.items() if name != left for row in read(path)]
        model = fit([*own_answers(), *others, *undoubted()])
        rows = read(SETS[left])
        labels = [row["label"] for row in rows]
        for how, clauses in (("words alone", False), ("with clauses", True)):
            found = [most_likely(refusal.shares(row["text"], model, clauses=clauses)) for row in rows]
            right = sum(a == b for a, b in zip(labels, found, strict=True))
            print(f"\n{left}, left out, {how}: plus or minus {1.96 * math.sqrt(right * (len(rows) - right) / len(rows) ** 3):.3f}")
            table(labels, found)


def most_likely(shares: dict[refusal.RefusalClass, float]) -> str:
    return max(shares, key=shares.__getitem__)


def fit(rows: Sequence[Row]) -> wording.Wording:
    """Three logistic models, one class against the others, over the grams that weigh most in a first fit over all of them."""
    counted = [{kind: Counter(found) for kind, found in wording.grams(refusal.shortened(row["text"])).items()} for row in rows]
    kept = {kind: frozen(counts[kind] for counts in counted) for kind in wording.KINDS}
    first = fit_grams(rows, counted, kept)
    strength = {(kind, gram): max(map(abs, numbers[1:])) * numbers[0] for kind, table in first.weights.items() for gram, numbers in table.items()}
    best = set(sorted(strength, key=lambda key: (-strength[key], key))[:MOST_GRAMS])
    return fit_grams(rows, counted, {kind: {gram: idf for gram, idf in table.items() if (kind, gram) in best} for kind, table in kept.items()})


def frozen(counts: Iterable[Counter[str]]) -> dict[str, float]:
    """Inverse document frequency, smoothed, of each gram that two texts hold."""
    texts = list(counts)
    often = Counter(gram for found in texts for gram in found)
    return {gram: 1 + math.log((1 + len(texts)) / (1 + count)) for gram, count in often.items() if count > 1}


def fit_grams(rows: Sequence[Row], counted: Sequence[dict[str, Counter[str]]], idf: dict[str, dict[str, float]]) -> wording.Wording:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression

    values = [
        {f"{kind}\t{gram}": value for kind, found in counts.items() for gram, value in wording.scaled(found, idf[kind], wording.KINDS[kind])}
        for counts in counted
    ]
    vectors: Any = DictVectorizer()
    matrix = vectors.fit_transform(values)
    matrix.indices, matrix.indptr = matrix.indices.astype("int32"), matrix.indptr.astype("int32")  # what liblinear takes
    names = [name.split("\t") for name in vectors.get_feature_names_out()]
    fitted = []
    for label in refusal.CLASSES:
        wanted = [row["label"] == label for row in rows]
        fitted.append(LogisticRegression(solver="liblinear", C=PENALTY).fit(matrix, wanted, sample_weight=balanced(rows, wanted)))
    weights: dict[str, wording.Weights] = {kind: {} for kind in wording.KINDS}
    for (kind, gram), numbers in zip(names, zip(*(model.coef_[0] for model in fitted), strict=True), strict=True):
        refusing, partial, complying = map(float, numbers)
        weights[kind][gram] = (idf[kind][gram], refusing, partial, complying)
    return wording.Wording(weights, tuple(float(model.intercept_[0]) for model in fitted))


def balanced(rows: Sequence[Row], wanted: Sequence[bool]) -> list[float]:
    """Weights by which a class counts for a third and the others for two, however many of them there are."""
    each = [float(row.get("weight", 1)) for row in rows]
    mine = sum(weight for weight, is_it in zip(each, wanted, strict=True) if is_it)
    factor = {True: sum(each) / 3 / mine, False: 2 * sum(each) / 3 / (sum(each) - mine)}
    return [weight * factor[is_it] for weight, is_it in zip(each, wanted, strict=True)]


if __name__ == "__main__":
    main()
