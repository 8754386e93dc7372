"""Whole dialogues on each side: Anthropic's HH text, OpenAI's preference fine-tuning, RewardBench."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from safer_instruct.export.lines import beside
from safer_instruct.export.messages import answered, asked
from safer_instruct.export.rows import Row

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
_TURN = re.compile(r"(?:\r?\n){2,}(?=(?:Human|Assistant):)")


def hh(row: Row) -> Iterator[Any]:
    """Two transcripts that differ in the last answer (https://huggingface.co/datasets/Anthropic/hh-rlhf)."""
    before = "".join(f"\n\n{_SPEAKERS[turn['role']]}: {_one_turn(turn['content'])}" for turn in asked(row)) + "\n\nAssistant: "
    yield {"chosen": before + _one_turn(row["chosen"]), "rejected": before + _one_turn(row["rejected"]), **beside(row)}


def openai(row: Row) -> Iterator[Any]:
    """OpenAI's direct preference optimisation (https://developers.openai.com/api/docs/guides/direct-preference-optimization)."""
    yield {
        "input": {"messages": asked(row), "tools": [], "parallel_tool_calls": True},
        "preferred_output": [answered(row["chosen"])],
        "non_preferred_output": [answered(row["rejected"])],
    }


def rewardbench(row: Row) -> Iterator[Any]:
    """As `rewardbench --dataset FILE --load_json` reads it: both sides are conversations, the prompt included."""
    sides = {side: [*asked(row), answered(row[side])] for side in ("chosen", "rejected")}
    yield {"prompt": row["prompt"], **sides, "subset": row["category"], **beside(row)}


def _one_turn(text: str) -> str:
    """A text that looks like further turns must not become them: such a marker loses the empty lines before it."""
    return _TURN.sub("\n", text)
