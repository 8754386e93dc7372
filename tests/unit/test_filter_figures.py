"""What is counted of filters, on sets small enough to count by hand."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from safer_instruct.analysis.filters import FilterFigures, Overlap, alone, as_record, describe_filters
from safer_instruct.example import Candidate, Draft, Example, Verdict
from safer_instruct.views.filters import show_filters

pytestmark = pytest.mark.filterwarnings("error")


def verdict(name: str, flag: bool = False) -> Verdict:
    """`name` passes, `-name` does not."""
    return Verdict(name.lstrip("-"), not name.startswith("-"), None, "no" if name.startswith("-") else "", flag)


def unit(names: str) -> tuple[Verdict, ...]:
    return tuple(map(verdict, names.split()))


def example(candidates: tuple[str, ...] = (), own: str = "", drafts: tuple[str, ...] = (), category: str = "a") -> Example:
    """As `choose` and `answer` leave it: with the verdicts of the candidate that was taken, or of the likeliest."""
    judged = tuple(Candidate(f"c{i}", -float(i), verdicts=unit(names)) for i, names in enumerate(candidates))
    taken = next((c for c in judged if not any(v.drops for v in c.verdicts)), None)
    done = Example(
        "id", "text", category, "f", 1, candidates=judged, prompt=taken.text if taken else "", drafts=tuple(Draft("d", 0, verdicts=unit(n)) for n in drafts)
    )
    return done.with_verdicts(*(taken or judged[0]).verdicts if judged else ()).with_verdicts(*unit(own))


def figures(*examples: Example) -> dict[str, FilterFigures]:
    return {f.name: f for f in describe_filters(examples).filters}


def test_seen_failed_and_dropped_are_counted() -> None:
    done = describe_filters([example(("prompt.a prompt.b",)), example(("-prompt.a prompt.b", "prompt.a prompt.b")), example(("prompt.a -prompt.b",))])
    assert (done.examples, done.pairs) == (3, 2)
    a, b = done.filters
    assert (a.name, a.unit, a.seen, a.failed, a.dropped, a.keep_rate) == ("prompt.a", "instruction", 4, 1, 0, 0.75)
    assert (b.name, b.seen, b.failed, b.dropped, b.alone) == ("prompt.b", 4, 1, 1, 1)


def test_without_a_filter_those_come_back_that_nothing_else_stands_in_the_way_of() -> None:
    both, only_a = example(("-prompt.a -prompt.b",), category="x"), example(("-prompt.a prompt.b",), category="y")
    second = example(("-prompt.a -prompt.b", "prompt.a -prompt.b"), category="y")
    found = figures(both, only_a, second)
    assert {name: (f.dropped, f.alone, f.alone_by_category) for name, f in found.items()} == {
        "prompt.a": (3, 1, {"y": 1}),
        "prompt.b": (0, 1, {"y": 1}),
    }
    assert [alone(e) for e in (both, only_a, second)] == [set(), {"prompt.a"}, {"prompt.b"}]
    assert alone(example(("prompt.a",))) == set(), "a pair is not to come back"


def test_a_pair_may_have_got_a_less_likely_instruction_for_a_filter() -> None:
    found = figures(example(("-prompt.a prompt.b", "-prompt.a -prompt.b", "prompt.a prompt.b", "-prompt.b prompt.a")))
    assert {name: f.changed for name, f in found.items()} == {"prompt.a": 1, "prompt.b": 0}


def test_overlap_is_counted_where_two_fail_the_same() -> None:
    found = figures(example(("-prompt.a -prompt.b", "-prompt.a prompt.b", "-prompt.b prompt.a prompt.c")), example(("-prompt.a -prompt.c",)))
    assert found["prompt.a"].overlaps == (Overlap("prompt.b", 1, 0.25), Overlap("prompt.c", 1, round(1 / 3, 4)))
    assert found["prompt.c"].overlaps == (Overlap("prompt.a", 1, round(1 / 3, 4)),)


def test_what_a_text_a_response_and_a_pair_fail_is_counted_there() -> None:
    text = example(own="-text.a dedup.text")
    prompt = example(("prompt.a",), own="-dedup.prompt")
    draft = replace(example(("prompt.a",), drafts=("verify.x -verify.y", "-verify.x verify.y")), verdicts=unit("prompt.a verify.x -verify.y"))
    pair = example(("prompt.a",), own="-pair.a -pair.b", drafts=("verify.x verify.y",))
    done = describe_filters([text, prompt, draft, pair])
    assert [(f.name, f.unit, f.seen, f.failed, f.dropped, f.alone) for f in done.filters] == [
        ("text.a", "example", 1, 1, 1, 1),
        ("dedup.text", "example", 1, 0, 0, 0),
        ("prompt.a", "instruction", 3, 0, 0, 0),
        ("dedup.prompt", "example", 1, 1, 1, 1),
        ("verify.x", "response", 3, 1, 0, 1),
        ("verify.y", "response", 3, 1, 1, 1),
        ("pair.a", "example", 1, 1, 1, 0),
        ("pair.b", "example", 1, 1, 0, 0),
    ]


def test_checks_of_form_leave_a_verdict_only_where_they_fail_and_have_seen_the_others_too() -> None:
    drafts = ("-verify.unfinished", "-verify.length", "-respond.content_filter", "verify.better", "-verify.better", "-rejected.unfinished", "rejected.ratio")
    found = figures(example(("-induce.empty", "-induce.unfinished prompt.a", "prompt.a"), drafts=drafts), example(("prompt.a",), drafts=("verify.better",)))
    assert {name: (f.seen, f.failed) for name, f in found.items()} == {
        "induce.empty": (4, 1),
        "induce.unfinished": (3, 1),
        "prompt.a": (3, 0),
        "respond.content_filter": (6, 1),
        "verify.unfinished": (5, 1),
        "verify.length": (4, 1),
        "verify.better": (3, 1),
        "rejected.unfinished": (2, 1),
        "rejected.ratio": (1, 0),
    }
    assert found["verify.unfinished"].keep_rate == 0.8


def test_a_twin_has_checks_of_form_of_its_own_until_it_is_answered() -> None:
    twin = replace(example(("-twins.near", "twins.near"), drafts=("twins.rejected_refuses", "-verify.unfinished", "twins.chosen_complies")), twin_of="other")
    found = figures(twin, example(("-induce.unfinished",)))
    assert (found["verify.unfinished"].seen, found["induce.unfinished"].seen) == (2, 1)


def test_no_share_is_told_where_only_failures_are_known() -> None:
    done = describe_filters([example(("prompt.a",), own="-respond.empty"), example(("prompt.a",), drafts=("-verify.unreadable", "verify.better"))])
    assert {f.name: (f.seen, f.keep_rate) for f in done.filters if f.failed} == {"respond.empty": (1, None), "verify.unreadable": (1, None)}
    assert [f["keep_rate"] for f in as_record(done)["filters"]].count(None) == 2
    console = Console(file=io.StringIO(), width=100)
    show_filters(console, Path("runs/x"), done)
    assert " 0.0%" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_flag_is_counted_and_drops_nothing() -> None:
    flagged = example(("prompt.a",)).with_verdicts(verdict("-pair.note", flag=True))
    done = describe_filters([flagged, flagged.with_verdicts(verdict("-pair.b"))])
    note = next(f for f in done.filters if f.name == "pair.note")
    assert (done.pairs, note.flag, note.failed, note.dropped, note.alone) == (1, True, 2, 0, 0)
    assert note.overlaps == (Overlap("pair.b", 1, 0.5),)
    assert next(f for f in done.filters if f.name == "pair.b").alone == 1, "a flag stands in nobody's way"


def test_errors_of_a_filter_are_counted_apart() -> None:
    broken = Example("1", "t", "a", "f", 1).with_verdicts(Verdict("text.mine", False, None, "raised ValueError: no"))
    (mine,) = describe_filters([broken, replace(broken, verdicts=unit("-text.mine"))]).filters
    assert (mine.failed, mine.raised) == (2, 1)


def test_a_verdict_of_another_version_stands_at_the_end() -> None:
    assert [f.name for f in describe_filters([example(own="older.name"), example(("prompt.a",))]).filters] == ["prompt.a", "older.name"]


@pytest.mark.parametrize("width", [40, 66, 72, 100])
def test_no_number_is_lost_on_a_narrow_terminal(width: int) -> None:
    done = describe_filters([*[example(("prompt.boilerplate",))] * 1233, example(("-prompt.boilerplate",))])
    console = Console(file=io.StringIO(), width=width)
    show_filters(console, Path("runs/x"), done)
    words = console.file.getvalue().replace(",\n", ", ").split()  # type: ignore[attr-defined]
    assert [word.strip(",") for word in words].count("1,234") == 2 and "99.9%" in " ".join(words) and "…" not in "".join(words)


def test_an_empty_set_has_no_figures() -> None:
    assert as_record(describe_filters([])) == {"examples": 0, "pairs": 0, "filters": []}


def test_the_record_is_plain_data_and_says_how_many_pairs_there_could_be() -> None:
    record: dict[str, Any] = as_record(describe_filters([example(("-prompt.a",)), example(("prompt.a",))]))
    assert json.loads(json.dumps(record))["filters"][0]["pairs_without_at_most"] == 2


NAMES = ("prompt.a", "prompt.b", "prompt.c")
UNITS = st.tuples(*(st.sampled_from([name, f"-{name}"]) for name in NAMES)).map(" ".join)


@settings(max_examples=200)
@given(st.lists(st.lists(UNITS, min_size=1, max_size=3), max_size=6), st.sampled_from(NAMES))
def test_alone_is_what_dropping_the_filter_from_the_set_brings_back(sets: list[list[str]], gone: str) -> None:
    examples = [example(tuple(units)) for units in sets]
    without = [example(tuple(" ".join(n for n in u.split() if n.lstrip("-") != gone) for u in units)) for units in sets]
    found = figures(*examples)
    came_back = sum(e.alive for e in without) - sum(e.alive for e in examples)
    assert came_back == (found[gone].alone if examples else 0)
