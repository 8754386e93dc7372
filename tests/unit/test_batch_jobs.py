"""The file of batches, and the reading of results that may hold anything."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.errors import ModelError, RunDirectoryError
from safer_instruct.models.anthropic import AnthropicModel
from safer_instruct.models.batch.anthropic import AnthropicBatches
from safer_instruct.models.batch.api import compact, form
from safer_instruct.models.batch.carrier import is_final, read
from safer_instruct.models.batch.gemini import GeminiBatches
from safer_instruct.models.batch.jobs import Batch, Jobs, Row, read_under_way
from safer_instruct.models.batch.mistral import MistralBatches
from safer_instruct.models.batch.openai import OpenAIBatches
from safer_instruct.models.batch.provider import Fate, custom_id, row_of
from safer_instruct.models.openai import OpenAIModel
from safer_instruct.models.protocol import Generation, Sampling, Turn

LOCAL = "http://127.0.0.1:9/v1"
ROWS = [Row(bytes([i]) * 32, part, 0.25, 100) for i in range(3) for part in range(2)]


@cache
def providers() -> tuple[Any, ...]:
    kinds = (OpenAIBatches, AnthropicBatches, GeminiBatches, MistralBatches)
    return tuple(kind("m", base_url=LOCAL) for kind in kinds)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with closing(Jobs(tmp_path / "batches.sqlite")) as opened:
        yield opened


def test_a_batch_goes_through_its_states_and_leaves_its_answers(jobs: Jobs) -> None:
    batch = jobs.plan("m", "token", "/path", ROWS)
    assert jobs.rows(batch) == ROWS and jobs.batch_of(ROWS[0].key) == batch.id and jobs.remotes() == set()
    batch = jobs.advance(batch, "creating", upload="file")
    batch = jobs.advance(batch, "open", remote="there")
    assert jobs.unfinished("m") == [batch] and jobs.unfinished("other") == [] and jobs.remotes() == {"there"}
    assert (batch.state, batch.upload, batch.remote, batch.size) == ("open", "file", "there", 6)
    jobs.finish(batch, [(ROWS[0], b"one"), (ROWS[1], b"two"), (ROWS[2], b"three")])
    assert jobs.unfinished("m") == [] and jobs.batch_of(ROWS[0].key) is None
    assert jobs.answers(ROWS[0].key) == {0: b"one", 1: b"two"} and jobs.answers(ROWS[2].key) == {0: b"three"} and jobs.answers(ROWS[4].key) == {}


def test_what_is_under_way_is_read_by_model_while_the_file_is_in_use(jobs: Jobs, tmp_path: Path) -> None:
    assert read_under_way(jobs.path) == read_under_way(tmp_path / "none.sqlite") == []
    first, second, third, other = (jobs.plan(model, f"t{i}", "/path", ROWS[: i + 1]) for i, model in enumerate(("m", "m", "m", "other")))
    assert read_under_way(jobs.path) == [], "nothing of a planned batch has been sent"
    since = jobs.advance(first, "open", remote="a").changed_at
    jobs.advance(second, "creating")
    jobs.advance(other, "open", remote="b")
    jobs.finish(jobs.advance(third, "open", remote="c"), [(ROWS[0], b"answer")])
    assert [(u.model, u.batches, u.size, u.creating) for u in read_under_way(jobs.path)] == [("m", 2, 3, 1), ("other", 1, 4, 0)]
    assert read_under_way(jobs.path)[0].since == since


@pytest.mark.parametrize(("content", "says"), [(b"", None), (b"no database" * 500, "cannot be read: file is not a database; to give up")])
def test_a_file_of_batches_that_is_only_begun_has_nothing_and_a_broken_one_is_named(content: bytes, says: str | None, tmp_path: Path) -> None:
    (tmp_path / "b.sqlite").write_bytes(content)
    if says is None:
        assert read_under_way(tmp_path / "b.sqlite") == []
    else:
        with pytest.raises(RunDirectoryError, match=f"b.sqlite: the file of batches {says}"):
            read_under_way(tmp_path / "b.sqlite")


def test_the_first_answer_to_a_call_stays(jobs: Jobs) -> None:
    for line in (b"first", b"second"):
        jobs.finish(jobs.plan("m", line.decode(), "/path", ROWS[:1]), [(ROWS[0], line)])
    assert jobs.answers(ROWS[0].key) == {0: b"first"}


def test_a_batch_ends_whole_or_not_at_all(jobs: Jobs) -> None:
    batch = jobs.plan("m", "token", "/path", ROWS)

    def answers() -> Any:
        yield ROWS[0], b"one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.finish(batch, answers())
    assert jobs.answers(ROWS[0].key) == {} and jobs.rows(batch) == ROWS


def test_what_was_discarded_is_forgotten(jobs: Jobs) -> None:
    jobs.discard(jobs.plan("m", "token", "/path", ROWS))
    assert jobs.unfinished("m") == [] and jobs.batch_of(ROWS[0].key) is None


def test_it_is_all_there_when_it_is_opened_again(jobs: Jobs, tmp_path: Path) -> None:
    batch = jobs.advance(jobs.plan("m", "token", "/path", ROWS), "creating")
    jobs.close()
    with closing(Jobs(tmp_path / "batches.sqlite")) as again:
        assert again.unfinished("m") == [batch] and again.rows(batch) == ROWS


def test_a_newer_or_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batches.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(RunDirectoryError, match="newer version"):
        Jobs(path)
    path.write_bytes(b"nothing like a database" * 100)
    with pytest.raises(RunDirectoryError, match=r"batches\.sqlite"):
        Jobs(path)


def test_a_damaged_answer_is_refused(jobs: Jobs, tmp_path: Path) -> None:
    jobs.finish(jobs.plan("m", "token", "/path", ROWS[:1]), [(ROWS[0], b"line")])
    with closing(sqlite3.connect(tmp_path / "batches.sqlite")) as connection, connection:
        connection.execute("UPDATE answers SET line = x'00'")
    with pytest.raises(RunDirectoryError, match="damaged answer"):
        jobs.answers(ROWS[0].key)


def test_a_row_is_known_by_its_id_and_by_no_other() -> None:
    batch = Batch(1, "si-abc", "/path", "open", size=3)
    assert [row_of(batch, custom_id(batch, i)) for i in range(3)] == [0, 1, 2]
    assert [row_of(batch, text) for text in ("si-abc-3", "si-abc-", "si-abd-0", "0", "", "si-abc--1", "si-abc-²")] == [None] * 7


NAMES = st.sampled_from(
    [
        *("custom_id", "key", "response", "status_code", "body", "error", "choices", "message", "content", "usage", "result", "type", "text"),
        *("candidates", "parts", "finishReason", "usageMetadata", "promptFeedback", "stop_reason", "input_tokens", "index", "code", "logprobs"),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(line=st.binary(max_size=40) | st.dictionaries(NAMES, values, max_size=5).map(lambda data: json.dumps(data).encode()))
def test_a_result_line_may_hold_anything(line: bytes) -> None:
    for provider in providers():
        result = read(provider, line)
        assert isinstance(result.custom_id, str) and (result.fate is Fate.ANSWERED) is bool(result.completions)
        assert result.fate is not Fate.ANSWERED or is_final(result)


@given(
    prompt=st.text(st.characters(), max_size=30),
    seed=st.integers(0, 2**63),
    turns=st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=3),
)
def test_a_row_is_one_line_of_ascii_json_whatever_the_prompt_holds(prompt: str, seed: int, turns: list[str]) -> None:
    request = Generation((*(Turn(role, prompt) for role in turns), Turn("user", prompt)), Sampling(), seed)
    for provider in providers():
        line = provider.line("id-1", compact(provider.body(request)), provider.path(request))
        assert line.isascii() and b"\n" not in line and prompt in list(_texts(json.loads(line)))


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    for inner in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from _texts(inner)


@pytest.mark.parametrize("revision", [None, "v1"])
def test_the_fingerprint_is_that_of_the_model_asked_call_by_call(revision: str | None) -> None:
    for logprobs in (False, True):
        live = OpenAIModel("m", base_url=LOCAL, revision=revision, want_logprobs=logprobs)
        assert OpenAIBatches("m", base_url=LOCAL, revision=revision, want_logprobs=logprobs).fingerprint == live.fingerprint
    assert (
        MistralBatches("m", base_url=LOCAL, revision=revision).fingerprint
        == OpenAIModel("m", base_url=LOCAL, revision=revision, provider="mistral").fingerprint
    )
    assert AnthropicBatches("m", base_url=LOCAL, revision=revision).fingerprint == AnthropicModel("m", base_url=LOCAL, revision=revision).fingerprint


@pytest.mark.parametrize("url", ["ftp://x", "https://user:secret@host/v1", "https://host/v1?key=secret", "nonsense"])
def test_an_address_with_a_secret_or_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ModelError) as caught:
        OpenAIBatches("m", base_url=url)
    assert "secret" not in str(caught.value)


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    with pytest.raises(ModelError, match="MISTRAL_API_KEY"):
        MistralBatches("m")


def test_a_form_holds_its_fields_and_the_file_as_it_is() -> None:
    body, content_type = form({"purpose": "batch"}, "rows.jsonl", b"a\r\n--b\n")
    boundary = content_type.partition("boundary=")[2].encode()
    parts = body.split(b"--" + boundary)
    assert parts[-1] == b"--\r\n" and parts[1].endswith(b"\r\n\r\nbatch\r\n") and parts[2].endswith(b"\r\n\r\na\r\n--b\n\r\n")
