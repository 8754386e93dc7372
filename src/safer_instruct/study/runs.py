"""The sets of a study that a run makes: as its config says, or with every filter and verifier off."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safer_instruct import rundir
from safer_instruct.config import FilterConfig, ModelConfig, RunConfig, load_config
from safer_instruct.domain import load_domain
from safer_instruct.errors import ConfigError, SourceError
from safer_instruct.pipeline import run
from safer_instruct.state import RunState
from safer_instruct.wholefile import sha256_of, whole

_NEVER = -1e9  # below every log-probability: a bound that nothing fails
Watch = Callable[[RunState], None]


def run_config(path: Path, pairs: int | None = None) -> RunConfig:
    """The config of a run; with `pairs` it ends as soon as it has so many.

    Raises:
        ConfigError: It is missing or not valid.
    """
    config = load_config(path)
    if pairs is None or config.target is not None or config.select is not None or config.filter.keep == "best":
        return config
    return config.model_copy(update={"target": pairs})


def unfiltered(config: RunConfig) -> RunConfig:
    """The same run with nothing that drops an example for what it says: the likeliest instruction and the likeliest answer are taken.

    What is left are the reasons for which there is nothing to take: the same text twice, an empty answer, one that was cut at the token limit.

    Raises:
        ConfigError: The verification cannot be switched off.
    """
    domain = load_domain(config.domain, config.base)
    bare = [name for name, category in domain.categories.items() if category.contrast is None]
    if bare or any(domain.programs(name) for name in domain.categories):
        why = f"category '{bare[0]}' has no contrast" if bare else "its programs always decide"
        raise ConfigError(f"domain '{domain.name}': 'unfiltered' cannot switch off its verification ({why}); make that set by a run config of its own")
    verify = config.verify.model_copy(update={"form": "contrast", "pick": "first", "min_contrast": _NEVER, "min_margin": _NEVER, "min_words": 1, "also": ()})
    respond = config.respond.model_copy(update={"boilerplate": None, "revise": 0, "critique": False, "choose": "weight"})
    filters = FilterConfig(text=None, prompt=None, pair=None, near_duplicate=None, consistency=None)
    return config.model_copy(update={"filter": filters, "verify": verify, "respond": respond, "select": None})


def make_run(config: RunConfig, out: Path, *, ledger: Path | None, watch: Watch) -> dict[str, Any]:
    """Carry a run out, or go on with it.

    Args:
        config: What to run.
        out: Its directory.
        ledger: Of a run that makes some of the same calls: they are not made again.
        watch: Called once with the live state.

    Returns:
        Its `summary.json`.

    Raises:
        SaferInstructError: Whatever went wrong.
    """
    out.mkdir(parents=True, exist_ok=True)
    if ledger and ledger.is_file() and not (out / rundir.LEDGER).exists():
        with whole(out / rundir.LEDGER) as part:
            shutil.copyfile(ledger, part)
    summary = run(config, out, mode="continue", watch=watch).summary
    if not summary["pairs"]:
        raise SourceError(f"{out}: the run made no pair of {summary['rows']} texts; look at: safer-instruct filters {out}")
    return summary


def tokens_of(summary: dict[str, Any]) -> int:
    """What all calls of a run read and wrote, those that came from its ledger included."""
    return int(summary["prompt_tokens"]) + int(summary["completion_tokens"])


def content_of(config: RunConfig) -> list[Any]:
    """What the result of a run depends on, as far as it can be told without running: for the digest of its step."""
    domain = load_domain(config.domain, config.base)
    files = [*matched(config.base, config.source.path), *matched(config.base, config.respond.template), *matched(config.base, config.induce.template)]
    scripts = [m.model.partition(":")[2] for m in models_of(config) if m.model.startswith("scripted:")]
    files += [file for script in scripts for file in matched(config.base, script)]
    return [config.model_dump(mode="json"), domain.model_dump(mode="json"), [sha256_of(file) for file in files]]


def models_of(config: RunConfig) -> list[ModelConfig]:
    """Every model that has a part in a run."""
    roles = config.models
    single = [roles.inducer, roles.expert, roles.student, roles.scorer, roles.judge, roles.reward, roles.rewriter]
    return [m for m in (*single, *(e.bare for e in (roles.experts or {}).values()), *(roles.panel or {}).values()) if m]


def placed(model: ModelConfig, base: Path) -> ModelConfig:
    """A model of a config that lies in `base`, as a config elsewhere names it."""
    provider, _, name = model.model.partition(":")
    update: dict[str, str] = {}
    if provider in ("scripted", "served", "reward") and not model.base_url and (base / name).exists():
        update["model"] = f"{provider}:{(base / name).resolve()}"
    if model.adapter and (base / model.adapter / "adapter_config.json").is_file():
        update["adapter"] = str((base / model.adapter).resolve())
    return model.model_copy(update=update)


def matched(base: Path, name: str) -> list[Path]:
    """The files that a path, a folder or a glob of a config leads to; none where it is the name of something shipped."""
    place = base / name
    found = [place] if place.is_file() else place.rglob("*") if place.is_dir() else () if Path(name).is_absolute() else base.glob(name)
    return sorted(file for file in found if file.is_file())
