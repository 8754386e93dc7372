"""OpenAI's language, which most endpoints speak: the body of a request for completions, and what an answer to it says.

https://developers.openai.com/api/reference/resources/chat
https://docs.mistral.ai/api/endpoint/chat
https://ai.google.dev/gemini-api/docs/openai
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from pydantic import BaseModel, FiniteFloat, model_validator

from safer_instruct.models.addresses import message_of
from safer_instruct.models.answers import cached_tokens, refuses_content, withheld_by
from safer_instruct.models.parsing import FilteredError, MalformedError, shaped, whole
from safer_instruct.models.protocol import Completion, Generation, Prompt
from safer_instruct.models.spending import Tokens, reported

OPENAI_HOST = "api.openai.com"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an endpoint says it.

    Attributes:
        cap: Its name of the cap on a chat's answer; OpenAI's newer models refuse the old one.
        seed: Its name of the seed.
        many: Whether one request may ask for several completions.
        extended: Whether `top_k` and `repetition_penalty` may be sent.
    """

    cap: str = "max_tokens"
    seed: str = "seed"
    many: bool = True
    extended: bool = True


def dialect_of(provider: str, host: str) -> Dialect:
    """How the endpoint at `host` says it, for models of `provider`."""
    if host == OPENAI_HOST:
        return Dialect(cap="max_completion_tokens", extended=False)
    if provider == "mistral":
        return Dialect(seed="random_seed", many=False, extended=False)
    return Dialect(extended=provider != "gemini")


def completion_body(model: str, request: Generation, dialect: Dialect, *, want_logprobs: bool = False) -> dict[str, Any]:
    """The body that asks `model` for completions of a prompt, or for answers to a chat."""
    sampling, chat = request.sampling, not isinstance(request.prompt, str)
    body: dict[str, Any] = {"model": model, dialect.cap if chat else "max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
    body[dialect.seed] = request.seed
    if dialect.many:
        body["n"] = sampling.n
    if dialect.extended and sampling.top_k > 0:
        body["top_k"] = sampling.top_k
    if dialect.extended and sampling.repetition_penalty != 1:
        body["repetition_penalty"] = sampling.repetition_penalty
    if request.alternatives:
        body |= {"logprobs": True, "top_logprobs": request.alternatives} if chat else {"logprobs": request.alternatives}
    elif want_logprobs:
        body["logprobs"] = True if chat else 1
    if not chat:
        return {**body, "prompt": request.prompt}
    return {**body, **response_format(request), "messages": messages(request.prompt)}


def messages(prompt: Prompt) -> list[dict[str, str]]:
    """A chat; a raw prompt as what a user says."""
    return [{"role": role, "content": content} for role, content in spoken(prompt)]


def spoken(prompt: Prompt) -> list[tuple[str, str]]:
    """Who says what; a raw prompt is what a user says."""
    return [("user", prompt)] if isinstance(prompt, str) else [(turn.role, turn.content) for turn in prompt]


def response_format(request: Generation) -> dict[str, Any]:
    """The field that holds the model to the request's schema, where it has one."""
    if request.schema is None:
        return {}
    schema = {"name": request.schema.name, "schema": request.schema.definition, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def authorization(key: str) -> Mapping[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {key}"} if key else {}


def read_completions(data: Mapping[str, Any], n: int, *, alternatives: bool = False) -> tuple[list[Completion], Tokens | None]:
    """The same as `read_answer`, the answer as completions, each with its likeliest first tokens where `alternatives` were asked for.

    Raises:
        FilteredError: A content filter stopped the prompt.
        MalformedError: It is no answer.
    """
    if not alternatives and (usual := _read_usual(data)):
        return usual
    answer, tokens = read_answer(data, n)
    return answer.with_alternatives if alternatives else answer.completions, tokens


def _read_usual(data: Mapping[str, Any]) -> tuple[list[Completion], Tokens] | None:
    """One plain text as the answer to a chat, which nearly every answer is: read by hand, in a third of the time; None for any other."""
    choices, usage = data.get("choices"), data.get("usage")
    if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict or type(usage) is not dict:
        return None
    choice = choices[0]
    message, reason = choice.get("message"), choice.get("finish_reason")
    if type(message) is not dict or (reason != "stop" and reason != "length") or type(choice.get("index", 0)) is not int:
        return None
    text, read, written = message.get("content"), usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not text or type(text) is not str or type(read) is not int or type(written) is not int or read < 0 or written < 0:
        return None
    if message.get("refusal") is not None or choice.get("logprobs") is not None or choice.get("text") is not None:
        return None
    return [Completion(whole(text), None, reason == "stop")], Tokens(read, written, min(cached_tokens(data), read))


def read_answer(data: Mapping[str, Any], n: int | None = None) -> tuple[Answer, Tokens | None]:
    """An answer with `n` choices, or with one, from a server that ignores `n`, and the tokens it took, None where it does not tell.

    Of more choices than were asked for the first count; None of `n` is any number.

    Raises:
        FilteredError: It says that a content filter stopped the prompt.
        MalformedError: It is none.
    """
    if not data.get("choices") and refuses_content(data):
        raise FilteredError(message_of(data) or "the prompt was blocked")
    answer = shaped(data, Answer)
    if not answer.choices or (n is not None and 1 < len(answer.choices) < n):
        raise MalformedError(f"{len(answer.choices)} choices where {n or 'some'} were asked for")
    if len(answer.choices) > 1:
        answer.choices.sort(key=lambda choice: choice.index)
        del answer.choices[len(answer.choices) if n is None else n :]
    told = reported(answer.usage.prompt_tokens, answer.usage.completion_tokens) if answer.usage else None
    return answer, Tokens(told[0], told[1], min(cached_tokens(data), told[0])) if told else None


class _Alternative(BaseModel):
    token: str
    logprob: float


class _Token(BaseModel):
    logprob: FiniteFloat
    top_logprobs: list[_Alternative] | None = None


class Logprobs(BaseModel):
    """Log-probabilities, in the form of a chat or, all but the first, in that of a raw prompt."""

    content: list[_Token] | None = None
    token_logprobs: list[FiniteFloat | None] | None = None
    tokens: list[str] | None = None
    text_offset: list[int] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None

    @property
    def first_tokens(self) -> tuple[tuple[str, float], ...]:
        """The likeliest first tokens, likeliest first; none where the endpoint does not tell."""
        of_chat = [(t.token, t.logprob) for t in (self.content[0].top_logprobs or ())] if self.content else []
        of_raw = list((self.top_logprobs[0] or {}).items()) if self.top_logprobs else []
        return tuple(sorted((pair for pair in of_chat or of_raw if isfinite(pair[1])), key=lambda pair: (-pair[1], pair[0])))

    @property
    def values(self) -> list[float]:
        """Those that are known."""
        return [t.logprob for t in self.content or ()] or [v for v in self.token_logprobs or () if v is not None]


class _Message(BaseModel):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """What is said; of an answer in chunks (Mistral's reasoning models) only the texts, not the thoughts."""
        if isinstance(self.content, list):
            return "".join(str(chunk.get("text") or "") for chunk in self.content if chunk.get("type") == "text")
        return self.content or ""


class Choice(BaseModel):
    """One completion, as it was sent."""

    index: int = 0
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Choice:
        if self.text is None and self.message is None:
            raise ValueError("neither text nor message")
        return self

    @property
    def completion(self) -> Completion:
        """The same as everyone else wants it."""
        said = self.message.text if self.message else self.text or ""
        refusal = self.message.refusal or "" if self.message and not said else ""
        values = self.logprobs.values if self.logprobs else []
        return Completion(
            whole(said or refusal),
            sum(values) / len(values) if values else None,
            self.finish_reason != "length",
            len(values) or None,
            withheld_by(self.finish_reason) or ("refusal" if refusal else ""),
        )


class _Usage(BaseModel):
    prompt_tokens: Any = None
    completion_tokens: Any = None


class Answer(BaseModel):
    """What is read of an answer; the rest of it is ignored."""

    choices: list[Choice]
    usage: _Usage | None = None

    @property
    def completions(self) -> list[Completion]:
        """One for each choice."""
        return [choice.completion for choice in self.choices]

    @property
    def with_alternatives(self) -> list[Completion]:
        """The same, each with its likeliest first tokens where the endpoint tells them."""
        return [replace(c.completion, alternatives=c.logprobs.first_tokens if c.logprobs else ()) for c in self.choices]
