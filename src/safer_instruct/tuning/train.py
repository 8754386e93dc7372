"""LoRA tuning on completion tokens only, on a CPU or a GPU, with early stopping on the held-out loss."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safer_instruct.config import TuneConfig
from safer_instruct.extras import require

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Encoded:
    """A pair as token ids; the loss is taken on `completion` only.

    Attributes:
        prompt: Context tokens.
        completion: Target tokens, the end token last.
        source: Where the pair came from.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    source: str

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Held-out loss: mean negative log-likelihood per completion token, in nats, overall and per source."""

    step: int
    loss: float
    by_source: dict[str, float]


@dataclass(frozen=True, slots=True)
class Progress:
    """One step's news, for the progress display."""

    step: int
    steps: int
    loss: float
    tokens_per_s: float
    held_out: Evaluation | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gives: the PEFT model at its best state, and every evaluation in order."""

    model: Any
    evaluations: tuple[Evaluation, ...]
    best: Evaluation
    seconds: float


def train(
    base: Any,
    train_set: Sequence[Encoded],
    held_out: Sequence[Encoded],
    config: TuneConfig,
    report: Callable[[Progress], None],
    *,
    start: Path | None = None,
) -> Trained:
    """Tune a LoRA adapter on `base` (a transformers causal LM), fresh or from `start`, and keep the state with the lowest held-out loss.

    The first evaluation is always that of `base` alone.

    Raises:
        MissingExtraError: torch or peft is not installed.
    """
    torch = require("torch", extra="train", purpose="tuning")
    peft = require("peft", extra="train", purpose="tuning")
    started = time.monotonic()
    torch.manual_seed(config.seed)
    model = peft.PeftModel.from_pretrained(base, start, is_trainable=True) if start else peft.get_peft_model(base, _fresh(config, peft))
    parameters = [p for p in model.parameters() if p.requires_grad]
    steps_per_epoch = math.ceil(len(train_set) / config.batch_size)
    steps = steps_per_epoch * config.epochs
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, steps, config.warmup))
    every = max(1, steps_per_epoch // config.evaluations_per_epoch)
    with model.disable_adapter():
        evaluations = [evaluate(model, held_out, step=0)]
    report(Progress(0, steps, float("nan"), 0.0, evaluations[0]))
    if start:
        evaluations.append(evaluate(model, held_out, step=0))
        report(Progress(0, steps, float("nan"), 0.0, evaluations[1]))
    best, best_state, stale, tokens = evaluations[-1], _state(model), 0, 0
    for step, batch in enumerate(_batches(train_set, config), 1):
        model.train()
        loss = completion_nll(model, batch).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += sum(e.length for e in batch)
        held = None
        if step % every == 0 or step == steps:
            held = evaluate(model, held_out, step=step)
            evaluations.append(held)
            stale = 0 if held.loss < best.loss else stale + 1
            if held.loss < best.loss:
                best, best_state = held, _state(model)
        report(Progress(step, steps, float(loss.detach()), tokens / (time.monotonic() - started), held))
        if stale >= config.patience:
            break
    model.load_state_dict(best_state, strict=False)
    return Trained(model, tuple(evaluations), best, time.monotonic() - started)


def _fresh(config: TuneConfig, peft: Any) -> Any:
    lora = config.lora
    return peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear", task_type="CAUSAL_LM")


def completion_nll(model: Any, batch: Sequence[Encoded]) -> torch.Tensor:
    """Negative log-likelihood of every completion token of the batch, shape (completion tokens,), in nats.

    The vocabulary-sized logits, the peak of memory, are computed at completion positions only.
    """
    import torch

    device = next(model.parameters()).device
    width = max(e.length for e in batch)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    rows: list[int] = []
    columns: list[int] = []
    for row, e in enumerate(batch):
        ids[row, : e.length] = torch.tensor(e.prompt + e.completion)
        mask[row, : e.length] = 1
        rows += [row] * len(e.completion)
        columns += range(len(e.prompt), e.length)
    ids, mask = ids.to(device), mask.to(device)
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    at, target = torch.tensor(columns, device=device), ids[rows, columns]
    logits = causal.lm_head(hidden[rows, at - 1]).float()
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")


def evaluate(model: Any, pairs: Sequence[Encoded], *, step: int) -> Evaluation:
    """Held-out loss of `model` on `pairs`."""
    import torch

    model.eval()
    sums: dict[str, tuple[float, int]] = {}
    with torch.inference_mode():
        for batch in _chunks(sorted(pairs, key=lambda e: e.length), 16):
            nll = completion_nll(model, batch).tolist()
            for e in batch:
                total, count = sums.get(e.source, (0.0, 0))
                mine, nll = nll[: len(e.completion)], nll[len(e.completion) :]
                sums[e.source] = (total + sum(mine), count + len(mine))
    loss = sum(t for t, _ in sums.values()) / sum(n for _, n in sums.values())
    return Evaluation(step, loss, {source: t / n for source, (t, n) in sorted(sums.items())})


def _batches(pairs: Sequence[Encoded], config: TuneConfig) -> Iterator[list[Encoded]]:
    """Batches of similar length: shuffled each epoch, sorted within pools of 16 batches, batches shuffled again."""
    rng = random.Random(config.seed)
    for _ in range(config.epochs):
        order = list(pairs)
        rng.shuffle(order)
        pools = _chunks(order, 16 * config.batch_size)
        batches = [b for pool in pools for b in _chunks(sorted(pool, key=lambda e: e.length), config.batch_size)]
        rng.shuffle(batches)
        yield from batches


def _chunks(items: Sequence[Encoded], size: int) -> Iterator[list[Encoded]]:
    return (list(items[i : i + size]) for i in range(0, len(items), size))


def _cosine(step: int, steps: int, warmup: float) -> float:
    ramp = max(1, int(steps * warmup))
    return step / ramp if step < ramp else 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


def _state(model: Any) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
