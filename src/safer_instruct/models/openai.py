"""Any OpenAI-compatible endpoint, hosted or one's own (vLLM, SGLang, llama-server, Ollama), over HTTP without an SDK.

A raw prompt goes to `/completions`, a chat to `/chat/completions`. What may pass is tried again, what cannot is an error at
once: see `remote`. The key is read from the environment and stands in the request header only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from pydantic import BaseModel, FiniteFloat, ValidationError, model_validator

from safer_instruct.errors import AccessError
from safer_instruct.models.addresses import Address, message_of, read_address
from safer_instruct.models.answers import cached_tokens, refuses_content, withheld_by
from safer_instruct.models.flow import Limits
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring, Usage
from safer_instruct.models.remote import FilteredError, MalformedError, Remote, access_hints
from safer_instruct.models.spending import Spending, Tokens

URL = "https://api.openai.com/v1"
_USE_EMBEDDED = "the embedded scorer can: leave models.scorer at its default, or name an embedded model there"


class OpenAIModel:
    """A model behind one OpenAI-compatible endpoint, or several that serve the same weights."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | Sequence[str] = URL,
        api_key_env: str = "OPENAI_API_KEY",
        limits: Limits | None = None,
        spending: Spending | None = None,
        want_logprobs: bool = False,
        revision: str | None = None,
        provider: str = "openai",
    ) -> None:
        """Check what can be checked without a call.

        Args:
            model: The name that the endpoint knows the model by.
            base_url: Where `/completions` and `/chat/completions` are found; a query string is sent along. Of several
                addresses each call goes to the one with the least to do.
            api_key_env: Name of the environment variable that holds the key; endpoints on this machine need none.
            limits: What is kept to at each endpoint.
            spending: Prices the calls, and lets them draw on the run's budget.
            want_logprobs: Ask for `Completion.logprob`; not every endpoint knows it.
            revision: What is served, in the user's words; then the addresses are no part of the fingerprint.
            provider: Stands before the model's name.

        Raises:
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        self.name, limits = f"{provider}:{model}", limits or Limits()
        addresses = [read_address(url, api_key_env, self.name) for url in ([base_url] if isinstance(base_url, str) else base_url)]
        self._remote = Remote(self.name, addresses, limits=limits, spending=spending or Spending(), headers=_authorization, hints=self._hints)
        self._model, self._want_logprobs = model, want_logprobs
        self.priced = spending is not None and spending.price is not None
        self._hosted_by_openai = addresses[0].host == "api.openai.com"
        self.concurrency = limits.concurrency * len(addresses)
        where = f"#{revision}" if revision else f"@{','.join(sorted(a.shown for a in addresses))}"
        self.fingerprint = f"{self.name}{where}" + ("+logprobs" if want_logprobs else "")

    @property
    def status(self) -> str:
        """See `Model.status`."""
        return self._remote.status

    async def generate(self, request: Generation) -> Generated:
        """See `Model.generate`."""
        path, body = self._generation(request)
        completions, usage = await self._complete(path, body, request)
        for i in range(len(completions), request.sampling.n):  # the server ignores n
            one = replace(request, sampling=replace(request.sampling, n=1))
            more, cost = await self._complete(path, {**body, "n": 1, "seed": request.seed + i}, one)
            completions, usage = completions + more, usage + cost
        return Generated(tuple(completions), usage)

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`; raw prompts only, on endpoints that echo the prompt with its log-probabilities."""
        if not isinstance(request.prompt, str):
            raise AccessError(f"{self.name} cannot score after a chat, only after a raw prompt; {_USE_EMBEDDED}")
        if not request.continuation:
            return Scored(())
        body = {"model": self._model, "prompt": request.prompt + request.continuation, "echo": True, "max_tokens": 1, "temperature": 0, "logprobs": 1}
        answer, usage = await self._ask("/completions", body, request)
        logprobs = _continuation_logprobs(answer.choices[0].logprobs or _Logprobs(), len(request.continuation), usage.prompt_tokens)
        if not logprobs:
            raise AccessError(f"{self.name} at {self._remote.where} returns no log-probabilities of the prompt, so it cannot score; {_USE_EMBEDDED}")
        return Scored(logprobs, usage)

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        await self._remote.close()

    async def _complete(self, path: str, body: dict[str, Any], request: Generation) -> tuple[list[Completion], Usage]:
        """The completions of one answer; of one that a content filter stopped, that many withheld ones, which cost nothing."""
        try:
            answer, usage = await self._ask(path, body, request)
        except FilteredError as exc:
            return [Completion(str(exc), withheld="filter")] * request.sampling.n, Usage()
        return [_completion(c) for c in answer.choices], usage

    def _generation(self, request: Generation) -> tuple[str, dict[str, Any]]:
        sampling, chat = request.sampling, not isinstance(request.prompt, str)
        cap = "max_completion_tokens" if chat and self._hosted_by_openai else "max_tokens"  # OpenAI's newer models refuse the old name
        body: dict[str, Any] = {"model": self._model, cap: sampling.max_tokens, "temperature": sampling.temperature, "n": sampling.n, "seed": request.seed}
        if not self._hosted_by_openai and sampling.top_k > 0:
            body["top_k"] = sampling.top_k
        if not self._hosted_by_openai and sampling.repetition_penalty != 1:
            body["repetition_penalty"] = sampling.repetition_penalty
        if self._want_logprobs:
            body["logprobs"] = True if chat else 1
        if isinstance(request.prompt, str):
            return "/completions", {**body, "prompt": request.prompt}
        if request.schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": request.schema.name, "schema": request.schema.definition, "strict": True},
            }
        return "/chat/completions", {**body, "messages": [{"role": t.role, "content": t.content} for t in request.prompt]}

    async def _ask(self, path: str, body: dict[str, Any], request: Generation | Scoring) -> tuple[_Answer, Usage]:
        return await self._remote.ask(path, body, request, lambda raw: _read(raw, body.get("n", 1)))

    def _hints(self, address: Address, status: int, message: str, body: Mapping[str, Any]) -> list[str]:
        hints = access_hints(address, status, self._model)
        hints += [f"this endpoint may not know {k}; set it to {off}" for k, off in (("top_k", 0), ("repetition_penalty", 1)) if k in body and k in message]
        if "response_format" in body and any(word in message.lower() for word in ("response_format", "schema", "structured output")):
            hints.append("this endpoint may not know JSON-schema output; set 'json_schema: false' for this model")
        if "echo" in body:
            hints.append(f"if this endpoint cannot score, {_USE_EMBEDDED}")
        return hints


class _Token(BaseModel):
    logprob: FiniteFloat


class _Logprobs(BaseModel):
    content: list[_Token] | None = None  # chat
    token_logprobs: list[FiniteFloat | None] | None = None  # completions, with the two below
    tokens: list[str] | None = None
    text_offset: list[int] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


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


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Answer(BaseModel):
    """What is read of an answer; the rest of it is ignored."""

    choices: list[_Choice]
    usage: _Usage | None = None
    _cached: int = 0


def _authorization(key: str) -> Mapping[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _read(raw: bytes, n: int) -> tuple[_Answer, Tokens | None]:
    """An answer with `n` choices, or with one, from a server that ignores `n`.

    Raises:
        MalformedError: It is none.
    """
    answer = _validated(raw)
    if len(answer.choices) not in (n, 1):
        raise MalformedError(f"{len(answer.choices)} choices where {n} were asked for")
    answer.choices.sort(key=lambda choice: choice.index)
    if answer.usage is None:
        return answer, None
    read, written = answer.usage.prompt_tokens or 0, answer.usage.completion_tokens or 0
    return answer, Tokens(read, written, min(answer._cached, read))


def _validated(raw: bytes) -> _Answer:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise MalformedError(f"an answer of {len(raw)} bytes that is not valid JSON") from exc
    if not isinstance(data, dict):
        raise MalformedError("an answer that is no JSON object")
    if not data.get("choices") and refuses_content(data):
        raise FilteredError(message_of(data) or "the prompt was blocked")
    try:
        answer = _Answer.model_validate(data)
    except ValidationError as exc:
        where = exc.errors(include_url=False, include_input=False)[0]
        said = message_of(data) or f"{'.'.join(map(str, where['loc']))}: {where['msg']}"
        raise MalformedError(f"a malformed answer ({said})") from exc
    answer._cached = cached_tokens(data)
    return answer


def _completion(choice: _Choice) -> Completion:
    text = choice.message.content or choice.message.refusal or "" if choice.message else choice.text or ""
    refused = bool(choice.message and choice.message.refusal and not choice.message.content)
    withheld = withheld_by(choice.finish_reason) or ("refusal" if refused else "")
    told = choice.logprobs
    values = [t.logprob for t in told.content or ()] or [v for v in told.token_logprobs or () if v is not None] if told else []
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # JSON can say half a character, no file can hold it
    return Completion(text, sum(values) / len(values) if values else None, choice.finish_reason != "length", len(values) or None, withheld)


def _continuation_logprobs(logprobs: _Logprobs, length: int, prompt_tokens: int) -> tuple[float, ...]:
    """The values of the tokens that hold any of the last `length` characters of an echoed prompt; none when they are not all known.

    Positions are counted back from the prompt's end: vLLM counts a start token such as `<s>`, which the prompt does not
    show, into the offsets. SGLang gives -1 for every offset; the tokens' own lengths serve as well.
    """
    tokens, values, offsets = logprobs.tokens or [], logprobs.token_logprobs or [], logprobs.text_offset or [-1]
    count = prompt_tokens if len(tokens) - prompt_tokens in (0, 1) else len(tokens) - 1  # one more token was generated, or none
    if count < 1 or len(values) != len(tokens):
        return ()
    if min(offsets) < 0 or len(offsets) != len(tokens):
        offsets = list(accumulate(map(len, tokens), initial=0))[:-1]
    ends = [*offsets[1:], offsets[-1] + len(tokens[-1])]
    start = ends[count - 1] - length
    taken = [i for i in range(count) if offsets[i] >= start or ends[i] > start]
    known = [value for i in taken if (value := values[i]) is not None]
    missing = len(taken) - len(known) - (0 in taken and values[0] is None)  # nothing stands before the first token of all: it has no value
    return tuple(known) if start >= 0 and not missing else ()
