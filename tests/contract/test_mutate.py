"""tools/mutate: the changes it makes, where it makes them, and that its lists name what is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "mutate"
sys.path.append(str(TOOL))  # its modules import each other by name, as those of tools/reference do

import mutants  # noqa: E402
import swapping  # noqa: E402
import watching  # noqa: E402

SOURCE = b'''"""Words."""
LEAST: int = 3

def shared(a, b, *, least=LEAST):
    """1 < 2"""
    if a is None or not b:
        raise ValueError(f"{1 + 1} < 2")
    found = [x for x in a if x < least]
    while found and found[-1] in b:
        found.pop()
    return min(found, default=0.5) - 1
'''


def test_every_kind_of_change_is_made_once_and_words_for_people_are_left_alone() -> None:
    found = [f"{m.first} {m.before} -> {m.after}" for m in mutants.find_mutants(SOURCE)]
    assert sorted(found) == sorted(
        [
            "2 3 -> 4",
            "6 a is None or not b -> not (a is None or not b)",
            "6 a is None or not b -> (a is None and (not b))",
            "6 a is None -> (a is not None)",
            "6 not b -> (b)",
            '7 raise ValueError(f"{1 + 1} < 2") -> pass',
            "8 x < least -> (x <= least)",
            "8 x < least -> not (x < least)",
            "9 found and found[-1] in b -> not (found and found[-1] in b)",
            "9 found and found[-1] in b -> (found or found[-1] in b)",
            "9 found[-1] in b -> (found[-1] not in b)",
            "9 -1 -> (1)",
            "9 1 -> 2",
            "10 found.pop() -> pass",
            "11 return min(found, default=0.5) - 1 -> return None",
            "11 min(found, default=0.5) - 1 -> (min(found, default=0.5) + 1)",
            "11 min -> max",
            "11 0.5 -> 1.0",
            "11 1 -> 2",
        ]
    )


def test_a_sample_is_the_same_for_the_same_seed_and_in_order() -> None:
    found = mutants.find_mutants(SOURCE)
    drawn = mutants.sample_mutants(found, 5, "0:a")
    assert drawn == mutants.sample_mutants(found, 5, "0:a") != mutants.sample_mutants(found, 5, "1:a")
    assert len(drawn) == 5 and drawn == sorted(drawn, key=found.index) and mutants.sample_mutants(found, 500, "0:a") == found


@pytest.fixture
def imported(tmp_path: Path) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(compile(SOURCE, str(tmp_path / "m.py"), "exec"), names)
    return names


def test_a_function_that_is_held_elsewhere_gets_the_changed_code(imported: dict[str, object], tmp_path: Path) -> None:
    held = imported["shared"]
    assert callable(held) and held([1, 2, 3], [9]) == 0
    change = next(m for m in mutants.find_mutants(SOURCE) if m.after == "max")
    path = str(tmp_path / "m.py")
    assert swapping.swap(path, SOURCE, compile(change.applied(SOURCE), path, "exec", dont_inherit=True))
    assert held([1, 2, 3], [9]) == 1
    constant = next(m for m in mutants.find_mutants(SOURCE) if m.first == 2)
    assert not swapping.swap(path, SOURCE, compile(constant.applied(SOURCE), path, "exec", dont_inherit=True)), "a constant has been read already"


def test_the_statements_that_run_are_noted_and_the_others_not(imported: dict[str, object], tmp_path: Path) -> None:
    held, path = imported["shared"], str(tmp_path / "m.py")
    assert swapping.swap(path, SOURCE, watching.noting(path, SOURCE))
    lines = watching.Lines()
    assert callable(held) and held([1, 2, 3], [9]) == 0
    assert {line for line in lines.run[path] if line != 5} == {4, 6, 8, 9, 11}


def test_what_is_named_is_there_and_what_is_called_equivalent_is_a_change_that_is_made() -> None:
    rooms = yaml.safe_load((TOOL / "rooms.yaml").read_text("utf-8"))
    equivalent = yaml.safe_load((TOOL / "equivalent.yaml").read_text("utf-8"))
    files = [file for room in rooms.values() for file in room["files"]]
    assert len(files) == len(set(files)) and set(equivalent) <= set(files)
    for room in rooms.values():
        tests = "".join((ROOT / "tests" / "unit" / test).read_text("utf-8") for test in room["tests"])
        assert all(f"def {name}(" in tests for name in room.get("without", []))
        assert all((ROOT / "src" / "safer_instruct" / file).is_file() for file in room["files"])
    for file, changes in equivalent.items():
        made = {m.key for m in mutants.find_mutants((ROOT / "src" / "safer_instruct" / file).read_bytes())}
        assert set(changes) <= made, f"{file}: not a change that is made: {set(changes) - made}"
        assert all(isinstance(reason, str) and reason for reason in changes.values())


def test_the_command_lists_what_it_would_try() -> None:
    listed = subprocess.run([sys.executable, str(TOOL), "models/spending.py", "--list", "--sample", "3"], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 3 and all(line.startswith("models/spending.py:") for line in listed.stdout.splitlines())
