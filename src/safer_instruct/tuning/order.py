"""The order of training: a function of lengths, seed and epoch alone, so that a resumed run sees what an undisturbed one would."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_POOL = 16  # batches sorted together: wide enough to save padding, narrow enough to keep the order random


def bucketed(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[int]:
    """Indices of one epoch; each `batch_size` in a row are of like length, longest last, and the incomplete batch stands at the end.

    All are shuffled, sorted within pools of 16 batches, and the batches shuffled again.
    """
    rng = random.Random(f"{seed}:{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    whole = len(order) - len(order) % batch_size
    pools = _chunks(order[:whole], _POOL * batch_size)
    batches = [batch for pool in pools for batch in _chunks(sorted(pool, key=lengths.__getitem__), batch_size)]
    rng.shuffle(batches)
    return [i for batch in [*batches, order[whole:]] for i in batch]


class Bucketed:
    """A sampler for torch's `DataLoader`: `bucketed`, one epoch at a time."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Order examples of `lengths` into optimizer batches of `batch_size`."""
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Go to `epoch`; the trainer calls this, also when it resumes."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(bucketed(self._lengths, self._batch_size, self._seed, self._epoch))


def _chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[i : i + size] for i in range(0, len(items), size)]
