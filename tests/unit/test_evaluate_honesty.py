"""What makes an evaluation flatter: relatives as judges, prompts that were trained on, length that tells the winner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from safer_instruct.analysis.bootstrap import Bootstrap
from safer_instruct.errors import SourceError
from safer_instruct.evaluation.families import family_of
from safer_instruct.evaluation.figures import measure
from safer_instruct.evaluation.honesty import bias_warnings, builders, circularity, find_overlap, overlap, overlap_warnings
from safer_instruct.evaluation.judges import Preference
from safer_instruct.evaluation.judging import Judged
from safer_instruct.evaluation.prompts import Prompt, Response
from safer_instruct.evaluation.settings import EvaluateConfig, OverlapConfig, load_evaluation

TRAINED = [
    "My umbrella broke in the first wind and I would like my money back please, how do I go about that with your shop",
    "Please tell me when the Sunday market opens and whether there is parking for a van near the north gate in winter",
]


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("openai:gpt-4o-mini", "GPT"),
        ("openai:o3-mini", "GPT"),
        ("anthropic:claude-haiku-4-5", "Claude"),
        ("openai:Qwen/Qwen3-32B", "Qwen"),
        ("openai:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "Qwen"),
        ("served:meta-llama/Llama-3.1-8B-Instruct", "Llama"),
        ("embedded:smollm2-135m-instruct", "SmolLM"),
        ("litellm:vertex/gemini-2.5-pro", "Gemini and Gemma"),
        ("openai:microsoft/phi-4", "Phi"),
        ("served:weights/final", ""),
        ("scripted:judge.yaml", ""),
    ],
)
def test_a_family_is_told_by_the_name_or_not_at_all(model: str, family: str) -> None:
    assert family_of(model) == family


def config(folder: Path, **given: Any) -> EvaluateConfig:
    (folder / "e.yaml").write_text(
        yaml.safe_dump(
            {
                "domain": "civility",
                "prompts": "p.jsonl",
                "systems": {"a": {"column": "a"}, "b": {"model": "openai:Qwen/Qwen3-8B"}},
                "judges": {"j": {"form": "question", "model": "openai:Qwen/Qwen3-32B"}},
                **given,
            }
        ),
        encoding="utf-8",
    )
    return load_evaluation(folder / "e.yaml")


def test_a_judge_that_is_related_to_whoever_built_the_data_or_is_judged_is_told_of(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    models = {
        "expert": {"model": "anthropic:claude-haiku-4-5"},
        "judge": {"model": "litellm:together/Qwen/Qwen3-32B"},
        "panel": {"x": {"model": "openai:Qwen/Qwen2"}},
    }
    filled = ("expert", "judge", "panel.x")  # and no scorer, which a config names whether it is used or not
    recorded = {"config": {"models": {**models, "scorer": {"model": "openai:Qwen/Qwen1"}}}, "models": dict.fromkeys(filled, "fingerprint")}
    (run / "run.yaml").write_text(yaml.safe_dump(recorded), encoding="utf-8")
    loaded = config(tmp_path, training=["run"], built_with=["openai:gpt-4o"])
    built = builders(loaded)
    assert [(b.model, b.role) for b in built][:2] == [("openai:gpt-4o", "named in built_with"), ("anthropic:claude-haiku-4-5", "expert")]
    warnings = circularity(loaded, built)
    assert len(warnings) == 3 and "had a part in building the data (judge of run)" in " ".join(warnings)
    assert "openai:Qwen/Qwen2 (panel of run) are of one family, Qwen" in " ".join(warnings) and "system 'b'" in " ".join(warnings)
    other = config(tmp_path, judges={"j": {"form": "question", "model": "openai:mistral-large"}}, built_with=["openai:gpt-4o"])
    assert circularity(other, builders(other)) == []


def test_prompts_are_found_in_the_training_data_word_for_word_by_a_run_nearly_and_by_cluster() -> None:
    texts = [
        TRAINED[0].upper() + "!",
        "A question: " + " ".join(TRAINED[1].split()[:14]),
        TRAINED[0].replace("shop", "store"),
        "How do I bake bread without an oven on a camping trip?",
    ]
    found = overlap(texts, ["same", "run", "near", "none"], TRAINED, OverlapConfig(shared_run=14))
    assert (found.same, found.run, found.near, found.cluster) == (1, 2, 0, 0) and found.ids == ("same", "run", "near")
    loose = overlap(texts, list("abcd"), TRAINED, OverlapConfig(shared_run=40))
    assert (loose.same, loose.near, loose.run) == (1, 1, 0)


def test_a_prompt_in_a_cluster_with_a_trained_one_is_found_through_others() -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"]
    chain = [" ".join(words[at : at + 10]) for at in (0, 2, 4)]  # each near to the next, the last far from the first
    found = overlap(chain[1:], ["b", "c"], chain[:1], OverlapConfig(near=0.9, cluster=0.5, shared_run=13))
    assert (found.same, found.run, found.near, found.cluster) == (0, 0, 0, 2)
    assert overlap(chain[2:], ["c"], chain[:1], OverlapConfig(near=0.9, cluster=0.5)).any == 0, "without the one between them nothing links them"


def test_overlap_is_looked_for_in_files_and_told_in_plain_words(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"prompt": t, "chosen": "x"}) + "\n" for t in TRAINED), encoding="utf-8")
    prompts = [Prompt("p1", TRAINED[0], "support", None, "", {}), Prompt("p2", "Something else?", "support", None, "", {})]
    found = find_overlap(prompts, config(tmp_path, training=["train.jsonl"]))
    assert found and found.any == 1
    assert "1 of 2 prompts overlap with the 2 training prompts (1 word for word" in overlap_warnings(found)[0]
    assert find_overlap(prompts, config(tmp_path)) is None and "nothing tells" in overlap_warnings(None)[0]
    assert overlap_warnings(find_overlap(prompts[1:], config(tmp_path, training=["train.jsonl"]))) == []
    found = find_overlap(prompts, config(tmp_path, training=[{"path": "train.jsonl", "prompt": "chosen"}]))
    assert found and found.training == 2 and found.any == 0
    with pytest.raises(SourceError, match="no row has a column ask"):
        find_overlap(prompts, config(tmp_path, training=[{"path": "train.jsonl", "prompt": "ask"}]))


def test_a_prompt_that_overlaps_is_told_by_its_first_words_as_its_id_may_stand_in_no_file() -> None:
    long = "How do I \x1b[31mtell\n a customer that the shop is closed today and will not open tomorrow either?"
    (told,) = overlap_warnings(overlap([long], ["bee354e85309"], [long], OverlapConfig()))
    assert told.endswith("such as bee354e85309 ('How do I [31mtell a customer that the shop is closed toda...')")


def test_length_that_tells_the_winner_is_told_of() -> None:
    responses = {"long": [Response("word " * (20 + n)) for n in range(30)], "short": [Response("word " * 10)] * 30}
    judged = {"j": Judged({("long", "short"): [Preference(1.0, 0.9)] * 30})}
    found = measure("helpful", judged, responses, Bootstrap(30, resamples=100))
    (warning,) = bias_warnings("helpfulness", found)
    assert "between long and short: the longer answer (in words) is the winner on 100% of the 30 prompts with a winner" in warning
    turned = {"long": [Response("word " * 10)] * 30, "short": [Response("incomprehensibilities " * 9)] * 30}  # more letters, fewer words
    found = measure("helpful", {"j": Judged({("long", "short"): [Preference(0.0, 0.1)] * 30})}, turned, Bootstrap(30, resamples=50))
    assert found.comparisons[0].longer_wins == 0.0 == found.judges["j"].longer_wins, "lengths are in words"
    assert "the shorter answer (in words) is the winner on 100%" in bias_warnings("helpfulness", found)[0]
    level = {name: [Response("same length" if name == "a" else "length same")] * 30 for name in ("a", "b")}
    assert bias_warnings("helpfulness", measure("helpful", {"j": Judged({("a", "b"): [Preference(1.0, 1.0)] * 30})}, level, Bootstrap(30, resamples=50))) == []
