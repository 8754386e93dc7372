"""A program in the sandbox: what it cannot reach, what ends it, and what is told of it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from safer_instruct.sandbox import FULL, NETWORK_ONLY, Isolation, Limits, Ran, run_program, strictest_isolation
from safer_instruct.sandbox import run as running

pytestmark = pytest.mark.filterwarnings("error")
NONE = Isolation()
needs_full = pytest.mark.skipif(not strictest_isolation().files, reason="this machine allows no user namespaces")
needs_network = pytest.mark.skipif(not strictest_isolation().network, reason="this machine allows no user namespaces")
LEVELS = [pytest.param(FULL, marks=needs_full, id="full"), pytest.param(NETWORK_ONLY, marks=needs_network, id="network"), pytest.param(NONE, id="none")]
GENEROUS_S = 30.0


def ran(folder: Path, code: str, given: str = "", isolation: Isolation | None = None, *, timeout_s: float = GENEROUS_S, **limits: int) -> Ran:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    (folder / "given").write_text(given, encoding="utf-8")
    return asyncio.run(run_program([sys.executable, "-I", "-c", code], work, folder / "given", Limits(timeout_s=timeout_s, **limits), isolation=isolation))


@pytest.mark.parametrize("level", LEVELS)
def test_the_exit_code_and_the_end_of_standard_error_come_back(tmp_path: Path, level: Isolation) -> None:
    assert ran(tmp_path, "print('fine')", isolation=level) == Ran(0, "fine")
    assert ran(tmp_path, "import sys; print('out'); sys.exit('line 3: no')", isolation=level) == Ran(1, "line 3: no")


@pytest.mark.parametrize("level", LEVELS)
def test_standard_input_is_the_file_and_need_not_be_read(tmp_path: Path, level: Isolation) -> None:
    assert ran(tmp_path, "import sys; print(sys.stdin.read()[::-1])", "abc", level).tail == "cba"
    assert ran(tmp_path, "pass", "x" * 1_000_000, level) == Ran(0, "")


@pytest.mark.parametrize("level", LEVELS)
def test_the_environment_holds_no_key(tmp_path: Path, level: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    said = ran(tmp_path, "import os; print(sorted(os.environ))", isolation=level).tail
    assert set(eval(said)) <= {"HOME", "LANG", "LC_CTYPE", "PATH", "TMPDIR", "PWD", "SHLVL", "_"}


@needs_full
def test_no_other_process_is_seen_so_its_environment_cannot_be_read(tmp_path: Path) -> None:
    code = "import glob; print(len(glob.glob('/proc/[0-9]*')), any(b'PYTEST' in open(f, 'rb').read() for f in glob.glob('/proc/[0-9]*/environ')))"
    assert b"PYTEST_CURRENT_TEST" in b"".join(f"{k}={v}".encode() for k, v in os.environ.items())
    count, found = ran(tmp_path, code, isolation=FULL).tail.split()
    assert int(count) <= 3 and found == "False"


@pytest.mark.parametrize("level", LEVELS[:2])
def test_not_even_this_machines_own_services_can_be_reached(tmp_path: Path, level: Isolation) -> None:
    code = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.stdin.read())), 5)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert ran(tmp_path, code, port, NONE).code == 0, "the server is there"
        assert ran(tmp_path, code, port, level).code == 1


@needs_full
def test_only_the_folder_can_be_written_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    said = ran(tmp_path, f"open('inside', 'w').write('x'); open({str(outside)!r}, 'w')", isolation=FULL)
    assert said.code == 1 and "Read-only file system" in said.tail
    assert (tmp_path / "work" / "inside").read_text() == "x" and not outside.exists()


@needs_full
def test_the_read_only_view_cannot_be_undone_from_within(tmp_path: Path) -> None:
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(None).mount(None, b'/', None, 32 | 4096, None) == 0)"  # MS_REMOUNT | MS_BIND
    assert ran(tmp_path, code, isolation=FULL) == Ran(0, "")


@pytest.mark.parametrize("level", LEVELS)
def test_a_program_that_does_not_end_is_ended(tmp_path: Path, level: Isolation) -> None:
    began = time.monotonic()
    said = ran(tmp_path, "while True: pass", isolation=level, timeout_s=1.0)
    assert said == Ran(None, "", "took longer than 1 s") and time.monotonic() - began < GENEROUS_S


@needs_full
def test_a_child_that_leaves_the_process_group_ends_with_its_parent(tmp_path: Path) -> None:
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    while True:\n        open('beat', 'a').write('x'); time.sleep(0.01)\ntime.sleep(0.5)"
    assert ran(tmp_path, code, isolation=FULL, timeout_s=0.2 + GENEROUS_S).code in (0, None)
    size = (tmp_path / "work" / "beat").stat().st_size
    time.sleep(0.2)
    assert size > 0 and (tmp_path / "work" / "beat").stat().st_size == size


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = bytearray(10**9)", "MemoryError"),
        ("open('big', 'wb').write(bytes(64 << 20))", "File too large"),
        ("fs = [open('/dev/null') for _ in range(1000)]", "Too many open files"),
    ],
)
def test_memory_files_and_handles_are_limited(tmp_path: Path, level: Isolation, code: str, said: str) -> None:
    found = ran(tmp_path, code, isolation=level, memory_mb=256)
    assert found.code == 1 and said in found.tail


@pytest.mark.parametrize("level", LEVELS)
def test_a_program_that_writes_without_end_is_ended_and_its_end_is_kept(tmp_path: Path, level: Isolation) -> None:
    found = ran(tmp_path, "while True: print('x' * 1000)", isolation=level, output_kb=100)
    assert found.code is None and found.stopped == "wrote more than 100 KiB" and 0 < len(found.tail) <= 2000


@pytest.mark.skipif(os.getuid() == 0, reason="Linux exempts root from the limit on processes")
@pytest.mark.parametrize("level", LEVELS[:2])
def test_processes_are_limited(tmp_path: Path, level: Isolation) -> None:
    code = "import os, sys, time\nfor n in range(1000):\n    if os.fork() == 0:\n        time.sleep(60); os._exit(0)\n"
    found = ran(tmp_path, code, isolation=level)
    assert found.code == 1 and "BlockingIOError" in found.tail


def test_a_program_that_cannot_be_started_says_so(tmp_path: Path) -> None:
    (tmp_path / "given").touch()
    found = asyncio.run(run_program([str(tmp_path / "nothing")], tmp_path, tmp_path / "given", isolation=NONE))
    assert found.code == 127 and "cannot be started" in found.tail


def test_where_nothing_can_be_kept_apart_that_is_said_aloud(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(running, "_works", lambda level: False)
    running.strictest_isolation.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "safer_instruct"):
            assert running.strictest_isolation() == NONE and running.strictest_isolation() == NONE
    finally:
        running.strictest_isolation.cache_clear()
    assert len(caplog.records) == 1 and "HAVE THE NETWORK" in caplog.text and "API keys" in caplog.text
