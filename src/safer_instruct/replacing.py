"""What an output may take the place of: what the same command wrote before, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from safer_instruct import rundir
from safer_instruct.errors import ConfigError
from safer_instruct.wholefile import whole

_HEAD_BYTES = 4 << 20
_LEAST_COLUMNS = 3  # prompt, chosen, rejected
_OUR_PAGE = b'<meta http-equiv="Content-Security-Policy" content="default-src'
_TITLES = ((b"# Audit of ", b""), (b"# ", b": preference pairs"))  # of an audit, of a report


def replace_own(path: Path, text: str, *, of_run: bool = False) -> None:
    """Write a small file, as `write_whole`, over what the same command wrote before.

    Raises:
        ConfigError: As `refuse_others`.
    """
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
        refuse_others(part, path, of_run=of_run)


def refuse_others(part: Path, target: Path, *, of_run: bool = False) -> None:
    """That `target`, which `part` is to replace, holds what the same command wrote before; of folders that each of their common files does.

    Args:
        part: What was written.
        target: Where it is to go.
        of_run: Whether it is something that a run directory has a place for.

    Raises:
        ConfigError: It is a file of a run, or holds something else.
    """
    if part.is_dir():
        for file in (file for file in part.rglob("*") if file.is_file()):
            refuse_others(file, target / file.relative_to(part))
        return
    if not of_run and rundir.is_of_run(target):
        raise ConfigError(f"{target} is a file of a run; choose another name")
    if target.is_file() and target.stat().st_size and not _alike(*(_kind(file, target.suffix) for file in (part, target))):
        raise ConfigError(f"{target} exists already, and holds something else than what would be written; choose another name, or move it away")


def _alike(new: object, old: object) -> bool:
    """Whether two kinds are one; of columns one side may have further ones, such as those of `--provenance`."""
    if isinstance(new, frozenset) and isinstance(old, frozenset):
        return new == old or (len(new & old) >= _LEAST_COLUMNS and (new <= old or old <= new))
    return new == old


def _kind(file: Path, suffix: str) -> object:
    """What tells whether two files are of one kind: columns of rows, keys of JSON, the beginning of a page."""
    with file.open("rb") as opened:
        head = opened.readline(_HEAD_BYTES)
        if head.startswith(b"PAR1"):
            return _columns(file)
        if suffix == ".csv":
            return frozenset(head.strip().split(b","))
        if suffix == ".json":
            head += opened.read(_HEAD_BYTES)
        elif head.lower().startswith(b"<!doctype html"):
            return _OUR_PAGE in opened.read(500) or head
    try:
        value = json.loads(head)
    except ValueError:
        line = head.rstrip()
        return next((title for title in _TITLES if line.startswith(title[0]) and line.endswith(title[1])), line)
    return frozenset((name, isinstance(inner, list)) for name, inner in value.items()) if isinstance(value, dict) else type(value)


def _columns(file: Path) -> object:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return frozenset(pq.read_schema(file).names)
    except (OSError, pa.ArrowException):
        return None
