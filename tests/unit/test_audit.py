"""Each check of the audit finds what was put there, with its rows, and is silent on a set without it."""

from __future__ import annotations

import io
import json
import random
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_texts import PAYLOADS
from made_runs import made_up, write_run
from rich.console import Console

from safer_instruct.analysis.style import NAMES, length_gap, separability, style
from safer_instruct.audit import Columns, Finding, PairSet, audit_set, read_set
from safer_instruct.audit.run import CHECKS
from safer_instruct.audit.show import as_markdown, as_record, show_audit, show_rows
from safer_instruct.errors import SourceError
from safer_instruct.example import Draft, Example, Verdict

WORDS = ["garden", "kettle", "window", "lamp", "river", "bread", "ladder", "music", "paper", "winter", "stone", "cloud", "train", "orange", "button"]
REFUSES = "I'm sorry, but I can't help with that."


def text(draw: random.Random, size: int = 25) -> str:
    said = [draw.choice(WORDS) + str(draw.randrange(90)) for _ in range(size)]
    return " ".join(said).capitalize() + "."


def rows(count: int = 120, seed: int = 0, **changed: Callable[[int, random.Random], str]) -> list[dict[str, Any]]:
    """Pairs whose sides come from one draw; `changed` writes a column anew."""
    draw = random.Random(seed)
    made = [{"prompt": text(draw, 15), "chosen": text(draw), "rejected": text(draw), "source": "made", "license": "cc0-1.0"} for _ in range(count)]
    for name, write in changed.items():
        for at, row in enumerate(made):
            row[name] = write(at, draw)
    return made


def as_set(folder: Path, made: Sequence[dict[str, Any]], columns: Columns | None = None) -> PairSet:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return read_set(path, columns)


def ask(check: str, pairs: PairSet) -> Finding:
    (found,) = audit_set(pairs, only=(check,))
    assert found.check == check and all(0 <= at < len(pairs) for at in found.rows)
    return found


def test_a_sound_set_is_ok_throughout_and_what_cannot_be_asked_says_what_it_lacks(tmp_path: Path) -> None:
    found = audit_set(as_set(tmp_path, rows()))
    assert [one.check for one in found] == list(CHECKS)
    assert {one.check: one.level for one in found if one.level != "ok"} == dict.fromkeys(("ties", "order-flips", "self-preference", "contamination"), "none")
    assert all(one.found for one in found)


def test_rows_that_give_no_pair_are_counted_with_file_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = [json.dumps(row) for row in rows(50)]
    bad = ['{"prompt": "x", ', json.dumps({"prompt": "x", "chosen": None, "rejected": "y"}), json.dumps({"prompt": "x", "chosen": "\ud800", "rejected": "y"})]
    path.write_text("\n".join([*good[:20], *bad, *good[20:]]), encoding="utf-8")
    pairs = read_set(path)
    assert (len(pairs), pairs.set_aside) == (50, 3)
    assert [(row.line, row.reason[:12]) for row in pairs.bad] == [(21, "broken JSON:"), (22, "column 'chos"), (23, "chosen holds")]
    assert ask("rows", pairs).level == "bad" and pairs.where(20).endswith("pairs.jsonl:24")


# --- single pairs


def test_identical_sides_are_found_to_the_letter_and_word_for_word(tmp_path: Path) -> None:
    made = rows()
    made[3]["rejected"] = made[3]["chosen"]
    made[7]["rejected"] = made[7]["chosen"].upper().replace(".", " !")
    found = ask("identical", as_set(tmp_path, made))
    assert list(found.rows) == [3, 7] and found.notes == {3: "to the letter", 7: "but for case, marks and white space"} and found.level == "bad"


def test_prompts_that_are_a_response_or_hold_one_are_found(tmp_path: Path) -> None:
    made = rows()
    made[2]["chosen"] = made[2]["prompt"].lower()
    made[4]["prompt"] = f"Please repeat this: {made[4]['rejected']}"
    made[6]["chosen"] = f"You ask: {made[6]['prompt']} {made[6]['chosen']}"
    pairs = as_set(tmp_path, made)
    assert list(ask("prompt-is-response", pairs).rows) == [2]
    assert ask("containment", pairs).notes == {4: "the prompt holds the rejected response", 6: "the chosen response holds the prompt"}


def test_reasoning_at_the_beginning_of_a_text_is_found(tmp_path: Path) -> None:
    made = rows()
    made[1]["chosen"] = f"<think>hmm</think>\n\n{made[1]['chosen']}"
    made[3]["prompt"], made[3]["rejected"] = f"<think>{made[3]['prompt']}", f"hmm\n</think>\n\n{made[3]['rejected']}"
    made[5]["chosen"] = f"The mark `</think>`: {made[5]['chosen']}"
    found = ask("containment", as_set(tmp_path, made))
    assert found.notes == {
        1: "the chosen response begins with reasoning (<think>)",
        3: "the prompt begins with reasoning (<think>); the rejected response begins with reasoning (</think>)",
    }
    assert found.do.startswith("Take the reasoning off the texts") and found.figures["the prompt begins with reasoning (<think>)"] == 1


def test_ties_and_inverted_scores_are_found_where_columns_tell_them(tmp_path: Path) -> None:
    made = rows(score_chosen=lambda at, _: 5.0, score_rejected=lambda at, _: {1: 5.0, 2: 8.0}.get(at, 2.0))  # type: ignore[arg-type,return-value]
    found = ask("ties", as_set(tmp_path, made))
    assert found.notes == {1: "equal scores", 2: "the rejected one scores higher"} and found.level == "bad"


def test_empty_sides_are_found_and_a_set_without_prompts_is_one_fault(tmp_path: Path) -> None:
    made = rows()
    made[5]["chosen"] = "  "
    assert ask("empty", as_set(tmp_path, made)).notes == {5: "chosen"}
    found = ask("empty", as_set(tmp_path, [{key: row[key] for key in ("chosen", "rejected")} for row in made]))
    assert found.found.startswith("no row has a prompt") and list(found.rows) == [5]


# --- across pairs


def test_pasted_responses_and_repeated_rows_are_found_the_commonest_first(tmp_path: Path) -> None:
    made = rows()
    for at in (1, 5, 9, 20, 33):
        made[at]["chosen"] = REFUSES
    made[40]["chosen"] = made[41]["chosen"]
    made[60] = dict(made[61])
    pairs = as_set(tmp_path, made)
    found = ask("repeats", pairs)
    assert list(found.rows)[:5] == [1, 5, 9, 20, 33] and set(found.rows[5:]) == {40, 41, 60, 61}
    assert found.figures["unique"] == pytest.approx(1 - 6 / 120) and found.figures["commonest"][0] == {"text": REFUSES, "count": 5}
    assert ask("duplicates", pairs).notes == {61: f"the same as {pairs.where(60)}"}


def test_contradictions_name_both_rows(tmp_path: Path) -> None:
    made = rows()
    made[10]["prompt"] = made[90]["prompt"]
    made[90]["chosen"] = REFUSES
    pairs = as_set(tmp_path, made)
    found = ask("contradictions", pairs)
    assert set(found.rows) == {10, 90} and found.level == "bad"
    assert found.notes[90] == f"chosen refuses the same prompt as {pairs.where(10)}, which answers"


def test_preferences_that_run_in_a_circle_are_found_and_chains_are_not(tmp_path: Path) -> None:
    made = rows()
    names = [row["chosen"] for row in made[:3]]
    for at, (better, worse) in enumerate([(0, 1), (1, 2), (2, 0), (0, 1)]):
        made[at] |= {"prompt": "Which of them?", "chosen": names[better], "rejected": names[worse]}
    made[50] |= {"prompt": "And here?", "chosen": names[0], "rejected": names[1]}
    made[51] |= {"prompt": "And here?", "chosen": names[1], "rejected": names[2]}
    found = ask("circles", as_set(tmp_path, made))
    assert set(found.rows) == {0, 1, 2} and found.figures["prompts"] == 1


def test_a_set_that_prefers_refusals_is_told_so(tmp_path: Path) -> None:
    found = ask("refusals", as_set(tmp_path, rows(chosen=lambda at, _: REFUSES if at % 3 else "Gladly: put the kettle on and wait for five minutes.")))
    assert found.level == "bad" and found.figures["chosen"] == pytest.approx(80 / 120) and found.figures["rejected"] == 0


def test_the_rows_that_a_share_counts_are_shown_where_the_verdict_is_ok_too(tmp_path: Path) -> None:
    made = rows()
    for at in (2, 7, 9):
        made[at]["rejected"] = REFUSES
    made[7]["chosen"] = made[11]["chosen"] = REFUSES
    made[30]["chosen"] = "- " + made[30]["chosen"]
    made[31]["chosen"] = "- " + made[31]["chosen"]
    made[60]["chosen"] = made[61]["chosen"][:-1] + " indeed."
    pairs = as_set(tmp_path, made)
    found = ask("refusals", pairs)
    refuses = "response reads like a refusal, most of all in: but i cannot help with that."
    assert found.level == "ok" and list(found.rows) == [11, 2, 7, 9], "what widens the gap stands first"
    assert found.notes[2] == f"the rejected {refuses}" and found.notes[7] == f"the chosen {refuses}; the rejected {refuses}"
    console = Console(record=True, width=300)
    show_rows(console, pairs, found, 8)
    said = console.export_text()
    assert f"the rejected {refuses}" in said and "4 of 4 rows of 'refusals': 2% of the chosen and 2% of the rejected" in said
    listed, longer, begun = ask("format", pairs), ask("length", pairs), ask("openings", pairs)
    assert (listed.level, longer.level, begun.level) == ("ok", "ok", "ok")
    assert listed.notes == dict.fromkeys((30, 31), "bullet lists: the chosen response, and not the rejected one")
    assert longer.notes[2] == "25 words chosen, 8 rejected" and len(longer.rows) == round(longer.figures["longer"] * len(pairs))
    assert begun.rows and set(begun.notes.values()) == {f"the {begun.figures['side']} response begins with it"}
    assert ask("repeats", pairs).notes[61].endswith(f"like {pairs.where(60)}")


# --- the sides


def test_length_format_openings_and_style_tell_sides_apart_that_differ_in_nothing_else(tmp_path: Path) -> None:
    longer = as_set(tmp_path, rows(chosen=lambda at, draw: text(draw, 60)))
    assert ask("length", longer).level == "bad" and ask("style", longer).figures["auc"] > 0.95
    assert ask("length", longer).found.endswith("chosen is longer in 100%, shorter in 0%: 'take the longer' gets 100% right, ties counted half")
    near = as_set(tmp_path, [{"prompt": f"p{n}", "chosen": "a b" if n < 24 else "a", "rejected": "a b" if n >= 27 else "a"} for n in range(32)])
    assert "gets 79.7% right" in ask("length", near).found, "not 80%, from which on it is bad"
    listed = as_set(tmp_path, rows(chosen=lambda at, draw: "- " + text(draw, 12) + "\n- " + text(draw, 13)))
    assert ask("length", listed).level == "ok"
    found = ask("format", listed)
    assert found.level == "bad" and found.found.startswith("bullet lists 100% of chosen, 0% of rejected") and len(found.rows) == 120
    polite = as_set(tmp_path, rows(chosen=lambda at, draw: "Thank you for asking. " + text(draw, 21)))
    found = ask("openings", polite)
    assert found.level == "bad" and found.figures["opening"] == "thank you for"


def test_style_knows_no_words(tmp_path: Path) -> None:
    """Sides that differ in every word and in no shape cannot be told apart."""
    pairs = as_set(tmp_path, rows(400, chosen=lambda at, draw: text(draw).replace("a", "e"), rejected=lambda at, draw: text(draw).replace("e", "a")))
    found = separability(pairs.prompts, pairs.chosen, pairs.rejected)
    assert found.auc.low < 0.6 and found.auc.low <= found.auc.estimate <= found.auc.high
    assert found == separability(pairs.prompts, pairs.chosen, pairs.rejected), "the same set gives the same figures"
    assert style("One two, three!") == style("Two one, three!") and len(style("")) == len(NAMES)


def test_style_is_not_asked_of_a_few_pairs(tmp_path: Path) -> None:
    assert ask("style", as_set(tmp_path, rows(20))).found == "too few for a classifier: 20 pairs, and 50 are the least"


def test_the_length_gap_counts_pairs_and_words() -> None:
    gap = length_gap(["a b c", "a", "a b", "a b"], ["a", "a b", "a b", "a"])
    assert (gap.longer, gap.shorter, gap.ratio, gap.chosen, gap.rejected, gap.tells) == (0.5, 0.25, 8 / 6, 2, 1.5, 0.625)
    with pytest.raises(ValueError, match="no pair"):
        length_gap([], [])


# --- origin and judges


def test_prompts_of_a_named_benchmark_are_found(tmp_path: Path) -> None:
    made = rows()
    (tmp_path / "bench.txt").write_text(made[17]["prompt"] + "\nanother one of four words\n", encoding="utf-8")
    pairs = as_set(tmp_path, made)
    (found,) = audit_set(pairs, {"mine": tmp_path / "bench.txt"}, only=("contamination",))
    assert list(found.rows) == [17] and found.level == "bad" and found.notes[17].startswith("stands in mine: ")


def test_provenance_asks_for_origin_and_licence(tmp_path: Path) -> None:
    made = rows()
    assert ask("provenance", as_set(tmp_path, made)).level == "ok"
    assert ask("provenance", as_set(tmp_path, [{**row, "license": ""} for row in made])).do == "No column tells a licence: ask for it."
    bare = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in made]
    assert ask("provenance", as_set(tmp_path, bare)).level == "bad"


def test_a_judge_that_prefers_its_own_writing_is_found(tmp_path: Path) -> None:
    made = rows()
    for at, row in enumerate(made):
        own = at % 2 == 0
        row |= {"chosen_model": "large" if own else "other", "rejected_model": "other" if own else "large", "judge": "large" if own else "third"}
    found = ask("self-preference", as_set(tmp_path, made))
    assert found.level == "bad" and found.figures == {"large": {"own": 1.0, "others": 0.0}} and len(found.rows) == 60


def judged(at: int, won: int) -> Example:
    passed = won == 2
    verdict = Verdict("verify.better", passed, None, "" if passed else f"the judge preferred it in {won} of 2 orders")
    draft = Draft(f"Gladly, number {at}.", 0, margin=float(won - 1), verdicts=(verdict,))
    base = Example(f"e{at}", f"Go away, number {at}.", "m", "t.jsonl", at + 1, prompt=f"Where is number {at}?", drafts=(draft,), verdicts=(verdict,))
    return Example(**{**{name: getattr(base, name) for name in base.__slots__}, "chosen": draft.text, "margin": 1.0}) if passed else base


def test_order_flips_of_a_judge_are_counted_over_all_drafts_of_a_run(tmp_path: Path) -> None:
    models = {"inducer": "scripted:", "expert": "openai:large", "judge": "openai:large"}
    run = write_run(tmp_path / "run", [judged(at, (2, 1, 2, 0)[at % 4]) for at in range(40)], models=models)
    pairs = read_set(run)
    assert len(pairs) == 20 and pairs.where(1) == "t.jsonl:3"
    found = ask("order-flips", pairs)
    assert found.figures == {"judge": 0.25} and found.level == "look"
    own = ask("self-preference", pairs)
    assert own.level == "look" and own.found == "the judge openai:large also wrote the responses, and nobody else judged them"


@pytest.mark.parametrize(("drafts", "level"), [(12, "look"), (20, "ok")])
def test_few_drafts_do_not_say_that_a_judge_follows_the_order(tmp_path: Path, drafts: int, level: str) -> None:
    found = ask("order-flips", read_set(write_run(tmp_path / "run", [judged(at, 2) for at in range(drafts)])))
    assert found.level == level and found.figures == {"judge": 0.0} and "follows the order" not in found.do
    assert found.found.startswith(f"answers that turned with the order: judge 0% of {drafts} drafts")
    assert ("fewer than 20 drafts of a judge are too few to tell" in found.found) == (level == "look") == bool(found.do)


def test_a_judge_with_enough_drafts_decides_before_one_with_few(tmp_path: Path) -> None:
    def voted(at: int, **flips: float) -> Example:
        votes = tuple(Verdict(f"vote.{judge}.judge.flips", True, rate) for judge, rate in flips.items())
        return replace(judged(at, 2), drafts=(replace(judged(at, 2).drafts[0], verdicts=votes),))

    examples = [voted(at, strict=0.2, **({"other": 1.0} if at < 3 else {})) for at in range(24)]
    found = ask("order-flips", read_set(write_run(tmp_path / "run", examples)))
    assert (
        found.level == "look" and found.do.startswith("'strict' follows the order") and found.found.endswith("strict 20% of 24 drafts, other 100% of 3 drafts")
    )


def test_a_run_of_ours_is_read_with_margins_and_its_missing_licence_is_told(tmp_path: Path) -> None:
    pairs = read_set(write_run(tmp_path / "run", list(made_up(150))))
    assert pairs.run and all(margin > 0 for margin in pairs.margins)
    found = {one.check: one for one in audit_set(pairs)}
    assert found["ties"].level == "ok" and found["order-flips"].level == "none"
    assert "not stated: licence of the sources, licence of the set" in found["provenance"].found


def test_a_folder_of_runs_is_no_set_and_a_runs_columns_cannot_be_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "garden", list(made_up(30)))
    with pytest.raises(SourceError, match=r"runs is no data set; runs in it: garden; give one of them"):
        read_set(tmp_path / "runs")
    with pytest.raises(SourceError, match=r"garden: the columns of a run are known; leave out --prompt and --chosen$"):
        read_set(run, Columns(prompt="question", chosen="nosuch"))


def test_checks_without_rows_say_so(tmp_path: Path) -> None:
    pairs = as_set(tmp_path, rows())
    console = Console(record=True, width=300)
    for check in ("provenance", "style", "repeats", "contamination"):
        show_rows(console, pairs, ask(check, pairs), 5)
    said = console.export_text()
    assert "'provenance' is about the whole set: columns that tell" in said and "'style' is about the whole set: AUC" in said
    assert "'repeats' marks no row: " in said and "'contamination' was not asked: no benchmark" in said and "0 of 0" not in said


def test_gaps_of_nothing_are_no_findings(tmp_path: Path) -> None:
    assert ask("format", as_set(tmp_path, rows())).found == "lists, headings, paragraphs, capitals and marks stand as often on both sides"
    loud = rows(chosen=lambda at, draw: text(draw)[:-1] + "!.")
    assert ask("format", as_set(tmp_path, loud)).found == "exclamation marks 100% of chosen, 0% of rejected"


def test_hostile_texts_are_audited_and_shown_without_a_control_code_or_a_tag(tmp_path: Path) -> None:
    draw = random.Random(1)
    texts = [*PAYLOADS, "", "   ", "\x1b[2J\x1b]0;title\x07", "\u202ereversed", "[bold]x[/bold]"]
    made = [{name: draw.choice(texts) for name in ("prompt", "chosen", "rejected")} | {"margin": draw.choice([0, "x", None, 2.5])} for _ in range(150)]
    pairs = as_set(tmp_path, made)
    found = audit_set(pairs)
    json.dumps(as_record(pairs, found), allow_nan=False)
    console = Console(file=io.StringIO(), width=100)
    show_audit(console, pairs, found)
    for one in found:
        show_rows(console, pairs, one, 20)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert not any(unicodedata.category(c) in ("Cc", "Cf") for c in shown if c != "\n")
    markdown = as_markdown(pairs, found)
    assert "<" not in markdown and "\x1b" not in markdown


# --- forms

TALK = [{"role": "user", "content": "Is the shop open?"}]
YES, NO = {"role": "assistant", "content": "It is, until six."}, {"role": "assistant", "content": "Go away."}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Is the shop open?", "chosen": "It is, until six.", "rejected": "Go away."},
        {"prompt": TALK, "chosen": [YES], "rejected": [NO]},
        {"chosen": [*TALK, YES], "rejected": [*TALK, NO]},
        {"prompt": "Is the shop open?", "chosen": [*TALK, YES], "rejected": [*TALK, NO]},
        {"chosen": "\n\nHuman: Is the shop open?\n\nAssistant: It is, until six.", "rejected": "\n\nHuman: Is the shop open?\n\nAssistant: Go away."},
        {"input": {"messages": TALK, "tools": []}, "preferred_output": [YES], "non_preferred_output": [NO]},
        {"conversations": 1, "question": "Is the shop open?", "chosen": {"from": "gpt", "value": "It is, until six."}, "rejected": "Go away."},
    ],
)
def test_every_common_form_is_read_to_the_same_texts(tmp_path: Path, row: dict[str, Any]) -> None:
    if isinstance(row.get("chosen"), dict):
        row = {**row, "chosen": [row["chosen"]], "rejected": [{"from": "gpt", "value": row["rejected"]}]}
    pairs = as_set(tmp_path, [row])
    assert (pairs.prompts, pairs.chosen, pairs.rejected) == (["Is the shop open?"], ["It is, until six."], ["Go away."])


def test_transcripts_of_several_turns_part_where_they_differ(tmp_path: Path) -> None:
    before = "\n\nHuman: Hello\n\nAssistant: Hello you\n\nHuman: Open?\n\nAssistant:"
    pairs = as_set(tmp_path, [{"chosen": f"{before} Yes.", "rejected": f"{before} No.\n\nHuman: Why?\n\nAssistant: So."}])
    assert pairs.chosen == ["Yes."] and pairs.rejected == ["No.\n\nHuman: Why?\n\nAssistant: So."]
    assert pairs.prompts == ["Human: Hello\n\nAssistant: Hello you\n\nHuman: Open?"]


def test_columns_can_be_named_and_a_missing_one_is_told_with_those_there(tmp_path: Path) -> None:
    made = [{"q": "Is it open?", "good": "Yes.", "bad": "No."}]
    pairs = as_set(tmp_path, made, Columns("q", "good", "bad"))
    assert (pairs.prompts, pairs.chosen, pairs.rejected) == (["Is it open?"], ["Yes."], ["No."])
    with pytest.raises(SourceError, match="no column for the chosen response; columns: q, good, bad; name it with --chosen COLUMN"):
        as_set(tmp_path, made)
    with pytest.raises(SourceError, match="unpaired data"):
        as_set(tmp_path, [{"prompt": "x", "completion": "y", "label": True}])


@pytest.mark.parametrize("columns", [None, Columns(chosen="chosen"), Columns(prompt="prompt", rejected="rejected")])
@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
def test_a_first_row_that_lacks_a_column_is_one_row_that_gives_no_pair(tmp_path: Path, side: str, columns: Columns | None) -> None:
    made = rows(12, margin=lambda at, _: 1.0)  # type: ignore[arg-type,return-value]
    del made[0][side], made[0]["margin"]
    (tmp_path / "miss.jsonl").write_text("{\n" + "".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    pairs = read_set(tmp_path / "miss.jsonl", columns)
    assert (len(pairs), pairs.set_aside, [row.line for row in pairs.bad]) == (11, 2, [1, 2])
    assert pairs.bad[1].reason == f"no column '{side}'" and list(pairs.margins) == [1.0] * 11
    assert read_set(tmp_path / "miss.jsonl", columns, limit=5).set_aside == 2


def test_columns_are_looked_for_in_a_hundred_rows_and_no_more(tmp_path: Path) -> None:
    made = rows(102)
    for row in made[:100]:
        del row["chosen"]
    with pytest.raises(SourceError, match="no column for the chosen response; columns: prompt, rejected"):
        as_set(tmp_path, made)
    assert len(as_set(tmp_path, made[1:])) == 2


def test_parquet_a_dataset_folder_with_a_card_and_a_saved_dataset_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = rows(30)
    (tmp_path / "folder" / "data").mkdir(parents=True)
    (tmp_path / "folder" / "README.md").write_text("# A card\n")
    (tmp_path / "folder" / "info.json").write_text("{}")
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "folder" / "data" / "train.parquet")
    datasets.DatasetDict({"train": datasets.Dataset.from_list(made), "test": datasets.Dataset.from_list(made[:5])}).save_to_disk(tmp_path / "saved")
    assert read_set(tmp_path / "folder").chosen == [row["chosen"] for row in made]
    assert read_set(tmp_path / "folder" / "data" / "train.parquet", limit=7).chosen == [row["chosen"] for row in made[:7]]
    assert len(read_set(tmp_path / "saved")) == 30 and len(read_set(tmp_path / "saved", split="test")) == 5
    for split in ("test", "tests-00000-of-00001", "test-00001-of-00002"):
        pq.write_table(pa.Table.from_pylist(made[:4]), tmp_path / "folder" / "data" / f"{split}.parquet")
    assert len(read_set(tmp_path / "folder")) == 42 and len(read_set(tmp_path / "folder", split="test")) == 8
    assert len(read_set(tmp_path / "folder", split="train", limit=9)) == 9
    with pytest.raises(SourceError, match=r"no file is named after the split 'dev'; there are: test, tests, train$"):
        read_set(tmp_path / "folder", split="dev")
    with pytest.raises(SourceError, match=r"only a folder of files .* has splits; leave out --split"):
        read_set(tmp_path / "folder" / "data" / "train.parquet", split="train")
    (tmp_path / "none").mkdir()
    with pytest.raises(SourceError, match="holds neither a run"):
        read_set(tmp_path / "none")
