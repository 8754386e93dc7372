"""A dataset of others beside a run: its prompts, and its responses where it has them, for the figures that need no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from safer_instruct.analysis.diversity import near_clusters
from safer_instruct.analysis.filters import SetFigures
from safer_instruct.config import SourceConfig
from safer_instruct.detect.words import words
from safer_instruct.errors import ConfigError
from safer_instruct.report.gather import TEXTS_LOOKED_AT, Lowest, Pair, RunView
from safer_instruct.seeds import derive_seed
from safer_instruct.sources import SourceRow, read_rows

_PROMPTS = ("prompt", "instruction", "question", "query", "input", "messages", "conversations")
_RESPONSES = ("chosen", "response", "output", "completion", "answer", "messages", "conversations")
_ASKERS, _ANSWERERS = {"user", "human", "prompter"}, {"assistant", "gpt", "model", "bot"}


def read_dataset(path: Path) -> RunView:
    """Read a JSONL, JSON, CSV, TSV or Parquet file with a column of prompts, in plain or conversational form.

    Args:
        path: The file; `prompt`, `instruction`, `question`, `query`, `input` or a conversation is the prompt, `chosen`, `response`, `output`,
            `completion` or `answer` the response, `rejected` the rejected one.

    Raises:
        SourceError: It cannot be read.
        ConfigError: No row has a prompt.
    """
    view = RunView(path.name, path, {}, {}, [], SetFigures(0, 0, ()))
    pairs: Lowest[Pair] = Lowest(TEXTS_LOOKED_AT)
    for number, row in enumerate(read_rows(SourceConfig(path=str(path.absolute())), Path())):
        pair = _pair(row.fields) if isinstance(row, SourceRow) else None
        if pair is None:
            continue
        view.prompts.append(pair.prompt)
        pairs.add(derive_seed(0, str(number)), pair)
        for name, text in (("prompt", pair.prompt), ("chosen", pair.chosen), ("rejected", pair.rejected)):
            if text:
                view.words[name].append(len(words(text)))
    if not view.prompts:
        raise ConfigError(f"{path}: no row has a prompt; name its column one of {', '.join(_PROMPTS)}")
    view.pairs = pairs.items()
    view.clusters = near_clusters(view.prompts)
    return view


def _pair(fields: Mapping[str, object]) -> Pair | None:
    prompt = _first(fields, _PROMPTS, _ASKERS)
    return Pair("", prompt, _first(fields, _RESPONSES, _ANSWERERS), _first(fields, ("rejected",), _ANSWERERS)) if prompt else None


def _first(fields: Mapping[str, object], columns: Iterable[str], speakers: set[str]) -> str:
    return next((text for column in columns if (text := _said(fields.get(column), speakers))), "")


def _said(value: object, speakers: set[str]) -> str:
    """A text as it stands; of a conversation, the last that one of `speakers` says."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list | tuple):
        turns = [turn for turn in value if isinstance(turn, Mapping)]
        said = [turn.get("content", turn.get("value")) for turn in turns if str(turn.get("role", turn.get("from", ""))).lower() in speakers]
        return next((text.strip() for text in reversed(said) if isinstance(text, str)), "")
    return ""
