"""A quick study with real trainings of a tiny model, killed in the middle: it goes on, and ends as one that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import yaml

pytest.importorskip("trl", reason="the extra train is not installed")
pytest.importorskip("ctranslate2", reason="the extra local is not installed")

from safer_instruct.models import store
from safer_instruct.study import load_study, study
from safer_instruct.study.report import QUICK
from safer_instruct.study.steps import News
from safer_instruct.tuning.export import export_model

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAM = """
import sys
from safer_instruct.study import load_study, study
study(load_study(sys.argv[1], quick=True), sys.argv[2], report=lambda n: print(n.name, n.state, n.doing, sep="|", flush=True))
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of the embedded engine that trains and answers in seconds, in a cache of its own."""
    monkeypatch.setenv("SAFER_INSTRUCT_CACHE", str(tmp_path / "cache"))
    tiny_models.save_tiny("llama", tmp_path / "tiny")
    return store.pull(str(export_model(tmp_path / "tiny", "gguf", tmp_path / "tiny.gguf")), name="tiny").name


@pytest.fixture
def config(tmp_path: Path, tiny: str) -> Path:
    """Eight pairs of the inducer's tuning data, one arm that is tuned and optimised on four of them, three prompts."""
    rows = [json.loads(line) for line in (EXAMPLES / "tune" / "civility.jsonl").read_text("utf-8").splitlines()[::40]][:8]
    pairs = [{"prompt": row["message"], "chosen": row["good"], "rejected": row["rude"]} for row in rows]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    judges = {"scorer": {"form": "contrast", "model": f"embedded:{tiny}", "examples": 0}}
    given = {
        "model": f"embedded:{tiny}",
        "pairs": 4,
        "held_out_pairs": 2,
        "sets": {"ours": "pairs.jsonl"},
        "experiments": {
            "civility": {
                "arms": {"ours": {"sets": "ours"}},
                "evaluate": {
                    "domain": "civility",
                    "prompts": {"path": str(EXAMPLES / "evaluate" / "prompts.jsonl"), "id": "id", "limit": 3},
                    "judges": judges,
                },
            }
        },
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    return tmp_path / "study.yaml"


def test_a_killed_study_goes_on_and_ends_as_an_undisturbed_one(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 in the middle of DPO, after SFT is done."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    killed, undisturbed = config.parent / "killed", config.parent / "undisturbed"
    arguments = [sys.executable, "-c", PROGRAM, str(config), str(killed)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ)) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("dpo") and "|at work|" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL and not (killed / "study.md").exists()
    told: list[News] = []
    resumed = study(load_study(config, quick=True), killed, report=told.append)
    whole = study(load_study(config, quick=True), undisturbed)
    torch.set_num_threads(before)
    assert [news.name.split()[0] for news in told if news.state == "kept"] == ["set", "split", "sft"]
    assert (killed / "study.json").read_text("utf-8") == (undisturbed / "study.json").read_text("utf-8")
    for mark in sorted((undisturbed / "steps").iterdir()):
        first, second = (json.loads((folder / "steps" / mark.name).read_text("utf-8")) for folder in (killed, undisturbed))
        assert first["result"]["content"] == second["result"]["content"], mark.name
    page = resumed.report.read_text("utf-8")
    assert QUICK in page and "base, then SFT and DPO on 4 pairs" in page and resumed.figures == whole.figures
    again: list[News] = []
    assert study(load_study(config, quick=True), killed, report=again.append).figures == whole.figures
    assert {news.state for news in again} == {"kept"}
