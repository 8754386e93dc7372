"""Models: a protocol with two verbs, and the providers behind model strings `provider:model`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from safer_instruct.config import ModelConfig
from safer_instruct.errors import ConfigError
from safer_instruct.models.protocol import Model
from safer_instruct.prices import Prices

if TYPE_CHECKING:
    from safer_instruct.budget import Budget
    from safer_instruct.models.flow import Limits
    from safer_instruct.models.spending import Spending

PROVIDERS = ("embedded", "openai", "scripted", "served")


def open_model(config: ModelConfig, base: Path, *, want_logprobs: bool = False, prices: Prices | None = None, budget: Budget | None = None) -> Model:
    """The model that `config` names.

    Args:
        config: Which one, and how to reach it.
        base: What paths in it are relative to.
        want_logprobs: Ask for the log-probability of what it generates, where that must be asked for.
        prices: What remote models cost.
        budget: What their calls draw on.

    Raises:
        ConfigError: The provider is unknown, a setting does not fit it, or its price is unknown and `budget` has a cap in money.
        MissingExtraError: The provider's extra is not installed.
        ModelError: The model is not there.
    """
    provider, _, name = config.model.partition(":")
    if config.adapter and provider not in ("embedded", "served"):
        raise ConfigError(f"model '{config.model}': 'adapter' is for embedded models and served ones; give the served model's own name for it")
    if provider == "embedded":
        from safer_instruct.models.embedded import EmbeddedModel

        return EmbeddedModel(name, adapter_path(config.adapter, base) if config.adapter else None)
    if provider == "openai":
        from safer_instruct.models.openai import OpenAIModel

        return OpenAIModel(
            name,
            base_url=config.base_url,
            api_key_env=config.api_key_env,
            limits=_limits(config),
            spending=_spending(config, prices, budget),
            want_logprobs=want_logprobs and config.logprobs,
            revision=config.revision,
        )
    if provider == "served":
        from safer_instruct.models.served import ServedModel

        return ServedModel(config, base, limits=_limits(config), spending=_spending(config, prices, budget), want_logprobs=want_logprobs and config.logprobs)
    if provider == "scripted":
        from safer_instruct.models.scripted import ScriptedModel

        return ScriptedModel(name, base=base)
    raise ConfigError(f"model '{config.model}': unknown provider '{provider}'; write one of {', '.join(f'{p}:NAME' for p in PROVIDERS)}")


def _limits(config: ModelConfig) -> Limits:
    from safer_instruct.models.flow import Limits

    return Limits(
        concurrency=config.concurrency,
        requests_per_min=config.requests_per_min,
        tokens_per_min=config.tokens_per_min,
        retries=config.retries,
        timeout_s=config.timeout_s,
        max_pause_s=config.max_pause_s,
    )


def _spending(config: ModelConfig, prices: Prices | None, budget: Budget | None) -> Spending:
    from safer_instruct.models.spending import Spending

    known = prices or Prices({})
    look_up = known.require if budget and budget.max_cost is not None else known.find
    urls = [None] if config.model.startswith("served:") else [config.base_url] if isinstance(config.base_url, str) else config.base_url
    found = [look_up(config.model, url, config.price_per_million) for url in urls]
    if any(price != found[0] for price in found):
        raise ConfigError(f"model '{config.model}': its endpoints have different prices; give one price_per_million that holds for all, the highest")
    return Spending(found[0], budget)


def adapter_path(adapter: str, base: Path) -> Path:
    """Folder of an adapter: one that ships with the package, or a path relative to `base`.

    Raises:
        ConfigError: There is no such adapter.
    """
    shipped = Path(str(resources.files("safer_instruct") / "adapters"))
    for folder in (shipped / adapter, base / adapter):
        if (folder / "adapter_config.json").is_file():
            return folder
    names = sorted(p.parent.name for p in shipped.glob("*/adapter_config.json"))
    raise ConfigError(f"adapter '{adapter}': neither a folder at {(base / adapter).absolute()} nor one of {', '.join(names) or '(none shipped)'}")
