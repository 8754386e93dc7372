"""What a ledger says when it is asked: calls found, shown and exported."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import a_call, fill, some_calls
from rich.console import Console

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import Call, Ledger, Recovery, cost_of, export_calls, find_by_key, find_calls, read_totals, size_and_log
from safer_instruct.ledger.content import encode_answer
from safer_instruct.models.protocol import Completion, Generated, Generation, Sampling, Scored, Scoring, Turn, Usage, encode_request
from safer_instruct.views.ledger import describe, show_call, show_ledger, show_matches

pytestmark = pytest.mark.filterwarnings("error")
HOSTILE = "\x1b[2J [bold red]loud[/bold red] \u202e \x9b31m \ud83d"


def a_chat(number: int, asked: str, answered: str) -> Call:
    request = encode_request("generate", Generation((Turn("system", "Be kind."), Turn("user", asked)), Sampling(), number))
    answer = Generated((Completion("Something else.", -0.5), Completion(answered, None, finished=False)))
    return Call(number.to_bytes(16, "big"), "respond", "openai:m", request, encode_answer(answer), Usage(3, 4, 0.5, 0.25), 1.7e9)


def a_scoring(number: int, continuation: str, *logprobs: float) -> Call:
    request = encode_request("score", Scoring("Prompt of a scoring.", continuation))
    return Call(number.to_bytes(16, "big"), "filter", "embedded:m", request, encode_answer(Scored(logprobs)), Usage(7), 1.7e9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def shown(show: object, *args: object) -> str:
    sent = io.StringIO()
    show(Console(file=sent, force_terminal=True, color_system=None, width=100), *args)  # type: ignore[operator]
    return sent.getvalue()


# --- search


@pytest.mark.parametrize("text", ["umbrella", "UMBRELLA", 'the "big" one', "line\nbreak", "straße", "STRASSE", "\N{SNOWMAN} x", "back\\slash", "\ud83d"])
def test_text_is_found_in_questions_and_answers_whatever_its_case(path: Path, text: str) -> None:
    said = f"Before it {text} and after it."
    fill(path, [a_chat(1, "No.", "No."), a_chat(2, said, "No."), a_chat(3, "No.", said), a_scoring(4, said, -1.0), a_scoring(5, "No.", -1.0)])
    assert [(int.from_bytes(call.key, "big"), found, at) for call, found, at in find_calls(path, text)] == [(n, said, 10) for n in (2, 3, 4)]


@pytest.mark.parametrize("text", ["max_tokens", "prompt", "role", "u2028", "completions", "n", "\\n"])
def test_settings_and_the_form_of_storage_are_not_searched(path: Path, text: str) -> None:
    fill(path, [a_chat(1, "A \u2028 B\r\x07\n", "C"), a_scoring(2, "D", -1.0)])
    expected = [1] if text == "n" else [2] if text == "prompt" else []  # 'Be kind.', 'Something', 'Prompt of a scoring.'
    found = [int.from_bytes(call.key, "big") for call, _, _ in find_calls(path, text)]
    assert found == ([1, 2] if text == "n" else expected)


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=[])), st.text(max_size=5), st.text(max_size=5))
def test_every_text_is_found_by_itself(tmp_path_factory: pytest.TempPathFactory, text: str, before: str, after: str) -> None:
    path = tmp_path_factory.mktemp("found") / "ledger.sqlite"
    fill(path, [a_chat(1, before + text + after, "")])
    assert [call.key[-1] for call, _, _ in find_calls(path, text)] == [1]


def test_matches_are_shown_a_line_each_and_no_more_than_asked_for(path: Path) -> None:
    fill(path, [a_chat(n, f"{'far ' * 100}needle{HOSTILE}\nnext line{' far' * 100}", "x") for n in range(1, 6)])
    lines = shown(show_matches, find_calls(path, "NEEDLE"), 2).splitlines()
    assert len(lines) == 3 and lines[0].startswith("000000000000  respond  openai:m  ...far far") and "--limit" in lines[2]
    assert "\x1b[2J" not in lines[0] and "[bold red]loud[/bold red]" in lines[0] and "next line" in lines[0]
    assert shown(show_matches, find_calls(path, "needle"), 9).splitlines()[5] == "5 found"
    assert shown(show_matches, find_calls(path, "nowhere"), 9) == "nothing found\n"


# --- show


def test_a_call_is_found_by_the_first_digits_of_its_key(path: Path) -> None:
    calls = [dataclasses.replace(a_chat(1, "a", "b"), key=bytes.fromhex(k * 4)) for k in ("ab12ffff", "ab130000", "ffffffff")]
    fill(path, calls)
    for prefix, which in (("ab12", 0), ("AB13", 1), ("ab130", 1), ("f", 2), ("f" * 32, 2), (calls[0].key.hex(), 0)):
        assert find_by_key(path, prefix) == calls[which]
    with pytest.raises(RunDirectoryError, match=f"several calls with a key that begins with ab1, such as {calls[0].key.hex()}, {calls[1].key.hex()}$"):
        find_by_key(path, "ab1")
    with pytest.raises(RunDirectoryError, match="no call with a key that begins with ab14"):
        find_by_key(path, "ab14")
    for prefix in ("", "xyz", "a b", "0" * 33, "-1", "\u0663"):
        with pytest.raises(RunDirectoryError, match="is no key: give up to 32 hexadecimal digits"):
            find_by_key(path, prefix)


def test_a_call_is_shown_whole_and_cannot_send_control_codes(path: Path) -> None:
    text = shown(show_call, a_chat(255, f"First line.\nSecond {HOSTILE}", "An answer " + "long " * 100 + "end."))
    for part in ("key: 000000000000000000000000000000ff", "stage: respond", "finished_at: 2023-11-14T22:13:20.000+00:00", "cost: 0.5", "seed: 255"):
        assert part in text.splitlines()
    assert "--- system ---\nBe kind.\n--- user ---\nFirst line.\nSecond" in text and "[bold red]loud[/bold red]" in text
    assert "completion 2 (finished False)" in text and "long end.\n" in text and "'max_tokens': 128" in text
    assert not {"\x1b", "\u202e", "\x9b"} & set(text)
    scoring = shown(show_call, a_scoring(1, "The continuation.", -1.5, float("-inf")))
    assert "--- continuation ---\nThe continuation.\n--- log-probabilities ---\n-1.500 -inf\n" in scoring


# --- export


def exported(path: Path) -> list[dict[str, object]]:
    file = io.StringIO()
    count = export_calls(path, file)
    lines = file.getvalue().splitlines()
    assert count == len(lines)
    return [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in lines]


def plain(completion: Completion) -> dict[str, Any]:
    """Alternatives are told only where they were asked for."""
    return {name: value for name, value in dataclasses.asdict(completion).items() if name != "alternatives"}


def test_an_exported_call_is_a_line_of_plain_json(path: Path) -> None:
    fill(path, [a_chat(1, f"Why? \u2028 {HOSTILE}", "So."), a_scoring(2, "It.", -1.5, float("-inf"))])
    chat, scoring = exported(path)
    assert chat == {
        "key": f"{1:032x}",
        "stage": "respond",
        "model": "openai:m",
        "kind": "generate",
        "finished_at": "2023-11-14T22:13:20.000+00:00",
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "cost": 0.5,
        "seconds": 0.25,
        "cached_tokens": 0,
        "request": {
            "prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"Why? \u2028 {HOSTILE}"}],
            "sampling": dataclasses.asdict(Sampling()),
            "seed": 1,
        },
        "answer": {"completions": [plain(c) for c in (Completion("Something else.", -0.5), Completion("So.", None, finished=False))]},
    }
    assert scoring["answer"] == {"logprobs": [-1.5, None]} and scoring["request"] == {"prompt": "Prompt of a scoring.", "continuation": "It."}


def test_export_holds_every_call_in_order_of_commit(path: Path) -> None:
    calls = some_calls(2500)
    fill(path, calls)
    assert [record["key"] for record in exported(path)] == [call.key.hex() for call in calls]


EXPORT = """
import resource, sys
from pathlib import Path
from safer_instruct.ledger import export_calls
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open("/dev/null", "w") as file:
    export_calls(Path(sys.argv[1]), file)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_export_does_not_hold_the_ledger_in_memory(path: Path) -> None:
    fill(path, (a_chat(n, "Ask.", random.Random(n).randbytes(5_000).hex()) for n in range(3000)))  # 33 MB of JSON
    grown_kb = int(subprocess.run([sys.executable, "-c", EXPORT, path], capture_output=True, text=True, check=True).stdout)
    assert grown_kb < 25_000


def test_everything_is_read_while_a_run_is_writing(path: Path) -> None:
    async def work() -> None:
        with Ledger(path) as ledger:
            for begin in range(0, 1000, 50):
                calls = some_calls(50, first=begin)
                await asyncio.gather(*(ledger.put(call) for call in calls))
                assert [t.calls for t in read_totals(path)] == [begin + 50]
                assert find_by_key(path, calls[-1].key.hex()) == calls[-1]
                assert [call for call, _, _ in find_calls(path, f"answer {begin + 1}")][:1] == [a_call(begin + 1)]
            assert len(exported(path)) == 1000

    asyncio.run(work())


@pytest.mark.parametrize("ask", [read_totals, size_and_log])
def test_runs_that_begin_and_end_do_not_disturb_a_reader(path: Path, ask: Callable[[Path], object]) -> None:
    """Each of them removes the write-ahead log as it ends: between two looks at it, too."""
    fill(path, some_calls(1))
    writer = threading.Thread(target=lambda: [fill(path, some_calls(1, first=n)) for n in range(1, 150)])
    writer.start()
    seen = 0
    while writer.is_alive():
        ask(path)
        seen += 1
    writer.join()
    assert seen > 100 and [t.calls for t in read_totals(path)] == [150]


# --- on a terminal


def test_totals_add_up_and_tell_the_size(path: Path) -> None:
    fill(path, [a_chat(n, "a", "b") for n in range(3)] + [a_scoring(n, "c", -1.0) for n in range(10, 12)])
    text = shown(show_ledger, path, read_totals(path))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert cells == [
        ["respond", "openai:m", "3", "9", "12", "1.5000", "0.8"],
        ["filter", "embedded:m", "2", "14", "0", "0.0000", "0.0"],
        ["all", "", "5", "23", "12", "1.5000", "0.8"],
    ]
    assert text.splitlines()[-1].endswith("bytes per call")


def test_a_log_beside_the_file_counts_by_itself(path: Path) -> None:
    async def work() -> str:
        with Ledger(path) as ledger:
            await asyncio.gather(*(ledger.put(call) for call in some_calls(50)))
            return shown(show_ledger, path, read_totals(path))

    assert re.fullmatch(r"0\.[0-9] MB, 0\.[0-9] MB of it a log that the next run folds in", asyncio.run(work()).splitlines()[-1])


def test_calls_without_usage_have_an_unknown_cost_but_for_models_in_this_process(path: Path) -> None:
    free = replace(a_scoring(10, "c", -1.0), usage=Usage())
    fill(path, [a_chat(1, "a", "b"), *(replace(a_chat(n, "a", "b"), model="openai:mute", usage=Usage()) for n in (2, 3)), free])
    text = shown(show_ledger, path, read_totals(path))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert [(row[1], row[5]) for row in cells] == [("openai:m", "0.5000"), ("openai:mute", "unknown"), ("embedded:m", "0.0000"), ("", "unknown")]
    assert text.splitlines()[-1] == (
        "note: the endpoint reported no usage for 2 calls (stage respond), which count as no tokens here: "
        "what they cost is unknown, unless their price is 0; the other calls cost 0.5000 USD"
    )
    assert cost_of(read_totals(path)) is None and cost_of(read_totals(path)[:1]) == 0.5 and cost_of([]) == 0


def test_an_empty_ledger_has_totals_too(path: Path) -> None:
    Ledger(path).close()
    assert "all" in shown(show_ledger, path, read_totals(path)) and exported(path) == []


def test_a_recovery_is_described_in_a_line() -> None:
    moved = Path("out/ledger.damaged-1.sqlite")
    assert describe(Recovery(1000, 0, None)) == "nothing is damaged: all 1,000 calls are intact"
    assert describe(Recovery(1000, 0, moved)) == "1,000 calls saved, none is known to be lost; the damaged file is kept as out/ledger.damaged-1.sqlite"
    assert describe(Recovery(1, 2, moved)).startswith("1 calls saved, 2 could not be read, and the next run makes, and pays for, them again; the damaged")
    assert describe(Recovery(1, 2, moved), told=3) == describe(Recovery(1, 2, moved))
    assert describe(Recovery(0, 0, moved), told=293).startswith(
        "0 calls saved, of 293 that the run speaks of: the others could not be read, and the next run makes, and pays for, the 293 that are lost again"
    )
    nothing = describe(Recovery(0, 0, moved))
    assert nothing.startswith("0 calls saved, for nothing in the file can be read: the next run makes, and pays for, whatever it held again; the damaged")
