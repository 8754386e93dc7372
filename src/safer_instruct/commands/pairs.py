"""The pairs of a run: `select`, `export`, `audit`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from safer_instruct.commands.common import exclusive, only_with, print_json, with_ending
from safer_instruct.oneline import many
from safer_instruct.remote.arguments import out_path, run_directory, run_or_file, shown

if TYPE_CHECKING:
    from safer_instruct.export import Exported


class Gate(StrEnum):
    """Who lets readers of a gated dataset in."""

    auto = "auto"
    manual = "manual"


class SemanticOf(StrEnum):
    """What duplicates in meaning are looked for in."""

    prompt = "prompt"
    pair = "pair"


def select(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")],
    target: Annotated[Optional[int], typer.Option("--n", min=1, help="How many pairs; by default all that are no duplicates.")] = None,
    near: Annotated[float, typer.Option(min=0, max=1, help="Jaccard similarity of word trigrams from which two pairs are duplicates; 0: off.")] = 0.7,
    semantic: Annotated[float, typer.Option(min=0, max=1, help="Cosine of two prompts from which they are duplicates; 0: off.")] = 0.0,
    contradictions: Annotated[float, typer.Option(min=0, max=1, help="Jaccard of two prompts that one pair refuses and one answers: one stays; 0: off.")] = 0.0,
    semantic_of: Annotated[SemanticOf, typer.Option(help="What --semantic compares.")] = SemanticOf.prompt,
    quality: Annotated[float, typer.Option("--quality-weight", min=0, max=1, help="0: the most varied; 1: the largest margins.")] = 0.2,
    quota: Annotated[Optional[list[str]], typer.Option(metavar="CATEGORY=SHARE", help="Shares by category; may be given several times.")] = None,
    embedder: Annotated[str, typer.Option(help="static, minilm, or sentence-transformers:NAME-OR-FOLDER.")] = "static",
    seed: Annotated[int, typer.Option(help="Of the samples that the search looks at.")] = 0,
) -> None:
    """Choose pairs of a finished run: without duplicates, good, and varied. Writes selected.jsonl beside them."""
    from safer_instruct.selectconfig import SelectConfig, read_quotas
    from safer_instruct.selected import describe, select_from_run

    only_with(context, ("semantic",), "semantic_of")
    only_with(context, ("target", "quota", "semantic"), "embedder")
    quotas = read_quotas(quota) if quota else None
    config = SelectConfig(
        target=target,
        near=near or None,
        semantic=semantic or None,
        contradictions=contradictions or None,
        semantic_of=semantic_of.value,
        quality_weight=quality,
        quotas=quotas,
        embedder=embedder,
        seed=seed,
    )
    typer.echo(shown(describe(path, select_from_run(path, config))))


def export(
    context: typer.Context,
    path: Annotated[Optional[Path], typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")] = None,
    format_: Annotated[
        Optional[str], typer.Option("--format", help="Needed: jsonl, messages, csv, parquet, kto, datasets, ...; 'list' names them all.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(parser=out_path, help="The file or folder; by default DIR/export.ENDING or DIR/export-FORMAT.")] = None,
    split: Annotated[Optional[list[str]], typer.Option(metavar="NAME=SHARE", help="A part to keep apart, by cluster: test=0.1.")] = None,
    seed: Annotated[int, typer.Option(help="With --split: another one divides otherwise.")] = 0,
    near: Annotated[float, typer.Option(min=0, max=1, help="With --split: how alike texts of one cluster are; 0 for equal ones.")] = 0.5,
    provenance: Annotated[bool, typer.Option("--provenance", help="Add columns that say where each pair comes from.")] = False,
    redact: Annotated[bool, typer.Option("--redact-rejected", help="Give digest and length of rejected responses instead of their text.")] = False,
    reviewed: Annotated[bool, typer.Option("--reviewed", help="Only pairs that people accepted in 'review', with their corrections.")] = False,
    selected: Annotated[bool, typer.Option("--selected", help="Only the pairs that 'select' chose.")] = False,
    gated: Annotated[Optional[Gate], typer.Option(help="Readers must agree to the terms; with 'manual' you let each of them in.")] = None,
    push: Annotated[Optional[str], typer.Option(metavar="ORG/NAME", help="Then upload it to the Hugging Face hub, as a private dataset.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: for everybody to see.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --push: do not ask again.")] = False,
) -> None:
    """Write the pairs in the format of those who read them: TRL, LLaMA-Factory, Axolotl, Argilla, the Hugging Face hub and others."""
    from safer_instruct.errors import ConfigError
    from safer_instruct.export import FORMATS, Options, export_pairs, parse_splits
    from safer_instruct.export.push import check_repository, push_folder
    from safer_instruct.notes import no_pair
    from safer_instruct.rundir import read_summary

    if format_ is None:
        raise ConfigError("give --format, such as jsonl or messages; '--format list' names them all")
    if format_ == "list":
        typer.echo("\n".join(f"{name:17} {form.about}" for name, form in FORMATS.items()))
        return
    if path is None:
        raise typer.BadParameter("DIR is missing: a finished run directory")
    only_with(context, ("split",), "near", "seed")
    only_with(context, ("push",), "public", "yes")
    if push and format_ != "datasets":
        raise typer.BadParameter("--push is for --format datasets")
    repository = check_repository(push) if push else ""
    gate = gated.value if gated else None
    options = Options(parse_splits(split or ()), seed, near, provenance, redact, gate, reviewed, selected)
    exported = export_pairs(path, format_, out, options)
    parts = ", ".join(f"{name} {count}" for name, count in exported.splits.items())
    typer.echo(f"{many(exported.pairs, 'pair')}{f' ({parts})' if split else ''}: {shown(exported.path)}")
    if not exported.pairs:
        typer.echo(shown(no_pair(path, read_summary(path))))
    if exported.corrected:
        typer.echo(f"{exported.corrected} of them with texts that a person corrected")
    if exported.missing:
        typer.echo(_missing(exported))
    if not repository:
        return
    who = "for everybody to see" if public else "private"
    if not yes and not typer.confirm(f"upload {exported.path} to {repository} ({who}{f', gated: {gate}' if gate else ''})?"):
        raise typer.Exit(1)
    typer.echo(push_folder(exported.path, repository, public=public, gated=gate))


def _missing(exported: Exported) -> str:
    """What became of the accepted ones that are not in an export, and what to do."""
    dropped = sum(exported.dropped.values())
    replaced = exported.missing - dropped - exported.gone
    said = []
    if replaced:
        said.append("1 has other texts now (read it anew)" if replaced == 1 else f"{replaced:,} have other texts now (read those anew)")
    if dropped:
        by = next(iter(exported.dropped)) if len(exported.dropped) == 1 else ", ".join(f"{name} ({count:,})" for name, count in exported.dropped.items())
        said.append(f"{dropped:,} {'is' if dropped == 1 else 'are'} dropped now, by {by}")
    if exported.gone:
        said.append(f"{exported.gone:,} {'is' if exported.gone == 1 else 'are'} in the run no more")
    was = "was accepted, and is" if exported.missing == 1 else "were accepted, and are"
    return f"{exported.missing:,} more {was} not among the run's pairs as they were read: {'; '.join(said)}"


def audit(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(metavar="PAIRS", parser=run_or_file, help="JSONL, CSV, Parquet, a folder of them or of save_to_disk, or a run directory.")
    ],
    prompt: Annotated[
        Optional[str], typer.Option(metavar="COLUMN", help="The prompt; '' for transcripts that begin alike. By default told by its name.")
    ] = None,
    chosen: Annotated[Optional[str], typer.Option(metavar="COLUMN", help="The preferred response.")] = None,
    rejected: Annotated[Optional[str], typer.Option(metavar="COLUMN", help="The other response.")] = None,
    benchmark: Annotated[Optional[list[str]], typer.Option(metavar="NAME=FILE", help="Prompts that the set must not hold; may be given several times.")] = None,
    show: Annotated[Optional[str], typer.Option(metavar="CHECK", help="Show the rows behind one line instead.")] = None,
    count: Annotated[int, typer.Option("--sample", min=1, help="With --show: how many.")] = 5,
    split: Annotated[Optional[str], typer.Option(help="Of a folder: by default all its files, and of save_to_disk 'train'.")] = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Read only so many rows.")] = None,
    out: Annotated[Optional[Path], typer.Option(metavar="FILE.md", parser=out_path, help="Also write it as Markdown.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 1 where a verdict is BAD.")] = False,
) -> None:
    """Tell what is wrong with a set of preference pairs, ours or anybody's, and what to do about it."""
    from rich.console import Console

    from safer_instruct import auditing
    from safer_instruct.audit import Columns

    only_with(context, ("show",), "count")
    exclusive(context, "show", "as_json")
    if out is not None:
        with_ending(out, ".md")
    wanted = auditing.Wanted(path, Columns(prompt, chosen, rejected), tuple(benchmark or ()), split, limit, show)
    pairs, found = auditing.audit(wanted, Console(stderr=True))
    if out is not None:
        auditing.write(out, pairs, found)
    if as_json:
        print_json(auditing.as_record(pairs, found))
    else:
        auditing.show(Console(), pairs, found, count if show else None)
    if strict and any(one.level == "bad" for one in found):
        raise typer.Exit(1)
