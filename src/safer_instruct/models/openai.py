"""Any OpenAI-compatible endpoint, hosted or one's own (vLLM, SGLang, llama-server, Ollama), over HTTP without an SDK.

A raw prompt goes to `/completions`, a chat to `/chat/completions`. Whatever may pass (rate limits, server errors, timeouts,
broken connections, malformed answers) is tried again; whatever cannot pass is a `RequestError` or `AccessError` at once.
The key is read from the environment and stands in the request header only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import random
import time
from email.utils import parsedate_to_datetime
from itertools import accumulate
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, FiniteFloat, ValidationError, model_validator

from safer_instruct.errors import AccessError, ModelError, RequestError
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring, Usage
from safer_instruct.models.transport import NoReply, Transport

_BACKOFF_S = (0.5, 30.0)  # first and longest; each wait is drawn between 0 and that ("full jitter")
_RETRY_AFTER_CAP_S = 120.0
_MESSAGE_CHARS = 300
_REQUEST_REFUSED = (400, 413, 422)  # for what is in the request; any other refusal holds for every request
_USE_EMBEDDED = "the embedded scorer can: leave models.scorer at its default, or name an embedded model there"


class OpenAIModel:
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 32,
        timeout_s: float = 120.0,
        retries: int = 6,
        price_per_million: tuple[float, float] = (0.0, 0.0),
        want_logprobs: bool = False,
    ) -> None:
        """Check what can be checked without a call.

        Args:
            model: The name that the endpoint knows the model by.
            base_url: Where `/completions` and `/chat/completions` are found; a query string is sent along.
            api_key_env: Name of the environment variable that holds the key; endpoints on this machine need none.
            concurrency: Most calls in flight at once.
            timeout_s: Cap on one attempt, from connecting to the last byte.
            retries: Further attempts after the first one.
            price_per_million: Price of a million tokens read and of a million tokens written.
            want_logprobs: Ask for `Completion.logprob`; not every endpoint knows it.

        Raises:
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        url = _checked_url(base_url)
        self.name = f"openai:{model}"
        self.concurrency = concurrency
        self._model, self._timeout_s, self._retries, self._price, self._want_logprobs = model, timeout_s, retries, price_per_million, want_logprobs
        self._loopback = _is_loopback(url.hostname or "")
        self._hosted_by_openai = url.hostname == "api.openai.com"
        self._key_env = api_key_env
        self._key = _read_key(api_key_env, self.name, needed=not self._loopback)
        bare = url._replace(netloc=url.netloc.rpartition("@")[2], path=url.path.rstrip("/"), fragment="")
        self._url = bare if self._key else bare._replace(netloc=url.netloc)  # a key and a password cannot both be sent
        self._shown_url = bare._replace(query="").geturl()
        self.fingerprint = f"openai:{model}@{self._shown_url}" + ("+logprobs" if want_logprobs else "")
        self._slots = asyncio.Semaphore(concurrency)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self._key}"} if self._key else {})}
        self._transport = Transport(headers, timeout_s=timeout_s, through_proxy=not self._loopback)

    async def generate(self, request: Generation) -> Generated:
        """See `Model.generate`."""
        path, body = self._generation(request)
        answer = await self._ask(path, body)
        completions, usage = [_completion(c) for c in answer.choices], self._cost(answer)
        for i in range(len(completions), request.sampling.n):  # the server ignores n
            answer = await self._ask(path, {**body, "n": 1, "seed": request.seed + i})
            completions += [_completion(c) for c in answer.choices]
            usage += self._cost(answer)
        return Generated(tuple(completions), usage)

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`; raw prompts only, on endpoints that echo the prompt with its log-probabilities."""
        if not isinstance(request.prompt, str):
            raise AccessError(f"{self.name} cannot score after a chat, only after a raw prompt; {_USE_EMBEDDED}")
        if not request.continuation:
            return Scored(())
        body = {"model": self._model, "prompt": request.prompt + request.continuation, "echo": True, "max_tokens": 1, "temperature": 0, "logprobs": 1}
        answer = await self._ask("/completions", body)
        usage = self._cost(answer)
        logprobs = _continuation_logprobs(answer.choices[0].logprobs or _Logprobs(), len(request.continuation), usage.prompt_tokens)
        if not logprobs:
            raise AccessError(f"{self.name} at {self._shown_url} returns no log-probabilities of the prompt, so it cannot score; {_USE_EMBEDDED}")
        return Scored(logprobs, usage)

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._slots = asyncio.Semaphore(self.concurrency)
        await self._transport.close()

    def _generation(self, request: Generation) -> tuple[str, dict[str, Any]]:
        sampling, chat = request.sampling, not isinstance(request.prompt, str)
        cap = "max_completion_tokens" if chat and self._hosted_by_openai else "max_tokens"  # OpenAI's newer models refuse the old name
        body = {"model": self._model, cap: sampling.max_tokens, "temperature": sampling.temperature, "n": sampling.n, "seed": request.seed}
        if not self._hosted_by_openai and sampling.top_k > 0:
            body["top_k"] = sampling.top_k
        if not self._hosted_by_openai and sampling.repetition_penalty != 1:
            body["repetition_penalty"] = sampling.repetition_penalty
        if self._want_logprobs:
            body["logprobs"] = True if chat else 1
        if isinstance(request.prompt, str):
            return "/completions", {**body, "prompt": request.prompt}
        return "/chat/completions", {**body, "messages": [{"role": t.role, "content": t.content} for t in request.prompt]}

    def _cost(self, answer: _Answer) -> Usage:
        read, written = (answer.usage.prompt_tokens or 0, answer.usage.completion_tokens or 0) if answer.usage else (0, 0)
        return Usage(read, written, (read * self._price[0] + written * self._price[1]) / 1e6)

    async def _ask(self, path: str, body: dict[str, Any]) -> _Answer:
        """Post until a well-formed answer comes, or the retries are used up."""
        attempt = 0
        while True:
            try:
                async with self._slots:
                    data = await self._post(path, body)
                return self._read(data, body.get("n", 1))
            except _TransientError as exc:
                if attempt == self._retries:
                    raise ModelError(f"{self.name} at {self._shown_url} gave no usable answer in {attempt + 1} attempts; the last one: {exc}") from exc
                await asyncio.sleep(_wait_s(attempt, exc.retry_after_s))
            attempt += 1

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One HTTP exchange."""
        url = self._url._replace(path=self._url.path + path).geturl()
        try:
            reply = await self._transport.post(url, json.dumps(body).encode())
        except NoReply as exc:
            said = f"no answer within {self._timeout_s:g} s" if exc.timed_out and exc.sent else f"the connection failed: {self._cleaned(str(exc))}"
            raise _TransientError(said) from exc
        return self._decode(reply.status, reply.headers.get("retry-after", ""), reply.body, body)

    def _decode(self, status: int, retry_after: str, raw: bytes, body: dict[str, Any]) -> dict[str, Any]:
        if 200 <= status < 300:
            try:
                data = json.loads(raw)
            except (ValueError, RecursionError) as exc:
                raise _TransientError(f"an answer of {len(raw)} bytes that is not valid JSON") from exc
            if not isinstance(data, dict):
                raise _TransientError("an answer that is no JSON object")
            return data
        message = f"HTTP {status}: {self._cleaned(_server_message(raw)) or 'no message'}"
        if status in (408, 409, 429) or status >= 500:
            raise _TransientError(message, _retry_after_s(retry_after))
        kind = RequestError if status in _REQUEST_REFUSED else AccessError
        raise kind(f"{self.name} at {self._shown_url}: {message}{self._hint(status, message, body)}")

    def _hint(self, status: int, message: str, body: dict[str, Any]) -> str:
        hints = []
        if status in (401, 403):
            hints.append(f"the key is read from the environment variable {self._key_env}" + ("" if self._key else ", which is not set"))
        if status == 404:
            hints.append(f"is '{self._model}' the name of a model there, and is base_url {self._shown_url} right?")
        if status < 400:
            hints.append("base_url must be the address that it redirects to")
        hints += [f"this endpoint may not know {k}; set it to {off}" for k, off in (("top_k", 0), ("repetition_penalty", 1)) if k in body and k in message]
        if "echo" in body:
            hints.append(f"if this endpoint cannot score, {_USE_EMBEDDED}")
        return "".join(f"; {hint}" for hint in hints)

    def _read(self, data: dict[str, Any], n: int) -> _Answer:
        try:
            answer = _Answer.model_validate(data)
        except ValidationError as exc:
            where = exc.errors(include_url=False, include_input=False)[0]
            said = self._cleaned(_message_of(data)) or f"{'.'.join(map(str, where['loc']))}: {where['msg']}"
            raise _TransientError(f"a malformed answer ({said})") from exc
        if len(answer.choices) not in (n, 1):
            raise _TransientError(f"{len(answer.choices)} choices where {n} were asked for")
        answer.choices.sort(key=lambda choice: choice.index)
        return answer

    def _cleaned(self, text: str) -> str:
        """Somebody else's words, fit for one line of an error: printable, short, without the key."""
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if self._key:
            text = text.replace(self._key, "[key]")
        return text if len(text) <= _MESSAGE_CHARS else text[: _MESSAGE_CHARS - 3] + "..."


class _TransientError(Exception):
    """This attempt failed; the next one may not."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


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


class _Tokens(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Answer(BaseModel):
    """What is read of an answer; the rest of it is ignored."""

    choices: list[_Choice]
    usage: _Tokens | None = None


def _completion(choice: _Choice) -> Completion:
    text = choice.message.content or choice.message.refusal or "" if choice.message else choice.text or ""
    logprobs = choice.logprobs or _Logprobs()
    values = [t.logprob for t in logprobs.content or ()] or [v for v in logprobs.token_logprobs or () if v is not None]
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # JSON can say half a character, no file can hold it
    return Completion(text, sum(values) / len(values) if values else None, choice.finish_reason != "length", len(values) or None)


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


def _checked_url(base_url: str) -> SplitResult:
    try:
        url = urlsplit(base_url)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False
    if not valid:  # not shown: it may hold a password
        raise ModelError("base_url is no address such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _read_key(variable: str, name: str, *, needed: bool) -> str:
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        raise ModelError(f"{name} needs a key: set the environment variable {variable} (any word will do where the endpoint asks for none)")
    if not (key.isascii() and key.isprintable()):
        raise ModelError(f"the environment variable {variable} holds characters that no key has")
    return key


def _wait_s(attempt: int, retry_after_s: float) -> float:
    first, longest = _BACKOFF_S
    return retry_after_s + random.uniform(0, min(longest, first * 2**attempt))


def _retry_after_s(header: str) -> float:
    """Seconds that a `Retry-After` header asks for, a number or a date; 0 when it says nothing of use."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(seconds, _RETRY_AFTER_CAP_S) if seconds > 0 else 0.0


def _server_message(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    try:
        return _message_of(json.loads(text)) or text
    except (ValueError, RecursionError):
        return text


def _message_of(data: Any) -> str:
    """The message in an error body: `{"error": {"message": ...}}`, `{"error": ...}`, `{"message": ...}` or `{"detail": ...}`."""
    for name in ("error", "message", "detail"):
        if isinstance(data, dict) and data.get(name):
            return _message_of(data[name]) or str(data[name])
    return data if isinstance(data, str) else ""
