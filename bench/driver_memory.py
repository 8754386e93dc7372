"""The memory of a run's processes against the examples that are done, looked at from outside; and what is left when whoever looks is killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

MARK = "BENCH_RUN"  # in the environment of every process of a run
PARTS = {"Source": "source", "Distinct": "instructions", "Worker": "workers", "Coordinator": "coordinator"}
_TENTHS = 10


@dataclass(frozen=True)
class Memory:
    """Resident MB of a process: its own (heap, stacks), mapped files (the code of libraries, mostly), and Ray's object store as far as it has it mapped."""

    own: float
    files: float
    shared: float

    @property
    def all(self) -> float:
        return self.own + self.files + self.shared


def memory_of(pid: int) -> Memory:
    """Raises OSError or KeyError where the process is gone."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kb = {name: int(said.split()[0]) for name, _, said in (line.partition(":") for line in lines) if name.startswith("Rss")}
    return Memory(*(kb[name] / 1024 for name in ("RssAnon", "RssFile", "RssShmem")))


def part_of(command: str) -> str:
    """Which part of the work a process of Ray does, or `rest`."""
    name = re.search(r"ray::\w*\(?(?:MapBatches\()?(\w+)", command)
    if "Coordinator" in command:
        return PARTS["Coordinator"]
    return PARTS.get(name[1], "rest") if name else "rest"


@dataclass
class Curve:
    """What the processes held, by tenths of the examples done, the most in each; the last line is for what comes after the last example."""

    rows: int
    driver: dict[int, Memory] = field(default_factory=dict)
    others: dict[int, dict[str, float]] = field(default_factory=dict)
    disk_mb: dict[int, float] = field(default_factory=dict)

    def note(self, done: int, driver: Memory, others: dict[str, float]) -> None:
        """One look: of the processes beside the driver their own MB by part of the work."""
        at = done * _TENTHS // self.rows
        if at not in self.driver or self.driver[at].all < driver.all:
            self.driver[at] = driver
        most = self.others.setdefault(at, {})
        for part, mb in others.items():
            most[part] = max(most.get(part, 0.0), mb)

    def note_disk(self, done: int, folder: Path) -> None:
        """How much the run's folder takes; the duplicate detectors' files have no name and are not in it."""
        sizes = []
        for path in folder.rglob("*"):
            with suppress(OSError):
                sizes.append(path.lstat().st_blocks * 512)
        at = done * _TENTHS // self.rows
        self.disk_mb[at] = max(self.disk_mb.get(at, 0.0), sum(sizes) / 1e6)

    def table(self) -> str:
        """Markdown."""
        parts = [part for part in (*PARTS.values(), "rest") if any(part in others for others in self.others.values())]
        head = ["examples done", "driver MB", "its own", "files", "object store", *(f"{part}: own" for part in parts), "disk MB"]
        lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for at in sorted(self.driver):
            driver, others = self.driver[at], self.others[at]
            done = "all: the ledger is merged, the books are checked" if at >= _TENTHS else f"up to {(at + 1) * self.rows // _TENTHS:,}"
            mb = [driver.all, driver.own, driver.files, driver.shared, *(others.get(part, 0.0) for part in parts), self.disk_mb.get(at, 0.0)]
            lines.append(f"| {done} | {' | '.join(f'{one:,.0f}' for one in mb)} |")
        return "\n".join(lines)

    def slope(self) -> str:
        """Bytes that stay in the driver of each further example, over the last eight tenths."""
        if not {1, _TENTHS - 1} <= self.driver.keys():
            return "too short for a slope"
        first, last = self.driver[1], self.driver[_TENTHS - 1]
        rows = self.rows * (_TENTHS - 2) / _TENTHS
        own, shared = (1024**2 * (b - a) / rows for a, b in ((first.own, last.own), (first.shared, last.shared)))
        return f"{own:,.0f} bytes of its own and {shared:,.0f} of the object store for each further example"


@contextmanager
def cleared_away(prefix: str, mark: str) -> Iterator[Path]:
    """A temporary folder, which goes with all processes that carry the mark when the block ends, or when this process does, even by `kill -9`."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    command = [sys.executable, __file__, mark, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as broom:  # it waits for the end of its input
        yield folder
        assert broom.stdin
        broom.stdin.close()


def _sweep(mark: str, folder: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    while found := list(_marked(mark)):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def _marked(mark: str) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                yield int(folder.name)


if __name__ == "__main__":
    _sweep(sys.argv[1], Path(sys.argv[2]))
