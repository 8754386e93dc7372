"""Runs at an address in object storage: they work in a local directory, and what they finish is in the store at once.

folders.py    where on this machine what belongs to an address is kept
mark.py       what a working directory knows of its address
session.py    a run at an address: claim, restore, work, publish
restore.py    the working directory from what the store holds
publish.py    results into the store, data first and the manifest last
copies.py     what commands read of a run at an address, and where they write to one
arguments.py  addresses on the command line
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safer_instruct.errors import ConfigError
from safer_instruct.remote.arguments import stand_for
from safer_instruct.storage.address import is_remote, parse

if TYPE_CHECKING:
    from safer_instruct.rundir import Mode


@contextmanager
def working_directory(out: str | Path, work: Path | str | None, mode: Mode) -> Iterator[Path]:
    """Where a run works: `out` itself, or for an address the local directory that belongs to it; see `session.working_at`."""
    if not is_remote(out):
        if work is not None:
            raise ConfigError("--work is for a run at an address, such as --out s3://BUCKET/RUN; a run in a local folder works there")
        yield Path(out)
        return
    from safer_instruct.remote.session import working_at

    with working_at(out, None if work is None else Path(work), mode) as folder:
        stand_for(folder, str(parse(out)))
        yield folder
