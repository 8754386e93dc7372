"""`training.jsonl`: every step and every evaluation as a line, whole at any time, whatever was killed in between."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safer_instruct.errors import RunDirectoryError
from safer_instruct.extras import require
from safer_instruct.tuning.loss import Evaluation
from safer_instruct.tuning.progress import evaluation, step_figures
from safer_instruct.wholefile import whole


class Log:
    """Stands before `TrainerCallback` in the class that `log_to` makes.

    When training goes on from a checkpoint, the file is written anew from the checkpoint's own history first: steps that were made
    after it, and will be made again, do not stand there twice.
    """

    def __init__(self, file: Path) -> None:
        """Write to `file`."""
        self._file = file

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin, or go on."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        lines = [line for entry in state.log_history if (line := as_line(entry))]
        with whole(self._file) as part, part.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(line) + "\n" for line in lines)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:
        """A step was made, or an evaluation."""
        if line := as_line({**logs, "step": state.global_step, "epoch": state.epoch}):
            with self._file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")


def log_to(file: Path) -> Any:
    """A `Log` that transformers' trainer takes.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", extra="train", purpose="training")
    return type("TrainingLog", (Log, transformers.TrainerCallback), {})(file)


def as_line(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """A line for what the trainer logged; None for what is neither step nor evaluation."""
    at = {"step": int(entry["step"]), "epoch": round(float(entry.get("epoch") or 0.0), 4)}
    if "eval_loss" in entry:
        return {**at, "held_out": evaluation_line(evaluation(entry))}
    return {**at, "loss": float(entry["loss"]), **step_figures(entry)} if "loss" in entry else None


def evaluation_line(found: Evaluation) -> dict[str, Any]:
    """An evaluation as the log has it."""
    return {"loss": found.loss, **found.figures, "by_source": found.by_source}


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log; the last is left out where a kill cut it short.

    Raises:
        RunDirectoryError: Another line is damaged: training that goes on writes the log anew, so no kill leaves one behind.
    """
    lines: list[dict[str, Any]] = []
    written = file.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(written, 1):
        try:
            lines.append(json.loads(line))
        except ValueError as exc:
            if number < len(written):
                raise RunDirectoryError(f"{file}:{number} is damaged ({exc}); give the command again to write it anew, from the last checkpoint") from exc
    return lines


def series(lines: Sequence[Mapping[str, Any]], name: str, *, held_out: bool) -> list[tuple[int, float]]:
    """(step, value) of one figure, of training or of the held-out pairs."""
    rows = ((line["step"], line.get("held_out", {}) if held_out else line) for line in lines if ("held_out" in line) == held_out)
    return [(step, float(row[name])) for step, row in rows if name in row]
