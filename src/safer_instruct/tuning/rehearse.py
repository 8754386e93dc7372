"""`tune --dry-run`: what a training run will take, told from a few real steps."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.config import TuneConfig
from safer_instruct.tuning.bases import Base
from safer_instruct.tuning.loss import Encoded
from safer_instruct.tuning.progress import Progress
from safer_instruct.tuning.train import device, micro_batch, train

_STEPS = 3


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a run will take.

    Attributes:
        prompt_tokens: Read in one epoch.
        completion_tokens: Learned in one epoch; the loss is taken on these.
        steps: In all epochs.
        micro_batch: Sequences in memory at a time.
        memory_gb: Peak of the measured steps, which are those of the longest pairs: of the GPU, or of this process.
        tokens_per_s: Of the measured steps.
        seconds: Training and evaluations at that speed, without early stopping.
        device: Where it was measured.
    """

    prompt_tokens: int
    completion_tokens: int
    steps: int
    micro_batch: int
    memory_gb: float
    tokens_per_s: float
    seconds: float
    device: str


def rehearse(base: Base, train_set: Sequence[Encoded], held_out: Sequence[Encoded], config: TuneConfig, start: Path | None) -> Rehearsal:
    """Make three steps, one to warm up, on the longest pairs, with one held-out pair, and tell what the whole run will take.

    Memory is thus an upper bound, and the time errs on the long side. Nothing is kept.

    Raises:
        ConfigError: As `train`.
    """
    import torch

    longest = sorted(train_set, key=lambda e: e.length)[-_STEPS * config.batch_size :]
    seen: list[Progress] = []
    settings = config.model_copy(update={"epochs": 1, "evaluations_per_epoch": 1, "patience": _STEPS + 1})
    settings = settings.model_copy(update={"training": config.training.model_copy(update={"trackers": (), "save_steps": None})})
    with tempfile.TemporaryDirectory(prefix="safer-instruct-") as folder:
        train(base, longest, held_out[:1], settings, seen.append, checkpoints=Path(folder), start=start)
    speed = next((p.tokens_per_s for p in reversed(seen) if p.tokens_per_s), 0.0)
    steps = -(-len(train_set) // config.batch_size) * config.epochs
    evaluations = (config.evaluations_per_epoch * config.epochs + 1) * sum(e.length for e in held_out) / 3  # a forward pass alone is about a third
    tokens = sum(e.length for e in train_set) * config.epochs
    on_gpu = device() == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Rehearsal(
        sum(len(e.prompt) for e in train_set),
        sum(len(e.completion) for e in train_set),
        steps,
        micro_batch(config, max(e.length for e in train_set)),
        peak / 1e9,
        speed,
        (tokens + evaluations) / speed if speed else 0.0,
        torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
    )
