"""Rows and results in the shape of chat completions, which OpenAI and Mistral share."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, FiniteFloat, ValidationError, model_validator

from safer_instruct.models.batch.provider import Fate, Result, Tokens
from safer_instruct.models.protocol import Completion

_REFUSED, _DENIED = (400, 413, 422), (401, 402, 403, 404)


def parsed(line: bytes) -> dict[str, Any]:
    """A result line as an object; an empty one for anything else."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def fate_of(status: int) -> Fate:
    """What an HTTP status within a batch means for the row that got it."""
    return Fate.REFUSED if status in _REFUSED else Fate.DENIED if status in _DENIED else Fate.FAILED


def whole(text: str) -> str:
    """A text that files can hold: JSON can say half a character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_chat_line(line: bytes) -> Result:
    """A line `{custom_id, response: {status_code, body}, error}`, as OpenAI and Mistral write them."""
    data = parsed(line)
    id_ = str(data.get("custom_id") or "")
    response, error = data.get("response"), data.get("error")
    if isinstance(response, dict) and response.get("status_code", 200) in range(200, 300):
        return _answer(id_, response.get("body"))
    if isinstance(response, dict):
        status = response.get("status_code")
        return Result(id_, fate_of(status if isinstance(status, int) else 0), tokens=Tokens(), reason=f"HTTP {status}: {_message(response.get('body'))}")
    if error:
        return Result(id_, Fate.FAILED, tokens=Tokens(), reason=_message(error))
    return Result(id_, Fate.FAILED, reason="a result line that cannot be read")


def _answer(id_: str, body: Any) -> Result:
    try:
        answer = _Answer.model_validate(body)
    except ValidationError as exc:
        where = exc.errors(include_url=False, include_input=False)[0]
        return Result(id_, Fate.FAILED, reason=f"a malformed answer ({'.'.join(map(str, where['loc']))}: {where['msg']})")
    if not answer.choices:
        return Result(id_, Fate.FAILED, tokens=answer.tokens, reason="an answer without choices")
    return Result(id_, Fate.ANSWERED, tuple(map(_completion, sorted(answer.choices, key=lambda c: c.index))), answer.tokens)


def _message(data: Any) -> str:
    """The message in an error of any shape."""
    while isinstance(data, dict):
        data = next((data[name] for name in ("error", "message", "detail", "code") if data.get(name)), str(data))
    return str(data)


class _Token(BaseModel):
    logprob: FiniteFloat


class _Logprobs(BaseModel):
    content: list[_Token] | None = None
    token_logprobs: list[FiniteFloat | None] | None = None


class _Message(BaseModel):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """What is said; of an answer in chunks (Mistral's reasoning models) only the texts, not the thoughts."""
        if isinstance(self.content, list):
            return "".join(str(chunk.get("text") or "") for chunk in self.content if chunk.get("type") == "text")
        return self.content or self.refusal or ""


class _Choice(BaseModel):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None

    @model_validator(mode="after")
    def _says_something(self) -> _Choice:
        if self.text is None and self.message is None:
            raise ValueError("neither text nor message")
        return self


class _Cached(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None


class _Answer(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None

    @property
    def tokens(self) -> Tokens | None:
        if self.usage is None:
            return None
        cached = (self.usage.prompt_tokens_details or _Cached()).cached_tokens or 0
        return Tokens(self.usage.prompt_tokens or 0, self.usage.completion_tokens or 0, cached)


def _completion(choice: _Choice) -> Completion:
    text = choice.message.text if choice.message else choice.text or ""
    logprobs = choice.logprobs or _Logprobs()
    values = [t.logprob for t in logprobs.content or ()] or [v for v in logprobs.token_logprobs or () if v is not None]
    return Completion(whole(text), sum(values) / len(values) if values else None, choice.finish_reason != "length", len(values) or None)
