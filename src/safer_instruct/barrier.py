"""Where a stream must stop to be seen as a whole: examples wait on disk, only what is compared waits in memory."""

from __future__ import annotations

import asyncio
import pickle
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from safer_instruct.example import Example, Verdict

Row = TypeVar("Row")


async def at_once(
    examples: AsyncGenerator[Example, None], column: Callable[[Example], Row], judge: Callable[[list[Row]], Sequence[Sequence[Verdict]]]
) -> AsyncGenerator[Example, None]:
    """Take in all examples, judge the living ones together, and yield all in their order with what was said of them.

    Args:
        examples: A stream; nothing is yielded before its end.
        column: What of an example is looked at; kept in memory for every living one.
        judge: Called once, in a thread, with the column; gives the verdicts on each row.
    """
    rows: list[Row] = []
    with tempfile.TemporaryFile(prefix="safer-instruct-") as spool:
        async with aclosing(examples):
            async for example in examples:
                pickle.dump(example, spool, pickle.HIGHEST_PROTOCOL)
                if example.alive:
                    rows.append(column(example))
        verdicts = iter(await asyncio.to_thread(judge, rows))
        end = spool.tell()
        spool.seek(0)
        while spool.tell() < end:
            example = pickle.load(spool)  # noqa: S301 - written above, and nobody else can open it
            yield example.with_verdicts(*next(verdicts)) if example.alive else example
