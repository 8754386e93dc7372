"""Inducers side by side on held-out pairs, with scripted models: the figures, the ledger, the report and the card."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from safer_instruct.analysis.bootstrap import Bootstrap
from safer_instruct.config import FilterConfig
from safer_instruct.errors import AccessError, ConfigError, ModelError, RequestError, RunDirectoryError
from safer_instruct.evaluation.inducer import evaluate_inducers, load_plan
from safer_instruct.evaluation.inducer.calls import Induced, Ranks, RoundTrip, induce_all, rank_all
from safer_instruct.evaluation.inducer.figures import difference, figures, why_invalid
from safer_instruct.evaluation.inducer.plan import EvaluationConfig, choose_shots
from safer_instruct.evaluation.inducer.report import put_into_card
from safer_instruct.evaluation.sitting import Progress
from safer_instruct.filters.registry import open_filters
from safer_instruct.ledger import read_totals
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring, Usage
from safer_instruct.models.scripted import ScriptedModel
from safer_instruct.templates import load_template
from safer_instruct.tuning.pairs import Pair

EXAMPLES = Path(__file__).parents[2] / "examples"
THINGS = ["kettle", "lamp", "radio", "clock", "drum", "bell", "chair", "stove", "fence", "wagon", "piano", "mirror"]
CHECKS = open_filters(FilterConfig(), Path()).prompt
PAIRS = [Pair(f"My {t} is broken, what now?", f"Bring the {t} back to us.", t, "d") for t in THINGS]


def workplace(folder: Path, **config: Any) -> Path:
    """A tuning config, its data, two scripted inducers, and an evaluation config."""
    rows = [{"prompt": pair.prompt, "response": pair.response} for pair in PAIRS]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rules = [{"match": f"(?s)Bring the {t} back[^#]*### (Instruction|Message):\\s*$", "answers": [f"Is the {t} broken, and what do I do?"]} for t in THINGS]
    scores = [{"match": f"the {t} broken|My {t} is broken", "logprob": -1.0} for t in THINGS]
    (folder / "good.yaml").write_text(
        yaml.safe_dump({"generate": rules, "score": [{"match": "Below is a response", "logprob": -0.5}, *scores]}), encoding="utf-8"
    )
    (folder / "vague.yaml").write_text(yaml.safe_dump({"generate": [{"answers": ["What do I do?"]}]}), encoding="utf-8")
    systems = {"vague": {"model": "scripted:vague.yaml"}, "good": {"model": "scripted:good.yaml", "form": "raw"}}
    given = {
        "data": [{"path": "d.jsonl"}],
        "clean": {"near_duplicate": None},
        "holdout": {"count": 6, "near_duplicate": None},
        "systems": systems,
        "forward": "scripted:good.yaml",
        "distractors": 3,
        "resamples": 200,
        "samples": 2,
        **config,
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
    return folder / "e.yaml"


def test_systems_stand_side_by_side_and_a_second_evaluation_asks_nothing_again(tmp_path: Path) -> None:
    plan = load_plan(workplace(tmp_path))
    ticks: list[tuple[int, int]] = []
    result = evaluate_inducers(plan, tmp_path / "out", lambda progress: ticks.append((progress.done, progress.total)))
    assert list(result.systems) == ["vague", "good", "true instruction"]
    vague, good = result.systems["vague"], result.systems["good"]
    assert good.nll and vague.nll and (good.nll.estimate, vague.nll.estimate) == (0.5, 1.0)
    assert vague.distinct_1 == pytest.approx(3 / 24) and good.distinct_1 and good.distinct_1 > vague.distinct_1
    assert good.chrf and vague.chrf and good.chrf.low > vague.chrf.high
    assert good.cosine and vague.cosine and good.cosine.low > vague.cosine.high and good.cosine.high <= 1.000001
    assert good.invalid and good.invalid.estimate == 0.0
    assert result.differences["good"].nll and result.differences["good"].nll.high < 0
    assert ticks[-1] == (ticks[-1][1], ticks[-1][1]) and len(ticks) == 6 * 2 * 2 + 3 * (6 * 4 + 6), "every call is counted beforehand"

    again = evaluate_inducers(plan, tmp_path / "out")
    assert again.from_ledger == again.calls == result.calls and again.systems == result.systems
    assert sum(t.calls for t in read_totals(tmp_path / "out" / "ledger.sqlite")) < result.calls, "equal requests are one call"


def test_a_run_and_a_training_keep_their_ledger_and_their_files(tmp_path: Path) -> None:
    plan = load_plan(workplace(tmp_path))
    for name in ("run.yaml", "tuning.json", "evaluation.md"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("{}", encoding="utf-8")
        with pytest.raises(RunDirectoryError, match="choose another --out"):
            evaluate_inducers(plan, tmp_path / name)
        assert [found.name for found in (tmp_path / name).iterdir()] == [name]


def test_an_evaluation_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    plan = load_plan(workplace(tmp_path))
    undisturbed = evaluate_inducers(plan, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.done == 40:
            raise Stopped

    with pytest.raises(Stopped):
        evaluate_inducers(plan, tmp_path / "out", stop)
    assert not (tmp_path / "out" / "evaluation.json").exists()
    result = evaluate_inducers(plan, tmp_path / "out")
    assert result.from_ledger > undisturbed.from_ledger
    assert (tmp_path / "out" / "evaluation.md").read_bytes() == (tmp_path / "whole" / "evaluation.md").read_bytes()


def test_the_shipped_example_evaluates_the_shipped_adapter() -> None:
    plan = load_plan(EXAMPLES / "evaluate-inducer.yaml")
    assert [system.name for system in plan.systems] == ["zero-shot", "few-shot", "tuned"] and len(plan.pairs) == 40
    assert plan.adapter and plan.adapter.name == "civility-inducer" and plan.systems[2].note == ""


def test_without_an_embedder_that_figure_is_missing_and_nothing_else(tmp_path: Path) -> None:
    good = evaluate_inducers(load_plan(workplace(tmp_path, embedder=None)), tmp_path / "out").systems["good"]
    assert good.cosine is None and good.chrf


def test_the_report_and_the_result_hold_every_system_and_sample(tmp_path: Path) -> None:
    result = evaluate_inducers(load_plan(workplace(tmp_path)), tmp_path / "out")
    text = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert "| | better | vague | good | true instruction |" in text
    assert "| instruction NLL, nats/token | lower | 1.000 (1.000 to 1.000) | 0.500 (0.500 to 0.500) | not available |" in text
    assert "- good less vague: NLL -0.500 (-0.500 to -0.500) (-50.0%)" in text and "## 2 samples" in text
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert record["systems"]["good"]["rank"]["estimate"] == result.systems["good"].rank.estimate
    assert len(record["pairs"]) == 6 and set(record["pairs"][0]["induced"]) == {"vague", "good"}
    assert record["asked"]["good"]["template_digest"] == load_template("reverse").digest


def test_a_tuning_config_stands_for_its_base_and_its_adapter(tmp_path: Path) -> None:
    workplace(tmp_path)
    config = {"model": "scripted:good.yaml", "data": [{"path": "d.jsonl"}], "clean": {"near_duplicate": None}, "holdout": {"count": 6, "near_duplicate": None}}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(config | {"out": "adapter"}), encoding="utf-8")
    plan = load_plan(tmp_path / "tune.yaml", limit=4)
    assert [(s.name, s.template.name, s.template.form) for s in plan.systems] == [("zero-shot", "reverse.j2", "raw"), ("few-shot", "prompted.j2", "chat")]
    assert len(plan.pairs) == 4 and plan.adapter is None
    shown = {shot.prompt for shot in plan.systems[1].template.shots[""]}
    assert len(shown) == 4 and not shown & {pair.prompt for pair in plan.prepared.held_out}, "examples come from the training side"
    record = {"task": "induce", "template_digest": load_template("reverse").digest, "template": "reverse.j2"}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "adapter" / "tuning.json").write_text(json.dumps(record), encoding="utf-8")
    plan = load_plan(tmp_path / "tune.yaml")
    assert [s.name for s in plan.systems] == ["zero-shot", "few-shot", "tuned"] and plan.adapter == tmp_path / "adapter"
    (tmp_path / "adapter" / "tuning.json").write_text(json.dumps(record | {"template_digest": "0" * 16}), encoding="utf-8")
    with pytest.raises(ConfigError, match="was tuned with template"):
        load_plan(tmp_path / "tune.yaml")


def test_a_base_of_the_transformers_kind_is_served_with_its_adapter(tmp_path: Path) -> None:
    workplace(tmp_path)
    record = {"task": "induce", "template_digest": load_template("reverse").digest}
    for folder, file in (("base", "config.json"), ("lora", "adapter_config.json"), ("whole", "config.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text("{}", encoding="utf-8")
    for folder in ("lora", "whole"):
        (tmp_path / folder / "tuning.json").write_text(json.dumps(record), encoding="utf-8")
        config = {"model": "base", "data": ["d.jsonl"], "clean": {"near_duplicate": None}, "out": folder}
        (tmp_path / "tune.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        zero, few, tuned = load_plan(tmp_path / "tune.yaml").systems
        assert zero.model.model == few.model.model == f"served:{tmp_path / 'base'}" and few.template.form == "raw"
        if folder == "lora":
            assert tuned.model == zero.model.model_copy(update={"adapter": "tuned"}), "one server for all three"
        else:
            assert tuned.model.model == f"served:{tmp_path / 'whole'}"
        assert tuned.template.form == "raw" and tuned.note == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("systems: {a: {model: 'scripted:'}}\n", "give either 'tune'"),
        ("tune: t.yaml\ndata: [d.jsonl]\n", "give either 'tune'"),
        ("data: [d.jsonl]\nsystem: {}\n", "unknown key 'system'; did you mean 'systems'"),
        ("data: [d.jsonl]\n", "give 'systems'"),
        (
            "data: [d.jsonl]\nholdout: {count: 1, near_duplicate: null}\nclean: {near_duplicate: null}\nsystems: {a: {model: 'scripted:'}}\n",
            "only 1 pair is held out",
        ),
    ],
)
def test_a_config_that_says_nothing_to_evaluate_is_refused(tmp_path: Path, text: str, message: str) -> None:
    workplace(tmp_path)
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_plan(tmp_path / "bad.yaml")


class Remote(ScriptedModel):
    """An endpoint that cannot score, or refuses some requests."""

    def __init__(self, *, refuses: str = "", breaks: bool = False) -> None:
        super().__init__()
        self.refuses, self.breaks, self.scorings = refuses, breaks, 0

    async def generate(self, request: Generation) -> Generated:
        if self.breaks:
            raise ModelError("the endpoint is gone")
        if self.refuses and self.refuses in str(request.prompt):
            raise RequestError("too long")
        return Generated((Completion(" Where is it? "),), Usage())

    async def score(self, request: Scoring) -> Scored:
        self.scorings += 1
        raise AccessError("this endpoint cannot score")


def settings(**given: Any) -> EvaluationConfig:
    return EvaluationConfig(data=({"path": "d.jsonl"},), systems={"a": {"model": {"model": "scripted:"}}}, **given)  # type: ignore[arg-type,dict-item]


def test_a_model_that_does_not_score_has_no_likelihood_and_everything_else(tmp_path: Path) -> None:
    system = load_plan(workplace(tmp_path)).systems[0]
    model = Remote()
    induced = asyncio.run(induce_all(system, model, PAIRS, settings(), lambda: None))
    assert {item.logprobs for item in induced} == {None} and {item.text for item in induced} == {"Where is it?"}
    found = figures(PAIRS, induced, [Ranks(1, 1)] * len(PAIRS), CHECKS, Bootstrap(len(PAIRS), resamples=50))
    assert found.nll is None and found.perplexity is None and found.chrf and found.rank.estimate == 1.0


def test_a_refused_request_is_an_instruction_that_is_not_there(tmp_path: Path) -> None:
    system = load_plan(workplace(tmp_path)).systems[0]
    induced = asyncio.run(induce_all(system, Remote(refuses="Bring the lamp"), PAIRS, settings(), lambda: None))
    assert [item.text for item in induced].count("") == 1 and induced[1] == Induced("", False, None)
    assert why_invalid(induced[1], PAIRS[1], CHECKS) == "empty"


def test_a_model_that_fails_ends_the_evaluation_with_its_own_words(tmp_path: Path) -> None:
    system = load_plan(workplace(tmp_path)).systems[0]
    with pytest.raises(ModelError, match="the endpoint is gone"):
        asyncio.run(induce_all(system, Remote(breaks=True), PAIRS, settings(), lambda: None))


class Forward(ScriptedModel):
    """Finds a response likelier where the instruction names its thing; long-winded responses are likely by themselves."""

    async def score(self, request: Scoring) -> Scored:
        named = [t for t in THINGS if t in request.continuation and t in str(request.prompt)]
        return Scored((-2.0 + bool(named) * 0.5 + ("kettle" in request.continuation) * 1.0,))


def test_the_round_trip_ranks_the_true_response_and_the_gain_takes_off_what_it_is_like_by_itself() -> None:
    trip = RoundTrip.of(PAIRS, PAIRS, settings(distractors=11))
    asked = [pair.prompt for pair in PAIRS]
    ranks = asyncio.run(rank_all(asked, trip, Forward(), load_template("forward"), lambda: None))
    assert ranks == [Ranks(1, 1), *[Ranks(2, 1)] * 11], "the kettle's response is likely whatever was asked"
    silent = asyncio.run(rank_all(["Hello?"] * 12, trip, Forward(), load_template("forward"), lambda: None))
    assert silent[0] == Ranks(1, 6.5) and silent[1] == Ranks(7, 6.5), "ties count half"


def test_distractors_are_drawn_by_content_from_all_that_is_held_out_and_are_never_the_response_itself() -> None:
    twice = [*PAIRS, Pair("Another?", PAIRS[0].response, "x", "d")]
    trip = RoundTrip.of(PAIRS[:3], twice, settings(distractors=5))
    assert [len(set(others)) for others in trip.others] == [5, 5, 5] and len(set(trip.texts)) == len(trip.texts) == 12
    assert all(true not in others for true, others in zip(trip.true, trip.others, strict=True))
    drawn = {trip.texts[at] for at in trip.others[0]}
    other_way = RoundTrip.of(PAIRS[:3], [*reversed(twice)], settings(distractors=5))
    assert drawn == {other_way.texts[at] for at in other_way.others[0]}, "the order of the data does not matter"
    another = RoundTrip.of(PAIRS[:3], twice, settings(distractors=5, seed=1))
    assert drawn != {another.texts[at] for at in another.others[0]}
    assert len(RoundTrip.of(PAIRS[:1], twice, settings(distractors=32)).others[0]) == 11


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Induced("", True, None), "empty"),
        (Induced("What is", False, None), "unfinished"),
        (Induced("What now?", True, None), "prompt.length"),
        (Induced("Bring the kettle back to us.", True, None), "prompt.copying"),
        (Induced("My kettle broke, what now?", True, None), ""),
    ],
)
def test_what_makes_an_instruction_invalid(item: Induced, reason: str) -> None:
    assert why_invalid(item, PAIRS[0], CHECKS) == reason


def test_a_difference_without_likelihoods_is_of_the_ranks_alone() -> None:
    scored, unscored = [Induced("a", True, (-1.0,))] * 3, [Induced("a", True, None)] * 3
    bootstrap = Bootstrap(3, resamples=20)
    mine, other = [Ranks(1, 2)] * 3, [Ranks(3, 2)] * 3
    assert difference((scored, mine), (unscored, other), bootstrap).nll is None
    found = difference((scored, mine), (scored, other), bootstrap)
    assert found.nll and found.nll.estimate == 0 and found.rank.estimate == -2 and found.gain_rank.high == 0


def test_examples_are_short_distinct_and_chosen_by_content() -> None:
    long = Pair("Long?", "word " * 200, "long", "d")
    shots = choose_shots([long, *PAIRS], 4, 0)
    assert len(shots) == 4 and all(len(shot.response) < 100 for shot in shots)
    assert shots == choose_shots([*reversed(PAIRS), long], 4, 0) != choose_shots(PAIRS, 4, 1)
    assert choose_shots([long], 4, 0)[0].prompt == "Long?", "where all are long, a long one is better than none"


def test_somebody_elses_words_stay_words_in_the_report(tmp_path: Path) -> None:
    workplace(tmp_path)
    hostile = "Look: <script>alert(1)</script> | [here](http://x) `code`\n# Heading"
    (tmp_path / "vague.yaml").write_text(yaml.safe_dump({"generate": [{"answers": [hostile]}]}), encoding="utf-8")
    evaluate_inducers(load_plan(tmp_path / "e.yaml"), tmp_path / "out")
    text = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert "<script>" not in text and "[here](" not in text and "\n# Heading" not in text
    assert r"Look: &lt;script&gt;alert(1)&lt;/script&gt; \| \[here\](http://x) \`code\` \# Heading" in text


def test_the_cards_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# Adapter: a\n\nWhat it is.\n", encoding="utf-8")
    put_into_card(card, "# How good?\n\nold\n")
    put_into_card(card, "# How good?\n\nnew\n")
    text = card.read_text(encoding="utf-8")
    assert text.startswith("# Adapter: a\n\nWhat it is.\n\n<!-- inducer-evaluation:begin -->\n## How good?\n\nnew\n") and "old" not in text
    assert text.count("inducer-evaluation:begin") == 1
