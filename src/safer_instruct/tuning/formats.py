"""The forms that instruction data is published in; each reader turns a row into the exchanges that it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from safer_instruct.errors import SourceError
from safer_instruct.models.protocol import Turn
from safer_instruct.settings.pairs import PairFormat, PairSource
from safer_instruct.sources.conversations import checked, turn_of
from safer_instruct.sources.records import RowRefused, lacking, visible

Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Exchange:
    """An instruction, its response, and the turns before it."""

    prompt: str
    response: str
    history: tuple[Turn, ...] = ()


Reader = Callable[[Fields], list[Exchange]]
_CONVERSATIONS = ("conversations", "conversation", "items")


def detect(rows: Sequence[Fields], source: PairSource, where: str) -> PairFormat:
    """The format that the columns of the first rows tell: of those that fit one the first decides.

    Raises:
        SourceError: None fits one.
    """
    if source.prompt or source.response or source.input:
        return "pairs"
    if form := next((form for fields in rows if (form := _form(fields))), None):
        return form
    listed = ", ".join(visible(str(name)) for name in list(rows[0])[:30])
    raise SourceError(
        f"{where}: columns {listed} fit no format (alpaca, dolly, sharegpt, messages, or prompt and response); "
        "say which column is which with 'prompt' and 'response' of this source"
    )


def _form(fields: Fields) -> PairFormat | None:
    """The format that the columns of one row tell."""
    if isinstance(fields.get("messages"), list):
        return "messages"
    if any(isinstance(fields.get(name), list) for name in _CONVERSATIONS):
        return "sharegpt"
    found: tuple[tuple[PairFormat, set[str]], ...] = (
        ("alpaca", {"instruction", "output"}),
        ("dolly", {"instruction", "response"}),
        ("pairs", {"prompt", "response"}),
    )
    return next((form for form, columns in found if columns <= fields.keys()), None)


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
        raise RowRefused(lacking(column, fields))
    value = fields.get(column)
    if value is None and optional:
        return ""
    return checked(value, f"column '{column}'")


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
