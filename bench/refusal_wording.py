"""Fits the model of whole answers (`detect/wording.json`), and measures it on authors that it was not fitted on.

    python bench/refusal_wording.py                 fits on everything but the halves that are kept for testing, and writes the model
    python bench/refusal_wording.py --left-out [NAME ...]      fits once for each set of another author, without it, and prints what it finds there

Needs scikit-learn, and `../shared/data` for some real answers. `bench/refusals.py` measures what is shipped.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from refusal_fit import DATA, PACKAGE, Row, composed, kind_replies, read, real_answers
from refusals import table

from safer_instruct.detect import refusal, wording

# By people who knew nothing of it. The last two are fitted on as a whole, of the others the part "dev".
SETS = {name: Path(__file__).parent / "data" / f"refusals-{name}.jsonl" for name in ("people", "borders", "assistants", "varied", "blind")}
SETS |= {name: DATA / f"{name}.jsonl" for name in ("asked-a", "asked-b")}

PENALTY, MOST_GRAMS, STEPS = 50.0, 20_000, 80
SOFTENED = 0.7  # of the weights: surer of itself than right about authors it does not know, the whole drowned what the clauses say
COMPOSED_WEIGHT = 0.15
REAL_WEIGHT, KIND_WEIGHT = 1.0, 1.0  # with 0.2 and 0.3 one long good answer in eight was called a refusal or partial


def main() -> None:
    if "--left-out" in sys.argv:
        leave_out()
        return
    model = fit([*own_answers(), *(row for path in SETS.values() for row in read(path) if row.get("split", "dev") == "dev"), *undoubted()])
    weights = {
        kind: {gram: " ".join(str(round(100 * number)) for number in numbers) for gram, numbers in sorted(table.items())}
        for kind, table in model.weights.items()
    }
    text = json.dumps({"bias": [round(bias, 3) for bias in model.bias], "weights": weights}, ensure_ascii=False, separators=(",", ":"))
    (PACKAGE / "wording.json").write_text(text + "\n", encoding="utf-8")


def own_answers() -> list[Row]:
    """Those written to fit on by people who knew the detector, and some put together from phrases."""
    made = [row | {"weight": str(COMPOSED_WEIGHT)} for row in composed(read(DATA / "phrases.jsonl"))]
    return [*(row for name in ("train", "voices", "replies", "asked") for row in read(DATA / f"{name}.jsonl")), *made]


def undoubted() -> list[Row]:
    return [row | {"weight": str(weight)} for rows, weight in ((real_answers(), REAL_WEIGHT), (kind_replies(), KIND_WEIGHT)) for row in rows]


def leave_out() -> None:
    """The figure to trust: each set by a model that saw nothing of its author."""
    for left in [name for name in sys.argv[1:] if name in SETS] or SETS:
        others = [row for name, path in SETS.items() if name != left for row in read(path)]
        model = fit([*own_answers(), *others, *undoubted()])
        rows = read(SETS[left])
        for how, clauses in (("words alone", False), ("with clauses", True)):
            found = [most_likely(refusal.shares(row["text"], model, row.get("prompt", ""), clauses=clauses)) for row in rows]
            print(f"\n{left}, left out, {how}")
            table([row["label"] for row in rows], found)


def most_likely(shares: dict[refusal.RefusalClass, float]) -> str:
    return max(shares, key=shares.__getitem__)


def fit(rows: Sequence[Row]) -> wording.Wording:
    """A multinomial logistic regression over the grams that weigh most in a first one over all of them."""
    counted = [{kind: Counter(found) for kind, found in wording.grams(refusal.shortened(row["text"])).items()} for row in rows]
    known = {kind: frozen(counts[kind] for counts in counted) for kind in wording.KINDS}
    first = fit_grams(rows, counted, known)
    strength = {(kind, gram): max(map(abs, numbers[1:])) * numbers[0] for kind, table in first.weights.items() for gram, numbers in table.items()}
    best = set(sorted(strength, key=lambda key: (-strength[key], key))[:MOST_GRAMS])
    return fit_grams(rows, counted, {kind: {gram: idf for gram, idf in table.items() if (kind, gram) in best} for kind, table in known.items()})


def frozen(counts: Iterable[Counter[str]]) -> dict[str, float]:
    """Inverse document frequency, smoothed, of each gram that two texts hold."""
    texts = list(counts)
    often = Counter(gram for found in texts for gram in found)
    return {gram: 1 + math.log((1 + len(texts)) / (1 + count)) for gram, count in often.items() if count > 1}


def fit_grams(rows: Sequence[Row], counted: Sequence[dict[str, Counter[str]]], known: dict[str, dict[str, float]]) -> wording.Wording:
    from scipy.sparse import hstack
    from sklearn.linear_model import LogisticRegression

    grams = {kind: sorted(idf) for kind, idf in known.items()}
    values = hstack([matrix([counts[kind] for counts in counted], known[kind], grams[kind], length) for kind, length in wording.KINDS.items()]).tocsr()
    labels = [list[str](refusal.CLASSES).index(row["label"]) for row in rows]
    model = LogisticRegression(C=PENALTY, max_iter=STEPS, tol=1e-3).fit(values, labels, sample_weight=balanced(rows))
    weights: dict[str, wording.Weights] = {kind: {} for kind in wording.KINDS}
    for (kind, gram), numbers in zip(((name, gram) for name in wording.KINDS for gram in grams[name]), model.coef_.T, strict=True):
        refusing, partial, complying = (SOFTENED * float(number) for number in numbers)
        weights[kind][gram] = (known[kind][gram], refusing, partial, complying)
    return wording.Wording(weights, tuple(SOFTENED * float(bias) for bias in model.intercept_))


def matrix(counts: Sequence[Counter[str]], idf: dict[str, float], grams: Sequence[str], length: float) -> Any:
    """[texts, grams] What each known gram of each text is worth, sparse."""
    from scipy.sparse import csr_array

    column = {gram: at for at, gram in enumerate(grams)}
    found = [wording.scaled(count, idf, length) for count in counts]
    flat = [(column[gram], value) for values in found for gram, value in values]
    ends = list(accumulate(map(len, found), initial=0))
    return csr_array(([value for _, value in flat], [at for at, _ in flat], ends), shape=(len(counts), len(grams)))


def balanced(rows: Sequence[Row]) -> list[float]:
    """Weights by which each class counts for a third, however many of it there are."""
    each = [float(row.get("weight", 1)) for row in rows]
    of_class = {name: sum(weight for weight, row in zip(each, rows, strict=True) if row["label"] == name) for name in refusal.CLASSES}
    return [weight * sum(each) / 3 / of_class[row["label"]] for weight, row in zip(each, rows, strict=True)]


if __name__ == "__main__":
    main()
