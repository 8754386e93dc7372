"""What a folder holds of a training that has finished: the same one is not made again, and another is not written over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from safer_instruct.changes import differences, few
from safer_instruct.errors import RunDirectoryError
from safer_instruct.holding import hold, of_others
from safer_instruct.reverse import RECORD, read_record
from safer_instruct.settings.training import TrainerConfig
from safer_instruct.tuning.launch import is_first

Ready = TypeVar("Ready")

CHECKPOINTS, LOG = "checkpoints", "training.jsonl"
_TRANSFORMERS = ("adapter_config.json", "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja")
WRITTEN = (RECORD, "README.md", LOG, "curves.svg", CHECKPOINTS, "tensorboard", *_TRANSFORMERS, *_TOKENIZER)
_BY_CONTENT = {  # what a path leads to counts, and not the path
    "model": "base_sha256",
    "data": "data_sha256",
    "start": "start_sha256",
    "template": "template_digest",
    "domain": "guideline_sha256",
}


def check_out(out: Path) -> None:
    """That a training may write into a folder, which need not be there.

    Raises:
        RunDirectoryError: It is no folder, or something else stands in it that a training would write over: a project, a run, a model.
    """
    if out.exists() and not out.is_dir():
        raise RunDirectoryError(f"{out} is no folder; choose another 'out'")
    if there := of_others(out, WRITTEN, (RECORD, CHECKPOINTS, LOG, "tensorboard")):
        raise RunDirectoryError(f"{out} holds {', '.join(there[:4])} and no training, and one would write over that; choose another 'out'")


@contextmanager
def held(out: Path, prepare: Callable[[], Ready]) -> Iterator[Ready]:
    """The folder of a training, held while it lasts; where several processes train the first holds it for all.

    Args:
        out: Which need not be there.
        prepare: Gives what is trained and on what: what is missing is told before a folder is made.

    Raises:
        RunDirectoryError: As for `check_out`, or another process trains in it.
    """
    if is_first():
        check_out(out)
    ready = prepare()
    if is_first():
        out.mkdir(parents=True, exist_ok=True)
    with hold(out) if is_first() else nullcontext():
        yield ready


def of_training(folder: Path) -> list[str]:
    """The names in a folder by which it is that of a training, or of what one gave; none where it is something else, or not there."""
    return of_others(folder, (RECORD, LOG, CHECKPOINTS, "adapter_config.json", "*.safetensors"), ())


def finished(out: Path, given: Callable[[], Mapping[str, Any]], config: TrainerConfig) -> dict[str, Any] | None:
    """The record of the training in `out`, if it is finished and is the one that `config` asks for; None where there is none.

    Args:
        out: Where it would stand.
        given: Gives what its record would say of its task, base, start, data and prompts.
        config: Its config, in which paths and `out` do not count: the digests of `given` say what they lead to.

    Raises:
        RunDirectoryError: It holds another one.
        ConfigError: What it says of itself cannot be read.
    """
    record = read_record(out)
    if record is None or not any(out.glob("*.safetensors")):
        return None
    if changes := list(_changes(record, given(), config)):
        raise RunDirectoryError(
            f"{out} holds a training of another config: {few(changes)}. Add --fresh to move it aside and train anew, or choose another 'out'"
        )
    return record


def _changes(record: Mapping[str, Any], given: Mapping[str, Any], config: TrainerConfig) -> Iterator[str]:
    if record.get("task") != given["task"]:
        yield f"task: {record.get('task')}, now {given['task']}"
        return
    old, new = _settings(record.get("config"), type(config)), _settings(config.model_dump(mode="json"), type(config))
    for name, digest in _BY_CONTENT.items():
        named = name != "data" and old.get(name) != new.get(name)
        if record.get(digest) != given.get(digest) or (named and not given.get(digest)):
            yield f"{name}: {old.get(name)}, now {new.get(name)}" if named else f"what '{name}' leads to is another"
    yield from differences(*({name: value for name, value in settings.items() if name not in (*_BY_CONTENT, "out")} for settings in (old, new)))


def _settings(config: Any, kind: type[TrainerConfig]) -> dict[str, Any]:
    """A config with every setting that it leaves at its default, keys sorted; one that is no config any more as it is."""
    with suppress(ValidationError):
        config = kind.model_validate(config, strict=False).model_dump(mode="json")
    return dict(json.loads(json.dumps(config, sort_keys=True))) if isinstance(config, dict) else {}
