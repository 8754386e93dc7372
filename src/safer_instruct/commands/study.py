"""`safer-instruct study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from safer_instruct.commands.common import stoppable
from safer_instruct.remote.arguments import path as local_path


def study(
    config: Annotated[Path, typer.Argument(parser=local_path, help="A study config, such as examples/study/study.yaml.")],
    out: Annotated[
        Optional[Path], typer.Option(parser=local_path, help="The study's directory; by default runs/NAME-OF-CONFIG, with -quick behind it for --quick.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few pairs, steps and prompts: shows that the parts work together, nothing of the data.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the steps, which are done, and how long the others will take as far as known.")] = False,
) -> None:
    """Tell what preference data is worth: train models on it, on controls and on nothing, and compare them on held-out prompts.

    Writes tables (Markdown, LaTeX, CSV), pictures, and study.md, which says what is significant. A study that was stopped, by whatever,
    goes on where it was when the command is given again.
    """
    from rich.console import Console

    from safer_instruct.study.run import rehearse
    from safer_instruct.study.run import study as run_study
    from safer_instruct.study.settings import load_study
    from safer_instruct.views import study as view

    console, loaded = Console(), load_study(config, quick=quick)
    whole, short = Path("runs") / config.stem, Path("runs") / f"{config.stem}-quick"
    folder = out or (short if quick else whole)
    view.show_unused(console, loaded)
    if dry_run:
        view.show_planned(console, rehearse(loaded, folder, None if quick else short))
        return
    command = f"safer-instruct study {config}{' --quick' if quick else ''}"
    with stoppable("finished steps and model calls are saved: give the same command again to go on"), view.watch_study(console) as report:
        result = run_study(loaded, folder, report=report, command=command)
    view.show_study(console, loaded, result)
