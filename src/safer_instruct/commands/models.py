"""Models at hand: `models pull|list|export`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from safer_instruct.remote.arguments import path as local_path

app = typer.Typer(no_args_is_help=True, help="Bring models into the cache, and list what is there.")


@app.command("pull")
def pull(
    model: Annotated[str, typer.Argument(help="A catalogue name, hf:ORG/REPO/FILE.gguf, or the path of a GGUF file.")] = "smollm2-135m-instruct",
    name: Annotated[Optional[str], typer.Option(help="Keep it under this name.")] = None,
) -> None:
    """Bring a model into the cache and check its digest."""
    from safer_instruct.models import store

    record = store.pull(model, name=name)
    typer.echo(
        f"{record.name}: {store.gguf_path(record.name)} ({record.size / 1e6:.0f} MB, sha256 {record.sha256[:16]}..., licence {record.license or 'not stated'})"
    )


@app.command("list")
def list_() -> None:
    """List the models of the cache and of the catalogue."""
    from safer_instruct.models import store

    have = {m.name: m for m in store.pulled()}
    for record in have.values():
        typer.echo(f"{record.name}  {record.size / 1e6:.0f} MB  {record.source}  in {store.cache_dir()}")
    for name, entry in store.CATALOG.items():
        if name not in have:
            typer.echo(f"{name}  {entry.model.size / 1e6:.0f} MB  {entry.model.source}  not pulled: safer-instruct models pull {name}")


@app.command("export")
def export(
    adapter: Annotated[Path, typer.Argument(parser=local_path, help="The folder that 'tune' wrote, or any PEFT LoRA or transformers folder.")],
    to: Annotated[str, typer.Option(help="merged (safetensors), embedded (this package's engine), gguf, or gguf-lora (beside its base).")],
    out: Annotated[Optional[Path], typer.Option(parser=local_path, help="A folder, for GGUF a file; by default ADAPTER-TO.")] = None,
    base: Annotated[Optional[str], typer.Option(help="The base model, where the adapter does not say or it has moved.")] = None,
    quantization: Annotated[Optional[str], typer.Option(help="gguf: f32, f16, bf16 or q8_0; embedded: int8 or float32.")] = None,
) -> None:
    """Write a tuned adapter in the form in which it is served."""
    from safer_instruct.tuning.export import checked_form, export_model

    form = checked_form(to)
    ending = ".gguf" if form.startswith("gguf") else ""
    named = adapter if adapter.name else adapter.resolve()
    written = export_model(adapter, form, out or named.with_name(f"{named.name}-{form}{ending}"), base=base, quantization=quantization)
    typer.echo(f"wrote {written}")


def doctor() -> None:
    """Say what is installed, what each extra would add, and whether the embedded model answers."""
    from safer_instruct.doctor import diagnose

    healthy = True
    for finding in diagnose():
        typer.echo(f"{'ok  ' if finding.ok else 'no  '} {finding.text}")
        healthy = healthy and (finding.ok or finding.optional)
    if not healthy:
        raise typer.Exit(1)
