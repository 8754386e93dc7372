"""What integration tests share: the embedded model, where it is installed and pulled, and an S3 server."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3Server, serve_s3

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


@pytest.fixture(scope="session")
def s3_process() -> Iterator[S3Server]:
    """One S3 server for all tests, with the bucket `lab`."""
    for package in ("moto", "obstore"):
        pytest.importorskip(package)
    with serve_s3() as server:
        server.create_bucket("lab")
        yield server


@pytest.fixture
def s3(s3_process: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, in the environment of this test; copies and working directories lie in its own folder."""
    for name, value in s3_process.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SAFER_INSTRUCT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("SAFER_INSTRUCT_CACHE", str(tmp_path / "cache"))
    return s3_process
