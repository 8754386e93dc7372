"""Anthropic's Messages: the body of a request, by what its model takes, and what an answer says.

https://platform.claude.com/docs/en/api/messages/create
https://platform.claude.com/docs/en/build-with-claude/thinking
https://platform.claude.com/docs/en/build-with-claude/prompt-caching
https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from safer_instruct.models.answers import withheld_by
from safer_instruct.models.chat import spoken
from safer_instruct.models.parsing import shaped, whole
from safer_instruct.models.protocol import Completion, Generation
from safer_instruct.models.spending import Tokens, reported

_VERSION = "2023-06-01"
THINKING_TOKENS = 4096  # room for thinking, beside `max_tokens`, where it cannot be turned off
_CACHED_FROM_CHARS = 512  # less is fewer than 512 tokens, the least that any model caches
_CUT = ("max_tokens", "model_context_window_exceeded")
# The models before Claude Opus 4.7; those from it on refuse temperature and top_k with HTTP 400.
_SAMPLED = re.compile(r"claude-(?:[23]|instant|(?:opus|sonnet|haiku)-4(?:-[0-6])?(?:-\d{8})?$)")
# Those before Claude 4.5, which cannot be held to a schema.
_FREE_FORM = re.compile(r"claude-(?:[23]|instant|(?:opus|sonnet|haiku)-4(?:-[01])?(?:-\d{8})?$)")
# Thinking counts towards max_tokens, so that a short cap would be used up by it. Each model has its own word for 'do not'.
_THINKING_OFF = (
    (re.compile(r"claude-opus-4-[78](?:-\d{8})?$"), None),  # does not think unless asked to
    (re.compile(r"claude-(?:opus-5|sonnet-5|haiku-5-5)(?:-\d{8})?$"), "disabled"),
    (re.compile(r"claude-sonnet-5-5(?:-\d{8})?$"), "between_tools"),
)


def single(model: str, request: Generation) -> Generation:
    """The request for one completion, with room for the thinking that `model` cannot do without."""
    sampling = request.sampling
    room = THINKING_TOKENS if _manner(model, request).get("output_config") else 0
    return replace(request, sampling=replace(sampling, n=1, max_tokens=sampling.max_tokens + room))


def message_body(model: str, request: Generation) -> dict[str, Any]:
    """The body that asks `model` for what `single` has made of a request; there are no seeds, no repetition penalty and no log-probabilities.

    The system prompt is marked to be cached: the requests of one stage and category share it, reading it again costs a
    tenth of its price or less, and writing it a quarter more, so that the second request has earned that already. What is
    too short for a model's cache is not written to it, and costs nothing more.
    """
    turns = spoken(request.prompt)
    body: dict[str, Any] = {"model": model, "max_tokens": request.sampling.max_tokens, **_manner(model, request)}
    if request.schema and model.startswith("claude-") and not _FREE_FORM.match(model):
        held = {"format": {"type": "json_schema", "schema": request.schema.definition}}
        body["output_config"] = body.get("output_config", {}) | held
    body["messages"] = [{"role": role, "content": content} for role, content in turns if role != "system"]
    if system := "\n\n".join(content for role, content in turns if role == "system"):
        block = {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}
        body["system"] = [block] if len(system) >= _CACHED_FROM_CHARS else system
    return body


def headers(key: str) -> Mapping[str, str]:
    """The headers of every call, with the key, where there is one."""
    return {"anthropic-version": _VERSION} | ({"x-api-key": key} if key else {})


def read_message(data: Mapping[str, Any]) -> tuple[Completion, Tokens | None]:
    """The completion in an answer, and the tokens it took, None where it does not tell.

    Raises:
        MalformedError: It is none.
    """
    answer = shaped(data, _Message)
    text = "".join(block.text for block in answer.content if block.type == "text")
    finished, withheld = answer.stop_reason not in _CUT, withheld_by(answer.stop_reason)
    return Completion(whole(text), finished=finished, withheld=withheld), answer.usage.tokens if answer.usage else None


def _manner(model: str, request: Generation) -> dict[str, Any]:
    """How it is to write, in the fields that the model takes; one that is not called Claude takes those of the first ones."""
    sampling = request.sampling
    if _SAMPLED.match(model) or not model.startswith("claude-"):
        return {"temperature": min(1.0, sampling.temperature)} | ({"top_k": sampling.top_k} if sampling.top_k > 0 else {})
    for pattern, off in _THINKING_OFF:
        if pattern.match(model):
            return {"thinking": {"type": off}} if off else {}
    return {"output_config": {"effort": "low"}}  # it thinks, as little as it can


class _Block(BaseModel):
    type: str
    text: str = ""


class _Usage(BaseModel):
    input_tokens: Any = None  # without those of the cache
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None

    @property
    def tokens(self) -> Tokens | None:
        told = reported(self.input_tokens, self.output_tokens, self.cache_read_input_tokens, self.cache_creation_input_tokens)
        if told is None:
            return None
        read, written, cached, cache_written = told
        return Tokens(read + cached + cache_written, written, cached, cache_written)


class _Message(BaseModel):
    """What is read of an answer; the rest of it is ignored."""

    content: list[_Block]
    stop_reason: str | None = None
    usage: _Usage | None = None
