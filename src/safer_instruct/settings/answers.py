"""What a config can say of how responses come about beyond one draw: several experts, mending, and no boilerplate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from safer_instruct.settings.numbers import Positive, Similarity
from safer_instruct.yamlfile import Strict


class BoilerplateConfig(Strict):
    """Written responses that say nearly the same as one accepted before are written anew.

    Attributes:
        near: Jaccard similarity of word trigrams from which two responses count as one.
        regenerate: How many further rounds the expert gets; then the example is dropped as `pair.boilerplate`.
        warmer: Added to the temperature in each of these rounds, so that it does not say the same again.
    """

    near: Similarity = 0.7
    regenerate: Annotated[int, Field(ge=0)] = 2
    warmer: Annotated[float, Field(ge=0, le=1)] = 0.2


class GroundedConfig(Strict):
    """The response must speak to its prompt.

    Attributes:
        check: Says which of the checks it is.
        by: `scorer`: mean log p(response | prompt) must be above mean log p(response) by `min_gain`; `judge`: the judge is asked,
            and P(yes) must reach `verify.min_yes`.
        min_gain: For `scorer`: nats per token. A default, not calibrated; bench/README.md has what it keeps on the demo.
        max_tokens: For `scorer`: the response is scored up to here.
    """

    check: Literal["grounded"] = "grounded"
    by: Literal["scorer", "judge"] = "scorer"
    min_gain: float = 0.2
    max_tokens: Positive = 64


class RefusalConfig(Strict):
    """The response must decline, or not, as its category says (`refusals` in the domain file); a detector reads it, no model.

    Attributes:
        check: Says which of the checks it is.
        min_confidence: Of the detector, from which what it says counts.
    """

    check: Literal["refusal"] = "refusal"
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5


AlsoCheck = Annotated[GroundedConfig | RefusalConfig, Field(discriminator="check")]


def named_check(value: Any) -> Any:
    """A bare name in the list stands for that check with its defaults."""
    return {"check": value} if isinstance(value, str) else value


class CeilingConfig(Strict):
    """Where a run with a `target` stops although it has not reached it. All of them are counted in input order, so they depend on no timing.

    Attributes:
        passes: How often the sources are gone through: after the first time only for texts whose example was dropped, with other seeds.
        candidates: Most instructions drawn, over all texts and passes; null for no such ceiling.
        cost: Most US dollars that the examples of the set may have cost, the dropped ones included; null for none. Unlike
            `budget.max_cost` it ends the run well, with the pairs that there are.
    """

    passes: Positive = 3
    candidates: Positive | None = None
    cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


Target = Positive | Annotated[dict[str, Positive], Field(min_length=1)]
