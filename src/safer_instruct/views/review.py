"""The review app as the terminal sees it: addresses, the index on its way, labels written."""

from __future__ import annotations

import getpass
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from safer_instruct import rundir
from safer_instruct.errors import ConfigError, RunDirectoryError
from safer_instruct.oneline import many
from safer_instruct.review import labels
from safer_instruct.review.serve import plan_review, serve_review
from safer_instruct.terminal import safe

_NAME = re.compile(r"[^\W_][\w.@-]{0,39}")


def serve(
    console: Console, path: Path, names: Sequence[str] | None, *, port: int | None, browser: bool, blind: bool, overlap: float, domain: str | None
) -> None:
    """Serve the page until Ctrl-C, with an address per annotator on the console.

    Raises:
        ConfigError: A name is no name.
        RunDirectoryError: As for `serve_review`.
    """
    readers = list(dict.fromkeys(names or [_own_name()]))
    for name in readers:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"annotator {name!r}: a name begins with a letter or digit and has letters, digits and . _ - @ only, at most 40")
    if not (path / rundir.RUN).is_file():  # a run that goes on has one
        rundir.read_summary(path)  # says what is wrong with it
    plan = plan_review(path, domain, blind=blind, overlap=overlap)

    served: list[str] = []

    def opened(name: str, address: str) -> None:
        if not served:
            own = "" if names else f"; who reads is '{name}', as no --annotator NAME was given"
            console.print(safe(f"each address opens once; Ctrl-C ends the review, and nothing that was clicked is lost{own}"), soft_wrap=True)
        served.append(name)
        console.print(safe(f"{name}: {address}"), soft_wrap=True)

    with Progress(console=console, transient=True) as bar:
        tasks: list[TaskID] = []

        def report(done: int, total: int) -> None:
            if not tasks:
                tasks.append(bar.add_task("indexing the run, once", total=total))
            bar.update(tasks[0], completed=done)
            if done == total:
                bar.stop()

        try:
            serve_review(path, plan, readers, port=port, opened=opened, report=report, browser=browser)
        finally:  # uvicorn passes Ctrl-C on
            if served:
                console.print(safe(f"next, when pairs were accepted: safer-instruct export {path} --format jsonl --reviewed"), soft_wrap=True)


def write_labels(path: Path, file: Path) -> None:
    """Write the labels of the run in `path` to `file`, and say how many.

    Raises:
        ConfigError: `file` is something other than labels of a review.
        RunDirectoryError: Nobody has reviewed it, or nothing of it is decided.
    """
    if not (path / rundir.REVIEW).is_file():
        raise RunDirectoryError(f"{path} has no review yet; begin one: safer-instruct review {path}")
    written = labels.write_labels(path, file)
    Console().print(safe(f"{many(len(written.labels), 'label')}: {file}{f' (left out: {written.left_out})' if written.left_out else ''}"), soft_wrap=True)


def _own_name() -> str:
    """The login name, as far as it is a name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a process without an account
        return "me"
    return name if _NAME.fullmatch(name) else "me"
