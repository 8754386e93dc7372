"""`--dry-run` of a training: what a training run will take, told from a few real steps."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.oneline import many
from safer_instruct.settings.training import TrainerConfig
from safer_instruct.tuning.bases import Base
from safer_instruct.tuning.loss import Encoded
from safer_instruct.tuning.objective import Objective
from safer_instruct.tuning.progress import Progress
from safer_instruct.tuning.train import device, micro_batch, train
from safer_instruct.tuning.trainer import Completions

_STEPS = 3


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a run will take.

    Attributes:
        prompt_tokens: Read in one epoch.
        completion_tokens: Learned in one epoch; the loss is taken on these.
        steps: In all epochs.
        micro_batch: Sequences in memory at a time.
        memory_gb: Peak of the measured steps, which are those of the longest rows: of the GPU, or of this process.
        tokens_per_s: Of the measured steps.
        measured: How many these are.
        seconds: Training and evaluations at that speed, without early stopping.
        device: Where it was measured.
    """

    prompt_tokens: int
    completion_tokens: int
    steps: int
    micro_batch: int
    memory_gb: float
    tokens_per_s: float
    measured: int
    seconds: float
    device: str


@dataclass(frozen=True, slots=True)
class Load:
    """What a run has to get through.

    Attributes:
        prompt_tokens: Read in one epoch.
        completion_tokens: Learned in one epoch.
        longest: The objective over the rows with the most tokens, as many as are asked for, with one held-out row; and a folder for its files.
        lengths: Tokens of each row.
        held_out_tokens: In one evaluation.
    """

    prompt_tokens: int
    completion_tokens: int
    longest: Callable[[int, Path], Objective]
    lengths: Sequence[int]
    held_out_tokens: int


def rehearse(base: Base, load: Load, config: TrainerConfig, start: Path | None) -> Rehearsal:
    """Make three steps or a few more, one to warm up, on the longest rows, with one held-out row, and tell what the whole run will take.

    Memory is thus an upper bound, and the time errs on the long side. Nothing is kept.

    Raises:
        ConfigError: As `train`.
    """
    import torch

    seen: list[Progress] = []
    an_epoch = -(-len(load.lengths) // config.batch_size)
    epochs = -(-_STEPS // min(_STEPS, an_epoch))  # where there are fewer rows they come again
    settings = config.model_copy(update={"epochs": epochs, "evaluations_per_epoch": 1, "patience": _STEPS + 1})
    settings = settings.model_copy(update={"training": config.training.model_copy(update={"trackers": (), "save_steps": None})})
    with tempfile.TemporaryDirectory(prefix="safer-instruct-") as folder:
        train(base, load.longest(_STEPS * config.batch_size, Path(folder)), settings, seen.append, checkpoints=Path(folder), start=start)
    made = {p.step for p in seen if p.step}
    speed = next((p.tokens_per_s for p in reversed(seen) if p.tokens_per_s), 0.0)
    steps = an_epoch * config.epochs
    evaluations = (config.evaluations_per_epoch * config.epochs + 1) * load.held_out_tokens / 3  # a forward pass alone is about a third
    tokens = sum(load.lengths) * config.epochs
    on_gpu = device() == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Rehearsal(
        load.prompt_tokens,
        load.completion_tokens,
        steps,
        micro_batch(config, max(load.lengths)),
        peak / 1e9,
        speed,
        len(made) - 1,
        (tokens + evaluations) / speed if speed else 0.0,
        torch.cuda.get_device_name() if on_gpu else f"CPU, {many(torch.get_num_threads(), 'thread')}",
    )


def completions_load(train: Sequence[Encoded], held_out: Sequence[Encoded]) -> Load:
    """The load of supervised tuning."""

    def longest(count: int, folder: Path) -> Objective:
        return Completions(sorted(train, key=lambda e: e.length)[-count:], held_out[:1])

    lengths = [e.length for e in train]
    return Load(sum(len(e.prompt) for e in train), sum(len(e.completion) for e in train), longest, lengths, sum(e.length for e in held_out))
