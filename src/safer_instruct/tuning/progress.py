"""What training tells of itself while it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safer_instruct.extras import require
from safer_instruct.tuning.loss import Evaluation


@dataclass(frozen=True, slots=True)
class Progress:
    """One step's news, for the progress display.

    Attributes:
        step: Its number, from 1; 0 before training.
        steps: In all, if training does not stop early.
        loss: Of the step.
        tokens_per_s: Since the first step; 0 where it is not known.
        held_out: The evaluation, where the news is one.
        figures: What else the trainer logged of the step.
        evaluating: Whether the held-out evaluation comes next, which may take longer than many steps.
        resumed: Whether a training that was stopped goes on after this step.
    """

    step: int
    steps: int
    loss: float
    tokens_per_s: float
    held_out: Evaluation | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    evaluating: bool = False
    resumed: bool = False


class Watcher:
    """Stands before `TrainerCallback` in the class that `watcher` makes: reports steps, and decides when to evaluate and save."""

    def __init__(self, report: Callable[[Progress], None], before: Sequence[Evaluation], save_steps: int | None) -> None:
        """Report `before`, the evaluations made before training, then each step; save every `save_steps`, besides at evaluations."""
        self._report, self._before, self._save_steps = report, before, save_steps
        self._since: tuple[float, float] | None = None
        self._last = Progress(0, 0, math.nan, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Where training goes on is the state to beat."""
        if state.best_metric is None:
            state.best_metric = self._before[-1].loss
        if state.global_step:
            self._report(Progress(state.global_step, state.max_steps, math.nan, 0.0, resumed=True))
            return
        for evaluation in self._before:
            self._report(Progress(0, state.max_steps, math.nan, 0.0, evaluation))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate after the last step, whatever its number."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        if self._save_steps and state.global_step % self._save_steps == 0:
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:
        """A step was made."""
        if "loss" not in logs:
            return
        now, tokens = time.monotonic(), logs.get("num_tokens", 0)
        self._since = self._since or (now, tokens)  # the first step warms up
        seconds = now - self._since[0]
        speed = (tokens - self._since[1]) / seconds if seconds else 0.0
        self._last = Progress(state.global_step, state.max_steps, logs["loss"], speed, figures=step_figures(logs), evaluating=bool(control.should_evaluate))
        self._report(self._last)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **_: Any) -> None:
        """The held-out loss was taken."""
        last = self._last
        self._report(Progress(state.global_step, state.max_steps, last.loss, last.tokens_per_s, evaluation({**metrics, "step": state.global_step})))


def watcher(report: Callable[[Progress], None], before: Sequence[Evaluation], save_steps: int | None) -> Any:
    """A `Watcher` that transformers' trainer takes.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", extra="train", purpose="tuning")
    return type("TrainingWatcher", (Watcher, transformers.TrainerCallback), {})(report, before, save_steps)


_PREFIX, _FIGURE = "eval_loss_", "eval_figure_"
_STEP = {
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "logps/chosen": "chosen_logp",
    "logps/rejected": "rejected_logp",
    "kl": "kl",
}


def step_figures(logs: Mapping[str, float]) -> dict[str, float]:
    """What TRL logged of a step besides its loss, by shorter names."""
    return {short: float(logs[name]) for name, short in _STEP.items() if name in logs}


def as_metrics(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation as the trainer logs it; `evaluation` reads it back."""
    by_source = {f"{_PREFIX}{source}": loss for source, loss in evaluation.by_source.items()}
    return {"eval_loss": evaluation.loss, **by_source, **{f"{_FIGURE}{name}": value for name, value in evaluation.figures.items()}}


def evaluation(logged: Mapping[str, float]) -> Evaluation:
    """An evaluation from what the trainer logged of it."""
    by_source = {name.removeprefix(_PREFIX): loss for name, loss in logged.items() if name.startswith(_PREFIX)}
    figures = {name.removeprefix(_FIGURE): value for name, value in logged.items() if name.startswith(_FIGURE)}
    return Evaluation(int(logged["step"]), logged["eval_loss"], by_source, figures)
