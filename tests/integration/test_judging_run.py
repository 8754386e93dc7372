"""Whole runs that are verified by probability, by a panel, and by rewards; and the embedded model as judge."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from safer_instruct.config import load_config
from safer_instruct.evaluation.honesty import builders_of_run
from safer_instruct.judging import read_judging
from safer_instruct.models.embedded import EmbeddedModel
from safer_instruct.models.protocol import Generation, Sampling, Scoring, Turn
from safer_instruct.pipeline import run

DOMAIN: dict[str, Any] = {
    "name": "manners",
    "description": "Replies of shop staff.",
    "categories": {
        "rude": {"definition": "A rude reply.", "guideline": "Be kind.", "criteria": ["Is it polite?"], "scales": [{"question": "How helpful is it?"}]}
    },
}
TEXTS = ["Your umbrella broke because you opened it outdoors, imagine that.", "The kettle leaks since you dropped it, so buy another and hold it."]
KIND_JUDGE = {
    "generate": [
        {"match": "Reply B:\n\\S+\nGladly", "answers": ["B"], "alternatives": {"B": -0.1, "A": -2.4}},
        {"match": "Reply A:", "answers": ["A"], "alternatives": {"A": -0.1, "B": -2.4}},
        {"match": "How helpful", "answers": ["5"], "alternatives": {"5": -0.2, "4": -1.8}},
        {"match": "Is it polite", "answers": ["Yes"], "alternatives": {"Yes": -0.3, "No": -1.4}},
    ]
}
STRICT_JUDGE = {"generate": [{"match": "Is it polite", "answers": ["No"], "alternatives": {"No": -0.1, "Yes": -2.4}}, *KIND_JUDGE["generate"]]}


def project(folder: Path, **changes: Any) -> Path:
    files = {
        "manners.yaml": DOMAIN,
        "inducer.yaml": {"generate": [{"answers": ["Please tell me about {words}."]}]},
        "expert.yaml": {"generate": [{"answers": ["Gladly, here is what I know of {words}."]}]},
        "kind.yaml": KIND_JUDGE,
        "strict.yaml": STRICT_JUDGE,
    }
    for name, data in files.items():
        (folder / name).write_text(yaml.safe_dump(data), encoding="utf-8")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS), encoding="utf-8")
    models = {"inducer": "scripted:inducer.yaml", "expert": "scripted:expert.yaml", "judge": "scripted:kind.yaml", **changes.pop("models", {})}
    config = {
        "domain": "manners.yaml",
        "source": {"path": "texts.jsonl"},
        "models": models,
        "filter": {"consistency": None},
        "verify": {"form": "question", "answers": "weighted", "rounds": 1},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config | changes), encoding="utf-8")
    return folder / "mine.yaml"


def verdicts(path: Path) -> list[dict[str, float]]:
    return [{v["name"]: v["score"] for v in row["verdicts"]} for row in pq.read_table(path / "examples.parquet").to_pylist()]


def test_a_run_is_verified_by_probability(tmp_path: Path) -> None:
    result = run(load_config(project(tmp_path)), tmp_path / "out")
    assert result.summary["pairs"] == 2 and result.summary["thresholds"] == "defaults or the config's own, not calibrated"
    first = verdicts(result.path)[0]
    assert 0.74 < first["verify.criterion_1"] < 0.76 and 4.8 < first["verify.criterion_2"] < 4.9 and first["verify.better"] > 0.9
    assert first["judge.flips"] == 0.0 and read_judging(result.path).flips["judge"][0] == 0.0
    again = run(load_config(tmp_path / "mine.yaml"), tmp_path / "out")
    assert again.summary["timing"]["calls_from_ledger"] == again.summary["calls"] and verdicts(again.path)[0] == first


def test_the_same_command_again_keeps_the_books_of_a_judge_that_tells_no_probabilities(tmp_path: Path) -> None:
    silent = {
        "latency_s": 0.02,
        "generate": [
            {"match": "Reply B:\n\\S+\nGladly", "answers": ['{"reason": "warm", "answer": "B"}']},
            {"match": "Reply A:", "answers": ['{"reason": "warm", "answer": "A"}']},
            {"match": "How helpful", "answers": ['{"reason": "of use", "answer": "5"}']},
            {"match": "Is it polite", "answers": ['{"reason": "warm", "answer": "Yes"}']},
        ],
    }
    (tmp_path / "silent.yaml").write_text(yaml.safe_dump(silent), encoding="utf-8")
    config = project(tmp_path, models={"judge": "scripted:silent.yaml"})
    lines = [{"text": f"Your umbrella number {i} broke because you opened it outdoors, and kettle {i * 7} leaks."} for i in range(12)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    first = run(load_config(config), tmp_path / "out").summary
    again = run(load_config(config), tmp_path / "out").summary
    assert first["timing"]["calls_from_ledger"] == 0 and again["timing"]["calls_from_ledger"] == again["calls"]
    assert {**again, "timing": None} == {**first, "timing": None} and first["pairs"] > 0


def test_a_panel_decides_by_majority_and_its_agreement_can_be_told(tmp_path: Path) -> None:
    panel = {"models": {"panel": {"strict": "scripted:strict.yaml", "third": "scripted:kind.yaml"}}}
    result = run(load_config(project(tmp_path, **panel)), tmp_path / "out")
    assert result.summary["pairs"] == 2 and {"panel.strict", "panel.third"} <= result.summary["models"].keys()
    found = read_judging(result.path)
    assert found.judges == ("judge", "strict", "third") and {tuple(unit) for unit in found.votes["verify.criterion_1"]} == {(1.0, 0.0, 1.0)}
    assert "panel.strict" in yaml.safe_load((result.path / "run.yaml").read_text("utf-8"))["how"]["models"]
    built = {(builder.role, builder.model) for builder in builders_of_run(result.path, "out")}
    kind, strict = "scripted:kind.yaml", "scripted:strict.yaml"
    assert built == {("inducer", "scripted:inducer.yaml"), ("expert", "scripted:expert.yaml"), ("judge", kind), ("panel", strict), ("panel", kind)}


def test_a_run_is_verified_by_rewards(tmp_path: Path) -> None:
    (tmp_path / "reward.yaml").write_text("score: [{logprob: 2.0}]\n", encoding="utf-8")
    config = project(tmp_path, models={"reward": "scripted:reward.yaml"}, verify={"form": "reward", "min_reward": 1.5})
    result = run(load_config(config), tmp_path / "out")
    assert (
        result.summary["pairs"] == 2 and verdicts(result.path)[0]["verify.acceptable"] == 2.0 and result.summary["models"]["reward"] == "scripted:reward.yaml"
    )


def test_the_embedded_model_tells_its_likeliest_first_tokens(embedded_name: str) -> None:
    model = EmbeddedModel(embedded_name)
    request = Generation((Turn("user", "Is water wet? Answer Yes or No."),), Sampling(1, 0.0, 0), alternatives=5)

    async def ask() -> Any:
        alone = await model.generate(request)
        beside = await asyncio.gather(model.generate(request), *(model.score(Scoring("A b c", f"d {i}")) for i in range(4)))
        return alone, beside[0], await model.generate(Generation(request.prompt, Sampling(1, 0.0, 0)))

    alone, beside, plain = asyncio.run(ask())
    (completion,) = alone.completions
    assert alone.completions == beside.completions and len(completion.alternatives) == 5
    assert [p for _, p in completion.alternatives] == sorted((p for _, p in completion.alternatives), reverse=True)
    assert {"Yes", "No"} <= {token for token, _ in completion.alternatives}
    assert completion.text == plain.completions[0].text and abs(completion.alternatives[0][1] - plain.completions[0].logprob) < 1e-3


def test_the_embedded_model_scores_up_to_a_cap_what_it_scores_without(embedded_name: str) -> None:
    model = EmbeddedModel(embedded_name)
    whole, capped = (asyncio.run(model.score(Scoring("### Response:\n", "The bridge is closed until the river falls.", cap))).logprobs for cap in (None, 4))
    assert len(capped) == 4 and all(abs(a - b) < 0.05 for a, b in zip(whole, capped, strict=False)), "int8: other lengths, other rounding"
