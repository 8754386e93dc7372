"""Tuning pairs from the formats that instruction data is published in; rows that give none are set aside with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_instruct.config import SourceConfig
from safer_instruct.errors import SourceError
from safer_instruct.models.protocol import Turn
from safer_instruct.settings.pairs import PairSource
from safer_instruct.sources import BadRow, read_rows
from safer_instruct.tuning.pairs import Pair, read_pairs, whole_pairs

CHAT = [("user", "Which tea?"), ("assistant", "Green tea."), ("user", "How hot?"), ("assistant", "Eighty degrees.")]
SHAREGPT = {"id": "1", "conversations": [{"from": {"user": "human", "assistant": "gpt"}[role], "value": said} for role, said in CHAT]}
MESSAGES = {"messages": [{"role": "system", "content": "Be brief."}, *({"role": role, "content": said} for role, said in CHAT)]}


def read(folder: Path, rows: list[Any], name: str = "data.jsonl", **source: Any) -> list[Pair | BadRow]:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(read_pairs((PairSource(path=name, **source),), folder))


def exchanged(found: list[Pair | BadRow]) -> list[tuple[str, str]]:
    assert all(isinstance(item, Pair) for item in found), found
    return [(item.prompt, item.response) for item in found if isinstance(item, Pair)]


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"instruction": "Name a tea.", "input": "", "output": " Oolong. "}, ("Name a tea.", "Oolong.")),
        ({"instruction": "Shorten it.", "input": "A long text.", "output": "Text."}, ("Shorten it.\n\nA long text.", "Text.")),
        ({"instruction": "Name a tea.", "output": "Oolong."}, ("Name a tea.", "Oolong.")),
        ({"instruction": "Who?", "context": "Ann did it.", "response": "Ann.", "category": "qa"}, ("Who?\n\nAnn did it.", "Ann.")),
        ({"instruction": "Who?", "context": None, "response": "Ann."}, ("Who?", "Ann.")),
        ({"prompt": "Who?", "response": "Ann."}, ("Who?", "Ann.")),
    ],
)
def test_single_exchanges_are_known_by_their_columns(tmp_path: Path, row: dict[str, Any], pair: tuple[str, str]) -> None:
    assert exchanged(read(tmp_path, [row])) == [pair]


@pytest.mark.parametrize("row", [SHAREGPT, MESSAGES], ids=["sharegpt", "messages"])
def test_a_conversation_gives_a_pair_per_answer_which_stay_in_one_group(tmp_path: Path, row: dict[str, Any]) -> None:
    found = [p for p in read(tmp_path, [row]) if isinstance(p, Pair)]
    assert exchanged(list(found)) == [("Which tea?", "Green tea."), ("How hot?", "Eighty degrees.")]
    assert {p.group for p in found} == {"Which tea?"} and {p.history for p in found} == {()}
    assert exchanged(read(tmp_path, [row], turns="first")) == [("Which tea?", "Green tea.")]
    second = read(tmp_path, [row], history=True)[1]
    assert isinstance(second, Pair) and second.history == (Turn("user", "Which tea?"), Turn("assistant", "Green tea."))


def test_what_follows_no_user_is_no_answer(tmp_path: Path) -> None:
    turns = [("assistant", "Welcome."), ("user", "Run it."), ("assistant", None), ("tool", "42"), ("assistant", "It is 42."), ("user", "Thanks!")]
    found = read(tmp_path, [{"messages": [{"role": role, "content": said} for role, said in turns]}])
    assert exchanged(found) == [("Run it.", "")], "a call of a tool is an empty answer, which cleaning drops; the one after the tool answers no user"
    parts = [{"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "text", "text": "this."}]}, {"role": "assistant", "content": "Yes."}]
    assert exchanged(read(tmp_path, [{"messages": parts}])) == [("See\nthis.", "Yes.")]


def test_columns_may_be_named(tmp_path: Path) -> None:
    rows = [{"ask": "Who?", "about": "Ann did it.", "say": "Ann.", "trade": 7}]
    found = read(tmp_path, rows, prompt="ask", input="about", response="say", group="trade")
    assert found == [Pair("Who?\n\nAnn did it.", "Ann.", "7", "data", (), "data.jsonl", 1)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "Who?"}, "no column 'output'; this row has instruction"),
        ({"instruction": "Who?", "output": 7}, "column 'output' is not text"),
        ({"instruction": "Who?", "output": "\ud800"}, "lone surrogate"),
        ([1], "JSON is a list, not an object"),
    ],
)
def test_a_row_that_gives_no_pair_is_set_aside_with_its_place_and_reason(tmp_path: Path, row: Any, reason: str) -> None:
    good = {"instruction": "Name a tea.", "output": "Oolong."}
    first, bad, last = read(tmp_path, [good, row, good])
    assert isinstance(bad, BadRow) and (bad.file, bad.line) == ("data.jsonl", 2) and reason in bad.reason
    assert isinstance(first, Pair) and isinstance(last, Pair)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([{"from": "gpt", "value": "Hello."}], "no answer that follows a user's message"),
        ([{"from": "narrator", "value": "Night fell."}], "turn 1: 'from' is 'narrator'"),
        ([{"from": "human", "value": None}], "turn 1: 'value' is not text"),
        (["Hello."], "turn 1 is no object"),
        ("Hello.", "column 'conversations' is no list of turns"),
    ],
)
def test_a_broken_conversation_is_set_aside(tmp_path: Path, turns: Any, reason: str) -> None:
    found = read(tmp_path, [SHAREGPT, {"conversations": turns}])
    assert isinstance(found[-1], BadRow) and reason in found[-1].reason and found[-1].line == 2


def test_columns_that_fit_no_format_stop_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"data\.jsonl: columns ask, say fit no format .* with 'prompt' and 'response'"):
        read(tmp_path, [{"ask": "Who?", "say": "Ann."}])


def test_a_first_row_that_fits_no_format_is_one_row_set_aside(tmp_path: Path) -> None:
    good = {"instruction": "Name a tea.", "output": "Oolong."}
    bad, *found = read(tmp_path, [{"instruction": "Who?"}, good, good])
    assert isinstance(bad, BadRow) and (bad.line, bad.reason) == (1, "no column 'output'; this row has instruction")
    assert exchanged(found) == [("Name a tea.", "Oolong.")] * 2


def test_the_format_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(SHAREGPT) + "\n", encoding="utf-8")
    told: list[str] = []
    list(read_pairs((PairSource(path="a.jsonl"),), tmp_path, told.append))
    assert told == ["a.jsonl: format sharegpt, told by its columns"]


def test_parquet_and_csv_read_alike(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([MESSAGES, MESSAGES]), tmp_path / "chat.parquet")
    (tmp_path / "dolly.csv").write_text('instruction,context,response\nWho?,"Ann,\nshe did.",Ann.\n', encoding="utf-8")
    found = whole_pairs((PairSource(path="chat.parquet"), PairSource(path="dolly.csv")), tmp_path)
    assert [(p.prompt, p.source, p.line) for p in found] == [
        *[("Which tea?", "chat", 1), ("How hot?", "chat", 1), ("Which tea?", "chat", 2), ("How hot?", "chat", 2)],
        ("Who?\n\nAnn,\nshe did.", "dolly", 2),
    ]


# --- a JSON file that is one array


def array_rows(folder: Path, text: str | bytes) -> list[Any]:
    (folder / "all.json").write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_rows(SourceConfig(path="all.json"), folder))


def test_an_array_is_read_like_lines(tmp_path: Path) -> None:
    rows = [{"instruction": f"Ask {i}", "output": "ü" * i} for i in range(5)]
    found = array_rows(tmp_path, "\ufeff" + json.dumps(rows, indent=2, ensure_ascii=False))
    assert [row.fields for row in found] == rows
    assert [row.line for row in found] == [2, 6, 10, 14, 18], "the line on which each begins"
    assert array_rows(tmp_path, " [ ] ") == []


def test_elements_longer_than_what_is_read_at_once_come_whole(tmp_path: Path) -> None:
    rows = [{"output": "é" * 700_000}, {"output": "short"}, {"output": "x" * 300_000}]
    assert [row.fields for row in array_rows(tmp_path, json.dumps(rows, ensure_ascii=False))] == rows


@settings(max_examples=50)
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=5), st.one_of(st.text(), st.integers(), st.none(), st.lists(st.integers())))),
    indent=st.sampled_from([None, 1]),
)
def test_any_array_of_objects_comes_back(rows: list[dict[str, Any]], indent: int | None, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = array_rows(tmp_path_factory.mktemp("array"), json.dumps(rows, indent=indent))
    assert [row.fields for row in found] == rows


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"a": 1}, {"a": ', "broken JSON"),
        ('[{"a": 1}', "never closed"),
        ('[{"a": 1} {"a": 2}]', "'{' where one of ',]' should stand"),
        ('[{"a": 1}]\n[{"a": 2}]', "more stands behind it"),
        (b'[{"a": 1}, {"a": "\xff"}]', "invalid start byte"),
    ],
)
def test_a_broken_array_gives_what_stands_before_the_break(tmp_path: Path, text: str | bytes, reason: str) -> None:
    *good, bad = array_rows(tmp_path, text)
    assert isinstance(bad, BadRow) and reason in bad.reason and "nothing from this element on was read" in bad.reason
    assert all(row.fields == {"a": 1} for row in good)


def test_an_element_that_is_no_object_is_set_aside_and_the_rest_is_read(tmp_path: Path) -> None:
    found = array_rows(tmp_path, '[1, {"a": 1}, [2]]')
    assert [getattr(row, "fields", None) or row.reason for row in found] == [
        "the element is a number, not an object",
        {"a": 1},
        "the element is a list, not an object",
    ]


def test_plain_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Hello.\n", encoding="utf-8")
    with pytest.raises(SourceError, match="plain text has no columns"):
        list(read_pairs((PairSource(path="a.txt"),), tmp_path))


# --- datasets


@pytest.mark.filterwarnings("default")
def test_a_folder_that_datasets_saved_is_read_in_order(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra datasets is not installed")
    rows = [{"instruction": f"Ask {i}", "input": "", "output": f"Answer {i}"} for i in range(7)]
    train = datasets.Dataset.from_list(rows)
    train.select([6, 2, 4]).save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": train, "test": train.select([1])}).save_to_disk(tmp_path / "two")
    assert [p.prompt for p in whole_pairs((PairSource(path="one"),), tmp_path)] == ["Ask 6", "Ask 2", "Ask 4"]
    assert len(whole_pairs((PairSource(path="two"),), tmp_path)) == 7
    assert [p.prompt for p in whole_pairs((PairSource(path="two", split="test"),), tmp_path)] == ["Ask 1"]
    with pytest.raises(SourceError, match="no split 'dev'; set 'split' to one of train, test"):
        whole_pairs((PairSource(path="two", split="dev"),), tmp_path)


@pytest.mark.filterwarnings("default")
def test_a_dataset_by_name_is_loaded_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the extra datasets is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "train.jsonl").write_text(json.dumps(MESSAGES) + "\n", encoding="utf-8")
    assert len(whole_pairs((PairSource(path="hf:local"),), tmp_path)) == 2
    with pytest.raises(SourceError, match="hf:local: cannot be loaded"):
        whole_pairs((PairSource(path="hf:local", split="dev"),), tmp_path)
