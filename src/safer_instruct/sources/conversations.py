"""Conversations in the forms that they are published in: OpenAI's messages, ShareGPT's conversations, Anthropic's HH transcripts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from safer_instruct.example import Turn
from safer_instruct.sources.records import RowRefused, visible

ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model", "bing", "bard", "claude"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "function_call", "observation", "ipython"), "tool"),
}
"""Who speaks, by the names that published sets use."""
_TOOL_KEYS = ("tool_calls", "function_call")
_HH_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


@dataclass(frozen=True, slots=True)
class Answer:
    """A turn of the assistant with what led to it.

    Attributes:
        text: What the assistant said.
        asked: The user's message right before it.
        history: What was said before that, user and assistant in turn.
        turn: Place of the text in the conversation, counted from 1 and without a system turn.
    """

    text: str
    asked: str
    history: tuple[Turn, ...]
    turn: int


def is_transcript(value: object) -> bool:
    """Whether it is a text in which a user speaks first and an assistant answers, as Anthropic's HH has them."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def read_conversation(value: object, column: str) -> tuple[Turn, ...]:
    """The turns of the user and the assistant, of whom the user begins and each follows the other.

    A system turn at the beginning is left out: the domain's guideline stands in its place.

    Args:
        value: A list of messages (`role`, `content`) or of turns (`from`, `value`), such a list as JSON, or an HH transcript.
        column: Where it stood, for reasons.

    Raises:
        RowRefused: It is none of these, or holds turns that a conversation of two cannot have.
    """
    turns = [*_numbered(value, column)]
    if turns and turns[0][1].role == "system":
        turns = turns[1:]
    for number, turn in turns:
        _check(number, turn)
    if not any(turn.role == "assistant" for _, turn in turns):
        raise RowRefused("the conversation has no turn of the assistant")
    if turns[0][1].role != "user":
        raise RowRefused(f"the conversation begins with the assistant (turn {turns[0][0]}); nothing was asked before that")
    for (first, one), (second, other) in pairwise(turns):
        if one.role == other.role:
            raise RowRefused(f"turns {first} and {second} are both the {one.role}'s")
    return tuple(turn for _, turn in turns)


def answers(turns: Sequence[Turn]) -> list[Answer]:
    """The assistant's turns of a conversation in which the user begins and each follows the other."""
    return [Answer(turns[at].content, turns[at - 1].content, tuple(turns[: at - 1]), at + 1) for at in range(1, len(turns), 2)]


def read_turns(listed: object, what: str) -> list[Turn]:
    """The turns of a list in either form, {role, content} or {from, value}, whoever speaks when.

    Raises:
        RowRefused: It is no such list; `what` names it.
    """
    if not isinstance(listed, list | tuple) or not listed:
        raise RowRefused(f"{what} is neither text nor a list of turns")
    return [turn_of(item, *_keys(item), number) for number, item in enumerate(listed, 1)]


def turn_of(item: object, role: str, content: str, number: int) -> Turn:
    """One element of a list of turns; without content it is empty where the speaker may call a tool instead.

    Args:
        item: The element.
        role: Key of who speaks.
        content: Key of what is said: a string, or OpenAI's content parts of type text.
        number: Place of the element, counted from 1, for reasons.

    Raises:
        RowRefused: It is no object, nobody known speaks, or what is said is not text.
    """
    if not isinstance(item, Mapping):
        raise RowRefused(f"turn {number} is no object")
    spoken_by = ROLES.get(str(item.get(role, "")).lower())
    if spoken_by is None:
        raise RowRefused(f"turn {number}: '{role}' is {visible(repr(item.get(role)))}, not one of {', '.join(ROLES)}")
    said = item.get(content)
    if isinstance(said, list | tuple):  # OpenAI's content parts
        said = "\n".join(_part(part, number) for part in said)
    if said is None and spoken_by in ("assistant", "tool"):  # a tool call has no text: as an answer it is empty, and is cleaned away
        said = ""
    return Turn(spoken_by, checked(said, f"turn {number}: '{content}'"))


def checked(value: object, what: str) -> str:
    """`value` without white space around it, if it is text that can be written.

    Raises:
        RowRefused: It is not.
    """
    if not isinstance(value, str):
        raise RowRefused(f"{what} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowRefused(f"{what} holds a lone surrogate, which is no character") from None
    return value.strip()


def _numbered(value: object, column: str) -> Iterator[tuple[int, Turn]]:
    """The turns with their places, as they stand."""
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            yield from enumerate(_transcript(value, column), 1)
            return
        value = _json(value, column)
    if not isinstance(value, list | tuple):
        raise RowRefused(f"column '{visible(column)}' is no list of turns, and no transcript")
    for number, item in enumerate(value, 1):
        if isinstance(item, Mapping) and any(item.get(key) for key in _TOOL_KEYS):
            raise RowRefused(f"turn {number} calls a tool; conversations with tools are not read")
        yield number, turn_of(item, *_keys(item), number)


def _keys(item: object) -> tuple[str, str]:
    return ("from", "value") if isinstance(item, Mapping) and "role" not in item and "from" in item else ("role", "content")


def _transcript(text: str, column: str) -> Iterator[Turn]:
    """The turns of a text in which each begins with 'Human:' or 'Assistant:' behind an empty line."""
    text = text.replace("\r\n", "\n")
    marks = list(_HH_TURN.finditer(text))
    if not marks or marks[0].start() != 0:
        raise RowRefused(f"column '{visible(column)}' is no transcript: it begins neither with 'Human:' nor with 'Assistant:'")
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for number, (mark, end) in enumerate(zip(marks, ends, strict=True), 1):
        yield Turn(ROLES[mark[1].lower()], checked(text[mark.end() : end], f"turn {number}"))


def _json(text: str, column: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise RowRefused(f"column '{visible(column)}' begins like a list and is no JSON: {getattr(exc, 'msg', 'nested too deeply')}") from None


def _check(number: int, turn: Turn) -> None:
    if turn.role == "system":
        raise RowRefused(f"turn {number} is a system turn in the middle of the conversation")
    if turn.role == "tool":
        raise RowRefused(f"turn {number} is a tool's; conversations with tools are not read")
    if not turn.content:
        raise RowRefused(f"turn {number}, the {turn.role}'s, is empty")
    if "\0" in turn.content:
        raise RowRefused(f"turn {number} holds NUL characters")


def _part(part: object, number: int) -> str:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        raise RowRefused(f"turn {number} holds a part that is not text")
    return str(part["text"])
