"""What was said before a prompt: as part of a text that a model is shown, as messages, and as what tells two prompts apart.

With no history everything here gives back what it was given, byte for byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from safer_instruct.example import Turn
from safer_instruct.templates import Template, load_template

TEMPLATES = ("conversation", "before")
"""What histories are rendered with; their digests are part of a run over conversations."""
Message = dict[str, str]
_TAG_DIGITS = 12


def in_context(history: Sequence[Turn], prompt: str) -> str:
    """`prompt` as the last message of its conversation, for templates that show a scorer or a judge one text.

    Lines of a message are indented, so that none of them can look like another speaker's turn.

    Args:
        history: What was said before; empty gives `prompt` as it is.
        prompt: The message that is answered; empty gives what was said before it alone.
    """
    return _template("conversation").render(history=history, prompt=prompt).rstrip() if history else prompt


def said_before(history: Sequence[Turn]) -> str:
    """What an inducer is shown ahead of a template that does not know of histories; empty where there is none."""
    return _template("before").render(history=history) if history else ""


def told_apart(history: Sequence[Turn], text: str) -> str:
    """`text` for comparison by its words: each carries a mark of the history, so that it is like no text that follows another one."""
    if not history:
        return text
    joined = "\0".join(part for turn in history for part in (turn.role, turn.content))
    mark = hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:_TAG_DIGITS]
    marked, words = re.subn(r"[\w']+", lambda word: f"{mark}{word.group()}", text)
    return marked if words else f"{mark} {text}"


def texts_digest(prompt: str, chosen: str, rejected: str, history: Sequence[Mapping[str, str]] | None = None) -> str:
    """16 hex digits that change with any of the three texts, and with what was said before them."""
    before = "\0".join(part for message in history or () for part in (message["role"], message["content"]))
    sizes = f"{len(prompt)} {len(chosen)} {len(rejected)}\n"
    return hashlib.sha256("".join((sizes, prompt, chosen, rejected, before)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def messages(history: Iterable[Turn], prompt: str) -> list[Message]:
    """A prompt as the messages of a chat, what was said before included."""
    return [*as_messages(history), {"role": "user", "content": prompt}]


def as_messages(turns: Iterable[Turn]) -> list[Message]:
    """Turns as plain data."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def as_turns(said: Iterable[Mapping[str, Any]] | None) -> tuple[Turn, ...]:
    """Messages, as a file or a row holds them, as turns."""
    return tuple(Turn(message["role"], message["content"]) for message in said or ())


def conversational(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of texts in TRL's conversational form: prompt, chosen and rejected are lists of messages, and `history` part of the first."""
    row = dict(row)
    prompt = [*row.pop("history", ()), {"role": "user", "content": row["prompt"]}]
    sides = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    return {**row, "prompt": prompt, **sides}


def as_texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `conversational`."""
    *history, last = row["prompt"]
    sides = {side: row[side][-1]["content"] for side in ("chosen", "rejected")}
    return {**row, "prompt": last["content"], **sides, "history": history}


@cache
def _template(name: str) -> Template:
    return load_template(name)
