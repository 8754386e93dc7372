"""`safer-instruct study`: the whole grid in order, and what it leaves to read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.config import ModelConfig
from safer_instruct.errors import RunDirectoryError
from safer_instruct.evaluation.run import check_named
from safer_instruct.extras import require
from safer_instruct.holding import hold
from safer_instruct.models import open_model
from safer_instruct.running import run_to_end
from safer_instruct.study.division import divide, sets_of
from safer_instruct.study.figures import Figures
from safer_instruct.study.pairs import read_pairs
from safer_instruct.study.plan import plan
from safer_instruct.study.report import REPORT, write_report
from safer_instruct.study.settings import BASE, StudyConfig
from safer_instruct.study.steps import STEPS, News, Planned, Step, carry_out, read_marks
from safer_instruct.study.steps import rehearse as rehearse_steps
from safer_instruct.tuning.bases import open_base


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What a study came to.

    Attributes:
        report: The report, in Markdown.
        figures: One for each experiment, in the config's order.
    """

    report: Path
    figures: tuple[Figures, ...]


def study(config: StudyConfig, out: Path | str, *, report: Callable[[News], None] = lambda _: None, command: str = "safer-instruct study") -> StudyResult:
    """Carry a study out; one that was stopped goes on where it was when it is given again.

    Args:
        config: From `load_study`.
        out: Its directory.
        report: Is told what happens.
        command: How it was asked for, for the report.

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    folder = Path(out).absolute()
    _refuse_folder(folder)
    steps = plan(config, folder)
    if not all(step.done for step in rehearse_steps(steps, folder)):
        _look_ahead(config, steps)
    _make_folder(folder)
    with hold(folder):
        results = carry_out(steps, folder, report)
        figures = write_report(config, folder, results, command)
    return StudyResult(folder / REPORT, tuple(figures))


def _look_ahead(config: StudyConfig, steps: Sequence[Step]) -> None:
    """Miss now what a late step would miss, when the sets are made and paid for."""
    if any(step.kind in ("sft", "dpo") for step in steps):
        require("trl", extra="train", purpose="training on preferences")
        open_base(config.model, config.base)
    there = {name: read_pairs(config.base / str(s.path), s.category_column)[0] for name, s in config.sets.items() if s.kind == "path"}
    for name in config.experiments:
        if there.keys() >= set(sets_of(config, name)):
            with tempfile.TemporaryDirectory(prefix="safer-instruct-") as aside:
                divide(config, name, there, Path(aside))
        evaluation = config.evaluation(name, {BASE: {"model": config.answering()}}, prompts="-")
        check_named(evaluation)
        for judge in dict.fromkeys(judge.model for judge in evaluation.judges.values()):
            run_to_end(_opened_and_closed(judge, config.base))


def _refuse_folder(folder: Path) -> None:
    """A folder of something else is no place for a study."""
    if folder.exists() and not folder.is_dir():
        raise RunDirectoryError(f"{folder} is no folder; choose another --out")
    if folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir()) and not (folder / STEPS).is_dir():
        raise RunDirectoryError(f"{folder} holds something, and no study; choose another --out")


def _make_folder(folder: Path) -> None:
    _refuse_folder(folder)
    (folder / STEPS).mkdir(parents=True, exist_ok=True)  # first of all: by it a study is known


async def _opened_and_closed(which: ModelConfig, base: Path) -> None:
    await open_model(which, base).close()


def rehearse(config: StudyConfig, out: Path | str, quick: Path | None = None) -> list[Planned]:
    """The steps of a study: which are done, and what the others are expected to take, as finished steps tell; nothing is done.

    Args:
        config: From `load_study`.
        out: Its directory.
        quick: The directory of a quick run of it, whose times are taken as far as the study has none of its own.

    Raises:
        SaferInstructError: The config cannot be carried out.
    """
    folder = Path(out).absolute()
    _refuse_folder(folder)
    _look_ahead(config, plan(config, folder))
    earlier = read_marks(quick).values() if quick and quick.is_dir() else ()
    return rehearse_steps(plan(config, folder), folder, earlier)
