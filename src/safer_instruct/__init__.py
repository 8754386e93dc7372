"""Safer-Instruct: preference data (prompt, chosen, rejected) from real text, without annotators.

from safer_instruct import load_config, run

result = run(load_config("civility.yaml"), out="runs/civility")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safer_instruct.config import load_config as load_config
    from safer_instruct.config import load_tune_config as load_tune_config
    from safer_instruct.pipeline import run as run
    from safer_instruct.tuning.tune import tune as tune

__all__ = ["load_config", "load_tune_config", "run", "tune"]

_HOME = {"load_config": "config", "load_tune_config": "config", "run": "pipeline", "tune": "tuning.tune"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import safer_instruct` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'safer_instruct' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"safer_instruct.{_HOME[name]}"), name)
