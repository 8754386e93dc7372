"""The margin of a pair: how much better the chosen response is than the rejected one, and on which scale that is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from safer_instruct.example import Example
from safer_instruct.settings.scoremap import MarginMap, ScoreMap
from safer_instruct.thresholds import JUDGED_BY, Calibration

UNITS = {
    "contrast": "nats per token",
    "reward": "reward",
    "question": "share of orders won less the share lost",
    "weighted": "probability of being better less that of being worse",
    "program": "none: programs compare nothing",
}
"""What the verifier's own margin is counted in, by `verify.form`; `weighted` are the answers of form `question`."""


@dataclass(slots=True)
class Margins:
    """Says what the margins of a run are, and how many of them lie beyond what was labelled.

    Attributes:
        unit: Of the verifier's own margin.
        map: From a response's score to the probability that a person finds it good; None where margins stay the verifier's own.
        fitted: What that map was fitted to.
        why: Why margins stay the verifier's own.
        pairs: Pairs that got a calibrated margin.
        beyond: How many of them have a response whose score no labelled example reached.
        raw: Pairs whose verifier compared nothing, or gave no score of the chosen response by itself: they have no calibrated margin.
    """

    unit: str
    map: ScoreMap | None = None
    fitted: MarginMap | None = None
    why: str = ""
    pairs: int = field(default=0, init=False)
    beyond: int = field(default=0, init=False)
    raw: int = field(default=0, init=False)

    def of(self, example: Example) -> Example:
        """A copy of a finished pair with its margin; anything else as it is.

        The margin is p(chosen) - p(rejected), where p maps a response's score to the probability that a person finds it good. For
        independent judgements that is how much oftener they speak for the chosen response alone than for the rejected one alone:
        p(c) (1 - p(r)) - p(r) (1 - p(c)). It lies within -1 and 1, as the graded margins of Llama 2's reward model do within
        0 and 1 (Touvron et al. 2023, table 27), and isotonic maps, whose log-odds may be infinite, have it too.
        """
        if self.map is None or self.fitted is None or not example.alive or not example.chosen:
            return example
        chosen = _score_of_chosen(example, self.fitted.score)
        if chosen is None or example.margin is None:
            self.raw += 1
            return replace(example, margin=None)
        rejected = chosen - example.margin  # the verifier's own margin is the difference of the two scores
        self.pairs += 1
        self.beyond += not (self.map.labelled(chosen) and self.map.labelled(rejected))
        return replace(example, margin=round(self.map.probability(chosen) - self.map.probability(rejected), 6))

    def identity(self) -> dict[str, Any]:
        """What the margins depend on, for `run.yaml`; nothing where they are the verifier's own."""
        if self.map is None or self.fitted is None:
            return {}
        return {"margin": {**self.fitted.model_dump(mode="json"), "map": self.map.model_dump(mode="json", exclude_defaults=True)}}

    def record(self) -> dict[str, Any]:
        """For the summary."""
        if self.map is None or self.fitted is None:
            return {"kind": "raw", "unit": self.unit, "why": self.why}
        counts = {"pairs": self.pairs, "beyond_labels": self.beyond, "without": self.raw}
        return {"kind": "calibrated", "score": self.fitted.score, "method": self.map.method, "labels": self.fitted.labels, **counts}


def margins_of(form: str, answers: str, found: Calibration | None, models: Mapping[str, str]) -> Margins:
    """What the margins of a run are to be.

    Args:
        form: `verify.form`.
        answers: `verify.answers`.
        found: What the config takes over from `calibrate`, if anything.
        models: Role -> fingerprint of the run's models.
    """
    unit = UNITS["weighted" if (form, answers) == ("question", "weighted") else form]
    if found is None:
        return Margins(unit, why="not calibrated")
    fitted = found.margin
    if fitted is None:
        return Margins(unit, why=found.raw_because or "the calibration has no map for them")
    if fitted.form != form:
        return Margins(unit, why=f"the calibration is of verify.form '{fitted.form}'")
    if fitted.model != models.get(JUDGED_BY[form]):
        return Margins(unit, why=f"the calibration is of another '{JUDGED_BY[form]}'")
    return Margins(unit, found.maps[fitted.score], fitted)


def kind_said(summary: Mapping[str, Any]) -> str:
    """What a run's margins are, in a few words for a column; summaries from before there was a choice say nothing, and theirs are the verifier's own."""
    said = summary.get("margin")
    if said is None:
        return "raw"
    if said["kind"] == "raw":
        return f"raw: {said['unit']}"
    return f"calibrated: p(chosen) - p(rejected), {said['method']} on {said['labels']} labels"


def _score_of_chosen(example: Example, name: str) -> float | None:
    """What the verifier gave to the chosen response by itself; in direction `chosen` the draft is of the other side, but its verdicts of this one."""
    verdicts = example.accepted.verdicts if example.accepted else ()
    return next((v.score for v in verdicts if v.name == name and v.score is not None), None)
