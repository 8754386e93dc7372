"""The weights that a server is started with: where they lie, and a digest of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from safer_instruct.errors import ModelError
from safer_instruct.models import store
from safer_instruct.wholefile import sha256_of

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")


def find_weights(what: str, base: Path) -> Path:
    """The GGUF file or the model folder that `served:WHAT` names: a path relative to `base`, or a model of the cache.

    Raises:
        ModelError: There is no such thing, or no weights are in it.
    """
    path = base / Path(what).expanduser()
    if path.is_file():
        return _checked_gguf(path)
    if path.is_dir():
        return _checked_folder(path)
    if what in (names := [model.name for model in store.pulled()]):
        return store.gguf_path(what)
    raise ModelError(
        f"served:{what}: no weights at {path.absolute()}, and no model of that name in {store.cache_dir()} (there: {', '.join(names) or 'none'}); "
        "give the path of a GGUF file, or of a folder with config.json and safetensors, such as 'hf download ORG/NAME --local-dir FOLDER' writes"
    )


def digest(path: Path) -> str:
    """SHA-256 of a GGUF file with its further shards, or over the files of a folder; remembered by size and time of change."""
    if path.is_file():
        return _over(path.parent, _shards(path))
    return _over(path, (file for file in path.rglob("*") if file.is_file() and _counts(file.relative_to(path))))


def _checked_gguf(path: Path) -> Path:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ModelError(f"{path} is no GGUF file (it begins with {magic!r}); for safetensors name the folder that holds them")
    missing = [file.name for file in _shards(path) if not file.is_file()]
    if missing:
        raise ModelError(f"{path} is one of several shards, and {missing[0]} is not beside it")
    return path


def _shards(path: Path) -> list[Path]:
    match = _SHARD.search(path.name)
    stem = path.name[: match.start()] if match else ""
    return [path.with_name(f"{stem}-{i:05d}-of-{match[1]}.gguf") for i in range(1, int(match[1]) + 1)] if match else [path]


def _checked_folder(path: Path) -> Path:
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} holds no config.json, so it is no model folder; for a GGUF file give the path of the file itself")
    if not any(file for pattern in _WEIGHTS for file in path.glob(pattern)):
        raise ModelError(f"{path} holds a config.json and no weights ({', '.join(_WEIGHTS)})")
    return path


def _counts(relative: Path) -> bool:
    """Whether answers may depend on a file: not on hidden ones (.git, .cache), nor on a model card."""
    return not any(part.startswith(".") for part in relative.parts) and relative.suffix.lower() != ".md"


def _over(root: Path, files: Iterable[Path]) -> str:
    lines = sorted(f"{file.relative_to(root).as_posix()} {_file_digest(file)}" for file in files)
    if len(lines) == 1:
        return lines[0].rpartition(" ")[2]  # a renamed file is the same model
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    """SHA-256 of a file; read again only when its size or its time of change is another one."""
    real = path.resolve()
    stat = real.stat()
    seen = [stat.st_size, stat.st_mtime_ns]
    record = store.cache_dir() / "digests" / f"{hashlib.sha256(os.fsencode(real)).hexdigest()[:32]}.json"
    try:
        *known, sha256 = json.loads(record.read_text(encoding="utf-8"))
        if known == seen and isinstance(sha256, str):
            return sha256
    except (FileNotFoundError, ValueError, TypeError):  # not there, or damaged: it is written anew
        pass
    sha256 = sha256_of(real)
    record.parent.mkdir(parents=True, exist_ok=True)
    part = record.with_name(f"{record.name}.{os.getpid()}.part")
    part.write_text(json.dumps([*seen, sha256]), encoding="utf-8")
    part.replace(record)
    return sha256
