"""Flow control, in simulated time: what is let out when, what is tried again, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Bucket, Fixed, Loop, Server, Sliding, drive, now, run, stop

from safer_instruct.errors import AccessError, ConfigError, ModelError, RequestError
from safer_instruct.models.calls import backoff_s
from safer_instruct.models.flow import AttemptError, Flow, Limits, Slot, State, can_pass

NAME = "openai:gpt-x at https://api.example.com/v1"
FAST = settings(max_examples=60)


def flow(*, on_stall: Callable[[], None] | None = None, **limits: Any) -> Flow:
    return Flow(NAME, Limits(**limits), on_stall=on_stall, rng=random.Random(3))


async def call(flow: Flow, *outcomes: Any, tokens: int = 0, seconds: float = 1.0) -> list[float]:
    """One request through `flow.call`; each attempt takes `seconds` and then fails as the next of `outcomes`, or succeeds."""
    script, started = iter(outcomes), []

    async def send(slot: Slot) -> None:
        started.append(now())
        await asyncio.sleep(seconds)
        if failure := next(script, None):
            raise failure

    await flow.call(send, tokens=tokens)
    return started


def busy(status: int = 429, **headers: str) -> AttemptError:
    return AttemptError(f"HTTP {status}: slow down", status, {name.replace("_", "-"): value for name, value in headers.items()})


def fault(status: int | None = 500) -> AttemptError:
    return AttemptError("it broke", status)


async def once(flow: Flow, outcome: AttemptError | None = None, *, tokens: int = 0, headers: dict[str, str] | None = None) -> float:
    """One attempt that is over at once; when it was let out."""
    async with flow.slot(tokens) as slot:
        if outcome:
            slot.failed(outcome.reason, outcome.status, outcome.headers)
        else:
            slot.succeeded(headers or {})
        return slot.started


class TestSlots:
    @pytest.mark.parametrize(("most", "first"), [(1, 1), (4, 4), (8, 8), (32, 8), (256, 32), (1000, 125)])
    def test_a_few_at_first(self, most: int, first: int) -> None:
        async def main() -> State:
            tasks = [asyncio.create_task(call(limited)) for _ in range(200)]
            await asyncio.sleep(0)
            seen = limited.state
            await stop(tasks)
            return seen

        limited = flow(concurrency=most)
        state = run(main())
        assert (state.in_flight, state.concurrency, state.waiting) == (first, first, 200 - first)

    @pytest.mark.parametrize("most", [1, 7, 100])
    def test_never_more_than_allowed(self, most: int) -> None:
        server = Server(concurrency=most)
        run(drive(flow(concurrency=most), server, 60, workers=300))
        assert len(server.answered) > 20 * most and not server.rejected

    def test_first_come_first_served(self) -> None:
        order = []

        async def one(i: int) -> None:
            await asyncio.sleep(i / 100)
            await call(limited, tokens=5000 if i % 7 == 0 else 10)
            order.append(i)

        async def main() -> None:
            await asyncio.gather(*(one(i) for i in range(50)))

        limited = flow(concurrency=2, tokens_per_min=60_000)
        run(main())
        assert order == list(range(50))

    @FAST
    @given(st.lists(st.tuples(st.sampled_from(["enter", "cancel", "finish", "fail", "pass"]), st.integers(0, 30)), max_size=80), st.integers(1, 3))
    def test_nothing_leaks_whoever_is_cancelled_whenever(self, steps: list[tuple[str, int]], most: int) -> None:
        async def one(gate: asyncio.Event) -> None:
            async with limited.slot(100) as slot:
                await gate.wait()
                slot.succeeded()

        async def main() -> None:
            tasks: list[tuple[asyncio.Task[None], asyncio.Event]] = []
            for what, which in steps:
                if what == "enter":
                    gate = asyncio.Event()
                    tasks.append((asyncio.create_task(one(gate)), gate))
                elif what == "pass":
                    await asyncio.sleep(which % 3)
                elif tasks:
                    task, gate = tasks[which % len(tasks)]
                    task.cancel() if what == "cancel" else gate.set()
            for _, gate in tasks:
                gate.set()
            await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
            assert (limited.state.in_flight, limited.state.waiting) == (0, 0)
            await asyncio.sleep(60)
            began = now()
            assert await asyncio.gather(*(call(limited) for _ in range(most))) == [[began]] * most  # every place is there again

        limited = flow(concurrency=most, tokens_per_min=60_000 * most)
        run(main())

    def test_a_waiter_that_was_let_through_and_cancelled_in_the_same_breath_takes_nothing(self) -> None:
        async def main() -> None:
            async with limited.slot() as slot:
                second = asyncio.create_task(call(limited, tokens=6000))
                third = asyncio.create_task(call(limited, tokens=6000))
                await asyncio.sleep(1)
                slot.succeeded()
            second.cancel()  # it has the slot, but has not run yet
            assert await third == [now() - 1] == [1001]
            assert second.cancelled()

        limited = flow(concurrency=1, tokens_per_min=6000)
        run(main())

    def test_a_cancelled_call_gives_its_rate_back_only_if_it_never_went_out(self) -> None:
        async def main(cancelled_after_s: float) -> float:
            limited = flow(concurrency=2, tokens_per_min=6000)
            await call(limited, tokens=1000)
            waiting = asyncio.create_task(call(limited, tokens=1000, seconds=100))
            await asyncio.sleep(cancelled_after_s)
            await stop([waiting])
            began = now()
            return (await call(limited, tokens=1000))[0] - began

        assert run(main(5)) == pytest.approx(4, abs=0.3)  # ten seconds after the first, which took one
        assert run(main(15)) > 4  # it had gone out at ten

    def test_a_run_that_was_killed_leaves_nothing_to_the_next(self) -> None:
        async def killed() -> list[asyncio.Task[list[float]]]:
            hanging = [asyncio.create_task(call(limited, seconds=1e6)) for _ in range(5)]
            await asyncio.sleep(1)
            assert (limited.state.in_flight, limited.state.waiting) == (2, 3)
            return hanging

        limited = flow(concurrency=2)
        loop = Loop()
        tasks = loop.run_until_complete(killed())
        loop.close()
        assert len(run(call(limited))) == 1
        assert (limited.state.in_flight, limited.state.waiting) == (0, 0)
        for task in tasks:  # they are closed at last, when nobody cares
            task.get_coro().close()  # type: ignore[union-attr]
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        assert (limited.state.in_flight, limited.state.waiting) == (0, 0)
        assert len(run(call(limited))) == 1

    def test_limits_are_checked(self) -> None:
        for name in ("concurrency", "requests_per_min", "tokens_per_min", "timeout_s", "max_pause_s"):
            with pytest.raises(ConfigError, match=f"{name} must be a positive number, not 0"):
                Limits(**{name: 0})
        with pytest.raises(ConfigError, match="retries"):
            Limits(retries=-1)
        assert Limits(retries=0).retries == 0


class TestRates:
    @FAST
    @given(st.integers(1, 400), st.lists(st.floats(0, 40), max_size=30), st.integers(1, 30))
    def test_no_minute_holds_more_than_the_limit(self, limit: int, gaps: list[float], at_once: int) -> None:
        async def main() -> None:
            tasks = []
            for gap in gaps:
                tasks += [asyncio.create_task(call(limited, seconds=0.01)) for _ in range(at_once)]
                await asyncio.sleep(gap)
            sent.extend(sorted(t for times in await asyncio.gather(*tasks) for t in times))

        sent: list[float] = []
        limited = flow(concurrency=1000, requests_per_min=limit)
        run(main())
        assert len(sent) == len(gaps) * at_once
        for i, t in enumerate(sent[limit:]):
            assert t - sent[i] >= 59.9

    @pytest.mark.parametrize("limit", [3, 60, 600, 3000])
    def test_nearly_all_of_a_limit_is_used_and_nothing_rejected(self, limit: int) -> None:
        server = Server(Sliding(limit), latency_s=lambda n, rng: 0.3)
        run(drive(flow(concurrency=64, requests_per_min=limit), server, 150))
        assert not server.rejected
        assert len(server.answered) > 0.95 * 2.5 * limit - 1

    def test_tokens_are_reserved_by_estimate(self) -> None:
        async def main() -> list[float]:
            began = now()
            return [t - began for _ in range(4) for t in await call(limited, tokens=1000, seconds=0)]

        limited = flow(tokens_per_min=60_000)
        assert run(main()) == pytest.approx([0, 1, 2, 3], abs=0.1)

    @pytest.mark.parametrize(("used", "waited"), [(1000, 10), (100, 1), (3000, 30), (0, 0)])
    def test_and_corrected_by_use(self, used: int, waited: float) -> None:
        async def main() -> float:
            async with limited.slot(1000) as slot:
                slot.succeeded()
                slot.used(used)
            began = now()
            return (await call(limited, tokens=1000))[0] - began

        limited = flow(tokens_per_min=6000)
        assert run(main()) == pytest.approx(waited, abs=0.3, rel=0.03)

    def test_a_call_larger_than_a_minute_goes_out_and_is_paid_for(self) -> None:
        async def main() -> tuple[float, float]:
            began = now()
            return (await call(limited, tokens=18_000, seconds=0))[0] - began, (await call(limited, tokens=10))[0] - began

        limited = flow(tokens_per_min=6000)
        first, second = run(main())
        assert first == 0 and second == pytest.approx(180, rel=0.05)

    def test_waiting_for_a_rate_is_said(self) -> None:
        async def main() -> State:
            task = asyncio.create_task(call(limited, tokens=1000))
            await asyncio.sleep(1)
            seen = limited.state
            await task
            return seen

        limited = flow(tokens_per_min=6000)
        run(call(limited, tokens=1000, seconds=0))
        state = run(main())
        assert state.kind == "limited" and "next call in 9 s, to keep to its rate limit" in state.message
        assert limited.state == State("flowing", "", 0, 8, 0)


class TestConcurrency:
    @pytest.mark.parametrize("most", [32, 256, 4096])
    def test_it_doubles_with_each_round_trip_up_to_the_most(self, most: int) -> None:
        async def main() -> list[int]:
            tasks = [asyncio.create_task(call(limited, seconds=0.05)) for _ in range(16 * most)]
            sizes = []
            for trip in range(5):
                await asyncio.sleep(1000 + 0.05 * trip + 0.025 - now())
                sizes.append(limited.state.in_flight)
            await stop(tasks)
            return sizes

        limited = flow(concurrency=most)
        first = max(8, most // 8)
        assert run(main()) == [min(first * 2**trip, most) for trip in range(5)]

    def test_quick_answers_are_not_taken_for_a_queue(self) -> None:
        limited = flow(concurrency=256)  # one that answers 2,000 a second, however many ask
        run(drive(limited, Server(latency_s=lambda n, rng: n / 2000), 20))
        assert limited.state.concurrency == 256

    def test_it_rises_only_where_it_is_wanted(self) -> None:
        limited = flow(concurrency=256)
        run(drive(limited, Server(), 60, workers=5))
        assert limited.state.concurrency == 32

    @pytest.mark.parametrize("status", [429, 502, 503, 504, 529, 408, None])
    def test_a_round_trip_of_overloads_halves_it(self, status: int | None) -> None:
        async def main() -> None:
            await drive(limited, Server(), 30)
            assert limited.state.concurrency == 64
            slots = [limited.slot() for _ in range(128)]
            for slot in slots[:64]:
                await slot.__aenter__()
            for done, slot in zip(slots[:64], slots[64:], strict=True):
                await done.__aexit__(None, None, None)
                await slot.__aenter__()  # as one of 64
            for slot in slots[64:]:
                slot.failed("it is too much", status)
            for slot in slots[64:]:
                await slot.__aexit__(None, None, None)
            assert limited.state.concurrency == 1  # until there is an answer
            await once(limited)

        limited = flow(concurrency=64)
        run(main())
        assert 32 <= limited.state.concurrency <= 36

    @pytest.mark.parametrize("status", [200, 409, 500])
    def test_other_failures_say_nothing_of_it(self, status: int) -> None:
        async def main() -> None:
            await drive(limited, Server(), 30)
            for _ in range(40):
                await once(limited, fault(status))
                await once(limited)

        limited = flow(concurrency=64)
        run(main())
        assert limited.state.concurrency == 64

    def test_it_never_falls_below_one_and_rises_again(self) -> None:
        async def main() -> None:
            await drive(limited, Server(), 30)
            with pytest.raises(ModelError):
                await asyncio.gather(*(call(limited, *[fault(503)] * 1000, seconds=0.1) for _ in range(64)))
            assert limited.state.concurrency == 1
            await asyncio.sleep(200)
            await drive(limited, Server(), 60)

        limited = flow(concurrency=64)
        run(main())
        assert limited.state.concurrency > 32

    def test_it_stops_where_more_calls_only_make_a_longer_queue(self) -> None:
        limited = flow(concurrency=256)
        queue = asyncio.Semaphore(8)

        async def send(slot: Slot) -> None:
            async with queue:
                await asyncio.sleep(random.Random(slot.started).uniform(0.5, 1.5))

        async def main() -> None:
            tasks = [asyncio.create_task(limited.call(send)) for _ in range(2000)]
            await asyncio.sleep(120)
            await stop(tasks)

        run(main())
        assert limited.state.concurrency <= 64

    def test_it_goes_on_where_more_calls_bring_more_answers_though_each_is_slower(self) -> None:
        limited = flow(concurrency=256)
        run(drive(limited, Server(latency_s=lambda n, rng: rng.uniform(0.5, 1.5) * (1 + n / 128)), 60))
        assert limited.state.concurrency == 256

    @pytest.mark.parametrize("status", [429, 503])
    def test_it_finds_the_most_that_an_endpoint_takes(self, status: int) -> None:
        server = Server(concurrency=20, status=status)
        run(drive(flow(concurrency=100), server, 200))
        assert len(server.answered) > 0.85 * 20 * 200
        assert server.share_rejected < 0.1


class TestThroughput:
    """Endpoints whose limit nobody has said: at least nine tenths of it, with a tenth of the calls rejected at most."""

    @pytest.mark.parametrize("retry_after", [False, True])
    @pytest.mark.parametrize("limiter", [lambda: Sliding(600), lambda: Fixed(600), lambda: Bucket(10, 10), lambda: Bucket(10, 300)])
    def test_of_a_rate(self, limiter: Callable[[], Any], retry_after: bool) -> None:
        server = Server(limiter(), retry_after=retry_after)
        run(drive(flow(), server, 300))
        assert len(server.answered) >= 0.9 * 3000
        assert server.share_rejected <= 0.1

    def test_of_a_rate_that_allows_no_two_calls_at_once(self) -> None:
        server = Server(Bucket(10, 1), latency_s=lambda n, rng: rng.uniform(0.1, 0.5))
        run(drive(flow(), server, 300))
        assert len(server.answered) >= 0.8 * 3000
        assert server.share_rejected <= 0.1

    def test_of_a_rate_where_each_rejection_costs_half_a_minute(self) -> None:
        server = Server(Bucket(10, 10), headers=lambda t: {"Retry-After": "30"})
        run(drive(flow(), server, 900))
        assert len(server.answered) >= 0.45 * 9000

    def test_of_a_rate_with_a_thousand_calls_a_second(self) -> None:
        server = Server(Bucket(1000, 100), latency_s=lambda n, rng: 0.1)
        run(drive(flow(concurrency=256), server, 10))
        assert len(server.answered) >= 0.7 * 10_000
        assert server.share_rejected <= 0.1

    def test_of_one_call_a_second(self) -> None:
        server = Server(Sliding(60))
        run(drive(flow(), server, 900))
        assert len(server.answered) >= 0.9 * 900
        assert server.share_rejected <= 0.15

    def test_of_one_that_tells_what_is_left(self) -> None:
        def headers(t: float) -> dict[str, str]:
            bucket.fill(t)
            reset = f"{1000 * (600 - bucket.level) / 10:.0f}ms"
            return {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": f"{bucket.level:.0f}", "x-ratelimit-reset-requests": reset}

        bucket = Bucket(10, 600)
        server = Server(bucket, headers=headers)
        run(drive(flow(), server, 300))
        assert len(server.answered) >= 0.9 * 3600
        assert server.share_rejected < 0.02

    def test_a_stray_rejection_costs_nothing(self) -> None:
        async def main() -> float:
            began = now()
            await asyncio.gather(*(call(limited, *([busy()] if i % 60 == 59 else [])) for i in range(3000)))
            return now() - began

        limited = flow()
        assert run(main()) < 1.3 * 3000 / 32


@cache
def answered_in_300_s(failing: float, seed: int) -> int:
    server = Server(chance={429: failing}, latency_s=lambda n, rng: 0.1)
    run(drive(Flow(NAME, Limits(concurrency=64), rng=random.Random(seed)), server, 300))
    return len(server.answered)


class TestChance:
    """Failures that fewer calls would not avoid."""

    @pytest.mark.parametrize("chance", [{429: 0.1}, {503: 0.1}, {500: 0.2, 503: 0.05}])
    def test_they_leave_most_of_the_throughput(self, chance: dict[int | None, float]) -> None:
        server, undisturbed = Server(chance=chance, latency_s=lambda n, rng: 0.1), Server(latency_s=lambda n, rng: 0.1)
        for one in (server, undisturbed):
            run(drive(flow(concurrency=64), one, 60))
        assert len(server.answered) > 0.5 * len(undisturbed.answered)

    @pytest.mark.parametrize("seed", range(4))
    def test_they_may_be_many(self, seed: int) -> None:
        """Three in ten, with waits and pauses for the requests they meet; a rate that they lower would end at one call a second."""
        assert answered_in_300_s(0.3, seed) > 0.25 * answered_in_300_s(0.0, 0)

    def test_a_limit_behind_them_is_found_and_used(self) -> None:
        server = Server(Bucket(10, 10), chance={429: 0.1})
        run(drive(flow(), server, 300))
        assert len(server.answered) >= 0.9 * 3000
        assert server.share_rejected < 0.3

    def test_a_stray_retry_after_holds_up_one_request(self) -> None:
        async def main() -> None:
            for _ in range(20):
                await once(limited)
            began = now()
            told = asyncio.create_task(call(limited, busy(retry_after="30"), seconds=0))
            await asyncio.sleep(1)
            assert (await call(limited))[0] - began < 2
            assert (await told)[1] - began >= 30

        limited = flow()
        run(main())

    def test_every_request_is_answered_where_many_fail(self) -> None:
        async def main() -> None:
            async def send(slot: Slot) -> None:
                await asyncio.sleep(0.1)
                if dice.random() < 0.45:
                    raise fault()

            await asyncio.gather(*(limited.call(send) for _ in range(5000)))

        dice, limited = random.Random(1), flow()
        run(main())


class TestPauses:
    @pytest.mark.parametrize("headers", [{"Retry-After": "20"}, {"retry-after-ms": "20000"}, {"RETRY-AFTER": "20"}])
    @pytest.mark.parametrize("status", [429, 503, 500])
    def test_retry_after_holds_everybody_up(self, headers: dict[str, str], status: int) -> None:
        async def main() -> None:
            began = now()
            await once(limited, AttemptError("slow down", status, headers))
            others = await asyncio.gather(*(call(limited) for _ in range(5)))
            assert {20 <= t - began <= 21.1 for times in others for t in times} == {True}

        limited = flow()
        run(main())

    def test_a_date_is_read_by_the_endpoints_clock(self) -> None:
        async def main() -> None:
            began = now()
            await once(limited, busy(retry_after="Mon, 23 Nov 2026 12:00:42 GMT", date="Mon, 23 Nov 2026 12:00:00 GMT"))
            assert 42 <= (await call(limited))[0] - began <= 43.1

        limited = flow()
        run(main())

    def test_nonsense_is_not_waited_for(self) -> None:
        async def main() -> None:
            began = now()
            for text in ("", "-5", "nan", "inf", "1e12", "99999999", "tomorrow"):
                await once(limited, busy(retry_after=text))
                await once(limited)
            assert now() - began < 40

        limited = flow()
        run(main())

    def test_more_than_a_run_waits_is_said_at_once_when_it_is_said_twice(self) -> None:
        async def main() -> None:
            await once(limited, busy(retry_after="7200"))
            waiting = asyncio.create_task(call(limited, busy(retry_after="7200")))
            await asyncio.sleep(59)
            assert limited.state.kind == "paused" and not waiting.done()  # one answer may be a slip
            with pytest.raises(ModelError, match=r"asks for a pause of 2 h \d min \(HTTP 429: slow down\), and a run waits 15 min at most; nothing is lost"):
                await waiting
            with pytest.raises(ModelError, match="asks for a pause"):  # and later ones need not wait
                await call(limited)
            assert now() - began < 70
            await asyncio.sleep(7200)
            await call(limited)

        limited = flow()
        began = 1000.0
        run(main())

    def test_pauses_grow_while_nothing_is_accepted(self) -> None:
        async def main() -> list[float]:
            await drive(limited, Server(), 10)
            began, times = now(), []
            while now() < began + 50:
                times.append(await once(limited, busy()))
            return times

        limited = flow()
        times = run(main())
        assert 10 < len(times) < 60  # in 50 seconds: neither once nor all the time
        assert times[-1] - times[-10] > 5 > times[9] - times[0]

    def test_and_are_short_again_after_a_success(self) -> None:
        async def main() -> None:
            await drive(limited, Server(), 10)
            for _ in range(30):
                began, slots = now(), [limited.slot() for _ in range(limited.state.concurrency)]
                for slot in slots:
                    await slot.__aenter__()
                for slot in slots:
                    slot.failed("HTTP 503: overloaded", 503)
                    await slot.__aexit__(None, None, None)
                assert await once(limited) - began < 0.51

        limited = flow()
        run(main())

    def test_what_openai_tells_is_heeded(self) -> None:
        async def main() -> float:
            headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0s"}
            began = await once(limited, headers=headers)
            times = [t - began for times in await asyncio.gather(*(call(limited) for _ in range(5))) for t in times]
            assert times == pytest.approx([1, 2, 3, 4, 5], abs=0.1)  # 60 in a minute: one a second flows back
            return now()

        limited = flow()
        run(main())

    def test_what_anthropic_tells_of_tokens_is_heeded(self) -> None:
        async def main() -> None:
            headers = {
                "anthropic-ratelimit-tokens-limit": "10000",
                "anthropic-ratelimit-tokens-remaining": "1000",
                "anthropic-ratelimit-tokens-reset": "2026-11-23T12:00:54Z",
                "date": "Mon, 23 Nov 2026 12:00:00 GMT",
            }
            began = await once(limited, headers=headers)
            assert [t - began for t in await call(limited, tokens=1000)] == [0]
            assert [t - began for t in await call(limited, tokens=2000)] == pytest.approx([12], abs=0.2)

        limited = flow()
        run(main())

    def test_calls_under_way_are_deducted_from_what_is_left(self) -> None:
        async def main() -> None:
            headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "4", "x-ratelimit-reset-requests": "56s"}
            async with limited.slot() as first:
                others = [asyncio.create_task(call(limited, seconds=30)) for _ in range(10)]
                await asyncio.sleep(0)
                assert limited.state.in_flight == 8
                first.succeeded(headers)  # it was counted before the seven others came in
            await asyncio.sleep(1)
            assert limited.state.in_flight == 7  # there was leave for four
            await stop(others)

        limited = flow()
        run(main())

    def test_older_news_do_not_replace_newer_ones(self) -> None:
        async def main() -> None:
            left = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "500", "x-ratelimit-reset-requests": "10s"}
            none = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "600s"}
            async with limited.slot() as older:
                async with limited.slot() as newer:
                    newer.succeeded(none)
                older.succeeded(left)
            assert (await call(limited))[0] - began == pytest.approx(1, abs=0.1)

        limited = flow()
        began = 1000.0
        run(main())

    @pytest.mark.parametrize(("reset", "waited"), [("30s", 30), ("6h0m0s", 60), ("0s", 0), ("never", 0), ("-5s", 0)])
    def test_without_a_limit_it_is_the_reset_that_counts_but_a_minute_at_most(self, reset: str, waited: float) -> None:
        async def main() -> None:
            began = await once(limited, headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset})
            assert (await call(limited))[0] - began == pytest.approx(waited, abs=0.1)

        limited = flow()
        run(main())


class TestRetries:
    def test_what_can_pass_is_tried_again(self) -> None:
        assert len(run(call(flow(), fault(500), fault(None), fault(200), fault(409)))) == 5

    @pytest.mark.parametrize("retries", [0, 1, 4])
    def test_so_often_and_no_more(self, retries: int) -> None:
        script = itertools.count()

        async def send(slot: Slot) -> None:
            next(script)
            raise AttemptError("HTTP 500: it broke", 500)

        with pytest.raises(
            ModelError,
            match=f"^{NAME} gave no usable answer in {retries + 1} attempts; the last one: HTTP 500: it broke; nothing is lost: give the same command again",
        ) as caught:
            run(flow(retries=retries).call(send))
        assert next(script) == retries + 1
        assert isinstance(caught.value.__cause__, AttemptError) and not isinstance(caught.value, AttemptError)

    @pytest.mark.parametrize("kind", [RequestError, AccessError, ValueError])
    def test_what_cannot_pass_is_not(self, kind: type[Exception]) -> None:
        async def send(slot: Slot) -> None:
            nonlocal sent
            sent += 1
            raise kind("no such model")

        sent = 0
        limited = flow()
        with pytest.raises(kind, match="no such model"):
            run(limited.call(send))
        assert sent == 1 and limited.state.in_flight == 0

    @pytest.mark.parametrize(("passes", "statuses"), [(False, (200, 307, 400, 401, 403, 404, 413, 422)), (True, (408, 409, 425, 429, 500, 502, 503, 529))])
    def test_which_statuses_can_pass(self, passes: bool, statuses: tuple[int, ...]) -> None:
        for status in statuses:
            assert can_pass(status) is can_pass(status, {"X-Should-Retry": "true"}) is passes
            assert not can_pass(status, {"X-Should-Retry": "false"})

    def test_backoff_doubles_up_to_its_cap_with_full_jitter(self) -> None:
        rng = random.Random(1)
        for attempt, most in ((0, 0.5), (1, 1), (3, 4), (6, 30), (10**6, 30)):
            drawn = [backoff_s(attempt, rng) for _ in range(400)]
            assert 0 <= min(drawn) < 0.05 * most and 0.95 * most < max(drawn) <= most

    def test_being_told_to_wait_uses_up_no_retries(self) -> None:
        assert len(run(call(flow(retries=1), *[busy(429), busy(503), busy(529)] * 5))) == 16

    def test_nor_does_an_outage(self) -> None:
        async def main() -> int:
            await call(limited)
            return len(await call(limited, *[fault(None)] * 9))

        limited = flow(retries=2)
        assert run(main()) == 10

    def test_but_what_fails_while_others_are_answered_does(self) -> None:
        async def main() -> None:
            others = asyncio.create_task(drive(limited, Server(), 1e6, workers=3))
            await asyncio.sleep(5)
            with pytest.raises(ModelError, match="no usable answer in 4 attempts; the last one: it broke"):
                await call(limited, *[fault(500)] * 9)
            await stop([others])

        limited = flow(retries=3)
        run(main())

    def test_a_request_that_is_always_told_to_wait_ends_though_others_are_answered(self) -> None:
        async def main() -> None:
            others = asyncio.create_task(drive(limited, Server(latency_s=lambda n, rng: 20), 1e6, workers=2))
            began = now()
            with pytest.raises(ModelError, match=r"too busy for one request for .* min, the last time: HTTP 429: slow down; nothing is lost"):
                await call(limited, *[busy()] * 10_000)
            assert 300 < now() - began < 600
            await stop([others])

        limited = flow(max_pause_s=300)
        run(main())

    def test_a_wait_in_the_queue_is_not_held_against_it(self) -> None:
        async def main() -> None:
            others = asyncio.create_task(drive(limited, Server(latency_s=lambda n, rng: 30), 1e6, workers=4))
            await asyncio.sleep(1)
            began = now()
            assert len(await call(limited, busy(), busy())) == 3
            assert now() - began > 300
            await stop([others])

        limited = flow(concurrency=1, max_pause_s=100)
        run(main())

    @pytest.mark.parametrize("calls", [1, 3, 40])
    @pytest.mark.parametrize("max_pause_s", [3, 100, 900])
    def test_a_dead_endpoint_is_given_up_in_time_by_however_few_calls(self, calls: int, max_pause_s: float) -> None:
        async def main() -> list[BaseException | list[float]]:
            await call(limited)
            tasks = [asyncio.create_task(call(limited, *[fault(None)] * 10_000)) for _ in range(calls)]
            await asyncio.sleep(max_pause_s - 1)
            assert not any(task.done() for task in tasks)
            await asyncio.sleep(8)
            assert all(task.done() for task in tasks)
            return await asyncio.gather(*tasks, return_exceptions=True)

        limited = flow(max_pause_s=max_pause_s)
        assert all(isinstance(end, ModelError) and "has failed for" in str(end) for end in run(main()))

    def test_a_dead_endpoint_is_not_hammered(self) -> None:
        async def main() -> tuple[int, int]:
            await drive(limited, Server(), 20)
            calls.clear()
            tasks = [asyncio.create_task(limited.call(send)) for _ in range(256)]
            await asyncio.sleep(60)
            first_minute = len(calls)
            await asyncio.sleep(240)
            await stop(tasks)
            return first_minute, len(calls) - first_minute

        async def send(slot: Slot) -> None:
            calls.append(now())
            raise AttemptError("the connection failed")

        calls: list[float] = []
        limited = flow(concurrency=256)
        first_minute, later = run(main())
        assert first_minute < 400  # at most those that were in flight, and some tries
        assert later < 20

    def test_retries_beyond_the_budget_are_spread_out(self) -> None:
        async def main() -> float:
            others = asyncio.create_task(drive(limited, Server(), 1e6, workers=1))
            began, tasks = now(), []
            for i in range(200):
                tasks.append(asyncio.create_task(call(limited, *[fault(500)] * (4 * (i % 2)), seconds=0)))
                await asyncio.sleep(0.1)
            await asyncio.gather(*tasks)
            await stop([others])
            return now() - began

        limited = flow(concurrency=100)
        assert 60 < run(main()) < 400  # 400 retries: 200 for their successes, 50 to spare, two a second


class TestOutage:
    async def fail(self, limited: Flow, seconds: float) -> list[float]:
        """Nothing but failures for so long; when they were."""
        times, end = [], now() + seconds
        while now() < end:
            times.append(await once(limited, fault(503)))
            await asyncio.sleep(min(1.0, max(0.0, end - now())))
        return times

    def test_many_failures_within_a_minute_are_none(self) -> None:
        async def main() -> str:
            await self.fail(limited, 55)
            return limited.state.kind

        limited = flow()
        assert run(main()) == "paused"

    def test_a_few_over_a_long_time_are_none(self) -> None:
        async def main() -> str:
            for _ in range(8):
                await once(limited, fault(500))
                await asyncio.sleep(30)
            return limited.state.kind

        limited = flow()
        assert run(main()) == "flowing"

    def test_a_success_in_between_begins_the_count_anew(self) -> None:
        async def main() -> str:
            await self.fail(limited, 55)
            await once(limited)
            await self.fail(limited, 30)
            return limited.state.kind

        limited = flow()
        assert run(main()) == "paused"

    @pytest.mark.parametrize("how", ["succeeded", "refused"])
    def test_both_hold_everybody_up_and_let_one_try_at_a_time(self, how: str) -> None:
        async def attempt() -> None:
            async with limited.slot() as slot:
                tries.append(now())
                await asyncio.sleep(2)
                if alive:
                    getattr(slot, how)()
                else:
                    slot.failed("HTTP 503: overloaded", 503)

        async def main() -> None:
            nonlocal alive
            await once(limited)
            await self.fail(limited, 61)
            state = limited.state
            assert state.kind == "outage"
            assert re.fullmatch(rf"{NAME} has failed for 6\d s \(it broke\): next try in \d+ s", state.message)
            tasks = [asyncio.create_task(attempt()) for _ in range(100)]
            await asyncio.sleep(300)
            assert limited.state.in_flight <= 1
            gaps = [b - a for a, b in itertools.pairwise(tries)]
            assert all(gap >= 2 for gap in gaps), "one at a time"
            assert gaps[-1] > 44 > 30 > gaps[0], "with growing waits"
            alive = True
            await asyncio.sleep(90)
            assert (limited.state.kind, limited.state.message) == ("flowing", "")
            await asyncio.gather(*tasks)

        tries: list[float] = []
        alive = False
        limited = flow()
        run(main())

    def test_a_page_of_html_as_the_reason_does_not_fill_the_line(self) -> None:
        async def main() -> str:
            while limited.state.kind != "outage":
                await once(limited, AttemptError("<p>bad gateway</p>" * 1000, 502))
            return limited.state.message

        limited = flow()
        message = run(main())
        assert "<p>bad gateway</p><p>" in message
        assert message.count("...") == 1 and len(message) < 300

    def test_a_request_that_is_refused_shows_that_the_endpoint_lives(self) -> None:
        async def main() -> None:
            for _ in range(10):
                await once(limited, fault(500))
            assert limited.state.concurrency == 1
            with pytest.raises(RequestError):
                await call(limited, RequestError("too long"))
            assert limited.state.concurrency == 7

        limited = flow()
        run(main())

    def test_a_try_that_is_cancelled_makes_way_for_the_next(self) -> None:
        async def main() -> None:
            await once(limited)
            await self.fail(limited, 75)
            first = asyncio.create_task(call(limited, seconds=1e5))
            second = asyncio.create_task(call(limited))
            await asyncio.sleep(30)
            assert limited.state.message.endswith("a try is under way")
            cancelled_at = now()
            await stop([first])
            assert (await second)[0] < cancelled_at + 1

        limited = flow()
        run(main())

    def test_after_the_longest_pause_everybody_is_told_and_later_tries_are_possible(self) -> None:
        async def main() -> None:
            await once(limited)
            began = now()
            results = await asyncio.gather(*(call(limited, *[busy(503)] * 1000) for _ in range(50)), return_exceptions=True)
            assert now() - began == pytest.approx(900, abs=5)
            assert {type(r) for r in results} == {ModelError}
            expected = f"{NAME} has failed for 15 min, the last time: HTTP 503: slow down; nothing is lost: give the same command again"
            assert str(results[0]).startswith(expected)
            await asyncio.sleep(118)  # not forgotten
            one, *others = await asyncio.gather(*(call(limited) for _ in range(3)), return_exceptions=True)
            assert isinstance(one, list) and {type(o) for o in others} == {ModelError}  # one tries, the others need not wait for it
            assert len(await asyncio.gather(*(call(limited) for _ in range(3)))) == 3

        limited = flow()
        run(main())

    def test_what_nobody_has_met_for_long_is_forgotten(self) -> None:
        async def main() -> None:
            await once(limited)
            await self.fail(limited, 300)
            await asyncio.sleep(3600)
            began = now()
            assert len(await asyncio.gather(*(call(limited, seconds=0) for _ in range(5)))) == 5
            assert now() == began

        limited = flow()
        run(main())

    def test_an_endpoint_whose_answers_were_never_of_use_is_told_soon_and_not_as_one_that_is_down(self) -> None:
        async def main() -> float:
            results = await asyncio.gather(*(call(limited, *[fault(200)] * 1000) for _ in range(100)), return_exceptions=True)
            assert {type(r) for r in results} == {ModelError} and not any("check that it is up" in str(r) for r in results)
            assert any("has given no answer that can be used to any of " in str(r) and "the last one: it broke; check" in str(r) for r in results)
            return now() - 1000

        limited = flow()
        assert run(main()) < 40

    def test_an_endpoint_that_never_said_anything_is_told_within_two_minutes(self) -> None:
        async def main() -> float:
            results = await asyncio.gather(*(call(limited, *[fault(None)] * 1000) for _ in range(100)), return_exceptions=True)
            assert {type(r) for r in results} == {ModelError}
            assert any("has answered none of " in str(r) and "check that it is up and that its address is right; nothing is lost" in str(r) for r in results)
            return now() - 1000

        limited = flow()
        assert run(main()) < 120

    @pytest.mark.parametrize("calls", [1, 3, 100])
    @pytest.mark.parametrize("patience_s", [61, 300, 900])
    def test_the_first_answer_of_one_that_may_start_up_is_waited_for_as_long_as_asked(self, calls: int, patience_s: float) -> None:
        async def main() -> list[BaseException | list[float]]:
            tasks = [asyncio.create_task(call(limited, *[fault(None)] * 10_000)) for _ in range(calls)]
            await asyncio.sleep(patience_s - 1)
            assert not any(task.done() for task in tasks)
            await asyncio.sleep(10)
            assert all(task.done() for task in tasks)
            return await asyncio.gather(*tasks, return_exceptions=True)

        limited = flow(max_pause_s=patience_s, first_answer_s=patience_s)
        ends = run(main())
        assert all(isinstance(end, ModelError) for end in ends)
        assert calls < 100 or any("check that it is up" in str(end) for end in ends)

    @pytest.mark.parametrize("calls", [1, 100])
    def test_one_that_starts_up_in_time_answers_all(self, calls: int) -> None:
        async def send(slot: Slot) -> None:
            if now() < 1000 + 250:
                raise AttemptError("connection refused")
            slot.succeeded()

        async def main() -> float:
            await asyncio.gather(*(limited.call(send) for _ in range(calls)))
            return now() - 1000

        limited = flow(max_pause_s=300, first_answer_s=300)
        assert 250 <= run(main()) < 330

    def test_a_rate_learned_before_an_outage_does_not_hold_up_what_comes_after_it(self) -> None:
        async def main() -> int:
            server = Server(Sliding(60))
            await drive(limited, server, 300)
            await self.fail(limited, 90)
            await asyncio.sleep(60)
            free = Server()
            await drive(limited, free, 60)
            return len(free.answered)

        limited = flow()
        assert run(main()) > 300  # five times as many as it had learned


class TestStall:
    def test_it_is_said_and_the_connections_can_be_replaced(self) -> None:
        async def main() -> None:
            stuck = [asyncio.create_task(call(limited, seconds=1e9)) for _ in range(3)]
            await asyncio.sleep(19)
            assert (limited.state.kind, stalls) == ("flowing", [])
            await asyncio.sleep(32)
            assert stalls == [1020, 1040]
            state = limited.state
            assert (state.kind, state.message) == ("stalled", f"{NAME}: 3 calls in flight, none has ended for 51 s")
            await stop(stuck)
            await asyncio.sleep(1000)
            assert (limited.state.kind, len(stalls)) == ("flowing", 2)

        stalls: list[float] = []
        limited = flow(timeout_s=10, on_stall=lambda: stalls.append(now()))
        run(main())

    def test_a_call_that_ends_now_and_then_is_none(self) -> None:
        async def main() -> None:
            stuck = asyncio.create_task(call(limited, seconds=1e9))
            for _ in range(20):
                await call(limited, seconds=15)
            await stop([stuck])

        stalls: list[float] = []
        limited = flow(timeout_s=10, on_stall=lambda: stalls.append(now()))
        run(main())
        assert stalls == []

    def test_those_who_wait_behind_it_are_told_in_the_end(self) -> None:
        async def main() -> None:
            stuck = [asyncio.create_task(call(limited, seconds=1e9)) for _ in range(2)]
            await asyncio.sleep(1)
            with pytest.raises(ModelError, match=r"2 calls in flight, none has ended for (19|20) min; nothing is lost"):
                await call(limited)
            await stop(stuck)

        limited = flow(concurrency=2)
        run(main())


OUTCOMES = [
    *[None] * 3,
    *[busy(), busy(503), busy(retry_after="3"), busy(retry_after="0"), busy(retry_after="2000")],
    busy(x_ratelimit_limit_requests="10", x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="1h0m0s"),
    *[fault(None), fault(500), fault(200), RequestError("no"), AccessError("never"), asyncio.CancelledError()],
]


class TestNobodyWaitsForEver:
    @FAST
    @given(
        st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=60),
        st.booleans(),
        st.integers(1, 40),
        st.sampled_from([None, 5.0, 500.0]),
        st.integers(0, 2**32),
    )
    def test_whatever_the_outcomes(self, outcomes: list[Any], endless: bool, most: int, per_minute: float | None, seed: int) -> None:
        """Every request is answered, refused or given up, and nothing is left behind; a hang ends the simulation with `Hang`."""
        script = itertools.cycle(outcomes) if endless else iter(outcomes)
        rng = random.Random(seed)

        async def send(slot: Slot) -> str:
            await asyncio.sleep(rng.choice([0.0, 0.01, 1.0, 30.0, 120.0]))
            if outcome := next(script, None):
                raise outcome
            slot.succeeded({"x-ratelimit-remaining-tokens": str(rng.randrange(100)), "x-ratelimit-reset-tokens": f"{rng.randrange(90)}s"})
            slot.used(rng.randrange(2000))
            return "answer"

        async def main() -> None:
            tasks = [asyncio.create_task(limited.call(send, tokens=rng.randrange(2000))) for _ in range(40)]
            for task in rng.sample(tasks, 5):
                asyncio.get_running_loop().call_later(rng.uniform(0, 300), task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(r == "answer" or isinstance(r, ModelError | asyncio.CancelledError) for r in results)
            assert (limited.state.in_flight, limited.state.waiting) == (0, 0)
            assert now() < 1000 + 6 * 3600

        limited = Flow(NAME, Limits(concurrency=most, requests_per_min=per_minute, tokens_per_min=20_000), rng=rng)
        run(main())

    @pytest.mark.parametrize("failure", [busy(), busy(retry_after="20"), busy(503), fault(500), fault(None)])
    def test_ten_minutes_of_nothing_but_failures_are_survived(self, failure: AttemptError) -> None:
        async def main() -> tuple[int, float]:
            await asyncio.gather(*(limited.call(send) for _ in range(600)))
            return calls, now()

        async def send(slot: Slot) -> None:
            nonlocal calls
            if 1010 < now() < 1610:
                calls += 1
                await asyncio.sleep(0.05)
                raise failure
            await asyncio.sleep(1)

        calls = 0
        limited = flow()
        in_outage, end = run(main())
        assert in_outage < 120
        assert end < 1610 + 180
