"""Cycle consistency: does the instruction make the text likelier than it is by itself?"""

from __future__ import annotations

from safer_instruct.config import ConsistencyConfig
from safer_instruct.example import Verdict
from safer_instruct.models.protocol import Model, Scoring
from safer_instruct.templates import Template


async def text_logprob(text: str, scorer: Model, template: Template, config: ConsistencyConfig, *, prompt: str = "") -> float:
    """Mean log p(text | prompt) per token in nats under `scorer`; without a prompt, mean log p(text).

    Raises:
        ModelError: The scorer failed, or cannot score.
    """
    return (await scorer.score(Scoring(template.render(prompt=prompt), text[: config.max_chars]))).mean


def check_gain(given: float, alone: float, config: ConsistencyConfig) -> Verdict:
    """The verdict on mean log p(text | prompt) - mean log p(text).

    The difference rewards a prompt that quotes the text, so it is a gate beside the copying rule and never a ranking.
    """
    gain = round(given - alone, 6)
    if gain >= config.min_gain:
        return Verdict("consistency", True, gain)
    return Verdict("consistency", False, gain, f"makes the text {gain:+.3f} nats per token likelier, less than {config.min_gain:+.3f}")
