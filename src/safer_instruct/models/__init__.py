"""Models: a protocol with two verbs, and the providers behind model strings `provider:model`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from safer_instruct.config import ModelConfig
from safer_instruct.errors import ConfigError
from safer_instruct.models.protocol import Model

PROVIDERS = ("embedded", "openai", "scripted")


def open_model(config: ModelConfig, base: Path, *, want_logprobs: bool = False) -> Model:
    """The model that `config` names; paths in it are relative to `base`.

    `want_logprobs` asks for the log-probability of what it generates, where that must be asked for.

    Raises:
        ConfigError: The provider is unknown, or a setting does not fit it.
        MissingExtraError: The provider's extra is not installed.
        ModelError: The model is not there.
    """
    provider, _, name = config.model.partition(":")
    if config.adapter and provider != "embedded":
        raise ConfigError(f"model '{config.model}': 'adapter' is for embedded models; give the served model's own name for it")
    if provider == "embedded":
        from safer_instruct.models.embedded import EmbeddedModel

        return EmbeddedModel(name, adapter_path(config.adapter, base) if config.adapter else None)
    if provider == "openai":
        from safer_instruct.models.openai import OpenAIModel

        return OpenAIModel(
            name,
            base_url=config.base_url,
            api_key_env=config.api_key_env,
            concurrency=config.concurrency,
            timeout_s=config.timeout_s,
            price_per_million=config.price_per_million,
            want_logprobs=want_logprobs and config.logprobs,
        )
    if provider == "scripted":
        from safer_instruct.models.scripted import ScriptedModel

        return ScriptedModel(name, base=base)
    raise ConfigError(f"model '{config.model}': unknown provider '{provider}'; write one of {', '.join(f'{p}:NAME' for p in PROVIDERS)}")


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
