"""Models: a protocol with two verbs, and the providers behind model strings `provider:model`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safer_instruct.config import ModelConfig
from safer_instruct.errors import ConfigError
from safer_instruct.models.addresses import HOSTS
from safer_instruct.models.protocol import Model
from safer_instruct.prices import Price, Prices

if TYPE_CHECKING:
    from safer_instruct.budget import Budget
    from safer_instruct.models.flow import Limits
    from safer_instruct.models.spending import Spending

PROVIDERS = ("embedded", *HOSTS, "litellm", "served", "reward", "scripted")


def open_model(
    config: ModelConfig,
    base: Path | str,
    *,
    want_logprobs: bool = False,
    prices: Prices | None = None,
    budget: Budget | None = None,
    batches: Path | str | None = None,
) -> Model:
    """The model that `config` names.

    Args:
        config: Which one, and how to reach it.
        base: What paths in it are relative to.
        want_logprobs: Ask for the log-probability of what it generates, where that must be asked for.
        prices: What remote models cost.
        budget: What their calls draw on.
        batches: Where a model with `batch: true` keeps what is under way; the file is opened with the first call.

    Raises:
        ConfigError: The provider is unknown, a setting does not fit it, or its price is unknown and `budget` has a cap in money.
        MissingExtraError: The provider's extra is not installed.
        ModelError: The model is not there.
    """
    base, batches = Path(base), None if batches is None else Path(batches)
    provider, _, name = config.model.partition(":")
    if provider in PROVIDERS and not name and provider != "scripted":
        raise ConfigError(f"model '{config.model}': names no model; write {provider}:NAME")
    if config.adapter and provider not in ("embedded", "served"):
        raise ConfigError(f"model '{config.model}': 'adapter' is for embedded models and served ones; give the served model's own name for it")
    if config.batch:
        if provider not in HOSTS:
            raise ConfigError(f"model '{config.model}': 'batch' is for {', '.join(f'{p}:' for p in HOSTS)} models, whose providers have a batch API")
        return _open_batched(config, provider, name, want_logprobs and config.logprobs, _spending(config, prices, budget), batches)
    if provider == "embedded":
        from safer_instruct.models.embedded import EmbeddedModel

        return EmbeddedModel(_in_cache_or_folder(name, base), adapter_path(config.adapter, base) if config.adapter else None)
    if provider == "scripted":
        from safer_instruct.models.scripted import ScriptedModel

        return ScriptedModel(name, base=base)
    if provider == "reward" and config.base_url is None:
        from safer_instruct.models.reward import TransformersReward

        return TransformersReward(name, base)
    if provider in PROVIDERS:
        return _open_remote(config, base, want_logprobs and config.logprobs, _spending(config, prices, budget))
    raise ConfigError(f"model '{config.model}': unknown provider '{provider}'; write one of {', '.join(f'{p}:NAME' for p in PROVIDERS)}")


def _in_cache_or_folder(name: str, base: Path) -> str:
    if "/" in name:
        return str((base / name).resolve())
    from safer_instruct.models import store

    if (base / name / "model.bin").is_file() and not (store.cache_dir() / "models" / name).exists():
        raise ConfigError(f"model 'embedded:{name}': a name without a slash is that of a model in the cache; for the folder {name} write embedded:./{name}")
    return name


def _open_remote(config: ModelConfig, base: Path, want_logprobs: bool, spending: Spending) -> Model:
    provider, _, name = config.model.partition(":")
    if provider == "served":
        from safer_instruct.models.served import ServedModel

        return ServedModel(config, base, limits=_limits(config), spending=spending, want_logprobs=want_logprobs)
    given: dict[str, Any] = {"limits": _limits(config), "spending": spending, "revision": config.revision}
    if provider == "litellm":
        from safer_instruct.models.litellm import LiteLLMModel

        return LiteLLMModel(name, base_url=config.base_url, api_key_env=config.api_key_env, **given)
    if provider == "reward":
        from safer_instruct.models.reward import ServedReward

        return ServedReward(name, base_url=config.base_url or "", api_key_env=config.api_key_env or "", **given)
    given |= {"base_url": config.base_url or HOSTS[provider].url, "api_key_env": config.api_key_env or HOSTS[provider].key_env}
    if provider == "anthropic":
        from safer_instruct.models.anthropic import AnthropicModel

        return AnthropicModel(name, **given)
    from safer_instruct.models.openai import OpenAIModel

    return OpenAIModel(name, want_logprobs=want_logprobs, provider=provider, **given)


def _open_batched(config: ModelConfig, provider: str, name: str, want_logprobs: bool, spending: Spending, path: Path | None) -> Model:
    from safer_instruct.models.batch.anthropic import AnthropicBatches
    from safer_instruct.models.batch.api import Timing
    from safer_instruct.models.batch.collector import BatchedModel
    from safer_instruct.models.batch.gemini import GeminiBatches
    from safer_instruct.models.batch.mistral import MistralBatches
    from safer_instruct.models.batch.openai import OpenAIBatches

    kinds = {"openai": OpenAIBatches, "anthropic": AnthropicBatches, "gemini": GeminiBatches, "mistral": MistralBatches}
    if path is None:
        raise ConfigError(f"model '{config.model}': 'batch' works within a run, whose directory keeps what is under way; set it to false here")
    timing = Timing(gather_s=config.batch_wait_s, first_poll_s=config.batch_poll_s[0], longest_poll_s=config.batch_poll_s[1])
    given: dict[str, Any] = {"timing": timing, "revision": config.revision}
    if config.base_url:
        if not isinstance(config.base_url, str):
            raise ConfigError(f"model '{config.model}': 'batch' needs a single base_url")
        given["base_url"] = config.base_url
    if config.api_key_env:
        given["api_key_env"] = config.api_key_env
    if provider == "openai":
        given["want_logprobs"] = want_logprobs
    price = spending.price
    if price and config.price_per_million:
        price = price.model_copy(update={"batch_discount": 0.5})  # what is given is the price outside of batches; all four take half
    return BatchedModel(kinds[provider](name, **given), path, max_rows=config.batch_rows, price=price, spend=spending.budget, timing=timing)


def _limits(config: ModelConfig) -> Limits:
    from safer_instruct.models.calls import MAX_PAUSE_S
    from safer_instruct.models.flow import Limits

    return Limits(
        concurrency=config.concurrency,
        requests_per_min=config.requests_per_min,
        tokens_per_min=config.tokens_per_min,
        retries=config.retries,
        timeout_s=config.timeout_s,
        max_pause_s=config.max_pause_s or MAX_PAUSE_S,
        first_answer_s=config.max_pause_s,
    )


def _spending(config: ModelConfig, prices: Prices | None, budget: Budget | None) -> Spending:
    from safer_instruct.models.spending import Spending

    known = prices or Prices({})
    urls = _urls(config)
    found = [_price(config, url, known) for url in urls]
    if budget and budget.max_cost is not None:
        found = [price or known.require(config.model, url, config.price_per_million) for price, url in zip(found, urls, strict=True)]
    if any(price != found[0] for price in found):
        raise ConfigError(f"model '{config.model}': its endpoints have different prices; give one price_per_million that holds for all, the highest")
    return Spending(found[0], budget)


def _urls(config: ModelConfig) -> tuple[str | None, ...]:
    """Where a remote model is, in the words of `Prices.find`."""
    if config.base_url is not None:
        return (config.base_url,) if isinstance(config.base_url, str) else config.base_url
    provider = config.model.partition(":")[0]
    return (HOSTS[provider].url,) if provider in HOSTS else (None,) if provider == "served" else ("",)


def _price(config: ModelConfig, url: str | None, known: Prices) -> Price | None:
    """What the config or a price file says, then what LiteLLM knows of a provider at its own address."""
    price = known.find(config.model, url, config.price_per_million)
    if price is None and config.model.startswith("litellm:") and not url:
        from safer_instruct.models.litellm import known_price

        return known_price(config.model.partition(":")[2])
    return price


def adapter_path(adapter: str, base: Path) -> Path:
    """Folder of an adapter: one that ships with the package, or a path relative to `base`.

    Raises:
        ConfigError: There is no such adapter.
    """
    shipped = Path(str(resources.files("safer_instruct") / "adapters"))
    for folder in (shipped / adapter, base / adapter):
        if (folder / "adapter_config.json").is_file():
            return folder
    if (base / adapter).is_dir():
        raise ConfigError(f"adapter '{adapter}': {(base / adapter).absolute()} holds none; if its training was stopped, give that command again")
    names = sorted(p.parent.name for p in shipped.glob("*/tuning.json"))  # others, as the refusal reader, are part of a detector
    raise ConfigError(f"adapter '{adapter}': neither a folder at {(base / adapter).absolute()} nor one of {', '.join(names) or '(none shipped)'}")
