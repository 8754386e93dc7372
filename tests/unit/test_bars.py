"""How far a long command is: drawn on a terminal, told line by line elsewhere."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from safer_instruct import bars
from safer_instruct.bars import watched
from safer_instruct.tuning.loss import Evaluation
from safer_instruct.tuning.progress import Progress
from safer_instruct.views.train import watch_training


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "_FIRST_S", 0.01)


def wait_for(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not there() and time.monotonic() < until:
        time.sleep(0.01)
    assert there()


@pytest.mark.usefixtures("hurried")
def test_off_a_terminal_lines_tell_work_count_news_and_the_time_left() -> None:
    sent = io.StringIO()
    with watched(Console(file=sent, width=40), "opening the model") as told:
        wait_for(lambda: "opening the model" in sent.getvalue())
        told.tell(0, 8, doing="training")
        wait_for(lambda: "training  0/8" in sent.getvalue())
        told.tell(2, 8, doing="training", news="loss 2.250  120 tokens/s [red]")
        wait_for(lambda: "2/8" in sent.getvalue())
        assert "left" not in sent.getvalue(), "the first piece warms up, and tells no speed"
        told.tell(4, 8, doing="training", news="loss 2.125  120 tokens/s [red]")
        wait_for(lambda: "4/8" in sent.getvalue())
    lines = sent.getvalue().splitlines()
    assert lines[0] == "[0 s] opening the model"
    assert lines[-1].startswith("[0 s] training  4/8  loss 2.125  120 tokens/s [red]  about ") and lines[-1].endswith(" s left")
    assert "\x1b" not in sent.getvalue()


@pytest.mark.usefixtures("hurried")
def test_a_new_kind_of_work_is_not_timed_by_the_speed_of_the_old_one() -> None:
    sent = io.StringIO()
    with watched(Console(file=sent, width=200), "reference") as told:
        told.tell(2, 10)
        wait_for(lambda: "reference  2/10" in sent.getvalue())
        told.tell(5, 10)
        wait_for(lambda: "reference  5/10  about" in sent.getvalue())
        told.tell(0, 10, doing="training")
        wait_for(lambda: "training  0/10\n" in sent.getvalue())
        told.tell(10, 10, doing="training")
        wait_for(lambda: "training  10/10\n" in sent.getvalue())


@pytest.mark.usefixtures("hurried")
def test_training_on_pairs_says_when_it_is_the_held_out_evaluation_that_goes_on() -> None:
    sent = io.StringIO()
    held_out = Evaluation(0, 0.693, {}, {"kl": 0.0})
    with watch_training(Console(file=sent, width=200)) as (report, note):
        note(30, 60)
        wait_for(lambda: "reference  30/60\n" in sent.getvalue())
        note(60, 60)
        wait_for(lambda: "held-out evaluation before training\n" in sent.getvalue())
        report(Progress(0, 6, math.nan, 0.0, held_out))
        wait_for(lambda: "training  0/6\n" in sent.getvalue())
        report(Progress(6, 6, 0.5, 0.0, evaluating=True))
        wait_for(lambda: "held-out evaluation after step 6 of 6\n" in sent.getvalue())
        report(Progress(6, 6, 0.5, 0.0, held_out))
        wait_for(lambda: "training  6/6  loss 0.500\n" in sent.getvalue())
    assert "reference  60/60" not in sent.getvalue()


@pytest.mark.usefixtures("hurried")
def test_a_quiet_console_is_told_nothing_and_what_is_short_prints_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = io.StringIO()
    with watched(Console(file=sent, quiet=True), "scoring") as told:
        told.tell(1, 2)
        time.sleep(0.1)
    monkeypatch.setattr(bars, "_FIRST_S", 10.0)
    with watched(Console(file=sent), "scoring") as told:
        told.tell(1, 2)
    assert sent.getvalue() == ""


def test_on_a_terminal_a_bar_shows_the_same_and_obeys_no_markup() -> None:
    sent = io.StringIO()
    with watched(Console(file=sent, force_terminal=True, width=120), "opening") as told:
        told.tell(3, 4, doing="training", news="[bold]loss 1.5")
    assert "training" in sent.getvalue() and "3/4" in sent.getvalue() and "[bold]loss 1.5" in sent.getvalue()


def test_a_bar_has_no_end_while_nobody_knows_one() -> None:
    sent = io.StringIO()
    with watched(Console(file=sent, force_terminal=True, width=120), "opening") as told:
        told.tell(60, 60, doing="reference")
        told.tell(0, None, doing="evaluation")
    assert "evaluation" in sent.getvalue() and "0/?" in sent.getvalue() and "0/60" not in sent.getvalue()
