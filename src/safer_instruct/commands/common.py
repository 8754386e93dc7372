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


def exclusive(**options: object) -> None:
    """At most one of these options, named as in Python, is given.

    Raises:
        typer.BadParameter: Several are.
    """
    given = [f"--{name.strip('_').replace('_', '-')}" for name, value in options.items() if value not in (None, False, [])]
    if len(given) > 1:
        raise typer.BadParameter(f"{' and '.join(given)} exclude each other")


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
