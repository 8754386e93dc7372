"""Files that appear whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safer_instruct.errors import RunDirectoryError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to that takes the place of `path` when the block ends well.

    Raises:
        RunDirectoryError: Something other than a regular file stands there.
    """
    if path.exists() and not path.is_file():
        raise RunDirectoryError(f"{path} is no regular file, so it cannot be replaced by one")
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
