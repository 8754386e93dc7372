"""What a training on preference pairs gives."""

from __future__ import annotations

from collections.abc import Mapping
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


_NOTICED = 0.001  # more than float32 gives
_CLEAR = 5.0  # as large as the rounding, so many times, and it is no rounding


def hidden_by_rounding(start: Mapping[str, float], kept: Mapping[str, float]) -> str:
    """That a margin is too small for the dtype that it was measured in, and what to do; empty where it is not.

    The state that training starts from is the reference, so that its margin is 0; what it is instead is rounding. That of bfloat16 swallows small
    changes of the weights: of 31 pairs, seven steps, it gave -0.02 where float32 gave 0.21, of nearly the same weights.

    Args:
        start: Held-out figures of that state, of a loss with a reference.
        kept: Of the state that is kept.
    """
    rounding = abs(start.get("margin", 0.0))
    if rounding < _NOTICED or kept["margin"] >= _CLEAR * rounding:
        return ""
    return (
        f"the margin at the start is 0 by definition and was measured as {start['margin']:+.3f}: that is rounding, and what was learned may be hidden by it "
        f"(margin kept: {kept['margin']:+.3f}); 'dtype: float32' measures it"
    )
