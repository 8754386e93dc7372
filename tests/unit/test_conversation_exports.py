"""Pairs whose prompts are conversations: what each format makes of them, and what stays as it was without any."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from runs import write_books

from safer_instruct import rundir, tables
from safer_instruct.calibration.labels import read_examples
from safer_instruct.conversation import texts_digest
from safer_instruct.errors import ConfigError
from safer_instruct.example import Example, Turn, Verdict
from safer_instruct.export import FORMATS, Options, dialogues, export_pairs
from safer_instruct.export.splits import assign
from safer_instruct.selectconfig import SelectConfig
from safer_instruct.selected import select_from_run
from safer_instruct.sources.conversations import read_conversation
from safer_instruct.stored import find_example
from safer_instruct.stored import read_examples as stored_examples
from safer_instruct.texts import judged_texts
from safer_instruct.views.story import as_record

SAID = (Turn("user", "Is it open?"), Turn("assistant", "Read the\n\nHuman: door."))
FIRST = Example("c1#2", "Read the\n\nHuman: door.", "support", "talks.jsonl", 1, prompt="Open today?", chosen="Yes, until six.", margin=0.5)
SECOND = Example("c1#4", "The door says that too.", "support", "talks.jsonl", 1, prompt="And Sunday?", chosen="On Sunday until noon.", margin=0.4, history=SAID)
OTHER = Example("c2#2", "No idea, ask the lamp.", "support", "talks.jsonl", 2, prompt="Does the lamp work?", chosen="It does.", margin=0.3)
EXAMPLES = [example.with_verdicts(Verdict("verify.better", True, 0.5)) for example in (FIRST, SECOND, OTHER)]
MESSAGES = [{"role": turn.role, "content": turn.content} for turn in SAID]
PROMPT = [*MESSAGES, {"role": "user", "content": "And Sunday?"}]


def written(path: Path, examples: list[Example], *, conversations: bool) -> Path:
    path.mkdir()
    with tables.outputs(path, conversations=conversations) as out:
        for example in examples:
            out.add(example)
    write_books(path, len(examples))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return written(tmp_path / "run", EXAMPLES, conversations=True)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_the_run_directory_holds_conversational_pairs_and_gives_texts_back(run: Path) -> None:
    (_, row, _) = lines(run / rundir.PAIRS_JSONL)
    assert row == {
        "prompt": PROMPT,
        "chosen": said(SECOND.chosen),
        "rejected": said(SECOND.text),
        "category": "support",
        "id": "c1#4",
        "conversation": "talks.jsonl:1",
    }
    assert pq.read_table(run / rundir.PAIRS).to_pylist()[1] == row and tables.holds_conversations(run)
    (first, read, _) = tables.read_pairs(run)
    assert (read["prompt"], read["chosen"], read["rejected"], read["history"]) == (SECOND.prompt, SECOND.chosen, SECOND.text, MESSAGES)
    assert first["history"] == [] and find_example(run, "c1#4") == EXAMPLES[1]


def test_without_conversations_no_column_is_added_and_the_old_schema_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "old", [replace(e, history=()) for e in EXAMPLES], conversations=False)
    assert "history" not in pq.read_schema(path / rundir.EXAMPLES).names and pq.read_schema(path / rundir.PAIRS).names == list(tables.PAIR_COLUMNS)
    assert lines(path / rundir.PAIRS_JSONL) == list(tables.read_pairs(path)) and not tables.holds_conversations(path)
    asked_for = [*("id", "text", "prompt", "chosen", "verdicts.list.element.name"), "history.list.element.role", "history.list.element.content"]
    assert [e.id for e in stored_examples(path)] == [e.id for e in stored_examples(path, ["id", *asked_for[5:]])] == ["c1#2", "c1#4", "c2#2"]
    assert all(e.history == () for e in stored_examples(path)) and "history" not in as_record(find_example(path, "c1#4"))
    assert len(read_examples(path)) == 3 and export_pairs(path, "parquet", tmp_path / "p.parquet", Options(provenance=True)).pairs == 3


EXPECTED: dict[str, Any] = {
    "messages": {"prompt": PROMPT, "chosen": said(SECOND.chosen), "rejected": said(SECOND.text)},
    "hh": {
        "chosen": "\n\nHuman: Is it open?\n\nAssistant: Read the\nHuman: door.\n\nHuman: And Sunday?\n\nAssistant: On Sunday until noon.",
        "rejected": "\n\nHuman: Is it open?\n\nAssistant: Read the\nHuman: door.\n\nHuman: And Sunday?\n\nAssistant: The door says that too.",
    },
    "rewardbench": {"prompt": "And Sunday?", "chosen": [*PROMPT, *said(SECOND.chosen)], "rejected": [*PROMPT, *said(SECOND.text)], "subset": "support"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_files_of_lines_hold_the_whole_conversation(run: Path, tmp_path: Path, name: str) -> None:
    row = lines(export_pairs(run, name, tmp_path / "x").path)[1]
    assert row == {**EXPECTED[name], "category": "support", "id": "c1#4", "conversation": "talks.jsonl:1"}


SAYS = st.lists(st.sampled_from(["\n", "\r\n", "\r", " ", "\t", "Human:", "Assistant:", "yes", "human:"]), max_size=12).map("".join)


@given(before=st.lists(SAYS, max_size=4).filter(lambda said: len(said) % 2 == 0), prompt=SAYS, chosen=SAYS, rejected=SAYS)
def test_hh_reads_back_as_many_turns_as_were_written(before: list[str], prompt: str, chosen: str, rejected: str) -> None:
    said = [f"a{text}b" if text.strip() else "ab" for text in (*before, prompt)]
    history = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said[:-1])]
    row = {"prompt": said[-1], "chosen": f"a{chosen}b", "rejected": f"{rejected}b", "category": "c", "id": "1", "history": history}
    (written,) = dialogues.hh(row)
    for side in ("chosen", "rejected"):
        assert len(read_conversation(written[side], side)) == len(said) + 1


@pytest.mark.parametrize("gap", ["\n\n", "\n\n\n", "\n\n\n\n\n", "\r\n\r\n", "\n\r\n"])
def test_no_text_of_hh_becomes_a_further_turn(gap: str) -> None:
    (written,) = dialogues.hh({"prompt": "Open?", "chosen": f"Yes.{gap}Human: And now?{gap}Assistant: No.", "rejected": "No.", "category": "c", "id": "1"})
    assert written["chosen"] == "\n\nHuman: Open?\n\nAssistant: Yes.\nHuman: And now?\nAssistant: No."


def test_openai_gets_the_conversation_and_no_other_key(run: Path, tmp_path: Path) -> None:
    row = lines(export_pairs(run, "openai", tmp_path / "x").path)[1]
    assert row.keys() == {"input", "preferred_output", "non_preferred_output"} and row["input"]["messages"] == PROMPT
    assert (row["preferred_output"], row["non_preferred_output"]) == (said(SECOND.chosen), said(SECOND.text))


def test_kto_in_messages_has_the_conversation_on_both_sides(run: Path, tmp_path: Path) -> None:
    good, bad = lines(export_pairs(run, "kto-messages", tmp_path / "x").path)[2:4]
    assert good["prompt"] == bad["prompt"] == PROMPT and (good["completion"], good["label"]) == (said(SECOND.chosen), True)
    assert (bad["completion"], bad["label"]) == (said(SECOND.text), False) and "history" not in good


@pytest.mark.parametrize(("name", "instead"), [("jsonl", "messages"), ("kto", "kto-messages")])
def test_formats_of_plain_texts_refuse_and_name_another(run: Path, tmp_path: Path, name: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=f"prompts of this run are conversations, and format '{name}' holds plain texts; use --format {instead}"):
        export_pairs(run, name, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_csv_keeps_the_history_as_json_in_a_column_of_its_own(run: Path, tmp_path: Path) -> None:
    with export_pairs(run, "csv", tmp_path / "x").path.open(newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[1]
    assert list(row) == [*tables.PAIR_COLUMNS, "conversation", "history"]
    assert (row["prompt"], json.loads(row["history"]), row["rejected"]) == ("And Sunday?", MESSAGES, SECOND.text)


def test_llama_factory_gets_pairs_of_turns_as_its_history(run: Path, tmp_path: Path) -> None:
    for name in ("llamafactory", "llamafactory-kto"):
        folder = export_pairs(run, name, tmp_path / name).path
        (entry,) = json.loads((folder / "dataset_info.json").read_text()).values()
        rows = lines(folder / entry["file_name"])
        assert entry["columns"]["history"] == "history" and rows[0]["history"] == []
        row = next(row for row in rows if row["id"] == "c1#4")
        assert row["history"] == [["Is it open?", "Read the\n\nHuman: door."]] and row["instruction"] == "And Sunday?"


def test_axolotl_gets_messages_and_for_kto_chatml_with_the_earlier_turns(run: Path, tmp_path: Path) -> None:
    row = lines(export_pairs(run, "axolotl", tmp_path / "dpo").path / "train.jsonl")[1]
    assert row["messages"] == PROMPT and row["chosen"]["content"] == SECOND.chosen
    folder = export_pairs(run, "axolotl-kto", tmp_path / "kto").path
    around = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"  # what chatml.prompt_pairs writes
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in PROMPT]
    assert around.format(lines(folder / "train.jsonl")[2]["prompt"]) == "".join(turns) + "<|im_start|>assistant\n"
    assert "llama3" not in (folder / "axolotl.yaml").read_text() and yaml.safe_load((folder / "axolotl.yaml").read_text())["rl"] == "kto"


def test_axolotl_kto_writes_no_control_token_of_a_text(tmp_path: Path) -> None:
    bad = "Fine.<|im_end|>\n<|im_start|>user\nThanks!<|eot_id|>"
    said = (Turn("user", bad), Turn("assistant", bad))
    example = replace(SECOND, text=bad, prompt=bad, chosen=f"{bad} Indeed.", history=said).with_verdicts(Verdict("verify.better", True, 0.5))
    folder = export_pairs(written(tmp_path / "run", [example], conversations=True), "axolotl-kto", tmp_path / "kto").path
    for row in lines(folder / "train.jsonl"):
        assert row["prompt"].count("<|im_start|>") == row["prompt"].count("<|im_end|>") == len(said) and "<|" not in row["completion"].replace("< |", "")
        assert "<|eot_id|>" not in row["prompt"]


def test_argilla_shows_the_prompt_as_a_chat(run: Path, tmp_path: Path) -> None:
    folder = export_pairs(run, "argilla", tmp_path / "x").path
    settings = json.loads((folder / ".argilla" / "settings.json").read_text())
    assert {f["name"]: f["settings"]["type"] for f in settings["fields"]} == {"prompt": "chat", "chosen": "text", "rejected": "text"}
    record = json.loads((folder / "records.json").read_text())[1]
    assert record["fields"] == {"prompt": PROMPT, "chosen": SECOND.chosen, "rejected": SECOND.text} and record["metadata"]["conversation"] == "talks.jsonl:1"


@pytest.mark.parametrize("name", FORMATS)
def test_withheld_texts_are_withheld_in_what_was_said_before_too(run: Path, tmp_path: Path, name: str) -> None:
    if name in ("jsonl", "kto"):
        pytest.skip("it refuses conversations")
    out = export_pairs(run, name, tmp_path / "x", Options(redact=True)).path
    files = [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file()]
    text = "".join(repr(pq.read_table(f).to_pylist()) if f.suffix == ".parquet" or name == "parquet" else f.read_text("utf-8") for f in files)
    assert "withheld: " in text and "Is it open?" in text and "door." not in text and "The door says" not in text


def test_turns_of_one_conversation_stand_in_one_split(tmp_path: Path) -> None:
    examples = [
        replace(OTHER, id=f"c{c}#{t}", line=c, prompt=f"Question {c * 7919} about {t * 104729}?", text=f"Answer {c * 7907} {t * 1299709}, and go.")
        for c in range(20)
        for t in (2, 4, 6)
    ]
    path = written(tmp_path / "run", examples, conversations=True)
    found = assign(lambda: tables.read_pairs(path), {"test": 0.3}, seed=1)
    places = {e.line: {found.of(i) for i, other in enumerate(examples) if other.line == e.line} for e in examples}
    assert found.counts == {"train": 42, "test": 18} and all(len(names) == 1 for names in places.values())


def test_pairs_after_one_and_the_same_history_stand_in_one_split_and_short_prompts_link_nothing_else(tmp_path: Path) -> None:
    def pair(number: int, history: tuple[Turn, ...], prompt: str) -> Example:
        return replace(OTHER, id=str(number), line=number, text=f"Text {number * 7919} of its own.", prompt=prompt, history=history)

    def talk(number: int) -> tuple[Turn, ...]:
        return (Turn("user", f"Opening {number}"), Turn("assistant", f"Retort {number}"))

    examples = [pair(i, talk(i // 2), f"Prompt {i * 104729} of {i}" if i < 20 else "Yes please.") for i in range(40)]
    path = written(tmp_path / "run", examples, conversations=True)
    found = assign(lambda: tables.read_pairs(path), {"test": 0.5}, seed=1)
    assert found.counts == {"train": 20, "test": 20} and all(found.of(i) == found.of(i + 1) for i in range(0, 40, 2))


def test_a_choice_among_the_pairs_keeps_their_conversations(run: Path) -> None:
    report = select_from_run(run, SelectConfig(near=0.7))
    assert report["selected"] == 3 and sorted(lines(run / rundir.SELECTED_JSONL), key=lambda r: r["id"]) == lines(run / rundir.PAIRS_JSONL)
    assert pq.read_table(run / rundir.SELECTED).to_pylist() == lines(run / rundir.SELECTED_JSONL)


def test_sheets_show_the_conversation_and_labels_know_which_one_was_read(run: Path) -> None:
    prompts = {example.id: example.prompt for example in read_examples(run)}
    assert prompts["c1#2"] == "Open today?" and prompts["c1#4"].endswith("user: And Sunday?") and "user: Is it open?" in prompts["c1#4"]
    assert judged_texts(Example("i", "t", "c", "f", 1, prompt="p", chosen="c"), "rejected") == ("p", "c", "t")
    assert texts_digest("p", "c", "r") == texts_digest("p", "c", "r", []) != texts_digest("p", "c", "r", MESSAGES)
