"""What models cost: a shipped table of prices, which a file of the user's corrects and extends.

A hosted model without a price is *unknown*, never free. What runs in this process, on this machine or at a private
address is free unless it is priced. Whoever asks for money's worth of certainty, a cap, calls `Prices.require`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from safer_instruct import yamlfile
from safer_instruct.errors import ConfigError
from safer_instruct.oneline import many
from safer_instruct.yamlfile import Strict

Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
_OWN_NAMES = (".localhost", ".local", ".internal", ".intranet", ".lan", ".home.arpa", ".svc")


class Rates(Strict):
    """US dollars per million tokens.

    Attributes:
        prompt: Tokens read.
        completion: Tokens written, those of hidden reasoning included.
        cached: Tokens read from a prompt cache; as `prompt` when not given.
        cache_write: Tokens written to a prompt cache; as `prompt` when not given.
    """

    prompt: Usd
    completion: Usd
    cached: Usd | None = None
    cache_write: Usd | None = None

    def dollars(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int, written_tokens: int) -> float:
        """What these tokens cost; `cached_tokens` and `written_tokens` are part of `prompt_tokens`."""
        cached = self.prompt if self.cached is None else self.cached
        written = self.prompt if self.cache_write is None else self.cache_write
        fresh = max(0, prompt_tokens - cached_tokens - written_tokens)
        return (fresh * self.prompt + cached_tokens * cached + written_tokens * written + completion_tokens * self.completion) / 1e6

    def most(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The most that these tokens can cost, whatever the prompt cache does."""
        return (prompt_tokens * max(self.prompt, self.cached or 0.0, self.cache_write or 0.0) + completion_tokens * self.completion) / 1e6


class LongRates(Rates):
    """The rates of a request of more than `above` prompt tokens, for all of its tokens.

    Attributes:
        above: They apply to requests of more prompt tokens than this.
    """

    above: Annotated[int, Field(gt=0)]


class Price(Rates):
    """What one model costs, and where that is written.

    Attributes:
        batch_discount: Share taken off in a batch.
        long: Other rates for long prompts.
        host: The address whose price it is; without it, wherever the model is.
        source: The page it was read on.
        read: The day.
    """

    batch_discount: Annotated[float, Field(ge=0, le=1)] = 0.0
    long: LongRates | None = None
    host: str | None = None
    source: str = ""
    read: date | None = None

    def cost(self, prompt_tokens: int, completion_tokens: int, *, cached_tokens: int = 0, written_tokens: int = 0, batch: bool = False) -> float:
        """US dollars for one answered request.

        Args:
            prompt_tokens: All tokens read, those below included (Anthropic reports them apart: add them up).
            completion_tokens: All tokens written.
            cached_tokens: How many of the prompt's came from a prompt cache.
            written_tokens: How many of the prompt's were written to one.
            batch: Whether it was part of a batch.
        """
        rates = self.long if self.long and prompt_tokens > self.long.above else self
        return self._off(batch) * rates.dollars(prompt_tokens, completion_tokens, cached_tokens, written_tokens)

    def bound(self, prompt_tokens: int, completion_tokens: int, *, batch: bool = False) -> float:
        """The most that a request of at most so many tokens can cost: the dearest of the rates that may apply."""
        most = self.most(prompt_tokens, completion_tokens)
        if self.long and prompt_tokens > self.long.above:
            most = max(most, self.long.most(prompt_tokens, completion_tokens))
        return self._off(batch) * most

    def _off(self, batch: bool) -> float:
        return 1.0 - self.batch_discount if batch else 1.0


FREE = Price(prompt=0.0, completion=0.0)


class _PriceFile(Strict):
    prices: dict[str, Price] = Field(default_factory=dict)

    @field_validator("prices", mode="before")
    @classmethod
    def _by_model(cls, prices: object) -> object:
        if not isinstance(prices, dict):
            raise ValueError(
                "expected models, each on a line below it: PROVIDER:MODEL and its price, such as 'openai:gpt-4o-mini: {prompt: 0.15, completion: 0.60}'"
            )
        return prices

    @field_validator("prices")
    @classmethod
    def _keys_name_a_provider(cls, prices: dict[str, Price]) -> dict[str, Price]:
        for key in prices:
            provider, _, name = key.partition(":")
            if not provider or not name or "*" in provider:
                raise ValueError(f"'{key}' is no key for a price; write PROVIDER:MODEL, such as openai:gpt-4o-mini or openai:meta-llama/*")
        return prices


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of every model that has one, by `provider:model`."""

    by_key: Mapping[str, Price]

    def find(self, model: str, base_url: str | None, given: tuple[float, float] | None = None) -> Price | None:
        """The price of a model, or None when nobody has said it.

        Args:
            model: `provider:model`.
            base_url: Where it is: an address, None when it runs in this process, "" when that cannot be told.
            given: Price of a million prompt tokens and of a million completion tokens, from the run's config: it wins.
        """
        if given is not None:
            return Price(prompt=given[0], completion=given[1])
        host = "" if base_url is None else _host(base_url)
        ranked = [(rank, price) for key, price in self.by_key.items() if (rank := _rank(key, price.host, model, host))]
        if ranked:
            return max(ranked, key=lambda pair: pair[0])[1]
        return FREE if base_url is None or _is_own(host) else None

    def require(self, model: str, base_url: str | None, given: tuple[float, float] | None = None) -> Price:
        """The price of a model that a cap in money holds for; arguments as for `find`.

        Raises:
            ConfigError: It is unknown.
        """
        if (price := self.find(model, base_url, given)) is not None:
            return price
        raise ConfigError(
            f"budget.max_cost cannot be kept: the price of '{model}' at {_host(base_url or '') or 'its endpoint'} is not known; write "
            f"'price_per_million: [PROMPT, COMPLETION]' (US dollars) beside the model, or an entry '{model}: {{prompt: ..., completion: ...}}' "
            f"below 'prices:' in {user_file()}; [0, 0] for an endpoint of your own"
        )


def load_prices(path: Path | None = None, named_in: Path | None = None) -> Prices:
    """The shipped prices, over them the user's, over them those of `path`, which `prices` in the config `named_in` names.

    Raises:
        ConfigError: `path` is not there, or a file is not valid.
    """
    shipped = (resources.files("safer_instruct") / "prices.yaml").read_text(encoding="utf-8")
    merged = dict(yamlfile.parse(shipped, _PriceFile, name="prices.yaml").prices)
    if user_file().is_file():
        merged |= yamlfile.load(user_file(), _PriceFile).prices
    if path is not None:
        with yamlfile.named_at(("prices",), named_in):
            merged |= yamlfile.load(path, _PriceFile).prices
    return Prices(merged)


def user_file() -> Path:
    """Where the user's own prices stand; there may be none."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config").expanduser() / "safer-instruct" / "prices.yaml"


def show_usd(cost: float | None) -> str:
    """Dollars for people: at least two decimals, two significant digits of a small amount, 'unknown' for None."""
    if cost is None:
        return "unknown"
    if cost >= 1 or cost <= 0:
        return f"{cost:,.2f}"
    decimals = next((n for n in range(2, 9) if cost >= 10 ** (1 - n)), 9)
    return f"{cost:.{decimals}f}"


def cost_words(cost: float | None, without_usage: int = 0) -> str:
    """What calls cost, in a few words; where that is None, why it is not known.

    Args:
        cost: US dollars.
        without_usage: How many of the calls were answered without a word on what they took.
    """
    if cost is not None:
        return f"cost {show_usd(cost)} USD"
    if without_usage:
        return f"cost unknown (the endpoint reported no usage for {many(without_usage, 'call')}, which count as no tokens here)"
    return "cost unknown (no price is known for a model that was called)"


def _rank(key: str, key_host: str | None, model: str, host: str) -> tuple[int, bool, bool] | None:
    """How closely a key fits a model, None when it does not: characters told, no wildcard, the address told."""
    provider, _, pattern = key.partition(":")
    own_provider, _, name = model.partition(":")
    if key_host is None and provider != own_provider:
        return None
    if key_host is not None and key_host.lower() != host:
        return None
    literal = pattern.split("*")
    fits = re.fullmatch(".*".join(map(re.escape, literal)), name, re.DOTALL) if len(literal) > 1 else pattern in (name, _SNAPSHOT.sub("", name))
    return (sum(map(len, literal)), len(literal) == 1, key_host is not None) if fits else None


def _host(base_url: str) -> str:
    try:
        return (urlsplit(base_url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_own(host: str) -> bool:
    """Whether an address is of one's own: this machine, or one that the public internet does not lead to."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return bool(host) and ("." not in host or f".{host}".endswith(_OWN_NAMES) or ".svc." in host)
