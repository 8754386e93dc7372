"""Where a stream must stop to be seen as a whole: examples wait on disk, only what is compared waits in memory."""

from __future__ import annotations

import asyncio
import pickle
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Generic, TypeVar

from safer_instruct.example import Example, Verdict

Row = TypeVar("Row")
Item = TypeVar("Item")


class Spool(Generic[Item]):
    """Records that wait on disk (`TMPDIR`), in the order in which they came; the file goes when it is closed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="safer-instruct-")  # noqa: SIM115 - closed by `close`
        self._end = 0

    def append(self, item: Item) -> None:
        """Put one behind the others."""
        self._file.seek(self._end)
        pickle.dump(item, self._file, pickle.HIGHEST_PROTOCOL)
        self._end = self._file.tell()

    def __iter__(self) -> Iterator[Item]:
        """All of them; several readers may be at different places."""
        at = 0
        while at < self._end:
            self._file.seek(at)
            item: Item = pickle.load(self._file)  # noqa: S301 - written above, and nobody else can open it
            at = self._file.tell()
            yield item

    def close(self) -> None:
        """Forget them."""
        self._file.close()


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
    with closing(Spool[Example]()) as spool:
        async with aclosing(examples):
            async for example in examples:
                spool.append(example)
                if example.alive:
                    rows.append(column(example))
        verdicts = iter(await asyncio.to_thread(judge, rows))
        for example in spool:
            yield example.with_verdicts(*next(verdicts)) if example.alive else example
