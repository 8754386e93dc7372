"""Every format by its name. A new one is a function and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.export import argilla, axolotl, dialogues, folder, llamafactory, tables, trl
from safer_instruct.export.lines import Reshape, write_lines
from safer_instruct.export.rows import Finished, Kind, Row


@dataclass(frozen=True, slots=True)
class FileFormat:
    """One file, or one per split.

    Attributes:
        about: Who reads it.
        ending: Of the file's name.
        write: Writes rows with these columns to a path.
        fixed: Whether its columns are given, so that no others may stand beside them.
        plain: Where prompts are plain texts, the format for conversations; empty where this one takes them.
    """

    about: str
    ending: str
    write: Callable[[Path, Iterable[Row], Mapping[str, Kind]], None]
    fixed: bool = False
    plain: str = ""


@dataclass(frozen=True, slots=True)
class FolderFormat:
    """Several files in one folder.

    Attributes:
        about: Who reads it.
        write: Fills an empty folder.
        card: Whether it says who may do what with the data.
    """

    about: str
    write: Callable[[Finished, Path], object]
    card: bool = False


def _lines(about: str, name: str, reshape: Reshape, *, fixed: bool = False, plain: str = "") -> FileFormat:
    def write(path: Path, rows: Iterable[Row], columns: Mapping[str, Kind]) -> None:
        write_lines(path, rows, reshape)

    return FileFormat(about, f"{name}.jsonl".removeprefix("."), write, fixed, plain)


FORMATS: dict[str, FileFormat | FolderFormat] = {
    "jsonl": _lines("TRL: preference", "", trl.standard, plain="messages"),
    "messages": _lines("TRL: preference, conversational", "messages", trl.conversational),
    "csv": FileFormat("spreadsheets", "csv", tables.write_csv),
    "parquet": FileFormat("TRL: preference, as a table", "parquet", tables.write_parquet),
    "kto": _lines("TRL: unpaired preference, for KTO", "kto", trl.unpaired, plain="kto-messages"),
    "kto-messages": _lines("TRL: unpaired preference, conversational", "kto-messages", trl.unpaired_conversational),
    "hh": _lines("Anthropic HH: transcripts", "hh", dialogues.hh),
    "openai": _lines("OpenAI: preference fine-tuning", "openai", dialogues.openai, fixed=True),
    "rewardbench": _lines("RewardBench: conversations on both sides", "rewardbench", dialogues.rewardbench),
    "llamafactory": FolderFormat("LLaMA-Factory: dpo and rm, with dataset_info.json", llamafactory.write_preference),
    "llamafactory-kto": FolderFormat("LLaMA-Factory: kto, with dataset_info.json", llamafactory.write_kto),
    "axolotl": FolderFormat("Axolotl: dpo, with the YAML that loads it", axolotl.write_dpo),
    "axolotl-kto": FolderFormat("Axolotl: kto, with the YAML that loads it", axolotl.write_kto),
    "argilla": FolderFormat("Argilla: records and settings for rg.Dataset.from_disk", argilla.write_argilla),
    "croissant": FolderFormat("Parquet with Croissant metadata", folder.write_data),
    "datasets": FolderFormat("Hugging Face: Parquet, Croissant metadata and dataset card", folder.write_dataset, card=True),
}
