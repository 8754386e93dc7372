"""Which files a source leads to, and the format and packing that their endings tell."""

from __future__ import annotations

import errno
import glob
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from safer_instruct.config import SourceConfig
from safer_instruct.errors import SourceError
from safer_instruct.nearest import did_you_mean
from safer_instruct.sources.records import visible
from safer_instruct.storage.address import is_remote

if TYPE_CHECKING:
    from safer_instruct.storage.files import RemoteFile

OLD = "doc"
"""What a folder may hold and nobody reads: it is found, so that it is set aside and not passed over."""
OLD_IS_NOT_READ = "an old .doc is not read; open it in a word processor and save it as .docx"
_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".doc": OLD,
    ".warc": "warc",
    ".wet": "warc",
}
TABLES = ("jsonl", "csv", "tsv", "parquet")
DOCUMENTS = ("html", "pdf", "docx", "warc", OLD)
_PACKINGS = (".gz", ".zst")
_AIM = "link it to a file, or name the file itself"
_SHEETS = (".xlsx", ".xls", ".ods", ".numbers")


@dataclass(frozen=True, slots=True)
class File:
    """A file to read: where it is, the name that results show, its format, and its packing ('' for none)."""

    path: Path | RemoteFile
    name: str
    format: str
    packing: str


def find(config: SourceConfig, base: Path) -> list[Path] | list[RemoteFile]:
    """The files that `config.path` leads to, sorted.

    Raises:
        SourceError: Nothing matches, a folder cannot be read, or the file that is named is an old `.doc`.
        StorageError: It is an address, and the store cannot be asked.
    """
    if is_remote(config.path):
        return _find_remote(config)
    target = base / config.path
    try:
        if target.is_dir():
            found = _files_below(target, config.format)
            missing = f"no file below this folder ends in {_known_endings(config.format)}; name files with a glob to read others"
        elif target.exists():
            if config.format == "auto" and _split_ending(target)[0] == OLD:
                raise SourceError(f"{_name_below(target, base)}: {OLD_IS_NOT_READ}")
            if not target.is_file():  # one waits for ever at a pipe to which nobody writes, and what came through it cannot be read again
                raise SourceError(f"source '{visible(config.path)}' is {_kind(target)} and no file: write what comes from it to a file, and name that")
            return [target]
        elif target.is_symlink():
            missing = f"it is a link to {visible(str(target.readlink()))}, which leads {'back to itself' if _is_loop(target) else 'nowhere'}; {_AIM}"
            found = []
        else:
            matches = sorted(glob.glob(config.path, root_dir=base, recursive=True))
            found = [base / match for match in matches if (base / match).is_file()]
            beside = did_you_mean(target.name, (file.name for file in target.parent.glob("*")), cutoff=0.7)
            missing = f"no file, folder or glob match; {beside or _begins(base)}"
    except (OSError, ValueError) as exc:
        raise SourceError(f"source '{visible(config.path)}', looked for in {base.absolute()}: {exc}") from exc
    if not found:
        raise SourceError(f"source '{visible(config.path)}', looked for in {base.absolute()}: {missing}")
    return found


def _kind(path: Path) -> str:
    """What stands at `path` that is neither a file nor a folder."""
    if path.is_fifo():
        return "a pipe"
    return "a socket" if path.is_socket() else "a device"


def _is_loop(link: Path) -> bool:
    try:
        link.stat()
    except OSError as exc:
        return exc.errno == errno.ELOOP
    return False


def _begins(base: Path) -> str:
    """Where relative paths begin: those of a command, and of a config that lies there, where it is typed."""
    here = base.absolute() == Path.cwd()
    return "a relative path begins in that folder" if here else "a path in a config is relative to the folder of the config"


def _find_remote(config: SourceConfig) -> list[RemoteFile]:
    from safer_instruct.storage.files import find_files

    found = find_files(config.path, lambda path: bool(known := _split_ending(path)[0]) and config.format in ("auto", known))
    if not found:
        missing = f"no object and no glob match, and nothing below it ends in {_known_endings(config.format)}"
        raise SourceError(f"source '{visible(config.path)}': {missing}")
    return found


def _files_below(folder: Path, format: str) -> list[Path]:
    found = []
    for at, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(at, name) for name in names if not name.startswith("."))
        found += [path for path in paths if (known := _split_ending(path)[0]) and format in ("auto", known) and path.is_file()]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _known_endings(*formats: str) -> str:
    return " ".join(ending for ending, known in _ENDINGS.items() if known != OLD and ("auto" in formats or known in formats)) + " (or these with .gz or .zst)"


def _split_ending(path: PurePath | RemoteFile) -> tuple[str, str]:
    """The format that the ending tells ('' for none), and the packing ('' for none)."""
    endings = [ending.lower() for ending in path.suffixes]
    packing = endings.pop() if endings and endings[-1] in _PACKINGS else ""
    return _ENDINGS.get(endings[-1], "") if endings else "", packing


def describe(path: Path | RemoteFile, config: SourceConfig, base: Path, *, rows: bool = False) -> File:
    """What is known of `path` before it is opened.

    Args:
        path: One that `find` gave.
        config: Where it was found.
        base: The folder that its shown name starts from.
        rows: Whether it is to hold rows with columns; then nobody can set 'format' unless `config` has it set.

    Raises:
        SourceError: The ending tells no format, and the config sets none.
    """
    name = _name_below(path, base) if isinstance(path, Path) else str(path)
    known, packing = _split_ending(path)
    format = known if config.format == "auto" else config.format
    if not format:
        if (path.suffixes or [""])[-1].lower() in _SHEETS:
            raise SourceError(f"{name}: spreadsheets are not read; save it as CSV in UTF-8 (in Excel: 'CSV UTF-8') and name that file")
        if rows and "format" not in config.model_fields_set:
            raise SourceError(f"{name}: the ending tells no format; give a file of rows, whose name ends in one of {_known_endings(*TABLES)}")
        raise SourceError(f"{name}: the ending tells no format; rename the file to one of {_known_endings('auto')}, or set 'format' in a config")
    return File(path, name, format, packing)


def version_of(file: File) -> tuple[int, ...] | None:
    """Device, inode, size and time of the last change of a file on this machine; None of an object in a bucket, of a pipe, and of what is gone."""
    if not isinstance(file.path, Path):
        return None
    try:
        said = file.path.stat()
    except OSError:
        return None
    return (said.st_dev, said.st_ino, said.st_size, said.st_mtime_ns) if stat.S_ISREG(said.st_mode) else None


def only_grew(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether of two versions of a file the later one is the same file, and larger."""
    return before[:2] == after[:2] and before[2] < after[2]


def _name_below(path: Path, base: Path) -> str:
    absolute, root = Path(os.path.abspath(path)), os.path.abspath(base)
    shown = absolute.relative_to(root) if absolute.is_relative_to(root) else absolute
    return os.fsencode(shown).decode("utf-8", "backslashreplace")
