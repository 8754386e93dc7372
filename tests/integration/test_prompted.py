"""An inducer that was not tuned but prompted: the same run, with examples from the domain or from a file."""

from __future__ import annotations

import json

import pytest
from misbehaving import serve
from test_pipeline import Project, good_rows, judged, over_http, project  # noqa: F401 - two of them are fixtures

from safer_instruct.errors import ConfigError, RunDirectoryError, SourceError
from safer_instruct.ledger import read_calls


def asked_of_inducer(project: Project) -> set[str]:  # noqa: F811
    calls = [call for call in read_calls(project.out / "ledger.sqlite") if call.stage == "induce"]
    return {json.loads(call.request)[1]["prompt"][0]["content"] for call in calls}


def test_the_domains_examples_are_shown_and_a_change_of_them_is_another_run(project: Project) -> None:  # noqa: F811
    category = next(iter(project.domain["categories"].values()))
    category["examples"] = [{"prompt": f"Where is order {i}?", "chosen": "On its way.", "rejected": f"Look for {i} yourself."} for i in range(6)]
    project.config["induce"] = {"template": "prompted", "shots": 3}
    project.texts(good_rows(5))
    summary = project.run()
    assert summary["pairs"] == 5 and "notes" not in summary
    asked = asked_of_inducer(project)
    assert len(asked) == 5
    for text in asked:
        assert [f"Look for {i} yourself." in text for i in range(4)] == [True, True, True, False] and "Where is order 2?" in text
        assert "On its way." not in text, "the inducer is to see what it will be given: undesirable responses"
    category["examples"][0]["rejected"] = "Find it yourself."
    with pytest.raises(RunDirectoryError, match="another config"):
        project.run()


def test_examples_may_come_from_a_file_of_any_format(project: Project) -> None:  # noqa: F811
    (project.path / "shots.json").write_text(json.dumps([{"instruction": "Name a tea.", "input": "", "output": "Oolong, of course."}]), encoding="utf-8")
    project.config["induce"] = {"template": "prompted", "examples": "shots.json"}
    project.texts(good_rows(3))
    assert project.run()["pairs"] == 3
    assert all("### Response:\nOolong, of course.\n\n### Message:\nName a tea.\n" in text for text in asked_of_inducer(project))


@pytest.mark.parametrize(
    ("examples", "message"), [("gone.jsonl", "no file, folder or glob match"), ("bad.jsonl", r"bad\.jsonl:1: column 'response' is not text")]
)
def test_examples_that_cannot_be_read_stop_the_run_before_anything_is_asked(project: Project, examples: str, message: str) -> None:  # noqa: F811
    (project.path / "bad.jsonl").write_text('{"prompt": "Who?", "response": 1}\n', encoding="utf-8")
    project.config["induce"] = {"template": "prompted", "examples": examples}
    project.texts(good_rows(1))
    with pytest.raises((SourceError, ConfigError), match=message):
        project.run()
    assert not project.out.exists()


@pytest.mark.usefixtures("judged")
def test_a_remote_inducer_whose_template_nobody_knows_is_told_of(project: Project, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    project.texts(good_rows(3))
    with serve() as server:
        over_http(project, server)
        assert project.cli() == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: nothing tells whether 'openai:inducer' was tuned to induce with template reverse.j2" in said
    summary = json.loads((project.out / "summary.json").read_text(encoding="utf-8"))
    assert len(summary["notes"]) == 1 and "set induce.template: prompted" in summary["notes"][0]
