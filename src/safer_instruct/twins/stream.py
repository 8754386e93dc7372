"""Twins behind a stream of examples: when all rows are done, in their order, each new to the whole set."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import replace
from typing import IO

from safer_instruct.example import Example, Verdict
from safer_instruct.filters.dedup import Deduplicator
from safer_instruct.twins.making import SUFFIX, seed_of, wants_twin

Examples = AsyncGenerator[Example, None]


class Twins:
    """Chooses the pairs that get a twin, and knows what the set holds. Both lie on disk: memory does not grow with the set."""

    def __init__(self, share: float, seed: int, near_duplicate: float | None) -> None:
        """Nothing is known yet.

        Args:
            share: Of the pairs that get one.
            seed: The run's.
            near_duplicate: Jaccard similarity from which a twin counts as the instruction of another pair; None for equal ones only.
        """
        self._share, self._seed, self._near = share, seed, near_duplicate
        self._known: Deduplicator | None = None
        self._taken: set[str] = set()  # ids of rows that look like a twin's
        self.wanted = 0

    def look_up(self, text: str, pair: str) -> Verdict:
        """Whether an instruction is new to the set: near to no other pair's than that of id `pair`, and equal to none."""
        assert self._known is not None, "asked before the stream has begun"  # noqa: S101
        return self._known.look_up(text, near_to=pair)

    async def following(self, examples: Examples, make: Callable[[Examples], Examples]) -> Examples:
        """The examples, then the twins of those that were chosen.

        Two twins that are near to one another are told only here, where their order is known: the first stays.

        Args:
            examples: All that enter the set; twins look like those among them that live at its end.
            make: From the beginnings of twins to finished ones, in order.
        """
        with closing(Deduplicator("twins", self._near)) as self._known, tempfile.TemporaryFile(prefix="safer-instruct-") as spool:
            async with aclosing(examples):
                async for example in examples:
                    self._note(example, spool)
                    yield example
            async with aclosing(make(self._begun(spool))) as twins:
                async for twin in twins:
                    yield twin.with_verdicts(self._known.check(twin.prompt, twin.id, near_to=twin.twin_of)) if twin.alive else twin

    def _note(self, example: Example, spool: IO[bytes]) -> None:
        assert self._known is not None  # noqa: S101 - opened by `following`
        if SUFFIX in example.id:
            self._taken.add(example.id)
        if not example.alive:
            return
        self._known.check(example.prompt, example.id)
        if wants_twin(example, self._share, self._seed):
            self.wanted += 1
            pickle.dump(seed_of(example), spool, pickle.HIGHEST_PROTOCOL)

    async def _begun(self, spool: IO[bytes]) -> Examples:
        for twin in _read(spool):
            while twin.id in self._taken:
                twin = replace(twin, id=f"{twin.id}{SUFFIX}")
            if twin.id.count(SUFFIX) > 1:
                self._taken.add(twin.id)
            yield twin


def _read(spool: IO[bytes]) -> Iterator[Example]:
    end = spool.tell()
    spool.seek(0)
    while spool.tell() < end:
        yield pickle.load(spool)  # noqa: S301 - written above, and nobody else can open it
