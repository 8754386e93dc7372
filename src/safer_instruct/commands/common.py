"""What several commands say."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer

from safer_instruct.remote.arguments import shown

CALLS_SAVED = "finished model calls are saved: give the same command again to go on"
FROM_CHECKPOINT = "give the same command again to go on from the last checkpoint"


@contextmanager
def stoppable(and_now: str = CALLS_SAVED) -> Iterator[None]:
    """Ctrl-C ends the command with one line, which says what is kept, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"stopped; {and_now}", 130)


def exclusive(context: typer.Context, *names: str) -> None:
    """At most one of these parameters of the command stands on the command line.

    Raises:
        typer.BadParameter: Several do.
    """
    if len(there := given(context, *names)) > 1:
        raise typer.BadParameter(f"{' and '.join(there)} exclude each other")


def only_with(context: typer.Context, needed: tuple[str, ...], *names: str) -> None:
    """These parameters of the command say nothing unless one of `needed` is given too.

    Raises:
        typer.BadParameter: One stands on the command line without it.
    """
    there = given(context, *names)
    if there and not given(context, *needed):
        options = " and ".join(_option(context, name) for name in needed)
        raise typer.BadParameter(f"{' and '.join(there)} {'are' if len(there) > 1 else 'is'} for {options}")


def given(context: typer.Context, *names: str) -> list[str]:
    """Those of these parameters that stand on the command line, as their options are written."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [_option(context, name) for name, source in sources.items() if source and source.name == "COMMANDLINE"]


def _option(context: typer.Context, name: str) -> str:
    return next(param.opts[-1] for param in context.command.params if param.name == name)


def with_ending(path: Path, ending: str) -> None:
    """That a file is named for what it will be: what stands there is replaced, and was hardly meant where it is something else.

    Raises:
        typer.BadParameter: It ends otherwise.
    """
    if path.suffix.lower() != ending and not path.is_dir():
        raise typer.BadParameter(f"{shown(path)} will be written, and does not end in {ending}; give a name that does")


def print_json(record: dict[str, Any]) -> None:
    """In ASCII: no control code reaches a terminal."""
    typer.echo(json.dumps(record, indent=1))


def complain(message: str, code: int) -> NoReturn:
    """End the command with one line on standard error."""
    clean = "".join(c if c.isprintable() or c == "\n" else "?" for c in shown(message))
    sys.stderr.write(f"error: {clean}\n")
    sys.exit(code)
