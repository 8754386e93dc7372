"""Which working directories belong to an address: whoever commits something there asks here whether it must go to the store, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from safer_instruct.ledger.content import Call

_homes: dict[Path, Home] = {}  # of this process, for as long as their runs last


class Home(Protocol):
    """The address that a working directory belongs to."""

    def append(self, calls: Sequence[Call]) -> None:
        """Make finished calls durable in the store.

        Raises:
            ConnectionError: That failed; it says why.
        """

    def keep(self, name: str, data: bytes) -> None:
        """Make a small file of the directory durable in the store.

        Raises:
            StorageError: That failed.
        """

    def retract(self) -> tuple[str, ...]:
        """Take back what the store says of an earlier run's results; returns the names of the files that stood there.

        Raises:
            StorageError: That failed.
        """


def home_of(folder: Path) -> Home | None:
    """The home of a working directory; None for every other one."""
    return _homes.get(folder.absolute()) if _homes else None


@contextmanager
def attached(folder: Path, home: Home) -> Iterator[None]:
    """Say where `folder` belongs until the block ends."""
    _homes[folder.absolute()] = home
    try:
        yield
    finally:
        del _homes[folder.absolute()]
