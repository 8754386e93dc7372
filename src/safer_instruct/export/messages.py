"""Prompts and responses as messages of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safer_instruct.conversation import Message


def asked(row: Mapping[str, Any]) -> list[Message]:
    """What comes before the response: in a conversation all that was said, and then the prompt."""
    return [*row.get("history", ()), {"role": "user", "content": row["prompt"]}]


def answered(response: str) -> Message:
    """The response."""
    return {"role": "assistant", "content": response}
