"""`safer-instruct study`: the whole grid in order, and what it leaves to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.holding import hold
from safer_instruct.study.figures import Figures
from safer_instruct.study.plan import plan
from safer_instruct.study.report import REPORT, write_report
from safer_instruct.study.settings import StudyConfig
from safer_instruct.study.steps import News, Planned, carry_out, read_marks
from safer_instruct.study.steps import rehearse as rehearse_steps


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
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder):
        results = carry_out(plan(config, folder), folder, report)
        figures = write_report(config, folder, results, command)
    return StudyResult(folder / REPORT, tuple(figures))


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
    earlier = read_marks(quick).values() if quick and quick.is_dir() else ()
    return rehearse_steps(plan(config, folder), folder, earlier)
