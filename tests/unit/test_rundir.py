"""The run directory: one run, one writer, and files that are whole or not there."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import fill, some_calls
from runs import SUMMED_UP

from safer_instruct import holding, rundir
from safer_instruct.changes import differences
from safer_instruct.config import RunConfig
from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import Ledger, read_mark, recovery
from safer_instruct.rundir import open_run_directory, read_summary
from safer_instruct.wholefile import whole, write_whole

pytestmark = pytest.mark.filterwarnings("error")

CONFIG: dict[str, Any] = {"config": {"seed": 0, "verify": {"rounds": 2}}, "models": {"expert": "abc"}}
OTHER: dict[str, Any] = {"config": {"seed": 1, "verify": {"rounds": 2}}, "models": {"expert": "xyz"}}


def opened(path: Path, config: dict[str, Any] = CONFIG, mode: rundir.Mode = "auto") -> None:
    with open_run_directory(path, config, mode):
        pass


def finished(path: Path, config: dict[str, Any] = CONFIG) -> None:
    opened(path, config)
    (path / rundir.SUMMARY).write_text("{}")


def names(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


# --- whose run it is


def test_a_new_directory_is_made_with_its_parents_and_holds_the_resolved_config(tmp_path: Path) -> None:
    with open_run_directory(tmp_path / "a" / "b", CONFIG, "auto") as path:
        assert path == tmp_path / "a" / "b" and yaml.safe_load((path / "run.yaml").read_text("utf-8")) == CONFIG


def test_the_same_config_goes_on(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / rundir.LEDGER).write_text("calls")
    opened(tmp_path)
    assert (tmp_path / rundir.LEDGER).read_text() == "calls" and not list(tmp_path.glob("previous-*"))


def test_another_config_is_refused_with_what_differs_and_both_ways_out(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(RunDirectoryError) as caught:
        opened(tmp_path, OTHER)
    message = str(caught.value)
    assert str(tmp_path) in message and "--continue" in message and "--fresh" in message
    assert "another config: seed: 0, now 1; models.expert: abc, now xyz. Add" in message and "rounds" not in message
    assert "\n" not in message
    assert yaml.safe_load((tmp_path / "run.yaml").read_text("utf-8")) == CONFIG, "the old run is left as it was"


def test_a_domain_file_that_was_edited_is_told_in_words_and_not_in_digests(tmp_path: Path) -> None:
    finished(tmp_path, {"domain": "mine.yaml", "domain_sha256": "a" * 64})
    with pytest.raises(RunDirectoryError, match=r"of another config: the content of 'domain' is another\. Add --continue") as caught:
        opened(tmp_path, {"domain": "mine.yaml", "domain_sha256": "b" * 64})
    assert "aaaa" not in str(caught.value)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ({"config": {"a": {"b": 4}}}, {"config": {"a": {"b": 8}}}, ["a.b: 4, now 8"]),
        ({"config": {"a": None}}, {"config": {"a": {"b": [1]}}}, ['a: null, now {"b": [1]}']),
        ({"config": {"a": ""}}, {"config": {"b": True}}, ["b: not there, now true", 'a: "", now not there']),
        ({"config": {"a": "x" * 90}}, {"config": {"a": "y\n\x1b"}}, [f"a: {'x' * 57}..., now y"]),
        ({"templates": {"induce": "0" * 16}}, {"templates": {"induce": "1" * 16}}, ["the content of 'templates.induce' is another"]),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}, ["'a' has its keys in another order"]),
        (
            {"config": {"models": {"expert": {"model": "openai:a"}}}, "models": {"expert": "openai:a:1", "judge": "openai:b:1"}},
            {"config": {"models": {"expert": {"model": "openai:c"}}}, "models": {"expert": "openai:c:1", "judge": "openai:b:2"}},
            ["models.expert.model: openai:a, now openai:c", "models.judge: openai:b:1, now openai:b:2"],
        ),
        (
            {"config": {"models": {"judge": None}}, "models": {}},
            {"config": {"models": {"judge": {"model": "openai:a"}}}, "models": {"judge": "openai:a:1"}},
            ['models.judge: null, now {"model": "openai:a"}'],
        ),
        ({"config": {"a": 1}}, {"config": {"a": 1}}, []),
    ],
)
def test_what_differs_is_told_by_its_path_as_it_was_and_as_it_is_now(was: dict[str, Any], now: dict[str, Any], said: list[str]) -> None:
    assert differences(was, now) == said


def test_of_a_run_whose_config_cannot_be_read_just_that_is_told(tmp_path: Path) -> None:
    finished(tmp_path)
    for damaged in ("a: [", "[1]"):
        (tmp_path / rundir.RUN).write_text(damaged)
        with pytest.raises(RunDirectoryError, match=r"another config: run\.yaml there cannot be read\. Add --continue"):
            opened(tmp_path)


def test_a_finished_run_whose_config_is_gone_is_not_written_over(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / rundir.SUMMARY).write_text(json.dumps(SUMMED_UP), encoding="utf-8")
    (tmp_path / rundir.RUN).unlink()
    with pytest.raises(RunDirectoryError, match=r"another config: run\.yaml there is missing\. Add --continue"):
        opened(tmp_path)


def test_of_many_differences_some_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    finished(tmp_path, {f"key{i}": 0 for i in range(10)})
    with pytest.raises(RunDirectoryError, match="key5: 0, now 1; and 4 more"):
        opened(tmp_path, {f"key{i}": 1 for i in range(10)})


@pytest.mark.parametrize("gone", ["rejected", "twins", "models.rewriter", "source.messages", "induce.given", "respond", "source.documents.min_words"])
def test_a_run_from_before_there_was_a_setting_goes_on_while_it_is_at_its_default(tmp_path: Path, gone: str) -> None:
    now, before = resolved(), resolved()
    *sections, name = gone.split(".")
    at = before["config"]
    for section in sections:
        at = at[section]
    del at[name]
    finished(tmp_path, before)
    opened(tmp_path, now)
    assert yaml.safe_load((tmp_path / "run.yaml").read_text("utf-8")) == now, "and is written with all settings from then on"


def test_a_run_from_before_there_was_a_setting_is_another_where_that_is_used(tmp_path: Path) -> None:
    before = resolved()
    del before["config"]["rejected"], before["config"]["seed"]
    finished(tmp_path, before)
    with pytest.raises(RunDirectoryError, match=r"rejected\.form: source, now student"):
        opened(tmp_path, resolved(rejected="student"))
    with pytest.raises(RunDirectoryError, match="config: seed: 0, now 3"):
        opened(tmp_path, resolved(seed=3))


def resolved(**changes: Any) -> dict[str, Any]:
    """What a run with a valid config records."""
    models = {"inducer": "scripted:a", "expert": "scripted:b", "student": "scripted:c"}
    config = RunConfig.model_validate({"domain": "civility", "source": {"path": "t.jsonl"}, "models": models, **changes}, strict=False)
    what, how = config.parted()
    return {"config": what, "models": {"expert": "abc"}, rundir.HOW: how}


def test_what_ended_before_its_first_call_stands_in_nobodys_way(tmp_path: Path) -> None:
    opened(tmp_path)
    with Ledger(tmp_path / rundir.LEDGER):
        pass
    opened(tmp_path, OTHER)
    assert yaml.safe_load((tmp_path / "run.yaml").read_text("utf-8")) == OTHER
    (tmp_path / rundir.LEDGER).write_text("of an unknown kind")
    with pytest.raises(RunDirectoryError, match="another config"):
        opened(tmp_path)


def test_continue_takes_the_new_config_and_keeps_the_ledger(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / rundir.LEDGER).write_text("calls")
    opened(tmp_path, OTHER, "continue")
    assert yaml.safe_load((tmp_path / "run.yaml").read_text("utf-8")) == OTHER and (tmp_path / rundir.LEDGER).read_text() == "calls"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (rundir.SUMMARY, json.dumps({**SUMMED_UP, "calls": 1293}), "a finished run of 1,293 calls"),
        (rundir.SPENT, '{"cost_usd": 0.5, "tokens": 2000}', "a run whose calls took up to 2,000 tokens"),
    ],
)
def test_a_run_whose_ledger_is_gone_is_not_paid_again_without_a_word(tmp_path: Path, file: str, text: str, said: str) -> None:
    opened(tmp_path)
    (tmp_path / file).write_text(text)
    modes: tuple[rundir.Mode, ...] = ("auto", "continue")
    for mode in modes:
        with pytest.raises(RunDirectoryError, match=rf"holds {said}, and its ledger\.sqlite is missing.*bring that file back, or add --fresh"):
            opened(tmp_path, mode=mode)
    (tmp_path / rundir.LEDGER).write_text("calls")
    opened(tmp_path)
    (tmp_path / rundir.LEDGER).unlink()
    opened(tmp_path, mode="fresh")
    assert (tmp_path / "previous-1" / file).read_text() == text


@pytest.mark.parametrize("mode", ["auto", "continue"])
def test_a_finished_run_beside_another_ledger_is_not_paid_again_without_a_word(tmp_path: Path, mode: rundir.Mode) -> None:
    ledger, summary = tmp_path / rundir.LEDGER, tmp_path / rundir.SUMMARY
    opened(tmp_path)
    fill(ledger, some_calls(12))
    summary.write_text(json.dumps({**SUMMED_UP, "calls": 15, "timing": {"ledger": read_mark(ledger)}}))
    fill(ledger, some_calls(5, first=100))
    opened(tmp_path, mode=mode)  # as it was, with calls that have come since
    for calls, held in ((some_calls(11), 11), (some_calls(40, first=200), 40), ([], 0)):
        ledger.unlink()
        fill(ledger, calls)
        said = rf"holds a finished run of 15 calls, and its ledger\.sqlite, with {held} answers, is another than the one with 12 that the run ended with"
        with pytest.raises(RunDirectoryError, match=said + r".*: bring that file back, or add --fresh .* delete .*/summary\.json$"):
            opened(tmp_path, mode=mode)
    ledger.unlink()
    fill(ledger, reversed(some_calls(12)))  # the same calls, put together anew
    opened(tmp_path, mode=mode)
    ledger.unlink()
    fill(ledger, some_calls(3))
    (tmp_path / "ledger.damaged-1.sqlite").touch()  # what a recovery has left of it
    opened(tmp_path, mode=mode)
    (tmp_path / "ledger.damaged-1.sqlite").unlink()
    text = summary.read_text()
    opened(tmp_path, mode="fresh")
    assert (tmp_path / "previous-1" / rundir.SUMMARY).read_text() == text and not ledger.exists()


@pytest.mark.parametrize("timing", [{}, None, {"ledger": None}, {"ledger": {"calls": 5, "keys": ["x"]}}])
def test_the_ledger_of_a_run_of_an_older_version_is_not_looked_at(tmp_path: Path, timing: Any) -> None:
    opened(tmp_path)
    fill(tmp_path / rundir.LEDGER, some_calls(1))
    (tmp_path / rundir.SUMMARY).write_text(json.dumps({**SUMMED_UP, "calls": 15, "timing": timing}))
    opened(tmp_path)


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("openai:m@http://a:1/v1", "openai:m@http://a:2/v1", True),
        ("openai:m@http://a:1/v1", "openai:m#weights-1", True),
        ("openai:m@http://a:1/v1+logprobs", "openai:m@http://a:1/v1,http://b/v1+logprobs", True),
        ("openai:m#weights-1", "openai:m@http://a:1/v1", False),
        ("openai:m@http://a:1/v1", "openai:other@http://a:1/v1", False),
        ("embedded:m", "embedded:n", False),
    ],
)
def test_of_a_model_at_another_address_it_is_told_that_its_calls_are_made_again(tmp_path: Path, was: str, now: str, told: bool) -> None:
    finished(tmp_path, {**CONFIG, "models": {"inducer": "embedded:x", "expert": was}})
    with pytest.raises(RunDirectoryError, match=r"another config: models\.expert: openai|embedded") as caught:
        opened(tmp_path, {**CONFIG, "models": {"inducer": "embedded:x", "expert": now}})
    said = (
        ". At another address models.expert counts as another model, unless 'revision' was set when the run began: all its calls are made again. Add --continue"
    )
    assert (said in str(caught.value)) is told


def test_a_run_without_calls_needs_no_ledger(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / rundir.SUMMARY).write_text(json.dumps(SUMMED_UP))
    (tmp_path / rundir.SPENT).write_text('{"cost_usd": 0, "tokens": 0}')
    opened(tmp_path)


def test_fresh_moves_every_file_of_the_old_run_aside_and_nothing_else(tmp_path: Path) -> None:
    opened(tmp_path)
    old = {rundir.EXAMPLES, rundir.PAIRS, rundir.PAIRS_JSONL, rundir.BAD_ROWS, rundir.LEDGER, rundir.LEDGER + "-wal", rundir.SUMMARY, rundir.CARD}
    old.add(recovery._recovered(tmp_path / rundir.LEDGER).name)
    for name in (*old, "notes.txt"):
        (tmp_path / name).write_text(name)
    opened(tmp_path, OTHER, "fresh")
    assert names(tmp_path / "previous-1") == {*old, rundir.RUN} and names(tmp_path) == {"previous-1", "run.yaml", ".lock", "notes.txt"}
    assert yaml.safe_load((tmp_path / "previous-1" / "run.yaml").read_text("utf-8")) == CONFIG
    opened(tmp_path, CONFIG, "fresh")
    assert yaml.safe_load((tmp_path / "previous-2" / "run.yaml").read_text("utf-8")) == OTHER


def test_fresh_in_an_empty_directory_moves_nothing(tmp_path: Path) -> None:
    opened(tmp_path, CONFIG, "fresh")
    assert names(tmp_path) == {"run.yaml", ".lock"}


def test_a_file_in_the_place_of_the_directory_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RunDirectoryError, match="out"):
        opened(tmp_path / "out")


# --- who holds it

HOLD = """
import sys
from pathlib import Path
from safer_instruct.rundir import open_run_directory
with open_run_directory(Path(sys.argv[1]), {"config": 1}, "auto"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        yield holder


def test_a_second_process_is_told_who_holds_the_directory_and_changes_nothing(tmp_path: Path) -> None:
    with held(tmp_path) as holder:
        for mode in ("auto", "continue", "fresh"):
            with pytest.raises(RunDirectoryError, match=rf"in use by process {holder.pid}; wait for it, stop it, or choose another --out"):
                opened(tmp_path, OTHER, mode)  # type: ignore[arg-type]
        assert names(tmp_path) == {"run.yaml", ".lock"} and yaml.safe_load((tmp_path / "run.yaml").read_text("utf-8")) == {"config": 1}
    opened(tmp_path, {"config": 1})  # the holder has ended


def test_whoever_asks_for_the_holder_stands_in_nobodys_way(tmp_path: Path) -> None:
    assert holding.holder(tmp_path) is None and not list(tmp_path.iterdir()), "asking changes nothing"
    with held(tmp_path) as holder:
        assert holding.holder(tmp_path) == str(holder.pid)
    assert holding.holder(tmp_path) is None
    with (tmp_path / ".lock").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)  # as `holder` does, for a moment
        threading.Timer(0.03, lambda: fcntl.flock(asking, fcntl.LOCK_UN)).start()
        opened(tmp_path, {"config": 1})


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with held(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
    opened(tmp_path, {"config": 1})


def test_the_directory_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), open_run_directory(tmp_path, CONFIG, "auto"):
        raise ValueError("mine")
    opened(tmp_path)


# --- whole files


def test_a_file_appears_when_its_block_ends_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with whole(target) as part:
        part.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new" and names(tmp_path) == {"a.txt"}


def test_the_old_file_stays_after_an_error_and_the_part_is_gone(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail_halfway() -> None:
        with whole(target) as part:
            part.write_text("half")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail_halfway()
    assert target.read_text() == "old" and names(tmp_path) == {"a.txt"}


@settings(max_examples=30)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
def test_any_text_is_written_whole(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    write_whole(path, text)
    assert path.read_text("utf-8") == text


# --- the summary


def test_a_directory_without_a_finished_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"holds no finished run .*safer-instruct run CONFIG --out"):
        read_summary(tmp_path)
    (tmp_path / rundir.SUMMARY).write_text(json.dumps(SUMMED_UP))
    assert read_summary(tmp_path) == SUMMED_UP


@pytest.mark.parametrize(
    ("damaged", "said"),
    [("{", "Expecting property name"), ("{}", "it lacks rows, set_aside, dropped, ..."), ("[1]", "it holds no keys")],
)
def test_a_damaged_summary_is_told_as_such(tmp_path: Path, damaged: str, said: str) -> None:
    (tmp_path / rundir.SUMMARY).write_text(damaged)
    with pytest.raises(RunDirectoryError, match=rf"summary\.json is damaged \({re.escape(said)}.*\); run again to write it anew"):
        read_summary(tmp_path)


def test_of_a_summary_that_lacks_one_figure_just_that_is_named(tmp_path: Path) -> None:
    (tmp_path / rundir.SUMMARY).write_text(json.dumps({key: value for key, value in SUMMED_UP.items() if key != "models"}))
    with pytest.raises(RunDirectoryError, match=r"\(it lacks models\)"):
        read_summary(tmp_path)
