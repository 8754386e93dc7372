"""The sheet for people in a real browser: accessible, without requests, keeps what was chosen, and gives it back as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from browser.conftest import Watched
from safer_instruct.evaluation.people import items, read_answers, write_sheet
from safer_instruct.evaluation.prompts import Prompt, Response


@pytest.mark.filterwarnings("default")
def test_a_person_answers_the_sheet_and_saves_the_answers(watched: Watched, tmp_path: Path) -> None:
    prompts = [Prompt(f"p{n}", f"Question {n}?", "support", None, "", {}) for n in range(4)]
    responses = {"a": [Response(f"<b>kind</b> {n}") for n in range(4)], "b": [Response(f"curt {n}") for n in range(4)]}
    asked = items(prompts, responses, [("a", "b")], 0)
    _, file = write_sheet(tmp_path / "sheet.csv", asked, prompts, responses)
    page = watched.page
    page.goto(file.as_uri())
    assert watched.serious() == [] and page.locator("article b").count() == 0
    page.locator("fieldset").nth(0).get_by_label("A", exact=True).check()
    page.locator("fieldset").nth(2).get_by_label("tie").check()
    assert page.locator("#count").inner_text() == "2 of 4 answered"
    page.reload()
    assert page.locator("input:checked").count() == 2
    with page.expect_download() as download:
        page.get_by_role("button", name="Save my answers").click()
    saved = tmp_path / "ann.csv"
    download.value.save_as(saved)
    said = read_answers([saved], asked)["ann"]
    assert len(said) == 2 and said[asked[0].id] == float(not asked[0].swapped) and said[asked[2].id] == 0.5
    assert watched.complaints == [] and {url.split(":")[0] for url in watched.requests} == {"file"}
