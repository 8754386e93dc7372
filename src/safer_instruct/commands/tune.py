"""The inducer: `tune`, `evaluate-inducer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from safer_instruct.commands.common import FROM_CHECKPOINT, exclusive, only_with, stoppable
from safer_instruct.remote.arguments import path as local_path


def tune(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(parser=local_path, help="A tuning config, such as examples/tune-embedded.yaml.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Make three steps and tell what all of them will take; write nothing.")] = False,
    launch: Annotated[Optional[int], typer.Option(min=1, metavar="N", help="Train on N GPUs of this machine, without one in N processes (accelerate).")] = None,
    sharding: Annotated[str, typer.Option(help="With --launch: fsdp spreads the weights over the GPUs, none copies them to each.")] = "fsdp",
    data_only: Annotated[bool, typer.Option("--data-only", help="Read, clean and split the data, show the funnel, write both sides, and stop.")] = False,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Then compare the adapter with its base model on the held-out pairs.")] = False,
    out: Annotated[
        Optional[Path], typer.Option(parser=local_path, help="For --data-only and --evaluate: by default runs/NAME-OF-CONFIG-data and -evaluation.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move what 'out' holds of a training into previous-N/ and tune anew.")] = False,
) -> None:
    """Tune an adapter: P(prompt | response) for an inducer, or P(response | prompt) for a small expert.

    A training that was stopped, by whatever, goes on from its last checkpoint when the command is given again; one that has finished is
    not made again, and one of another config not written over.
    """
    from rich.console import Console

    from safer_instruct.config import load_tune_config
    from safer_instruct.terminal import show_rehearsal, show_tuned, watch_tuning
    from safer_instruct.training.aside import set_aside
    from safer_instruct.tuning import launch as several
    from safer_instruct.tuning import tune as tuning
    from safer_instruct.tuning.data import prepare, write_prepared
    from safer_instruct.views.tune import show_prepared, show_written

    exclusive(context, "dry_run", "fresh")
    exclusive(context, "data_only", "fresh")
    exclusive(context, "dry_run", "data_only", "launch")
    only_with(context, ("launch",), "sharding")
    if out is not None and not (data_only or evaluate):
        raise typer.BadParameter("--out is for --data-only and --evaluate; where the adapter goes stands in the config's 'out'")
    loaded = load_tune_config(config)
    if fresh:
        set_aside(config.parent / loaded.out)
    if launch:
        if (code := several.launch(config, launch, sharding)) == 0 and evaluate:
            evaluate_inducer(config, out)
        raise typer.Exit(code)
    console = Console(quiet=not several.is_first())
    if data_only:
        prepared = prepare(loaded.data, loaded.clean, loaded.holdout, config.parent)
        show_prepared(console, prepared)
        show_written(console, write_prepared(prepared, out or Path("runs") / f"{config.stem}-data"))
        return
    if dry_run:
        show_rehearsal(console, tuning.dry_run(loaded, config.parent), loaded.epochs)
        return
    with stoppable(FROM_CHECKPOINT), several.joined(), watch_tuning(console) as report:
        result = tuning.tune(loaded, config.parent, report)
    show_tuned(console, result)
    if evaluate and several.is_first():
        evaluate_inducer(config, out)


def evaluate_inducer(
    config: Annotated[Path, typer.Argument(parser=local_path, help="A tuning config, or an evaluation config with further inducers.")],
    out: Annotated[
        Optional[Path], typer.Option(parser=local_path, help="Where the report and the ledger go; by default runs/NAME-OF-CONFIG-evaluation.")
    ] = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Evaluate on so many held-out pairs.")] = None,
) -> None:
    """Say how good an inducer is: on held-out pairs, beside its base model without and with examples.

    An evaluation that was stopped goes on where it was when the command is given again.
    """
    from rich.console import Console

    from safer_instruct.evaluation.inducer import evaluate_inducers, load_plan
    from safer_instruct.views.tune import show_evaluation, show_prepared, watch_evaluation

    console = Console()
    plan = load_plan(config, limit=limit)
    show_prepared(console, plan.prepared, samples=0)
    with stoppable(), watch_evaluation(console) as report:
        result = evaluate_inducers(plan, out or Path("runs") / f"{config.stem}-evaluation", report)
    show_evaluation(console, plan, result)
