"""The model that speaks Anthropic's Messages against a real server that misbehaves; what it shares with `OpenAIModel` is tested there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Server, serve, tokens

from safer_instruct.budget import Budget
from safer_instruct.config import ModelConfig
from safer_instruct.errors import AccessError, BudgetError, ConfigError, ModelError, RequestError
from safer_instruct.models import calls, open_model
from safer_instruct.models.anthropic import AnthropicModel
from safer_instruct.models.protocol import Generated, Generation, Model, Sampling, Scoring, Turn
from safer_instruct.prices import Price, Prices, load_prices

RAW = "Write a complaint about an umbrella."
SYSTEM = "You are a customer who writes about what went wrong, where, and since when. " * 10
CHAT = (Turn("system", SYSTEM), Turn("user", RAW))
KEY = "sk-ant-0123456789"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BACKOFF_S", (0.001, 0.01))
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)


def open_at(server: Server, name: str = "small", *, prices: Prices | None = None, budget: Budget | None = None, **settings: Any) -> Model:
    config = ModelConfig(model=f"anthropic:{name}", base_url=server.base_url, **settings)
    return open_model(config, Path(), prices=prices, budget=budget)


def generate(server: Server, prompt: Any = RAW, *, n: int = 1, **settings: Any) -> Generated:
    model = open_at(server, **settings)

    async def main() -> Generated:
        try:
            return await model.generate(Generation(prompt, Sampling(n=n, top_k=11)))
        finally:
            await model.close()

    return asyncio.run(main())


def test_a_raw_prompt_is_a_users_message_and_the_key_stands_in_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with serve() as server:
        made = generate(server)
    (path, body, key), *_ = server.seen
    assert (path, key) == ("/v1/messages", KEY)
    assert body["messages"] == [{"role": "user", "content": RAW}]
    assert made.completions[0].text and made.completions[0].finished


def test_each_completion_is_a_request_and_what_they_took_is_summed() -> None:
    with serve() as server:
        one, three = generate(server), generate(server, n=3)
    assert len(three.completions) == 3 and server.requests == 4
    assert (three.usage.prompt_tokens, three.usage.completion_tokens) == (3 * one.usage.prompt_tokens, 3 * one.usage.completion_tokens)
    assert one.usage.prompt_tokens == len(tokens(RAW))


def test_completions_are_asked_for_at_the_same_time() -> None:
    with serve(latency_s=0.3) as server:
        generate(server, n=3)
    assert server.peak == 3


def test_the_second_request_with_a_system_prompt_reads_it_from_the_cache() -> None:
    prices = Prices({"anthropic:small": Price(prompt=10.0, cached=1.0, cache_write=12.5, completion=0.0)})
    with serve() as server:
        first, second = (generate(server, CHAT, prices=prices).usage for _ in range(2))
    system, user = len(tokens(SYSTEM)), len(tokens(RAW))
    assert first.prompt_tokens == second.prompt_tokens == system + user
    assert first.cost == pytest.approx((system * 12.5 + user * 10) / 1e6)
    assert second.cost == pytest.approx((system * 1.0 + user * 10) / 1e6)


def test_a_cut_answer_is_not_finished_and_a_refused_one_is_withheld() -> None:
    with serve(thinks=120) as server:
        assert [(c.text != "", c.finished) for c in generate(server).completions] == [(True, False)]
    with serve(refusal="I will not") as server:
        assert [c.withheld for c in generate(server).completions] == ["refusal"]
    told = {"type": "error", "error": {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}}
    with serve(reject=(400, told)) as server:
        assert [c.withheld for c in generate(server, n=2).completions] == ["filter"] * 2


def test_a_model_that_always_thinks_has_room_for_it() -> None:
    with serve(thinks=1000) as server:
        assert generate(server, name="claude-opus-5-5").completions[0].finished


@pytest.mark.parametrize("fault", ["error", "rate_limit", "truncated", "cut", "empty", "reset"])
def test_each_fault_is_survived(fault: str) -> None:
    with serve() as server:
        wanted = generate(server)
    with serve(**{fault: 1.0}, per_body=3) as server:
        assert generate(server) == wanted
    assert (server.requests, server.answered) == (4, 1)


def test_an_overloaded_endpoint_is_waited_for_until_the_pause_is_too_long() -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with serve(reject=(529, overloaded)) as server, pytest.raises(ModelError, match="HTTP 529: Overloaded"):
        generate(server, retries=1, max_pause_s=0.3)
    assert server.requests >= 3


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (400, RequestError, "HTTP 400: top_k is no good; this endpoint may not know top_k; set induce.top_k and respond.top_k to 0"),
        (413, RequestError, "HTTP 413"),
        (401, AccessError, "environment variable ANTHROPIC_API_KEY, which is not set"),
        (404, AccessError, "is 'small' the name of a model there"),
    ],
)
def test_a_refusal_is_not_asked_again(status: int, kind: type[ModelError], said: str) -> None:
    with serve(reject=(status, {"type": "error", "error": {"message": "top_k is no good"}})) as server, pytest.raises(kind, match=said):
        generate(server)
    assert server.requests == 1


def test_an_empty_account_stops_the_run() -> None:
    told = {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}}
    with serve(reject=(400, told)) as server, pytest.raises(AccessError, match="top it up"):
        generate(server)


def test_of_several_completions_none_goes_on_after_the_error_is_told() -> None:
    with serve(reject=(400, {"error": {"message": "no"}}), latency_s=0.05) as server, pytest.raises(RequestError):
        generate(server, n=3)
    assert (server.requests, server.in_flight) == (3, 0)


def test_the_budget_holds_for_each_of_the_completions() -> None:
    with serve() as server:
        budget = Budget(max_tokens=1200)
        with pytest.raises(BudgetError, match="used up"):
            generate(server, n=40, budget=budget)
    assert 0 < budget.spent.tokens <= 1200 and 0 < server.answered < 40


def test_it_cannot_score() -> None:
    with serve() as server, pytest.raises(AccessError, match="no log-probabilities; the embedded scorer can"):
        asyncio.run(open_at(server).score(Scoring("a", "b")))
    assert server.requests == 0


def test_its_own_address_and_key_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="set the environment variable ANTHROPIC_API_KEY"):
        open_model(ModelConfig(model="anthropic:claude-haiku-4-5"), Path())
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    model = open_model(ModelConfig(model="anthropic:claude-haiku-4-5"), Path(), prices=load_prices())
    assert model.fingerprint == "anthropic:claude-haiku-4-5@https://api.anthropic.com/v1" and model.priced
    assert KEY not in repr(model) + model.name + model.fingerprint


def test_a_cap_in_money_needs_its_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with pytest.raises(ConfigError, match=r"price of 'anthropic:claude-epic-9' at api\.anthropic\.com is not known"):
        open_model(ModelConfig(model="anthropic:claude-epic-9"), Path(), prices=load_prices(), budget=Budget(max_cost=1.0))


def test_the_address_is_no_part_of_the_fingerprint_beside_a_revision() -> None:
    assert AnthropicModel("m", base_url=["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"], revision="r1").fingerprint == "anthropic:m#r1"
