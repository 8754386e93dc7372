"""`safer-instruct train`: sft and dpo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from safer_instruct.commands.common import FROM_CHECKPOINT, exclusive, given, only_with, stoppable
from safer_instruct.remote.arguments import path as local_path

if TYPE_CHECKING:
    from safer_instruct.settings.preference import PreferenceConfig


class _Verbs(TyperGroup):
    """Says what verbs there are where something else stands in their place, such as a config."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the first of `args` names."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            config = args[0] if args[0].endswith((".yaml", ".yml")) else "CONFIG"
            raise typer.BadParameter(f"'{args[0]}' is none of {', '.join(self.commands)}; write: safer-instruct train {'|'.join(self.commands)} {config}")
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Verbs, no_args_is_help=True, help="Train a model on preference pairs: sft on the chosen responses, dpo on both.")
SftConfigArgument = Annotated[Path, typer.Argument(parser=local_path, help="A training config, such as examples/train/sft.yaml.")]
DpoConfigArgument = Annotated[Path, typer.Argument(parser=local_path, help="A training config, such as examples/train/dpo.yaml.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Make three steps and tell what all of them will take; write nothing.")]
Launch = Annotated[
    Optional[int], typer.Option("--launch", min=1, metavar="N", help="Train on N GPUs of this machine, without one in N processes (accelerate).")
]
Sharding = Annotated[str, typer.Option("--sharding", help="With --launch: fsdp spreads the weights over the GPUs, none copies them to each.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Move what 'out' holds of a training into previous-N/ and train anew.")]
Out = Annotated[
    Optional[Path], typer.Option("--out", parser=local_path, help="Where the result goes, instead of the config's 'out'; relative to where you are.")
]


@app.command("sft")
def sft(
    context: typer.Context,
    config: SftConfigArgument,
    dry_run: DryRun = False,
    launch: Launch = None,
    sharding: Sharding = "fsdp",
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Supervised tuning: learn to write the chosen response, P(chosen | prompt).

    A training that was stopped, by whatever, goes on from its last checkpoint when the command is given again; one that has finished is
    not made again, and one of another config not written over.
    """
    from safer_instruct.settings.preference import load_sft_config

    _run(context, "sft", config, load_sft_config, dry_run, launch, sharding, out, fresh)


@app.command("dpo")
def dpo(
    context: typer.Context,
    config: DpoConfigArgument,
    dry_run: DryRun = False,
    launch: Launch = None,
    sharding: Sharding = "fsdp",
    out: Out = None,
    fresh: Fresh = False,
) -> None:
    """Preference optimisation: learn to prefer the chosen to the rejected response (DPO, IPO, hinge, robust, KTO, ORPO, SimPO).

    The reference is the state that training starts from, with 'start' the base with that adapter. A training that was stopped, by
    whatever, goes on from its last checkpoint when the command is given again; one that has finished is not made again, and one of another
    config not written over.
    """
    from safer_instruct.settings.preference import load_dpo_config

    _run(context, "dpo", config, load_dpo_config, dry_run, launch, sharding, out, fresh)


def _run(
    context: typer.Context,
    verb: str,
    config: Path,
    load: Callable[[Path], PreferenceConfig],
    dry_run: bool,
    launch: int | None,
    sharding: str,
    out: Path | None,
    fresh: bool,
) -> None:
    from rich.console import Console

    from safer_instruct.training import run
    from safer_instruct.training.aside import set_aside
    from safer_instruct.tuning import launch as several
    from safer_instruct.views import train as view

    exclusive(context, "dry_run", "fresh")
    exclusive(context, "dry_run", "launch")
    only_with(context, ("launch",), "sharding")
    loaded = load(config)
    if fresh:
        set_aside(out or config.parent / loaded.out)
    if launch:
        raise typer.Exit(several.launch(config, launch, sharding, ("train", verb, *(("--out", str(out)) if out else ()))))
    if out:
        loaded = loaded.model_copy(update={"out": str(out.resolve())})
    console = Console(quiet=not several.is_first())
    view.show_parts(console, loaded.data, config.parent)
    if dry_run:
        view.show_dry_run(console, loaded, *run.dry_run(loaded, config.parent))
        return
    with stoppable(FROM_CHECKPOINT), several.joined(), view.watch_training(console) as (report, note):
        result = run.train_preferences(loaded, config.parent, report, note)
    view.show_trained(console, result, loaded)


def value(
    context: typer.Context,
    pairs: Annotated[str, typer.Argument(metavar="PAIRS", help="A run directory, or pairs as JSONL, CSV or Parquet.")],
    prompt: Annotated[str, typer.Option(metavar="COLUMN", help="The prompt; none where both sides are whole conversations.")] = "prompt",
    chosen: Annotated[str, typer.Option(metavar="COLUMN", help="The preferred response.")] = "chosen",
    rejected: Annotated[str, typer.Option(metavar="COLUMN", help="The other response.")] = "rejected",
    model: Annotated[str, typer.Option(help="The reference: the model that you mean to train, or any other that scores.")] = "embedded:smollm2-135m-instruct",
    adapter: Annotated[Optional[str], typer.Option(help="With an embedded model: an adapter to merge into it.")] = None,
    base_url: Annotated[Optional[str], typer.Option(help="With a remote model: its endpoint, up to and with /v1.")] = None,
    layout: Annotated[str, typer.Option(help="chat puts the prompt into the model's chat template, raw gives it as it stands.")] = "chat",
    system: Annotated[Optional[str], typer.Option(help="With chat: a system message before each prompt.")] = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Look at so many pairs, drawn by their hash.")] = None,
    max_cost: Annotated[Optional[float], typer.Option(min=0, help="US dollars that calls to a remote model may take; two calls a pair.")] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(parser=local_path, help="Where value.json and the ledger go; by default runs/NAME-value, for a train.jsonl runs/FOLDER-train-value."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what preference pairs are worth before anything is trained: margin under a reference model, lengths, variety.

    Finished model calls are kept: given again, the command makes none twice.
    """
    from rich.console import Console

    from safer_instruct import yamlfile
    from safer_instruct.config import ModelConfig
    from safer_instruct.settings.preference import PreferenceSource
    from safer_instruct.training.value import VALUE, default_folder, value_pairs
    from safer_instruct.views import train as view

    if layout not in ("chat", "raw"):
        raise typer.BadParameter("--layout is chat or raw")
    if system is not None and layout == "raw":
        raise typer.BadParameter("--system is for --layout chat")
    folder = out or default_folder(pairs)
    console = Console(quiet=as_json)
    which = yamlfile.parse_part({"model": model, "adapter": adapter, "base_url": base_url}, ModelConfig, at=(), file=None, name="--model with --base-url")
    if which.in_process and given(context, "max_cost"):
        raise typer.BadParameter(f"--max-cost: model '{model}' works in this process")
    columns = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    source = yamlfile.parse_part({"path": pairs, **columns}, PreferenceSource, at=(), file=None, name="--prompt, --chosen and --rejected")
    view.show_parts(console, (source,), Path())
    with view.watch_scoring(console) as tick:
        found = value_pairs(source, Path(), which, folder, limit=limit, layout=layout, system=system, max_cost=max_cost, tick=tick)
    if as_json:
        typer.echo((folder / VALUE).read_text(encoding="utf-8"), nl=False)
    else:
        view.show_value(console, found, folder / VALUE)
