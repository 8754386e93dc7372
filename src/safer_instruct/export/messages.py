"""Prompts and responses as messages of a conversation."""

from __future__ import annotations

Message = dict[str, str]


def asked(prompt: str) -> list[Message]:
    """What comes before the response."""
    return [{"role": "user", "content": prompt}]


def answered(response: str) -> Message:
    """The response."""
    return {"role": "assistant", "content": response}
