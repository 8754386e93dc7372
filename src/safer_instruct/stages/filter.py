"""Choosing the instruction: the likeliest candidate that passes every gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from safer_instruct.config import ConsistencyConfig, FilterConfig
from safer_instruct.example import Candidate, Example, Verdict
from safer_instruct.filters.checks import Check, check_all
from safer_instruct.filters.consistency import TextGains, check_gain, ranks
from safer_instruct.models.protocol import Model
from safer_instruct.models.said import why_unfinished
from safer_instruct.templates import Template


async def choose(example: Example, checks: Sequence[Check], scorer: Model | None, template: Template, config: FilterConfig) -> Example:
    """Take the first candidate, likeliest first, that passes the filters and the consistency gate.

    Every filter is asked of every candidate that is looked at; the scorer only of those that no filter stands in the way of.

    Args:
        example: An example with candidates.
        checks: The filters on instructions.
        scorer: The forward model of the consistency gate; None where the gate is off.
        template: Lays out instruction and response for the scorer.
        config: The gates.

    Returns:
        A copy with `prompt` and the winner's verdicts, or dropped with the verdicts of the likeliest candidate; each
        candidate that was looked at keeps its own.

    Raises:
        ModelError: The scorer failed, or cannot score.
    """
    judged: list[Candidate] = []
    consistency = (
        _Consistency(example, TextGains(example.text, scorer, template, config.consistency, example.history), config.consistency)
        if scorer and config.consistency
        else None
    )
    for candidate in example.candidates:
        verdicts = _form(candidate, example, checks, config)
        if consistency and not any(v.drops for v in verdicts):
            verdicts = (*verdicts, await consistency.check(candidate))
        judged.append(replace(candidate, verdicts=verdicts))
        if not any(v.drops for v in verdicts):
            rest = example.candidates[len(judged) :]
            return replace(example, candidates=(*judged, *rest), prompt=candidate.text).with_verdicts(*verdicts)
    verdicts = judged[0].verdicts if judged else (Verdict("induce.empty", False, None, "the inducer wrote no instruction"),)
    return replace(example, candidates=tuple(judged)).with_verdicts(*verdicts)


class _Consistency:
    """The consistency gate for the candidates of one example; those of all are computed only where ranks are asked for."""

    def __init__(self, example: Example, gains: TextGains, config: ConsistencyConfig) -> None:
        self._example, self._gains, self._config = example, gains, config
        self._all: dict[str, tuple[float, int]] = {}

    async def check(self, candidate: Candidate) -> Verdict:
        if self._config.max_rank is None:
            return check_gain((await self._gains.of([candidate.text]))[0], self._config)
        if not self._all:
            texts = [c.text for c in self._example.candidates if c.text]
            gains = await self._gains.of(texts)
            self._all = dict(zip(texts, zip(gains, ranks(gains), strict=True), strict=True))
        gain, rank = self._all[candidate.text]
        return check_gain(gain, self._config, rank=rank)


def _form(candidate: Candidate, example: Example, checks: Sequence[Check], config: FilterConfig) -> tuple[Verdict, ...]:
    """The gates that need no model."""
    if not candidate.text:
        return (Verdict("induce.empty", False, None, "the inducer wrote nothing"),)
    verdicts = check_all(checks, replace(example, prompt=candidate.text))
    if not candidate.finished:
        verdicts = (Verdict("induce.unfinished", False, None, why_unfinished(candidate.text, "induce.max_tokens")), *verdicts)
    if config.min_logprob is None or candidate.logprob is None:
        return verdicts
    likely = candidate.logprob >= config.min_logprob
    reason = "" if likely else f"the inducer gives it {candidate.logprob:+.3f} nats, less than {config.min_logprob:+.3f}"
    return (*verdicts, Verdict("likelihood", likely, candidate.logprob, reason))
