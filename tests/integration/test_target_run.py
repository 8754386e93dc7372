"""Whole runs with a target, several experts, revisions and boilerplate that is written anew: also killed, and resumed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from forks import Forks

from safer_instruct.config import load_config
from safer_instruct.export import export_pairs
from safer_instruct.export.rows import Options
from safer_instruct.ledger import read_calls
from safer_instruct.pipeline import run
from safer_instruct.stored import read_examples

FILES = ("examples.parquet", "pairs.parquet", "pairs.jsonl", "rejected_rows.jsonl", "README.md", "run.yaml")
NOUNS = ("umbrella", "kettle", "parcel", "lamp", "cake", "bicycle", "ticket", "tent", "ladder", "sofa", "piano", "garden", "window", "carpet")
VERBS = ("broke", "bent", "melted", "vanished", "leaked", "cracked", "rusted", "froze", "sank", "shrank", "tore", "faded", "snapped")
BOILERPLATE = "We are sorry to hear this and a colleague of ours will look into it for you very soon."
ROWS, KILLS = 60, 12

INDUCER = {"generate": [{"answers": ["Could you tell me about {words}, please?"]}]}
MENDS = {"match": "was not accepted", "answers": ["Gladly: {words}, and {words}."]}
KIND = {"generate": [MENDS, {"answers": [BOILERPLATE, "Rude {words}.", "Gladly, {words}."]}]}
BRIEF = {"generate": [{"answers": [BOILERPLATE, "Certainly, here is what we know of {words}."]}]}
SCORER = {
    "score": [
        {"match": r"### Instruction:\nCould you tell me about [b-k]", "logprob": -3.0},  # such prompts are dropped; another pass asks otherwise
        {"match": "### Instruction", "logprob": -1.0},
        {"match": "a reply that is rude", "logprob": -1.5},
        {"match": "a reply that is", "logprob": -1.0},
        {"logprob": -2.0},
    ]
}


def write_config(folder: Path, latency_s: float = 0.0, **sections: Any) -> Path:
    rng = random.Random(3)
    rows = [" ".join(f"{rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.randrange(1000)}" for _ in range(6)) for _ in range(ROWS)]
    lines = [json.dumps({"text": text}) if i % 9 != 4 else "{broken" for i, text in enumerate(rows)]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    for name, script in (("inducer", INDUCER), ("kind", KIND), ("brief", BRIEF), ("scorer", SCORER)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**script, "latency_s": latency_s}))
    config: dict[str, Any] = {
        "domain": "civility",
        "source": {"path": "texts.jsonl"},
        "models": {
            "inducer": "scripted:inducer.yaml",
            "scorer": "scripted:scorer.yaml",
            "experts": {"kind": {"model": "scripted:kind.yaml", "weight": 2}, "brief": "scripted:brief.yaml"},
        },
        "induce": {"candidates": 1},
        "filter": {"prompt": {"language": None}},
        "respond": {"drafts": 1, "revise": 1, "boilerplate": {"regenerate": 1}},
        "verify": {"min_words": 3, "rounds": 1, "also": ["refusal", "grounded"]},
        **sections,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def test_the_target_is_met_in_a_further_pass_and_the_books_say_who_wrote_what(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, target=40))
    result = run(config, tmp_path / "out")
    summary, examples = result.summary, list(read_examples(result.path))
    assert summary["pairs"] == 40 == sum(e.alive for e in examples)
    assert summary["target"]["reached"] and summary["target"]["passes"] > 1
    assert summary["rows"] == ROWS == 40 + summary["dropped"] + summary["set_aside"]
    assert [e.line for e in examples] == sorted(e.line for e in examples)
    assert summary["unique_chosen"] == {"share": 1.0, "exact_repeats": 0, "near_repeats": 0, "near": 0.7}
    writers = summary["writers"]
    assert set(writers) == {"kind", "brief"} and sum(w["pairs"] for w in writers.values()) == 40
    assert sum(w["calls"] for w in writers.values()) == summary["stages"]["respond"]["calls"]
    assert summary["by_model"]["scripted:kind.yaml"]["calls"] == writers["kind"]["calls"]
    drafts = [d for e in examples for d in e.drafts]
    assert {d.expert for d in drafts} == {"kind", "brief"} and {d.revision for d in drafts} == {0, 1}
    taken_back = [e for e in examples if any(v.name == "pair.boilerplate" and not v.passed for d in e.drafts for v in d.verdicts)]
    assert any(e.alive for e in taken_back)
    assert sum(e.chosen == BOILERPLATE for e in examples) == 1
    card = (result.path / "README.md").read_text()
    assert "the target is reached: 40 pairs" in card and "100.0% of the chosen responses are unique" in card and "Pairs by expert: brief " in card


def test_without_a_target_the_same_config_takes_each_text_once(tmp_path: Path) -> None:
    summary = run(load_config(write_config(tmp_path)), tmp_path / "out").summary
    assert "target" not in summary and summary["pairs"] < 40 and "pass_2" not in (tmp_path / "out" / "examples.parquet").read_bytes().decode("latin-1")


def test_running_again_pays_for_nothing_and_changes_no_byte(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, target=25))
    out = run(config, tmp_path / "out").path
    before = [(out / name).read_bytes() for name in FILES]
    calls = {call.key for call in read_calls(out / "ledger.sqlite")}
    again = run(config, out).summary
    assert [(out / name).read_bytes() for name in FILES] == before
    assert again["timing"]["calls_from_ledger"] == again["calls"]
    assert calls <= {call.key for call in read_calls(out / "ledger.sqlite")}


def test_a_single_expert_by_name_and_alone_give_the_same_flow(tmp_path: Path) -> None:
    """The single-expert config stays what it was: drafts carry the role."""
    models = {"inducer": "scripted:inducer.yaml", "scorer": "scripted:scorer.yaml", "expert": "scripted:brief.yaml"}
    summary = run(load_config(write_config(tmp_path, models=models, respond={"drafts": 1})), tmp_path / "out").summary
    assert list(summary["writers"]) == ["expert"] and summary["models"]["expert"] == "scripted:brief.yaml"
    assert summary["unique_chosen"]["share"] < 0.95 and summary["unique_chosen"]["exact_repeats"] > 0


def test_the_provenance_of_exported_rows_names_the_expert(tmp_path: Path) -> None:
    out = run(load_config(write_config(tmp_path, target=20)), tmp_path / "out").path
    export_pairs(out, "parquet", tmp_path / "exported.parquet", Options(provenance=True))
    table = pq.read_table(tmp_path / "exported.parquet")
    by_id = {e.id: e.accepted.expert for e in read_examples(out) if e.accepted}
    assert dict(zip(table["id"].to_pylist(), table["expert"].to_pylist(), strict=True)) == by_id


@pytest.mark.parametrize("target", [20, 40])
def test_killed_at_any_moment_it_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, target: int) -> None:
    """With 20 the run ends while windows are open, with 40 in a further pass."""
    config, out, undisturbed = write_config(tmp_path, 0.005, target=target), tmp_path / "killed", tmp_path / "undisturbed"
    with Forks(tmp_path / "said.txt") as forks:
        forks.finish(config, undisturbed)
        rows = len(_calls(undisturbed))
        killed = 0
        for count in sorted(random.Random(target).sample(range(1, rows - 10), KILLS // 2)):
            killed += forks.run_until(_holds(out, count), config, out)
        forks.finish(config, out)
    assert killed > KILLS // 4
    for name in FILES:
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    told, plain = (json.loads((path / "summary.json").read_text()) for path in (out, undisturbed))
    assert {k: v for k, v in told.items() if k != "timing"} == {k: v for k, v in plain.items() if k != "timing"}
    assert told["pairs"] == target
    assert not [f.name for f in out.iterdir() if f.name.endswith(".part")]


def _calls(out: Path) -> set[bytes]:
    return {call.key for call in read_calls(out / "ledger.sqlite")} if (out / "ledger.sqlite").exists() else set()


def _holds(out: Path, count: int) -> Callable[[], bool]:
    """True once the ledger holds so many calls, and this sitting has made some of them."""
    most = max(count, len(_calls(out)) + 1)

    def reached() -> bool:
        time.sleep(0.01)
        return len(_calls(out)) >= most

    return reached
