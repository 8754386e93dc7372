"""LiteLLM itself against a real server that misbehaves; one attempt at a time is its part, all else is ours."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Server, serve, tokens

pytest.importorskip("litellm", reason="the extra litellm is not installed")

from safer_instruct.budget import Budget
from safer_instruct.config import ModelConfig
from safer_instruct.errors import AccessError, BudgetError, ConfigError, ModelError, RequestError
from safer_instruct.models import calls, open_model
from safer_instruct.models.litellm import known_price
from safer_instruct.models.protocol import Generated, Generation, Model, Sampling, Scoring, Turn
from safer_instruct.prices import Prices, load_prices

RAW = "Write a complaint about an umbrella."
CHAT = (Turn("system", "You are a customer."), Turn("user", RAW))
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BACKOFF_S", (0.001, 0.01))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def open_at(server: Server, name: str = "openai/small", *, prices: Prices | None = None, budget: Budget | None = None, **settings: Any) -> Model:
    config = ModelConfig(model=f"litellm:{name}", base_url=server.base_url, **settings)
    return open_model(config, Path(), prices=prices, budget=budget)


def generate(server: Server, prompt: Any = RAW, *, n: int = 1, seed: int = 0, **settings: Any) -> Generated:
    model = open_at(server, **settings)

    async def main() -> Generated:
        try:
            return await model.generate(Generation(prompt, Sampling(n=n, max_tokens=100), seed))
        finally:
            await model.close()

    return asyncio.run(main())


def test_chats_and_raw_prompts_are_messages() -> None:
    with serve() as server:
        raw, chat = generate(server, RAW, seed=5), generate(server, CHAT)
    (_, raw_body, key), (_, chat_body, _) = server.seen
    assert raw_body == {"model": "small", "messages": [{"role": "user", "content": RAW}], "max_tokens": 100, "temperature": 0.8, "n": 1, "seed": 5}
    assert chat_body["messages"] == [{"role": "system", "content": "You are a customer."}, {"role": "user", "content": RAW}]
    assert key == f"Bearer {KEY}"
    assert raw.completions[0].text != chat.completions[0].text != ""
    assert raw.usage.prompt_tokens == len(tokens(RAW))


@pytest.mark.parametrize(("faults", "requests"), [({}, 1), ({"ignore_n": True}, 3)])
def test_as_many_completions_come_as_are_asked_for(faults: dict[str, Any], requests: int) -> None:
    with serve(**faults) as server:
        made = generate(server, n=3, seed=10)
    assert len({c.text for c in made.completions}) == 3
    assert server.requests == requests


@pytest.mark.parametrize("fault", ["error", "rate_limit", "truncated", "cut", "empty", "reset"])
def test_each_fault_is_survived(fault: str) -> None:
    with serve() as server:
        wanted = generate(server)
    with serve(**{fault: 1.0}, per_body=3) as server:
        assert generate(server) == wanted
    assert (server.requests, server.answered) == (4, 1)


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"error": 1.0}, "no usable answer in 3 attempts.*HTTP 500: .*something broke"),
        ({"truncated": 1.0}, "no usable answer in 3 attempts"),
        ({"empty": 1.0}, "no usable answer in 3 attempts.*0 choices where 1 were asked for"),
        ({"reset": 1.0}, "no usable answer in 3 attempts.*Connection error"),
        ({"hang": 1.0}, r"no usable answer in 3 attempts.*no answer within 0\.2 s"),
        ({"slow": 1.0, "slow_s": 5.0}, r"no usable answer in 3 attempts.*no answer within 0\.2 s"),
    ],
)
def test_after_the_retries_the_last_one_is_told_and_none_is_litellms(faults: dict[str, Any], said: str) -> None:
    with serve(**faults) as server, pytest.raises(ModelError, match=said) as caught:
        generate(server, retries=2, timeout_s=0.2 if {"hang", "slow"} & faults.keys() else 5.0)
    assert not isinstance(caught.value, (AccessError, RequestError))
    assert server.requests == 3


def test_retry_after_is_heeded() -> None:
    with serve(rate_limit=1.0, retry_after="0.4", per_body=1) as server:
        started = time.monotonic()
        generate(server)
    assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize("status", [503, 529])
def test_a_busy_endpoint_is_waited_for_until_the_pause_is_too_long(status: int) -> None:
    with serve(reject=(status, {"error": {"message": "overloaded"}})) as server, pytest.raises(ModelError, match=f"HTTP {status}: .*overloaded"):
        generate(server, retries=1, max_pause_s=0.3)
    assert server.requests >= 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RequestError), (422, RequestError), (401, AccessError), (402, AccessError), (403, AccessError), (404, AccessError)],
)
def test_a_refusal_is_not_asked_again_and_costs_nothing(status: int, kind: type[ModelError]) -> None:
    budget = Budget(max_tokens=10_000)
    with serve(reject=(status, {"error": {"message": "it is wrong"}})) as server, pytest.raises(kind, match=f"HTTP {status}: .*it is wrong"):
        generate(server, budget=budget)
    assert server.requests == 1
    assert budget.spent.tokens == 0


def test_an_empty_account_stops_the_run() -> None:
    told = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota", "type": "insufficient_quota"}}
    with serve(reject=(429, told)) as server, pytest.raises(AccessError, match="top it up"):
        generate(server)
    assert server.requests == 1


def test_what_a_filter_holds_back_is_withheld() -> None:
    with serve(filtered=True) as server:
        assert [c.withheld for c in generate(server).completions] == ["filter"]
    told = {"error": {"message": "Your request was rejected by our safety system.", "code": "content_policy_violation"}}
    with serve(reject=(400, told)) as server:
        assert [(c.withheld, "safety system" in c.text) for c in generate(server, n=2).completions] == [("filter", True)] * 2
    assert server.requests == 1


def test_another_provider_goes_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)

    def ask(server: Server, **settings: Any) -> Generated:
        config = ModelConfig(model="litellm:anthropic/claude-opus-5", base_url=server.base_url.removesuffix("/v1"), **settings)
        return asyncio.run(open_model(config, Path()).generate(Generation(CHAT, Sampling(n=2))))

    with serve(rate_limit=1.0, retry_after="0.4", per_body=1) as server:
        started = time.monotonic()
        made = ask(server)
    assert time.monotonic() - started >= 0.4
    assert [path for path, _, _ in server.seen] == ["/v1/messages"] * 3
    assert "temperature" not in server.seen[0][1]
    assert len(made.completions) == 2 and made.usage.prompt_tokens == 2 * len(tokens(RAW) + tokens("You are a customer."))
    with serve(reject=(529, {"error": {"message": "Overloaded"}})) as server, pytest.raises(ModelError, match="Overloaded"):
        ask(server, retries=1, max_pause_s=0.3)
    with serve(reject=(400, {"error": {"message": "no"}})) as server, pytest.raises(RequestError):
        ask(server)


def test_the_key_is_never_shown(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        for status in (401, 500):
            error = {"error": {"message": f"bad key {KEY}!"}}
            with serve(reject=(status, error)) as server, pytest.raises(ModelError, match=r"bad key \[key\]!") as caught:
                generate(server, retries=1)
            assert KEY not in "".join(traceback.format_exception(caught.value))
    out, err = capfd.readouterr()
    assert KEY not in out + err + caplog.text
    assert "LiteLLM" not in out + err


def test_the_key_may_have_a_variable_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_VARIABLE", "sk-other-0123456789")
    with serve() as server:
        generate(server, api_key_env="MY_VARIABLE")
    assert server.seen[0][2] == "Bearer sk-other-0123456789"
    with pytest.raises(ModelError, match="set the environment variable NO_SUCH"):
        open_model(ModelConfig(model="litellm:openai/m", api_key_env="NO_SUCH"), Path())


def test_the_budget_holds() -> None:
    budget = Budget(max_tokens=1000)
    with serve() as server:
        for i in range(3):
            generate(server, budget=budget, seed=i)
        spent = budget.spent.tokens
        assert 0 < spent == sum(len(tokens(RAW)) + len(tokens(generate(server, seed=i).completions[0].text)) for i in range(3))
        with pytest.raises(BudgetError, match="used up"):
            generate(server, budget=Budget(max_tokens=100))


def test_prices_come_from_the_config_then_the_files_then_litellm() -> None:
    def cost(**settings: Any) -> float:
        return generate(server, prices=prices, **settings).usage.cost

    with serve() as server:
        read, written = len(tokens(RAW)), generate(server).usage.completion_tokens
        prices = Prices({"litellm:openai/small": load_prices().by_key["openai:gpt-4o"].model_copy(update={"host": None})})
        assert cost() == pytest.approx((read * 2.5 + written * 10) / 1e6)
        assert cost(price_per_million=(1.0, 1.0)) == pytest.approx((read + written) / 1e6)
    hosted = open_model(ModelConfig(model="litellm:gemini/gemini-2.5-pro"), Path(), budget=Budget(max_cost=1.0))
    assert hosted.priced and hosted.fingerprint == "litellm:gemini/gemini-2.5-pro"
    with pytest.raises(ConfigError, match="price of 'litellm:gemini/gemini-0-nothing'"):
        open_model(ModelConfig(model="litellm:gemini/gemini-0-nothing"), Path(), budget=Budget(max_cost=1.0))
    with pytest.raises(ConfigError, match=r"price of 'litellm:openai/gpt-4o' at llm\.example\.com"):
        open_model(ModelConfig(model="litellm:openai/gpt-4o", base_url="https://llm.example.com/v1"), Path(), budget=Budget(max_cost=1.0))


def test_litellms_map_is_read_with_its_cache_and_its_long_prompts() -> None:
    price = known_price("gemini/gemini-2.5-pro")
    assert price is not None and price.long is not None
    assert (price.prompt, price.completion, price.cached) == (1.25, 10.0, 0.125)
    assert (price.long.above, price.long.prompt, price.long.completion, price.long.cached) == (200_000, 2.5, 15.0, 0.25)
    assert known_price("openai/gpt-4o") == known_price("gpt-4o") is not None
    elsewhere = known_price("vertex_ai/gemini-2.5-pro")
    assert elsewhere is not None and elsewhere.prompt == 1.25
    assert known_price("openai/gpt-0") is None


def test_an_unknown_provider_is_told_on_construction() -> None:
    with pytest.raises(ModelError, match="LiteLLM knows no such provider"):
        open_model(ModelConfig(model="litellm:nobody/m"), Path())


def test_it_cannot_score() -> None:
    with serve() as server, pytest.raises(AccessError, match="chats only; the embedded scorer can"):
        asyncio.run(open_at(server).score(Scoring("a", "b")))


def test_several_endpoints_are_balanced_and_named() -> None:
    with serve(error=1.0) as broken, serve() as server:
        model = open_model(ModelConfig(model="litellm:openai/small", base_url=(broken.base_url, server.base_url)), Path())
        assert model.fingerprint == "litellm:openai/small@" + ",".join(sorted((broken.base_url, server.base_url)))

        async def main() -> list[Generated]:
            try:
                return await asyncio.gather(*(model.generate(Generation(RAW, Sampling(), seed)) for seed in range(12)))
            finally:
                await model.close()

        assert len(asyncio.run(main())) == 12
    assert server.answered == 12 and broken.answered == 0 < broken.requests


def test_it_is_quiet_and_closes_what_it_opened() -> None:
    with serve() as server:
        program = f"""
import asyncio, sys
sys.path[:0] = {[p for p in sys.path if p]!r}
from pathlib import Path
from safer_instruct.config import ModelConfig
from safer_instruct.models import open_model
from safer_instruct.models.protocol import Generation, Sampling
from safer_instruct.models.transport import event_loop

async def main(model):
    await model.generate(Generation("Hello", Sampling()))
    await model.close()

model = open_model(ModelConfig(model="litellm:openai/small", base_url={server.base_url!r}), Path())
for _ in range(2):
    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(main(model))
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert server.answered == 2
    assert logging.getLogger("LiteLLM").level == logging.CRITICAL
