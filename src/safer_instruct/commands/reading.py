"""What a run says of itself: `filters`, `why`, `judges`, `ledger`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from safer_instruct.commands.common import exclusive, only_with, print_json, with_ending
from safer_instruct.oneline import many
from safer_instruct.remote.arguments import in_path, only_here, out_path, run_directory, run_or_file, shown
from safer_instruct.remote.arguments import path as local_path


def filters(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")],
    dropped_by: Annotated[Optional[str], typer.Option(metavar="NAME", help="Show examples that this filter dropped, or flagged, instead.")] = None,
    count: Annotated[int, typer.Option("--sample", min=1, help="With --dropped-by: how many.")] = 5,
    seed: Annotated[int, typer.Option(help="With --dropped-by: another one draws other examples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what each filter of a run kept, what it shares with the others, and what the set would be without it."""
    from rich.console import Console

    from safer_instruct import stored
    from safer_instruct.analysis.filters import as_record, describe_filters
    from safer_instruct.seeds import derive_seed
    from safer_instruct.views import filters as view
    from safer_instruct.views import story

    only_with(context, ("dropped_by",), "count", "seed")
    if dropped_by is None:
        figures = describe_filters(stored.read_examples(path, stored.VERDICTS_ONLY))
        if as_json:
            print_json(as_record(figures))
        else:
            view.show_filters(Console(), path, figures)
        return
    examples, total = stored.sample_failed(path, dropped_by, count, lambda id_: derive_seed(seed, id_))
    if as_json:
        print_json({"filter": dropped_by, "total": total, "examples": [story.as_record(example) for example in examples]})
    else:
        view.show_failed(Console(), dropped_by, examples, total)


def why(
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")],
    id_: Annotated[str, typer.Argument(metavar="ID", help="An example's id, as in examples.parquet and pairs.jsonl.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell an example's whole story: its source, every instruction and response, what each check said, and how it ended."""
    from rich.console import Console

    from safer_instruct import rundir, stored
    from safer_instruct.margins import kind_said
    from safer_instruct.views import story

    example = stored.find_example(path, id_)
    if as_json:
        print_json(story.as_record(example))
    else:
        story.tell(Console(), example, kind_said(rundir.read_summary(path)))


def judges(path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(), help="A finished run directory.")]) -> None:
    """Show how often order turned a judge's answer, and how far the judges of a panel agree."""
    from rich.console import Console

    from safer_instruct.judging import read_judging, show_judging

    show_judging(Console(), read_judging(path))


def ledger(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="DIR", parser=run_directory(ledger=True, results=False), help="A run directory; a run may be writing it.")],
    search: Annotated[Optional[str], typer.Option(metavar="TEXT", help="List calls with TEXT in what was asked or answered.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="With --search: how many calls.")] = 20,
    show: Annotated[Optional[str], typer.Option(metavar="KEY", help="Print one call whole; the first digits of its key are enough.")] = None,
    export_: Annotated[Optional[Path], typer.Option("--export", metavar="FILE.jsonl", parser=local_path, help="Write every call as a line of JSON.")] = None,
    recover_: Annotated[bool, typer.Option("--recover", help="Copy what is intact in a damaged ledger into a fresh one.")] = False,
) -> None:
    """Show what a run's model calls add up to; search, print, export or recover them."""
    from rich.console import Console

    from safer_instruct import ledger, rundir
    from safer_instruct.holding import hold
    from safer_instruct.progress import calls_told
    from safer_instruct.replacing import refuse_others
    from safer_instruct.views import ledger as view
    from safer_instruct.wholefile import whole

    exclusive(context, "search", "show", "export_", "recover_")
    only_with(context, ("search",), "limit")
    console, file = Console(), path / rundir.LEDGER
    if recover_:
        only_here(path, "--recover")
        with hold(path):
            typer.echo(view.describe(ledger.recover(file), calls_told(path)))
    elif search is not None:
        view.show_matches(console, ledger.find_calls(file, search), limit)
    elif show is not None:
        view.show_call(console, ledger.find_by_key(file, show))
    elif export_ is not None:
        with_ending(export_, ".jsonl")
        export_.parent.mkdir(parents=True, exist_ok=True)
        with whole(export_) as part, part.open("w", encoding="utf-8") as out:
            count = ledger.export_calls(file, out)
            out.flush()
            refuse_others(part, export_)
        typer.echo(f"{many(count, 'call')}: {shown(export_)}")
    else:
        view.show_ledger(console, file, ledger.read_totals(file))


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
    if out is not None:
        with_ending(out, ".html")
    for file in write_report(path, other or compare, out, labels):
        size = file.stat().st_size
        typer.echo(f"{shown(file)}  {f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{size / 1e3:.0f} kB'}")
