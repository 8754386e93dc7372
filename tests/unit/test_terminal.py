"""What a terminal is sent: texts of a corpus or a model are shown, never obeyed."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from safer_instruct import rundir, terminal
from safer_instruct.config import load_config
from safer_instruct.example import Example, Verdict
from safer_instruct.ledger import Total
from safer_instruct.models.protocol import Usage
from safer_instruct.pipeline import RunResult, RunState, run
from safer_instruct.progress import published, read_progress
from safer_instruct.settings.preference import DpoConfig
from safer_instruct.terminal import safe, show_rehearsal, show_summary, show_totals, time_left, watch_run, watch_tuning
from safer_instruct.training.data import Divided
from safer_instruct.tuning.rehearse import Rehearsal
from safer_instruct.tuning.train import Evaluation, Progress
from safer_instruct.views.train import show_dry_run

pytestmark = pytest.mark.filterwarnings("error")

HOSTILE = "\x1b[2J \x1b]0;owned\x07 [bold red]loud[/bold red] [/nope] [link=http://evil]here[/link] \u202e \x9b31m \x08 \x7f"
MARKUP = ("[bold red]loud[/bold red]", "[/nope]", "[link=http://evil]here[/link]")
CODES = ("\x1b[2J", "\x1b]", "\x07", "\u202e", "\x9b", "\x08", "\x7f", "http://evil\x1b")


def shown(show: Any, *, color: str | None = None, width: int = 300) -> str:
    """What `show` sends to a terminal."""
    sent = io.StringIO()
    show(Console(file=sent, force_terminal=True, color_system=color, width=width, legacy_windows=False))  # type: ignore[arg-type]
    return sent.getvalue()


def finished_run(folder: Path, count: int = 5) -> RunResult:
    """A real run with scripted models, in which every text is hostile."""
    rows = [{"text": f"{HOSTILE} rejected {i}", "id": f"[red]id{i}[/red]\x1b[31m"} for i in range(count)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*rows, {"text": 5})), encoding="utf-8")
    script = {"generate": [{"answers": [HOSTILE + " {words}"]}]}
    (folder / "script.yaml").write_text(yaml.safe_dump(script), encoding="utf-8")
    config = {
        "domain": "civility",
        "source": {"path": "texts.jsonl", "id": "id"},
        "models": dict.fromkeys(("inducer", "expert", "scorer"), "scripted:script.yaml"),
        "filter": {"prompt": None, "near_duplicate": None, "consistency": None},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return run(load_config(folder / "run.yaml"), folder / "out")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return finished_run(tmp_path_factory.mktemp("terminal"))


# --- safe


def test_control_codes_are_replaced_and_everything_visible_stays() -> None:
    assert safe("a\x1b[31mb\r\x07\x9b\u202e").plain == "a\ufffd[31mb" + 4 * "\ufffd"
    assert safe("snow \N{SNOWMAN} \N{PILE OF POO} é 雪\nline").plain == "snow \N{SNOWMAN} \N{PILE OF POO} é 雪\nline"


def test_markup_is_shown_as_it_is_written() -> None:
    assert shown(lambda c: c.print(safe(" ".join(MARKUP)))).strip() == " ".join(MARKUP)


@pytest.mark.parametrize(
    ("limit", "plain"), [(None, "abcdef"), (7, "abcdef"), (6, "abcdef"), (5, "abcd\N{HORIZONTAL ELLIPSIS}"), (1, "\N{HORIZONTAL ELLIPSIS}")]
)
def test_a_long_text_is_cut_to_the_limit_with_a_sign(limit: int | None, plain: str) -> None:
    assert safe("abcdef", limit).plain == plain


@settings(max_examples=200)
@given(st.text())
def test_no_text_can_send_a_control_code(text: str) -> None:
    made = safe(text)
    assert isinstance(made, Text) and not made.spans and len(made.plain) == len(text)
    assert all(c.isprintable() or c == "\n" for c in made.plain)


# --- a finished run


def test_the_summary_of_a_real_run_shows_funnel_pairs_and_files(result: RunResult) -> None:
    said = shown(lambda c: show_summary(c, result.path, result.summary))
    assert all(name in said for name in ("read", "collect", "induce", "filter", "respond", "verify", "set aside: 1"))
    assert said.count("prompt: ") == said.count("chosen: ") == said.count("rejected: ") == 3
    assert "5 pairs from 6 rows" in said and f"{result.summary['calls']} model calls" in said
    assert all((result.path / name).is_file() and name in said for name in (rundir.PAIRS_JSONL, rundir.PAIRS, rundir.EXAMPLES, rundir.CARD, rundir.LEDGER))


def test_texts_of_the_run_are_harmless(result: RunResult) -> None:
    plain = shown(lambda c: show_summary(c, result.path, result.summary))
    assert "\x1b" not in plain and not any(code in plain for code in CODES)
    unwrapped = " ".join(part.strip("│ ") for part in plain.splitlines())
    assert all(unwrapped.count(markup) == 9 for markup in MARKUP), "three texts of three pairs, word for word"
    assert "[red]id0[/red]" in plain
    colored = shown(lambda c: show_summary(c, result.path, result.summary), color="truecolor")
    assert not any(code in colored for code in CODES)


def test_sample_pairs_are_spread_over_the_file(result: RunResult) -> None:
    said = shown(lambda c: show_summary(c, result.path, result.summary, samples=2))
    assert [i for i in range(5) if f"rejected {i}" in said] == [0, 2]


def test_fewer_pairs_than_samples_are_each_shown_once(tmp_path: Path) -> None:
    few = finished_run(tmp_path, 2)
    assert shown(lambda c: show_summary(c, few.path, few.summary)).count("rejected: ") == 2


def test_the_summary_fits_a_narrow_terminal(result: RunResult) -> None:
    said = shown(lambda c: show_summary(c, result.path, result.summary), width=40)
    assert "\x1b" not in said and "5 pairs from 6 rows" in said.replace("\n", " ")


def test_dropped_examples_are_counted_by_reason(result: RunResult) -> None:
    stages = {**result.summary["stages"], "filter": {**result.summary["stages"]["filter"], "dropped": {"prompt.length": 3, "dedup.prompt": 1}}}
    said = shown(lambda c: show_summary(c, result.path, {**result.summary, "stages": stages}))
    assert "prompt.length: 3" in said and "dedup.prompt: 1" in said


@pytest.mark.parametrize("reason", MARKUP)
def test_a_summary_from_elsewhere_is_harmless_too(result: RunResult, reason: str) -> None:
    stages = {**result.summary["stages"], "filter": {**result.summary["stages"]["filter"], "dropped": {reason: 3}}}
    assert f"{reason}: 3" in shown(lambda c: show_summary(c, result.path, {**result.summary, "stages": stages}))


# --- an unfinished run


def test_totals_show_each_stage_and_say_how_to_go_on() -> None:
    totals = [Total("induce", "scripted:a", 1234, Usage(1000, 234, 0.5, 2.25)), Total("filter", "scripted:b", 1, Usage(1, 0, 0.0, 0.0))]
    said = shown(lambda c: show_totals(c, Path("runs/x"), totals))
    assert "runs/x: not finished" in said and "will not be made twice" in said
    assert all(cell in said for cell in ("induce", "scripted:a", "1,234", "0.50", "2.2", "filter", "scripted:b"))


def said(tmp_path: Path, **figures: int) -> dict[str, Any]:
    state = RunState(total=40, set_aside=2, pairs=19, **figures)
    state.reasons[("verify", "pair")] = 3
    with published(tmp_path, state):
        found = read_progress(tmp_path)
    assert found
    return found


def test_a_stopped_run_says_how_many_rows_it_is_through_with_and_what_came_of_them(tmp_path: Path) -> None:
    text = shown(lambda c: show_totals(c, Path("runs/x"), [], said(tmp_path)))
    assert "24 of 40 rows done: 19 pairs, 3 dropped, 2 set aside (after 0 s)" in text and "give the 'run' command again" in text
    assert "24 rows done: 19 pairs" in shown(lambda c: show_totals(c, Path("runs/x"), [], said(tmp_path) | {"total": None}))
    on_its_way = said(tmp_path) | {"left_s": 31.0}
    assert "left" not in shown(lambda c: show_totals(c, Path("runs/x"), [], on_its_way)), "nothing is under way"
    assert ", about 31 s left" in shown(lambda c: show_totals(c, Path("runs/x"), [], on_its_way, "4711"))


def test_the_time_left_goes_by_what_is_through_and_is_not_told_where_nobody_knows() -> None:
    state = RunState(total=42, set_aside=2, started=time.monotonic() - 90)
    for name, done in (("collect", 40), ("induce", 40), ("filter", 40), ("respond", 12), ("verify", 10)):
        state.stages[name].done = done
    assert state.left_s == pytest.approx(270, abs=1)
    state.stages["filter"].since = time.monotonic() - 30
    assert state.left_s == pytest.approx(90, abs=1) and time_left(state.left_s) == ", about 90 s left", "a quarter is answered, in half a minute"
    state.waits = lambda: ["openai:m at h: next call in 3 s, to keep to its rate limit"]
    assert state.left_s == pytest.approx(90, abs=1)
    down = replace(state, waits=lambda: ["openai:m at h has failed for 70 s: next try in 5 s"])
    few = replace(state, total=1000)
    for unknown in (replace(state, total=None), RunState(total=40), RunState(total=2, set_aside=2), down, few):
        assert unknown.left_s is None and time_left(unknown.left_s) == ""


def test_where_so_many_pairs_are_wanted_the_time_left_is_that_of_the_rows_that_they_take() -> None:
    state = RunState(total=100, started=time.monotonic() - 40, wanted=15, pairs=10)
    state.stages["verify"].done = 20
    assert state.left_s == pytest.approx(20, abs=1), "five more pairs take ten rows at two seconds"
    state.pairs = 0
    assert state.left_s == pytest.approx(160, abs=1)
    state.pairs, state.wanted = 1, 90
    assert state.left_s == pytest.approx(160, abs=1), "no more than there are rows"


def test_rows_that_take_no_new_call_say_nothing_of_the_time_left() -> None:
    state = RunState(total=1000, started=time.monotonic() - 60)
    row = Example("1", "text", "reply", "texts.jsonl", 1, verdicts=(Verdict("verify.acceptable", False),))
    for _ in range(900):
        state.stages["respond"].meter.add(Usage(), replayed=True)
        state.count_finished(row)
    assert state.left_s is None and state.replayed is not None
    state.replayed = (time.monotonic() - 20, 900)
    for _ in range(20):
        state.stages["respond"].meter.add(Usage(), replayed=False)
        state.count_finished(row)
    assert state.left_s == pytest.approx(80, abs=1), "20 rows in 20 s, and 80 are left"


def test_a_run_that_goes_on_is_told_by_its_process_and_by_how_to_watch_it(tmp_path: Path) -> None:
    text = shown(lambda c: show_totals(c, Path("runs/x"), [], said(tmp_path), "4711"))
    assert "runs/x: in progress" in text and "in progress by process 4711; to watch it: safer-instruct status runs/x --follow" in text
    assert "again" not in text


@pytest.mark.parametrize("name", ["openai:model[/red]", "openai:model[bold]"])
def test_names_with_brackets_are_shown_as_they_are(name: str) -> None:
    said = shown(lambda c: show_totals(c, Path(name), [Total("induce", name, 1, Usage())]))
    assert said.count(name) == 2


# --- while it runs


def test_a_live_table_shows_done_dropped_and_set_aside() -> None:
    def watched(console: Console) -> None:
        with watch_run(console) as watch:
            state = RunState(total=10, set_aside=2, pairs=3)
            state.stages["induce"].done, state.stages["induce"].dropped = 5, 1
            state.stages["induce"].meter.add(Usage(100, 20, 0.25, 1.0), replayed=False)
            watch(state)

    said = shown(watched)
    assert "5/8" in said and "3 pairs, 2 set aside" in said and "0.25" in said


def test_elsewhere_than_on_a_terminal_a_plain_line_is_printed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_PLAIN_EVERY_S", 0.01)
    sent = io.StringIO()
    with watch_run(Console(file=sent, width=300)) as watch:
        state = RunState()
        state.stages["collect"].done = 7
        watch(state)
        until = time.monotonic() + 10
        while "pairs 0" not in sent.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    first = sent.getvalue().splitlines()[0]
    assert "[0 s] collect 7  induce 0" in first and first.endswith("pairs 0") and "\x1b" not in sent.getvalue()


def test_elsewhere_too_it_is_said_why_the_first_run_begins_so_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_OPENS_S", 0.01)
    sent = io.StringIO()
    with watch_run(Console(file=sent, width=300)) as watch:
        until = time.monotonic() + 10
        while not sent.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
        watch(RunState())
    assert sent.getvalue() == "opening the models (the first time a model is used, it is converted)\n"


def test_a_short_run_elsewhere_prints_nothing_on_the_way() -> None:
    sent = io.StringIO()
    with watch_run(Console(file=sent)) as watch:
        watch(RunState())
    assert sent.getvalue() == ""


def test_tuning_shows_steps_and_every_held_out_loss() -> None:
    def tuned(console: Console) -> None:
        with watch_tuning(console) as report:
            report(Progress(0, 4, float("nan"), 0.0, Evaluation(0, 3.5, {"general": 3.5})))
            report(Progress(4, 4, 2.25, 120.0, Evaluation(4, 2.125, {"civility": 2.0, "general": 2.25})))

    said = shown(tuned)
    assert "step 0: held-out loss 3.500 (general 3.500)" in said and "step 4: held-out loss 2.125 (civility 2.000, general 2.250)" in said and "4/4" in said


@pytest.mark.parametrize(("seconds", "told"), [(26.0, "about 26 s at 76 tokens/s"), (900.0, "about 15 min at"), (20_000.0, "about 5 h 33 min at")])
def test_what_a_training_will_take_is_told_in_the_unit_that_fits(seconds: float, told: str) -> None:
    found = Rehearsal(900, 300, 12, 4, 1.5, 76.0, 2, seconds, "CPU, 2 threads")
    said = shown(lambda console: show_rehearsal(console, found, 3))
    assert told in said and "less if it stops early; set-up comes on top" in said
    config = DpoConfig.model_construct(epochs=1)
    dpo = shown(lambda console: show_dry_run(console, config, Divided((), (), 0, 0), found))
    assert f"steps and evaluations: {told}" in dpo and "less if it stops early; set-up and reference come on top" in dpo
