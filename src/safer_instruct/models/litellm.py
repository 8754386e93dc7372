"""Every other provider, through LiteLLM: `litellm:PROVIDER/NAME`, as its list of providers spells them.

LiteLLM makes one attempt at a time and nothing else: the pace, the retries, the budget and the errors are this package's. It
answers chats only; a raw prompt goes as a user's message. What a provider does not know of the number of completions, the
seed and the temperature is left out; `top_k` and the repetition penalty, which few know, are not sent at all.

https://docs.litellm.ai/docs/providers
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from safer_instruct import extras
from safer_instruct.errors import AccessError, ModelError
from safer_instruct.models.addresses import Address, cleaned, fingerprint, read_addresses, read_key
from safer_instruct.models.answers import refuses_content
from safer_instruct.models.chat import Answer, messages, read_answer, response_format
from safer_instruct.models.flow import AttemptError, Flow, Limits, Slot
from safer_instruct.models.parsing import FilteredError, MalformedError
from safer_instruct.models.pool import Pool
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring, Usage
from safer_instruct.models.remote import USE_EMBEDDED, account, estimate, fill_up, is_no_credit, refusal
from safer_instruct.models.spending import Spending, Tokens
from safer_instruct.prices import Price

_LONG = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
_SECRET_CHARS = 8
_HEADER_PREFIX = "llm_provider-"


class LiteLLMModel:
    """A model that LiteLLM reaches."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | Sequence[str] | None = None,
        api_key_env: str | None = None,
        limits: Limits | None = None,
        spending: Spending | None = None,
        revision: str | None = None,
    ) -> None:
        """Check what can be checked without a call.

        Args:
            model: `PROVIDER/NAME`.
            base_url: Where it is, instead of the provider's own address; of several each call goes to the one with the
                least to do.
            api_key_env: Name of the environment variable that holds the key; by default the one that LiteLLM reads.
            limits: What is kept to at each endpoint.
            spending: Prices the calls, and lets them draw on the run's budget.
            revision: What is served, in the user's words; then the addresses are no part of the fingerprint.

        Raises:
            MissingExtraError: LiteLLM is not installed.
            ModelError: It knows no such provider, `base_url` is no HTTP address, or the key is missing.
        """
        self.name, limits = f"litellm:{model}", limits or Limits()
        self._litellm, self._model, self._limits, self._spending = load_litellm(), model, limits, spending or Spending()
        _provider(self._litellm, model)
        self._key = read_key(api_key_env, self.name, needed=True) if api_key_env else None
        addresses = read_addresses(base_url or (), "", self.name)
        self._addresses: list[Address | None] = [*addresses] or [None]
        self.priced, self.billed = self._spending.priced, self._spending.billed
        self.concurrency = limits.concurrency * len(self._addresses)
        self.fingerprint = fingerprint(self.name, addresses, revision)
        self._pool = Pool([Flow(self._where(a), limits) for a in self._addresses])

    @property
    def status(self) -> str:
        """See `Model.status`."""
        return self._pool.state.message

    @property
    def flows(self) -> Sequence[Flow]:
        """The ways to its endpoints, whose limits other processes may share."""
        return self._pool.flows

    async def generate(self, request: Generation) -> Generated:
        """See `Model.generate`."""
        return await fill_up(request, self._ask)

    async def score(self, request: Scoring) -> Scored:
        """It cannot.

        Raises:
            AccessError: Always.
        """
        raise AccessError(f"{self.name} cannot score: through LiteLLM there are chats only; {USE_EMBEDDED}")

    async def close(self) -> None:
        """Close the connections, those of all models that LiteLLM reaches; a later call opens new ones."""
        await self._litellm.close_litellm_async_clients()
        self._litellm.in_memory_llm_clients_cache.flush_cache()

    async def _ask(self, request: Generation) -> tuple[list[Completion], Usage]:
        call = self._call(request)

        async def send(number: int, slot: Slot) -> tuple[list[Completion], Usage]:
            address = self._addresses[number]
            with await self._spending.reserve(request) as reservation:
                started = time.monotonic()
                outcome = await self._attempt(call | ({"api_base": address.url("")} if address else {}), request.sampling.n)
                if isinstance(outcome, Exception) and self._filtered(outcome):
                    reservation.settle(0.0, 0)
                    said = self._cleaned(outcome)
                    return [Completion(said, withheld="filter")] * request.sampling.n, Usage()
                if isinstance(outcome, Exception):
                    status = getattr(outcome, "status_code", None)
                    if isinstance(status, int) and 300 <= status < 500 and status != 408:
                        reservation.settle(0.0, 0)
                    raise self._error(outcome, address)
                answer, tokens, headers = outcome
                usage = account(tokens, time.monotonic() - started, self._spending, reservation, slot)
                slot.succeeded(headers)
                return answer.completions, usage

        return await self._pool.call(send, tokens=estimate(request), asked="chat")

    async def _attempt(self, call: Mapping[str, Any], n: int) -> tuple[Answer, Tokens | None, Mapping[str, str]] | Exception:
        """One attempt; a failure is returned, so that LiteLLM's own error, which may show a key, is not the context of what is raised."""
        try:
            async with asyncio.timeout(self._limits.timeout_s):  # LiteLLM's is between two bytes
                response = await self._litellm.acompletion(**call)
        except (TimeoutError, *self._litellm.LITELLM_EXCEPTION_TYPES) as exc:
            failure: Exception = exc
            return failure
        try:
            answer, tokens = read_answer(response.model_dump(), n)
        except (FilteredError, MalformedError) as exc:
            return exc
        tokens = tokens if tokens and tokens.read else None  # LiteLLM says 0 where the provider says nothing
        return answer, tokens, _plain(response._hidden_params.get("additional_headers") or {})

    def _call(self, request: Generation) -> dict[str, Any]:
        sampling = request.sampling
        return {
            "model": self._model,
            "messages": messages(request.prompt),
            **response_format(request),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "n": sampling.n,
            "seed": request.seed,
            "drop_params": True,
            "num_retries": 0,
            "max_retries": 0,
            "timeout": self._limits.timeout_s,
            **({"api_key": self._key} if self._key else {}),
        }

    def _error(self, failure: Exception, address: Address | None) -> ModelError:
        said = self._cleaned(failure)
        if isinstance(failure, (TimeoutError, self._litellm.Timeout)):
            return AttemptError(f"no answer within {self._limits.timeout_s:g} s")
        headers = getattr(failure, "litellm_response_headers", None) or getattr(getattr(failure, "response", None), "headers", None)
        status = getattr(failure, "status_code", None)
        if not isinstance(status, int) or (not headers and status >= 500):  # its own number for what was no answer
            return AttemptError(said or type(failure).__name__)
        hints = [f"the key is read from the environment; see https://docs.litellm.ai/docs/providers for {self._model}"] if status in (401, 403) else []
        if status == 404:
            hints.append(f"is '{self._model}' the name of a model there?")
        message = f"HTTP {status}: {said or 'no message'}"
        lowered = {name.lower(): value for name, value in dict(headers or {}).items()}
        no_credit = is_no_credit(f"{failure} {getattr(failure, 'body', None)}", status)
        return refusal(self._where(address), message, status, lowered, no_credit=no_credit, hints=hints)

    def _filtered(self, failure: Exception) -> bool:
        """Whether a content filter stopped the request; LiteLLM itself goes by the words of the message, and misses some."""
        said = {name: getattr(failure, name, None) for name in ("code", "type")} | {"message": str(failure)}
        return isinstance(failure, (FilteredError, self._litellm.ContentPolicyViolationError)) or refuses_content(said)

    def _cleaned(self, failure: Exception) -> str:
        return cleaned(str(failure), [*_secrets(), *([self._key] if self._key else [])])

    def _where(self, address: Address | None) -> str:
        return f"{self.name} at {address.shown}" if address else self.name


def load_litellm() -> Any:
    """The library, without its own network calls, `.env` file and log lines.

    Raises:
        MissingExtraError: It is not installed.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or importing it fetches a price list from GitHub
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # or it reads the .env file of whatever folder this is
    litellm = extras.require("litellm", extra="litellm", purpose="a model 'litellm:PROVIDER/NAME'")
    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)  # every failure is told once, by this package
    return litellm


def known_price(model: str) -> Price | None:
    """What the map of prices that comes with LiteLLM says of `PROVIDER/NAME`; None where it says nothing, or 0.

    Raises:
        MissingExtraError: It is not installed.
        ModelError: It knows no such provider.
    """
    litellm = load_litellm()
    name, provider = _provider(litellm, model)
    rates = litellm.model_cost.get(model) or litellm.model_cost.get(name) or {}
    of_provider = str(rates.get("litellm_provider")).startswith(provider)  # 'vertex_ai-language-models', 'bedrock_converse'
    if not of_provider or not (rates.get("input_cost_per_token") and rates.get("output_cost_per_token")):
        return None
    above = min((int(match[1]) for key in rates if (match := _LONG.fullmatch(key))), default=0)
    long = {"above": above * 1000, **_rates(rates, f"_above_{above}k_tokens")} if above else None
    return Price.model_validate({**_rates(rates, ""), "long": long, "source": "LiteLLM's map of prices"})


def _provider(litellm: Any, model: str) -> tuple[str, str]:
    """The provider's own name of `PROVIDER/NAME`, and LiteLLM's name of the provider."""
    try:
        name, provider, *_ = litellm.get_llm_provider(model)
    except litellm.BadRequestError:
        known = "write litellm:PROVIDER/NAME as in https://docs.litellm.ai/docs/providers"
        raise ModelError(f"litellm:{model}: LiteLLM knows no such provider; {known}") from None
    return name, provider


def _rates(rates: Mapping[str, Any], suffix: str) -> dict[str, float | None]:
    """Dollars for a million tokens; where there is no such rate above a length, that below it."""
    names = {
        "prompt": "input_cost_per_token",
        "completion": "output_cost_per_token",
        "cached": "cache_read_input_token_cost",
        "cache_write": "cache_creation_input_token_cost",
    }
    found = {name: rates.get(key + suffix, rates.get(key)) for name, key in names.items()}
    return {name: None if rate is None else round(rate * 1e6, 6) for name, rate in found.items()}


def _plain(headers: Mapping[str, Any]) -> dict[str, str]:
    """The provider's headers under their own names, in small letters."""
    return {name.lower().removeprefix(_HEADER_PREFIX): str(value) for name, value in headers.items()}


def _secrets() -> list[str]:
    """What stands in environment variables that are called after a secret: LiteLLM reads the keys by itself."""
    named = [value for name, value in os.environ.items() if any(word in name.upper() for word in _SECRET_WORDS)]
    return sorted({value.strip() for value in named if len(value.strip()) >= _SECRET_CHARS}, key=len, reverse=True)
