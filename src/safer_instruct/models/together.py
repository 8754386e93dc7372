"""Calls that go out side by side: a server that has just read what they share need not read it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

Answer = TypeVar("Answer")


async def together(calls: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """The answers, in order.

    When one fails, the others are waited for before its error is raised: nothing is left running behind it, and what they
    cost is in the ledger.
    """
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]
