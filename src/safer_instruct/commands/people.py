"""What people say of pairs: `review`, `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from safer_instruct.commands.common import exclusive, only_with
from safer_instruct.oneline import many
from safer_instruct.remote.arguments import in_path, looked_at_path, run_directory, shown
from safer_instruct.remote.arguments import path as local_path


def review(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=local_path, help="A run directory.")],
    annotator: Annotated[Optional[list[str]], typer.Option(metavar="NAME", help="Who reads; may be given several times.")] = None,
    port: Annotated[Optional[int], typer.Option(min=1024, max=65535, help="By default 8737, or any other where that is taken.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    blind: Annotated[bool, typer.Option("--blind", help="Hide which response is the chosen one, and shuffle the sides.")] = False,
    overlap: Annotated[float, typer.Option(min=0, max=1, help="Share of examples that two annotators read.")] = 0.1,
    domain: Annotated[Optional[str], typer.Option(help="A domain whose questions are asked; by default the run's.")] = None,
    labels: Annotated[Optional[Path], typer.Option(metavar="FILE.csv", parser=local_path, help="Write what was decided, for 'calibrate', instead.")] = None,
) -> None:
    """Read pairs in the browser: accept, reject, correct. Everything stays on this machine, in DIR/review.sqlite."""
    from rich.console import Console

    from safer_instruct.views import review as view

    for asking in ("annotator", "port", "no_browser", "blind", "overlap", "domain"):
        exclusive(context, asking, "labels")
    if labels is not None:
        view.write_labels(path, labels)
        typer.echo(f"next: safer-instruct calibrate {path} --labels {labels}")
        return
    view.serve(Console(), path, annotator, port=port, browser=not no_browser, blind=blind, overlap=overlap, domain=domain)


def calibrate(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")],
    labels: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE.csv", parser=in_path, help="Labels: id, label (good or bad) and, if wanted, score. With --sheet: those that go into it."),
    ] = None,
    reviewed: Annotated[bool, typer.Option("--reviewed", help="Take what was decided in 'review' for labels.")] = False,
    sheet: Annotated[Optional[Path], typer.Option(metavar="FILE.csv", parser=looked_at_path, help="Write a sheet to label instead.")] = None,
    count: Annotated[int, typer.Option("--n", min=1, help="With --sheet: how many rows.")] = 200,
    precision: Annotated[float, typer.Option(min=0.001, max=1, help="Share of good examples that a threshold is to keep to.")] = 0.9,
    max_bad: Annotated[Optional[float], typer.Option(min=0.001, max=0.999, help="Instead: share of bad ones that is not to be passed.")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="With --max-bad: of the guarantee.")] = 0.95,
    method: Annotated[str, typer.Option(help="logistic, isotonic, or auto: isotonic from 1,000 labels on.")] = "auto",
    score: Annotated[Optional[list[str]], typer.Option(help="A score that is to get a threshold; by default the best that tells good from bad.")] = None,
    config: Annotated[Optional[Path], typer.Option(parser=local_path, help="A config that is to use the thresholds: its line 'calibration:' is set.")] = None,
) -> None:
    """Fit a run's scores to labels of people, and choose thresholds for a wanted precision.

    Ends with exit code 1 where no threshold was chosen, and so none was written.
    """
    from rich.console import Console

    from safer_instruct.calibration import show
    from safer_instruct.calibration.calibrate import CALIBRATION, Aim, check_config, point_config_at, read_method, write_calibration
    from safer_instruct.calibration.calibrate import calibrate as fit_scores
    from safer_instruct.calibration.labels import read_examples, read_labels, write_sheet
    from safer_instruct.rundir import REVIEW_LABELS
    from safer_instruct.views import review as view
    from safer_instruct.wholefile import brought_back

    for source in ("labels", "sheet"):
        exclusive(context, source, "reviewed")
    exclusive(context, "precision", "max_bad")
    for fitting in ("precision", "max_bad", "confidence", "method", "score", "config"):
        exclusive(context, "sheet", fitting)
    only_with(context, ("sheet",), "count")
    only_with(context, ("max_bad",), "confidence")
    if labels is None and sheet is None and not reviewed:
        raise typer.BadParameter("give --labels FILE, --reviewed, or --sheet FILE to write one to label")
    if config is not None:
        check_config(config)
    with brought_back(path / REVIEW_LABELS) as labels_are_used:  # those that the calibration rests on are not lost to one that comes to nothing
        if reviewed:
            labels = path / REVIEW_LABELS
            view.write_labels(path, labels)
        if sheet is not None:
            rows, filled_in = write_sheet(read_examples(path), sheet, count, labels=read_labels(labels) if labels else ())
            carried = f", {filled_in} of them with the label that {labels} has" if labels else ""
            typer.echo(f"{many(rows, 'row')} to label{carried}: {shown(sheet)} (write good or bad, 1 or 0, into 'label')")
        elif labels is not None:
            aim = Aim(precision, max_bad, confidence)
            found = fit_scores(path, labels, aim, method=read_method(method), names=score or ())
            show.show_calibrations(Console(), found, aim)
            if found.chosen:
                labels_are_used()
                if before := write_calibration(found, aim, path / CALIBRATION):
                    typer.echo(f"kept: {shown(before)}, which this run was made with")
                    for line in show.no_longer_bounded(before, found):
                        typer.echo(line)
                typer.echo(f"thresholds: {shown(path / CALIBRATION)}; a config takes them over with its line 'calibration:'")
            elif kept := [str(shown(file)) for file in (path / CALIBRATION, config) if file and file.is_file()]:
                typer.echo(f"nothing was written; as before: {', '.join(kept)}")
            if found.chosen and config is not None:
                point_config_at(config, path / CALIBRATION)
                typer.echo(f"{config} uses them now: run it again with --continue; finished calls are not made twice")
            if not found.chosen:
                raise typer.Exit(1)
