"""The order of training: every pair once an epoch, like lengths together, and a function of seed and epoch alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.tuning.order import Bucketed, bucketed

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=300)


@given(LENGTHS, st.integers(1, 16), st.integers(0, 3), st.integers(0, 3))
def test_each_epoch_holds_every_pair_once(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    order = bucketed(lengths, batch_size, seed, epoch)
    assert sorted(order) == list(range(len(lengths)))
    assert order == bucketed(lengths, batch_size, seed, epoch)


def test_batches_hold_like_lengths_and_epochs_differ() -> None:
    lengths = [(i * 37) % 200 + 1 for i in range(256)]
    order = bucketed(lengths, 8, 0, 0)
    padded = sum(8 * max(lengths[i] for i in order[start : start + 8]) for start in range(0, 256, 8))
    assert padded < 1.15 * sum(lengths) < sum(8 * max(lengths[start : start + 8]) for start in range(0, 256, 8))
    assert order != bucketed(lengths, 8, 0, 1) != bucketed(lengths, 8, 1, 1)


def test_the_sampler_follows_the_epoch() -> None:
    sampler = Bucketed([5, 1, 9, 3], 2, seed=7)
    sampler.set_epoch(2)
    assert list(sampler) == bucketed([5, 1, 9, 3], 2, 7, 2) and len(sampler) == 4
