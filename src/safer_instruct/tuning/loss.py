"""Negative log-likelihood of completions, and its mean over held-out pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_EVALUATION_TOKENS = 2048  # per batch


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
    """The held-out loss, overall and per source; of completions: mean negative log-likelihood per token, in nats.

    Attributes:
        step: After which it was taken.
        loss: What training makes smaller.
        by_source: The same, for each source of data.
        figures: What else was measured on the way, by name.
    """

    step: int
    loss: float
    by_source: dict[str, float]
    figures: dict[str, float] = field(default_factory=dict)


def completion_nll(model: Any, batch: Sequence[Encoded]) -> torch.Tensor:
    """Negative log-likelihood of every completion token of the batch, shape (completion tokens,), in nats.

    Sequences end together, so that the vocabulary-sized logits, the peak of memory, are computed for the last positions only.
    """
    import torch

    device = next(model.parameters()).device
    width, tail = max(e.length for e in batch), max(len(e.completion) for e in batch)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    mask, scored = torch.zeros_like(ids), torch.zeros((len(batch), tail), dtype=torch.bool)
    for row, e in enumerate(batch):
        ids[row, width - e.length :] = torch.tensor(e.prompt + e.completion)
        mask[row, width - e.length :] = 1
        scored[row, tail - len(e.completion) :] = True
    ids, mask, scored = ids.to(device), mask.to(device), scored.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=tail + 1).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1][scored].float(), ids[:, -tail:][scored], reduction="none")


def evaluate(model: Any, pairs: Sequence[Encoded], *, step: int) -> Evaluation:
    """Held-out loss of `model` on `pairs`."""
    sums = losses_by_source(model, batches(pairs))
    return mean(sums, step)


def batches(pairs: Sequence[Encoded]) -> list[list[Encoded]]:
    """`pairs` by length, in batches of about 2048 tokens."""
    found: list[list[Encoded]] = []
    for pair in sorted(pairs, key=lambda e: e.length):
        if not found or (len(found[-1]) + 1) * pair.length > _EVALUATION_TOKENS:
            found.append([])
        found[-1].append(pair)
    return found


def losses_by_source(model: Any, work: Sequence[Sequence[Encoded]]) -> dict[str, tuple[float, int]]:
    """Source -> (sum of the losses in nats, completion tokens)."""
    import torch

    model.eval()
    sums: dict[str, tuple[float, int]] = {}
    with torch.no_grad():
        for batch in work:
            nll = completion_nll(model, batch).tolist()
            for e in batch:
                total, count = sums.get(e.source, (0.0, 0))
                mine, nll = nll[: len(e.completion)], nll[len(e.completion) :]
                sums[e.source] = (total + sum(mine), count + len(mine))
    return sums


def mean(sums: dict[str, tuple[float, int]], step: int) -> Evaluation:
    """The losses per token from their sums."""
    loss = sum(t for t, _ in sums.values()) / sum(n for _, n in sums.values())
    return Evaluation(step, loss, {source: t / n for source, (t, n) in sorted(sums.items())})
