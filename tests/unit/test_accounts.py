"""The books of a run: they close on what is on disk, to the row, and a single row too many or too few ends the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from safer_instruct import rundir
from safer_instruct.accounts import check_accounts, remote_spent, summarize
from safer_instruct.budget import Budget
from safer_instruct.config import ModelConfig
from safer_instruct.errors import AccountingError
from safer_instruct.example import Example, Verdict
from safer_instruct.models.protocol import Usage
from safer_instruct.oneline import tenths
from safer_instruct.sources import BadRow
from safer_instruct.spent import Spent
from safer_instruct.state import REJECTED, TWINS, RunState, StageState
from safer_instruct.tables import outputs

PAIR = Example("p", "rude text", "a", "f", 1, prompt="ask", chosen="kind", margin=0.5)
SHORT, LEAK = Verdict("text.words", False, 1, "too short"), Verdict("prompt.leakage", False, 0.9, "quotes the text")


def pair(number: int) -> Example:
    return replace(PAIR, id=f"p{number}", text=f"rude text {number}")


def dropped(number: int, verdict: Verdict) -> Example:
    return replace(PAIR, id=f"d{number}", chosen="", margin=None, verdicts=(verdict,))


def twin(number: int, *verdicts: Verdict) -> Example:
    return replace(PAIR, id=f"t{number}", rejected="no", twin_of=f"p{number}", verdicts=verdicts)


FINISHED = [pair(1), pair(2), dropped(3, SHORT), dropped(4, SHORT), dropped(5, LEAK)]


def written(out: Path, examples: list[Example], aside: int = 1, *, twins: bool = False) -> RunState:
    """A run's files, and what it counted on the way."""
    state = RunState(rows=aside + sum(not e.twin_of for e in examples), set_aside=aside)
    if twins:
        state.stages[TWINS] = StageState()
    with outputs(out, twins=twins) as files:
        for at in range(aside):
            files.add_bad(BadRow("f", at, "not JSON", "{"))
        for example in examples:
            files.add(example)
            state.count_finished(example)
    return state


def test_books_close_when_every_row_came_out_as_a_pair_dropped_or_set_aside(tmp_path: Path) -> None:
    check_accounts(tmp_path, written(tmp_path, FINISHED))


def test_books_of_an_empty_source_close(tmp_path: Path) -> None:
    check_accounts(tmp_path, written(tmp_path, [], aside=0))


def test_twins_are_counted_apart_from_the_rows(tmp_path: Path) -> None:
    near = Verdict("twins.near", False, 0.2, "too far")
    check_accounts(tmp_path, written(tmp_path, [*FINISHED, twin(1), twin(2, near)], twins=True))


def _one_row_more(state: RunState) -> None:
    state.rows += 1


def _one_row_less(state: RunState) -> None:
    state.rows -= 1


def _another_reason(state: RunState) -> None:
    state.reasons["collect", "text.words"] -= 1
    state.reasons["collect", "text.chars"] += 1


def _a_twin_more(state: RunState) -> None:
    state.twins.begun += 1


def _a_twin_that_is_no_pair(state: RunState) -> None:
    state.twins.pairs -= 1


def _a_twin_for_another_reason(state: RunState) -> None:
    state.twins.reasons["twins.near"] += 1


@pytest.mark.parametrize("wrong", [_one_row_more, _one_row_less, _another_reason, _a_twin_more, _a_twin_that_is_no_pair, _a_twin_for_another_reason])
def test_one_row_that_was_counted_otherwise_than_it_was_written_ends_the_run(wrong: Callable[[RunState], None], tmp_path: Path) -> None:
    state = written(tmp_path, [*FINISHED, twin(1)], twins=True)
    wrong(state)
    with pytest.raises(AccountingError, match=f"{state.rows} rows went in, 2 pairs \\+ 3 dropped \\+ 1 set aside came out"):
        check_accounts(tmp_path, state)


@pytest.mark.parametrize("name", [rundir.PAIRS_JSONL, rundir.BAD_ROWS])
def test_a_line_that_is_missing_on_disk_ends_the_run(name: str, tmp_path: Path) -> None:
    state = written(tmp_path, FINISHED)
    lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
    (tmp_path / name).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(AccountingError, match="please report it"):
        check_accounts(tmp_path, state)


def test_an_example_that_is_missing_on_disk_ends_the_run(tmp_path: Path) -> None:
    state = written(tmp_path, FINISHED)
    table = pq.read_table(tmp_path / rundir.EXAMPLES)
    pq.write_table(table.slice(0, table.num_rows - 1), tmp_path / rundir.EXAMPLES)
    with pytest.raises(AccountingError, match=r"6 rows went in, 2 pairs \+ 2 dropped \+ 1 set aside came out \(2 lines"):
        check_accounts(tmp_path, state)


def test_the_error_tells_of_twins_where_there_are_some_and_only_there(tmp_path: Path) -> None:
    state = written(tmp_path, [*FINISHED, twin(1), twin(2, SHORT)], twins=True)
    state.twins.begun += 1
    with pytest.raises(AccountingError, match=r"; 3 twins were begun, 1 twins \+ 1 dropped came out"):
        check_accounts(tmp_path, state)
    state = written(tmp_path, FINISHED)
    state.rows += 1
    with pytest.raises(AccountingError) as told:
        check_accounts(tmp_path, state)
    assert "twins were begun" not in str(told.value)


class Named:
    """All that the summary asks of a model."""

    def __init__(self, name: str) -> None:
        self.name = name


def summary(state: RunState) -> dict[str, Any]:
    models: dict[str, Any] = {"inducer": Named("local:i"), "expert": Named("api:e")}
    return summarize(state, models, {"induce": models["inducer"], "respond": models["expert"], "verify": models["expert"]}, "shipped")


def test_each_stage_gives_on_what_it_took_in_less_what_it_dropped(tmp_path: Path) -> None:
    found = summary(written(tmp_path, FINISHED))
    assert (found["rows"], found["set_aside"], found["dropped"], found["pairs"]) == (6, 1, 3, 2)
    flow = {name: (stage["in"], stage["dropped"], stage["out"]) for name, stage in found["stages"].items()}
    assert flow == {
        "collect": (5, {"text.words": 2}, 3),
        "induce": (3, {}, 3),
        "filter": (3, {"prompt.leakage": 1}, 2),
        "respond": (2, {}, 2),
        "verify": (2, {}, 2),
    }


def test_what_a_run_does_not_make_is_not_in_its_summary_and_what_it_makes_is(tmp_path: Path) -> None:
    assert not {"target", "twins", "rejected", "source_licenses"} & set(summary(written(tmp_path, FINISHED)))
    state = written(tmp_path, [*FINISHED, replace(pair(6), rejected="another", license="CC0"), twin(1), twin(2, SHORT)], twins=True)
    state.target, state.surplus_calls, state.surplus_cost = {"wanted": 3}, 4, 0.5
    state.stages[REJECTED] = StageState(done=3, dropped=0)
    state.parts["twins.write"] = StageState()
    state.parts["twins.write"].meter.add(Usage(10, 5, 0.25, 1.0), replayed=False)
    found = summary(state)
    assert found["target"] == {"wanted": 3} and found["timing"]["surplus"] == {"calls": 4, "cost": 0.5} and found["source_licenses"] == {"CC0": 1}
    assert (found["twins"]["in"], found["twins"]["out"], found["twins"]["dropped"], found["twins"]["cost"]) == (2, 1, {"text.words": 1}, 0.25)
    side = found["rejected"]
    assert {key: side[key] for key in ("in", "out", "replaced", "fallback", "fitting")} == {"in": 3, "out": 3, "replaced": 1, "fallback": 0, "fitting": 2}
    state.stages[REJECTED].dropped = 1
    assert summary(state)["rejected"]["out"] == 2


def test_seconds_are_told_to_the_millisecond(tmp_path: Path) -> None:
    state = RunState()
    state.stages["induce"].meter.add(Usage(1, 1, 0.0, 0.12345), replayed=False)
    timing = summary(state)["timing"]
    assert timing["model_s"]["induce"] == 0.123 and round(timing["wall_s"], 3) == timing["wall_s"]


def test_calls_are_added_up_over_stages_and_by_model() -> None:
    state = RunState()
    state.stages["induce"].meter.add(Usage(10, 5, 0.0, 1.0), replayed=False)
    state.stages["respond"].meter.add(Usage(100, 50, 0.25, 2.0, 40), replayed=False)
    state.stages["verify"].meter.add(Usage(100, 1, 0.125, 0.5), replayed=True)
    found = summary(state)
    assert {key: found[key] for key in ("calls", "prompt_tokens", "completion_tokens", "cost")} == {
        "calls": 3, "prompt_tokens": 210, "completion_tokens": 56, "cost": 0.375,
    }  # fmt: skip
    assert found["cache_hit_rate"] == round(40 / 210, 4) and "cached_tokens" not in found["stages"]["induce"]
    assert {name: (took["calls"], took["cost"]) for name, took in found["by_model"].items()} == {"local:i": (1, 0.0), "api:e": (2, 0.375)}
    assert found["timing"]["calls_from_ledger"] == 1 and found["timing"]["calls_repeated"] == 0
    state.stages["verify"].meter.add(Usage(100, 1, 0.125, 0.5), replayed=True, repeated=True)
    assert summary(state)["timing"]["calls_from_ledger"] == summary(state)["timing"]["calls_repeated"] == 1


def test_what_a_part_of_cannot_be_priced_has_no_cost() -> None:
    state = RunState()
    state.stages["induce"].meter.add(Usage(10, 5, 0.0, 1.0), replayed=False)
    state.stages["induce"].priced = False
    found = summary(state)
    assert found["cost"] is None and found["stages"]["induce"]["cost"] is None and found["stages"]["verify"]["cost"] == 0.0


def test_the_budget_is_told_with_what_earlier_sittings_spent() -> None:
    budget = Budget(2.0, 1000)
    budget.begin(Spent(0.5, 100), [].append)
    state = RunState(budget=budget)
    assert summary(state)["timing"]["budget"] == {
        "max_cost": 2.0, "max_tokens": 1000, "spent_cost": 0.5, "spent_tokens": 100, "unanswered_cost": 0.0, "unanswered_tokens": 0,
    }  # fmt: skip


def test_only_calls_that_left_this_process_were_paid_for(tmp_path: Path) -> None:
    from ledgers import a_call, fill

    names = ("api:e", "embedded:m", "scripted:m", "api:f", "reward:here#kind", "reward:there")
    calls = [a_call(number, model=model) for number, model in enumerate(names)]
    models = [ModelConfig(model="reward:here#kind"), ModelConfig(model="reward:there", base_url="http://127.0.0.1:1")]
    fill(tmp_path / "ledger.sqlite", calls)
    paid = [calls[0].usage, calls[3].usage, calls[5].usage]
    assert remote_spent(tmp_path / "ledger.sqlite", models) == Spent(
        pytest.approx(sum(u.cost for u in paid)),  # type: ignore[arg-type]
        sum(u.prompt_tokens + u.completion_tokens for u in paid),
    )


def test_calls_without_usage_leave_the_cost_unknown_and_are_counted() -> None:
    state = RunState()
    state.stages["induce"].meter.add(Usage(), replayed=False, unreported=True)
    found = summary(state)
    assert found["cost"] is None and (found["calls"], found["calls_without_usage"]) == (1, 1)
    assert "calls_without_usage" not in found["stages"]["verify"] and found["stages"]["verify"]["cost"] == 0.0


def test_seconds_of_a_ledger_show_as_those_of_a_summary_do() -> None:
    exact = 78.6496
    state = RunState()
    state.stages["induce"].meter.add(Usage(1, 1, 0.0, exact), replayed=False)
    told = summary(state)["timing"]["model_s"]["induce"]
    assert f"{exact:.1f}" != f"{told:.1f}", "rounded twice it is another one"
    assert tenths(exact) == tenths(told) == "78.7" and tenths(1234.5) == "1,234.5"
