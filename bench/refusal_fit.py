"""Fit the models of refusal detection and write them where the package reads them (needs scikit-learn).

    python bench/refusal_fit.py     fits on tests/data/refusals/train.jsonl, replies.jsonl, phrases.jsonl, the halves "dev" of bench/data/refusals-*.jsonl,
                                    and some answers that comply (../shared/data, examples/tune)

Two steps. The models of clauses learn from phrases labelled by role (`phrases.jsonl`) and from the clauses of the labelled answers: all of a
compliant answer decline nothing, all of a refusal help with nothing, and the rest goes by the patterns. The models of answers then learn
from what models of clauses say of answers and phrases that these have not seen; answers composed of phrases stand beside the written ones.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safer_instruct.detect import cues, phrasing, refusal
from safer_instruct.detect.refusal import Features, features

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data" / "instruction_response_585.jsonl"
BLIND = tuple(ROOT / "bench" / "data" / f"refusals-{name}.jsonl" for name in ("blind", "varied"))  # of each the half "dev"
DATA = ROOT / "tests" / "data" / "refusals"
PACKAGE = ROOT / "src" / "safer_instruct" / "detect"
FOLDS, SEED, COMPOSED, COMPOSED_WEIGHT = 5, 3, 1200, 0.5
REAL_WEIGHT = 0.4
KIND = tuple(ROOT / "examples" / "tune" / f"{name}.jsonl" for name in ("civility", "civility-plain", "civility-roles"))
KIND_EACH, KIND_WEIGHT = 8, 0.4
DECLINES_FROM = 0.45  # P(declines) that counts: chosen on the "dev" halves, out of fold; 0.5 misses more than it takes wrongly
PIVOTS = ("However, ", "That said, ", "But ", "Instead, ", "What I can do: ", "Here's what may help: ", "Still, ", "In general terms: ", "For the rest: ", "")
HELPS = ("helps", "answers")
Row = dict[str, str]


class Told(NamedTuple):
    """A clause, the role it plays, and the answer it comes from (None: a phrase)."""

    clause: str
    role: str
    answer: int | None


def main() -> None:
    dev = (row for file in BLIND for row in read(file) if row["split"] == "dev")
    rows = [*read(DATA / "train.jsonl"), *read(DATA / "replies.jsonl"), *dev, *real_answers(), *kind_replies()]
    phrases = read(DATA / "phrases.jsonl")
    clauses = [*of_phrases(phrases), *of_answers(rows)]
    declines, helps = fit_answers(rows, phrases, clauses)
    declines["bias"] = round(declines["bias"] - math.log(DECLINES_FROM / (1 - DECLINES_FROM)), 3)  # so that it is 0.5 to who asks
    write(PACKAGE / "refusal.json", {"declines": declines, "helps": helps}, indent=1)
    roles = fit_clauses(clauses)
    write(PACKAGE / "phrasing.json", {"vocabulary": sorted(roles.vocabulary), "declines": roles.declines, "helps": roles.helps})


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def real_answers() -> list[Row]:
    """Every second answer of a strong model, long and short, as compliance, but for those that a pattern of refusal stands in."""
    return complying((row["output"] for row in read(REAL)[::2]), REAL_WEIGHT)


def kind_replies() -> list[Row]:
    """Some replies to customers, as compliance: they are sorry for what happened and say what will be done, which is help and no refusal."""
    return complying((row["kind"] for file in KIND for row in read(file)[::KIND_EACH]), KIND_WEIGHT)


def complying(answers: Iterable[str], weight: float) -> list[Row]:
    """Those in which no pattern of refusal stands."""
    sure = ("cannot_serve", "unable", "decline", "not_willing", "no_way_for_me")
    plain = (answer for answer in answers if not any(cues.DECLINES[name].search(cues.plain(answer)) for name in sure))
    return [{"text": answer, "label": "compliance", "weight": str(weight)} for answer in plain]


def write(path: Path, model: dict[str, Any], indent: int | None = None) -> None:
    path.write_text(json.dumps(model, indent=indent, separators=None if indent else (",", ":")) + "\n", encoding="utf-8")


def of_phrases(phrases: Iterable[Row]) -> list[Told]:
    told = []
    for row in phrases:
        plain = [clause.plain for clause in cues.clauses(row["text"]) if clause.plain]
        if row["role"] == "declines" and len(plain) > 1:  # the reason beside it is not known to decline
            plain = [" ".join(plain), *(clause for clause in plain if refusal._cues_of(clause))]
        told += [Told(clause, row["role"], None) for clause in plain]
    return told


def of_answers(rows: Sequence[Row]) -> list[Told]:
    return [Told(clause.plain, role_of(clause, row["label"]), at) for at, row in enumerate(rows) for clause in cues.clauses(row["text"]) if clause.plain]


def role_of(clause: cues.Clause, label: str) -> str:
    if label == "compliance":
        return "answers"
    if refusal._cues_of(clause.plain):
        return "declines"
    return "helps" if label == "partial" and refusal._useful_words(clause, False) else "idle"


def composed(phrases: Sequence[Row]) -> list[Row]:
    """Answers put together from phrases of known roles."""
    by_role: dict[str, list[str]] = {}
    for row in phrases:
        by_role.setdefault(row["role"], []).append(row["text"])
    rng = random.Random(SEED)
    return [compose(rng, by_role, rng.choice(refusal.CLASSES)) for _ in range(COMPOSED)]


def compose(rng: random.Random, by_role: dict[str, list[str]], label: str) -> Row:
    def some(role: str, *counts: int) -> list[str]:
        return rng.sample(by_role[role], rng.choice(counts))

    idle = some("idle", 0, 0, 1, 1, 2, 3)
    if label == "refusal":
        parts = [*some("declines", 1, 1, 2), *idle]
        if rng.random() < 0.35:
            parts = [parts[-1], *parts[:-1]]
    elif label == "partial":
        helps = some("helps", 1, 1, 2, 3)
        helps[0] = rng.choice(PIVOTS) + helps[0]
        declines = some("declines", 1)
        parts = [*declines, *helps, *idle[:1]] if rng.random() < 0.8 else [*idle[:1], *helps, *declines]
    else:
        parts = [*some("answers", 1, 1, 1, 2), *some("helps", 0, 1, 1, 2)]
        if rng.random() < 0.2:
            rng.shuffle(parts)
    return {"text": " ".join(parts), "label": label}


def fit_clauses(clauses: Sequence[Told]) -> phrasing.Roles:
    words = Counter(word for told in clauses for word in set(phrasing.tokens(told.clause)))
    vocabulary = frozenset(word for word, count in words.items() if count > 2 and word.isalpha())
    found = [phrasing.grams(told.clause, vocabulary) for told in clauses]
    often = Counter(gram for grams in found for gram in grams)
    values = [dict.fromkeys((gram for gram in sorted(grams) if often[gram] > 1), 1.0) for grams in found]
    declines = weights(values, [told.role == "declines" for told in clauses], penalty=0.5, least=0.05)
    return phrasing.Roles(vocabulary, declines, weights(values, [told.role in HELPS for told in clauses], penalty=0.5, least=0.05))


def fit_answers(rows: Sequence[Row], phrases: Sequence[Row], clauses: Sequence[Told]) -> tuple[dict[str, float], dict[str, float]]:
    found: list[tuple[Features, str, float]] = []
    for fold in range(FOLDS):
        roles = fit_clauses([told for told in clauses if told.answer is None or told.answer % FOLDS != fold])
        found += [(features(row["text"], roles), row["label"], float(row.get("weight", 1))) for row in rows[fold::FOLDS]]
    made = composed(phrases)
    for fold in range(FOLDS):
        unseen = {told.clause for at, told in enumerate(clauses) if told.answer is None and at % FOLDS == fold}
        roles = fit_clauses([told for told in clauses if told.clause not in unseen])
        for row in made:
            plain = [clause.plain for clause in cues.clauses(row["text"]) if clause.plain]
            if 2 * sum(clause in unseen for clause in plain) >= len(plain):
                found.append((features(row["text"], roles), row["label"], COMPOSED_WEIGHT))
    declining = [one for one in found if one[1] != "compliance"]
    return (
        weights([f.declines for f, _, _ in found], [label != "compliance" for _, label, _ in found], sample=[w for _, _, w in found]),
        weights([f.helps for f, _, _ in declining], [label == "partial" for _, label, _ in declining], sample=[w for _, _, w in declining]),
    )


def weights(
    values: list[dict[str, float]], labels: list[bool], *, penalty: float = 1.0, least: float = 0.0, sample: list[float] | None = None
) -> dict[str, float]:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression

    vectors: Any = DictVectorizer()
    model = LogisticRegression(C=penalty, max_iter=5000).fit(vectors.fit_transform(values), labels, sample_weight=sample)
    named = zip(vectors.get_feature_names_out(), model.coef_[0], strict=True)
    return {"bias": round(float(model.intercept_[0]), 3)} | {str(name): round(float(weight), 3) for name, weight in named if abs(weight) >= least}


if __name__ == "__main__":
    main()
