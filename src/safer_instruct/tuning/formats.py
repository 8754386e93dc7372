"""The forms that instruction data is published in; each reader turns a row into the exchanges that it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from safer_instruct.errors import SourceError
from safer_instruct.models.protocol import Turn
from safer_instruct.settings.pairs import PairFormat, PairSource
from safer_instruct.sources.records import RowRefused, visible

Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Exchange:
    """An instruction, its response, and the turns before it."""

    prompt: str
    response: str
    history: tuple[Turn, ...] = ()


Reader = Callable[[Fields], list[Exchange]]
_CONVERSATIONS = ("conversations", "conversation", "items")
_ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model", "bing", "bard", "claude"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "function_call", "observation", "ipython"), "tool"),
}


def detect(fields: Fields, source: PairSource, where: str) -> PairFormat:
    """The format that the columns of a row tell.

    Raises:
        SourceError: They fit none.
    """
    if source.prompt or source.response or source.input:
        return "pairs"
    if isinstance(fields.get("messages"), list):
        return "messages"
    if any(isinstance(fields.get(name), list) for name in _CONVERSATIONS):
        return "sharegpt"
    found: tuple[tuple[PairFormat, set[str]], ...] = (
        ("alpaca", {"instruction", "output"}),
        ("dolly", {"instruction", "response"}),
        ("pairs", {"prompt", "response"}),
    )
    for form, columns in found:
        if columns <= fields.keys():
            return form
    listed = ", ".join(visible(str(name)) for name in list(fields)[:30])
    raise SourceError(
        f"{where}: columns {listed} fit no format (alpaca, dolly, sharegpt, messages, or prompt and response); "
        "say which column is which with 'prompt' and 'response' of this source"
    )


def reader(form: PairFormat, source: PairSource) -> Reader:
    """What reads rows of `form`."""
    match form:
        case "alpaca":
            return partial(_columns, prompt="instruction", input="input", response="output")
        case "dolly":
            return partial(_columns, prompt="instruction", input="context", response="response")
        case "sharegpt":
            return partial(_conversation, source=source, columns=_CONVERSATIONS, role="from", content="value")
        case "messages":
            return partial(_conversation, source=source, columns=("messages",), role="role", content="content")
        case _:
            return partial(_columns, prompt=source.prompt or "prompt", input=source.input, response=source.response or "response", strict=True)


def _columns(fields: Fields, *, prompt: str, input: str | None, response: str, strict: bool = False) -> list[Exchange]:
    """One exchange from columns; `input` may be missing or empty unless `strict`."""
    asked = _text(fields, prompt)
    about = "" if input is None else _text(fields, input, optional=not strict)
    return [Exchange(f"{asked}\n\n{about}" if about else asked, _text(fields, response))]


def _text(fields: Fields, column: str, *, optional: bool = False) -> str:
    if column not in fields and not optional:
        raise RowRefused(f"no column '{column}'; this row has {', '.join(visible(str(name)) for name in list(fields)[:30])}")
    value = fields.get(column)
    if value is None and optional:
        return ""
    return checked(value, f"column '{column}'")


def checked(value: object, what: str) -> str:
    """`value` as text without blanks around it.

    Raises:
        RowRefused: It is no text, or holds what is no character.
    """
    if not isinstance(value, str):
        raise RowRefused(f"{what} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowRefused(f"{what} holds a lone surrogate, which is no character") from None
    return value.strip()


def _conversation(fields: Fields, *, source: PairSource, columns: Sequence[str], role: str, content: str) -> list[Exchange]:
    """One exchange per answer that directly follows a user's message."""
    column = next((name for name in columns if name in fields), columns[0])
    listed = fields.get(column)
    if not isinstance(listed, list | tuple):
        raise RowRefused(f"column '{column}' is no list of turns")
    turns = [turn_of(item, role, content, number) for number, item in enumerate(listed, 1)]
    found = list(_exchanges(turns))
    if not found:
        raise RowRefused("no answer that follows a user's message")
    return found[:1] if source.turns == "first" else found


def _exchanges(turns: Sequence[Turn]) -> Iterator[Exchange]:
    spoken = [turn for turn in turns if turn.role != "system"]
    for at in range(1, len(spoken)):
        asked, answered = spoken[at - 1], spoken[at]
        if (asked.role, answered.role) == ("user", "assistant"):
            yield Exchange(asked.content, answered.content, tuple(spoken[: at - 1]))


def turn_of(item: object, role: str, content: str, number: int) -> Turn:
    """A message whose speaker and text stand under the keys `role` and `content`.

    Raises:
        RowRefused: It is none.
    """
    if not isinstance(item, Mapping):
        raise RowRefused(f"turn {number} is no object")
    spoken_by = _ROLES.get(str(item.get(role, "")).lower())
    if spoken_by is None:
        raise RowRefused(f"turn {number}: '{role}' is {visible(repr(item.get(role)))}, not one of {', '.join(_ROLES)}")
    said = item.get(content)
    if isinstance(said, list | tuple):  # OpenAI's content parts
        said = "\n".join(_part(part, number) for part in said)
    if said is None and spoken_by in ("assistant", "tool"):  # a tool call has no text: as an answer it is empty, and is cleaned away
        said = ""
    return Turn(spoken_by, checked(said, f"turn {number}: '{content}'"))


def _part(part: object, number: int) -> str:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        raise RowRefused(f"turn {number} holds a part that is not text")
    return str(part["text"])
