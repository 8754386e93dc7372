"""A dataset folder: Parquet by split, described by Croissant metadata and a dataset card, as `load_dataset` and the hub read it."""

from __future__ import annotations

from pathlib import Path

from safer_instruct.card import Release, dataset_card
from safer_instruct.export.croissant import write_croissant
from safer_instruct.export.rows import Finished
from safer_instruct.export.tables import write_parquet
from safer_instruct.wholefile import sha256_of


def write_data(finished: Finished, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Parquet files and `croissant.json`; gives the files, relative to the folder, and their SHA-256, both by split."""
    (folder / "data").mkdir()
    files = {split: f"data/{split}.parquet" for split in finished.counts}
    for split, file in files.items():
        write_parquet(folder / file, finished.rows(split), finished.columns)
    digests = {split: sha256_of(folder / file) for split, file in files.items()}
    write_croissant(finished, folder, files, digests)
    return files, digests


def write_dataset(finished: Finished, folder: Path) -> None:
    """The data, and `README.md` with a header that names the splits."""
    (files, digests), options = write_data(finished, folder), finished.options
    shown = tuple(finished.provenance), options.redact, options.gated is not None
    release = Release(files, finished.counts, *shown, options.reviewed, options.selected, finished.corrected, digests)
    (folder / "README.md").write_text(dataset_card(finished.described(), release), encoding="utf-8")
