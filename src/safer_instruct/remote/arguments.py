"""Addresses on the command line: arguments that name one become local paths, and what is written there is sent at the end.

Parsers of a command's arguments run before the command, inside `addresses`, which `main` opens around everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import typer

from safer_instruct.errors import StorageError
from safer_instruct.storage.address import Address, is_remote, parse

_opened: list[ExitStack] = []
_shown: dict[str, str] = {}  # local path -> the address that it stands for


@contextmanager
def addresses() -> Iterator[None]:
    """What commands write to addresses is sent when the block ends well, or by `SystemExit` without an error."""
    _shown.clear()
    with ExitStack() as stack:
        _opened.append(stack)
        try:
            yield
        except SystemExit as exc:
            if exc.code not in (None, 0):
                raise
            stack.close()
            raise
        finally:
            _opened.remove(stack)


def shown(text: object) -> str:
    """Text for people, with addresses in the place of the local paths that stand for them."""
    said = str(text)
    for local, address in _shown.items():
        said = said.replace(local, address)
    return said


def stand_for(local: Path, address: str) -> None:
    """From now on, `shown` says the address in the place of that path."""
    _shown[str(local)] = address


def is_elsewhere(local: Path) -> bool:
    """Whether a path is the copy of what stands at an address."""
    return str(local) in _shown


def only_here(local: Path, what: str) -> None:
    """Refuse the copy of a run at an address, for what must be done to the run itself.

    Raises:
        StorageError: It is one.
    """
    if is_elsewhere(local):
        raise StorageError(f"{what} works on a folder of this machine, and {_shown[str(local)]} is none; docs/storage.md says where the run's own folder is")


def path(text: str) -> Path:
    """A path of this machine; what works with local files only says so by it.

    Raises:
        StorageError: It is an address.
        typer.BadParameter: It names nothing.
    """
    text = str(text)  # a default comes as a path
    if is_remote(text):
        raise StorageError(f"'{text}': this works with files of this machine only; docs/storage.md says what can be at an address")
    return _local(text)


def run_directory(*, ledger: bool = False, results: bool = True) -> Callable[[str], Path]:
    """Reads a run directory, here or at an address; what the command writes into it is sent there.

    Args:
        ledger: Whether the command reads the ledger of a finished run.
        results: Whether it may write into the directory.
    """

    def path(text: str) -> Path:
        if not is_remote(text):
            return _local(text)
        from safer_instruct.remote.copies import fetch_run

        address = parse(text)
        folder = fetch_run(address, ledger=ledger)
        stand_for(folder, str(address))
        if results:
            _opened[-1].enter_context(_sent(address, folder))
        return folder

    return path


def out_directory(text: str) -> Path | str:
    """Where a run is to stand: an address stays one."""
    return text if is_remote(text) else _local(text)


def out_path(text: str) -> Path:
    """A file or folder that is written, here or at an address."""
    return _written(text, look=False)


def looked_at_path(text: str) -> Path:
    """A file that is written, here or at an address, once the command has looked at what stands there."""
    return _written(text, look=True)


def in_path(text: str) -> Path:
    """A small file that is read, here or at an address."""
    if not is_remote(text):
        return _local(text)
    from safer_instruct.remote.copies import fetched

    local = _opened[-1].enter_context(fetched(text))
    stand_for(local, text)
    return local


def run_or_file(text: str) -> Path:
    """A run directory or a file of pairs that is read, here or at an address."""
    if not is_remote(text):
        return _local(text)
    from safer_instruct.remote.copies import holds_run

    return run_directory(results=False)(text) if holds_run(parse(text)) else in_path(text)


def pattern(text: str) -> str:
    """A file, a folder or a glob, as it is written."""
    if not is_remote(text):
        _local(text)
    return text


def _local(text: str) -> Path:
    """What every path on the command line goes through: '' would be the folder that one is in, and '-' a file of that name.

    Raises:
        typer.BadParameter: It is one of these.
    """
    if not text.strip():
        raise typer.BadParameter("the path is empty, perhaps from a variable of the shell that is not set; for the folder that you are in write .")
    if text == "-":
        raise typer.BadParameter("'-' stands for no stream here, neither standard input nor output; give a path (./- for a file of that name)")
    return Path(text)


def _written(text: str, *, look: bool) -> Path:
    if not is_remote(text):
        return _local(text)
    from safer_instruct.remote.copies import written_to

    address = parse(text)
    local = _opened[-1].enter_context(written_to(address, look=look))
    stand_for(local.parent, str(address).rpartition("/")[0])
    return local


@contextmanager
def _sent(address: Address, folder: Path) -> Iterator[None]:
    from safer_instruct.remote.copies import seen, send_changed

    before = seen(folder)
    yield
    send_changed(address, folder, before)


out_path.__name__ = looked_at_path.__name__ = in_path.__name__ = run_or_file.__name__ = pattern.__name__ = out_directory.__name__ = (
    "path"  # what help calls the value
)
