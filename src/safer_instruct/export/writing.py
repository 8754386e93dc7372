"""From a finished run to files in somebody else's format, which appear whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from safer_instruct.errors import ConfigError
from safer_instruct.export.registry import FORMATS, FileFormat, FolderFormat
from safer_instruct.export.rows import Finished, Options
from safer_instruct.nearest import did_you_mean
from safer_instruct.replacing import refuse_others
from safer_instruct.wholefile import whole, whole_folder


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: The file or folder.
        pairs: How many pairs it holds.
        splits: Pairs by split; only `train` in an undivided set.
        missing: Of only accepted pairs: accepted ones that are not among the run's pairs as they stand now.
        dropped: Those of the missing that the run drops now, by the check that dropped them.
        gone: Those of the missing of which the run has no example any more; the rest of them are pairs with other texts.
        corrected: In how many of the pairs a person corrected a text.
    """

    path: Path
    pairs: int
    splits: dict[str, int]
    missing: int = 0
    dropped: Mapping[str, int] = MappingProxyType({})
    gone: int = 0
    corrected: int = 0


def export_pairs(path: Path | str, format_: str, out: Path | str | None = None, options: Options | None = None) -> Exported:
    """Write the pairs of the run directory `path` as `format_`.

    Args:
        path: A finished run.
        format_: One of `FORMATS`.
        out: The file, or the folder where there are several; by default `export.ENDING` or `export-FORMAT/` in `path`.
        options: What leaves the run.

    Raises:
        ConfigError: There is no such format, an option is not for it, a split would be empty, `out` has the ending of another format,
            or the file there is none that this export wrote before.
        RunDirectoryError: The directory holds no finished run, its pairs cannot be read, or something else stands at `out`.
    """
    path, out, options = Path(path), None if out is None else Path(out), options or Options()
    form = _format(format_, options)
    if out and isinstance(form, FileFormat) and not options.splits:
        _check_ending(out, format_, form)
    finished = Finished(path, options)
    if isinstance(form, FileFormat) and form.plain and finished.conversations:
        raise ConfigError(
            f"the prompts of this run are conversations, and format '{format_}' holds plain texts; use --format {form.plain}, or hh for transcripts"
        )
    counts = finished.counts
    if isinstance(form, FileFormat) and not options.splits:
        target = out or path / f"export.{form.ending}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as part:
            form.write(part, finished.rows(next(iter(counts))), finished.columns)
            if out:
                refuse_others(part, target)
    else:
        target = out or path / f"export-{format_}"
        with whole_folder(target) as part:
            _fill(part, form, finished)
            if out:
                refuse_others(part, target)
    missing = finished.missing
    return Exported(target, sum(counts.values()), counts, missing.total, missing.dropped, missing.gone, finished.corrected)


def _check_ending(out: Path, name: str, form: FileFormat) -> None:
    """Any name will do, but for one by which readers would take the file for what it is not."""
    ending = f".{form.ending.rpartition('.')[2]}"
    others = {f".{other.ending}" for other in FORMATS.values() if isinstance(other, FileFormat)} - {ending}
    if out.suffix.lower() in others:
        raise ConfigError(f"{out} will be written, and format '{name}' does not end in {out.suffix}; give --out a name that ends in {ending}")


def _fill(folder: Path, form: FileFormat | FolderFormat, finished: Finished) -> None:
    if isinstance(form, FolderFormat):
        form.write(finished, folder)
        return
    for split in finished.counts:
        form.write(folder / f"{split}.{form.ending}", finished.rows(split), finished.columns)


def _format(name: str, options: Options) -> FileFormat | FolderFormat:
    if name not in FORMATS:
        hint = did_you_mean(name, FORMATS)
        raise ConfigError(f"unknown format '{name}'; {hint}{hint and ' '}choose one of {', '.join(FORMATS)}")
    form = FORMATS[name]
    if options.provenance and isinstance(form, FileFormat) and form.fixed:
        raise ConfigError(f"format '{name}' has no room for further columns; leave out --provenance")
    if options.gated and not (isinstance(form, FolderFormat) and form.card):
        raise ConfigError(f"--gated is said in a dataset card, and format '{name}' has none; use --format datasets")
    return form
