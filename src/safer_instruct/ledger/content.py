"""Answers as bytes, without their usage, and requests read back (`protocol.encode_request` writes them)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from pydantic_core import to_json

from safer_instruct.models.protocol import Completion, Generated, Scored, Usage

KEY_BYTES = 16  # of SHA-256: among 10 million calls two share a key with a chance of 1 in 10**25
_CACHED = struct.Struct("<cq")


@dataclass(frozen=True, slots=True)
class Call:
    """One finished model call.

    Attributes:
        key: Digest of the model's fingerprint and `request`.
        request: JSON `[kind, fields]`, sorted; it holds no line break.
        answer: See `encode_answer`.
        finished_at: Unix time.
        earlier: Whether it was there before the ledger was opened that gave it, or before the run on a cluster that made it.
    """

    key: bytes
    stage: str
    model: str
    request: bytes
    answer: bytes
    usage: Usage
    finished_at: float
    earlier: bool = field(default=True, compare=False)


def encode_answer(answer: Generated | Scored) -> bytes:
    """An answer without its usage.

    Completions are JSON lists of their fields, with the number of cached tokens behind them, if there are any;
    log-probabilities are floats, of four bytes each where that loses nothing, with that number before them.
    """
    if isinstance(answer, Scored):
        count = answer.usage.cached_tokens
        return (_CACHED.pack(b"c", count) if count else b"") + _pack_floats(answer.logprobs)
    cached = [answer.usage.cached_tokens] if answer.usage.cached_tokens else []
    parts = [*(_completion_fields(c) if c.alternatives else _plain_fields(c) for c in answer.completions), *cached]
    try:
        return to_json(parts, inf_nan_mode="constants")
    except ValueError:  # half a character
        return _json(parts).encode("utf-8", "surrogatepass")


def decode_generated(answer: bytes, usage: Usage) -> Generated:
    """The inverse of `encode_answer`."""
    parts = json.loads(_text(answer))
    if parts and isinstance(parts[-1], int):
        usage = replace(usage, cached_tokens=parts.pop())
    return Generated(tuple(_completion(*fields) for fields in parts), usage)


def decode_scored(answer: bytes, usage: Usage) -> Scored:
    """The inverse of `encode_answer`."""
    if answer[:1] == b"c":
        usage = replace(usage, cached_tokens=_CACHED.unpack_from(answer)[1])
        answer = answer[_CACHED.size :]
    kind = answer[:1].decode("ascii")
    return Scored(struct.unpack(f"<{(len(answer) - 1) // struct.calcsize(f'<{kind}')}{kind}", answer[1:]), usage)


def decode_request(request: bytes) -> tuple[str, dict[str, Any]]:
    """Kind and fields of a request."""
    kind, fields = json.loads(_text(request))
    return kind, fields


def check_answer(call: Call) -> None:
    """Decode both sides of a call, to see that it can be done.

    Raises:
        ValueError: It cannot; TypeError, KeyError or struct.error likewise.
    """
    decode_request(call.request)
    (decode_scored if is_scoring(call) else decode_generated)(call.answer, call.usage)


def is_scoring(call: Call) -> bool:
    """Whether the answer is log-probabilities of a given text, and not completions."""
    return call.request.startswith(b'["score"')


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


_json = json.JSONEncoder(ensure_ascii=False).encode
_completion_fields = attrgetter(*Completion.__dataclass_fields__)
_plain_fields = attrgetter(*[name for name in Completion.__dataclass_fields__ if name != "alternatives"])  # which stands last


def _completion(*fields: Any) -> Completion:
    count = len(Completion.__dataclass_fields__) - 1
    return Completion(*fields[:count], *(tuple((token, logprob) for token, logprob in told) for told in fields[count:]))


def _pack_floats(values: tuple[float, ...]) -> bytes:
    try:
        single = struct.pack(f"<{len(values)}f", *values)
        if struct.unpack(f"<{len(values)}f", single) == values:
            return b"f" + single
    except OverflowError:  # too large for four bytes
        pass
    return b"d" + struct.pack(f"<{len(values)}d", *values)
