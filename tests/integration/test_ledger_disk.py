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
