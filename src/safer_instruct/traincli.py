"""`safer-instruct train`: sft and dpo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from safer_instruct.settings.preference import PreferenceConfig

app = typer.Typer(no_args_is_help=True, help="Train a model on preference pairs: sft on the chosen responses, dpo on both.")
ConfigArgument = Annotated[Path, typer.Argument(help="A training config, such as examples/train/dpo.yaml.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Make three steps and tell what all of them will take; write nothing.")]
Launch = Annotated[Optional[int], typer.Option("--launch", min=1, metavar="N", help="Train on N GPUs of this machine (accelerate).")]
Sharding = Annotated[str, typer.Option("--sharding", help="With --launch: fsdp spreads the weights over the GPUs, none copies them to each.")]
Out = Annotated[Optional[Path], typer.Option("--out", help="Where the result goes, instead of the config's 'out'; relative to where you are.")]


@app.command("sft")
def sft(config: ConfigArgument, dry_run: DryRun = False, launch: Launch = None, sharding: Sharding = "fsdp", out: Out = None) -> None:
    """Supervised tuning: learn to write the chosen response, P(chosen | prompt).

    A training that was stopped, by whatever, goes on from its last checkpoint when the command is given again.
    """
    from safer_instruct.settings.preference import load_sft_config

    _run("sft", config, load_sft_config, dry_run, launch, sharding, out)


@app.command("dpo")
def dpo(config: ConfigArgument, dry_run: DryRun = False, launch: Launch = None, sharding: Sharding = "fsdp", out: Out = None) -> None:
    """Preference optimisation: learn to prefer the chosen to the rejected response (DPO, IPO, hinge, robust, KTO, ORPO, SimPO).

    The reference is the state that training starts from, with 'start' the base with that adapter. A training that was stopped, by
    whatever, goes on from its last checkpoint when the command is given again.
    """
    from safer_instruct.settings.preference import load_dpo_config

    _run("dpo", config, load_dpo_config, dry_run, launch, sharding, out)


def _run(
    verb: str, config: Path, load: Callable[[Path], PreferenceConfig], dry_run: bool, launch: int | None, sharding: str, out: Path | None
) -> None:
    from rich.console import Console

    from safer_instruct import trainview
    from safer_instruct.training import run
    from safer_instruct.tuning import launch as several

    loaded = load(config)
    if launch:
        raise typer.Exit(several.launch(config, launch, sharding, ("train", verb, *(("--out", str(out)) if out else ()))))
    if out:
        loaded = loaded.model_copy(update={"out": str(out.resolve())})
    console = Console(quiet=not several.is_first())
    if dry_run:
        trainview.show_dry_run(console, loaded, *run.dry_run(loaded, config.parent))
        return
    with several.joined(), trainview.watch_training(console) as (report, note):
        result = run.train_preferences(loaded, config.parent, report, note)
    trainview.show_trained(console, result)
