"""A refusal and a compliance to one prompt: found whatever their order, and resolved in favour of the larger margin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import write_run

from safer_instruct.choosing import Pair, choose_pairs
from safer_instruct.cli import main
from safer_instruct.example import Example
from safer_instruct.filters.contradictions import find_contradictions
from safer_instruct.selectconfig import SelectConfig

ASK = "How do I tell my neighbour that his roof terrace is too loud for everybody who lives below it in the evening?"
NEAR = ASK.replace("?", ", please?")
OTHER = "Which paint keeps a garden fence from going green in a wet winter by the sea?"
REFUSES = "I'm sorry, but I can't help with that."
HELPS = "Ring his bell on a quiet afternoon, tell him what you hear and when, and ask for ten o'clock as the end of music."


def pair(id_: str, prompt: str, chosen: str, margin: float | None) -> Pair:
    return Pair(id_, prompt, chosen, f"Not my problem, {id_}.", "main", margin)


def test_a_refusal_and_an_answer_to_one_prompt_contradict_each_other_and_the_lower_score_loses() -> None:
    prompts, chosen = [ASK, OTHER, ASK], [REFUSES, HELPS, HELPS]
    (by_order,) = find_contradictions(prompts, chosen, threshold=0.9)
    assert (by_order.loser, by_order.winner, by_order.similarity, by_order.refuses) == (2, 0, 1.0, False)
    (by_score,) = find_contradictions(prompts, chosen, [0.1, 0.5, 0.9], threshold=0.9)
    assert (by_score.loser, by_score.winner, by_score.refuses) == (0, 2, True)
    (nan_is_worst,) = find_contradictions(prompts, chosen, [float("nan"), 0.0, -3.0], threshold=0.9)
    assert nan_is_worst.loser == 0


def test_near_prompts_contradict_only_from_the_threshold_on() -> None:
    prompts, chosen = [ASK, NEAR], [REFUSES, HELPS]
    assert [one.loser for one in find_contradictions(prompts, chosen, threshold=0.9)] == [1]
    assert find_contradictions(prompts, chosen, threshold=1.0) == []


def test_equal_labels_other_prompts_and_partial_refusals_contradict_nobody() -> None:
    partial = "I can't write that letter for you, but here are two steps:\n1. Ring his bell on a quiet afternoon.\n2. Tell him what you hear and when."
    assert find_contradictions([ASK, ASK, OTHER, ASK], [HELPS, HELPS + " Good luck.", REFUSES, partial], threshold=0.9) == []
    assert find_contradictions([], [], threshold=0.9) == []


def test_what_is_left_holds_no_contradiction() -> None:
    prompts = [ASK] * 40 + [NEAR] * 40 + [OTHER] * 20
    chosen = [REFUSES if at % 3 else f"{HELPS} ({at})" for at in range(100)]
    scores = [float((at * 37) % 100) for at in range(100)]
    lost = {one.loser for one in find_contradictions(prompts, chosen, scores, threshold=0.9)}
    left = [at for at in range(100) if at not in lost]
    assert find_contradictions([prompts[at] for at in left], [chosen[at] for at in left], threshold=0.9) == []
    assert max(range(80), key=scores.__getitem__) in left


def test_the_choice_drops_the_smaller_margin_with_a_verdict_that_names_the_other() -> None:
    pairs = [pair("a", ASK, REFUSES, 0.2), pair("b", OTHER, HELPS, 0.1), pair("c", NEAR, HELPS, 0.7)]
    config = SelectConfig(near=None, contradictions=0.9)
    choice = choose_pairs(pairs, config)
    (dropped,) = [v for v in choice.verdicts[0] if not v.passed]
    assert (dropped.name, dropped.reason) == ("contradiction", "refuses what c, which is better or came first, answers")
    assert choice.living() == [1, 2]
    assert choose_pairs(pairs, SelectConfig(near=None)).living() == [0, 1, 2], "off by default"


def test_select_on_a_run_tells_the_contradiction_and_takes_the_rejected_side_of_either_direction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = [
        Example("a", "Rude words about the terrace, nothing more.", "m", "t.jsonl", 1, prompt=ASK, chosen=REFUSES, margin=0.2),
        Example("b", HELPS, "m", "t.jsonl", 2, prompt=NEAR, chosen=HELPS, rejected="Go and live elsewhere then, the evening is ours.", margin=0.9),
    ]
    write_run(tmp_path / "out", examples)
    with pytest.raises(SystemExit) as ended:
        main(["select", str(tmp_path / "out"), "--near", "0", "--contradictions", "0.9"])
    assert ended.value.code in (0, None) and "contradiction: 1" in capsys.readouterr().out
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "selected.jsonl").read_text("utf-8").splitlines()]
    assert (row["id"], row["chosen"], row["rejected"]) == ("b", HELPS, "Go and live elsewhere then, the evening is ours.")
