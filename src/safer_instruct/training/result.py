"""What a training on preference pairs gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safer_instruct.training.data import Divided
from safer_instruct.tuning.loss import Evaluation


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training did.

    Attributes:
        out: Folder with the adapter or model, its card, `tuning.json`, `training.jsonl` and `curves.svg`.
        before: The held-out figures of the state that training started from.
        best: Those of the state that was kept.
        divided: What became of the pairs.
        steps: Made in all.
        seconds: Wall time of this sitting: loading the model, the reference, steps and evaluations.
        already: Whether it was finished before, so that nothing was trained in this one.
    """

    out: Path
    before: Evaluation
    best: Evaluation
    divided: Divided
    steps: int
    seconds: float
    already: bool = False
