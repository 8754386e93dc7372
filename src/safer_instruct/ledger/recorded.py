"""A model whose calls go through the ledger: the key, the lookup, the call, the commit."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from safer_instruct.errors import RequestError
from safer_instruct.ledger.commits import Commits
from safer_instruct.ledger.content import KEY_BYTES, Call, decode_generated, decode_scored, encode_answer
from safer_instruct.models.protocol import Generated, Generation, Model, Scored, Scoring, Usage, encode_request

Answer = TypeVar("Answer", Generated, Scored)


@dataclass(slots=True)
class Meter:
    """What one stage has used so far: `fresh` in this process, and what calls of the ledger once took; of `unreported` calls nobody told it.

    Of the `replayed` calls, which the ledger answered, `repeated` ones are equal to one that this sitting itself had put there.
    """

    calls: int = 0
    replayed: int = 0
    fresh: Usage = field(default_factory=Usage)
    earlier: Usage = field(default_factory=Usage)
    unreported: int = 0
    repeated: int = 0

    @property
    def from_ledger(self) -> int:
        """How many calls the ledger had the answers of before this sitting."""
        return self.replayed - self.repeated

    @property
    def usage(self) -> Usage:
        """Of all calls, as if nothing had come from the ledger."""
        return self.earlier + self.fresh

    def cost(self, *, priced: bool) -> float | None:
        """US dollars that the calls cost, None where that is not known, be it the price or what they took."""
        return self.usage.cost if not self.calls or (priced and not self.unreported) else None

    def add(self, usage: Usage, *, replayed: bool, repeated: bool = False, unreported: bool = False) -> None:
        """Count one call; `unreported` where the endpoint told no usage, so that what it cost is not known."""
        self.calls += 1
        self.unreported += unreported
        self.repeated += repeated
        if replayed:
            self.replayed += 1
            self.earlier += usage
        else:
            self.fresh += usage


class Recorded:
    """A model whose every call goes through the ledger; itself a `Model`, so stages cannot tell.

    The key of a call is a digest of the model's fingerprint and the whole request; equal requests are one call.
    """

    def __init__(self, model: Model, ledger: Commits, stage: str, meter: Meter, *, read: Callable[[Generated], Generated] = lambda answer: answer) -> None:
        """Make no call yet.

        Args:
            model: Whom to ask.
            ledger: Where its answers are kept, as they came.
            stage: What they are for.
            meter: Counts them.
            read: What of a completion is returned, be it new or from the ledger, as `models.said` has it.
        """
        self._read = read
        self._model, self._ledger, self._stage, self._meter = model, ledger, stage, meter
        self._in_flight = ledger.in_flight
        self.name, self.fingerprint, self.concurrency, self.priced = model.name, model.fingerprint, model.concurrency, model.priced
        self._billed = bool(getattr(model, "billed", False))
        self._digest = hashlib.sha256(f"{self.fingerprint}\n".encode("utf-8", "surrogatepass"))

    @property
    def status(self) -> str:
        """See `Model.status`."""
        return self._model.status

    def generate(self, request: Generation) -> Coroutine[Any, Any, Generated]:
        """See `Model.generate`; the answer is on disk before it is returned."""
        return self._call("generate", request, self._model.generate, decode_generated)

    def score(self, request: Scoring) -> Coroutine[Any, Any, Scored]:
        """See `Model.score`; the answer is on disk before it is returned."""
        return self._call("score", request, self._model.score, decode_scored)

    async def close(self) -> None:
        """The wrapped model is closed by whoever opened it."""

    async def _call(self, kind: str, request: Any, send: Callable[[Any], Coroutine[Any, Any, Answer]], decode: Callable[[bytes, Usage], Answer]) -> Answer:
        asked = encode_request(kind, request)
        key = self._key(asked)
        while key in self._in_flight:  # the same request is on its way: wait for it, then read it
            await self._ledger.end_of(key)
        if stored := self._ledger.get(key):
            return self._counted(decode(stored.answer, stored.usage), replayed=True, repeated=not stored.earlier)
        self._in_flight[key] = None
        try:
            if stored := await self._ledger.claim(key, self._stage):
                self._ledger.release(key)
                return self._counted(decode(stored.answer, stored.usage), replayed=True, repeated=not stored.earlier)
            answer = await send(request)
            call = Call(key, self._stage, self.name, asked, encode_answer(answer), answer.usage, time.time())
        except BaseException as exc:
            self._ledger.release(key)
            if isinstance(exc, RequestError):
                exc.stage = self._stage
            raise
        await self._ledger.put(call)
        return self._counted(answer, replayed=False)

    def _counted(self, answer: Answer, *, replayed: bool, repeated: bool = False) -> Answer:
        """What the answer says, once it is counted."""
        told = answer.usage.prompt_tokens or answer.usage.completion_tokens
        self._meter.add(answer.usage, replayed=replayed, repeated=repeated, unreported=self._billed and not told and _came(answer))
        return self._read(answer) if isinstance(answer, Generated) else answer

    def _key(self, asked: bytes) -> bytes:
        digest = self._digest.copy()
        digest.update(asked)
        return digest.digest()[:KEY_BYTES]


def _came(answer: Generated | Scored) -> bool:
    """Whether there is an answer: what a content filter stopped cost nothing."""
    return bool(answer.logprobs) if isinstance(answer, Scored) else any(not completion.withheld for completion in answer.completions)
