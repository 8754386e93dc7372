"""The review page shows what was said before a prompt, as text and never as markup, and veils what the corpus's assistant said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from browsing import serious_findings
from reviewing import Server, write_run

from safer_instruct import tables
from safer_instruct.example import Example, Turn, Verdict
from safer_instruct.review.labels import Accepted

HISTORY = (Turn("user", "<img src=x onerror=alert(1)>\u202egnp"), Turn("assistant", "<script>alert(1)</script> Read the door."))


def test_what_was_said_before_is_read_with_the_pair(tmp_path: Path, new_page: Callable[[], Any]) -> None:
    path = write_run(tmp_path / "run", [("And Sunday?", "Until noon.", "The door says.")])
    example = Example("x1", "The door says.", "support", "t.jsonl", 1, prompt="And Sunday?", chosen="Until noon.", margin=0.5, history=HISTORY)
    with tables.outputs(path, conversations=True) as out:
        out.add(example.with_verdicts(Verdict("verify.better", True, 0.5)))
    server = Server(path, "ada")
    try:
        page = new_page()
        page.goto(server.addresses["ada"])
        page.wait_for_selector(".card.before .turns li")
        said = page.inner_text(".card.before")
        assert "<img src=x onerror=alert(1)>" in said and "<script>alert(1)</script> Read the door." in said and "RLO" in said
        assert page.evaluate("document.querySelectorAll('.pair img, .pair script').length") == 0
        assert page.query_selector(".card.before .assistant .veil") is not None, "civility veils the rejected side"
        page.keyboard.press("b")
        page.wait_for_selector(".card.before .assistant .text:not(.veil)")
        assert serious_findings(page) == []
        page.keyboard.press("a")
        page.wait_for_selector("text=All read.")
    finally:
        server.kill()
    accepted = Accepted(path)
    taken = [accepted.take(pair) for pair in tables.read_pairs(path)]
    assert [pair and pair["history"] for pair in taken] == [[{"role": turn.role, "content": turn.content} for turn in HISTORY]]
