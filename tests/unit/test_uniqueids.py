"""What a long source gives ids by, and what a worker knows calls by: right, and in no memory that grows."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.ledger.places import Place, Places
from safer_instruct.uniqueids import UniqueIds

MANY = 20_000


@given(st.lists(st.sampled_from(["a", "a-1", "a-2", "a-2-2", "b", "", "\udc80"]), max_size=30))
def test_every_row_gets_an_id_of_its_own_and_the_first_the_one_that_it_asks_for(wanted: list[str]) -> None:
    with closing(UniqueIds()) as ids:
        got = [ids.of(one) for one in wanted]
    assert got == counted(wanted)
    assert len(set(got)) == len(got)
    assert all(got[wanted.index(one)] == one or one in got[: wanted.index(one)] for one in wanted)


def counted(wanted: list[str]) -> list[str]:
    """The same in memory."""
    seen: Counter[str] = Counter()
    got = []
    for one in wanted:
        unique = one
        while seen[unique]:
            seen[one] += 1
            unique = f"{one}-{seen[one]}"
        seen[unique] = 1
        got.append(unique)
    return got


def test_memory_does_not_grow_with_the_ids_that_were_given() -> None:
    with closing(UniqueIds()) as ids:
        assert grown(lambda number: ids.of(f"crawl/{number}")) < 200_000
        assert ids.of("crawl/7") == "crawl/7-2"


def test_memory_does_not_grow_with_the_calls_whose_place_is_known() -> None:
    with closing(Places()) as places:
        assert grown(lambda number: places.add([key(number)], Place("a.calls", number))) < 200_000
        places.add([key(3)], Place("b.calls", 5))
        assert (places.get(key(2)), places.get(key(3)), places.get(key(MANY))) == (Place("a.calls", 2), Place("b.calls", 5), None)


def key(number: int) -> bytes:
    return (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).to_bytes(16, "little")


def grown(step: Callable[[int], object]) -> int:
    """Bytes of Python's own that stay after `MANY` of them; a dict of them would be some megabytes."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(MANY):
            step(number)
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
