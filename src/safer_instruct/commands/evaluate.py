"""Systems compared: `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from safer_instruct.commands.common import exclusive, only_with, stoppable, with_ending
from safer_instruct.remote.arguments import path as local_path


def evaluate(
    context: typer.Context,
    config: Annotated[Optional[Path], typer.Argument(parser=local_path, help="An evaluation config, such as examples/evaluate/evaluate.yaml.")] = None,
    out: Annotated[
        Optional[Path], typer.Option(parser=local_path, help="Where report, answers and ledger go; by default runs/NAME-OF-CONFIG-evaluation.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Answer and judge a sample of prompts and tell what all of them will take.")] = False,
    rows: Annotated[int, typer.Option("--sample", min=1, help="With --dry-run: how many prompts; its calls are real, and are not paid for again.")] = 10,
    sheet: Annotated[
        Optional[Path], typer.Option(metavar="FILE.csv", parser=local_path, help="Write a blinded A/B sheet for people instead, and a page beside it.")
    ] = None,
    count: Annotated[Optional[int], typer.Option("--n", min=1, help="Questions on the sheet; by default all.")] = None,
    answers: Annotated[
        Optional[list[Path]], typer.Option(metavar="FILE.csv", parser=local_path, help="What a person answered on the sheet; once for each person.")
    ] = None,
    power: Annotated[bool, typer.Option("--power", help="Tell how many prompts a difference needs; no config is needed.")] = False,
    win_rate: Annotated[Optional[float], typer.Option(min=0, max=1, help="With --power: the win rate to find; by default some of them.")] = None,
    prompts: Annotated[Optional[int], typer.Option(min=1, help="With --power: tell what so many prompts show.")] = None,
    ties: Annotated[float, typer.Option(min=0, max=0.99, help="With --power: share of prompts without a winner.")] = 0.0,
    chance: Annotated[float, typer.Option(min=0.01, max=0.999, help="With --power: the probability of finding it.")] = 0.8,
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.5, help="With --power: level of the test.")] = 0.05,
) -> None:
    """Say which of several systems is more harmless, and more helpful, on the same prompts, and how surely.

    An evaluation that was stopped goes on where it was when the command is given again.
    """
    from rich.console import Console

    from safer_instruct.evaluation import run
    from safer_instruct.evaluation.settings import load_evaluation
    from safer_instruct.views import evaluate as view
    from safer_instruct.views.tune import watch_evaluation

    console = Console()
    exclusive(context, "power", "dry_run", "sheet", "answers")
    only_with(context, ("dry_run",), "rows")
    only_with(context, ("sheet",), "count")
    only_with(context, ("power",), "win_rate", "prompts", "ties", "chance", "alpha")
    if sheet is not None:
        with_ending(sheet, ".csv")
    if power:
        if config is not None:
            raise typer.BadParameter("--power is reckoned without a CONFIG; leave it out")
        view.show_power(console, win_rate, prompts, alpha=alpha, power=chance, ties=ties)
        return
    if config is None:
        raise typer.BadParameter("give CONFIG, or --power")
    loaded, path = load_evaluation(config), out or Path("runs") / f"{config.stem}-evaluation"
    if dry_run:
        with stoppable(), watch_evaluation(console) as report:
            taken = run.rehearse(loaded, path, rows, report=report)
        view.show_rehearsal(console, taken, loaded.budget)
    elif sheet:
        with stoppable(), watch_evaluation(console) as report:
            written = run.write_people_sheet(loaded, path, sheet, count, report=report)
        view.show_sheet(console, *written)
    else:
        with stoppable(), watch_evaluation(console) as report:
            result = run.evaluate(loaded, path, answers=answers or (), report=report)
        view.show(console, result)
