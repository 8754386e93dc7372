"""Cycle consistency: does the instruction make the text likelier than it is by itself?

The gain of an instruction is mean log p(text | instruction) - mean log p(text), the pointwise mutual information of the two
per token of the text (Church and Hanks 1990). log p(text) is the same for every instruction, so it is computed once. In a
conversation both stand under what was said before: it is the instruction's own gain that counts.

The mean goes over the first tokens only (`ConsistencyConfig.max_tokens`): later ones follow from the earlier ones more than
from any instruction, so they dilute the mean of long texts and cost the most (bench/README.md). What is computed for a request
depends on that request alone: sequences go through the embedded engine one by one. Batches of equal length would be exact as
well, and were no faster.
"""

from __future__ import annotations

from collections.abc import Sequence

from safer_instruct.config import ConsistencyConfig
from safer_instruct.conversation import in_context
from safer_instruct.example import Turn, Verdict
from safer_instruct.models.protocol import Model, Scoring
from safer_instruct.models.together import together
from safer_instruct.templates import Template


class TextGains:
    """The gains of instructions for one text."""

    def __init__(self, text: str, scorer: Model, template: Template, config: ConsistencyConfig, history: Sequence[Turn] = ()) -> None:
        """Score nothing yet.

        Args:
            text: The text that the instructions are to explain.
            scorer: The forward model.
            template: Lays out instruction and text for it.
            config: How much of the text is scored.
            history: What was said before the instructions; the text is scored after it, with an instruction and without.
        """
        self._text, self._scorer, self._template, self._config = text, scorer, template, config
        self._history = tuple(history)
        self._alone: float | None = None

    async def of(self, prompts: Sequence[str]) -> list[float]:
        """The gain of each of `prompts`, in nats per token of the text; side by side.

        Raises:
            ModelError: The scorer failed, or cannot score.
        """
        if self._alone is None:
            self._alone, *given = await together(map(self._mean, ("", *prompts)))
        else:
            given = await together(map(self._mean, prompts))
        return [round(value - self._alone, 6) for value in given]

    async def _mean(self, prompt: str) -> float:
        """Mean log p(text | history, prompt) per token in nats; without a prompt, mean log p(text | history)."""
        rendered = self._template.render(prompt=in_context(self._history, prompt))
        return (await self._scorer.score(Scoring(rendered, self._text, self._config.max_tokens))).mean


def ranks(gains: Sequence[float]) -> list[int]:
    """Each candidate's rank among those of its text: 1 for the largest gain; equal gains share a rank."""
    return [1 + sum(other > gain for other in gains) for gain in gains]


def check_gain(gain: float, config: ConsistencyConfig, *, rank: int | None = None) -> Verdict:
    """The verdict on a gain, and on its rank among the candidates' where that is told.

    The gain rewards a prompt that quotes the text, so it is a gate beside the copying rule and never a ranking.
    """
    if gain < config.min_gain:
        return Verdict("consistency", False, gain, f"makes the text {gain:+.3f} nats per token likelier, less than {config.min_gain:+.3f}")
    if rank is not None and config.max_rank is not None and rank > config.max_rank:
        return Verdict("consistency", False, gain, f"{rank - 1} other candidates make the text likelier, more than {config.max_rank - 1}")
    return Verdict("consistency", True, gain)
