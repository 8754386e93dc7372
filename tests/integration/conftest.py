"""What integration tests share: the embedded model, where it is installed and pulled."""

from __future__ import annotations

import importlib.util

import pytest

from safer_instruct.errors import ModelError
from safer_instruct.models import store


@pytest.fixture(scope="session")
def embedded_name() -> str:
    """Name of the pulled embedded model; skips where it cannot run (`make test` installs and pulls it)."""
    if importlib.util.find_spec("ctranslate2") is None:
        pytest.skip("the extra local is not installed")
    try:
        store.gguf_path(store.EMBEDDED)
    except ModelError as exc:
        pytest.skip(str(exc))
    return store.EMBEDDED
