"""What a run says of its two sides: lengths, replaced and fallback responses, and the twins, counted pair by pair."""

from __future__ import annotations

from dataclasses import replace

from safer_instruct.example import Example, Verdict
from safer_instruct.notes import changed_notes, side_notes, unread_note
from safer_instruct.sources import BadRow
from safer_instruct.tally import Gaps, SideTally, TwinTally, UnreadTally

PAIR = Example("p", "two words", "a", "f", 1, prompt="ask", chosen="five words are in it", margin=0.5)
TWIN = replace(PAIR, id="t", rejected="I cannot help", twin_of="p")


def near(score: float | None, *, passed: bool = True) -> Verdict:
    return Verdict("twins.near", passed, score)


def test_files_that_were_not_read_to_their_end_are_named_and_the_other_bad_rows_are_not() -> None:
    tally = UnreadTally()
    tally.add(BadRow("a.csv", 2, "nothing from this line on was read", ""))
    assert tally.record() == {"files": 0, "places": []}
    tally.add(BadRow("b.csv.gz", 5, "cut", "", unread=True))
    assert unread_note(tally.record()).startswith("1 file was not read to the end; nothing was read from b.csv.gz:5 on. ")
    for number in range(6):
        tally.add(BadRow(f"{number}.parquet", 7, "cut", "", unread=True))
    assert unread_note(tally.record()).startswith(
        "7 files were not read to the end; nothing was read from b.csv.gz:5, 0.parquet:7, 1.parquet:7, 2.parquet:7, 3.parquet:7 and 2 more on. "
    )


def test_files_that_changed_while_they_were_read_are_named_with_what_to_do() -> None:
    again = "; give the same command again once nothing writes there, finished calls are not made twice"
    mixed = "rows of two versions may stand in this run"
    assert changed_notes({}) == []
    assert changed_notes({"a.jsonl": False, "b.csv": True}) == [
        f"a.jsonl changed while it was read: {mixed}{again}",
        f"b.csv grew while it was read: rows added since may be missing, and where it was written anew, {mixed}{again}",
    ]
    (many,) = changed_notes({f"{number}.txt": False for number in range(7)})
    assert many.startswith("0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more changed while they were read: ")


def test_gaps_are_words_of_the_chosen_less_those_of_the_rejected_response() -> None:
    gaps = Gaps()
    assert gaps.record() is None
    for chosen, rejected in (("a b c", "a"), ("a", "a b"), ("a b", "a b")):
        gaps.add(chosen, rejected)
    assert gaps.record() == {"mean": 0.33, "median": 0.0} and gaps.counts == {2: 1, -1: 1, 0: 1}


def test_a_pair_is_counted_with_its_source_text_and_as_it_is() -> None:
    tally = SideTally()
    failed = PAIR.with_verdicts(*[Verdict("rejected.ratio", False, 3.0, flag=True)] * 2)
    for example in (PAIR, replace(PAIR, rejected="four words are here"), failed, failed, PAIR.with_verdicts(Verdict("rejected.ratio", True))):
        tally.add(example)
    assert (tally.replaced, tally.fallback) == (1, 2)
    assert tally.before.counts == {3: 5} and tally.after.counts == {3: 4, 1: 1}


def test_where_the_source_text_is_the_chosen_side_both_counts_are_of_the_response_that_was_written() -> None:
    tally = SideTally()
    tally.add(replace(PAIR, chosen="two words", rejected="one"))
    assert tally.before.counts == tally.after.counts == {1: 1} and tally.replaced == 1


def test_twins_that_came_through_and_those_that_did_not_are_told_apart() -> None:
    tally = TwinTally()
    assert tally.record() == {"in": 0, "dropped": {}, "out": 0, "similarity": None, "different_refusals": 0, "length_gap": None}
    other = Verdict("twins.benign", True, 0.9)
    for twin in (
        TWIN.with_verdicts(near(0.5), other),
        replace(TWIN, rejected="i  CANNOT help").with_verdicts(near(0.75), near(None)),
        replace(TWIN, rejected="No").with_verdicts(near(0.625)),
        TWIN.with_verdicts(near(0.1, passed=False)),
        TWIN.with_verdicts(near(0.9), Verdict("twins.benign", False, 0.1)),
    ):
        tally.add(twin)
    assert tally.record() == {
        "in": 5,
        "dropped": {"twins.benign": 1, "twins.near": 1},
        "out": 3,
        "similarity": {"least": 0.5, "mean": 0.625},
        "different_refusals": 2,
        "length_gap": {"mean": 2.67, "median": 2.0},
    }


def test_notes_speak_of_what_the_run_made_and_of_nothing_else() -> None:
    assert side_notes({"pairs": 3}) == []
    kept = {"form": "matched", "replaced": 2, "fallback": 1, "fitting": 0}
    gap = {"source": {"mean": 3.0, "median": 3.0}, "pairs": {"mean": -0.5, "median": 0.0}}
    (side,) = side_notes({"pairs": 3, "rejected": kept, "length_gap": gap})
    assert side == (
        "rejected side 'matched': 2 of 3 pairs, 1 keep the source text because none passed, 0 because it fits as it is; "
        "chosen minus rejected, in words: mean +3.0 with the source text, -0.5 as the pairs are"
    )
    (bare,) = side_notes({"pairs": 0, "rejected": kept, "length_gap": {"source": None, "pairs": None}})
    assert "in words" not in bare
    tally = TwinTally()
    tally.add(TWIN.with_verdicts(near(0.5)))
    assert side_notes({"twins": tally.record()}) == [
        "contrast twins, counted apart: 1 of 1 came through; their chrF to the instruction is 0.50 on the mean; the column 'twin_of' marks them"
    ]
    tally.add(TWIN.with_verdicts(near(0.1, passed=False)))
    assert "1 of 2 came through (dropped: twins.near 1); " in side_notes({"twins": tally.record()})[0]
    assert "chrF" not in side_notes({"twins": TwinTally().record()})[0]
