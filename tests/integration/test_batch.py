"""Batched models against the four providers' APIs on the loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from batch_client import FAST, KINDS, PRICE, model, question
from batch_servers import KEY, KEY_ENV, PROVIDERS, BatchServer, answer_to, serve_batches

from safer_instruct.budget import Budget
from safer_instruct.errors import AccessError, BudgetError, ModelError, RequestError
from safer_instruct.models.batch.anthropic import AnthropicBatches
from safer_instruct.models.batch.collector import BatchedModel
from safer_instruct.models.batch.provider import Fate, Result
from safer_instruct.models.messages import THINKING_TOKENS
from safer_instruct.models.protocol import Completion, Generated, Generation, Sampling, Scoring, Turn, Usage
from safer_instruct.models.structured import object_schema
from safer_instruct.models.transport import event_loop

T = TypeVar("T")
NEVER = 1_000_000
each = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


def run(work: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        return await asyncio.wait_for(work, 60)

    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(limited())


async def ask(batched: BatchedModel, requests: Sequence[Generation]) -> list[Generated | BaseException]:
    try:
        return await asyncio.gather(*map(batched.generate, requests), return_exceptions=True)
    finally:
        await batched.close()


def asked(server: BatchServer, provider: str, folder: Path, requests: Sequence[Generation], **settings: Any) -> list[Generated | BaseException]:
    """One sitting that asks all of `requests`."""
    return run(ask(model(provider, server.url(provider), folder, **settings), requests))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the server runs in another thread
        await asyncio.sleep(0.001)


def text(answer: Generated | BaseException) -> str:
    assert isinstance(answer, Generated), answer
    return answer.completions[0].text


def expected(provider: str, number: int | str) -> str:
    return answer_to(f"question {number}", 0 if provider == "anthropic" else 3)


@each
def test_calls_are_gathered_into_one_batch_and_each_gets_its_own_answer(provider: str, tmp_path: Path) -> None:
    with serve_batches() as server:
        answers = asked(server, provider, tmp_path, [question(i) for i in range(30)], price=PRICE)
        assert [text(a) for a in answers] == [expected(provider, i) for i in range(30)]
        assert server.created == 1 and server.paid.total() == 30
    first = answers[0]
    assert isinstance(first, Generated)
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (10, 5)
    assert first.usage.cost == pytest.approx(0.5 * (10 * 100 + 5 * 200) / 1e6)


@each
def test_a_batch_is_full_at_its_number_of_rows(provider: str, tmp_path: Path) -> None:
    with serve_batches() as server:
        answers = asked(server, provider, tmp_path, [question(i) for i in range(25)], max_rows=10)
        assert [text(a) for a in answers] == [expected(provider, i) for i in range(25)]
        assert sorted(len(job.rows) for job in server.jobs[provider]) == [5, 10, 10]


def test_a_batch_is_sent_after_a_while_though_calls_keep_coming(tmp_path: Path) -> None:
    async def work(server: BatchServer) -> None:
        batched = model("openai", server.url("openai"), tmp_path, timing=replace(FAST, gather_s=1000.0, longest_gather_s=0.2))
        calls = [asyncio.create_task(batched.generate(question(0)))]
        while not calls[0].done():
            calls.append(asyncio.create_task(batched.generate(question(len(calls)))))
            await asyncio.sleep(0.02)
        await asyncio.gather(*calls)
        await batched.close()

    with serve_batches() as server:
        run(work(server))
        assert server.created >= 1 and server.paid_twice == 0


@each
def test_a_request_for_several_completions_gets_them(provider: str, tmp_path: Path) -> None:
    with serve_batches() as server:
        (answer,) = asked(server, provider, tmp_path, [question("sibling", n=3)])
        assert isinstance(answer, Generated)
        if provider != "anthropic":  # which has no seeds
            assert [c.text for c in answer.completions] == [answer_to("question sibling", 3 + i) for i in range(3)]
        assert len(answer.completions) == 3 and answer.usage.completion_tokens == 15


@each
def test_rows_that_fail_go_again_alone_and_the_others_are_kept(provider: str, tmp_path: Path) -> None:
    names = ["plain", "FLAKY", "VANISH", "GARBLED", "TWICE", "other"]
    with serve_batches() as server:
        answers = asked(server, provider, tmp_path, [question(name) for name in names])
        assert [text(a) for a in answers] == [expected(provider, name) for name in names]
        assert [len(job.rows) for job in server.jobs[provider]] == [6, 3] and server.paid_twice == 0


@each
def test_a_row_that_is_refused_fails_its_own_call_only(provider: str, tmp_path: Path) -> None:
    with serve_batches() as server:
        plain, refused = asked(server, provider, tmp_path, [question("plain"), question("REFUSE this")])
        assert text(plain) == expected(provider, "plain")
        assert isinstance(refused, RequestError) and "this is not allowed" in str(refused)


@each
def test_an_answer_that_was_withheld_is_an_answer_and_not_paid_for_again(provider: str, tmp_path: Path) -> None:
    with serve_batches() as server:
        for _ in range(2):
            (answer,) = asked(server, provider, tmp_path, [question("WITHHELD", n=2)])
            assert [c.withheld for c in answer.completions] == ["filter" if provider == "gemini" else "refusal"] * 2
        assert server.paid.total() == 2


@each
def test_a_prompt_that_a_filter_stops_is_withheld_and_costs_nothing(provider: str, tmp_path: Path) -> None:
    with serve_batches() as server:
        (answer,) = asked(server, provider, tmp_path, [question("BLOCKED", n=2)])
        assert [c.withheld for c in answer.completions] == ["filter"] * 2 and "blocked" in answer.completions[0].text
        assert answer.usage == Usage() and server.paid.total() == 0


def test_a_row_that_a_filter_stopped_stands_for_all_completions_that_it_asked_for() -> None:
    assert Result("a-0", Fate.ANSWERED, (Completion("", withheld="filter"),)).for_each(3) == (Completion("", withheld="filter"),) * 3
    assert Result("a-0", Fate.ANSWERED, (Completion("one"),)).for_each(3) == (Completion("one"),)


@each
def test_a_row_keeps_to_the_schema_of_its_request(provider: str) -> None:
    schema = object_schema("verdict", answer={"type": "boolean"})
    asks = KINDS[provider]("claude-haiku-4-5", api_key_env=KEY_ENV)
    (row,) = asks.rows(replace(question(0), schema=schema))
    told = {
        "anthropic": ("output_config", {"format": {"type": "json_schema", "schema": schema.definition}}),
        "gemini": ("generationConfig", {"responseMimeType": "application/json", "responseJsonSchema": schema.definition}),
    }
    strict = {"name": "verdict", "schema": schema.definition, "strict": True}
    name, fields = told.get(provider, ("response_format", {"type": "json_schema", "json_schema": strict}))
    assert asks.body(row)[name].items() >= fields.items()
    assert "schema" not in json.dumps(asks.body(question(0))).lower()


def test_what_a_thinking_model_may_think_is_bounded_too() -> None:
    asks = AnthropicBatches("claude-opus-5-5", api_key_env=KEY_ENV)
    rows = asks.rows(question(0, n=2))
    assert [row.sampling.max_tokens for row in rows] == [asks.body(row)["max_tokens"] for row in rows] == [20 + THINKING_TOKENS] * 2


@each
def test_a_denial_stops_every_call(provider: str, tmp_path: Path) -> None:
    with serve_batches() as server:
        (denied,) = asked(server, provider, tmp_path, [question("DENIED")])
        assert isinstance(denied, AccessError) and "no such model" in str(denied)


@each
def test_of_an_expired_batch_only_the_rows_without_results_go_again(provider: str, tmp_path: Path) -> None:
    with serve_batches(expire=4) as server:
        answers = asked(server, provider, tmp_path, [question(i) for i in range(10)])
        assert [text(a) for a in answers] == [expected(provider, i) for i in range(10)]
        lost = provider == "gemini"  # gives no results of an expired batch
        assert [len(job.rows) for job in server.jobs[provider]] == [10, 10 if lost else 6]
        assert server.paid_twice == (4 if lost else 0)


@each
@pytest.mark.parametrize(
    "faults",
    [
        {"upload": ["500", "reset", "429"]},
        {"create": ["429", "429"]},
        {"create": ["500"]},
        {"create": ["lost"]},
        {"create": ["lost-reset"]},
        {"create": ["reset"]},
        {"create": ["garbage"]},
        {"poll": ["500", "503", "reset", "garbage", "429"]},
        {"results": ["500", "reset", "lost"]},
        {"create": ["lost"], "list": ["500", "garbage"]},
    ],
    ids=lambda faults: "-".join(f"{op}:{'+'.join(kinds)}" for op, kinds in faults.items()),
)
def test_a_provider_that_stumbles_is_paid_once(provider: str, faults: dict[str, list[str]], tmp_path: Path) -> None:
    with serve_batches(faults=faults) as server:
        answers = asked(server, provider, tmp_path, [question(i) for i in range(5)])
        assert [text(a) for a in answers] == [expected(provider, i) for i in range(5)]
        assert server.paid_twice == 0 and server.created == 1


@each
def test_a_batch_that_shows_late_is_still_found(provider: str, tmp_path: Path) -> None:
    with serve_batches(faults={"create": ["lost"]}, hidden=3) as server:
        answers = asked(server, provider, tmp_path, [question(i) for i in range(5)])
        assert [text(a) for a in answers] == [expected(provider, i) for i in range(5)]
        assert server.created == 1


@each
def test_a_lost_batch_is_found_among_others(provider: str, tmp_path: Path) -> None:
    with serve_batches(faults={"create": ["", "", "", "", "lost"]}) as server:
        for sitting in range(5):  # several pages of them, all of the same size
            (tmp_path / str(sitting)).mkdir()
            answers = asked(server, provider, tmp_path / str(sitting), [question(f"{sitting} {i}") for i in range(3)])
            assert [text(a) for a in answers] == [expected(provider, f"{sitting} {i}") for i in range(3)]
        assert server.created == 5 and server.paid_twice == 0


@each
def test_a_batch_that_is_not_valid_stops_the_run_with_the_reason(provider: str, tmp_path: Path) -> None:
    with serve_batches(invalid="line 1 is no JSON") as server:
        answers = asked(server, provider, tmp_path, [question(0)])
        assert isinstance(answers[0], AccessError) and "line 1 is no JSON" in str(answers[0])
        server.invalid = ""
        assert text(asked(server, provider, tmp_path, [question(0)])[0]) == expected(provider, 0)


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    with serve_batches(queue_full=2) as server:
        answers = asked(server, "openai", tmp_path, [question(i) for i in range(3)])
        assert [text(a) for a in answers] == [expected("openai", i) for i in range(3)]
        assert server.created == 3 and server.paid_twice == 0


@each
def test_a_wrong_key_says_so_and_is_not_shown(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, "not-the-key")
    with serve_batches() as server:
        (denied,) = asked(server, provider, tmp_path, [question(0)])
        assert isinstance(denied, AccessError) and KEY_ENV in str(denied) and "not-the-key" not in str(denied)
        assert "not-the-key" not in (tmp_path / "batches.sqlite").read_bytes().decode("latin-1")


@each
def test_a_row_that_never_works_out_ends_in_an_error(provider: str, tmp_path: Path) -> None:
    with serve_batches() as server:
        (failed,) = asked(server, provider, tmp_path, [question("BROKEN")])
        assert isinstance(failed, ModelError) and "something broke" in str(failed)
        assert server.created == 4


@each
def test_a_sitting_that_ends_in_between_is_taken_up(provider: str, tmp_path: Path) -> None:
    async def first(server: BatchServer) -> None:
        batched = model(provider, server.url(provider), tmp_path)
        calls = [asyncio.create_task(batched.generate(question(i))) for i in range(6)]
        await until(lambda: server.asked["poll"] > 0)
        await batched.close()
        assert not [call for call in await asyncio.gather(*calls, return_exceptions=True) if not isinstance(call, asyncio.CancelledError)]

    with serve_batches(polls=NEVER) as server:
        run(first(server))
        server.hurry()
        answers = asked(server, provider, tmp_path, [question(i) for i in range(8)])
        assert [text(a) for a in answers] == [expected(provider, i) for i in range(8)]
        assert sorted(len(job.rows) for job in server.jobs[provider]) == [2, 6] and server.paid_twice == 0


@each
def test_batches_can_be_cancelled_and_their_rows_go_again(provider: str, tmp_path: Path) -> None:
    async def first(server: BatchServer) -> None:
        batched = model(provider, server.url(provider), tmp_path)
        call = asyncio.create_task(batched.generate(question(0)))
        await until(lambda: server.asked["poll"] > 0)
        await batched.close()
        await asyncio.wait([call])

    async def cancel(server: BatchServer) -> int:
        batched = model(provider, server.url(provider), tmp_path)
        cancelled = await batched.cancel()
        await batched.close()
        return cancelled

    with serve_batches(polls=NEVER) as server:
        run(first(server))
        assert run(cancel(server)) == 1
        server.hurry()
        assert text(asked(server, provider, tmp_path, [question(0)])[0]) == expected(provider, 0)
        assert server.created == 2 and server.paid.total() == 1


def test_a_batch_that_nobody_asks_for_is_fetched_all_the_same_and_kept(tmp_path: Path) -> None:
    async def later(server: BatchServer) -> None:
        batched = model("openai", server.url("openai"), tmp_path)
        await batched.generate(question("other"))
        await until(lambda: batched.state.batches == 0)
        await batched.close()

    async def first(server: BatchServer) -> None:
        batched = model("openai", server.url("openai"), tmp_path)
        call = asyncio.create_task(batched.generate(question(0)))
        await until(lambda: server.asked["poll"] > 0)
        await batched.close()
        await asyncio.wait([call])

    with serve_batches(polls=NEVER) as server:
        run(first(server))
        server.hurry()
        run(later(server))
        created = server.created
        assert text(asked(server, "openai", tmp_path, [question(0)])[0]) == expected("openai", 0)
        assert server.created == created == 2 and server.paid_twice == 0


def test_equal_requests_are_one_row(tmp_path: Path) -> None:
    with serve_batches() as server:
        answers = asked(server, "openai", tmp_path, [question(0)] * 4)
        assert [text(a) for a in answers] == [expected("openai", 0)] * 4 and server.paid.total() == 1


def test_a_call_that_nobody_waits_for_any_more_is_not_sent(tmp_path: Path) -> None:
    async def work(server: BatchServer) -> None:
        budget = Budget(max_cost=10.0)
        batched = model("openai", server.url("openai"), tmp_path, price=PRICE, spend=budget)
        gone = asyncio.create_task(batched.generate(question("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        await batched.generate(question("stays"))
        assert [len(job.rows) for job in server.jobs["openai"]] == [1] and budget.in_flight == 0
        await batched.close()

    with serve_batches() as server:
        run(work(server))


def test_raw_prompts_go_to_completions_in_a_batch_of_their_own_where_there_are_any(tmp_path: Path) -> None:
    raw = Generation("Once upon a time", Sampling(max_tokens=8, n=1), seed=1)
    with serve_batches() as server:
        answers = asked(server, "openai", tmp_path, [raw, question(0)])
        assert [text(a) for a in answers] == [answer_to("Once upon a time", 1), expected("openai", 0)]
        assert server.created == 2
        (answer,) = asked(server, "anthropic", tmp_path, [raw])
        assert text(answer) == answer_to("Once upon a time"), "as what a user says"
        for provider in ("gemini", "mistral"):
            (refused,) = asked(server, provider, tmp_path, [raw])
            assert isinstance(refused, AccessError) and "induce.form" in str(refused)


def test_scoring_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with serve_batches() as server, pytest.raises(AccessError, match="cannot score in batches"):
        run(model("openai", server.url("openai"), tmp_path).score(Scoring("a", "b")))


def test_the_state_tells_what_is_under_way(tmp_path: Path) -> None:
    async def work(server: BatchServer) -> None:
        batched = model("openai", server.url("openai"), tmp_path)
        calls = asyncio.gather(*(batched.generate(question(i)) for i in range(5)))
        await until(lambda: batched.state.gathered == 5)
        await until(lambda: batched.state.next_poll_s is not None)
        assert (batched.state.batches, batched.state.rows, batched.state.gathered) == (1, 5, 0)
        server.hurry()
        await calls
        assert batched.state.batches == 0
        await batched.close()

    with serve_batches(polls=NEVER) as server:
        run(work(server))


@each
def test_what_a_provider_is_told(provider: str, tmp_path: Path) -> None:
    chat = (Turn("system", "Be brief."), Turn("user", "Hello"), Turn("assistant", "Hi"), Turn("user", "question"))
    with serve_batches() as server:
        asked(server, provider, tmp_path, [Generation(chat, Sampling(max_tokens=9, temperature=0.25, top_k=7), seed=5)])
        (body,) = server.bodies
    if provider == "gemini":
        assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
        assert [c["role"] for c in body["contents"]] == ["user", "model", "user"]
        assert body["generationConfig"] == {"maxOutputTokens": 9, "temperature": 0.25, "topK": 7, "seed": 5}
        return
    assert body["max_tokens"] == 9
    if provider == "anthropic":
        assert body["system"] == "Be brief." and [m["role"] for m in body["messages"]] == ["user", "assistant", "user"]
    else:
        assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"] and body["temperature"] == 0.25


@pytest.mark.parametrize(
    ("name", "sampled"),
    [
        ("claude-3-5-haiku-20241022", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-haiku-4-5", True),
        ("claude-sonnet-4-6", True),
        ("claude-opus-4-7", False),
        ("claude-opus-5", False),
        ("claude-sonnet-5-5", False),
    ],
)
def test_newer_claude_models_are_not_sent_what_they_refuse(name: str, sampled: bool) -> None:
    body = AnthropicBatches(name, api_key_env=KEY_ENV).body(question(0))
    assert ("temperature" in body) is sampled


@each
def test_a_budget_counts_a_batch_while_it_is_under_way_and_then_what_it_took(provider: str, tmp_path: Path) -> None:
    async def work(server: BatchServer) -> None:
        budget = Budget(max_cost=10.0)
        batched = model(provider, server.url(provider), tmp_path, price=PRICE, spend=budget)
        calls = asyncio.gather(*(batched.generate(question(i)) for i in range(4)))
        await until(lambda: server.created > 0)
        assert budget.reserved.tokens > 4 * 15 and budget.in_flight == 4
        server.hurry()
        answers = await calls
        assert budget.spent.tokens == 60 and budget.reserved.tokens == 0
        assert budget.spent.cost == pytest.approx(sum(a.usage.cost for a in answers))
        await batched.close()

    with serve_batches(polls=NEVER) as server:
        run(work(server))


def test_what_does_not_fit_into_the_budget_waits_for_what_comes_back_and_then_stops(tmp_path: Path) -> None:
    async def work(server: BatchServer) -> tuple[list[Any], Budget]:
        budget = Budget(max_tokens=1000)
        batched = model("openai", server.url("openai"), tmp_path, price=PRICE, spend=budget)
        return await ask(batched, [question(i) for i in range(80)]), budget

    with serve_batches() as server:
        answers, budget = run(work(server))
        done = [a for a in answers if isinstance(a, Generated)]
        assert 3 < len(done) < 80 and all(isinstance(a, BudgetError) for a in answers if not isinstance(a, Generated))
        assert budget.spent.tokens == 15 * len(done) == 15 * server.paid.total() <= 1000
        assert server.created > 1


def test_rows_without_a_result_count_with_their_bound(tmp_path: Path) -> None:
    async def work(server: BatchServer) -> Budget:
        budget = Budget(max_cost=10.0)
        await ask(model("openai", server.url("openai"), tmp_path, price=PRICE, spend=budget), [question("VANISH"), question("FLAKY")])
        return budget

    with serve_batches() as server:
        budget = run(work(server))
        assert budget.spent.tokens > 30 + 200  # two answers, and the bound of the row that vanished; a row that failed is not charged
        assert budget.spent.tokens < 30 + 400
