"""What a sample tells about all rows: what is known stays as it is, what is not gets a range that holds, and no more is said."""

from __future__ import annotations

import io
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from safer_instruct.config import ModelConfig
from safer_instruct.estimate import Estimate, Range, estimate, note_on_sample, show_estimate
from safer_instruct.ledger import Meter
from safer_instruct.models.protocol import Usage
from safer_instruct.state import Dropped, Figures, Paced, Row

pytestmark = pytest.mark.filterwarnings("error")
STAGES = ("collect", "induce", "respond")
WHOLE: Row = {"collect": Figures(), "induce": Figures(True, 4, 800, 120, 0.02, 2.0), "respond": Figures(True, 2, 500, 300, 0.08, 8.0)}
DROPPED: Row = {"collect": Figures(), "induce": Figures(False, 4, 700, 100, 0.01, 2.0)}


def shown(found: Estimate, *, width: int = 200, **caps: float | int | None) -> str:
    sent = io.StringIO()
    show_estimate(Console(file=sent, width=width, force_terminal=True, color_system=None), found, **caps)  # type: ignore[arg-type]
    return sent.getvalue()


def test_values_grow_with_the_rows() -> None:
    found = estimate([WHOLE, DROPPED] * 20, 400, STAGES)
    collect, induce, respond = found.stages
    assert (collect.rows_in.expected, collect.rows_out.expected, collect.calls.expected) == (400, 400, 0)
    assert (induce.rows_in.expected, induce.rows_out.expected, induce.calls) == (400, 200, Range(1600, 1600, 1600))
    assert (induce.prompt_tokens.expected, induce.completion_tokens.expected, induce.cost.expected) == (300_000, 44_000, pytest.approx(6.0))
    assert (respond.rows_in.expected, respond.calls.expected, respond.cost.expected) == (200, 400, pytest.approx(16.0))
    assert found.all.calls.expected == 2000 and found.all.cost.expected == pytest.approx(22.0) and found.all.rows_out.expected == 200
    assert found.all.rows_in.expected == 400 and found.all.tokens == 300_000 + 44_000 + 160_000


def test_a_range_lies_around_what_is_expected_and_is_wider_for_what_differs_more() -> None:
    found = estimate([WHOLE, DROPPED] * 20, 400, STAGES)
    for value in (found.all.cost, found.stages[1].prompt_tokens, found.stages[2].rows_in):
        assert value.low < value.expected < value.high
    width = {stage.name: (stage.cost.high - stage.cost.low) / stage.cost.expected for stage in found.stages[1:]}
    assert width["respond"] > 2 * width["induce"]
    respond = found.stages[2].rows_in
    assert 120 < respond.low < 180 < 220 < respond.high < 280  # 200, give or take 1.6 standard errors of 29 rows


def test_no_more_rows_come_through_than_go_in() -> None:
    found = estimate([WHOLE] * 19 + [DROPPED], 24, STAGES)
    for stage in (*found.stages, found.all):
        assert stage.rows_in.high <= 24 and stage.rows_out.high <= 19 + 4 + (stage.name in ("collect",))
    assert found.stages[2].calls.high > found.stages[2].rows_in.high


def test_a_sample_of_all_rows_leaves_nothing_open() -> None:
    found = estimate([WHOLE, WHOLE, DROPPED], 3, STAGES)
    assert found.all.cost == Range(pytest.approx(0.21), pytest.approx(0.21), pytest.approx(0.21))
    assert found.all.calls == Range(16, 16, 16) and found.stages[2].rows_out == Range(2, 2, 2)


def test_what_is_known_is_never_estimated_below() -> None:
    """Nine tenths are in: the rest is the only unknown."""
    found = estimate([WHOLE, DROPPED] * 45, 100, STAGES)
    known = 45 * (0.1 + 0.01)
    assert known <= found.all.cost.low < found.all.cost.expected < found.all.cost.high < known * 1.25


def test_of_one_row_no_range_is_told() -> None:
    found = estimate([WHOLE], 50, STAGES)
    assert found.all.cost == Range(pytest.approx(5.0), pytest.approx(0.1), math.inf)
    assert "at least 0.10" in shown(found) and "inf" not in shown(found)


def test_the_same_sample_gives_the_same_estimate() -> None:
    sample = [WHOLE, DROPPED, WHOLE, WHOLE]
    assert estimate(sample, 1000, STAGES) == estimate(list(sample), 1000, STAGES)
    assert estimate(sample, 1000, STAGES, seed=1) != estimate(sample, 1000, STAGES)


def test_a_higher_level_is_a_wider_range() -> None:
    sample = [WHOLE, DROPPED] * 10
    narrow, wide = (estimate(sample, 1000, STAGES, level=level).all.cost for level in (0.5, 0.95))
    assert wide.low < narrow.low and narrow.high < wide.high


@pytest.mark.parametrize(("rows", "total"), [(0, 10), (3, 2)])
def test_a_sample_that_cannot_stand_for_the_whole_is_refused(rows: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"a sample of {rows} rows cannot stand for {total}"):
        estimate([WHOLE] * rows, total, STAGES)


def test_calls_side_by_side_take_less_time() -> None:
    found = estimate([WHOLE] * 2, 100, STAGES, slots={"respond": 4})
    assert [stage.seconds.expected for stage in found.stages] == [0, pytest.approx(200), pytest.approx(200)]
    assert found.all.seconds.expected == pytest.approx(400) and found.slowest_s == pytest.approx(200)


TOGETHER = [
    (0.0, 1000, "time: 17 min when the stages run side by side, 33 min when they run one after the other"),
    (20.0, 1000, "time: 17 min when the stages run side by side, 33 min when they run one after the other"),  # one stage, the others remote
    (32.0, 1600, "time: 27 min when the stages run side by side (their models in this process share the processor), 33 min when"),
    (40.0, 2000, "time: 33 min: models in this process share the processor, so stages side by side take as long as one after the other"),
]


@pytest.mark.parametrize(("in_process_s", "side_by_side", "said"), TOGETHER)
def test_models_in_this_process_share_its_processor_and_add_up(in_process_s: float, side_by_side: float, said: str) -> None:
    rows: list[Row] = [{"induce": Figures(True, 4, seconds=4.0), "filter": Figures(True, 2, seconds=10.0), "verify": Figures(True, 1, seconds=6.0)}] * 2
    found = estimate(rows, 100, ("induce", "filter", "verify"), in_process_s=in_process_s)
    assert (found.slowest_s, found.all.seconds.expected) == (pytest.approx(side_by_side), pytest.approx(2000))
    assert said in shown(found)


def test_stages_that_take_as_long_either_way_are_said_to() -> None:
    said = shown(estimate([{"induce": Figures(True, 4, seconds=2.0)}] * 2, 100, ("induce",)))
    assert "time: 3.3 min when the stages run side by side, and as long when they run one after the other" in said
    assert "time: 0 s when the stages" in shown(estimate([{"induce": Figures()}], 1, ("induce",)))


PACED = [
    ({"respond": (4, 1600)}, 60.0, math.inf, [0, 100, 200], 300, 200),  # 200 calls at one a second
    ({"respond": (4, 1600)}, math.inf, 48_000.0, [0, 100, 100], 200, 100),  # 80,000 tokens
    ({"respond": (4, 1600)}, 600.0, 1e9, [0, 100, 40], 140, 100),  # the calls themselves take longer: 100 rows of 8 s, 20 at a time
    ({"induce": (8, 1840), "respond": (4, 1600)}, 60.0, math.inf, [0, 400, 200], 600, 600),
]


@pytest.mark.parametrize(("asked", "requests_per_min", "tokens_per_min", "stages", "one_after_the_other", "side_by_side"), PACED)
def test_a_model_that_keeps_to_a_rate_takes_as_long_as_that_leaves_it(
    asked: dict[str, tuple[int, int]], requests_per_min: float, tokens_per_min: float, stages: list[float], one_after_the_other: float, side_by_side: int
) -> None:
    paced = [Paced(asked, requests_per_min, tokens_per_min)]
    found = estimate([WHOLE] * 2, 100, STAGES, slots={"induce": 2, "respond": 20}, paced=paced)
    assert [stage.seconds.expected for stage in found.stages] == pytest.approx(stages)
    assert (found.all.seconds.expected, found.slowest_s) == (pytest.approx(one_after_the_other), pytest.approx(side_by_side))
    assert f"time: { {100: '1.7 min', 200: '3.3 min', 600: '10 min'}[side_by_side] } when the stages run side by side" in shown(found)


def test_only_remote_models_with_a_limit_keep_to_a_rate_and_have_it_at_each_endpoint() -> None:
    meter = Meter(3, fresh=Usage(prompt_tokens=500, completion_tokens=100))
    two = ModelConfig(model="openai:m", base_url=("http://a/v1", "http://b/v1"), requests_per_min=60, tokens_per_min=6000)
    assert Paced.of(two, {"respond": meter}) == Paced({"respond": (3, 600)}, 120, 12_000)
    for without in ({"model": "openai:m"}, {"model": "scripted:"}, {"model": "openai:m", "batch": True, "requests_per_min": 60}):
        assert Paced.of(ModelConfig.model_validate(without), {"respond": meter}) is None


def test_what_dropped_the_sampled_rows_is_told_the_commonest_first() -> None:
    names = ("verify.unfinished", "dedup.text", "verify.acceptable", "filter.length", "pair.pii")
    dropped = [Dropped(name, "was cut\nat the token limit " * 10 if not i else "", 9 - i) for i, name in enumerate(names)]
    said = note_on_sample(40, 5, dropped)
    assert said.startswith("of the 40 sampled rows 5 became pairs; dropped by verify.unfinished: 9 (was cut at the token limit was")
    assert said.endswith("...), dedup.text: 8, verify.acceptable: 7, others: 11") and len(said) < 250
    assert note_on_sample(3, 0, dropped[1:2]) == "none of the 3 sampled rows became a pair; dropped by dedup.text: 8"
    assert note_on_sample(3, 3, ()) == "of the 3 sampled rows 3 became pairs"


def test_the_stages_together_are_told_more_surely_than_each_by_itself() -> None:
    """Where one stage takes what the other leaves, their sum does not vary."""
    sample: list[Row] = [{"a": Figures(cost=0.1 * i), "b": Figures(cost=0.1 * (10 - i))} for i in range(11)]
    found = estimate(sample, 1000, ("a", "b"))
    assert found.all.cost.high - found.all.cost.low < 1e-6 < 100 < sum(s.cost.high - s.cost.low for s in found.stages)


def drawn_row(draw: random.Random) -> Row:
    tokens = int(draw.lognormvariate(6, 0.8))
    row = {"collect": Figures(), "induce": Figures(True, 4, tokens, 100, tokens * 1e-5, 1.0)}
    if draw.random() < 0.6:
        row["respond"] = Figures(draw.random() < 0.8, 2, int(draw.lognormvariate(6, 0.8)), 100, draw.lognormvariate(-5, 0.8), 2.0)
    return row


@pytest.mark.parametrize("total", [80, 1000])
def test_about_nine_in_ten_ranges_hold_what_comes_true(total: int) -> None:
    held = {"cost": 0, "tokens": 0, "pairs": 0}
    corpora = 80
    for number in range(corpora):
        draw = random.Random(number)
        corpus = [drawn_row(draw) for _ in range(total)]
        told, true = (estimate(rows, total, STAGES, resamples=200).all for rows in (corpus[:40], corpus))
        for name, range_, value in (
            ("cost", told.cost, true.cost),
            ("tokens", told.prompt_tokens, true.prompt_tokens),
            ("pairs", told.rows_out, true.rows_out),
        ):
            held[name] += range_.low <= value.expected <= range_.high
    assert all(0.78 <= n / corpora <= 0.99 for n in held.values()), held


figures = st.builds(
    Figures,
    passed=st.booleans(),
    calls=st.integers(0, 9),
    prompt_tokens=st.integers(0, 10**6),
    completion_tokens=st.integers(0, 10**6),
    cost=st.none() | st.floats(0, 1000),
    seconds=st.floats(0, 1e4),
)
rows = st.dictionaries(st.sampled_from(STAGES), figures)


@given(st.lists(rows, min_size=1, max_size=8), st.integers(0, 10**6))
def test_whatever_the_sample_the_ranges_are_in_order_and_nothing_breaks(sample: list[Row], left: int) -> None:
    total = len(sample) + left
    found = estimate(sample, total, STAGES, resamples=20)
    for stage in (*found.stages, found.all):
        for value in (stage.rows_in, stage.rows_out, stage.calls, stage.prompt_tokens, stage.completion_tokens, stage.cost, stage.seconds):
            assert 0 <= value.low <= value.expected <= value.high
    reached = sum("respond" in row for row in sample)
    assert found.stages[2].reached == reached and found.stages[2].rows_in.expected == pytest.approx(reached * total / len(sample))
    assert found.all.priced == all(figure.cost is not None for row in sample for figure in row.values())
    assert "Estimate for" in shown(found, max_cost=5.0, max_tokens=1000)


# What is shown


def test_an_unknown_price_is_shown_as_unknown_and_no_cap_is_judged_by_it() -> None:
    unpriced: Row = {"collect": Figures(), "induce": Figures(calls=1, cost=0.25), "respond": Figures(calls=1, cost=None)}
    table = shown(estimate([unpriced] * 30, 30, STAGES), max_cost=5.0)
    respond, everything = (next(line for line in table.splitlines() if f" {name} " in line) for name in ("respond", "all"))
    assert "unknown" in respond and "unknown" in everything and "at least 7.50" in table and "0.00" not in respond
    assert "the price of a model is unknown" in table and "the cap of" not in table


def test_usage_that_is_missing_is_named_and_no_price_and_no_cap_is_judged_by_it() -> None:
    mute: Row = {"collect": Figures(), "induce": Figures(calls=1, cost=0.25), "respond": Figures(calls=1, cost=None, unreported=True)}
    table = shown(estimate([mute] * 30, 30, STAGES), max_cost=5.0, max_tokens=1000)
    assert "the endpoint reported no usage for calls of respond: they take more tokens, and cost more, than the table says, so no cap is judged" in table
    assert "the price of a model is unknown" not in table and "the cap of" not in table
    both = mute | {"induce": Figures(calls=1, cost=None)}
    assert "the price of a model is unknown" in shown(estimate([both] * 30, 30, STAGES))


def test_a_stage_that_nothing_reached_is_not_shown_as_free() -> None:
    table = shown(estimate([DROPPED] * 30, 1000, STAGES))
    respond = next(line for line in table.splitlines() if "respond" in line and "none in sample" in line)
    assert "0" not in respond and "nothing is counted for respond: no row of the sample got there" in table


def test_a_stage_without_calls_shows_rows_alone() -> None:
    collect = next(line for line in shown(estimate([WHOLE] * 30, 60, STAGES)).splitlines() if "collect" in line)
    assert collect.count("60") == 2 and "0.00" not in collect and " s" not in collect


@pytest.mark.parametrize(
    ("cap", "said"),
    [
        (1000.0, "the cap of 1,000.00 USD leaves room"),
        (23.0, "the cap of 23.00 USD may be reached"),
        (21.5, "21.50 USD will probably be reached"),
        (3.0, "3.00 USD will probably be reached"),
    ],
)
def test_it_says_how_the_estimate_stands_to_a_cap(cap: float, said: str) -> None:
    assert said in shown(estimate([WHOLE, DROPPED] * 20, 400, STAGES), max_cost=cap)


def test_it_says_how_the_estimate_stands_to_a_cap_on_tokens() -> None:
    found = estimate([WHOLE, DROPPED] * 20, 400, STAGES)
    assert "the cap of 10,000,000 tokens leaves room" in shown(found, max_tokens=10_000_000)
    assert "the cap of 1,000 tokens will probably be reached" in shown(found, max_tokens=1000)


def test_few_rows_are_told_to_be_few() -> None:
    assert "too narrow: 4 rows" in shown(estimate([WHOLE, DROPPED] * 2, 400, STAGES))
    assert "too narrow" not in shown(estimate([WHOLE, DROPPED] * 2, 4, STAGES)) + shown(estimate([WHOLE, DROPPED] * 15, 400, STAGES))


def test_names_are_shown_and_never_obeyed() -> None:
    hostile = "[bold red]x[/nope]\x1b[2J"
    table = shown(estimate([{hostile: Figures(calls=1)}] * 30, 60, (hostile,)))
    assert "\x1b[2J" not in table and "[bold red]x[/nope]" in table


@pytest.mark.parametrize(
    ("value", "text"),
    [(9999, "9,999"), (12_345, "12,300"), (999_400, "999,000"), (999_600, "1M"), (1_234_567, "1.23M"), (94_949_494, "94.9M"), (2.5e9, "2.50B")],
)
def test_large_counts_are_rounded_to_three_digits(value: float, text: str) -> None:
    found = estimate([{"induce": Figures(calls=1, prompt_tokens=int(value))}], 1, ("induce",))
    assert f" {text} " in shown(found)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "under 1 s"), (45, "45 s"), (99.4, "99 s"), (100, "1.7 min"), (3000, "50 min"), (7200, "2 h"), (90_000, "25 h"), (432_000, "5.0 days")],
)
def test_times_are_told_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert f" {text} " in shown(estimate([{"induce": Figures(calls=1, seconds=seconds)}], 1, ("induce",)))
