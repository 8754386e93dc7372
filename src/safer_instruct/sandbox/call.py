"""Runs inside the sandbox, by path: calls a Python function that verifies a response.

    python -I call.py FOLDER MODULE-OR-FILE:FUNCTION PROMPT-FILE MESSAGES-FILE < RESPONSE

The function is given the response and the prompt; if it has a parameter `messages`, also the whole chat that the response answers,
a list of {role, content} that ends in the prompt. None or True passes; False, a sentence that says why not, or an exception does not:
`assert` says why not as a sentence does, and any other has an exit code of its own, since it may be a fault of the function.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

_EXCEPTION = 3


def main() -> int:
    """Exit code 0 where the response passes, 3 where an exception came out; the reason goes to standard error."""
    try:
        return _verify()
    except Exception as exc:  # noqa: BLE001 - whatever a user's function raises is told, and where
        sys.stderr.write(f"{type(exc).__name__}: {exc}{_place(exc, Path(sys.argv[1]))}")
        return 1 if isinstance(exc, AssertionError) else _EXCEPTION


def _place(exc: Exception, folder: Path) -> str:
    """The last line of a file of the domain that it came through."""
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if Path(frame.filename).is_relative_to(folder)]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _verify() -> int:
    folder, target, prompt, messages = sys.argv[1:5]
    place, _, name = target.rpartition(":")
    function = getattr(_load(place, Path(folder)), name)
    further = {"messages": json.loads(Path(messages).read_text(encoding="utf-8"))} if _takes_messages(function) else {}
    said = function(sys.stdin.buffer.read().decode("utf-8"), Path(prompt).read_text(encoding="utf-8"), **further)
    if said is None or said is True:
        return 0
    sys.stderr.write(said if isinstance(said, str) else f"{target} returned {said!r}")
    return 1


def _takes_messages(function: Any) -> bool:
    try:
        return "messages" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # built in, and it does not tell
        return False


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
