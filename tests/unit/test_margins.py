"""Margins on a scale that people set: the fitted map is what scikit-learn fits, needs it no more, and says where it cannot be had."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from safer_instruct.calibration.fit import Method, fit
from safer_instruct.errors import ConfigError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.margins import Margins, kind_said, margins_of
from safer_instruct.settings.scoremap import ScoreMap
from safer_instruct.thresholds import Calibration, load_calibration

LOGISTIC = {"method": "logistic", "slope": 2.0, "intercept": -1.0, "lowest": -1.0, "highest": 2.0}
FILE: dict[str, Any] = {
    "labels": {"file": "labels.csv", "used": 200},
    "aim": "precision of at least 0.9",
    "thresholds": {},
    "margin": {"score": "verify.acceptable", "form": "contrast", "model": "abc", "labels": 180},
    "maps": {"verify.acceptable": LOGISTIC},
}
DRAFT = Draft("kind", 0, margin=1.5, verdicts=(Verdict("verify.acceptable", True, 1.25), Verdict("verify.better", True, 1.5)))
PAIR = Example("a", "rude", "c", "f", 1, prompt="p", chosen="kind", margin=1.5, drafts=(DRAFT,), verdicts=DRAFT.verdicts)


def calibration(**changes: Any) -> Calibration:
    return Calibration.model_validate({**FILE, **changes}, strict=False)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def labelled(count: int, seed: int = 0) -> tuple[list[float], list[bool]]:
    draw = random.Random(seed)
    good = [draw.random() < 0.6 for _ in range(count)]
    return [round(draw.gauss(0.8 if g else -0.2, 0.7), 3) for g in good], good


# --- the map


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_the_stored_map_gives_the_probabilities_of_the_fitted_model(method: Method) -> None:
    values, good = labelled(400)
    found = fit(values, good, method).map
    x, at = numpy.array(values), numpy.linspace(min(values), max(values), 97)
    if method == "isotonic":
        wanted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, good).predict(at)
    else:
        scaled = (x - x.mean()) / x.std()
        wanted = LogisticRegression(C=1e3).fit(scaled.reshape(-1, 1), good).predict_proba(((at - x.mean()) / x.std()).reshape(-1, 1))[:, 1]
    assert [found.probability(v) for v in at.tolist()] == pytest.approx(wanted.tolist(), abs=1e-9)
    assert (found.lowest, found.highest) == (min(values), max(values)) and found.labelled(0.0) and not found.labelled(99.0)
    again = ScoreMap.model_validate(yaml.safe_load(yaml.safe_dump(found.model_dump(mode="json"))), strict=False)
    assert again == found, "nothing is lost on the way through YAML"


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 100)), min_size=1, max_size=20), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_probabilities_of_a_rising_map_rise_within_their_bounds(points: list[tuple[int, int]], a: float, b: float) -> None:
    scores, probabilities = sorted({x for x, _ in points}), sorted(y for _, y in points)
    knots = [(float(x), y / 100) for x, y in zip(scores, probabilities, strict=False)]
    low, high = sorted((a, b))
    for found in (
        ScoreMap(method="isotonic", knots=tuple(knots), lowest=-50.0, highest=50.0),
        ScoreMap(method="logistic", slope=3.0, intercept=0.5, lowest=0.0, highest=1.0),
    ):
        assert 0 <= found.probability(low) <= found.probability(high) <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "isotonic"},
        {"knots": [[0.0, 0.5]]},
        {"method": "isotonic", "knots": [[0.0, 0.5], [0.0, 0.6]]},
        {"method": "isotonic", "knots": [[0.0, 0.5], [1.0, 0.4]]},
        {"lowest": 3.0},
        {"slope": float("inf")},
    ],
)
def test_a_map_that_is_none_is_refused_with_its_place(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**FILE, "maps": {"verify.acceptable": {**LOGISTIC, **changes}}}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"c\.yaml:\d+: 'maps\.verify\.acceptable"):
        load_calibration(tmp_path / "c.yaml")


def test_a_file_from_before_there_were_maps_is_read_and_margins_stay_the_verifiers_own(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("labels: {used: 9}\naim: x\nthresholds: {verify.min_margin: 0.1}\nscores: {}\n", encoding="utf-8")
    margins = margins_of("contrast", "written", load_calibration(tmp_path / "old.yaml"), {"scorer": "abc"})
    assert margins.of(PAIR) is PAIR and margins.identity() == {} and margins.record()["kind"] == "raw"


def test_a_margin_by_a_score_without_a_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**FILE, "maps": {}}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'margin' is by 'verify\.acceptable', which has no map"):
        load_calibration(tmp_path / "c.yaml")


# --- the margin


def test_the_margin_is_the_difference_of_the_two_sides_probabilities() -> None:
    margins = margins_of("contrast", "written", calibration(), {"scorer": "abc"})
    expected = sigmoid(2 * 1.25 - 1) - sigmoid(2 * (1.25 - 1.5) - 1)
    assert margins.of(PAIR).margin == pytest.approx(expected, abs=1e-6)
    assert margins.of(PAIR).drafts == PAIR.drafts, "what the verifier said of drafts stays in its own unit"
    assert margins.record() == {
        "kind": "calibrated",
        "score": "verify.acceptable",
        "method": "logistic",
        "labels": 180,
        "pairs": 2,
        "beyond_labels": 0,
        "without": 0,
    }
    assert kind_said({"margin": margins.record()}) == "calibrated: p(chosen) - p(rejected), logistic on 180 labels"


def test_in_direction_chosen_the_verdicts_speak_of_the_source_text() -> None:
    pair = replace(PAIR, text="kind", chosen="kind", rejected="rude", drafts=(replace(DRAFT, text="rude"),))
    assert margins_of("contrast", "written", calibration(), {"scorer": "abc"}).of(pair).margin == pytest.approx(
        sigmoid(2 * 1.25 - 1) - sigmoid(2 * (1.25 - 1.5) - 1), abs=1e-6
    )


def test_of_a_rewritten_rejected_side_the_margin_over_the_rewrite_counts() -> None:
    rewritten = Draft("worse", 0, margin=0.5, verdicts=(Verdict("rejected.worse", True, 0.5),))
    pair = replace(PAIR, rejected="worse", margin=0.5, drafts=(DRAFT, rewritten))
    found = margins_of("contrast", "written", calibration(), {"scorer": "abc"}).of(pair).margin
    assert found == pytest.approx(sigmoid(2 * 1.25 - 1) - sigmoid(2 * 0.75 - 1), abs=1e-6)


def test_a_pair_whose_verifier_compared_nothing_has_no_margin_beside_calibrated_ones() -> None:
    margins = margins_of("contrast", "written", calibration(), {"scorer": "abc"})
    assert margins.of(replace(PAIR, margin=None)).margin is None and margins.of(replace(PAIR, drafts=())).margin is None
    dropped = PAIR.with_verdicts(Verdict("select", False))
    assert margins.of(dropped) is dropped and margins.record()["without"] == 2 and margins.record()["pairs"] == 0


def test_scores_that_no_label_reached_are_counted() -> None:
    margins = margins_of("contrast", "written", calibration(), {"scorer": "abc"})
    margins.of(PAIR)
    margins.of(replace(PAIR, margin=4.0))
    assert (margins.record()["pairs"], margins.record()["beyond_labels"]) == (2, 1)


@pytest.mark.parametrize(
    ("form", "answers", "found", "models", "why", "unit"),
    [
        ("contrast", "written", None, {"scorer": "abc"}, "not calibrated", "nats per token"),
        ("contrast", "written", calibration(), {"scorer": "xyz"}, "the calibration is of another 'scorer'", "nats per token"),
        ("reward", "written", calibration(), {"reward": "abc"}, "the calibration is of verify.form 'contrast'", "reward"),
        ("question", "weighted", calibration(), {}, "the calibration is of verify.form 'contrast'", "probability of being better less that of being worse"),
        ("contrast", "written", calibration(margin=None, raw_because="the AUC may be that of chance"), {}, "the AUC may be that of chance", "nats per token"),
        ("question", "written", calibration(margin=None), {}, "the calibration has no map for them", "share of orders won less the share lost"),
    ],
)
def test_where_only_the_raw_margin_is_to_be_had_it_is_said_why(
    form: str, answers: str, found: Calibration | None, models: dict[str, str], why: str, unit: str
) -> None:
    margins = margins_of(form, answers, found, models)
    assert margins.of(PAIR) is PAIR and margins.record() == {"kind": "raw", "unit": unit, "why": why}
    assert kind_said({"margin": margins.record()}) == f"raw: {unit}" and kind_said({}) == "raw"


def test_what_margins_depend_on_is_part_of_what_the_run_is() -> None:
    one = margins_of("contrast", "written", calibration(), {"scorer": "abc"}).identity()
    other = calibration(maps={"verify.acceptable": {**LOGISTIC, "slope": 3.0}})
    assert one and one != margins_of("contrast", "written", other, {"scorer": "abc"}).identity()
    assert Margins("reward").identity() == {}


def test_a_margin_is_of_the_score_that_the_map_is_for_and_has_six_digits() -> None:
    others = (Verdict("verify.better", True, 0.5), Verdict("verify.acceptable", True, None), *DRAFT.verdicts)
    pair = replace(PAIR, drafts=(replace(DRAFT, text="another", verdicts=(Verdict("verify.acceptable", True, -0.5),)), replace(DRAFT, verdicts=others)))
    margins = margins_of("contrast", "yes", calibration(), {"scorer": "abc", "judge": "abc"})
    wanted = sigmoid(2 * 1.25 - 1) - sigmoid(2 * 0.0 - 1)
    assert margins.of(replace(pair, margin=1.25)).margin == round(wanted, 6) != round(wanted, 7)
    assert (margins.pairs, margins.beyond, margins.raw) == (1, 0, 0)
