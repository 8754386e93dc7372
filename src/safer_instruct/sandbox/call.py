"""Runs inside the sandbox, by path: calls a Python function that verifies a response.

    python -I call.py FOLDER MODULE-OR-FILE:FUNCTION PROMPT-FILE < RESPONSE

The function is given the response and the prompt. None or True passes; False, a sentence that says why not, or an exception
does not.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def main() -> int:
    """Exit code 0 where the response passes; the reason goes to standard error."""
    folder, target, prompt = sys.argv[1:4]
    place, _, name = target.rpartition(":")
    said = getattr(_load(place, Path(folder)), name)(sys.stdin.buffer.read().decode("utf-8"), Path(prompt).read_text(encoding="utf-8"))
    if said is None or said is True:
        return 0
    sys.stderr.write(said if isinstance(said, str) else f"{target} returned {said!r}")
    return 1


def _load(place: str, folder: Path) -> ModuleType:
    sys.path.insert(0, str(folder))
    if not place.endswith(".py"):
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location("verifier", folder / place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder / place} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
