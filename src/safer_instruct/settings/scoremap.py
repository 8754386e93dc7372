"""A score as the probability that a person finds the example good: fitted once with scikit-learn, applied with arithmetic alone."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Annotated, Literal

from pydantic import Field, model_validator

from safer_instruct.settings.numbers import Positive
from safer_instruct.yamlfile import Strict

Real = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]


class ScoreMap(Strict):
    """The fitted map from one score to a probability.

    Attributes:
        method: `logistic` is 1 / (1 + exp(-(slope score + intercept))) (Platt 1999); `isotonic` goes in straight lines from knot to knot
            and is level beyond the first and the last (Zadrozny and Elkan 2002).
        slope: For `logistic`.
        intercept: For `logistic`.
        knots: For `isotonic`: score and probability, both rising.
        lowest: Lowest score of a labelled example; below it a logistic map is extrapolated.
        highest: Highest one.
    """

    method: Literal["logistic", "isotonic"]
    slope: Real = 0.0
    intercept: Real = 0.0
    knots: tuple[tuple[Real, Probability], ...] = ()
    lowest: Real
    highest: Real

    @model_validator(mode="after")
    def _whole(self) -> ScoreMap:
        rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in zip(self.knots, self.knots[1:], strict=False))
        if not rising or (self.method == "isotonic") != bool(self.knots):
            raise ValueError("an isotonic map has knots whose scores and probabilities rise, and a logistic one has none")
        if self.lowest > self.highest:
            raise ValueError(f"'lowest' {self.lowest} is above 'highest' {self.highest}")
        return self

    def probability(self, score: float) -> float:
        """Of being found good, at that score."""
        if self.method == "logistic":
            odds = self.slope * score + self.intercept
            return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
        at = bisect_right(self.knots, score, key=lambda knot: knot[0])
        if at in (0, len(self.knots)):
            return self.knots[min(at, len(self.knots) - 1)][1]
        (x0, y0), (x1, y1) = self.knots[at - 1], self.knots[at]
        return y0 + (y1 - y0) * (score - x0) / (x1 - x0)

    def labelled(self, score: float) -> bool:
        """Whether labelled examples had scores like it, or it lies beyond them."""
        return self.lowest <= score <= self.highest


class MarginMap(Strict):
    """How the margins of pairs follow from a fitted map.

    Attributes:
        score: The verdict whose score is mapped: what the verifier gives to one response by itself.
        form: The `verify.form` that gave it.
        model: Fingerprint of the model that gave it: another one's scores are on another scale.
        labels: Labelled examples that the map was fitted to.
    """

    score: Literal["verify.acceptable"]
    form: Literal["contrast", "reward"]
    model: str
    labels: Positive
