"""What several commands say."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from safer_instruct.remote.arguments import shown
from safer_instruct.stopping import stop_told_to

CALLS_SAVED = "finished model calls are saved: give the same command again to go on"
FROM_CHECKPOINT = "give the same command again: it goes on from the last checkpoint, or begins anew where there is none yet"


@contextmanager
def stoppable(and_now: str = CALLS_SAVED) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the command with one line, which says what is kept, and exit code 128 + the signal's number."""
    with _as_ctrl_c() as came, stop_told_to(_say):
        try:
            yield
        except KeyboardInterrupt:
            complain(f"stopped; {and_now}", 128 + (came[0] if came else signal.SIGINT))
        except OSError:
            if not came:  # otherwise the terminal is gone, and with it what stands on it
                raise
            complain(f"stopped; {and_now}", 128 + came[0])


@contextmanager
def _as_ctrl_c() -> Iterator[list[int]]:
    """Have SIGTERM and SIGHUP stop the command as Ctrl-C does, once: the next one ends the process. Yields what came.

    Left alone are signals that somebody else handles or ignores (`nohup`, Ray), and processes of a training on several: their launcher
    ends all of them, also where one waits for another within a library.
    """
    came: list[int] = []
    taken: list[signal.Signals] = []
    ours = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, signal.SIG_DFL)
        if os.getpid() != ours:  # a fork, which is to end as forks do
            os.kill(os.getpid(), number)
            return
        came.append(number)
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(on_ctrl_c):  # ignored, as in the background of a script
            raise KeyboardInterrupt
        on_ctrl_c(signal.SIGINT, frame)

    if "RANK" not in os.environ and threading.current_thread() is threading.main_thread():
        taken = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
        for number in taken:
            signal.signal(number, stop)
    try:
        yield came
    finally:
        for number in taken:
            if signal.getsignal(number) is stop:
                signal.signal(number, signal.SIG_DFL)


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


def is_of_display(exc: OSError) -> bool:
    """Whether it comes from what shows things, and so from a terminal, a pipe or a file that standard output was sent to."""
    *_, (frame, _line) = traceback.walk_tb(exc.__traceback__)
    return exc.filename is None and frame.f_globals.get("__name__", "").partition(".")[0] in ("rich", "typer", "click")


def complain(message: str, code: int) -> NoReturn:
    """End the command with one line on standard error."""
    _say(f"error: {message}")
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again at its end, and end with another code
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _say(message: str) -> None:
    """One line on standard error."""
    clean = "".join(c if c.isprintable() or c == "\n" else "?" for c in shown(message))
    with suppress(OSError):  # the terminal may be gone
        sys.stderr.write(f"{clean}\n")
