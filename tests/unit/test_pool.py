"""Several endpoints of one model, in simulated time: who gets the calls, and what becomes of them where an endpoint fails."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Server, now, run, stop

from safer_instruct.errors import AccessError, ConfigError, ModelError, RequestError
from safer_instruct.models.flow import AttemptError, Flow, Limits, Slot, can_pass
from safer_instruct.models.pool import Pool

FAST = settings(max_examples=60)


class Host(Server):
    """A server that can go `down` (its port refuses connections), be `hung` (it never answers) or `closed` (come back in ten minutes)."""

    def __init__(self, latency_s: float = 1.0, **options: Any) -> None:
        super().__init__(latency_s=lambda in_flight, rng: latency_s, **options)
        self.down = self.hung = self.closed = False
        self.stumbles = 0  # answers with HTTP 500
        self.asked: list[float] = []

    async def ask(self) -> tuple[int, dict[str, str]]:
        self.asked.append(now())
        if self.closed:
            return 503, {"Retry-After": "600"}
        if self.stumbles:
            self.stumbles -= 1
            return 500, {}
        if not (self.down or self.hung):
            answer = await super().ask()
        if self.hung:
            await asyncio.sleep(30)
            raise AttemptError("no answer within 30 s")
        if self.down:
            await asyncio.sleep(0.01)
            raise AttemptError("the connection failed")
        return answer


class Run:
    """Hosts behind a pool, and requests to them."""

    def __init__(self, *hosts: Host, on_stall: Callable[[], None] | None = None, **limits: Any) -> None:
        self.hosts, limits = hosts, {"timeout_s": 30, **limits}
        self.flows = [Flow(f"host {i}", Limits(**limits), on_stall=on_stall, rng=random.Random(i)) for i in range(len(hosts))]
        self.pool = Pool(self.flows)

    async def send(self, index: int, slot: Slot) -> int:
        status, headers = await self.hosts[index].ask()
        if can_pass(status):
            raise AttemptError(f"HTTP {status}", status, headers)
        slot.succeeded(headers)
        return index

    async def requests(self, count: int) -> float:
        """So many at once; the seconds until the last one is answered."""
        began = now()
        await asyncio.gather(*(self.pool.call(self.send) for _ in range(count)))
        return now() - began

    async def for_s(self, seconds: float, workers: int = 200) -> None:
        """As many as can be, for so long."""

        async def work() -> None:
            while True:
                await self.pool.call(self.send)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        await stop(tasks)
        for task in done:
            task.result()


def at(seconds: float, what: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, what)


class TestBalance:
    def test_one_that_is_three_times_as_quick_gets_three_times_as_many(self) -> None:
        pool = Run(Host(1), Host(3))
        seconds = run(pool.requests(4000))
        quick, slow = (len(host.answered) for host in pool.hosts)
        assert 2.7 < quick / slow < 3.3
        assert seconds < 1.1 * 4000 / (32 + 32 / 3)  # and both end together

    def test_also_where_there_is_room_for_all(self) -> None:
        pool = Run(Host(1), Host(3))
        run(pool.for_s(300, workers=8))
        quick, slow = (len(host.answered) for host in pool.hosts)
        assert 2.7 < quick / slow < 3.3

    def test_one_that_takes_fewer_at_once_gets_fewer(self) -> None:
        pool = Run(Host(1, concurrency=5, status=503), Host(1))
        run(pool.for_s(200))
        small, large = pool.hosts
        assert 0.8 * 5 * 200 < len(small.answered) < 6 * 200
        assert len(large.answered) > 0.9 * 32 * 200

    def test_a_rate_of_one_leaves_the_other_free(self) -> None:
        hosts = Host(), Host()
        flows = [Flow("a", Limits(requests_per_min=60)), Flow("b", Limits())]
        pool = Run(*hosts)
        pool.pool = Pool(flows)
        run(pool.for_s(60))
        assert 55 <= len(hosts[0].asked) <= 60
        assert len(hosts[1].answered) > 0.8 * 32 * 60

    def test_there_must_be_one(self) -> None:
        with pytest.raises(ConfigError, match="at least one endpoint"):
            Pool([])


class TestBreakdown:
    def test_where_one_dies_its_calls_are_answered_by_the_others_at_once(self) -> None:
        async def main() -> float:
            at(10.5, lambda: setattr(pool.hosts[0], "down", True))
            return await pool.requests(2000)

        pool = Run(Host(), Host(), Host())
        seconds = run(main())
        answered = [len(host.answered) for host in pool.hosts]
        assert sum(answered) in range(2000, 2033)  # those that were lost at its death were answered for nothing
        left = 2000 - 3 * 32 * 10
        assert seconds < 10 + 1.2 * left / 64 + 3
        assert len(pool.hosts[0].asked) < answered[0] + 60

    def test_hundreds_that_are_lost_at_once_are_tried_elsewhere_at_once(self) -> None:
        async def main() -> float:
            at(5.5, lambda: setattr(pool.hosts[0], "down", True))
            return await pool.requests(5000)

        pool = Run(Host(), Host(), concurrency=256)
        assert run(main()) < 5 + 1.2 * (5000 - 4 * 512) / 256 + 3

    def test_where_one_hangs_only_those_in_flight_wait_for_it(self) -> None:
        async def main() -> float:
            at(10.5, lambda: setattr(pool.hosts[0], "hung", True))
            return await pool.requests(4000)

        pool = Run(Host(), Host())
        seconds = run(main())
        assert seconds < 10 + 1.2 * (4000 - 640) / 32 + 3
        assert len(pool.hosts[0].asked) < len(pool.hosts[0].answered) + 50

    def test_a_few_calls_alone_are_not_risked_on_it(self) -> None:
        async def main() -> None:
            await pool.requests(200)
            pool.hosts[0].hung = True
            await pool.for_s(300)
            for _ in range(30):
                pool.hosts[1].stumbles = 2
                assert await pool.requests(5) < 3
                await asyncio.sleep(10)

        pool = Run(Host(), Host())
        run(main())

    @pytest.mark.parametrize("workers", [200, 20])
    @pytest.mark.parametrize("how", ["down", "hung"])
    def test_one_that_is_back_gets_its_part_again(self, how: str, workers: int) -> None:
        async def main() -> None:
            at(10, lambda: setattr(pool.hosts[0], how, True))
            at(200, lambda: setattr(pool.hosts[0], how, False))
            await pool.for_s(400, workers)

        pool = Run(Host(), Host())
        run(main())
        first, second = ([t for t in host.answered if t > 1300] for host in pool.hosts)
        assert len(first) == pytest.approx(len(second), rel=0.1)
        assert len(pool.hosts[0].asked) < len(pool.hosts[0].answered) + 150

    def test_nobody_waits_for_one_that_asks_for_a_long_pause(self) -> None:
        async def main() -> float:
            at(5.5, lambda: setattr(pool.hosts[1], "closed", True))
            return await pool.requests(2000)

        pool = Run(Host(), Host())
        assert run(main()) < 5 + 1.1 * 2000 / 32
        assert len(pool.hosts[1].asked) < len(pool.hosts[1].answered) + 40

    def test_an_attempt_that_failed_is_made_elsewhere(self) -> None:
        async def send(index: int, slot: Slot) -> int:
            tried.append(index)
            if len(tried) == 1:
                raise AttemptError("HTTP 500: it broke", 500)
            return index

        tried: list[int] = []
        assert run(Run(Host(), Host()).pool.call(send)) == 1
        assert tried == [0, 1]

    def test_a_request_that_fails_everywhere_ends(self) -> None:
        async def send(index: int, slot: Slot) -> None:
            tried.append(index)
            raise AttemptError("HTTP 500: it broke", 500)

        tried: list[int] = []
        with pytest.raises(
            ModelError,
            match=r"^host 0 and host 1 gave no usable answer in 7 attempts; the last one: HTTP 500: it broke; nothing is lost: give the same command again",
        ):
            run(Run(Host(), Host()).pool.call(send))
        assert tried == [0, 1, 0, 1, 0, 1, 0]

    @pytest.mark.parametrize("kind", [AccessError, RequestError])
    def test_what_cannot_pass_is_told_and_not_tried_elsewhere(self, kind: type[ModelError]) -> None:
        async def send(index: int, slot: Slot) -> None:
            nonlocal sent
            sent += 1
            raise kind("HTTP 401: no such key")

        sent = 0
        pool = Run(Host(), Host()).pool
        with pytest.raises(kind, match="no such key"):
            run(pool.call(send))
        assert (sent, pool.state.in_flight) == (1, 0)

    def test_after_it_no_request_of_its_kind_is_sent_there_and_others_are(self) -> None:
        async def send(index: int, slot: Slot) -> None:
            sent.append(index)
            raise AccessError("HTTP 401: no such key")

        async def several(*kinds: str | None) -> list[BaseException | None]:
            return await asyncio.gather(*(pool.call(send, asked=kind) for kind in kinds), return_exceptions=True)

        sent: list[int] = []
        pool = Run(Host()).pool
        run(several("chat"))
        ends = run(several("chat", "score", "chat", None, None))
        assert [str(end) for end in ends] == ["HTTP 401: no such key"] * 5
        assert len(sent) == 1 + 3 and pool.state.in_flight == 0, "one more for 'score', and those of no kind"

    def test_only_where_all_are_dead_does_it_end_and_each_is_named(self) -> None:
        async def main() -> None:
            await pool.requests(100)
            for host in pool.hosts:
                host.down = True
            began = now()
            results = await asyncio.gather(*(pool.pool.call(pool.send) for _ in range(300)), return_exceptions=True)
            assert 300 <= now() - began < 330
            failed = r"has failed for 5 min, the last time: the connection failed"
            assert isinstance(results[-1], ModelError)
            assert {type(result) for result in results} == {ModelError}
            with pytest.raises(ModelError, match=rf"^none of 2 endpoints answers: host 0 {failed}; host 1 {failed}; nothing is lost: give the same command"):
                raise results[-1]

        pool = Run(Host(), Host(), max_pause_s=300)
        run(main())

    def test_an_endpoint_that_was_never_there_does_not_end_it(self) -> None:
        pool = Run(Host(), Host())
        pool.hosts[1].down = True
        seconds = run(pool.requests(6000))
        assert seconds < 1.1 * 6000 / 32
        assert "host 1 has failed for 3 min (the connection failed): " in pool.pool.state.message

    def test_a_stalled_one_is_avoided_until_its_calls_end(self) -> None:
        async def send(index: int, slot: Slot) -> None:
            asked[index] += 1
            await asyncio.sleep(1e6 if index == 0 and hangs else 1)

        async def main() -> None:
            nonlocal hangs
            stuck = [asyncio.create_task(pool.call(send)) for _ in range(8)]
            await asyncio.sleep(100)
            assert (pool.state.kind, pool.state.message) == ("stalled", "host 0: 4 calls in flight, none has ended for 100 s")
            assert stalls == [1060]
            await asyncio.gather(*(pool.call(send) for _ in range(300)))
            assert asked == [4, 304]
            hangs = False
            await stop(stuck)
            await asyncio.gather(*(pool.call(send) for _ in range(300)))
            assert asked[0] > 100

        hangs, asked = True, [0, 0]
        stalls: list[float] = []
        pool = Run(Host(), Host(), on_stall=lambda: stalls.append(now())).pool
        run(main())


class TestState:
    def test_it_adds_up_and_the_worst_comes_first(self) -> None:
        async def main() -> None:
            working = asyncio.create_task(pool.for_s(100))
            await asyncio.sleep(0.5)
            state = pool.pool.state
            assert (state.kind, state.message, state.in_flight, state.concurrency, state.waiting) == ("flowing", "", 24, 24, 176)
            pool.hosts[1].down = True
            await asyncio.sleep(90)
            state = pool.pool.state
            assert state.kind == "outage"
            assert state.message.startswith("host 1 has failed for 89 s (the connection failed): next try in ")
            assert pool.flows[1].state.message == state.message
            assert state.concurrency == 65 and 64 <= state.in_flight <= 65
            await stop([working])

        pool = Run(Host(), Host(), Host())
        run(main())


OUTCOMES = [
    *[None] * 4,
    *[AttemptError(f"HTTP {status}", status) for status in (429, 500, 503)],
    AttemptError("HTTP 503", 503, {"retry-after": "2000"}),
    AttemptError("no answer within 30 s"),
    *[RequestError("no"), AccessError("never"), asyncio.CancelledError()],
]


class TestNothingIsLeftBehind:
    @FAST
    @given(st.lists(st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=30), min_size=2, max_size=3), st.integers(1, 12), st.integers(0, 2**32))
    def test_whatever_the_outcomes_and_whoever_is_cancelled(self, scripts: list[list[Any]], most: int, seed: int) -> None:
        """Every request is answered, refused, cancelled or given up; a hang ends the simulation with `Hang`."""
        rng, outcomes = random.Random(seed), [itertools.cycle(script) for script in scripts]

        async def send(index: int, slot: Slot) -> str:
            await asyncio.sleep(rng.choice([0.0, 0.01, 1.0, 30.0]))
            if outcome := next(outcomes[index]):
                raise outcome
            slot.used(rng.randrange(2000))
            return "answer"

        async def main() -> None:
            tasks = [asyncio.create_task(pool.call(send, tokens=rng.randrange(2000))) for _ in range(60)]
            for task in rng.sample(tasks, 20):
                asyncio.get_running_loop().call_later(rng.choice([0.0, 0.01, 1.0, 30.0, rng.uniform(0, 100)]), task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(result == "answer" or isinstance(result, ModelError | asyncio.CancelledError) for result in results)
            assert (pool.state.in_flight, pool.state.waiting) == (0, 0)
            assert now() < 1000 + 6 * 3600

        pool = Pool([Flow(f"host {i}", Limits(concurrency=most, tokens_per_min=60_000), rng=rng) for i in range(len(scripts))])
        run(main())


class TestOfOne:
    @FAST
    @given(st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=40), st.integers(1, 9))
    def test_it_is_a_flow(self, script: list[Any], most: int) -> None:
        def trace(call: Callable[[Callable[[Slot], Coroutine[Any, Any, None]]], Coroutine[Any, Any, None]]) -> list[float]:
            outcomes, times = itertools.cycle(script), []

            async def send(slot: Slot) -> None:
                times.append(now())
                await asyncio.sleep(1)
                if outcome := next(outcomes):
                    raise outcome

            async def main() -> None:
                results = await asyncio.gather(*(call(send) for _ in range(30)), return_exceptions=True)
                times.append(now())
                times.extend(isinstance(result, ModelError) for result in results)

            run(main())
            return times

        flows = [Flow("host", Limits(concurrency=most), rng=random.Random(1)) for _ in range(2)]
        pool = Pool(flows[1:])
        assert trace(flows[0].call) == trace(lambda send: pool.call(lambda index, slot: send(slot)))
        assert flows[0].state == pool.state
