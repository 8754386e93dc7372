"""Finished calls outside of a ledger: nothing is lost, a torn end is passed over, damage is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.ledger import read_calls, read_totals
from safer_instruct.ledger.content import Call
from safer_instruct.ledger.rows import DamagedRowError
from safer_instruct.ledger.segments import merge_into, read_segments, write_segment
from safer_instruct.models.protocol import Usage

numbers = st.integers(0, 2**40)
amounts = st.floats(0, 1e6)
calls = st.builds(
    Call,
    st.binary(min_size=16, max_size=16),
    st.sampled_from(["induce", "respond", "verify"]),
    st.text(min_size=1),
    st.binary(),
    st.binary(),
    st.builds(Usage, numbers, numbers, amounts, amounts),
    amounts,
)


def call(number: int, stage: str = "induce") -> Call:
    return Call(number.to_bytes(16, "big"), stage, "model", b'["generate",{}]', b"[]", Usage(3, 4, 0.5, 1.5), 17.0 + number)


@given(st.lists(st.lists(calls, max_size=4), max_size=4))
def test_blocks_give_back_the_calls_that_were_written(groups: list[list[Call]]) -> None:
    written = b"".join(write_segment(group) for group in groups)
    assert list(read_segments(written, "here", torn=False)) == [one for group in groups for one in group]


def test_a_torn_end_loses_only_its_own_block() -> None:
    first, second = write_segment([call(1), call(2)]), write_segment([call(3)])
    for cut in range(len(first), len(first + second)):
        torn = (first + second)[:cut]
        assert [c.key[-1] for c in read_segments(torn, "here")] == [1, 2], cut
        if cut > len(first):
            with pytest.raises(DamagedRowError, match="here: its end is missing"):
                list(read_segments(torn, "here", torn=False))


def test_what_never_reached_the_disk_is_a_torn_end_too() -> None:
    first, second = write_segment([call(1)]), write_segment([call(2)])
    lost = bytearray(first + second)
    lost[-1] ^= 0xFF
    for data in (first + b"\0" * 4096, bytes(lost)):
        assert [c.key[-1] for c in read_segments(data, "here")] == [1]
        with pytest.raises(DamagedRowError, match="here"):
            list(read_segments(data, "here", torn=False))


def test_a_changed_byte_is_never_read_as_a_call() -> None:
    data = write_segment([call(1)]) + write_segment([call(2)])
    for at in (0, 9, 14, len(data) // 4):  # magic, checksum, packed calls
        changed = bytearray(data)
        changed[at] ^= 0xFF
        with pytest.raises(DamagedRowError, match="here"):
            list(read_segments(bytes(changed), "here"))


def test_merging_adds_what_is_new_and_each_call_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    assert merge_into(path, read_segments(write_segment(call(n) for n in range(1500)), "a")) == 1500
    assert merge_into(path, read_segments(write_segment([call(1499), call(1500, "respond"), call(1500, "respond")]), "b")) == 1
    assert sorted(int.from_bytes(c.key, "big") for c in read_calls(path)) == list(range(1501))
    assert [(t.stage, t.calls, t.usage.completion_tokens) for t in read_totals(path)] == [("induce", 1500, 6000), ("respond", 1, 4)]
