"""Studies shown on a terminal: steps and time left, then the tables and what is significant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from safer_instruct.models.calls import span
from safer_instruct.terminal import safe

if TYPE_CHECKING:
    from safer_instruct.study.run import StudyResult
    from safer_instruct.study.settings import StudyConfig
    from safer_instruct.study.steps import News, Planned


@contextmanager
def watch_study(console: Console) -> Iterator[Callable[[News], None]]:
    """Yields `report` for `study`: a line for each step, and a bar for the one that is at work."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[news]}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("study", total=None, news="")

        def report(news: News) -> None:
            title = f"{news.number}/{news.total} {news.name}"
            if news.state == "at work":
                bar.update(task, total=news.of or None, completed=news.done, news=f"{news.done}/{news.of} {news.doing}" if news.of else news.doing)
                return
            if news.state == "begun":
                bar.reset(task, total=None)
                bar.update(task, description=title, news="")
            told = {"begun": "", "kept": "was done before", "done": f"{news.seconds:.0f} s"}[news.state]
            left = f"about {_time(news.left)} left" if news.left else ""
            bar.console.print(safe(": ".join(part for part in (title, "; ".join(filter(None, (told, left)))) if part)), highlight=False, soft_wrap=True)

        yield report


def show_unused(console: Console, config: StudyConfig) -> None:
    """The sets of the config that nothing uses."""
    from safer_instruct.study.division import unused_sets

    for sentence in unused_sets(config):
        console.print(safe(f"mind: {sentence}"), soft_wrap=True, highlight=False, style="yellow")


def show_planned(console: Console, steps: Sequence[Planned]) -> None:
    """The steps of a dry run, and what is left of them."""
    table = Table()
    for heading in ("step", "state", "expected"):
        table.add_column(heading, justify="right" if heading == "expected" else "left")
    for step in steps:
        table.add_row(safe(step.name), "done" if step.done else "to do", "" if step.done else _time(step.expected))
    console.print(table)
    left = [step.expected for step in steps if not step.done]
    known = sum(seconds for seconds in left if seconds is not None)
    unknown = sum(seconds is None for seconds in left)
    told = [
        *([f"about {_time(known)}"] if unknown < len(left) else []),
        *([f"for {unknown} nobody knows how long, as none like them was done yet (a --quick run tells)"] if unknown else []),
    ]
    console.print(f"{len(steps)} steps, {len(left)} to do: {', and '.join(told)}" if left else f"{len(steps)} steps, all done", highlight=False)


def show_study(console: Console, config: StudyConfig, result: StudyResult) -> None:
    """What is significant, and where the rest is."""
    from safer_instruct.study.report import QUICK, fewer, sentences

    for found in result.figures:
        console.print(safe(found.name), style="bold")
        for sentence in sentences(config, found):
            console.print(safe(f"  {sentence}"), soft_wrap=True, highlight=False)
        for warning in fewer(found.warnings):
            console.print(safe(f"  mind: {warning}"), soft_wrap=True, highlight=False, style="dim")
    if config.quick:
        console.print(QUICK, style="yellow")
    console.print(safe(f"report: {result.report}"), soft_wrap=True, highlight=False)


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else span(seconds)
