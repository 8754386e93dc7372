"""Runs: `init`, `run`, `status`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from safer_instruct.commands.common import exclusive, only_with, stoppable
from safer_instruct.remote.arguments import is_elsewhere, only_here, out_directory, pattern, run_directory
from safer_instruct.remote.arguments import path as local_path

if TYPE_CHECKING:
    from rich.console import Console

    from safer_instruct.config import RunConfig
    from safer_instruct.pipeline import Sample
    from safer_instruct.rundir import Mode


class Runner(StrEnum):
    """Where a run runs."""

    local = "local"
    ray = "ray"


def init(
    context: typer.Context,
    domain: Annotated[str, typer.Argument(help="A shipped domain, or a name for a new one.")] = "civility",
    folder: Annotated[Path, typer.Option("--dir", parser=local_path, help="Where to write.")] = Path(),
    source: Annotated[Optional[str], typer.Option(metavar="PATH", parser=pattern, help="Your texts: a file, a folder or a glob.")] = None,
    text: Annotated[Optional[str], typer.Option(metavar="COLUMN", help="With --source: the column with the text; by default 'text'.")] = None,
    id_: Annotated[Optional[str], typer.Option("--id", metavar="COLUMN", help="With --source: the column with your own id.")] = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="The embedded model in every role: to see it go, without any other model.")] = False,
) -> None:
    """Write a commented config, and for a new domain a commented domain file beside it."""
    from safer_instruct.domain import load_domain, shipped_domains
    from safer_instruct.nearest import did_you_mean
    from safer_instruct.placeholders import unfilled
    from safer_instruct.starter import StarterSource, write_starter

    only_with(context, ("source",), "text", "id_")
    notes: list[str] = []
    for path in write_starter(domain, folder, StarterSource(source, text, id_) if source else None, embedded=embedded, told=notes.append):
        typer.echo(f"wrote {path}")
    for note in notes:
        typer.echo(note)
    if domain not in shipped_domains() and (hint := did_you_mean(domain, shipped_domains(), cutoff=0.8)):
        typer.echo(f"'{domain}' is a new domain; {hint}")
    own = folder / f"{domain}-domain.yaml"
    open_ = domain not in shipped_domains() and unfilled(load_domain(own.name, folder))
    named = "" if embedded or domain == "civility" else ", after you have named your models in it"
    steps = [
        *(() if source else ("put your texts where 'source.path' points",)),
        *((f"fill in {own}", f"safer-instruct domain check {own}") if open_ else ()),
        f"safer-instruct run {folder / domain}.yaml{named}",
    ]
    typer.echo(f"next: {', then: '.join(steps)}")


def run(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(parser=local_path, help="A YAML config; 'safer-instruct init' writes one.")],
    out: Annotated[Optional[Path], typer.Option(parser=out_directory, help="The run directory, or s3://BUCKET/RUN; by default runs/NAME-OF-CONFIG.")] = None,
    continue_: Annotated[bool, typer.Option("--continue", help="Go on in a directory that was begun with another config.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move what a run has written there into previous-N/ (not calibration.yaml); start anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run on a sample of rows and tell what all of them will take.")] = False,
    rows: Annotated[int, typer.Option("--sample", min=1, help="With --dry-run: how many rows; its calls are real, and are not paid for again.")] = 30,
    work: Annotated[Optional[Path], typer.Option(parser=local_path, help="With --out s3://...: the local folder to work in.")] = None,
    runner: Annotated[Runner, typer.Option(help="Where it runs: in this process, or on a Ray cluster.")] = Runner.local,
    address: Annotated[Optional[str], typer.Option(help="With --runner ray: of a running cluster, 'auto' for the one here; by default one is started.")] = None,
    workers: Annotated[Optional[str], typer.Option(help="With --runner ray: actors for each part of the work, N or N-M; by default one for each CPU.")] = None,
    gpus: Annotated[float, typer.Option(min=0, help="With --runner ray: GPUs of each actor that serves weights.")] = 0,
) -> None:
    """Turn a pile of texts into preference pairs.

    A run that was stopped, by whatever, goes on where it was when the command is given again; finished model calls are
    read from the run directory's ledger and never made twice.
    """
    from rich.console import Console

    from safer_instruct import pipeline
    from safer_instruct.config import load_config
    from safer_instruct.ledger import read_totals
    from safer_instruct.rundir import LEDGER
    from safer_instruct.runners.ray import cluster_of, run_on_ray
    from safer_instruct.terminal import in_ledger, safe, show_summary, watch_run

    exclusive(context, "dry_run", "fresh")
    exclusive(context, "continue_", "fresh")
    only_with(context, ("dry_run",), "rows")
    console = Console()
    cluster = cluster_of(runner.value, address, workers, gpus, dry_run=dry_run)
    loaded = load_config(config)
    path, mode = out or Path("runs") / config.stem, _mode(continue_, fresh)
    if dry_run:
        with stoppable(), watch_run(console) as watch:
            taken = pipeline.sample(loaded, path, rows, mode=mode, watch=watch, work=work)
        _show_dry_run(console, loaded, taken)
        if not isinstance(path, str):
            console.print(in_ledger(read_totals(path / LEDGER), path), highlight=False, soft_wrap=True)
        return
    carry_out = partial(run_on_ray, cluster=cluster) if cluster else pipeline.run
    with stoppable(), watch_run(console) as watch:
        result = carry_out(loaded, path, mode=mode, watch=watch, work=work)
    show_summary(console, result.path, result.summary)
    if result.removed:
        console.print(f"removed: {', '.join(result.removed)} (of the run before); make them again if you need them", highlight=False, soft_wrap=True)
    if result.stale:
        console.print(safe(f"still of other pairs than these: {', '.join(result.stale)}; export again what you need"), highlight=False, soft_wrap=True)


def _show_dry_run(console: Console, config: RunConfig, taken: Sample) -> None:
    from safer_instruct.estimate import estimate, note_on_sample, note_on_target, show_estimate
    from safer_instruct.terminal import safe

    found = estimate(taken.rows, taken.total_rows, taken.stages, slots=taken.slots, paced=taken.paced, in_process_s=taken.in_process_s)
    show_estimate(console, found, max_cost=config.budget.max_cost, max_tokens=config.budget.max_tokens)
    console.print(safe(note_on_sample(len(taken.rows), taken.pairs, taken.dropped)), highlight=False, soft_wrap=True)
    if bad := taken.set_aside:
        told = f"{len(bad)} of the {len(taken.rows)} sampled rows were set aside; the first: {bad[0].file}:{bad[0].line}: {bad[0].reason}"
        console.print(safe(told), soft_wrap=True)
    if config.target is not None:
        console.print(note_on_target(found, config.target), highlight=False)


def _mode(continue_: bool, fresh: bool) -> Mode:
    return "fresh" if fresh else "continue" if continue_ else "auto"


def status(
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(results=False), help="A run directory.")],
    follow: Annotated[bool, typer.Option("--follow", help="Show a run that is going on, until it ends.")] = False,
) -> None:
    """Show the funnel and some pairs of a finished run, or how far an unfinished one is, and what waits in batches at a provider."""
    from rich.console import Console

    from safer_instruct import rundir
    from safer_instruct.holding import holder
    from safer_instruct.ledger import read_totals
    from safer_instruct.models.batch.jobs import read_under_way
    from safer_instruct.progress import read_progress
    from safer_instruct.terminal import show_batches, show_summary, show_totals

    console = Console()
    if follow:
        only_here(path, "--follow")
        from safer_instruct.views.follow import follow_run

        follow_run(console, path)
    if (path / rundir.SUMMARY).is_file():
        show_summary(console, path, rundir.read_summary(path))
        show_batches(console, read_under_way(path / rundir.BATCHES))
    elif (path / rundir.LEDGER).is_file():
        said, held_by = read_progress(path), holder(path)
        if is_elsewhere(path) and said and said["phase"] == "running":
            held_by = str(said["pid"])
        show_totals(console, path, read_totals(path / rundir.LEDGER), said, held_by, read_under_way(path / rundir.BATCHES))
    else:
        rundir.read_summary(path)
