"""Runs inside the sandbox, by path: calls a Python function that verifies a response.

    python -I call.py FOLDER MODULE-OR-FILE:FUNCTION PROMPT-FILE MESSAGES-FILE < RESPONSE

The function is given the response and the prompt; if it has a parameter `messages`, also the whole chat that the response answers,
a list of {role, content} that ends in the prompt. None or True passes; False, a sentence that says why not, or an exception does not.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def main() -> int:
    """Exit code 0 where the response passes; the reason goes to standard error."""
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
