"""The command line: parse, call, print, exit code. Heavy modules are imported inside the commands."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from safer_instruct.domaincli import app as domain_app
from safer_instruct.errors import SaferInstructError
from safer_instruct.remote.arguments import addresses, in_path, only_here, out_directory, out_path, run_directory, run_or_file, shown
from safer_instruct.remote.arguments import path as local_path
from safer_instruct.studycli import study
from safer_instruct.traincli import app as train_app
from safer_instruct.traincli import value

if TYPE_CHECKING:
    from safer_instruct.rundir import Mode


class Gate(StrEnum):
    """Who lets readers of a gated dataset in."""

    auto = "auto"
    manual = "manual"


class Runner(StrEnum):
    """Where a run runs."""

    local = "local"
    ray = "ray"


class SemanticOf(StrEnum):
    """What duplicates in meaning are looked for in."""

    prompt = "prompt"
    pair = "pair"


app = typer.Typer(name="safer-instruct", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
models_app = typer.Typer(no_args_is_help=True, help="Bring models into the cache, and list what is there.")
app.add_typer(models_app, name="models")
app.add_typer(domain_app, name="domain")
app.add_typer(train_app, name="train")


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("safer-instruct"))
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Show the version and exit.")] = False,
) -> None:
    """Build preference data (prompt, chosen, rejected) from real text, without annotators.

    Start with: safer-instruct init civility, then: safer-instruct run civility.yaml
    """


@app.command("run")
def run_(
    config: Annotated[Path, typer.Argument(help="A YAML config; 'safer-instruct init' writes one.")],
    out: Annotated[Optional[Path], typer.Option(parser=out_directory, help="The run directory, or s3://BUCKET/RUN; by default runs/NAME-OF-CONFIG.")] = None,
    continue_: Annotated[bool, typer.Option("--continue", help="Go on in a directory that was begun with another config.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move what the directory holds into previous-N/ and start anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run on a sample of rows and tell what all of them will take.")] = False,
    rows: Annotated[int, typer.Option("--sample", min=1, help="Rows of the dry run; its calls are real, and are not paid for again.")] = 30,
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

    from safer_instruct.config import load_config
    from safer_instruct.estimate import estimate, note_on_target, show_estimate
    from safer_instruct.pipeline import run, sample
    from safer_instruct.runners.ray import cluster_of, run_on_ray
    from safer_instruct.terminal import show_summary, watch_run

    console = Console()
    cluster = cluster_of(runner.value, address, workers, gpus, dry_run=dry_run)
    loaded = load_config(config)
    path, mode = out or Path("runs") / config.stem, _mode(continue_, fresh)
    try:
        with watch_run(console) as watch:
            if dry_run:
                taken = sample(loaded, path, rows, mode=mode, watch=watch, work=work)
            else:
                carry_out = partial(run_on_ray, cluster=cluster) if cluster else run
                result = carry_out(loaded, path, mode=mode, watch=watch, work=work)
    except KeyboardInterrupt:
        _complain("stopped; finished model calls are saved: give the same command again to go on", 130)
    if dry_run:
        found = estimate(taken.rows, taken.total_rows, taken.stages, slots=taken.slots)
        show_estimate(console, found, max_cost=loaded.budget.max_cost, max_tokens=loaded.budget.max_tokens)
        if loaded.target is not None:
            console.print(note_on_target(found, loaded.target), highlight=False)
        return
    show_summary(console, result.path, result.summary)


def _mode(continue_: bool, fresh: bool) -> Mode:
    if continue_ and fresh:
        raise typer.BadParameter("--continue and --fresh exclude each other")
    return "fresh" if fresh else "continue" if continue_ else "auto"


@app.command()
def status(
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(results=False), help="A run directory.")],
    follow: Annotated[bool, typer.Option("--follow", help="Show a run that is going on, until it ends.")] = False,
) -> None:
    """Show the funnel and some pairs of a finished run, or how far an unfinished one is."""
    from rich.console import Console

    from safer_instruct import rundir
    from safer_instruct.ledger import read_totals
    from safer_instruct.terminal import show_summary, show_totals

    console = Console()
    if follow:
        only_here(path, "--follow")
        from safer_instruct.liveview import follow_run

        follow_run(console, path)
    if (path / rundir.SUMMARY).is_file():
        show_summary(console, path, rundir.read_summary(path))
    elif (path / rundir.LEDGER).is_file():
        show_totals(console, path, read_totals(path / rundir.LEDGER))
    else:
        rundir.read_summary(path)


@app.command("filters")
def filters_(
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")],
    dropped_by: Annotated[Optional[str], typer.Option(metavar="NAME", help="Show examples that this filter dropped, or flagged, instead.")] = None,
    count: Annotated[Optional[int], typer.Option("--sample", min=1, help="How many --dropped-by shows; 5 by default.")] = None,
    seed: Annotated[int, typer.Option(help="Another one draws other examples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what each filter of a run kept, what it shares with the others, and what the set would be without it."""
    from rich.console import Console

    from safer_instruct import filterview, stored, story
    from safer_instruct.analysis.filters import as_record, describe_filters
    from safer_instruct.seeds import derive_seed

    if count is not None and dropped_by is None:
        raise typer.BadParameter("--sample is for --dropped-by")
    if dropped_by is None:
        figures = describe_filters(stored.read_examples(path, stored.VERDICTS_ONLY))
        if as_json:
            _print_json(as_record(figures))
        else:
            filterview.show_filters(Console(), path, figures)
        return
    examples, total = stored.sample_failed(path, dropped_by, count or 5, lambda id_: derive_seed(seed, id_))
    if as_json:
        _print_json({"filter": dropped_by, "total": total, "examples": [story.as_record(example) for example in examples]})
    else:
        filterview.show_failed(Console(), dropped_by, examples, total)


@app.command()
def why(
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")],
    id_: Annotated[str, typer.Argument(metavar="ID", help="An example's id, as in examples.parquet and pairs.jsonl.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell an example's whole story: its source, every instruction and response, what each check said, and how it ended."""
    from rich.console import Console

    from safer_instruct import stored, story

    example = stored.find_example(path, id_)
    if as_json:
        _print_json(story.as_record(example))
    else:
        story.tell(Console(), example)


@app.command("ledger")
def ledger_(
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(ledger=True, results=False), help="A run directory; a run may be writing it.")],
    search: Annotated[Optional[str], typer.Option(metavar="TEXT", help="List calls with TEXT in what was asked or answered.")] = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="How many calls --search lists; 20 by default.")] = None,
    show: Annotated[Optional[str], typer.Option(metavar="KEY", help="Print one call whole; the first digits of its key are enough.")] = None,
    export_: Annotated[Optional[Path], typer.Option("--export", metavar="FILE.jsonl", help="Write every call as a line of JSON.")] = None,
    recover_: Annotated[bool, typer.Option("--recover", help="Copy what is intact in a damaged ledger into a fresh one.")] = False,
) -> None:
    """Show what a run's model calls add up to; search, print, export or recover them."""
    from rich.console import Console

    from safer_instruct import ledger, ledgerview, rundir
    from safer_instruct.wholefile import whole

    given = [name for name, value in (("--search", search), ("--show", show), ("--export", export_), ("--recover", recover_ or None)) if value is not None]
    if len(given) > 1:
        raise typer.BadParameter(f"{' and '.join(given)} exclude each other")
    if limit is not None and search is None:
        raise typer.BadParameter("--limit is for --search")
    console, file = Console(), path / rundir.LEDGER
    if recover_:
        only_here(path, "--recover")
        with rundir.hold(path):
            typer.echo(ledgerview.describe(ledger.recover(file)))
    elif search is not None:
        ledgerview.show_matches(console, ledger.find_calls(file, search), limit or 20)
    elif show is not None:
        ledgerview.show_call(console, ledger.find_by_key(file, show))
    elif export_ is not None:
        with whole(export_) as part, part.open("w", encoding="utf-8") as out:
            count = ledger.export_calls(file, out)
        typer.echo(f"{count} calls: {shown(export_)}")
    else:
        ledgerview.show_ledger(console, file, ledger.read_totals(file))


@app.command()
def init(
    domain: Annotated[str, typer.Argument(help="A shipped domain, or a name for a new one.")] = "civility",
    folder: Annotated[Path, typer.Option("--dir", help="Where to write.")] = Path(),
    source: Annotated[Optional[str], typer.Option(metavar="PATH", help="Your texts: a file, a folder or a glob.")] = None,
    text: Annotated[str, typer.Option(metavar="COLUMN", help="With --source: the column with the text.")] = "text",
    id_: Annotated[Optional[str], typer.Option("--id", metavar="COLUMN", help="With --source: the column with your own id.")] = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="The embedded model in every role: to see it go, without any other model.")] = False,
) -> None:
    """Write a commented config, and for a new domain a commented domain file beside it."""
    from safer_instruct.starter import StarterSource, write_starter

    for path in write_starter(domain, folder, StarterSource(source, text, id_) if source else None, embedded=embedded):
        typer.echo(f"wrote {path}")
    then = "" if source else "put your texts where 'source.path' points, then: "
    named = "" if embedded or domain == "civility" else ", after you have named your models in it"
    typer.echo(f"next: {then}safer-instruct run {folder / domain}.yaml{named}")


@app.command()
def tune(
    config: Annotated[Path, typer.Argument(help="A tuning config, such as examples/tune-embedded.yaml.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Make three steps and tell what all of them will take; write nothing.")] = False,
    launch: Annotated[Optional[int], typer.Option(min=1, metavar="N", help="Train on N GPUs of this machine (accelerate).")] = None,
    sharding: Annotated[str, typer.Option(help="With --launch: fsdp spreads the weights over the GPUs, none copies them to each.")] = "fsdp",
    data_only: Annotated[bool, typer.Option("--data-only", help="Read, clean and split the data, show the funnel, write both sides, and stop.")] = False,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Then compare the adapter with its base model on the held-out pairs.")] = False,
    out: Annotated[
        Optional[Path], typer.Option(parser=local_path, help="For --data-only and --evaluate: by default runs/NAME-OF-CONFIG-data and -evaluation.")
    ] = None,
) -> None:
    """Tune an adapter: P(prompt | response) for an inducer, or P(response | prompt) for a small expert.

    A training that was stopped, by whatever, goes on from its last checkpoint when the command is given again.
    """
    from rich.console import Console

    from safer_instruct.config import load_tune_config
    from safer_instruct.terminal import show_rehearsal, show_tuned, watch_tuning
    from safer_instruct.tuneview import show_prepared, show_written
    from safer_instruct.tuning import launch as several
    from safer_instruct.tuning import tune as tuning
    from safer_instruct.tuning.data import prepare, write_prepared

    loaded = load_tune_config(config)
    if launch:
        raise typer.Exit(several.launch(config, launch, sharding))
    console = Console(quiet=not several.is_first())
    if data_only:
        prepared = prepare(loaded.data, loaded.clean, loaded.holdout, config.parent)
        show_prepared(console, prepared)
        show_written(console, write_prepared(prepared, out or Path("runs") / f"{config.stem}-data"))
        return
    if dry_run:
        show_rehearsal(console, tuning.dry_run(loaded, config.parent), loaded.epochs)
        return
    with several.joined(), watch_tuning(console) as report:
        result = tuning.tune(loaded, config.parent, report)
    show_tuned(console, result)
    if evaluate and several.is_first():
        evaluate_inducer(config, out)


@app.command("evaluate-inducer")
def evaluate_inducer(
    config: Annotated[Path, typer.Argument(help="A tuning config, or an evaluation config with further inducers.")],
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
    from safer_instruct.tuneview import show_evaluation, show_prepared, watch_evaluation

    console = Console()
    plan = load_plan(config, limit=limit)
    show_prepared(console, plan.prepared, samples=0)
    try:
        with watch_evaluation(console) as report:
            result = evaluate_inducers(plan, out or Path("runs") / f"{config.stem}-evaluation", report)
    except KeyboardInterrupt:
        _complain("stopped; finished model calls are saved: give the same command again to go on", 130)
    show_evaluation(console, plan, result)


@app.command()
def evaluate(
    config: Annotated[Optional[Path], typer.Argument(help="An evaluation config, such as examples/evaluate/evaluate.yaml.")] = None,
    out: Annotated[
        Optional[Path], typer.Option(parser=local_path, help="Where report, answers and ledger go; by default runs/NAME-OF-CONFIG-evaluation.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Answer and judge a sample of prompts and tell what all of them will take.")] = False,
    rows: Annotated[int, typer.Option("--sample", min=1, help="Prompts of the dry run; its calls are real, and are not paid for again.")] = 10,
    sheet: Annotated[Optional[Path], typer.Option(metavar="FILE.csv", help="Write a blinded A/B sheet for people instead, and a page beside it.")] = None,
    count: Annotated[Optional[int], typer.Option("--n", min=1, help="Questions on the sheet; by default all.")] = None,
    answers: Annotated[Optional[list[Path]], typer.Option(metavar="FILE.csv", help="What a person answered on the sheet; once for each person.")] = None,
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

    from safer_instruct import evaluateview
    from safer_instruct.evaluation.run import evaluate as run_evaluation
    from safer_instruct.evaluation.run import rehearse, write_people_sheet
    from safer_instruct.evaluation.settings import load_evaluation
    from safer_instruct.tuneview import watch_evaluation

    console = Console()
    if power:
        evaluateview.show_power(console, win_rate, prompts, alpha=alpha, power=chance, ties=ties)
        return
    if config is None:
        raise typer.BadParameter("give CONFIG, or --power")
    given = [name for name, value in (("--dry-run", dry_run), ("--sheet", sheet), ("--answers", answers)) if value]
    if len(given) > 1:
        raise typer.BadParameter(f"{' and '.join(given)} exclude each other")
    loaded, path = load_evaluation(config), out or Path("runs") / f"{config.stem}-evaluation"
    try:
        with watch_evaluation(console) as report:
            if dry_run:
                taken = rehearse(loaded, path, rows, report=report)
            elif sheet:
                written = write_people_sheet(loaded, path, sheet, count, report=report)
            else:
                result = run_evaluation(loaded, path, answers=answers or (), report=report)
    except KeyboardInterrupt:
        _complain("stopped; finished model calls are saved: give the same command again to go on", 130)
    if dry_run:
        from safer_instruct.estimate import estimate, show_estimate

        found = estimate(taken.rows, taken.total, list(taken.slots), slots=taken.slots)
        show_estimate(console, found, max_cost=loaded.budget.max_cost, max_tokens=loaded.budget.max_tokens)
    elif sheet:
        evaluateview.show_sheet(console, *written)
    else:
        evaluateview.show(console, result)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")],
    format_: Annotated[str, typer.Option("--format", help="jsonl, messages, csv, parquet, kto, datasets, ...; 'list' names them all.")],
    out: Annotated[Optional[Path], typer.Option(parser=out_path, help="The file or folder; by default DIR/export.ENDING or DIR/export-FORMAT.")] = None,
    split: Annotated[Optional[list[str]], typer.Option(metavar="NAME=SHARE", help="A part to keep apart, by cluster: test=0.1.")] = None,
    seed: Annotated[int, typer.Option(help="Another one divides otherwise.")] = 0,
    near: Annotated[float, typer.Option(min=0.0, max=1.0, help="With --split: how alike texts of one cluster are; 0 for equal ones.")] = 0.5,
    provenance: Annotated[bool, typer.Option("--provenance", help="Add columns that say where each pair comes from.")] = False,
    redact: Annotated[bool, typer.Option("--redact-rejected", help="Give digest and length of rejected responses instead of their text.")] = False,
    reviewed: Annotated[bool, typer.Option("--reviewed", help="Only pairs that people accepted in 'review', with their corrections.")] = False,
    gated: Annotated[Optional[Gate], typer.Option(help="Readers must agree to the terms; with 'manual' you let each of them in.")] = None,
    push: Annotated[Optional[str], typer.Option(metavar="ORG/NAME", help="Then upload it to the Hugging Face hub, as a private dataset.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: for everybody to see.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --push: do not ask again.")] = False,
) -> None:
    """Write the pairs in the format of those who read them: TRL, LLaMA-Factory, Axolotl, Argilla, the Hugging Face hub and others."""
    from safer_instruct.export import FORMATS, Options, export_pairs, parse_splits
    from safer_instruct.export.push import check_repository, push_folder

    if format_ == "list":
        typer.echo("\n".join(f"{name:17} {form.about}" for name, form in FORMATS.items()))
        return
    if (public or yes) and not push:
        raise typer.BadParameter("--public and --yes are for --push")
    if push and format_ != "datasets":
        raise typer.BadParameter("--push is for --format datasets")
    repository = check_repository(push) if push else ""
    gate = gated.value if gated else None
    exported = export_pairs(path, format_, out, Options(parse_splits(split or ()), seed, near, provenance, redact, gate, reviewed))
    parts = ", ".join(f"{name} {count}" for name, count in exported.splits.items())
    typer.echo(f"{exported.pairs} pairs{f' ({parts})' if split else ''}: {shown(exported.path)}")
    if not repository:
        return
    who = "for everybody to see" if public else "private"
    if not yes and not typer.confirm(f"upload {exported.path} to {repository} ({who}{f', gated: {gate}' if gate else ''})?"):
        raise typer.Exit(1)
    typer.echo(push_folder(exported.path, repository, public=public, gated=gate))


@app.command("audit")
def audit_(
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
    count: Annotated[Optional[int], typer.Option("--sample", min=1, help="How many --show shows; 5 by default.")] = None,
    split: Annotated[str, typer.Option(help="Of a folder with several.")] = "train",
    limit: Annotated[Optional[int], typer.Option(min=1, help="Read only so many rows.")] = None,
    out: Annotated[Optional[Path], typer.Option(metavar="FILE.md", parser=out_path, help="Also write it as Markdown.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 1 where a verdict is BAD.")] = False,
) -> None:
    """Tell what is wrong with a set of preference pairs, ours or anybody's, and what to do about it."""
    from rich.console import Console

    from safer_instruct import auditing
    from safer_instruct.audit import Columns

    if count is not None and show is None:
        raise typer.BadParameter("--sample is for --show")
    if show is not None and as_json:
        raise typer.BadParameter("--show and --json exclude each other")
    wanted = auditing.Wanted(path, Columns(prompt, chosen, rejected), tuple(benchmark or ()), split, limit, show)
    pairs, found = auditing.audit(wanted, Console(stderr=True))
    if out is not None:
        auditing.write(out, pairs, found)
    if as_json:
        _print_json(auditing.as_record(pairs, found))
    else:
        auditing.show(Console(), pairs, found, count or 5 if show else None)
    if strict and any(one.level == "bad" for one in found):
        raise typer.Exit(1)


@app.command("select")
def select_(
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


@app.command()
def calibrate(
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")],
    labels: Annotated[Optional[Path], typer.Option(metavar="FILE.csv", parser=in_path, help="Labels: id, label (good or bad) and, if wanted, score.")] = None,
    reviewed: Annotated[bool, typer.Option("--reviewed", help="Take what was decided in 'review' for labels.")] = False,
    sheet: Annotated[Optional[Path], typer.Option(metavar="FILE.csv", parser=out_path, help="Write a sheet to label instead.")] = None,
    count: Annotated[int, typer.Option("--n", min=1, help="Rows of the sheet.")] = 200,
    precision: Annotated[float, typer.Option(min=0, max=1, help="Share of good examples that a threshold is to keep to.")] = 0.9,
    max_bad: Annotated[Optional[float], typer.Option(min=0.001, max=0.999, help="Instead: share of bad ones that is not to be passed.")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the guarantee that --max-bad asks for.")] = 0.95,
    method: Annotated[str, typer.Option(help="logistic, isotonic, or auto: isotonic from 1,000 labels on.")] = "auto",
    score: Annotated[Optional[list[str]], typer.Option(help="A score that is to get a threshold; by default the one that loses least.")] = None,
    config: Annotated[Optional[Path], typer.Option(help="A config that is to use the thresholds: its line 'calibration:' is set.")] = None,
) -> None:
    """Fit a run's scores to labels of people, and choose thresholds for a wanted precision."""
    from rich.console import Console

    from safer_instruct import reviewview
    from safer_instruct.calibration import show
    from safer_instruct.calibration.calibrate import CALIBRATION, Aim, point_config_at, read_method, write_calibration
    from safer_instruct.calibration.calibrate import calibrate as fit_scores
    from safer_instruct.calibration.labels import read_examples, write_sheet
    from safer_instruct.rundir import REVIEW_LABELS

    if sum((labels is not None, sheet is not None, reviewed)) != 1:
        raise typer.BadParameter("give --labels FILE, --reviewed, or --sheet FILE to write one to label")
    if reviewed:
        labels = path / REVIEW_LABELS
        reviewview.write_labels(path, labels)
    if sheet is not None:
        typer.echo(f"{write_sheet(read_examples(path), sheet, count)} rows to label: {shown(sheet)} (write good or bad, 1 or 0, into 'label')")
    if labels is not None:
        aim = Aim(precision, max_bad, confidence)
        found = fit_scores(path, labels, aim, method=read_method(method), names=score or ())
        show.show_calibrations(Console(), found, aim)
        if found.chosen:
            write_calibration(found, aim, path / CALIBRATION)
            typer.echo(f"thresholds: {shown(path / CALIBRATION)}; a config takes them over with its line 'calibration:'")
        if found.chosen and config is not None:
            point_config_at(config, path / CALIBRATION)
            typer.echo(f"{config} uses them now: run it again with --continue; finished calls are not made twice")


@app.command("review")
def review_(
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=local_path, help="A run directory.")],
    annotator: Annotated[Optional[list[str]], typer.Option(metavar="NAME", help="Who reads; may be given several times.")] = None,
    port: Annotated[Optional[int], typer.Option(min=1024, max=65535, help="By default 8737, or any other where that is taken.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    blind: Annotated[bool, typer.Option("--blind", help="Hide which response is the chosen one, and shuffle the sides.")] = False,
    overlap: Annotated[float, typer.Option(min=0, max=1, help="Share of examples that two annotators read.")] = 0.1,
    domain: Annotated[Optional[str], typer.Option(help="A domain whose questions are asked; by default the run's.")] = None,
    labels: Annotated[Optional[Path], typer.Option(metavar="FILE.csv", help="Write what was decided, for 'calibrate', instead.")] = None,
) -> None:
    """Read pairs in the browser: accept, reject, correct. Everything stays on this machine, in DIR/review.sqlite."""
    from rich.console import Console

    from safer_instruct import reviewview

    if labels is not None:
        reviewview.write_labels(path, labels)
        return
    reviewview.serve(Console(), path, annotator, port=port, browser=not no_browser, blind=blind, overlap=overlap, domain=domain)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")],
    other: Annotated[
        Optional[Path], typer.Argument(metavar="[DIR|FILE]", parser=run_or_file, help="Another to stand beside it, or a dataset: JSONL, CSV or Parquet.")
    ] = None,
    compare: Annotated[Optional[Path], typer.Option(metavar="DIR", parser=run_or_file, help="The same as a second DIR.")] = None,
    out: Annotated[
        Optional[Path], typer.Option(metavar="FILE.html", parser=out_path, help="By default DIR/report.html; the Markdown file goes beside it.")
    ] = None,
    labels: Annotated[
        Optional[Path], typer.Option(metavar="FILE.csv", parser=in_path, help="Labels, for precision and recall; by default those that lie in DIR.")
    ] = None,
) -> None:
    """Write a report on a run: one HTML file that works offline, and one of Markdown."""
    from safer_instruct.report import write_report

    if other is not None and compare is not None:
        raise typer.BadParameter("give one run or dataset to compare with")
    for file in write_report(path, other or compare, out, labels):
        size = file.stat().st_size
        typer.echo(f"{shown(file)}  {f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{size / 1e3:.0f} kB'}")


@app.command()
def judges(path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")]) -> None:
    """Show how often order turned a judge's answer, and how far the judges of a panel agree."""
    from rich.console import Console

    from safer_instruct.judging import read_judging, show_judging

    show_judging(Console(), read_judging(path))


@models_app.command("pull")
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


@models_app.command("list")
def list_() -> None:
    """List the models of the cache and of the catalogue."""
    from safer_instruct.models import store

    have = {m.name: m for m in store.pulled()}
    for record in have.values():
        typer.echo(f"{record.name}  {record.size / 1e6:.0f} MB  {record.source}  in {store.cache_dir()}")
    for name, entry in store.CATALOG.items():
        if name not in have:
            typer.echo(f"{name}  {entry.model.size / 1e6:.0f} MB  {entry.model.source}  not pulled: safer-instruct models pull {name}")


@models_app.command("export")
def export_(
    adapter: Annotated[Path, typer.Argument(help="The folder that 'tune' wrote, or any PEFT LoRA or transformers folder.")],
    to: Annotated[str, typer.Option(help="merged (safetensors), embedded (this package's engine), gguf, or gguf-lora (beside its base).")],
    out: Annotated[Optional[Path], typer.Option(help="A folder, for GGUF a file; by default ADAPTER-TO.")] = None,
    base: Annotated[Optional[str], typer.Option(help="The base model, where the adapter does not say or it has moved.")] = None,
    quantization: Annotated[Optional[str], typer.Option(help="gguf: f32, f16, bf16 or q8_0; embedded: int8 or float32.")] = None,
) -> None:
    """Write a tuned adapter in the form in which it is served."""
    from safer_instruct.tuning.export import checked_form, export_model

    form = checked_form(to)
    ending = ".gguf" if form.startswith("gguf") else ""
    written = export_model(adapter, form, out or adapter.with_name(f"{adapter.name}-{form}{ending}"), base=base, quantization=quantization)
    typer.echo(f"wrote {written}")


@app.command()
def doctor() -> None:
    """Say what is installed, what each extra would add, and whether the embedded model answers."""
    from safer_instruct.doctor import diagnose

    healthy = True
    for finding in diagnose():
        typer.echo(f"{'ok  ' if finding.ok else 'no  '} {finding.text}")
        healthy = healthy and (finding.ok or finding.optional)
    if not healthy:
        raise typer.Exit(1)


app.command("value")(value)
app.command("study")(study)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors of ours become one line and exit code 2, with `--debug` a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        with addresses():
            app([a for a in given if a != "--debug"])
    except SaferInstructError as exc:
        if debug:
            raise
        _complain(str(exc), 2)
    except OSError as exc:  # a full disk, a file without permission
        if debug:
            raise
        _complain(f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}", 2)


def _print_json(record: dict[str, Any]) -> None:
    typer.echo(json.dumps(record, indent=1))  # in ASCII: no control code reaches a terminal


def _complain(message: str, code: int) -> NoReturn:
    clean = "".join(c if c.isprintable() or c == "\n" else "?" for c in shown(message))
    sys.stderr.write(f"error: {clean}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
