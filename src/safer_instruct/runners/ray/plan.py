"""What every worker is told, what a run on a cluster cannot do, and limits of endpoints shared out among workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safer_instruct.config import ModelConfig, RunConfig
from safer_instruct.errors import ConfigError
from safer_instruct.runners.chunks import MULTIPLE

AHEAD, DISTINCT, BEHIND, VARIED, LAST = "ahead", "distinct", "behind", "varied", "last"
_CHUNK = (MULTIPLE, 8 * MULTIPLE)  # examples, at least and at most
_CHUNKS_PER_WORKER = 8  # of a source whose size is known
_SHARED_RATES = ("requests_per_min", "tokens_per_min")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a run runs.

    Attributes:
        address: Of a Ray cluster, as `ray.init` takes it; None starts one on this machine for the time of the run.
        workers: Least and most actors for each part of the work that calls models; None is one for each CPU of the cluster.
        gpus: GPUs of each worker that serves weights (`served:` models).
        cpus: What a cluster that is started here takes this machine to have; None counts them.
    """

    address: str | None = None
    workers: tuple[int, int] | None = None
    gpus: float = 0.0
    cpus: int | None = None


def cluster_of(runner: str, address: str | None, workers: str | None, gpus: float, *, dry_run: bool) -> Cluster | None:
    """The cluster that a command asks for; None for the local runner.

    Raises:
        ConfigError: An option is for the other runner, or cannot be read.
    """
    if runner != "ray":
        if given := [name for name, value in (("--address", address), ("--workers", workers), ("--gpus", gpus)) if value]:
            raise ConfigError(f"{', '.join(given)}: only with --runner ray")
        return None
    if dry_run:
        raise ConfigError("--dry-run looks at some rows on this machine; leave out --runner ray")
    bounds = workers.split("-") if workers else []
    if workers and not (len(bounds) in (1, 2) and all(bound.isdecimal() and int(bound) for bound in bounds) and int(bounds[0]) <= int(bounds[-1])):
        raise ConfigError(f"--workers {workers}: write how many, 8, or bounds for a cluster that grows, 4-16")
    return Cluster(address, (int(bounds[0]), int(bounds[-1])) if bounds else None, gpus)


@dataclass(frozen=True, slots=True)
class Plan:
    """What every worker is told.

    Attributes:
        config: With paths that hold on every node, and limits that hold for one worker.
        out: The run directory.
        sitting: Names this attempt at the run; part of the names of shards.
        chunk: Examples in a chunk.
        side_by_side: Chunks that a worker has in hand at once.
    """

    config: RunConfig
    out: Path
    sitting: str
    chunk: int
    side_by_side: int = 3


def check(config: RunConfig, cluster: Cluster) -> None:
    """Refuse what would be ignored, before anything is paid for.

    Raises:
        ConfigError: The config asks for something that only the local runner does, or the address is of no use.
    """
    batched = [role for role, model in config.models.by_role.items() if model.batch]
    local_only = {
        "target": config.target is not None,
        "twins": config.twins is not None,
        "filter.keep 'best'": config.filter.keep == "best",
        f"models.{batched[0] if batched else ''}.batch": bool(batched),
    }
    if found := [name for name, asked in local_only.items() if asked]:
        raise ConfigError(f"--runner ray does not do {' and '.join(found)} yet; leave it out, or run this config with --runner local")
    if cluster.address and cluster.address.startswith("ray://"):
        raise ConfigError(
            "Ray Data does not run through Ray Client (ray://); give this command on a node of the cluster with --address auto, or submit it as a job"
        )


def parts(config: RunConfig) -> tuple[str, ...]:
    """The parts of the work in their order."""
    if config.respond.boilerplate is None:
        return AHEAD, DISTINCT, BEHIND
    return (AHEAD, DISTINCT, BEHIND, VARIED, *([LAST] if config.rejected.writer else []))


def chunk_size(rows: int | None, workers: int) -> int:
    """Examples in a chunk: large ones cost least, and every worker is to have some."""
    least, most = _CHUNK
    if rows is None:
        return most
    return max(least, min(most, rows // (workers * _CHUNKS_PER_WORKER) // MULTIPLE * MULTIPLE))


def share_out(config: RunConfig, workers: Mapping[str, int]) -> RunConfig:
    """The config for one worker: what an endpoint may be sent at a time and in a minute is divided among all who call it.

    Args:
        config: Of the run.
        workers: Part of the work -> most workers that do it.

    Raises:
        ConfigError: There are more workers than calls that an endpoint takes at a time.
    """
    models, changed = config.models.by_role, {}
    for role, model in models.items():
        callers = {part for other, same in models.items() if _bare(same) == _bare(model) for part in _callers(other, config)}
        sharing = sum(workers.get(part, 0) for part in callers)
        if sharing < 2 or model.in_process or model.model.startswith("served:"):  # each worker has its own
            continue
        if model.concurrency < sharing:
            raise ConfigError(
                f"models.{role}: {sharing} workers would share the {model.concurrency} calls that its endpoint takes at a time; "
                f"give fewer --workers, or a higher concurrency"
            )
        rates = {name: getattr(model, name) / sharing for name in _SHARED_RATES if getattr(model, name)}
        changed[role] = model.model_copy(update={"concurrency": model.concurrency // sharing, **rates})
    return _with_models(config, changed)


def serves(config: RunConfig, part: str) -> bool:
    """Whether those who do a part of the work start servers for weights of their own, which want GPUs."""
    return any(model.model.startswith("served:") and part in _callers(role, config) for role, model in config.models.by_role.items())


def _callers(role: str, config: RunConfig) -> tuple[str, ...]:
    """Which parts of the work call that role's model."""
    behind, sides = (BEHIND, VARIED, LAST), config.side_roles.values()
    if role == "inducer":
        return (AHEAD, *behind) if role in sides else (AHEAD,)
    if role == "scorer" and config.filter.consistency:
        return AHEAD, *behind
    return behind


def _bare(model: ModelConfig) -> dict[str, Any]:
    """What makes two models one."""
    return {name: getattr(model, name) for name in ModelConfig.model_fields}


def _with_models(config: RunConfig, changed: Mapping[str, ModelConfig]) -> RunConfig:
    """A copy of the config with other models in those roles, and with a base that is the same on every node."""
    update: dict[str, Any] = {}
    for role, model in changed.items():
        group, _, name = role.partition(".")
        update[group] = {**(update.get(group) or getattr(config.models, group)), name: model} if name else model
    copy = config.model_copy(update={"models": config.models.model_copy(update=update)})
    copy._base = config.base.absolute()
    return copy
