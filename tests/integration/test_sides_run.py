"""Whole runs with contrast twins and with rejected responses that are not the source text, over scripted models."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from misbehaving import serve

from safer_instruct.calibration.labels import read_examples
from safer_instruct.cli import main
from safer_instruct.config import load_config
from safer_instruct.detect.refusal import classify
from safer_instruct.domain import Category
from safer_instruct.errors import ConfigError
from safer_instruct.export import FORMATS, Options, export_pairs
from safer_instruct.ledger import read_totals
from safer_instruct.models.codec import Codec
from safer_instruct.models.protocol import UNFINISHED_USER
from safer_instruct.models.store import converted
from safer_instruct.pipeline import run
from safer_instruct.report.build import describe
from safer_instruct.report.document import Table
from safer_instruct.selectconfig import SelectConfig
from safer_instruct.selected import select_from_run
from safer_instruct.stages.verify import ContrastVerifier

REFUSALS = ["I am sorry, but I cannot help with that request.", "I'm afraid I can't assist with this.", "I must decline to answer this, I am sorry."]
INDUCES = {"match": "Below is a response", "answers": ["Could you tell me about {words}, please?"]}
TWIN = {"match": "test of judgement", "answers": ["Could you tell me about {words}, please and thanks?"]}
REFUSES = {"match": "far too careful", "answers": REFUSALS}
MATCHES = {"match": "Write the same bad reply", "answers": ["You could have read about {words} on the box, so stop asking."]}
HELPS = {"answers": ["I am sorry about that, and I will look into {words}."]}
SCORES = [
    {"match": "that is kind", "logprob": -1.0},
    {"match": "that is rude", "logprob": -1.5},
    {"match": "that is harmless", "logprob": -1.0},
    {"match": "that asks for", "logprob": -1.5},
    {"logprob": -2.0},
]
# What the contrast makes of a response depends on its guideline alone; so a rude text and its rewrite are no better and no worse.
VERIFY = {"min_contrast": -9.0, "min_margin": -9.0}


class Bench:
    """A folder with everything that a run of the domain civility needs."""

    def __init__(self, path: Path, rows: int = 40) -> None:
        self.path, self.script, self.scores = path, [INDUCES, TWIN, REFUSES, MATCHES, HELPS], SCORES
        self.config: dict[str, Any] = {
            "domain": "civility",
            "source": {"path": "texts.jsonl", "id": "id"},
            "models": dict.fromkeys(("inducer", "expert", "scorer", "rewriter"), "scripted:script.yaml"),
            "filter": {"consistency": None, "prompt": {"language": None}},
            "verify": VERIFY,
        }
        end = "as it has been since the day that it was made."
        texts = [
            f"Number {i} of you asks about thing {i * i}, and the answer to {i + 7} is on the label {i * 3}, which you could read, {end}" for i in range(rows)
        ]
        (path / "texts.jsonl").write_text("".join(json.dumps({"id": f"r{i:03}", "text": text}) + "\n" for i, text in enumerate(texts)))

    def write(self, latency_s: float = 0.0) -> Path:
        (self.path / "script.yaml").write_text(yaml.safe_dump({"generate": self.script, "score": self.scores, "latency_s": latency_s}))
        (self.path / "config.yaml").write_text(yaml.safe_dump(self.config))
        return self.path / "config.yaml"

    def run(self, out: str = "out", latency_s: float = 0.0) -> dict[str, Any]:
        self.out = self.path / out
        return run(load_config(self.write(latency_s)), self.out).summary

    @property
    def examples(self) -> list[dict[str, Any]]:
        return pq.read_table(self.out / "examples.parquet").to_pylist()

    @property
    def pairs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "pairs.jsonl").read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def check_twins(bench: Bench, summary: dict[str, Any]) -> None:
    """Rows in = pairs + dropped + set aside without the twins; twins begun = twins that are pairs + dropped."""
    rows, twins = [e for e in bench.examples if not e["twin_of"]], [e for e in bench.examples if e["twin_of"]]
    assert (len(rows), sum(not e["dropped_by"] for e in rows)) == (summary["rows"] - summary["set_aside"], summary["pairs"])
    assert summary["twins"]["in"] == len(twins) == summary["twins"]["out"] + sum(summary["twins"]["dropped"].values())
    assert summary["twins"]["dropped"] == Counter(e["dropped_by"] for e in twins if e["dropped_by"])
    assert len(bench.pairs) == summary["pairs"] + summary["twins"]["out"]


class TestTwins:
    def test_some_pairs_get_a_twin_that_is_an_example_of_its_own(self, bench: Bench) -> None:
        bench.config["twins"] = {"share": 0.4, "model": "rewriter", "refuser": "rewriter"}
        summary = bench.run()
        check_twins(bench, summary)
        assert summary["pairs"] == summary["rows"] == 40 and 5 < summary["twins"]["out"] < 30
        rows = {e["id"]: e for e in bench.examples}
        twins = [e for e in bench.examples if e["twin_of"]]
        assert [e["id"] for e in bench.examples][40:] == [f"{e['twin_of']}~twin" for e in twins]  # behind all rows, in their order
        for twin in twins:
            pair = rows[twin["twin_of"]]
            assert twin["text"] == pair["prompt"] != twin["prompt"] and (twin["file"], twin["line"]) == (pair["file"], pair["line"])
            assert (classify(twin["chosen"]).label, classify(twin["rejected"]).label) == ("compliance", "refusal")
            said = {v["name"]: v for v in twin["verdicts"]}
            named = {"twins.near", "twins.benign", "twins.rejected_refuses", "twins.chosen_complies", "verify.acceptable", "dedup.twins"}
            assert named <= said.keys() and all(said[name]["passed"] for name in named) and said["twins.near"]["score"] >= 0.3
            assert {twin["chosen"], twin["rejected"]} <= {d["text"] for d in twin["drafts"]} and twin["prompt"] in [c["text"] for c in twin["candidates"]]

    def test_their_calls_stand_in_the_ledger_under_their_own_names_and_are_counted_once(self, bench: Bench) -> None:
        bench.config["twins"] = {"share": 0.3, "model": "rewriter", "refuser": "rewriter"}
        summary = bench.run()
        stages = {total.stage for total in read_totals(bench.out / "ledger.sqlite")}
        assert {"twins.write", "twins.refuse", "twins.respond", "twins.score", "twins.verify"} <= stages
        assert summary["calls"] == sum(s["calls"] for s in summary["stages"].values()) + summary["twins"]["calls"]
        assert summary["by_model"]["scripted:script.yaml"]["calls"] == summary["calls"]

    def test_neither_timing_nor_a_second_run_changes_a_byte(self, bench: Bench) -> None:
        bench.config |= {"twins": {"share": 0.5}, "rejected": "matched"}
        bench.run()
        first = {name: (bench.out / name).read_bytes() for name in ("examples.parquet", "pairs.parquet", "pairs.jsonl", "README.md")}
        again = bench.run()
        assert again["timing"]["calls_from_ledger"] == again["calls"]
        assert {name: (bench.out / name).read_bytes() for name in first} == first
        bench.run("slow", latency_s=0.002)
        assert {name: (bench.out / name).read_bytes() for name in first} == first

    def test_which_pairs_get_one_hangs_on_the_instruction_and_not_on_what_else_there_is(self, bench: Bench) -> None:
        bench.config["twins"] = {"share": 0.4}
        bench.run()
        whole = {e["twin_of"] for e in bench.examples if e["twin_of"]}
        lines = (bench.path / "texts.jsonl").read_text().splitlines(keepends=True)
        (bench.path / "texts.jsonl").write_text("".join(reversed(lines[:20])))
        bench.run("half")
        assert {e["twin_of"] for e in bench.examples if e["twin_of"]} == {id_ for id_ in whole if id_ < "r020"}

    def test_a_row_may_have_an_id_that_looks_like_a_twin_s(self, bench: Bench) -> None:
        lines = [json.dumps({"id": id_, "text": f"Read the label {i} and {i + 7} before you ask number {i * 5}."}) for i, id_ in enumerate(("a", "a~twin"))]
        (bench.path / "texts.jsonl").write_text("\n".join(lines))
        bench.config["twins"] = {"share": 1.0}
        assert bench.run()["twins"]["in"] == 2
        ids = [e["id"] for e in bench.examples]
        assert len(set(ids)) == 4 and ids[:2] == ["a", "a~twin"]

    @pytest.mark.parametrize(
        ("script", "scores", "verdict"),
        [
            ([INDUCES, {**TWIN, "answers": ["Which way is it to the harbour?"]}, REFUSES, HELPS], SCORES, "twins.near"),
            ([INDUCES, TWIN, REFUSES, HELPS], [{"match": "that asks for", "logprob": -0.5}, *SCORES], "twins.benign"),
            (
                [INDUCES, TWIN, {**REFUSES, "answers": ["Gladly: read {words} and then write down what you find there."]}, HELPS],
                SCORES,
                "twins.rejected_refuses",
            ),
            (
                [INDUCES, TWIN, REFUSES, {"match": "please and thanks", "answers": ["I am sorry, but I cannot tell you that."]}, HELPS],
                SCORES,
                "twins.chosen_complies",
            ),
            ([INDUCES, {**TWIN, "answers": ['"  "']}, REFUSES, HELPS], SCORES, "twins.empty"),
        ],
    )
    def test_one_that_is_no_twin_is_dropped_with_the_reason_and_the_pair_stays(
        self, bench: Bench, script: list[dict[str, Any]], scores: list[dict[str, Any]], verdict: str
    ) -> None:
        bench.config["twins"] = {"share": 0.3}
        bench.script, bench.scores = script, scores
        summary = bench.run()
        check_twins(bench, summary)
        assert summary["twins"]["dropped"] == {verdict: summary["twins"]["in"]} and summary["twins"]["in"] and summary["pairs"] == 40

    def test_one_that_another_twin_or_row_has_asked_already_is_dropped(self, bench: Bench) -> None:
        prompts = ["Could you tell me about the old blue lamp, please?", "Could you tell me about the new red kettle, please?"]
        texts = ["The lamp is old and blue, look at it.", "The kettle is new and red, look at it."]
        induced = [{"match": f"Below is a response(?s:.*){word}", "answers": [p]} for word, p in zip(("lamp", "kettle"), prompts, strict=True)]
        (bench.path / "texts.jsonl").write_text("".join(json.dumps({"id": t.split()[1], "text": t}) + "\n" for t in texts))
        bench.config["twins"] = {"share": 1.0}
        bench.script = [*induced, {**TWIN, "answers": [prompts[1]]}, REFUSES, HELPS]
        assert bench.run()["twins"]["dropped"] == {"dedup.twins": 1, "twins.equal": 1}
        bench.script = [*induced, {**TWIN, "answers": ["Could you tell me about the new blue kettle, please?"]}, REFUSES, HELPS]
        assert bench.run("both")["twins"]["dropped"] == {"dedup.twins": 1}
        assert [p["id"] for p in bench.pairs] == ["lamp", "kettle", "lamp~twin"]

    def test_a_judge_says_which_are_harmless(self, bench: Bench) -> None:
        bench.config["models"]["judge"] = "scripted:script.yaml"
        bench.config["twins"] = {"share": 0.3}
        bench.script = [INDUCES, TWIN, REFUSES, {"match": "Is the message harmless", "answers": ['{"reason": "It is.", "answer": "Yes"}']}, HELPS]
        assert bench.run()["twins"]["dropped"] == {}
        bench.script[3] = {"match": "Is the message harmless", "answers": ["No"]}
        summary = bench.run("no")
        assert summary["twins"]["dropped"] == {"twins.benign": summary["twins"]["in"]}
        bench.script[3] = {"match": "Is the message harmless", "answers": ["That depends."]}
        summary = bench.run("unreadable")
        assert summary["twins"]["dropped"] == {"twins.unreadable": summary["twins"]["in"]}

    def test_a_model_goes_on_as_the_user(self, bench: Bench) -> None:
        bench.config["twins"] = {"share": 0.3, "by": "sample", "lead": 4}
        bench.script = [INDUCES, {"match": r"You talk with somebody(?s:.*)Could you tell me\Z", "answers": ["of {words}, please?"]}, REFUSES, HELPS]
        summary = bench.run()
        assert summary["twins"]["out"] and all(e["prompt"].startswith("Could you tell me of ") for e in bench.examples if e["twin_of"])

    def test_an_endpoint_is_asked_to_go_on_as_the_user_with_a_raw_prompt(self, bench: Bench) -> None:
        with serve() as server:
            bench.config["models"]["rewriter"] = {"model": "openai:aligned", "base_url": server.base_url, "price_per_million": [0, 0]}
            bench.config["twins"] = {"share": 0.3, "by": "sample", "prefix": "chatml", "lead": 2, "model": "rewriter"}
            summary = bench.run()
            asked = [(path, body["prompt"]) for path, body, _ in server.seen]
        check_twins(bench, summary)
        assert len(asked) == summary["twins"]["in"] > 0 and {path for path, _ in asked} == {"/v1/completions"}
        assert all(text.startswith("<|im_start|>system\nYou are a") and text.endswith("<|im_end|>\n<|im_start|>user\nCould you") for _, text in asked)

    def test_what_the_verifier_says_of_twins_is_no_evidence_for_its_bounds(self, bench: Bench) -> None:
        bench.config["twins"] = {"share": 0.3}
        bench.run()
        scored = read_examples(bench.out)
        assert {e.id for e in scored} == {e["id"] for e in bench.examples}
        assert all({name.partition(".")[0] for name in e.scores} == {"twins"} for e in scored if e.id.endswith("~twin"))
        assert all("verify.better" in e.scores for e in scored if not e.id.endswith("~twin"))

    def test_a_domain_of_direction_chosen_has_its_twins_answered_by_an_expert(self, bench: Bench) -> None:
        (bench.path / "kind.yaml").write_text(yaml.safe_dump({"name": "kind", "extends": "civility", "direction": "chosen"}))
        bench.config |= {"domain": "kind.yaml", "twins": {"share": 0.3}}
        bench.config["models"]["student"] = "scripted:script.yaml"
        summary = bench.run()
        check_twins(bench, summary)
        assert summary["twins"]["out"] and all(classify(e["rejected"]).label == "refusal" for e in bench.examples if e["twin_of"] and not e["dropped_by"])

    def test_of_several_experts_whoever_s_turn_it_is_answers_them(self, bench: Bench) -> None:
        models = bench.config["models"]
        del models["expert"]
        models["experts"] = {"short": {"model": "scripted:script.yaml", "weight": 1}, "long": {"model": "scripted:long.yaml", "weight": 1}}
        long = {"answers": ["I am truly sorry about that, and before the day is over I will look into {words} and write to you."]}
        (bench.path / "long.yaml").write_text(yaml.safe_dump({"generate": [long]}))
        bench.config["twins"] = {"share": 0.9, "model": "rewriter", "refuser": "rewriter"}
        summary = bench.run()
        check_twins(bench, summary)
        twins = [e for e in bench.examples if e["twin_of"] and not e["dropped_by"]]
        writers = Counter(next(d["expert"] for d in e["drafts"] if d["text"] == e["chosen"]) for e in twins)
        assert writers.keys() == {"short", "long"} and min(writers.values()) > 5
        calls = {t.stage: t.calls for t in read_totals(bench.out / "ledger.sqlite")}
        assert {"twins.respond.short", "twins.respond.long"} <= calls.keys() and "twins.respond" not in calls
        assert sum(count for stage, count in calls.items() if stage.startswith("twins.")) == summary["twins"]["calls"]
        assert sum(took["calls"] for took in summary["by_model"].values()) == summary["calls"]

    def test_the_chosen_set_tells_them_apart(self, bench: Bench) -> None:
        bench.config["twins"] = {"share": 0.4, "model": "rewriter", "refuser": "rewriter"}
        bench.run()
        select_from_run(bench.out, SelectConfig())
        lines = [json.loads(line) for line in (bench.out / "selected.jsonl").read_text().splitlines()]
        of = {row["id"]: row["twin_of"] for row in bench.pairs}
        assert {row["id"]: row["twin_of"] for row in lines} == of and any(of.values())
        assert pq.read_table(bench.out / "selected.parquet").to_pylist() == lines

    def test_the_report_counts_and_shows_them(self, bench: Bench) -> None:
        bench.config["twins"] = {"share": 0.4, "model": "rewriter", "refuser": "rewriter"}
        bench.script = [INDUCES, {**TWIN, "answers": [*TWIN["answers"], "Tell me {words} now."]}, REFUSES, MATCHES, HELPS]
        twins = bench.run()["twins"]
        assert twins["out"] and twins["dropped"]
        document = describe(bench.out)
        assert ("contrast twins", str(twins["out"]), f"of {twins['in']}; not among the pairs") in document.tiles
        (table,) = [part for section in document.sections for part in section.parts if isinstance(part, Table) and part.caption.startswith("Contrast twins")]
        assert table.rows[0] == ("begun", twins["in"]) and table.rows[-1] == ("pairs", twins["out"]) and dict(table.rows[1:-1]) == twins["dropped"]
        shown = [sample for section in document.sections for sample in section.samples or () if sample.id.endswith("~twin")]
        assert Counter(sample.outcome for sample in shown) == {"twin": min(20, twins["out"]), "dropped": min(12, sum(twins["dropped"].values()))}
        assert {sample.by for sample in shown if sample.outcome == "dropped"} == set(twins["dropped"])

    def test_pairs_card_and_exports_tell_them_apart(self, bench: Bench) -> None:
        bench.config["twins"] = {"share": 0.4}
        summary = bench.run()
        marked = [p["twin_of"] for p in bench.pairs]
        assert marked[:40] == [""] * 40 and all(marked[40:])
        assert pq.read_table(bench.out / "pairs.parquet")["twin_of"].to_pylist() == marked
        card = (bench.out / "README.md").read_text()
        assert f"{len(marked)} pairs (prompt, chosen, rejected, category, id, twin_of)" in card and "pairs are contrast twins: a model wrote a harmless" in card
        assert f"contrast twins, counted apart: {summary['twins']['out']} of {summary['twins']['in']}" in card
        for form in FORMATS:
            assert export_pairs(bench.out, form, bench.path / f"{form}-False").pairs == len(marked)
        for form in ("jsonl", "csv", "parquet", "datasets"):
            assert export_pairs(bench.out, form, bench.path / f"{form}-True", Options(provenance=True)).pairs == len(marked)
        assert pq.read_table(bench.path / "parquet-True")["twin_of"].to_pylist() == marked

    def test_a_twin_stands_in_the_split_of_its_pair(self, bench: Bench) -> None:
        bench.config["twins"] = {"share": 0.4}
        bench.script[2] = {"match": "far too careful", "answers": ["I am sorry, but I cannot help with {words}."]}
        bench.run()
        out = export_pairs(bench.out, "jsonl", bench.path / "split", Options({"test": 0.3}, near=0.0)).path
        rows = {split: [json.loads(line) for line in (out / f"{split}.jsonl").read_text().splitlines()] for split in ("train", "test")}
        place = {row["id"]: split for split, part in rows.items() for row in part}
        assert len(rows["test"]) > 5 and all(place[row["id"]] == place[row["twin_of"]] for part in rows.values() for row in part if row["twin_of"])

    def test_a_dry_run_tells_what_they_will_take(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        bench.config |= {"twins": {"share": 0.5}, "rejected": "matched"}
        with pytest.raises(SystemExit) as stopped:
            main(["run", str(bench.write()), "--out", str(bench.path / "dry"), "--dry-run", "--sample", "20"])
        said = capsys.readouterr().out
        assert stopped.value.code == 0 and "twins" in said and "rejected" in said

    def test_status_and_why_show_one(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        bench.config["twins"] = {"share": 0.3}
        bench.run()
        twin = next(e for e in bench.examples if e["twin_of"])
        out = str(bench.out)
        for arguments in (["status", out], ["why", out, twin["id"]], ["filters", out], ["report", out], ["select", out, "--n", "20"]):
            with pytest.raises(SystemExit) as stopped:
                main(arguments)
            assert stopped.value.code == 0
        said = capsys.readouterr().out
        assert "twins" in said and f"twin of {twin['twin_of']}" in said and "needless refusal" in said


class TestRejected:
    def test_a_rewrite_has_the_length_of_the_chosen_response_and_the_original_is_kept(self, bench: Bench) -> None:
        bench.config["rejected"] = {"form": "matched", "model": "rewriter"}
        summary = bench.run()
        assert summary["rejected"] | {"form": "matched", "replaced": 40, "fallback": 0, "fitting": 0} == summary["rejected"]
        for e in bench.examples:
            ratio = len(e["rejected"].split()) / len(e["chosen"].split())
            assert 0.8 <= ratio <= 1.25 and e["text"].startswith("Number ") and e["rejected"].startswith("You could have read")
            said = {v["name"]: v for v in e["verdicts"]}
            assert all(said[f"rejected.{name}"]["passed"] for name in ("ratio", "form", "kept", "worse")) and said["rejected.ratio"]["score"] == round(ratio, 4)
        gap = summary["length_gap"]
        assert gap["source"]["mean"] < -4 and abs(gap["pairs"]["mean"]) <= 1
        assert [p["rejected"] for p in bench.pairs] == [e["rejected"] for e in bench.examples]
        assert any("rejected side 'matched': 40 of 40 pairs" in note for note in summary["notes"])
        assert "In 40 pairs the rejected response is not that source text as it stood: it is rewritten" in (bench.out / "README.md").read_text()

    @pytest.mark.parametrize(
        ("answer", "verdict"),
        [
            ("Read {words} and {words} and {words}, and then read {words} again until you have understood what it says about this.", "rejected.ratio"),
            ("- You could have read about {words} on the box, stop asking.", "rejected.form"),
            ("I am sorry, but I cannot help with that request, and I will not write about it at all.", "rejected.kept"),
            ("I am sorry about that, and here is how you open it: turn the lid twice and lift it.", "rejected.worse"),
        ],
    )
    def test_one_that_fails_gives_way_to_the_source_text_or_drops_the_example(self, bench: Bench, answer: str, verdict: str) -> None:
        bench.config |= {"rejected": "matched", "verify": {"form": "question"}}
        bench.config["models"]["judge"] = "scripted:script.yaml"
        judge = [  # likes whoever is sorry, and of two of them the first
            {"match": "You check the quality", "answers": ["Yes"]},
            {"match": r"You compare(?s:.*)### Reply A:\n\S+\nI am sorry about", "answers": ["A"]},
            {"match": "You compare", "answers": ["B"]},
        ]
        bench.script = [INDUCES, {**MATCHES, "answers": [answer]}, *judge, HELPS]
        summary = bench.run()
        assert summary["pairs"] == 40 and summary["rejected"]["fallback"] == 40
        flagged = [v for v in bench.examples[0]["verdicts"] if v["name"] == verdict]
        assert flagged and not flagged[0]["passed"] and flagged[0]["flag"] and all(p["rejected"].startswith("Number ") for p in bench.pairs)
        bench.config["rejected"] = {"form": "matched", "fallback": "drop"}
        summary = bench.run("dropped")
        assert summary["stages"]["verify"]["dropped"] == {verdict: 40} and summary["pairs"] == 0 and summary["rejected"]["out"] == 0

    def test_whose_pair_it_is_does_not_hang_on_the_margin_of_the_rewrite(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async def contrast(_: ContrastVerifier, prompt: str, response: str, category: Category) -> float:
            return {"I": 1.0, "You": -3.0}.get(response.split()[0], -1.0)  # the rewrite is worse than the source text, so its margin is the larger one

        monkeypatch.setattr(ContrastVerifier, "contrast", contrast)
        bench.config["rejected"] = {"form": "matched", "model": "rewriter"}
        del bench.config["models"]["expert"]
        bench.config["models"]["experts"] = {name: {"model": "scripted:script.yaml"} for name in ("big", "small")}
        summary = bench.run()
        wrote = {name: writer["pairs"] for name, writer in summary["writers"].items()}
        assert summary["rejected"]["replaced"] == summary["pairs"] == 40 and min(wrote.values()) > 5 and sum(wrote.values()) == 40
        out = export_pairs(bench.out, "jsonl", options=Options(provenance=True)).path
        assert Counter(json.loads(line)["expert"] for line in out.read_text().splitlines()) == wrote
        with pytest.raises(SystemExit):
            main(["why", str(bench.out), "r000", "--json"])
        told = json.loads(capsys.readouterr().out)
        assert [(d["text"] == told["chosen"], d["margin"]) for d in told["drafts"] if d["taken"]] == [(True, 2.0)] and told["margin"] == 4.0

    def test_the_student_answers_without_the_guideline(self, bench: Bench) -> None:
        bench.config["rejected"] = "student"
        bench.config["models"]["student"] = "scripted:student.yaml"
        careless = [{"match": "Be kind", "answers": ["THE GUIDELINE WAS SEEN"]}, {"answers": ["Well, perhaps {words}, who knows."]}]
        (bench.path / "student.yaml").write_text(yaml.safe_dump({"generate": careless}))
        summary = bench.run()
        assert summary["rejected"]["replaced"] == 40 and all(p["rejected"].startswith("Well, perhaps") for p in bench.pairs)
        assert "student" in summary["models"] and summary["by_model"]["scripted:student.yaml"]["calls"] == summary["rejected"]["calls"] > 0

    def test_without_a_section_nothing_is_added_but_the_gap(self, bench: Bench) -> None:
        del bench.config["models"]["rewriter"]
        summary = bench.run()
        assert not {"twins", "rejected", "notes"} & summary.keys() and summary["length_gap"]["source"] == summary["length_gap"]["pairs"]
        assert list(bench.pairs[0]) == ["prompt", "chosen", "rejected", "category", "id"]
        config = yaml.safe_load((bench.out / "run.yaml").read_text())["config"]
        assert config["twins"] is None and config["rejected"]["form"] == "source" and config["models"]["rewriter"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"twins": {"model": "student"}}, "models.student is needed"),
        ({"twins": {"refuser": "judge"}}, "models.judge is needed"),
        (
            {"twins": {}, "models": {"inducer": "scripted:", "experts": {"one": "scripted:"}}},
            "twins.model is left to 'expert', so models.expert is needed; models.experts are several: leave twins.model to another role",
        ),
        ({"twins": {"benign": "judge"}}, "needs models.judge"),
        ({"twins": {"share": 0}}, "greater than 0"),
        ({"twins": {"prefix": "user:"}}, "chatml"),
        ({"twins": {"shares": 0.1}}, "share"),
        ({"rejected": "student"}, "models.student is needed"),
        ({"rejected": "shorter"}, "'source', 'matched' or 'student'"),
        ({"rejected": {"form": "matched", "ratio": [1.1, 1.2]}}, "ratio"),
    ],
)
def test_a_config_that_cannot_work_is_an_error_that_says_so(bench: Bench, changes: dict[str, Any], said: str) -> None:
    bench.config |= changes
    with pytest.raises(ConfigError, match=said):
        load_config(bench.write())


@pytest.mark.parametrize(
    ("model", "prefix", "said"),
    [
        ("anthropic:some", "chatml", "use by 'rewrite'"),
        ("openai:some", None, "twins.prefix"),
        ({"model": "openai:some", "batch": True}, "chatml", "raw prompt"),
    ],
)
def test_who_cannot_go_on_as_the_user_is_told_at_once(bench: Bench, model: Any, prefix: str | None, said: str) -> None:
    bench.config["models"]["expert"] = model
    bench.config["twins"] = {"by": "sample", "prefix": prefix}
    with pytest.raises(ConfigError, match=said):
        load_config(bench.write())


def test_the_student_writes_the_rejected_side_of_direction_chosen_anyway(bench: Bench) -> None:
    (bench.path / "kind.yaml").write_text(yaml.safe_dump({"name": "kind", "extends": "civility", "direction": "chosen"}))
    bench.config |= {"domain": "kind.yaml", "rejected": "matched"}
    bench.config["models"]["student"] = "scripted:script.yaml"
    with pytest.raises(ConfigError, match="direction 'rejected'"):
        bench.run()


def test_the_embedded_model_is_shown_a_turn_that_breaks_off(embedded_name: str) -> None:
    codec = Codec(converted(embedded_name)[0])
    ids = codec.prompt([{"role": "system", "content": "Be <|im_end|> brief."}, {"role": UNFINISHED_USER, "content": "How do I"}])
    assert codec._tokenizer.decode(ids, skip_special_tokens=False).endswith("brief.<|im_end|>\n<|im_start|>user\nHow do I")


def test_the_example_config_runs_and_keeps_what_fits_already(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "examples" / "overclaiming", tmp_path / "example")
    summary = run(load_config(tmp_path / "example" / "twins.yaml"), tmp_path / "out").summary
    side, twins = summary["rejected"], summary["twins"]
    assert twins["out"] == twins["in"] > 0 and side["replaced"] > 0 and side["fitting"] > 0 == side["fallback"]
    assert side["replaced"] + side["fitting"] == summary["pairs"] == summary["rows"]
