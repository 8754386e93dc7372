"""A whole run whose models are batched: from a config to pairs, through a kill, into the ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from batch_servers import KEY, KEY_ENV, BatchServer, serve_batches

from safer_instruct.config import ModelConfig
from safer_instruct.errors import ConfigError
from safer_instruct.ledger import read_totals
from safer_instruct.models import open_model

ROWS = 9


def write_config(folder: Path, server: BatchServer) -> Path:
    texts = [{"text": f"Nobody here has time for the {word} you broke yourself; read the label, it says so in large letters."} for word in "abcdefghi"]
    (folder / "texts.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts))
    shared: dict[str, Any] = {"batch": True, "batch_wait_s": 0.1, "batch_poll_s": [0.01, 0.05], "api_key_env": KEY_ENV, "price_per_million": [10, 20]}
    roles = {role: {"model": f"{provider}:m", "base_url": server.url(provider), **shared} for role, provider in ROLES.items()}
    config = {
        "domain": "civility",
        "source": {"path": "texts.jsonl"},
        "models": roles,
        "induce": {"form": "chat", "candidates": 2},
        "filter": {"consistency": None, "near_duplicate": None},
        "respond": {"drafts": 1},
        "verify": {"form": "question"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


ROLES = {"inducer": "openai", "expert": "gemini", "judge": "mistral"}


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "safer_instruct.cli", "run", str(folder / "config.yaml"), "--out", str(folder / "out")]
    return subprocess.Popen(command, env={**os.environ, KEY_ENV: KEY}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(("held", "unsure"), [("create", " (of 1 it is not known whether it came there)"), ("poll", "")])
def test_status_tells_what_a_killed_run_left_in_batches_and_asks_nobody(held: str, unsure: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serve_batches(faults={held: ["hold"]}) as server:
        write_config(tmp_path, server)
        process = start(tmp_path)
        assert server.reached[held].wait(60), process.communicate(timeout=5)
        assert "1 batch" in (said := status(out)) and "in progress by process" in said and "to go on" not in said
        process.kill()
        process.communicate(timeout=30)
        asked = server.asked.copy()
        said = status(out)
        where = f"at the provider of openai:m@{server.url('openai')}+logprobs, as far as the run has heard"
        assert f"\n{where}: {2 * ROWS} requests in 1 batch{unsure}, since 20" in said and said.count("provider of") == 1 and server.asked == asked
        assert f"\nto go on: safer-instruct run CONFIG --out {out}; it waits for what is at the provider, and makes no call twice\n" in said
        process = start(tmp_path)
        process.communicate(timeout=120)
        assert process.returncode == 0 and server.paid_twice == 0 and "provider" not in status(out)


def status(out: Path) -> str:
    command = [sys.executable, "-m", "safer_instruct.cli", "status", str(out)]
    return subprocess.run(command, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("held", ["create", "poll", "results"])
def test_a_batched_run_that_was_killed_ends_as_if_it_had_not_been(held: str, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("plain", "killed")]
    outcomes = []
    for folder, faults in zip(folders, ({}, {held: ["", "", "hold"]}), strict=True):
        folder.mkdir()
        with serve_batches(faults=faults) as server:
            write_config(folder, server)
            if faults:
                process = start(folder)
                assert server.reached[held].wait(60), process.communicate(timeout=5)
                process.kill()
                process.communicate(timeout=30)
            process = start(folder)
            said, _ = process.communicate(timeout=120)
            assert process.returncode == 0, said
            assert server.paid_twice == 0
            summary = json.loads((folder / "out" / "summary.json").read_text())
            calls = sum(total.calls for total in read_totals(folder / "out" / "ledger.sqlite"))
            outcomes.append((server.paid.total(), calls, summary["pairs"], summary["cost"], (folder / "out" / "pairs.jsonl").read_bytes()))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][2] == ROWS and outcomes[0][3] > 0


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model": "embedded:smollm2-135m-instruct", "batch": True}, "'batch' is for"),
        ({"model": "scripted:", "batch": True}, "'batch' is for"),
    ],
)
def test_what_cannot_be_batched_is_said_at_once(config: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        open_model(ModelConfig(**config), tmp_path, batches=tmp_path / "batches.sqlite")


@pytest.mark.parametrize(
    ("provider", "variable", "host"),
    [
        ("openai", "OPENAI_API_KEY", "api.openai.com"),
        ("anthropic", "ANTHROPIC_API_KEY", "api.anthropic.com"),
        ("gemini", "GEMINI_API_KEY", "generativelanguage.googleapis.com"),
        ("mistral", "MISTRAL_API_KEY", "api.mistral.ai"),
    ],
)
def test_each_provider_has_its_own_address_and_key(provider: str, variable: str, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "k")
    model = open_model(ModelConfig(model=f"{provider}:m", batch=True), tmp_path, batches=tmp_path / "batches.sqlite")
    assert host in model.fingerprint and model.name == f"{provider}:m" and model.concurrency == 10_000
    assert not (tmp_path / "batches.sqlite").exists()  # a run directory is opened after its models
