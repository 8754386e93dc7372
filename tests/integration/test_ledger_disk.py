"""A full disk stops a run with an error that says so; what was seen is saved, and with room again the run goes on.

The disk is a small tmpfs, mounted in a namespace of its own that ends with the child process.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]


def mount_missing() -> str:
    """Why no file system can be mounted here; empty when one can."""
    if not shutil.which("unshare") or not shutil.which("mount"):
        return "no unshare or mount here"
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False)
    return f"no mount in a namespace: {tried.stderr.strip()}" if tried.returncode else ""


pytestmark = pytest.mark.skipif(bool(mount_missing()), reason=mount_missing())

LEDGER = """
import asyncio, json, os, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledgers import a_call
from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import Ledger, read_calls, recover

disk = Path(sys.argv[1])
path = disk / "ledger.sqlite"
seen, errors = set(), []

async def put(ledger, number):
    try:
        await ledger.put(a_call(number, words=200))
        seen.add(number)
    except RunDirectoryError as exc:
        errors.append(str(exc))

async def write(first, last):
    with Ledger(path) as ledger:
        for begin in range(first, last, 40):
            await asyncio.gather(*(put(ledger, n) for n in range(begin, begin + 40)))
            if errors:
                break
        return [ledger.get(a_call(n, words=200).key) == a_call(n, words=200) for n in sorted(seen)]

def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", *options, "none", str(disk)], check=True)

mount("size=3m")
readable_when_full = asyncio.run(write(0, 10**6))
full = list(errors)
stored_after = {call.key for call in read_calls(path)}
errors.clear()
try:
    asyncio.run(write(10**6, 10**6 + 400))
    again = list(errors)
except RunDirectoryError as exc:
    again = [str(exc)]
errors.clear()
mount("remount,size=64m")
readable_with_room = asyncio.run(write(2 * 10**6, 2 * 10**6 + 400))
print(json.dumps({
    "seen": len(seen), "full": full, "again": again, "then": errors,
    "lost": [n for n in seen if n < 10**6 and a_call(n, words=200).key not in stored_after],
    "readable": all(readable_when_full) and all(readable_with_room) and len(readable_with_room) == len(seen),
    "intact": recover(path).moved_to is None,
}))
"""


def in_namespace(script: str, disk: Path) -> dict[str, Any]:
    disk.mkdir()
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", script, str(disk), str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_a_full_disk_is_an_error_that_says_so_and_loses_nothing(tmp_path: Path) -> None:
    said = in_namespace(LEDGER, tmp_path / "disk")
    assert said["seen"] > 500 and said["full"]
    message = r".*/disk/ledger\.sqlite: \d+ finished calls could not be saved: the disk is full; what was saved before is safe: make room, .*"
    assert [error for error in said["full"] if not re.fullmatch(message, error)] == []
    assert all("the disk is full" in error for error in said["again"]), "it stays so until there is room"
    assert said["lost"] == said["then"] == [] and said["readable"] and said["intact"]


RUN = r"""
import json, subprocess, sys
from pathlib import Path

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], check=True)
text = " ".join(f"word{i} printer parcel" for i in range(60))
(disk.parent / "texts.jsonl").write_text("".join(json.dumps({"text": f"{n} {text} {n * 7919}"}) + "\n" for n in range(400)))
(disk.parent / "config.yaml").write_text(
    "domain: civility\nsource: {path: texts.jsonl}\nfilter: {prompt: null, near_duplicate: null, consistency: null}\n"
    "models: {inducer: 'scripted:', expert: 'scripted:', scorer: 'scripted:'}\nverify: {min_contrast: -9, min_margin: -9, min_words: 1}\n"
)
command = [sys.executable, "-m", "safer_instruct.cli", "run", str(disk.parent / "config.yaml"), "--out", str(disk / "out")]
first = subprocess.run(command, capture_output=True, text=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "remount,size=64m", "none", str(disk)], check=True)
second = subprocess.run(command, capture_output=True, text=True)
summary = json.loads((disk / "out" / "summary.json").read_text()) if second.returncode == 0 else {}
print(json.dumps({"first": [first.returncode, first.stderr], "second": [second.returncode, second.stderr], "summary": summary}))
"""


def test_a_run_on_a_full_disk_stops_with_one_line_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    said = in_namespace(RUN, tmp_path / "disk")
    code, err = said["first"]
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: ") and "the disk is full" in err
    assert f"{tmp_path / 'disk' / 'out'}" in err and "give the same command again" in err, "the ledger or a result, whichever needs the last block"
    assert said["second"] == [0, ""] and said["summary"]["rows"] == 400
    assert said["summary"]["timing"]["calls_from_ledger"] > 100


FORBIDDEN = r"""
import json, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledgers import fill, some_calls
from safer_instruct.ledger import Ledger

disk = Path(sys.argv[1])
mount = ["mount", "-t", "tmpfs", "-o"]
subprocess.run([*mount, "size=64m", "none", str(disk)], check=True)
(disk / "texts.jsonl").write_text("".join(json.dumps({"text": f"{n} lamp {n * 7919} kettle"}) + "\n" for n in range(4)))
(disk / "config.yaml").write_text(
    "domain: civility\nsource: {path: texts.jsonl}\nfilter: {prompt: null, near_duplicate: null, consistency: null}\n"
    "models: {inducer: 'scripted:', expert: 'scripted:', scorer: 'scripted:'}\nverify: {min_contrast: -9, min_margin: -9, min_words: 1}\n"
)
run = ["run", str(disk / "config.yaml"), "--out", str(disk / "out")]
def command(*given):
    done = subprocess.run([sys.executable, "-m", "safer_instruct.cli", *given], capture_output=True, text=True)
    return [done.returncode, done.stderr.strip(), done.stdout]
assert command(*run)[0] == 0
left = disk / "left" / "ledger.sqlite"
left.parent.mkdir()
open_ = Ledger(left)
fill(left, some_calls(3))  # not its last connection, so the log stays
subprocess.run(["cp", "-r", str(left.parent), str(disk.parent / "copied")], check=True)
(disk.parent / "copied" / "ledger.sqlite-shm").unlink()
open_.close()
subprocess.run(["mount", "--bind", str(disk.parent / "copied"), str(disk.parent / "copied")], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", str(disk.parent / "copied")], check=True)
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
print(json.dumps({
    "ledger": command("ledger", str(disk / "out")),
    "left": command("ledger", str(disk.parent / "copied")),
    "others": [command(*given) for given in ([*run, "--dry-run"], ["select", str(disk / "out"), "--n", "2"], ["review", str(disk / "out")])],
}))
"""


def test_a_ledger_in_a_folder_where_nobody_may_write_is_read_and_other_commands_say_what_they_cannot_write(tmp_path: Path) -> None:
    said = in_namespace(FORBIDDEN, tmp_path / "disk")
    code, err, out = said["ledger"]
    assert (code, err) == (0, "") and "calls" in out
    code, err, _ = said["left"]
    assert code == 2 and "the ledger cannot be read in a folder where you may not write, for a run has left a log beside it; copy the folder" in err
    for (code, err, _), name in zip(said["others"], (".lock", ".lock", "review-index.sqlite"), strict=True):
        assert code == 2 and err == f"error: {tmp_path / 'disk' / 'out' / name} cannot be written: Read-only file system; choose a place where you may write"


SMALL = r"""
import json, resource, subprocess, sys
from pathlib import Path
from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger import Ledger

disk, said = Path(sys.argv[1]), []
def opened():
    try:
        Ledger(disk / "ledger.sqlite").close()
        said.append("")
    except RunDirectoryError as exc:
        said.append(str(exc))
    for file in disk.glob("*ledger*"):
        file.unlink()
    said.append([file.name for file in disk.iterdir()])

for size in ("24k", "64k", "4m"):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], check=True)
    opened()
resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 10, 20 << 10))
opened()
print(json.dumps(said))
"""


def test_a_ledger_that_finds_no_room_for_the_files_beside_it_says_so(tmp_path: Path) -> None:
    said: Any = in_namespace(SMALL, tmp_path / "disk")
    full = r".*/disk/ledger\.sqlite: the ledger cannot be opened: the disk is full; what was saved before is safe: make room, .*"
    assert re.fullmatch(full, said[0]) and re.fullmatch(full, said[2]) and said[4] == ""
    assert said[6].endswith("no file may grow so large here (ulimit -f); what was saved before is safe: raise that limit, then give the same command again")
    assert said[1::2] == [[]] * 4, "nothing is left of the try"
