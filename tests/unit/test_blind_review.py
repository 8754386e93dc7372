"""A review with blind sides: nothing that its page is told depends on which side is the chosen one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from reviewing import write_run

from safer_instruct.review.desk import Change, Desk, Plan
from safer_instruct.review.queue import Filters
from safer_instruct.review.store import Store, read_labels
from safer_instruct.settings.review import ReviewConfig

TEXTS = [(f"Where is parcel {n}?", f"I will look for parcel {n} today.", f"Parcel {n} is where you left it.") for n in range(12)]


def read_all(path: Path, reader: str, preferred: str) -> list[Any]:
    """Everything the page of a reader is told who takes all texts of one kind for the better ones, in the words of left and right."""
    store = Store(path)
    told: list[Any] = []
    desk = Desk(path, Plan(ReviewConfig(), {}, blind=True, overlap=1.0), store)
    try:
        annotator = store.join(reader)
        while item := desk.step(annotator, Filters(), None, back=False)["item"]:
            assert item["left"]["side"] is item["right"]["side"] is None
            better = "left" if re.match(preferred, item["left"]["text"]) else "right"
            told += [item, desk.say(annotator, item["id"], Change(key=f"{reader} {item['id']} click", digest=item["digest"], prefer=better))]
        done = desk.listed(annotator, Filters(state="done"), None)
        told += [done, desk.agreement(), desk.about(annotator, reader)["progress"], desk.undo(annotator, f"{reader} takes it back")]
        return told
    finally:
        desk.close()
        store.close()


def neither(told: Any) -> Any:
    """Without what tells the two readers below apart: which of the two they chose, and the digests of what they read."""
    if isinstance(told, dict):
        hidden = {"decision", "digest", "seconds_each"}
        return {name: neither(value) for name, value in told.items() if name not in hidden}
    return [neither(value) for value in told] if isinstance(told, list) else told


def test_the_page_is_told_the_same_whichever_side_is_the_chosen_one(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", TEXTS)
    other = write_run(tmp_path / "other", TEXTS)
    taken = [read_all(path, "ada", preferred) for path, preferred in ((one, "I will"), (other, "Parcel"))]
    assert len(taken[0]) == 2 * len(TEXTS) + 4 and neither(taken[0]) == neither(taken[1])
    assert taken[0][-2] == {"read": len(TEXTS), "skipped": 0, "seconds_each": None, "today": len(TEXTS)}
    decided = [{label.decision for _, _, label in read_labels(path)} for path in (one, other)]
    assert decided == [{"accept"}, {"reject"}], "of the readers one took the chosen ones, one the rejected"


def test_where_readers_differ_a_blind_page_names_the_pairs_and_not_who_said_what(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TEXTS)
    read_all(run, "ada", "I will")
    found = read_all(run, "ben", "Parcel")[-3]
    assert found["shared"] == len(TEXTS) - 1 and found["alpha"] is not None and len(found["disagreements"]) == found["shared"]
    assert all(one["id"] and one["said"] == {} for one in found["disagreements"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_both_sides_stand_left_and_right(tmp_path: Path, side: str) -> None:
    run = write_run(tmp_path / "run", TEXTS)
    shown = {one[side]["text"][:6] for one in read_all(run, "ada", "I will")[:-4:2]}
    assert shown == {"I will", "Parcel"}
