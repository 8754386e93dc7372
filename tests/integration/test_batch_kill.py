"""kill -9 in the middle of a batch, at every step: nothing is lost, and nothing is paid for twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import batch_client
import pytest
from batch_servers import KEY, KEY_ENV, PROVIDERS, BatchServer, answer_to, serve_batches

from safer_instruct.bounds import bound
from safer_instruct.spent import read_spent

QUESTIONS = 12
each = pytest.mark.parametrize("provider", PROVIDERS)


def start(provider: str, server: BatchServer, folder: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, batch_client.__file__, provider, server.url(provider), str(folder), str(QUESTIONS), *flags]
    return subprocess.Popen(command, env={**os.environ, KEY_ENV: KEY}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(provider: str, server: BatchServer, folder: Path, *flags: str) -> None:
    """A sitting that is left alone, and what it must have come to."""
    process = start(provider, server, folder, *flags)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out) == [answer_to(f"question {i}", 0 if provider == "anthropic" else 3) for i in range(QUESTIONS)]
    assert server.paid.total() == len(server.paid) == QUESTIONS


def check_budget(folder: Path) -> None:
    """What is recorded as spent: all of it, and of the bounds no more than the budget's own step, which a kill leaves in it."""
    spent, bound_tokens = read_spent(folder / "spent.json"), bound(batch_client.question(0), batch_client.PRICE, batch=True)[1]
    assert spent is not None and 15 * QUESTIONS <= spent.tokens < 15 * QUESTIONS + (17 - QUESTIONS + 1) * bound_tokens


MOMENTS = (
    ("upload", "hold-before"),  # gathered and listed, nothing sent
    ("upload", "hold"),
    ("create", "hold-before"),  # the call was on its way, and never came
    ("create", "hold"),  # the batch is there, its id was never heard
    ("poll", "hold"),
    ("results", "hold"),
)


@pytest.mark.parametrize(
    ("provider", "op", "kind"),
    [(p, op, kind) for p in PROVIDERS for op, kind in MOMENTS if (p, op) != ("anthropic", "upload")],  # whose rows come with the batch
)
def test_killed_at(provider: str, op: str, kind: str, tmp_path: Path) -> None:
    with serve_batches(polls=3, faults={op: [kind]}) as server:
        process = start(provider, server, tmp_path, "--budget")
        assert server.reached[op].wait(30), process.communicate(timeout=5)
        process.kill()
        process.communicate(timeout=30)
        finish(provider, server, tmp_path, "--budget")
        assert server.created == 1
        check_budget(tmp_path)


@each
def test_killed_when_the_first_answer_is_handed_out(provider: str, tmp_path: Path) -> None:
    with serve_batches() as server:
        process = start(provider, server, tmp_path, "--die-after-first")
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        finish(provider, server, tmp_path)
        assert server.created == 1


def test_killed_again_and_again(tmp_path: Path) -> None:
    faults = {op: ["hold"] for op in ("upload", "create", "poll", "results")}
    with serve_batches(faults=faults) as server:
        for op in faults:
            process = start("openai", server, tmp_path, "--budget")
            assert server.reached[op].wait(30), process.communicate(timeout=5)
            process.kill()
            process.communicate(timeout=30)
        finish("openai", server, tmp_path, "--budget")
        assert server.created == 1
        check_budget(tmp_path)
