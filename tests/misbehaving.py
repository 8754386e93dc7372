"""A server on the loopback, OpenAI-compatible and with Anthropic's Messages, that answers as a function of the request, and misbehaves on demand.

    with serve(error=0.2, reset=0.1, seed=7) as server:
        model = OpenAIModel("m", base_url=server.base_url)
        ...
        assert server.asked_twice == 0
        server.crash()                       # connections break, nobody listens
        server.listen()                      # at the same port again

Answers depend on the request body alone. Which attempt at which body fails depends on the seed, the body and the number of
the attempt, not on the order of arrival: two runs meet the same faults however they are scheduled.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any

from aiohttp import web

_WORDS = ["my", "parcel", "number", "delayed", "umbrella", "broken", "refund", "please", "order", "lamp", "blue", "kettle", "Monday", "wrong", "cake", "card"]


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how often: rates are between 0 and 1, and are drawn one after the other.

    Attributes:
        error: Answers 500.
        rate_limit: Answers 429 with `Retry-After: retry_after` (none when it is None; of several, one is drawn; `date:1` is the
            HTTP date in a second, rounded up).
        per_s: Answers 429 to what comes faster, for each model apart: a bucket that holds a second's worth.
        truncated: Sends half of the JSON as if it were the whole.
        cut: Sends half of the JSON, then breaks the connection off.
        empty: Sends `choices: []`, or a message without `content`.
        hang: Never answers.
        reset: Breaks the connection off.
        slow: Answers after `slow_s`.
        drip: Answers byte by byte within `slow_s`.
        latency_s: Every answer takes so long.
        seed: Draws other faults.
        per_body: Most faults for one body; the attempts after them succeed.
        match: Faults befall only bodies that contain this text.
        ignore_n: One choice, whatever `n`.
        no_echo: No prompt and no log-probabilities of it, whatever `echo`.
        no_usage: Answers have no `usage`.
        usage: What every `usage` says, over what was counted.
        surplus: So many choices more than were asked for.
        leads: Stands before every chat answer of a model but the judge.
        cached: So many tokens of every prompt are said to come from a prefix cache.
        start_token: Stands before every prompt and counts into the offsets, as with vLLM.
        no_offsets: Every offset is -1, as with SGLang.
        silent: Every completion is empty: the model stops at once.
        reject: Always this status and error body; a redirect points to `/elsewhere`.
        refusal: Every chat answer is refused in these words; of a message they are what stands there when it is broken off.
        filtered: Every answer is withheld by a content filter.
        thinks: Every message begins with so many tokens of thinking, which count towards `max_tokens`.
        quote_key: Errors, and what should be answers and is none, quote the Authorization header.
    """

    error: float = 0.0
    rate_limit: float = 0.0
    retry_after: str | tuple[str, ...] | None = "0"
    per_s: float | None = None
    truncated: float = 0.0
    cut: float = 0.0
    empty: float = 0.0
    hang: float = 0.0
    reset: float = 0.0
    slow: float = 0.0
    drip: float = 0.0
    slow_s: float = 0.3
    latency_s: float = 0.0
    seed: int = 0
    per_body: int | None = None
    match: str = ""
    ignore_n: bool = False
    no_echo: bool = False
    no_usage: bool = False
    usage: Any = None
    surplus: int = 0
    leads: str = ""
    cached: int = 0
    start_token: str = ""
    no_offsets: bool = False
    silent: bool = False
    reject: tuple[int, Any] | None = None
    refusal: str = ""
    filtered: bool = False
    thinks: int = 0
    quote_key: bool = False


class Server:
    """A running server: its address, and what has happened at it.

    Attributes:
        base_url: Up to and with `/v1`.
        status: Counts by outcome: '200', '429', '500', 'truncated', 'cut', 'empty', 'hang', 'reset', 'slow', 'drip', or the
            status of `reject`; 'gone' where nobody waited for a good answer any more.
        good: Good answers sent, by digest of the body.
        attempts: Requests, by digest of the body.
        worked: Tokens read and written for all requests of a model but those that got 4xx, in vain or not: what a provider
            may bill.
        seen: The last thousand requests: path with query, body, and the key as its header has it (Authorization or x-api-key).
        cached: The system prompts in the prompt cache of the Messages.
        in_flight: Requests being answered.
        peak: Most requests ever in flight.
        may_answer: What comes in is answered once it is set, as it is at first.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.base_url = ""
        self.status: Counter[str] = Counter()
        self.good: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.worked: dict[str, tuple[int, int]] = {}
        self.seen: deque[tuple[str, dict[str, Any], str]] = deque(maxlen=1000)
        self.cached: set[str] = set()
        self.in_flight = self.peak = 0
        self.levels: dict[str, tuple[float, float]] = {}  # of the buckets: calls left, and when
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.stopping = asyncio.Event()
        self.commands: asyncio.Queue[bool] = asyncio.Queue()  # whether to listen
        self.obeyed = threading.Semaphore(0)
        self.loop = asyncio.new_event_loop()

    def crash(self) -> None:
        """Break all connections, and take no more of them."""
        self._obey(listen=False)

    def listen(self) -> None:
        """Be back at the same port."""
        self._obey(listen=True)

    def _obey(self, *, listen: bool) -> None:
        self.loop.call_soon_threadsafe(self.commands.put_nowait, listen)
        assert self.obeyed.acquire(timeout=10)

    @property
    def answered(self) -> int:
        """Good answers sent."""
        return self.good.total()

    @property
    def distinct(self) -> int:
        """Bodies that got a good answer."""
        return len(self.good)

    @property
    def asked_twice(self) -> int:
        """Good answers that had been sent before: paid twice."""
        return self.answered - self.distinct

    @property
    def requests(self) -> int:
        """Requests received, the failed ones included."""
        return self.attempts.total()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, or do not."""
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await self._respond(request, json.loads(await request.read()))
        finally:
            self.in_flight -= 1

    async def _respond(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        text = json.dumps(body, sort_keys=True)
        digest = hashlib.sha256(f"{request.path}\n{text}".encode()).hexdigest()
        self.attempts[digest] += 1
        self.seen.append((request.path_qs, body, request.headers.get("Authorization") or request.headers.get("x-api-key", "")))
        if request.path == "/v1/messages" and (missing := _missing(request, body)):
            return web.json_response({"type": "error", "error": {"type": "invalid_request_error", "message": f"{missing}: Field required"}}, status=400)
        if not self.may_answer.is_set():
            await asyncio.to_thread(self.may_answer.wait)
        if self.faults.latency_s:
            await asyncio.sleep(self.faults.latency_s)
        if self.faults.reject and self.faults.match in text:
            status, error = self.faults.reject
            self.status[str(status)] += 1
            text = error if isinstance(error, str) else json.dumps(error)
            return web.Response(text=text, status=status, headers={"Location": "/elsewhere"} if status in range(300, 400) else {})
        fault = _draw(self.faults, text, digest, self.attempts[digest]) if self._admits(body["model"]) else "429"
        self.status[fault or "200"] += 1
        if fault == "429":
            return self._refuse(request, 429, "slow down")
        answer = _message(body, self.faults, self.cached) if request.path == "/v1/messages" else _answer(body, self.faults)
        self._bill(body["model"], answer.get("usage", {}))
        if fault == "hang":
            await self.stopping.wait()
        if fault in ("hang", "reset") and request.transport:
            request.transport.abort()
        if fault == "slow":
            await asyncio.sleep(self.faults.slow_s)
        if fault == "500":
            return self._refuse(request, 500, "something broke")
        if fault == "empty":
            answer |= {"content": None} if request.path == "/v1/messages" else {"choices": []}
            answer |= {"error": {"message": self._said(request, "nothing")}} if self.faults.quote_key else {}
        data = json.dumps(answer).encode()
        if fault == "truncated":
            data = data[: len(data) // 2]
        if fault in ("cut", "drip"):
            response = await _send_in_parts(request, data, None if fault == "cut" else self.faults.slow_s)
        else:
            response = web.Response(body=data, content_type="application/json")
        if fault in (None, "slow", "drip"):
            if request.transport is None or request.transport.is_closing():
                self.status["gone"] += 1
            else:
                self.good[digest] += 1
        return response

    def _admits(self, model: str) -> bool:
        per_s, now = self.faults.per_s, time.monotonic()
        if per_s is None:
            return True
        level, at = self.levels.get(model, (per_s, now))
        level = min(per_s, level + (now - at) * per_s)
        self.levels[model] = level - (level >= 1), now
        return level >= 1

    def _refuse(self, request: web.Request, status: int, message: str) -> web.Response:
        headers = {}
        if status == 429 and self.faults.retry_after is not None:
            choices = (self.faults.retry_after,) if isinstance(self.faults.retry_after, str) else self.faults.retry_after
            headers["Retry-After"] = _retry_after(choices[self.status["429"] % len(choices)])
        return web.json_response({"error": {"message": self._said(request, message)}}, status=status, headers=headers)

    def _said(self, request: web.Request, message: str) -> str:
        return f"{message}; you sent {request.headers.get('Authorization')}" if self.faults.quote_key else message

    def _bill(self, model: str, usage: dict[str, int]) -> None:
        read, written = self.worked.get(model, (0, 0))
        self.worked[model] = read + usage.get("prompt_tokens", 0), written + usage.get("completion_tokens", 0)


@contextmanager
def serve(**faults: Any) -> Iterator[Server]:
    """Run a server in a thread of its own; see `Faults` for what it can be asked to do."""
    server = Server(Faults(**faults))
    thread = threading.Thread(target=server.loop.run_until_complete, args=(_run(server),), name="misbehaving", daemon=True)
    thread.start()
    try:
        server.listen()
        yield server
    finally:
        server.loop.call_soon_threadsafe(server.stopping.set)
        thread.join(10)
        server.loop.close()


def tokens(text: str) -> list[str]:
    """The tokens of a text: words with the blanks before them, and blanks at the end."""
    return re.findall(r"\s*\S+|\s+$", text)


def logprob(token: str, before: str) -> float:
    """Log-probability of `token` after the text `before`, between -5 and 0, exact in binary."""
    return -int(hashlib.sha256(f"{before}|{token}".encode("utf-8", "surrogatepass")).hexdigest()[:3], 16) % 640 / 128 - 5


def logprobs(text: str) -> list[float]:
    """Log-probability of every token of a text."""
    parts = tokens(text)
    return [logprob(part, "".join(parts[:i])) for i, part in enumerate(parts)]


async def _run(server: Server) -> None:
    runner: web.AppRunner | None = None
    port = 0
    stopping = asyncio.create_task(server.stopping.wait())
    while not stopping.done():
        command = asyncio.create_task(server.commands.get())
        await asyncio.wait((stopping, command), return_when=asyncio.FIRST_COMPLETED)
        if runner:
            await _stop(runner, abruptly=command.done())
        runner = None
        if command.done() and command.result():
            runner, port = await _listen(server, port)
        if command.done():
            server.obeyed.release()
        else:
            command.cancel()


async def _listen(server: Server, port: int) -> tuple[web.AppRunner, int]:
    app = web.Application(client_max_size=64 << 20)
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/messages"):
        app.router.add_post(path, server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    port = runner.addresses[0][1]
    server.base_url = f"http://127.0.0.1:{port}/v1"
    return runner, port


async def _stop(runner: web.AppRunner, *, abruptly: bool) -> None:
    for site in tuple(runner.sites) if abruptly else ():
        await site.stop()
        await asyncio.sleep(0.01)  # what has been accepted becomes a connection first
    for connection in runner.server.connections if abruptly and runner.server else ():
        if connection.transport:
            connection.transport.abort()
    await runner.cleanup()


async def _send_in_parts(request: web.Request, answer: bytes, whole_s: float | None) -> web.StreamResponse:
    """The answer byte by byte within `whole_s`, or half of it and then nothing."""
    response = web.StreamResponse(headers={"Content-Length": str(len(answer)), "Content-Type": "application/json"})
    await response.prepare(request)
    if whole_s is None:
        await response.write(answer[: len(answer) // 2])
        assert request.transport is not None
        request.transport.close()
        return response
    began, loop = asyncio.get_running_loop().time(), asyncio.get_running_loop()
    for i in range(len(answer)):
        await response.write(answer[i : i + 1])
        await asyncio.sleep(began + whole_s * (i + 1) / len(answer) - loop.time())
    return response


def _retry_after(text: str) -> str:
    after_s = text.removeprefix("date:")
    return text if after_s == text else formatdate(math.ceil(time.time() + float(after_s)), usegmt=True)


def _draw(faults: Faults, text: str, digest: str, attempt: int) -> str | None:
    if faults.match not in text or (faults.per_body is not None and attempt > faults.per_body):
        return None
    dice = random.Random(f"{faults.seed} {digest} {attempt}").random()
    rates = {"500": faults.error, "429": faults.rate_limit, "truncated": faults.truncated, "cut": faults.cut, "empty": faults.empty}
    for fault, rate in (rates | {"hang": faults.hang, "reset": faults.reset, "slow": faults.slow, "drip": faults.drip}).items():
        if dice < rate:
            return fault
        dice -= rate
    return None


def _answer(body: dict[str, Any], faults: Faults) -> dict[str, Any]:
    chat = "messages" in body
    if faults.match not in json.dumps(body, sort_keys=True):
        faults = replace(faults, refusal="", filtered=False)
    prompt = "\n".join(m["content"] for m in body["messages"]) if chat else body["prompt"]
    choices, written = [], 0
    for i in range(1 if faults.ignore_n else body.get("n", 1) + faults.surplus):
        text, cut = ("", False) if faults.silent else _text(body, i)
        text = faults.leads + text if chat and body["model"] != "judge" else text
        written += len(tokens(text))
        choices.append(_chat_choice(body, text, faults) if chat else _raw_choice(body, prompt, text, faults))
        choices[i] |= {"index": i, "finish_reason": "content_filter" if faults.filtered else "length" if cut else "stop"}
    read = len(tokens(prompt)) + bool(faults.start_token)
    usage: dict[str, Any] = {} if faults.no_usage else {"usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}}
    if usage and faults.cached:
        usage["usage"]["prompt_tokens_details"] = {"cached_tokens": faults.cached}
    if usage and faults.usage is not None:
        usage["usage"] |= faults.usage
    return {"id": "cmpl-0", "object": "chat.completion" if chat else "text_completion", "model": body["model"], "choices": choices[::-1], **usage}


def _missing(request: web.Request, body: dict[str, Any]) -> str:
    """What Anthropic's API insists on and a request for a message lacks."""
    if "anthropic-version" not in request.headers:
        return "anthropic-version"
    return next((name for name in ("model", "max_tokens", "messages") if not body.get(name)), "")


def _message(body: dict[str, Any], faults: Faults, cached: set[str]) -> dict[str, Any]:
    """An answer to `/messages`: the tokens of a system prompt that is marked for the cache are counted apart."""
    blocks = _blocks(body.get("system", "")) + [block for message in body["messages"] for block in _blocks(message["content"])]
    marked = "".join(block["text"] for block in blocks if "cache_control" in block)
    read = len(tokens("\n".join(block["text"] for block in blocks if "cache_control" not in block)))
    kind = "cache_read_input_tokens" if marked in cached else "cache_creation_input_tokens"
    if marked:
        cached.add(marked)
    text, cut = _text(body | {"max_tokens": max(0, body["max_tokens"] - faults.thinks)}, 0)
    text = "" if faults.silent else faults.refusal or text.strip()
    usage = {"input_tokens": read, kind: len(tokens(marked)), "output_tokens": min(faults.thinks, body["max_tokens"]) + len(tokens(text))}
    content = [{"type": "thinking", "thinking": "", "signature": "x"}] * bool(faults.thinks) + [{"type": "text", "text": text}] * bool(text)
    reason = "refusal" if faults.refusal else "max_tokens" if cut else "end_turn"
    told = {} if faults.no_usage else {"usage": usage}
    return {"id": "msg_0", "type": "message", "role": "assistant", "model": body["model"], "content": content, "stop_reason": reason, **told}


def _blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] * bool(content) if isinstance(content, str) else content


def _text(body: dict[str, Any], i: int) -> tuple[str, bool]:
    """The i-th completion, and whether `max_tokens` cut it; `n` has no say in it."""
    rest = {k: v for k, v in sorted(body.items()) if k not in ("n", "max_tokens", "max_completion_tokens", "logprobs", "echo")}
    digest = hashlib.sha256(f"{json.dumps(rest)} {i}".encode()).digest()
    words = [_WORDS[b % len(_WORDS)] for b in digest[: 4 + digest[0] % 20]]
    cap = body.get("max_tokens", body.get("max_completion_tokens", 16))
    return "".join(f" {w}" for w in words[:cap]), len(words) > cap


def text_of_a_judge(rude: Collection[str]) -> Callable[[dict[str, Any], int], tuple[str, bool]]:
    """For the place of `_text`: the same words, but for a judge's, who likes every reply with none of the words `rude`."""
    plain = _text

    def text(body: dict[str, Any], i: int) -> tuple[str, bool]:
        asked = body["messages"][-1]["content"] if "messages" in body else ""
        if "Questions about the reply" in asked:
            names = body["response_format"]["json_schema"]["schema"]["required"]
            return json.dumps({name: {"reason": "It is so.", "answer": "yes"} for name in names}), False
        if "### Reply A:" in asked:
            first = asked.partition("### Reply A:")[2].partition("### Reply B:")[0]
            return json.dumps({"reason": "It is kind.", "better": "B" if any(word in first for word in rude) else "A"}), False
        return plain(body, i)

    return text


def _chat_choice(body: dict[str, Any], text: str, faults: Faults) -> dict[str, Any]:
    if faults.refusal or faults.filtered:
        return {"message": {"role": "assistant", "content": None, **({"refusal": faults.refusal} if faults.refusal else {})}}
    told = {"content": [{"token": t, "logprob": v} for t, v in zip(tokens(text), logprobs(text), strict=True)]} if body.get("logprobs") else None
    return {"message": {"role": "assistant", "content": text.strip()}, "logprobs": told}


def _raw_choice(body: dict[str, Any], prompt: str, text: str, faults: Faults) -> dict[str, Any]:
    echoed = bool(body.get("echo")) and not faults.no_echo
    whole = prompt + text if echoed else text
    if not body.get("logprobs"):
        return {"text": "" if faults.filtered else whole}
    parts: list[str] = [*(tokens(prompt) if echoed else []), *tokens(text)]
    values: list[float | None] = [logprob(part, "".join(parts[:i])) for i, part in enumerate(parts)]
    if echoed and faults.start_token:
        parts, values = [faults.start_token, *parts], [None, *values]
    elif echoed:
        values[0] = None
    offsets = [-1 if faults.no_offsets else len("".join(parts[:i])) for i in range(len(parts))]
    return {"text": whole, "logprobs": {"tokens": parts, "token_logprobs": values, "text_offset": offsets, "top_logprobs": None}}
