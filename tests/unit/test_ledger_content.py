"""Answers as bytes: every field comes back, old answers are read, and what is no answer is noticed before it is used."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

import pytest
from ledgers import a_call

from safer_instruct.ledger.content import KEY_BYTES, check_answer, decode_generated, decode_request, decode_scored, encode_answer, is_scoring
from safer_instruct.models.protocol import Completion, Generated, Generation, Sampling, Scored, Scoring, Usage, encode_request

USAGE = Usage(11, 5, 0.125, 0.5)


@pytest.mark.parametrize(
    "completions",
    [
        (),
        (Completion("plain", -0.25), Completion("cut", None, finished=False)),
        (Completion("with all", -0.5, tokens=3, alternatives=(("Yes", -0.1), ("No", -2.5))), Completion("without", -1.0)),
        (Completion("half a character \ud800", math.inf),),
    ],
)
@pytest.mark.parametrize("cached", [0, 7])
def test_completions_come_back_with_all_their_fields(completions: tuple[Completion, ...], cached: int) -> None:
    answer = Generated(completions, replace(USAGE, cached_tokens=cached))
    assert decode_generated(encode_answer(answer), USAGE) == answer


@pytest.mark.parametrize(("logprobs", "width"), [((-1.0, -2.5), 4), ((-0.1,), 8), ((-1e300,), 8), ((-math.inf, -1.0), 4), ((), 4)])
@pytest.mark.parametrize("cached", [0, 7])
def test_log_probabilities_come_back_to_the_last_bit_in_four_bytes_where_they_fit(logprobs: tuple[float, ...], width: int, cached: int) -> None:
    answer = Scored(logprobs, replace(USAGE, cached_tokens=cached))
    packed = encode_answer(answer)
    assert decode_scored(packed, USAGE) == answer
    assert len(packed) == 1 + width * len(logprobs) + (9 if cached else 0)


def test_a_plain_completion_takes_no_room_for_alternatives() -> None:
    assert encode_answer(Generated((Completion("a", -0.5),))) == b'[["a",-0.5,true,null,""]]'


def test_a_request_is_read_back_and_its_kind_known() -> None:
    assert decode_request(encode_request("score", Scoring("Ask.", "Answer.")))[0] == "score"
    kind, fields = decode_request(encode_request("generate", Generation("Ask.", Sampling(n=2), 3)))
    assert kind == "generate" and fields["prompt"] == "Ask."
    assert is_scoring(a_call(1)) and not is_scoring(a_call(4))


@pytest.mark.parametrize("number", [1, 4])
def test_a_call_that_can_be_read_passes_the_check(number: int) -> None:
    check_answer(a_call(number))


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (4, {"answer": b"[["}),
        (4, {"answer": b"[1.5]"}),
        (4, {"request": b"{"}),
        (4, {"answer": a_call(1).answer}),
        (1, {"answer": a_call(4).answer}),
        (1, {"answer": b"f123"}),
        (1, {"answer": b"c12"}),
        (1, {"request": b'["score"'}),
    ],
)
def test_what_cannot_be_read_is_noticed(number: int, changes: dict[str, bytes]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, struct.error)):
        check_answer(replace(a_call(number), **changes))  # type: ignore[arg-type]


def test_keys_are_half_a_digest() -> None:
    assert len(a_call(1).key) == KEY_BYTES == 16
