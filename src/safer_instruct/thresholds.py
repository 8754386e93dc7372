"""Bounds that were fitted to human labels: which score belongs to which key of a config, and the file that carries them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from safer_instruct import yamlfile
from safer_instruct.settings.scoremap import MarginMap, ScoreMap
from safer_instruct.yamlfile import Strict

KEYS = {  # score of a verdict -> the key of the config that bounds it from below
    "consistency": "filter.consistency.min_gain",
    "likelihood": "filter.min_logprob",
    "verify.acceptable": "verify.min_contrast",
    "verify.better": "verify.min_margin",
}
REWARD_KEY = "verify.min_reward"  # of `verify.acceptable` where a reward model gives it
CHANCE = 0.5  # the AUC of a score that tells nothing
BY_ITSELF = "verify.acceptable"  # the verdict whose score is that of one response, whatever it stands beside
JUDGED_BY = {"contrast": "scorer", "reward": "reward"}  # forms of `verify` that give such a score -> role of the model that does
NO_LABELS = "defaults or the config's own, not calibrated"  # what summaries say of bounds that come from none
_KNOWN = {*KEYS.values(), REWARD_KEY}


class Calibration(Strict):
    """What `safer-instruct calibrate` writes; a config takes it over with `calibration: PATH`.

    Attributes:
        labels: Where the labels came from, how many were used, and how many of them said good.
        aim: What the bounds were chosen for.
        thresholds: Key of the config -> bound.
        scores: What was found about each score; for people.
        maps: Score -> its fitted map to a probability. Files from before they were written have none.
        margin: Which of them the margins of pairs come from; None, and they stay the verifier's own.
        raw_because: Why they do.
    """

    labels: dict[str, str | int]
    aim: str
    thresholds: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    scores: dict[str, dict[str, Any]] = Field(default_factory=dict)
    maps: dict[str, ScoreMap] = Field(default_factory=dict)
    margin: MarginMap | None = None
    raw_because: str = ""

    @field_validator("thresholds")
    @classmethod
    def _known(cls, thresholds: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(thresholds.keys() - _KNOWN):
            raise ValueError(f"no bounds of a config: {', '.join(unknown)}; there are {', '.join(sorted(_KNOWN))}")
        return thresholds

    @model_validator(mode="after")
    def _margin_has_its_map(self) -> Calibration:
        if self.margin and self.margin.score not in self.maps:
            raise ValueError(f"'margin' is by '{self.margin.score}', which has no map below 'maps'")
        return self

    @property
    def described(self) -> str:
        """For summary, card and report."""
        doubted = ", by a score that may tell no more than chance"
        bounds = ", ".join(f"{key} {value:+.3f}{self._found(key)}{doubted if key in self.by_chance else ''}" for key, value in self.thresholds.items())
        return f"calibrated on {self.labels['used']} labels (aim: {self.aim}): {bounds}; all others are defaults or the config's own"

    def _found(self, key: str) -> str:
        """What the labels say of the bound that was chosen, with the 95% interval; nothing where the file does not tell."""
        score = next((score for score in self.scores.values() if score.get("key") == key), {})
        precision = score.get("precision") or {}
        if precision.get("low") is None:
            return ""
        return f" (found: precision {precision['value']:.2f}, {precision['low']:.2f} to {precision['high']:.2f}, of {score['labels']} labels)"

    @property
    def by_chance(self) -> dict[str, str]:
        """Of the bounds that somebody chose all the same: key -> the AUC of its score, whose interval does not lie above that of chance."""
        doubted = {}
        for score in self.scores.values():
            auc = score.get("auc") or {}
            if score.get("key") in self.thresholds and auc.get("low") is not None and auc["low"] <= CHANCE:
                doubted[str(score["key"])] = f"{auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f})"
        return doubted


def is_calibrated(summary: Mapping[str, Any]) -> bool:
    """Whether the run of that summary was made with bounds from labels."""
    return not str(summary.get("thresholds", NO_LABELS)).endswith("not calibrated")


def load_calibration(path: Path) -> Calibration:
    """Read what `calibrate` wrote.

    Raises:
        ConfigError: It is missing or not valid.
    """
    return yamlfile.load(path, Calibration)


def apply(config: dict[str, Any], thresholds: dict[str, float]) -> dict[str, Any]:
    """A copy of a config as plain data with `thresholds` in the place of its own; a section that is switched off stays off."""
    changed = {**config}
    for key, value in thresholds.items():
        *sections, name = key.split(".")
        at: dict[str, Any] | None = changed
        for section in sections:
            inner = at.get(section) if at is not None else None
            if at is None or not isinstance(inner, dict):
                at = None
                break
            at[section] = {**inner}
            at = at[section]
        if at is not None:
            at[name] = value
    return changed
