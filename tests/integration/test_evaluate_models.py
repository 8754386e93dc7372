"""Evaluation with real parts: the embedded scorer on replies of known civility, and a small task of lm-evaluation-harness."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from misbehaving import Server, serve
from processor import needs_a_quick_processor

from safer_instruct.analysis.bootstrap import Bootstrap
from safer_instruct.cli import main
from safer_instruct.domain import load_domain
from safer_instruct.errors import ConfigError
from safer_instruct.evaluation.downstream import downstream
from safer_instruct.evaluation.figures import measure
from safer_instruct.evaluation.judges import ScoringJudge
from safer_instruct.evaluation.judging import classed_answers, compared, judge_by_score
from safer_instruct.evaluation.prompts import Prompt, finished_responses, read_prompts
from safer_instruct.evaluation.run import evaluate
from safer_instruct.evaluation.settings import DownstreamConfig, JudgeConfig, load_evaluation
from safer_instruct.models.protocol import Scored, Scoring, Usage
from safer_instruct.models.scripted import ScriptedModel
from safer_instruct.prices import show_usd
from safer_instruct.spent import read_spent

EXAMPLE = Path(__file__).parents[2] / "examples" / "evaluate"
RECORDED = json.loads((Path(__file__).parents[1] / "data" / "evaluate" / "civility-scores.json").read_text(encoding="utf-8"))
SYSTEMS = ("rude", "curt", "kind")


class AsRecorded(ScoringJudge):
    """The embedded scorer's numbers for the example, as `safer-instruct evaluate examples/evaluate/evaluate.yaml` once gave them."""

    async def score(self, prompt: Prompt, text: str) -> float | None:
        (found,) = {RECORDED[prompt.id][name] for name in SYSTEMS if prompt.fields[name] == text}
        return float(found)


def test_three_columns_of_known_harmlessness_are_ranked_and_identical_ones_are_not_told_apart() -> None:
    """The scores are recorded, because 300 of them take two minutes; the next test makes some of them anew."""
    config = load_evaluation(EXAMPLE / "evaluate.yaml")
    domain = load_domain(config.domain)
    prompts, bad = read_prompts(config.prompts, domain, config.base, config.seed)
    assert len(prompts) == 50 and not bad
    responses = {name: finished_responses(system, prompts, config.base) for name, system in config.systems.items()}
    responses["rude again"] = responses["rude"]
    judge = AsRecorded(ScriptedModel(), config.judges["scorer"], domain)
    pairs = compared(list(responses), "rude", "all")
    judged = asyncio.run(judge_by_score(judge, prompts, responses, pairs, lambda: None, classed=classed_answers(prompts, responses), rates=True))
    found = measure("harmless", {"scorer": judged}, responses, Bootstrap(50, resamples=200))
    said = {frozenset((c.system, c.other)): c for c in found.comparisons}
    for better, worse in (("kind", "curt"), ("kind", "rude"), ("curt", "rude")):
        comparison = said[frozenset((better, worse))]
        assert comparison.p_adjusted < 0.01 and comparison.verdict.startswith(f"{better} is more harmless than {worse}")
    assert [r.name for r in found.ranking][:2] == ["kind", "curt"]
    assert said[frozenset(("rude", "rude again"))].verdict.startswith("cannot tell whether rude again or rude is more harmless (win rate 0.50")
    assert sum(h is True for h in judged.harmful["kind"]) < sum(h is True for h in judged.harmful["curt"]) < sum(h is True for h in judged.harmful["rude"])


@needs_a_quick_processor
def test_the_embedded_scorer_tells_kind_from_rude_replies_by_itself(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (EXAMPLE / "prompts.jsonl").read_text(encoding="utf-8").splitlines()][:8]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row | {"twin": row["rude"]}) + "\n" for row in rows), encoding="utf-8")
    config = yaml.safe_load((EXAMPLE / "evaluate.yaml").read_text(encoding="utf-8"))
    config["systems"] = {name: {"column": name} for name in ("rude", "twin", "kind")}
    config["harmlessness"] = {"pairs": "baseline"}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    result = evaluate(load_evaluation(tmp_path / "e.yaml"), tmp_path / "out")
    assert result.harmlessness
    twin, kind = result.harmlessness.comparisons
    assert kind.counts.wins == 8 and kind.counts.p < 0.01 and kind.verdict.startswith("kind is more harmless than rude")
    assert twin.counts.ties == 8 and twin.verdict.startswith("cannot tell whether twin or rude is more harmless")
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    off = [p["scores"]["scorer"][name] - RECORDED[p["id"]][name] for p in written["per_prompt"] for name in ("rude", "kind")]
    assert max(map(abs, off)) < 0.5 and abs(sum(off)) / len(off) < 0.1, "the recorded scores are this model's; int8 kernels of processors differ"


class ByWord(ScriptedModel):
    """Finds a continuation likely when it holds the word `right`, and writes it when it is asked to write."""

    async def score(self, request: Scoring) -> Scored:
        return Scored((-0.5 if "right" in request.continuation else -2.0,), Usage())


def task(folder: Path, **more: object) -> DownstreamConfig:
    docs = [{"question": f"Question {n}: which one?", "choices": ["wrong", "right"], "answer": 1 if n else 0} for n in range(4)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs), encoding="utf-8")
    (folder / "tasks").mkdir()
    given = {
        "task": "small_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "docs.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **more,
    }
    (folder / "tasks" / "small.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    return DownstreamConfig(tasks=("small_choice",), include="tasks")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
def test_a_local_task_of_the_harness_is_scored_by_a_model_of_ours(tmp_path: Path) -> None:
    found = asyncio.run(downstream(ByWord(), task(tmp_path), tmp_path, 0))
    scores = {score.metric: score for score in found}
    assert scores["acc"].task == "small_choice" and scores["acc"].value == 0.75 and scores["acc"].error == pytest.approx(0.25)


@pytest.mark.usefixtures("offline")
def test_a_task_that_generates_is_cut_at_its_stop(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"generate": [{"answers": ["right\nand more"]}]}), encoding="utf-8")
    config = task(
        tmp_path,
        output_type="generate_until",
        generation_kwargs={"until": ["\n"]},
        doc_to_target="{{choices[answer]}}",
        doc_to_choice=None,
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )
    found = asyncio.run(downstream(ScriptedModel("m.yaml", base=tmp_path), config, tmp_path, 0))
    assert [(score.metric, score.value) for score in found] == [("exact_match", 0.75)]


@pytest.mark.usefixtures("offline")
def test_a_task_whose_data_is_not_there_is_refused_in_one_sentence(tmp_path: Path) -> None:
    config = task(tmp_path, dataset_kwargs={"data_files": {"test": str(tmp_path / "nowhere.jsonl")}})
    with pytest.raises(ConfigError, match=r"lm-evaluation-harness cannot run small_choice: .*nowhere\.jsonl"):
        asyncio.run(downstream(ByWord(), config, tmp_path, 0))


@pytest.mark.usefixtures("offline")
def test_downstream_figures_stand_in_the_evaluation_and_its_calls_in_the_ledger(tmp_path: Path) -> None:
    task(tmp_path)
    (tmp_path / "p.jsonl").write_text('{"prompt": "Is it open?"}\n', encoding="utf-8")
    config = {
        "domain": "civility",
        "prompts": "p.jsonl",
        "systems": {"a": {"model": "scripted:"}},
        "harmlessness": None,
        "downstream": {"tasks": ["small_choice"], "include": "tasks"},
    }
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    loaded = load_evaluation(tmp_path / "e.yaml")
    first = evaluate(loaded, tmp_path / "out")
    assert {score.metric for score in first.downstream["a"]} == {"acc"} and first.calls == 1 + 8
    assert "| small\\_choice | acc |" in (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert evaluate(loaded, tmp_path / "out").from_ledger == 9


def test_the_scorer_of_the_example_is_the_embedded_one() -> None:
    assert load_evaluation(EXAMPLE / "evaluate.yaml").judges["scorer"] == JudgeConfig(form="contrast", model="embedded:smollm2-135m-instruct")  # type: ignore[arg-type]


def plan(folder: Path, server: Server) -> None:
    """`evaluate` with a system and a judge behind `server`, each at a price."""
    rows = [{"prompt": f"My {thing} is broken, what now?", "curt": "No."} for thing in ("kettle", "lamp", "radio", "clock")]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    models = {role: {"model": f"openai:{role}", "base_url": server.base_url, "price_per_million": [1.0, 2.0]} for role in ("inducer", "judge")}
    systems = {"curt": {"column": "curt"}, "asked": {"model": models["inducer"]}}
    judges = {"one": {"form": "question", "answers": "written", "model": models["judge"]}}
    given = {"domain": "civility", "prompts": "prompts.jsonl", "systems": systems, "judges": judges, "resamples": 200, "budget": {"max_cost": 5.0}}
    (folder / "e.yaml").write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")


def asked(folder: Path, server: Server, *options: str) -> None:
    """An evaluation of answers from a server, which must succeed."""
    plan(folder, server)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(folder / "e.yaml"), "--out", str(folder / "out"), *options])
    assert not ended.value.code


def test_calls_without_usage_leave_the_cost_of_an_evaluation_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(no_usage=True) as server:
        asked(tmp_path, server)
        calls = server.requests
        said = " ".join(capsys.readouterr().out.split())
        asked(tmp_path, server, "--dry-run", "--sample", "2")
    spent = read_spent(tmp_path / "out" / "spent.json")
    why = f"cost unknown (the endpoint reported no usage for {calls} calls, which count as no tokens here)"
    assert spent and f"{calls} model calls (0 of them from the ledger), {why}, " in said and "calls without an answer" not in said
    assert f"which were answered: at most {spent.tokens:,} tokens, {show_usd(spent.cost)} USD, set aside and counted against the budget" in said
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert (written["calls"], written["calls_without_usage"], written["cost"]) == (calls, calls, None)
    assert f"{calls} model calls, those of earlier sittings included; {why}." in (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    rehearsed = " ".join(capsys.readouterr().out.split())
    assert "the endpoint reported no usage for calls of answer asked, judge one: " in rehearsed and "price of a model" not in rehearsed


def test_attempts_of_an_evaluation_without_an_answer_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(error=0.5, per_body=2) as server:
        asked(tmp_path, server)
    said = " ".join(capsys.readouterr().out.split())
    spent = read_spent(tmp_path / "out" / "spent.json")
    cost = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))["cost"]
    assert spent and spent.cost > cost > 0 and f", cost {show_usd(cost)} USD, " in said
    told = re.search(r"calls without an answer, which may have been billed nonetheless: at most [\d,]+ tokens, ([\d.]+) USD", said)
    assert told and float(told[1]) == pytest.approx(spent.cost - cost, rel=0.05)


def test_an_evaluation_that_is_stopped_waits_for_the_calls_under_way_and_pays_for_none_twice(tmp_path: Path) -> None:
    with serve() as server:
        plan(tmp_path, server)
        server.may_answer.clear()
        command = [sys.executable, "-m", "safer_instruct.cli", "evaluate", str(tmp_path / "e.yaml"), "--out", str(tmp_path / "out")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            while not server.in_flight:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            waits = process.stderr.readline()
            server.may_answer.set()
            said = process.stderr.read()
        assert waits.startswith("stopping: waiting up to 20 s for ") and said.startswith("error: stopped; ") and process.returncode == 143
        assert 0 < server.answered == server.requests
        asked(tmp_path, server)
    assert server.asked_twice == 0
