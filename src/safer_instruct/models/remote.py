"""The way to a remote model: one attempt over HTTP, leave to make it, and what to make of whatever comes back.

Providers build the body and read the answer; everything else is here, once: which endpoint, when and how often (`pool`,
`flow`), what it may cost (`spending`), over which connection (`transport`), and which failures may pass.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeVar

from pydantic_core import to_json

from safer_instruct.budget import Reservation
from safer_instruct.errors import AccessError, ModelError, RequestError
from safer_instruct.models.addresses import Address, fingerprint, message_of, parsed
from safer_instruct.models.answers import refuses_content
from safer_instruct.models.flow import AttemptError, Flow, Limits, Slot, can_pass
from safer_instruct.models.parsing import FilteredError, MalformedError, json_object
from safer_instruct.models.pool import Pool
from safer_instruct.models.protocol import Completion, Generated, Generation, Scoring, Usage
from safer_instruct.models.spending import Spending, Tokens, Unlimited
from safer_instruct.models.transport import NoReply, Reply, Transport

Answer = TypeVar("Answer")
Read = Callable[[dict[str, Any]], tuple[Answer, Tokens | None]]
Hint = Callable[[Address, int, str, Mapping[str, Any]], Sequence[str]]

CONNECT_TIMEOUT_S = 20.0
_REQUEST_REFUSED = (400, 413, 422)  # for what is in the request; any other refusal holds for every request
_MAY_BE_FILTERED = (400, 403, 422, 451)
_PAYMENT_REQUIRED = 402
_NO_CREDIT = ("insufficient_quota", "billing_error", "billing_hard_limit_reached", "billing_not_active", "account_deactivated", "credit balance is too low")
USE_EMBEDDED = "the embedded scorer can: leave models.scorer (for 'value' --model) at its default, or name an embedded model there"
UNKNOWN = {"top_k": "set induce.top_k and respond.top_k to 0", "repetition_penalty": "set respond.repetition_penalty to 1"}
"""What to do where an endpoint does not know a parameter of the draw."""
TOP_UP = "the account has no credit left: top it up, then give the same command again"
_CHARS_PER_TOKEN = 4  # of English, roughly: an estimate for the rate, corrected by each answer


class Remote:
    """The endpoints of one model."""

    def __init__(
        self,
        name: str,
        addresses: Sequence[Address],
        *,
        limits: Limits,
        spending: Spending,
        headers: Callable[[str], Mapping[str, str]],
        hints: Hint,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """Connect to nothing yet.

        Args:
            name: The model's, for messages.
            addresses: Where it is served; the calls are balanced over them.
            limits: What is kept to at each of them.
            spending: Prices the calls, and lets them draw on the run's budget.
            headers: From the key to the headers that carry it.
            hints: What to do about a refusal: from address, HTTP status, message and body.
            connect_timeout_s: Cap on connecting.
        """
        self.name, self.limits = name, limits
        self._addresses, self._spending, self._hints = tuple(addresses), spending, hints
        self._urls = cache(lambda path: [address.url(path) for address in self._addresses])
        self._transports = [
            Transport(
                {"content-type": "application/json", **headers(a.key)},
                timeout_s=limits.timeout_s,
                connect_timeout_s=connect_timeout_s,
                through_proxy=not a.loopback,
            )
            for a in addresses
        ]
        self._resets: set[asyncio.Task[None]] = set()
        flows = [Flow(f"{name} at {a.shown}", limits, on_stall=partial(self._reset, t)) for a, t in zip(addresses, self._transports, strict=True)]
        self._pool = Pool(flows)

    @property
    def flows(self) -> Sequence[Flow]:
        """The way to each of the endpoints."""
        return self._pool.flows

    @property
    def status(self) -> str:
        """What calls wait for, in words to show; empty while all flows."""
        return self._pool.state.message

    @property
    def where(self) -> str:
        """The addresses, fit for messages."""
        return ", ".join(a.shown for a in self._addresses)

    def ask(self, path: str, body: Mapping[str, Any], request: Generation | Scoring, read: Read[Answer]) -> Awaitable[tuple[Answer, Usage]]:
        """Post `body` to `path` until an answer comes that `read` understands.

        Args:
            path: Behind the endpoint's address.
            body: Sent as JSON.
            request: What it asks for: bounds the cost, and estimates the tokens.
            read: From an answer, a JSON object, to what it says and the tokens it took, None where it does not tell.

        Raises:
            FilteredError: A content filter stopped it.
            RequestError: This request can never succeed.
            AccessError: No request can.
            BudgetError: The budget is used up.
            ModelError: The retries are, or no endpoint answers.
        """
        payload, urls = _encoded(body), self._urls(path)

        async def send(number: int, slot: Slot) -> tuple[Answer, Usage]:
            address = self._addresses[number]
            with self._spending.reserve_at_once(request) or await self._spending.reserve(request) as reservation:
                started = time.monotonic()
                try:
                    reply = await self._transports[number].post(urls[number], payload)
                except NoReply as exc:
                    if not exc.sent:
                        reservation.settle(0.0, 0)
                    if exc.plain and self.flows[number].gate.endpoint.succeeded_at == -math.inf:  # the same would come of every further attempt
                        raise AccessError(f"{self.name} at {address.shown}: the connection failed: {exc}") from exc
                    said = f"no answer within {self.limits.timeout_s:g} s" if exc.timed_out else f"the connection failed: {address.cleaned(str(exc))}"
                    raise AttemptError(said) from exc
                if not 200 <= reply.status < 300:
                    if 300 <= reply.status < 500:
                        reservation.settle(0.0, 0)
                    raise self._refusal(address, reply, body)
                try:
                    answer, tokens = read(json_object(reply.body))
                except MalformedError as exc:
                    raise AttemptError(address.cleaned(str(exc)), reply.status) from exc
                usage = account(tokens, time.monotonic() - started, self._spending, reservation, slot)
                slot.succeeded(reply.headers)
                return answer, usage

        return self._pool.call(send, tokens=estimate(request), asked=(path, type(request)))

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        await asyncio.gather(*self._resets, *(t.close() for t in self._transports))

    def _reset(self, transport: Transport) -> None:
        task = asyncio.get_running_loop().create_task(transport.reset())
        self._resets.add(task)
        task.add_done_callback(self._resets.discard)

    def _refusal(self, address: Address, reply: Reply, body: Mapping[str, Any]) -> ModelError:
        text, data, where = reply.body.decode("utf-8", "replace"), parsed(reply.body), f"{self.name} at {address.shown}"
        said = message_of(data) or text
        message = f"HTTP {reply.status}: {address.cleaned(said) or 'no message'}"
        if reply.status in _MAY_BE_FILTERED and refuses_content(data):
            return FilteredError(f"{where}: {message}")
        no_credit = is_no_credit(said, reply.status) or is_no_credit(text)
        return refusal(where, message, reply.status, reply.headers, no_credit=no_credit, hints=self._hints(address, reply.status, message, body))


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return to_json(body)
    except ValueError:  # half a character, which JSON can say and UTF-8 cannot
        return json.dumps(body).encode()


def account(tokens: Tokens | None, seconds: float, spending: Spending, reservation: Reservation | Unlimited, slot: Slot) -> Usage:
    """What an answered call took, told to the budget and to the flow where the endpoint tells it."""
    usage = spending.usage(tokens or Tokens(), seconds)
    if not (tokens and (tokens.read or tokens.written)):  # no answer takes nothing
        reservation.keep()
    else:
        total = tokens.read + tokens.written
        reservation.settle(usage.cost, total)
        slot.used(total)
    return usage


class RemoteModel:
    """What the models behind HTTP endpoints have in common; which requests there are, and how an answer reads, they say themselves."""

    def __init__(
        self,
        name: str,
        model: str,
        addresses: Sequence[Address],
        *,
        limits: Limits | None,
        spending: Spending | None,
        headers: Callable[[str], Mapping[str, str]],
        revision: str | None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            name: Of the provider and the model, for messages and the ledger.
            model: The name that the endpoint knows the model by.
            addresses: Where it is served.
            limits: What is kept to at each of them.
            spending: Prices the calls, and lets them draw on the run's budget.
            headers: From the key to the headers that carry it.
            revision: What is served, in the user's words; then the addresses are no part of the fingerprint.
        """
        limits, spending = limits or Limits(), spending or Spending()
        self.name, self._model = name, model
        self.fingerprint = fingerprint(name, addresses, revision)
        self.priced, self.billed = spending.priced, spending.billed
        self.concurrency = limits.concurrency * len(addresses)
        self._remote = Remote(name, addresses, limits=limits, spending=spending, headers=headers, hints=self._hints)

    @property
    def status(self) -> str:
        """See `Model.status`."""
        return self._remote.status

    @property
    def flows(self) -> Sequence[Flow]:
        """The ways to its endpoints, whose limits other processes may share."""
        return self._remote.flows

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        await self._remote.close()

    def _hints(self, address: Address, status: int, message: str, body: Mapping[str, Any]) -> list[str]:
        """What to do about a refusal; here what any provider may mean by it."""
        hints = []
        if status in (401, 403):
            hints.append(f"the key is read from the environment variable {address.key_env}" + ("" if address.key else ", which is not set"))
        if status == 404:
            hints.append(f"is '{self._model}' the name of a model there, and is base_url {address.shown} right?")
        if status < 400:
            hints.append("base_url must be the address that it redirects to")
        return hints


def refusal(where: str, message: str, status: int, headers: Mapping[str, str], *, no_credit: bool, hints: Sequence[str]) -> ModelError:
    """The error that an HTTP status other than success amounts to.

    Args:
        where: The model and its address, fit for messages.
        message: What the endpoint says, fit for messages.
        status: Of the reply.
        headers: Of the reply.
        no_credit: Whether it says that the account is empty.
        hints: What to do about it, unless it may pass.
    """
    if can_pass(status, headers) and not no_credit:
        return AttemptError(message, status, headers)
    kind = RequestError if status in _REQUEST_REFUSED and not no_credit else AccessError
    return kind("; ".join([f"{where}: {message}", *([TOP_UP] if no_credit else hints)]))


def is_no_credit(said: str, status: int | None = None) -> bool:
    """Whether an error's words, or its HTTP status, say that the account is empty."""
    return status == _PAYMENT_REQUIRED or any(sign in said for sign in _NO_CREDIT)


async def fill_up(request: Generation, complete: Callable[[Generation], Awaitable[tuple[list[Completion], Usage]]]) -> Generated:
    """All completions of a request; where the server ignores `n`, each further one is asked for by itself, with a seed of its own."""
    completions, usage = await complete(request)
    for i in range(len(completions), request.sampling.n):
        more, cost = await complete(replace(request, seed=request.seed + i, sampling=replace(request.sampling, n=1)))
        completions, usage = completions + more, usage + cost
    return Generated(tuple(completions), usage)


def estimate(request: Generation | Scoring) -> int:
    """How many tokens a call takes, roughly."""
    prompt = request.prompt
    chars = len(prompt) if isinstance(prompt, str) else sum(len(turn.content) for turn in prompt)
    if isinstance(request, Scoring):
        return (chars + len(request.continuation)) // _CHARS_PER_TOKEN + 1
    return chars // _CHARS_PER_TOKEN + request.sampling.n * request.sampling.max_tokens
