"""The same text, and the same instruction, once: as examples come, or the best once all are there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing

from safer_instruct.barrier import at_once
from safer_instruct.choosing import distinct_texts
from safer_instruct.config import FilterConfig, RunConfig
from safer_instruct.conversation import told_apart
from safer_instruct.example import Example, Verdict
from safer_instruct.filters.dedup import Deduplicators
from safer_instruct.ordered import Examples
from safer_instruct.state import StageState


def memories(config: RunConfig) -> dict[str, Deduplicators]:
    """What duplicates are found by. With a target by category, which examples reach a model is known within each category only."""
    near, boilerplate = config.filter.near_duplicate, config.respond.boilerplate
    apart = isinstance(config.target, dict)
    return {
        "text": Deduplicators("text", near, by_category=False),
        "prompt": Deduplicators("prompt", near, by_category=apart),
        "response": Deduplicators("response", boilerplate.near if boilerplate else None, by_category=apart),
    }


async def distinct(examples: Examples, field_: str, config: FilterConfig, seen: Mapping[str, Deduplicators], stage: StageState) -> Examples:
    """Drop duplicates: all but the first as they come, or all but the best once all are there."""
    checked = _keep_first(examples, field_, seen[field_]) if config.keep == "first" else _keep_best(examples, field_, config)
    async with aclosing(checked):
        async for example in checked:
            dropped = example.dropped_by
            stage.dropped += dropped is not None and dropped.name in (f"dedup.{field_}", f"dedup.semantic.{field_}")
            stage.done += field_ == "text"
            yield example


async def _keep_first(examples: Examples, field_: str, seen: Deduplicators) -> Examples:
    async with aclosing(examples):
        async for example in examples:
            yield example.with_verdicts(seen.check(_compared(example, field_), example.id, example.category)) if example.alive else example


def _keep_best(examples: Examples, field_: str, config: FilterConfig) -> Examples:
    def score(example: Example) -> float:
        if field_ == "text":
            return len(example.text.split())
        taken = next((c.logprob for c in example.candidates if c.text == example.prompt), None)
        return float("-inf") if taken is None else taken

    def judge(rows: list[tuple[str, str, float]]) -> list[list[Verdict]]:
        return distinct_texts(field_, rows, config.near_duplicate or 1.0, config.semantic)

    return at_once(examples, lambda e: (e.id, _compared(e, field_), score(e)), judge)


def _compared(example: Example, field_: str) -> str:
    """What a duplicate is known by: the text, whatever it answers; or the instruction, which is another one after another history."""
    return example.text if field_ == "text" else told_apart(example.history, example.prompt)
