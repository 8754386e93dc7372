"""The Ray runner without Ray: chunks, counts, the budget in pieces, claims, shares of limits, and what is refused."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.config import RunConfig, load_config
from safer_instruct.errors import BudgetError, ConfigError, MissingExtraError
from safer_instruct.example import Candidate, Draft, Example, Turn, Verdict
from safer_instruct.ledger.places import Place
from safer_instruct.models.protocol import Usage
from safer_instruct.runners.chunks import MULTIPLE, Chunk, decode, encode
from safer_instruct.runners.counts import Slate, add
from safer_instruct.runners.ray import Cluster, cluster_of, run_on_ray
from safer_instruct.runners.ray.allowance import Allowance
from safer_instruct.runners.ray.coordinator import Coordinator
from safer_instruct.runners.ray.link import as_error
from safer_instruct.runners.ray.plan import AHEAD, BEHIND, LAST, VARIED, Plan, check, chunk_size, parts, share_out
from safer_instruct.runners.ray.workers import COLUMN, Source
from safer_instruct.sources import BadRow
from safer_instruct.spent import Spent, read_spent
from safer_instruct.state import RunState, WriterState
from safer_instruct.variety import _WAVE

texts, reals = st.text(st.characters(exclude_categories=()), max_size=8), st.none() | st.floats(allow_nan=False)
A, B, C, K = (letter * 16 for letter in (b"a", b"b", b"c", b"k"))  # keys of calls
verdicts = st.lists(st.builds(Verdict, texts, st.booleans(), reals, texts, st.booleans()), max_size=3).map(tuple)
examples = st.builds(
    Example,
    *(texts, texts, texts, texts, st.integers()),
    candidates=st.lists(st.builds(Candidate, texts, reals, st.booleans(), verdicts), max_size=2).map(tuple),
    drafts=st.lists(st.builds(Draft, texts, st.integers(), reals, st.booleans(), reals, verdicts, texts, st.integers()), max_size=2).map(tuple),
    verdicts=verdicts,
    history=st.lists(st.builds(Turn, texts, texts), max_size=2).map(tuple),
    margin=reals,
)


@given(st.lists(examples, max_size=3), st.lists(st.builds(BadRow, texts, st.integers(), texts, texts), max_size=2))
def test_a_chunk_comes_out_as_it_went_in(given_: list[Example], bad: list[BadRow]) -> None:
    chunk = Chunk(3, given_, bad)
    assert decode(encode(chunk)) == chunk


def test_waves_of_responses_never_reach_from_one_chunk_into_the_next() -> None:
    assert MULTIPLE % _WAVE == 0
    for rows in (None, 1, 100, 5_000, 10**6):
        for workers in (1, 3, 64):
            assert chunk_size(rows, workers) % MULTIPLE == 0 < chunk_size(rows, workers)


def test_what_parts_counted_adds_up_to_what_one_would_have_counted() -> None:
    whole = RunState(writers={"expert": WriterState(role="expert", model="m")})
    slate = Slate(whole)
    meter = slate.state.writers["expert"].meter
    for chunk in range(3):
        slate.begin({"respond": (chunk, 2 * chunk)})
        slate.state.stages["respond"].answered += 1
        slate.state.stages["respond"].refused += 2
        slate.state.stages["respond"].done += 5
        slate.state.rows += 7
        slate.state.changed |= {"a.jsonl": False} if chunk == 1 else {}
        meter.add(Usage(10, 1, 0.5), replayed=chunk == 0, repeated=chunk == 0)
        add(slate.take(), whole)
    respond = whole.stages["respond"]
    assert (respond.answered, respond.refused, respond.done, whole.rows) == (3, 6, 15, 21)
    assert whole.changed == {"a.jsonl": False} and not slate.state.changed
    total = whole.writers["expert"].meter
    assert (total.calls, total.replayed, total.repeated, total.usage) == (3, 1, 1, Usage(30, 3, 1.5))
    assert slate.state.writers["expert"].meter is meter, "whoever counts in it goes on counting"


class Teller:
    """A worker's line to a coordinator in this process."""

    def __init__(self, coordinator: Coordinator, name: str) -> None:
        self.coordinator, self.name = coordinator, name

    async def grant(self, cost: float, tokens: int) -> tuple[int, Spent]:
        granted, room = await self.coordinator.grant(self.name, cost, tokens)
        if isinstance(granted, str):
            raise as_error(granted, str(room))
        assert isinstance(room, Spent)
        return granted, room

    async def tell(self, allowance: Allowance) -> None:
        await self.coordinator.tell(self.name, allowance.settled(), [], [], None)


async def workers(tmp_path: Path, count: int, **caps: Any) -> tuple[Coordinator, list[tuple[Teller, Allowance]]]:
    coordinator = Coordinator(caps.get("max_cost"), caps.get("max_tokens"), tmp_path / "spent.json", Spent())
    found = []
    for number in range(count):
        teller = Teller(coordinator, f"w{number}")
        coordinator._workers[teller.name] = _worker(f"a{number}")
        found.append((teller, Allowance(caps.get("max_cost"), caps.get("max_tokens"), teller)))
    return coordinator, found


def _worker(actor: str) -> Any:
    from safer_instruct.runners.ray.coordinator import _Worker

    return _Worker(actor, "node", 0.0, f"{actor}.calls")


@pytest.mark.parametrize("seed", range(5))
def test_the_cap_holds_over_all_workers_and_is_used_up_before_anybody_is_refused(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    bound, cap = 0.01, 1.0
    sent: list[float] = []

    async def work(allowance: Allowance) -> None:
        while True:
            with await allowance.reserve(bound, 100) as reservation:
                await asyncio.sleep(rng.random() / 1000)
                took = bound * rng.random()
                sent.append(took)
                reservation.settle(took, 50)

    async def look_after(found: list[tuple[Teller, Allowance]]) -> None:
        while True:
            await asyncio.sleep(0.002)
            for teller, allowance in found:
                if allowance.idle:
                    allowance.end_piece()
                await teller.tell(allowance)

    async def all_work() -> None:
        coordinator, found = await workers(tmp_path, 3, max_cost=cap)
        looking = asyncio.create_task(look_after(found))
        ends = await asyncio.gather(*(work(allowance) for _, allowance in found for _ in range(4)), return_exceptions=True)
        assert all(isinstance(end, BudgetError) and "raise budget.max_cost" in str(end) for end in ends)
        looking.cancel()
        for teller, allowance in found:
            allowance.end_piece()
            await teller.tell(allowance)
        await coordinator.close()
        figures = await coordinator.figures()
        assert figures["spent"].cost == pytest.approx(sum(sent), abs=1e-6) and figures["forfeited"] == Spent()

    asyncio.run(all_work())
    assert cap - 2 * bound < sum(sent) <= cap
    recorded = read_spent(tmp_path / "spent.json")
    assert recorded is not None and recorded.cost == pytest.approx(sum(sent), abs=1e-6)


def test_what_a_lost_worker_had_taken_counts_as_spent_and_its_claims_are_free(tmp_path: Path) -> None:
    async def work() -> None:
        coordinator, [(teller, lost), _] = await workers(tmp_path, 2, max_cost=10.0)
        (await lost.reserve(0.01, 100)).settle(0.005, 10)
        before = await coordinator.figures()
        assert before["spent"] == Spent() and before["reserved"].cost == pytest.approx(0.32)  # 32 calls' worth
        assert await coordinator.claim(teller.name, [K]) == [True] and await coordinator.claim("w1", [K]) == [False]
        waiting = asyncio.create_task(coordinator.wait(K))
        await asyncio.sleep(0)
        coordinator._bury(teller.name)
        assert await waiting is None and await coordinator.claim("w1", [K]) == [True]
        after = await coordinator.figures()
        assert after["spent"].cost == after["forfeited"].cost == pytest.approx(0.32)
        await coordinator.tell(teller.name, [], [], [], [])
        assert (await coordinator.figures())["spent"] == after["spent"], "one that was only slow is back, and counts on from there"
        coordinator._bury(teller.name)
        await coordinator.begin("w1", "ahead", 4)
        assert await coordinator.begin("w9", "ahead", 4) == ["a0.calls", "a1.calls"]

    asyncio.run(work())


def test_a_stop_reaches_every_worker_lets_nothing_more_in_and_waits_for_those_that_are_there(tmp_path: Path) -> None:
    async def work() -> None:
        coordinator, [(teller, busy), (_, lost), _] = await workers(tmp_path, 3, max_cost=10.0)
        first, second = await busy.reserve(0.01, 100), await busy.reserve(0.01, 100)
        heard = asyncio.create_task(coordinator.stopping())
        stop = asyncio.create_task(coordinator.stop())
        await heard
        assert (busy.halt(), lost.halt()) == (2, 0)
        late = asyncio.create_task(busy.reserve(0.01, 100))
        await coordinator.under_way("w0", 2)
        await coordinator.under_way("w1", 5)
        await asyncio.sleep(0.01)
        assert not stop.done(), "the third has not told"
        await coordinator.under_way("w2", 0)
        assert await stop == 7
        stopped, ended = asyncio.create_task(coordinator.stopped()), asyncio.create_task(busy.ended())
        coordinator._bury("w1")  # whose calls never end
        first.settle(0.005, 10)
        await asyncio.sleep(0.01)
        assert not ended.done() and not stopped.done()
        second.settle(0.005, 10)
        await ended
        await teller.tell(busy)
        assert (await coordinator.figures())["spent"].cost == pytest.approx(0.01)
        await coordinator.under_way("w0", 0)
        await stopped
        assert not late.done()
        late.cancel()
        over = asyncio.create_task(coordinator.over())
        await coordinator.close()
        await over

    asyncio.run(asyncio.wait_for(work(), 30))


def test_spending_is_recorded_before_it_can_happen(tmp_path: Path) -> None:
    async def work() -> None:
        _, [(_, allowance)] = await workers(tmp_path, 1)
        with await allowance.reserve(0.01, 100):
            recorded = read_spent(tmp_path / "spent.json")
            assert recorded is not None and recorded.cost >= 0.01 and recorded.tokens >= 100

    asyncio.run(work())


def test_two_who_want_the_same_call_pay_for_it_once(tmp_path: Path) -> None:
    async def work() -> None:
        coordinator, _ = await workers(tmp_path, 2)
        place = Place("a0.calls", 17)
        assert await coordinator.claim("w0", [A, B]) == [True, True]
        assert await coordinator.claim("w1", [A, C]) == [False, True]
        waiting = asyncio.create_task(coordinator.wait(A))
        await asyncio.sleep(0)
        await coordinator.tell("w0", [], [(A, place)], [], None)
        assert await waiting == place and await coordinator.claim("w1", [A]) == [place]

    asyncio.run(work())


def config(**changes: Any) -> RunConfig:
    models = {"inducer": {"model": "openai:i", "requests_per_min": 90.0}, "expert": "openai:e", "scorer": "openai:s"}
    return RunConfig.model_validate({"domain": "civility", "source": {"path": "t.jsonl"}, "models": models | changes.pop("models", {}), **changes})


def test_limits_of_an_endpoint_are_divided_among_all_who_call_it() -> None:
    shared = share_out(config(filter={"consistency": {}}), {AHEAD: 3, BEHIND: 3})
    models = shared.models
    assert models.inducer and models.expert
    assert (models.inducer.concurrency, models.inducer.requests_per_min) == (128 // 3, 30.0)
    assert (models.expert.concurrency, models.scorer.concurrency) == (128 // 3, 128 // 6)
    assert shared.base.is_absolute()
    same = share_out(config(models={"expert": {"model": "openai:i", "requests_per_min": 90.0}}), {AHEAD: 3, BEHIND: 3})
    assert same.models.inducer == same.models.expert and same.models.expert and same.models.expert.requests_per_min == 15.0


def test_more_workers_than_calls_that_an_endpoint_takes_are_refused() -> None:
    few = config(models={"expert": {"model": "openai:e", "concurrency": 2}})
    with pytest.raises(ConfigError, match=r"models\.expert: 3 workers would share the 2 calls.*fewer --workers"):
        share_out(few, {AHEAD: 3, BEHIND: 3})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"target": 10}, "target"),
        ({"twins": {}}, "twins"),
        ({"filter": {"keep": "best"}}, "filter.keep 'best'"),
        ({"models": {"expert": {"model": "openai:e", "batch": True}}}, "models.expert.batch"),
    ],
)
def test_what_only_the_local_runner_does_is_refused_and_never_ignored(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        check(config(**changes), Cluster())


def test_chunks_of_long_texts_are_small_and_hold_whole_waves(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    lines = [json.dumps({"text": f"{number} {number * 7} {number * 11} {'o' * length}"}) for length in (10, 9_000, 9_001) for number in range(64)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    models = dict.fromkeys(("inducer", "expert", "scorer"), "scripted:script.yaml")
    (tmp_path / "script.yaml").write_text(yaml.safe_dump({"generate": [{"answers": ["Yes."]}], "score": [{"logprob": -1.0}]}))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"domain": "civility", "source": {"path": "texts.jsonl"}, "models": models}))
    source = Source(Plan(load_config(tmp_path / "config.yaml"), tmp_path, "sitting", 256), None)
    chunks = [decode(table[COLUMN][0].as_py()) for table in source(None)]
    assert [len(chunk.examples) for chunk in chunks] == [96, 32, 32, 32, 0]
    assert [chunk.number for chunk in chunks] == [0, 1, 2, 3, 4]
    assert [example.line for chunk in chunks for example in chunk.examples] == list(range(1, 193))


def test_ray_client_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(ConfigError, match="--address auto"):
        check(config(), Cluster("ray://head:10001"))


def test_parts_follow_the_config() -> None:
    assert parts(config()) == (AHEAD, "distinct", BEHIND)
    assert parts(config(respond={"boilerplate": {}})) == (AHEAD, "distinct", BEHIND, VARIED)
    written = config(respond={"boilerplate": {}}, rejected={"form": "student"}, models={"student": "openai:r"})
    assert parts(written) == (AHEAD, "distinct", BEHIND, VARIED, LAST)


def test_options_are_read_and_those_for_the_other_runner_refused() -> None:
    assert cluster_of("local", None, None, 0, dry_run=True) is None
    assert cluster_of("ray", "auto", "2-8", 1, dry_run=False) == Cluster("auto", (2, 8), 1)
    assert cluster_of("ray", None, "3", 0, dry_run=False) == Cluster(None, (3, 3))
    for workers_ in ("0", "8-2", "many", "1-2-3", "-2"):
        with pytest.raises(ConfigError, match="--workers"):
            cluster_of("ray", None, workers_, 0, dry_run=False)
    with pytest.raises(ConfigError, match="--address, --workers: only with --runner ray"):
        cluster_of("local", "auto", "2", 0, dry_run=False)
    with pytest.raises(ConfigError, match="--dry-run"):
        cluster_of("ray", None, None, 0, dry_run=True)


def test_a_missing_ray_names_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'safer-instruct\[ray\]'"):
        run_on_ray(config(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_error_of_another_process_comes_back_as_what_it_was() -> None:
    assert type(as_error("BudgetError", "used up")) is BudgetError
    assert str(as_error("MissingExtraError", "needs x; run: pip install")) == "needs x; run: pip install"
