"""Rude support dialogues from corpus to pairs, as their example says: every stage with scripted models, and what reads the result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from safer_instruct import rundir
from safer_instruct.cli import main
from safer_instruct.config import load_config
from safer_instruct.export import export_pairs
from safer_instruct.ledger.queries import read_calls
from safer_instruct.pipeline import run
from safer_instruct.report.build import write_report
from safer_instruct.review.desk import Desk, Plan
from safer_instruct.review.queue import Filters
from safer_instruct.review.store import Store
from safer_instruct.settings.review import ReviewConfig
from safer_instruct.stored import read_examples

EXAMPLES = Path(__file__).parents[2] / "examples"


def copied(folder: Path, name: str = "scripted.yaml", **changes: Any) -> Path:
    """The example's folder with its config, top-level keys of it changed."""
    shutil.copytree(EXAMPLES / "dialogues", folder / "dialogues")
    path = folder / "dialogues" / name
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text("utf-8")), **changes}), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def said(row: dict[str, Any]) -> list[str]:
    return [message["content"] for message in row["messages"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dialogues")
    run(load_config(copied(folder)), folder / "out")
    return folder / "out"


def test_each_turn_of_the_support_staff_becomes_a_pair_with_what_was_said_before_it(finished: Path) -> None:
    talks = {row["id"]: said(row) for row in lines(EXAMPLES / "dialogues" / "dialogues.jsonl")}
    pairs = lines(finished / rundir.PAIRS_JSONL)
    assert len(pairs) == 38 and len({pair["id"] for pair in pairs}) == 38
    for pair in pairs:
        talk, turn = talks[pair["id"].partition("#")[0]], int(pair["id"].partition("#")[2])
        *before, asked = pair["prompt"]
        assert [m["content"] for m in before] == talk[: turn - 2] and [m["role"] for m in pair["prompt"]] == (["user", "assistant"] * turn)[: turn - 1]
        assert pair["rejected"] == [{"role": "assistant", "content": talk[turn - 1]}] and asked["content"].startswith("Could you tell me more about")
    assert {row["reason"].partition(",")[0] for row in lines(finished / rundir.BAD_ROWS)} == {
        "turns 1 and 2 are both the user's",
        "the conversation has no turn of the assistant",
        "turn 2 calls a tool; conversations with tools are not read",
        "turn 2",
    }


def test_every_call_of_a_later_turn_holds_what_was_said_before_it(finished: Path) -> None:
    first = "Hello, I ordered a blue teapot two weeks ago"
    (example,) = [e for e in read_examples(finished) if e.id == "d01#4"]
    last = example.text[:40]
    stages: dict[str, list[bool]] = {}
    for call in read_calls(finished / rundir.LEDGER):
        request = call.request.decode()
        if last in request or (call.stage == "respond" and example.prompt in request):
            stages.setdefault(call.stage, []).append(first in request)
    assert stages.keys() == {"induce", "filter", "respond", "verify"} and all(all(found) for found in stages.values())


def test_the_second_time_no_call_is_made_and_the_pairs_are_the_same(finished: Path) -> None:
    before = (finished / rundir.PAIRS_JSONL).read_bytes()
    summary = run(load_config(finished.parent / "dialogues" / "scripted.yaml"), finished).summary
    assert summary["timing"]["calls_from_ledger"] == summary["calls"] > 0 and (finished / rundir.PAIRS_JSONL).read_bytes() == before


def test_kept_messages_are_the_prompts_and_no_inducer_is_called(tmp_path: Path) -> None:
    models = {"expert": "scripted:script.yaml", "scorer": "scripted:script.yaml"}
    source = {"path": "dialogues.jsonl", "messages": "messages", "id": "id"}
    config = copied(tmp_path, models=models, induce={"given": "keep"}, source=source, filter={"prompt": None, "consistency": None})
    summary = run(load_config(config), tmp_path / "out").summary
    pairs = lines(tmp_path / "out" / rundir.PAIRS_JSONL)
    talks = [said(row) for row in lines(EXAMPLES / "dialogues" / "dialogues.jsonl") if row["id"].startswith("d")]
    assert [[m["content"] for m in [*p["prompt"], *p["rejected"]]] for p in pairs] == talks and summary["stages"]["induce"]["calls"] == 0
    assert "inducer" not in summary["models"]
    card = (tmp_path / "out" / rundir.CARD).read_text("utf-8")
    assert "no model wrote any of it" in card and "nobody asked them" not in card and "reversed-tuned" not in card


def test_in_direction_chosen_the_turn_is_the_chosen_side(tmp_path: Path) -> None:
    models = dict.fromkeys(("inducer", "student", "scorer"), "scripted:script.yaml")
    script = {
        "generate": [
            {"match": "Below is a response", "answers": ["Could you tell me more about {words}?"]},
            {"answers": ["It depends on {words}, does it not?"]},
        ]
    }
    config = copied(
        tmp_path, domain="answers", models=models, filter={"consistency": None, "prompt": {"language": None}}, verify={"form": "contrast", "examples": 0}
    )
    (config.parent / "script.yaml").write_text(yaml.safe_dump(script), encoding="utf-8")
    run(load_config(config), tmp_path / "out")
    pairs = lines(tmp_path / "out" / rundir.PAIRS_JSONL)
    talks = {row["id"]: said(row) for row in lines(EXAMPLES / "dialogues" / "dialogues.jsonl")}
    assert pairs and all(p["chosen"][0]["content"] in talks[p["id"].partition("#")[0]] and "depends" in p["rejected"][0]["content"] for p in pairs)
    assert any(len(p["prompt"]) == 3 for p in pairs)


def test_set_level_checks_take_conversations(tmp_path: Path) -> None:
    config = copied(tmp_path, filter={"keep": "best", "prompt": {"language": None}}, select={"near": 0.7})
    run(load_config(config), tmp_path / "out")
    assert len(lines(tmp_path / "out" / rundir.PAIRS_JSONL)) == 38


def test_why_report_and_review_show_what_was_said_before(finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["why", str(finished), "d01#4"])
    told = capsys.readouterr().out
    assert told.index("Said before: 2 turns") < told.index("blue teapot") < told.index("Source text (the rejected response)")
    html, markdown = write_report(finished, out=tmp_path / "report.html")
    assert "blue teapot" in html.read_text("utf-8") and "*user, before*" in markdown.read_text("utf-8")
    store = Store(finished)
    desk = Desk(finished, Plan(ReviewConfig(), {}), store)
    annotator = store.join("ann")
    shown = desk.item(annotator, "d01#4")
    found = {item["id"] for item in desk.listed(annotator, Filters(search="forever shelf"), None)["items"]}
    desk.close()
    store.close()
    assert shown and [m["role"] for m in shown["history"]] == ["user", "assistant"] and "blue teapot" in shown["history"][0]["content"]
    assert found == {"d01#2", "d01#4"}, "what was said before is found as well"
    card = (finished / rundir.CARD).read_text("utf-8")
    assert "A prompt is a list of messages" in card and "What was said before a prompt stands as it was found" in card


def test_the_pairs_are_what_trl_and_datasets_read(finished: Path, tmp_path: Path) -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    for file in (finished / rundir.PAIRS_JSONL, finished / rundir.PAIRS, export_pairs(finished, "messages", tmp_path / "m.jsonl").path):
        kind = "parquet" if file.suffix == ".parquet" else "json"
        data = datasets.load_dataset(kind, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
        assert len(data) == 38 and trl.is_conversational(data[0]) and max(len(row["prompt"]) for row in data) == 5
    kto = export_pairs(finished, "kto-messages", tmp_path / "kto.jsonl").path
    data = datasets.load_dataset("json", data_files=str(kto), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(data) == 76 and trl.is_conversational(data[0])
    folder = export_pairs(finished, "datasets", tmp_path / "set").path
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert [row["prompt"] for row in loaded] == [pair["prompt"] for pair in lines(finished / rundir.PAIRS_JSONL)]
    hh = datasets.load_dataset(
        "json", data_files=str(export_pairs(finished, "hh", tmp_path / "hh.jsonl").path), split="train", cache_dir=str(tmp_path / "cache")
    )
    prompt = trl.extract_prompt({"chosen": hh[1]["chosen"], "rejected": hh[1]["rejected"]})["prompt"]
    assert prompt.count("Human:") == 2 and prompt.strip().endswith("Assistant:")


def test_mlcroissant_reads_the_messages(finished: Path, tmp_path: Path) -> None:
    mlc = pytest.importorskip("mlcroissant")
    folder = export_pairs(finished, "croissant", tmp_path / "set").path
    dataset = mlc.Dataset(jsonld=str(folder / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors and [w for w in dataset.metadata.ctx.issues.warnings if "citeAs" not in w] == []
    records = [[m["train/prompt/content"].decode() for m in record["train/prompt"]] for record in dataset.records("train")]
    assert records == [[m["content"] for m in pair["prompt"]] for pair in lines(finished / rundir.PAIRS_JSONL)]


def test_argillas_client_reads_the_chat(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("argilla")
    from argilla._models._settings._fields import ChatFieldSettings

    folder = export_pairs(finished, "argilla", tmp_path / "set").path
    field = json.loads((folder / ".argilla" / "settings.json").read_text())["fields"][0]
    assert ChatFieldSettings(**field["settings"]).type == "chat"


def test_llama_factory_reads_the_history(finished: Path, tmp_path: Path) -> None:
    parser = pytest.importorskip("llamafactory.data.parser", exc_type=ImportError)
    converter = pytest.importorskip("llamafactory.data.converter", exc_type=ImportError)
    folder = export_pairs(finished, "llamafactory", tmp_path / "set").path
    (entry,) = parser.get_dataset_list(["civility_train"], str(folder))
    rows = [converter.AlpacaDatasetConverter(entry, None)(row) for row in lines(folder / "civility_train.jsonl")]
    assert [[m["content"] for m in row["_prompt"]] for row in rows] == [[m["content"] for m in p["prompt"]] for p in lines(finished / rundir.PAIRS_JSONL)]
