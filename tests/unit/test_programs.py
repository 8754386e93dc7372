"""Program verifiers: what they are given, what they say, and how they stand beside a judge."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from safer_instruct.config import VerifyConfig
from safer_instruct.domain import Domain, load_domain
from safer_instruct.errors import ConfigError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.stages.programs import ProgramVerifier, code_of, record
from safer_instruct.stages.verify import HopelessError, answer

pytestmark = pytest.mark.filterwarnings("error")
EXAMPLE = Example("x", "a bad text", "main", "f", 1, prompt="Say something good.")
CHECK = """
import helper

def polite(response, prompt):
    if "please" not in response:
        return "says no please"

def knows_the_prompt(response, prompt):
    return helper.last_word(prompt) in response

def broken(response, prompt):
    raise KeyError("gone")
"""


def domain(folder: Path, *verifiers: dict[str, Any], **category: Any) -> Domain:
    (folder / "check.py").write_text(CHECK, encoding="utf-8")
    (folder / "helper.py").write_text("def last_word(text):\n    return text.split()[-1].strip('.')\n", encoding="utf-8")
    data = {
        "name": "d",
        "description": "d",
        "verifiers": [*verifiers],
        "categories": {"main": {"definition": "d", "guideline": "g", "criteria": ["q?"], **category}},
    }
    (folder / "d.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return load_domain("d.yaml", folder)


def judged(made: Domain, text: str, judge: Any = None) -> Draft:
    async def main() -> Draft:
        return await ProgramVerifier(made, judge).judge(EXAMPLE, Draft(text, 0), 0.0)

    return asyncio.run(main())


class Accepts:
    """A judge that counts."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def baseline(self, example: Example) -> float:
        return 2.5

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        self.seen.append(draft.text)
        return replace(draft, margin=baseline, verdicts=(*draft.verdicts, Verdict("verify.better", True)))


def test_a_function_passes_by_returning_nothing_and_fails_with_what_it_says(tmp_path: Path) -> None:
    made = domain(tmp_path, {"python": "check.py:polite"})
    assert judged(made, "Sit down, please.").verdicts == (Verdict("verify.program.polite", True),)
    (said,) = judged(made, "Sit down.").verdicts
    assert said == Verdict("verify.program.polite", False, None, "exit code 1: says no please")


def test_a_function_sees_the_prompt_and_modules_beside_it_and_false_fails(tmp_path: Path) -> None:
    made = domain(tmp_path, {"python": "check:knows_the_prompt"})
    assert judged(made, "All is good.").verdicts[0].passed
    assert "returned False" in judged(made, "All is bad.").verdicts[0].reason


def test_an_exception_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    (said,) = judged(domain(tmp_path, {"python": "check.py:broken"}), "text").verdicts
    assert not said.passed and said.reason == "raised KeyError: 'gone' (check.py, line 12)"


def test_an_assertion_says_why_not_and_what_cannot_be_imported_is_an_exception(tmp_path: Path) -> None:
    made = domain(tmp_path, {"python": "check.py:polite"})
    (tmp_path / "check.py").write_text("def polite(response, prompt):\n    assert 'please' in response, 'says no please'\n")
    assert judged(made, "Sit down.").verdicts[0].reason == "exit code 1: AssertionError: says no please (check.py, line 2)"
    (tmp_path / "check.py").write_text("import no_such_module_here\n\ndef polite(response, prompt): ...\n")
    said = judged(made, "Sit down, please.").verdicts[0]
    assert not said.passed and said.reason == "raised ModuleNotFoundError: No module named 'no_such_module_here' (check.py, line 1)"


def test_a_command_is_given_files_and_standard_input_and_only_its_own_placeholders_are_filled(tmp_path: Path) -> None:
    code = "import sys; a, b, c = sys.argv[1:]; assert open(a).read() == sys.stdin.read() == 'res {%s} ponse' % 'prompt', a\n"
    code += "print(a[-3:], open(b).read(), c); sys.exit(1)"
    made = domain(tmp_path, {"name": "args", "command": ["{python}", "-c", code, "{file}", "{prompt}", "{other}"], "suffix": ".py"})
    assert judged(made, "res {prompt} ponse").verdicts[0].reason == "exit code 1: .py Say something good. {other}"


def test_no_shell_reads_what_a_response_says(tmp_path: Path) -> None:
    made = domain(tmp_path, {"command": ["grep", "-q", "--", "harmless", "{file}"]})
    assert judged(made, f"$(touch {tmp_path}/owned); `touch {tmp_path}/owned` harmless").verdicts[0].passed
    assert not (tmp_path / "owned").exists()


def test_a_limit_that_is_passed_is_the_reason(tmp_path: Path) -> None:
    made = domain(tmp_path, {"name": "slow", "command": ["sleep", "60"], "timeout_s": 0.5})
    assert judged(made, "text").verdicts == (Verdict("verify.program.slow", False, None, "took longer than 0.5 s"),)


def test_code_is_what_stands_between_fences(tmp_path: Path) -> None:
    assert code_of("Here:\n```python\nx = 1\n```\nand\n```\ny = 2\n```\nDone.") == "x = 1\n\ny = 2\n"
    assert code_of("x = 1") == "x = 1" and code_of("an ```inline``` fence") == "an ```inline``` fence"


def test_all_programs_are_asked_and_the_judge_only_when_all_pass(tmp_path: Path) -> None:
    judge = Accepts()
    made = domain(tmp_path, {"python": "check.py:polite"}, verifiers=[{"python": "check.py:knows_the_prompt"}])
    failed = judged(made, "Nothing of it.", judge)
    assert [v.name for v in failed.verdicts if not v.passed] == ["verify.program.polite", "verify.program.knows_the_prompt"] and judge.seen == []
    passed = judged(made, "That is good, please.", judge)
    assert judge.seen == ["That is good, please."] and [v.name for v in passed.verdicts][-1] == "verify.better"


def test_a_failure_is_written_anew_and_after_the_last_round_dropped_with_its_reasons(tmp_path: Path) -> None:
    made, texts = domain(tmp_path, {"python": "check.py:polite"}), iter(["You sit down at once now.", "Sit down over there now, please."])

    async def main(rounds: int) -> Example:
        async def write(example: Example, attempt: int) -> list[Draft]:
            return [Draft(next(texts), attempt)]

        return await answer(EXAMPLE, write, ProgramVerifier(made, None), VerifyConfig(form="program", rounds=rounds))

    done = asyncio.run(main(2))
    assert done.alive and done.chosen == "Sit down over there now, please." and len(done.drafts) == 2
    texts = iter(["You sit down at once now."])
    dropped = asyncio.run(main(1)).dropped_by
    assert dropped and dropped.name == "verify.program.polite" and "no please" in dropped.reason


def test_a_rejected_text_that_passes_what_it_must_not_drops_the_example_before_anything_is_written(tmp_path: Path) -> None:
    made = domain(tmp_path, {"name": "bad", "command": ["grep", "-q", "good", "{file}"], "rejected_fails": True})

    async def baseline(text: str) -> float:
        return await ProgramVerifier(made, Accepts()).baseline(replace(EXAMPLE, text=text))

    assert asyncio.run(baseline("a bad text")) == 2.5
    with pytest.raises(HopelessError) as caught:
        asyncio.run(baseline("a good text"))
    assert caught.value.verdict.name == "verify.program.bad" and not caught.value.verdict.passed and "rejected text passes" in caught.value.verdict.reason


@pytest.mark.parametrize(
    ("verifier", "said"),
    [
        ({"command": ["no-such-program-here"]}, "there is no program 'no-such-program-here'"),
        ({"python": "gone.py:check"}, "there is no 'gone.py'"),
        ({"python": "no_such_module_here:check"}, "there is no 'no_such_module_here'"),
        ({"python": "check.py:nope"}, r"verifier 'nope': check\.py has no function 'nope'; it has polite, knows_the_prompt, broken"),
        ({"python": "check:nope"}, r"check\.py has no function 'nope'"),
        ({"python": "json:nope"}, r"__init__\.py has no function 'nope'"),
        ({"command": ["{python}", "{folder}/gone.py", "{file}"]}, r"verifier 'python': there is no 'gone\.py' in .*, which its command names"),
    ],
)
def test_a_program_that_is_not_there_is_missed_at_the_start(tmp_path: Path, verifier: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ProgramVerifier(domain(tmp_path, verifier), None)


@pytest.mark.parametrize(
    "text",
    [
        "from helper import last_word as nope",
        "from helper import *",
        "from functools import partial\nnope = partial(print)",
        "try:\n    from helper import nope\nexcept ImportError:\n    def nope(response, prompt): ...",
        "globals()['nope'] = print",
        "class nope:\n    def __init__(self, response, prompt): ...",
    ],
)
def test_a_function_that_is_imported_assigned_or_made_when_the_file_runs_is_there(tmp_path: Path, text: str) -> None:
    made = domain(tmp_path, {"python": "check.py:nope"})
    (tmp_path / "check.py").write_text(text + "\nraise SystemExit('nothing may run this here')\n")
    ProgramVerifier(made, None)


def test_a_function_inside_another_is_not_there_nor_one_of_a_file_that_is_no_python(tmp_path: Path) -> None:
    made = domain(tmp_path, {"python": "check.py:nope"})
    (tmp_path / "check.py").write_text("def outer():\n    def nope(response, prompt): ...\n")
    with pytest.raises(ConfigError, match="no function 'nope'; it has outer"):
        ProgramVerifier(made, None)
    (tmp_path / "check.py").write_text("def nope(response, prompt:\n")
    with pytest.raises(ConfigError, match=r"check\.py cannot be read as Python: .*line 1"):
        ProgramVerifier(made, None)


def test_a_file_that_a_command_names_with_something_behind_it_or_makes_itself_is_not_looked_for(tmp_path: Path) -> None:
    words = ["{folder}/check.py::test_it", "{folder}/helper.py", "{folder}/{file}", "--log={folder}/later.txt"]
    ProgramVerifier(domain(tmp_path, {"command": ["{python}", *words]}), None)


@pytest.mark.parametrize(
    ("verifiers", "said"),
    [
        ([{}], "give either 'command' or 'python'"),
        ([{"command": ["a"], "python": "b:c"}], "give either 'command' or 'python'"),
        ([{"python": "no function"}], "verifiers.0.python"),
        ([{"command": ["x"], "suffix": "../x"}], "verifiers.0.suffix"),
        ([{"command": ["x"]}, {"command": ["/bin/x"]}], "several verifiers of category 'main' are called 'x'"),
        ([{"command": ["x"], "timeout": 3}], "did you mean 'timeout_s'?"),
    ],
)
def test_a_verifier_that_makes_no_sense_is_refused(tmp_path: Path, verifiers: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        domain(tmp_path, *verifiers)
    assert said in str(caught.value)


def test_programs_alone_need_programs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"verify\.form 'program' needs 'verifiers'"):
        ProgramVerifier(domain(tmp_path), None)


def test_a_changed_script_makes_another_run_and_where_it_lies_does_not(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    before = [domain(folder, {"python": "check.py:polite"}, {"command": ["grep", "x"]}) for folder in (one, two)]
    assert record(before[0]) == record(before[1]) and list(record(before[0])) == ["verify.program.polite"]
    assert before[0].model_dump_json() == before[1].model_dump_json()
    found = record(before[0])
    (one / "check.py").write_text(CHECK + "\n# changed\n", encoding="utf-8")
    assert record(before[0]) != found
