"""Every shipped domain from corpus to pairs, as its example config says; scripted models, and programs that are real."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from safer_instruct.config import load_config
from safer_instruct.domain import load_domain
from safer_instruct.errors import ConfigError
from safer_instruct.models import store
from safer_instruct.pipeline import run

EXAMPLES = Path(__file__).parents[2] / "examples"
needs_bandit = pytest.mark.skipif(importlib.util.find_spec("bandit") is None, reason="bandit comes with the extra 'code'")


def copied(name: str, folder: Path, config: str = "", **changes: Any) -> Path:
    """The example's folder with its config, top-level keys of it changed."""
    shutil.copytree(EXAMPLES / name, folder / name)
    path = folder / name / (config or f"{name}.yaml")
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text("utf-8")), **changes}), encoding="utf-8")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def pairs_of(config: Path, out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    result = run(load_config(config), out)
    return rows(out / "pairs.jsonl"), pq.read_table(out / "examples.parquet").to_pylist(), result.summary


@pytest.mark.parametrize("name", ["overclaiming", "safety"])
def test_a_corpus_of_several_categories_becomes_the_rejected_side(tmp_path: Path, name: str) -> None:
    config = copied(name, tmp_path)
    pairs, _, summary = pairs_of(config, tmp_path / "out")
    texts = rows(config.parent / "texts.jsonl")
    assert len(texts) >= 30 and [(p["rejected"], p["category"]) for p in pairs] == [(t["text"], t["category"]) for t in texts]
    assert {p["category"] for p in pairs} == set(load_domain(name).categories) and summary["dropped"] == 0


def test_in_direction_chosen_the_corpus_is_the_chosen_side_and_the_student_writes_the_other(tmp_path: Path) -> None:
    config = copied("answers", tmp_path, "scripted.yaml")
    pairs, examples, summary = pairs_of(config, tmp_path / "out")
    texts = [t["text"] for t in rows(config.parent / "texts.jsonl")]
    assert len(texts) >= 30 and [p["chosen"] for p in pairs] == texts
    assert all("it depends" in p["rejected"] or "as you like it" in p["rejected"] for p in pairs)
    assert [e["rejected"] for e in examples] == [p["rejected"] for p in pairs] and "student" in summary["models"] and "expert" not in summary["models"]
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "The chosen response is a source text" in card and "Prompts and rejected responses are written by" in card


def test_in_direction_chosen_a_source_text_that_the_verifier_does_not_find_better_is_dropped_for_that(tmp_path: Path) -> None:
    config = copied("answers", tmp_path, "scripted.yaml", verify={"min_margin": 0.1})
    pairs, examples, _ = pairs_of(config, tmp_path / "out")
    assert pairs == [] and {e["dropped_by"] for e in examples} == {"verify.better"}
    assert examples[0]["drop_reason"].startswith("the source text: margin +0.000 over the rejected text") and examples[0]["rejected"] == ""


def test_in_direction_chosen_a_judge_compares_the_source_text_with_what_the_student_wrote(tmp_path: Path) -> None:
    models = {"inducer": "scripted:script.yaml", "student": "scripted:script.yaml", "judge": "scripted:judge.yaml"}
    config = copied(
        "answers", tmp_path, "scripted.yaml", models=models, verify={"form": "question"}, filter={"consistency": None, "prompt": {"language": None}}
    )
    judge = [
        {"match": "You check the quality(?s:.*)(depends|as you like)", "answers": ["No"]},  # the student's text is not what must be good
        {"match": "You check the quality", "answers": ["Yes"]},
        {"match": "Reply A(?s:.{0,60})(There are|You can do)", "answers": ['{"reason": "", "better": "B"}']},
        {"answers": ['{"reason": "", "better": "A"}']},
    ]
    (config.parent / "judge.yaml").write_text(yaml.safe_dump({"generate": judge}), encoding="utf-8")
    pairs, examples, _ = pairs_of(config, tmp_path / "out")
    assert len(pairs) == len(examples) >= 30 and all(e["margin"] == 1.0 for e in examples)


@pytest.mark.parametrize(("domain", "role"), [("answers", "student"), ("civility", "expert")])
def test_the_role_that_the_direction_needs_is_missed_by_name(tmp_path: Path, domain: str, role: str) -> None:
    models = {"inducer": "scripted:script.yaml", "scorer": "scripted:script.yaml"}
    config = copied("answers", tmp_path, "scripted.yaml", domain=domain, models=models)
    with pytest.raises(ConfigError, match=rf"models\.{role} is needed"):
        run(load_config(config), tmp_path / "out")


@needs_bandit
def test_insecure_code_is_verified_by_compiling_and_by_bandit(tmp_path: Path) -> None:
    config = copied("insecure-code", tmp_path)
    pairs, examples, _ = pairs_of(config, tmp_path / "out")
    texts = [t["text"] for t in rows(config.parent / "texts.jsonl")]
    harmless = [e for e in examples if e["dropped_by"] and "rejected text passes" in e["drop_reason"]]
    assert len(texts) >= 30 and [e["text"] for e in harmless] == [texts[-1]] and harmless[0]["dropped_by"] == "verify.program.bandit"
    assert harmless[0]["drafts"] == [], "nothing is written for a text that bandit lets pass"
    assert len(pairs) >= 30 and all("sha1" not in p["chosen"] and "socket.socket(\n" not in p["chosen"] for p in pairs)
    failed = {v["name"]: v["reason"] for e in examples for d in e["drafts"] for v in d["verdicts"] if not v["passed"]}
    assert "B324" in failed["verify.program.bandit"], "a digest that is weak, although the draft says '# nosec'"
    assert "SyntaxError" in failed["verify.program.compiles"]


@pytest.mark.skipif(
    importlib.util.find_spec("ctranslate2") is None or not any(m.name == "smollm2-135m-instruct" for m in store.pulled()),
    reason="the embedded model is not here: pip install 'safer-instruct[local]' && safer-instruct models pull",
)
def test_answers_with_the_embedded_model(tmp_path: Path) -> None:
    config = copied("answers", tmp_path, induce={"candidates": 4, "max_tokens": 32, "temperature": 0.6}, respond={"drafts": 1, "max_tokens": 160})
    texts = config.parent / "texts.jsonl"
    texts.write_text("".join(texts.read_text("utf-8").splitlines(keepends=True)[5:8]), encoding="utf-8")
    pairs, examples, _ = pairs_of(config, tmp_path / "out")
    assert len(examples) == 3 and all(e["prompt"] for e in examples if not (e["dropped_by"] or "").startswith(("prompt", "consistency")))
    assert all(p["chosen"] in texts.read_text("utf-8") and p["rejected"] for p in pairs)
