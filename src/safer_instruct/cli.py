"""The command line: what commands there are, and how an error ends them. Each is a function in `commands/`."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Annotated

import typer

from safer_instruct.commands import domain, evaluate, models, pairs, people, reading, runs, study, train, tune
from safer_instruct.commands.common import complain, is_of_display
from safer_instruct.errors import SaferInstructError
from safer_instruct.remote.arguments import addresses

COMMANDS: dict[str, Callable[..., None]] = {
    "init": runs.init,
    "run": runs.run,
    "status": runs.status,
    "filters": reading.filters,
    "why": reading.why,
    "judges": reading.judges,
    "ledger": reading.ledger,
    "report": reading.report,
    "review": people.review,
    "calibrate": people.calibrate,
    "select": pairs.select,
    "export": pairs.export,
    "audit": pairs.audit,
    "tune": tune.tune,
    "evaluate-inducer": tune.evaluate_inducer,
    "evaluate": evaluate.evaluate,
    "value": train.value,
    "study": study.study,
    "doctor": models.doctor,
}
GROUPS = {"models": models.app, "domain": domain.app, "train": train.app}
_KEPT = "Results stand in their files; the same command, given again, makes no finished call twice"
app = typer.Typer(name="safer-instruct", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


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

    Start with: safer-instruct init mydomain --source texts.csv --text reply --embedded
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors of ours become one line and exit code 2, with `--debug` a traceback."""
    _fit_display()
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        with addresses():
            app([a for a in given if a != "--debug"])
    except SaferInstructError as exc:
        if debug:
            raise
        complain(str(exc), 2)
    except OSError as exc:  # a full disk, a file without permission
        if debug:
            raise
        if is_of_display(exc):
            complain(f"standard output cannot be written ({exc.strerror}); only what is shown is lost: send it elsewhere. {_KEPT}", 2)
        if exc.errno == errno.ENAMETOOLONG and exc.filename:
            complain(f"a name in this path is longer than the file system takes, most often 255 bytes: {exc.filename}; choose a shorter one", 2)
        complain(f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}", 2)


def _fit_display() -> None:
    """Have characters that the encoding of a terminal or a pipe lacks written as escapes, and no table made for no columns at all."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name, "").strip("0") == "":
            os.environ.pop(name, None)


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)

if __name__ == "__main__":
    main()
