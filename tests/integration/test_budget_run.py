"""Dry runs, caps and costs of a whole run against a real server that charges."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from misbehaving import serve
from test_pipeline import PRICES, Project, good_rows, judged, over_http  # noqa: F401 - one of them is a fixture

from safer_instruct.accounts import remote_spent
from safer_instruct.config import load_config
from safer_instruct.errors import BudgetError, ConfigError, ModelError
from safer_instruct.pipeline import run, sample
from safer_instruct.spent import Spent, write_spent
from safer_instruct.state import STAGES

pytestmark = pytest.mark.usefixtures("judged")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


class TestDryRun:
    def test_it_tells_what_all_rows_take_and_its_calls_are_not_paid_again(self, project: Project) -> None:
        project.texts(good_rows(60))
        with serve() as server:
            over_http(project, server)
            project.write()
            taken = sample(load_config(project.yaml), project.out, 20)
            asked = server.answered
            assert (len(taken.rows), taken.total_rows) == (20, 60) and set(taken.slots) <= set(STAGES)
            assert sum(stage.calls for row in taken.rows for stage in row.values()) >= asked > 0
            assert all(stage.cost > 0 for row in taken.rows for name, stage in row.items() if name in ("induce", "respond"))
            assert not (project.out / "summary.json").exists() and not (project.out / "pairs.jsonl").exists()
            summary = project.run()
        assert server.asked_twice == 0 and summary["timing"]["calls_from_ledger"] >= asked
        expected = sum(stage.cost for row in taken.rows for stage in row.values()) * 3
        assert summary["cost"] == pytest.approx(expected, rel=0.25)

    def test_the_command_shows_it_and_what_the_cap_means(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        project.texts([*good_rows(40), "no json"])
        with serve() as server:
            over_http(project, server)
            project.config["budget"] = {"max_cost": 0.05}
            assert project.cli("--dry-run", "--sample", "5") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "Estimate for 41 rows, from 5 of them" in said and "the cap of 0.050 USD" in said

    def test_the_time_is_at_least_what_the_rates_of_the_config_leave_each_model(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        project.texts(good_rows(60))
        with serve() as server:
            over_http(project, server)
            project.config["models"]["judge"]["requests_per_min"] = 600
            taken = sample(load_config(project.write()), project.out, 6)
            (judge,) = taken.paced
            calls = sum(row["verify"].calls for row in taken.rows if "verify" in row)
            assert (set(judge.asked), judge.asked["verify"][0], judge.requests_per_min) == ({"verify"}, calls, 600)
            assert project.cli("--dry-run", "--sample", "6") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert calls >= 6 and f"time: {calls} s when the stages run side by side" in said, "ten times as many, ten a second"

    def test_rows_that_became_no_pairs_are_told_with_what_dropped_them(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        project.texts(good_rows(12))
        with serve() as server:
            over_http(project, server)
            project.config["verify"]["min_words"] = 1000
            assert project.cli("--dry-run", "--sample", "5") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "none of the 5 sampled rows became a pair; dropped by verify." in said

    def test_a_source_smaller_than_the_sample_is_told_as_it_is(self, project: Project) -> None:
        project.texts(good_rows(4))
        project.write()
        assert len(sample(load_config(project.yaml), project.out, 30).rows) == 4


class TestCaps:
    def run_with(self, project: Project, **budget: Any) -> dict[str, Any]:
        project.config["budget"] = budget
        return run(load_config(project.write()), project.out).summary

    def test_a_cap_in_money_stops_the_run_and_a_higher_one_goes_on(self, project: Project) -> None:
        project.texts(good_rows(40))
        with serve() as server:
            over_http(project, server)
            with pytest.raises(BudgetError, match=r"budget of 0\.010 USD used up.*raise budget\.max_cost and give the same command again"):
                self.run_with(project, max_cost=0.01)
            spent = json.loads((project.out / "spent.json").read_text())
            assert 0 < spent["cost_usd"] <= 0.01
            summary = self.run_with(project, max_cost=5.0)  # the same command: a budget makes no other run
        assert server.asked_twice == 0 and summary["pairs"] > 0
        assert summary["cost"] == pytest.approx(summary["timing"]["budget"]["spent_cost"], abs=1e-6)

    def test_a_cap_in_tokens_holds_without_a_price(self, project: Project) -> None:
        project.texts(good_rows(40))
        with serve() as server:
            over_http(project, server, price_per_million=None)
            with pytest.raises(BudgetError, match=r"raise budget\.max_tokens"):
                self.run_with(project, max_tokens=5_000)
        assert json.loads((project.out / "spent.json").read_text())["tokens"] <= 5_000

    def test_a_cap_in_money_needs_prices(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", "sk-none")
        project.texts(good_rows(1))
        project.config["models"]["expert"] = {"model": "openai:nobody-knows", "base_url": "https://llm.example.com/v1", "api_key_env": "MY_KEY"}
        with pytest.raises(ConfigError, match=r"the price of 'openai:nobody-knows' at llm\.example\.com is not known"):
            self.run_with(project, max_cost=1.0)

    def test_attempts_that_fail_count_as_spent_and_the_cap_still_holds(self, project: Project) -> None:
        project.texts(good_rows(30))
        with serve(error=0.3, truncated=0.1, reset=0.1, seed=4) as server:
            over_http(project, server)
            with pytest.raises(BudgetError, match="for calls whose answer never came"):
                self.run_with(project, max_cost=0.02)
            assert json.loads((project.out / "spent.json").read_text())["cost_usd"] <= 0.02

    @pytest.mark.parametrize("status", [400, 401])
    def test_requests_that_are_refused_use_up_nothing_be_they_under_way_when_the_run_stops(self, project: Project, status: int) -> None:
        project.texts(good_rows(40))
        with serve(reject=(status, {"error": {"message": "Incorrect API key"}}), latency_s=0.05) as server:
            over_http(project, server)
            for _ in range(2):
                with pytest.raises(ModelError):
                    self.run_with(project, max_cost=0.02)
                assert json.loads((project.out / "spent.json").read_text())["cost_usd"] == 0.0
        assert server.status[str(status)] > 1, "several were under way"

    def test_what_a_sitting_that_was_cut_off_set_aside_is_told_by_the_next(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        project.texts(good_rows(40))
        with serve() as server:
            over_http(project, server)
            with pytest.raises(BudgetError):
                self.run_with(project, max_cost=0.01)
            answered = remote_spent(project.out / "ledger.sqlite", load_config(project.yaml).models.by_role.values())
            write_spent(project.out / "spent.json", Spent(0.2, answered.tokens + 1000))  # as a kill leaves it
            with pytest.raises(BudgetError, match=r"0\.20 spent \(0\.(1\d+|20) of it set aside in earlier sittings for calls of which the ledger"):
                self.run_with(project, max_cost=0.2)
            project.config["budget"] = {"max_cost": 5.0}
            assert project.cli() == 0
        told = " ".join(capsys.readouterr().out.split())
        assert re.search(r"earlier sittings of which the ledger knows no usage, and which may have been billed: at most 1,000 tokens, 0\.(1\d+|20) USD", told)


class TestCosts:
    def test_each_model_is_told_apart(self, project: Project) -> None:
        project.texts(good_rows(10))
        with serve() as server:
            over_http(project, server)
            summary = project.run()
        by_model = summary["by_model"]
        assert set(by_model) == {*(f"openai:{role}" for role in PRICES), "scripted:scorer.yaml"}
        assert sum(model["cost"] for model in by_model.values()) == pytest.approx(summary["cost"])
        assert sum(model["calls"] for model in by_model.values()) == summary["calls"]

    def test_what_has_no_price_costs_unknown_and_not_nothing(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        project.texts(good_rows(6))
        with serve() as server:
            over_http(project, server, price_per_million=None)
            url = server.base_url.replace("127.0.0.1", "localhost.example.test")
            monkeypatch.setenv("HTTP_PROXY", server.base_url.removesuffix("/v1"))
            monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
            project.config["models"]["expert"]["base_url"] = url
            summary = project.run()
        assert summary["cost"] is None and summary["by_model"]["openai:expert"]["cost"] is None and summary["by_model"]["openai:judge"]["cost"] == 0.0


def test_weights_that_move_are_not_asked_again_where_the_revision_is_told(project: Project) -> None:
    project.texts(good_rows(8))
    for _ in range(2):
        with serve() as server:
            over_http(project, server, revision="m@1")
            summary = project.run()
            if server.answered == 0:
                break
    assert server.answered == 0 and summary["timing"]["calls_from_ledger"] == summary["calls"]


def test_two_endpoints_share_the_work(project: Project) -> None:
    project.texts(good_rows(40))
    with serve(latency_s=0.005) as one, serve(latency_s=0.005) as other:
        over_http(project, one)
        for role in PRICES:
            project.config["models"][role]["base_url"] = [one.base_url, other.base_url]
        summary = project.run()
    total = one.answered + other.answered
    assert min(one.answered, other.answered) > total / 4 and summary["pairs"] > 0
