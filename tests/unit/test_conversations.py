"""Rows that hold conversations: what is read of them, and why one is set aside."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_instruct.config import RunConfig, SourceConfig
from safer_instruct.errors import SourceError
from safer_instruct.example import Turn
from safer_instruct.sources import BadRow, SourceText, read_source
from safer_instruct.sources.conversations import answers, read_conversation
from safer_instruct.sources.records import RowRefused
from safer_instruct.yamlfile import parse

TURNS = (Turn("user", "Is it open?"), Turn("assistant", "Read the door."), Turn("user", "And on Sunday?"), Turn("assistant", "The door says that as well."))
MESSAGES = [{"role": turn.role, "content": turn.content} for turn in TURNS]
SHAREGPT = [{"from": "human" if turn.role == "user" else "gpt", "value": turn.content} for turn in TURNS]
HH = "\n\nHuman: Is it open?\n\nAssistant: Read the door.\n\nHuman: And on Sunday?\n\nAssistant: The door says that as well."
SYSTEM = {"role": "system", "content": "You are a shop."}


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


@pytest.mark.parametrize(
    "value",
    [
        MESSAGES,
        SHAREGPT,
        HH,
        HH.lstrip(),
        HH.replace("\n", "\r\n"),
        json.dumps(MESSAGES),
        [SYSTEM, *MESSAGES],
        [{"role": "developer", "content": ""}, *MESSAGES],
        [user([{"type": "text", "text": "Is it"}, {"type": "text", "text": "open?"}]), *MESSAGES[1:]],
    ],
)
def test_every_published_form_gives_the_turns_of_user_and_assistant(value: Any) -> None:
    read = read_conversation(value, "messages")
    assert tuple(Turn(turn.role, turn.content.replace("\n", " ")) for turn in read) == TURNS


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no list of turns"),
        (7, "no list of turns"),
        ({"role": "user"}, "no list of turns"),
        ("Hello there", "begins neither with 'Human:'"),
        ("Hello\n\nHuman: x\n\nAssistant: y", "begins neither with 'Human:'"),
        ("[not json", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ([], "no turn of the assistant"),
        ([user("x")], "no turn of the assistant"),
        ([SYSTEM], "no turn of the assistant"),
        ([assistant("Welcome.")], "begins with the assistant"),
        ([SYSTEM, assistant("Welcome."), user("x"), assistant("y")], r"begins with the assistant \(turn 2\)"),
        ([user("x"), user("y"), assistant("z")], "turns 1 and 2 are both the user's"),
        ([SYSTEM, user("x"), assistant("y"), assistant("z")], "turns 3 and 4 are both the assistant's"),
        ([user("x"), assistant(" \n")], "turn 2, the assistant's, is empty"),
        ([user(""), assistant("y")], "turn 1, the user's, is empty"),
        ([user(None), assistant("y")], "'content' is not text"),
        ([user("x"), assistant(None)], "turn 2, the assistant's, is empty"),
        ([user("x"), assistant(None, tool_calls=[{"id": "1"}])], "turn 2 calls a tool"),
        ([user("x"), assistant("y"), {"role": "tool", "content": "z"}], "turn 3 is a tool's"),
        ([user("x"), assistant("y"), SYSTEM], "turn 3 is a system turn in the middle"),
        ([user("x"), {"role": "narrator", "content": "y"}], "'role' is 'narrator'"),
        ([user("x"), {"content": "y"}], "'role' is None"),
        ([user("x"), "y"], "turn 2 is no object"),
        ([user([{"type": "image_url"}]), assistant("y")], "part that is not text"),
        ([user("x\0"), assistant("y")], "turn 1 holds NUL"),
        ([user("x"), assistant("\ud800")], "lone surrogate"),
        ("\n\nHuman: x\n\nHuman: y\n\nAssistant: z", "turns 1 and 2 are both the user's"),
        ("\n\nHuman: x\n\nAssistant:", "turn 2, the assistant's, is empty"),
    ],
)
def test_a_conversation_that_cannot_be_used_says_why(value: Any, reason: str) -> None:
    with pytest.raises(RowRefused, match=reason):
        read_conversation(value, "messages")


def test_each_answer_knows_what_was_asked_and_what_was_said_before_that() -> None:
    first, second = answers(TURNS)
    assert (first.text, first.asked, first.history, first.turn) == ("Read the door.", "Is it open?", (), 2)
    assert (second.text, second.asked, second.history, second.turn) == ("The door says that as well.", "And on Sunday?", TURNS[:2], 4)
    assert answers([*TURNS, Turn("user", "Thanks.")]) == [first, second]


SAID = st.text(min_size=1, max_size=20).map(str.strip).filter(lambda text: text and "\0" not in text)
ANY_TURN = st.dictionaries(
    st.sampled_from(["role", "content", "from", "value", "tool_calls"]),
    st.one_of(st.none(), st.integers(), st.text(max_size=8), st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt"]), st.lists(st.text())),
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(st.one_of(ANY_TURN, st.text(max_size=5)), max_size=6), st.lists(ANY_TURN).map(json.dumps)))
def test_whatever_a_column_holds_is_a_conversation_of_two_or_refused(value: Any) -> None:
    try:
        turns = read_conversation(value, "m")
    except RowRefused:
        return
    assert [turn.role for turn in turns] == (["user", "assistant"] * len(turns))[: len(turns)] and all(turn.content.strip() for turn in turns)


@settings(max_examples=100, deadline=None)
@given(st.lists(SAID, min_size=2, max_size=7))
def test_messages_and_turns_are_read_as_they_were_written(said: list[str]) -> None:
    turns = tuple(Turn("assistant" if number % 2 else "user", text) for number, text in enumerate(said))
    assert read_conversation([{"role": turn.role, "content": turn.content} for turn in turns], "m") == turns
    assert read_conversation([{"from": turn.role, "value": turn.content} for turn in turns], "m") == turns
    assert [(answer.text, answer.asked) for answer in answers(turns)] == list(zip(said[1::2], said[::2], strict=False))


def written(folder: Path, kind: str) -> SourceConfig:
    """Two conversations, the second of which cannot be used, as a file of that kind."""
    rows = [{"talk": MESSAGES, "n": "c1"}, {"talk": MESSAGES[:1], "n": "c2"}]
    path = folder / f"talks.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["talk", "n"], *([json.dumps(row["talk"]), row["n"]] for row in rows)])
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceConfig(path=path.name, messages="talk", id="n")


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_files_of_rows_give_the_last_answer_or_all(tmp_path: Path, kind: str) -> None:
    config = written(tmp_path, kind)
    last = SourceText("The door says that as well.", f"talks.{kind}", 1 if kind != "csv" else 2, "c1", None, TURNS[:2], "And on Sunday?")
    found = list(read_source(config, tmp_path))
    assert found[0] == last and isinstance(found[1], BadRow) and found[1].reason == "the conversation has no turn of the assistant"
    every = list(read_source(config.model_copy(update={"turns": "all"}), tmp_path))
    assert [row.id for row in every if isinstance(row, SourceText)] == ["c1#2", "c1#4"] and len(every) == 3
    assert every[0] == SourceText("Read the door.", last.file, last.line, "c1#2", None, (), "Is it open?")


def test_a_turn_that_is_too_long_is_set_aside_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"m": [user("x"), assistant("short"), user("y"), assistant("l" * 30), user("z" * 30), assistant("end")]}) + "\n"
    )
    config = SourceConfig(path="a.jsonl", messages="m", turns="all", max_chars=20)
    first, *others = read_source(config, tmp_path)
    assert isinstance(first, SourceText) and first.text == "short"
    reasons = [row.reason for row in others if isinstance(row, BadRow)]
    assert reasons == ["turn 4: text longer than 20 characters: 30", "turn 6: what was said before the text is longer than 20 characters: 67"]


def test_a_missing_column_and_a_file_without_columns_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"mesages": []}\n')
    (tmp_path / "b.txt").write_text("x")
    found = list(read_source(SourceConfig(path="a.jsonl", messages="messages"), tmp_path))
    assert isinstance(found[0], BadRow) and found[0].reason == "messages column 'messages' is missing (nearest: 'mesages'); this row has mesages"
    with pytest.raises(SourceError, match="plain text has no columns, so 'messages: talk'"):
        list(read_source(SourceConfig(path="b.txt", messages="talk"), tmp_path))


def test_without_an_id_equal_answers_to_different_conversations_get_different_ones(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"m": [user(text), assistant("No.")]}) + "\n" for text in ("a", "b")))
    digests = {row.digest for row in read_source(SourceConfig(path="a.jsonl", messages="m"), tmp_path) if isinstance(row, SourceText)}
    assert len(digests) == 2 and SourceText("No.", "f", 1, None, None).digest not in digests


CONFIG: dict[str, Any] = {"domain": "civility", "source": {"path": "x.jsonl"}, "models": {"inducer": "scripted:", "expert": "scripted:"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": {"path": "x", "messages": "m", "text": "t"}}, "has both 'text' and 'messages'"),
        ({"source": {"path": "x", "turns": "all"}}, "'turns' is for conversations"),
        ({"induce": {"given": "keep"}}, "induce.given 'keep' is for conversations"),
        ({"models": {"expert": "scripted:"}}, "models.inducer is missing"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=said):
        parse(yaml.safe_dump({**CONFIG, **changes}), RunConfig, name="c.yaml")


def test_what_is_said_of_conversations_is_part_of_what_the_result_depends_on() -> None:
    talks = {**CONFIG, "source": {"path": "x", "messages": "m"}, "models": {"expert": "scripted:"}, "induce": {"given": "keep"}}
    what, _ = parse(yaml.safe_dump(talks), RunConfig, name="c.yaml").parted()
    assert (what["source"]["messages"], what["source"]["turns"], what["induce"]["given"], what["models"]["inducer"]) == ("m", "last", "keep", None)
