"""Uploading to a hub: huggingface_hub talks to a server on this machine that notes what it is asked."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from runs import write_books

from safer_instruct import tables
from safer_instruct.example import Example

pytest.importorskip("huggingface_hub", reason="uploads need the extra 'hub'")


class Hub(ThreadingHTTPServer):
    """As much of the hub as an upload asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.private, self.refuses = True, False
        self.asked: list[tuple[str, str, str]] = []
        self.created: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        if path.endswith("/repos/create"):
            self.created = json.loads(body)
            return {"url": f"{self.url}/datasets/org/name", "name": "org/name"}
        if path.endswith("/settings"):
            assert not self.files, "what is to be gated is gated before the first file is there"
            self.settings = json.loads(body)
        if "/preupload/" in path:
            return {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]}
        if "/commit/" in path:
            values = [json.loads(line)["value"] for line in body.splitlines()]
            self.files = {value["path"]: base64.b64decode(value["content"]) for value in values if "path" in value}
            return {"commitUrl": f"{self.url}/datasets/org/name/commit/1", "commitOid": "0" * 40, "success": True}
        if method == "GET":
            return {"id": "org/name", "private": self.private, "sha": "0" * 40, "siblings": [], "tags": []}
        return {"errors": [], "warnings": []}


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization") or ""))
        refused = self.server.refuses
        data = json.dumps({"error": "no right to write"} if refused else self.server.answer(self.command, self.path, body)).encode()
        self.send_response(403 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    with tables.outputs(path) as out:
        out.add(Example("a", "Buy one.", "support", "t.jsonl", 1, prompt="Have you an umbrella?", chosen="Gladly, here it is."))
    write_books(path, 1)
    return path


def export(hub: Hub, run: Path, *arguments: str, says: str = "") -> subprocess.CompletedProcess[str]:
    """A process of its own: huggingface_hub reads its endpoint when it is imported."""
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HOME": str(run / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "safer_instruct.cli", "export", str(run), *arguments]
    return subprocess.run(command, env={**os.environ, **settings}, input=says, capture_output=True, text=True, timeout=60, check=False)


def test_an_upload_is_private_and_gated_before_the_files_come(hub: Hub, run: Path) -> None:
    done = export(hub, run, "--format", "datasets", "--redact-rejected", "--gated", "manual", "--push", "org/name", "--yes")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.endswith(f"{hub.url}/datasets/org/name\n")
    assert hub.created == {"name": "name", "organization": "org", "type": "dataset", "visibility": "private"}
    assert hub.settings == {"gated": "manual"}
    assert set(hub.files) == {"README.md", "croissant.json", "data/train.parquet"}
    assert hub.files["data/train.parquet"] == (run / "export-datasets" / "data" / "train.parquet").read_bytes()
    assert {token for _, path, token in hub.asked if path.startswith(("/api/repos", "/api/datasets"))} == {"Bearer hf_test"}


@pytest.mark.parametrize(("says", "uploaded"), [("n\n", False), ("", False), ("y\n", True)])
def test_nothing_leaves_without_a_yes(hub: Hub, run: Path, says: str, uploaded: bool) -> None:
    done = export(hub, run, "--format", "datasets", "--push", "org/name", says=says)
    assert "to org/name (private)?" in done.stdout and (done.returncode == 0) == uploaded
    assert bool(hub.files) == bool(hub.created) == uploaded


def test_a_public_repository_is_not_filled_unasked(hub: Hub, run: Path) -> None:
    hub.private = False
    done = export(hub, run, "--format", "datasets", "--push", "org/name", "--yes")
    assert done.returncode == 2 and "org/name is public already; say --public" in done.stderr and not hub.files
    done = export(hub, run, "--format", "datasets", "--push", "org/name", "--yes", "--public")
    assert done.returncode == 0 and hub.files and hub.created["visibility"] == "public"


def test_what_the_hub_refuses_is_one_line(hub: Hub, run: Path) -> None:
    hub.refuses = True
    done = export(hub, run, "--format", "datasets", "--push", "org/name", "--yes")
    assert done.returncode == 2 and "the hub refused org/name" in done.stderr and "Traceback" not in done.stderr and not hub.files


def test_a_hub_that_is_not_there_is_one_line(hub: Hub, run: Path) -> None:
    hub.shutdown()
    hub.server_close()
    done = export(hub, run, "--format", "datasets", "--push", "org/name", "--yes")
    assert done.returncode == 2 and "the hub cannot be reached" in done.stderr and "Traceback" not in done.stderr
    assert (run / "export-datasets" / "README.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--format", "jsonl", "--push", "org/name"), "--push is for --format datasets"),
        (("--format", "datasets", "--push", "name"), "write ORG/NAME"),
        (("--format", "datasets", "--public"), "--public is for --push"),
    ],
)
def test_a_push_that_cannot_be_writes_nothing(hub: Hub, run: Path, arguments: tuple[str, ...], expected: str) -> None:
    done = export(hub, run, *arguments)
    assert done.returncode == 2 and expected in done.stderr and not hub.asked and not list(run.glob("export*"))
