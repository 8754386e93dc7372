"""What is learned, as opposed to how the steps are carried out: the seam between `train` and those who use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from safer_instruct.tuning.bases import Base
from safer_instruct.tuning.loss import Evaluation

Sums = Mapping[str, tuple[float, ...]]
"""Source -> what adds up over batches and processes, from which an evaluation follows."""


class Objective(Protocol):
    """A training set, a held-out set, and the loss on both.

    Attributes:
        lengths: Tokens of each row of the training set; the order of training and the micro-batch follow from them.
        has_reference: Whether the state that training starts from is what the loss compares with.
    """

    @property
    def lengths(self) -> Sequence[int]: ...

    @property
    def has_reference(self) -> bool: ...

    def content(self) -> object:
        """All that the result depends on, as JSON can write it."""

    def begin(self, model: Any, key: str) -> None:
        """Take from the model what is needed of it before its first step; `key` names its weights and their precision."""

    def batches(self) -> Sequence[Any]:
        """The held-out set in batches; the same ones each time."""

    def sums(self, model: Any, batches: Sequence[Any]) -> Sums:
        """The figures of some batches, to be added up."""

    def mean(self, sums: Sums, step: int) -> Evaluation:
        """The evaluation that sums over all batches give."""

    def arguments(self) -> tuple[type[Any], dict[str, Any]]:
        """TRL's class of arguments, and what this loss sets of them."""

    def trainer(self, model: Any, base: Base, arguments: Any, callbacks: Sequence[Any]) -> Any:
        """TRL's trainer over the training set; it has `HeldOutEvaluation` before it."""


def measure(objective: Objective, model: Any, step: int) -> Evaluation:
    """The evaluation of `model`, by this process alone."""
    return objective.mean(objective.sums(model, objective.batches()), step)


def added(parts: Sequence[Sums]) -> dict[str, tuple[float, ...]]:
    """The sums of several processes, added up."""
    total: dict[str, tuple[float, ...]] = {}
    for part in parts:
        for source, values in part.items():
            before = total.get(source, (0.0,) * len(values))
            total[source] = tuple(a + b for a, b in zip(before, values, strict=True))
    return total
