"""Optional dependencies: imported late, and missed with a message that names the pip command."""

from __future__ import annotations

import importlib
from typing import Any

from safer_instruct.errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import `module`, which the extra `extra` brings.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name and exc.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(module, extra, purpose) from None
