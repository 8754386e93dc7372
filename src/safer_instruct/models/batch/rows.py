"""Result lines: what they have in common, and those in the shape of chat completions, which OpenAI and Mistral share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safer_instruct.models import addresses
from safer_instruct.models.answers import refuses_content
from safer_instruct.models.batch.provider import Fate, Result
from safer_instruct.models.chat import read_answer
from safer_instruct.models.parsing import FilteredError, MalformedError
from safer_instruct.models.protocol import Completion
from safer_instruct.models.spending import Tokens

Read = Callable[[Mapping[str, Any]], tuple[Sequence[Completion], Tokens | None]]
UNREADABLE = "a result line that cannot be read"
_REFUSED, _DENIED = (400, 413, 422), (401, 402, 403, 404)


def parsed(line: bytes) -> dict[str, Any]:
    """A result line as an object; an empty one for anything else."""
    data = addresses.parsed(line)
    return data if isinstance(data, dict) else {}


def answered(custom_id: str, body: Any, read: Read) -> Result:
    """The row that got an answer, which `read` reads as it would read that of a single call."""
    try:
        if not isinstance(body, dict):
            raise MalformedError("an answer that is no JSON object")
        completions, tokens = read(body)
    except FilteredError as exc:
        return _filtered(custom_id, str(exc), None)
    except MalformedError as exc:
        return Result(custom_id, Fate.FAILED, reason=str(exc))
    return Result(custom_id, Fate.ANSWERED, tuple(completions), tokens)


def failed(custom_id: str, fate: Fate, error: Any, what: str = "") -> Result:
    """The row that got an error, which cost nothing; `what` stands before its message."""
    reason = f"{what}: {addresses.message_of(error) or error}" if what else addresses.message_of(error) or str(error)
    return _filtered(custom_id, reason, Tokens()) if refuses_content(error) else Result(custom_id, fate, tokens=Tokens(), reason=reason)


def fate_of(status: int) -> Fate:
    """What an HTTP status within a batch means for the row that got it."""
    return Fate.REFUSED if status in _REFUSED else Fate.DENIED if status in _DENIED else Fate.FAILED


def read_chat_line(line: bytes) -> Result:
    """A line `{custom_id, response: {status_code, body}, error}`, as OpenAI and Mistral write them."""
    data = parsed(line)
    id_ = str(data.get("custom_id") or "")
    response, error = data.get("response"), data.get("error")
    if isinstance(response, dict):
        status = response.get("status_code", 200)
        if status in range(200, 300):
            return answered(id_, response.get("body"), _read)
        return failed(id_, fate_of(status if isinstance(status, int) else 0), response.get("body"), f"HTTP {status}")
    if error:
        return failed(id_, Fate.FAILED, error)
    return Result(id_, Fate.FAILED, reason=UNREADABLE)


def _read(body: Mapping[str, Any]) -> tuple[Sequence[Completion], Tokens | None]:
    answer, tokens = read_answer(body)
    return answer.completions, tokens


def _filtered(custom_id: str, reason: str, tokens: Tokens | None) -> Result:
    return Result(custom_id, Fate.ANSWERED, (Completion(reason, withheld="filter"),), tokens)
