"""The files of a PEFT adapter: whether they are there and whole, and what tells one adapter from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safer_instruct.errors import ModelError

_FILES = "adapter_config.json", "adapter_model.safetensors"


def adapter_digest(folder: Path) -> str:
    """SHA-256 over an adapter's config and weights.

    Raises:
        ModelError: A file is missing, or was cut off.
    """
    check_adapter(folder)
    digest = hashlib.sha256()
    for name in _FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def check_adapter(folder: Path) -> None:
    """That an adapter's files are there and whole: of its weights the header tells how long they are.

    Raises:
        ModelError: A file is missing, or was cut off.
    """
    from safetensors import SafetensorError, safe_open

    for name in _FILES:
        if not (folder / name).is_file():
            raise ModelError(f"adapter file {folder / name} does not exist; expected a folder that PEFT or 'safer-instruct tune' wrote")
    weights = folder / _FILES[-1]
    try:
        with safe_open(weights, "numpy"):
            pass
    except SafetensorError as exc:
        raise ModelError(f"adapter file {weights} is damaged, or was cut off as it was copied ({exc}); copy it again, or train again") from exc
