# /// script
# requires-python = ">=3.11"
# dependencies = ["py-spy==0.4.3"]
# ///
"""Where the CPU of our calls goes: by thread and part of the program, and the single lines that take most.

python bench/profile_calls.py                                  # 20,000 calls at 256 in flight, no latency
python bench/profile_calls.py --latency-ms 50 --calls 5000

py-spy samples the Python threads from outside, so the client runs at nearly its own speed; the kernel's count of each thread's CPU
says how much a share of its samples is worth, and what threads without Python (a transport's own) take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from clients import OURS, Load, RunError, command_of, environment_of, serving, work_folder
from environments import interpreter

SAMPLES_PER_S = 400
POLL_S = 0.02
TICKS_PER_S = 100  # of /proc on Linux
LINES_SHOWN = 15
PARTS = {  # the innermost frame that one of these is part of decides
    "json and pydantic": ("json/", "pydantic/", "orjson"),
    "ledger": ("safer_instruct/ledger", "sqlite3/", "zlib", "zstd"),
    "transport": ("safer_instruct/models/transport", "aiohttp/", "pyreqwest/", "yarl/", "multidict/"),
    "flow control": (
        "safer_instruct/models/flow",
        "safer_instruct/models/pacing",
        "safer_instruct/models/ratelimits",
        "safer_instruct/models/endpoint",
        "safer_instruct/models/chance",
        "safer_instruct/models/window",
    ),
    "engine": ("safer_instruct/models/",),
    "event loop, sockets, threads": ("asyncio/", "uvloop/", "selectors.py", "threading.py"),
    "driver": ("harness.py", "ours.py"),
}
START_UP = "start-up"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    arguments = parser.parse_args()
    load = Load(arguments.calls, arguments.concurrency, arguments.concurrency)
    with work_folder() as folder, serving(arguments.latency_ms) as base_url:
        stacks, threads = profile(base_url, load, folder)
        figures = json.loads((folder / "result.json").read_text())
    report(stacks, threads, figures["cpu_s"] / figures["calls"] * 1e6)


def profile(base_url: str, load: Load, folder: Path) -> tuple[dict[int, Counter[str]], dict[int, tuple[str, float]]]:
    """Samples of each thread by stack, and name and CPU seconds of each thread, both by the kernel's number of the thread."""
    raw = folder / "stacks.txt"
    recorder = [str(interpreter(Path(__file__)).parent / "py-spy"), "record", "--format", "raw", "--threads", "--rate", str(SAMPLES_PER_S), "-o", str(raw)]
    command = [*recorder, "--", *command_of(OURS, base_url, load, folder / "result.json")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment_of(OURS, folder)) as process:
        threads: dict[int, tuple[str, float]] = {}
        while process.poll() is None:
            for pid in children(process.pid):
                threads |= thread_times(pid)
            time.sleep(POLL_S)
        said = process.stderr.read() if process.stderr else ""
    if process.returncode or not raw.exists():
        raise RunError(f"py-spy ended with {process.returncode}: {said.strip()[-300:]}")
    stacks: dict[int, Counter[str]] = {}
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        thread, _, frames = stack.partition(";")
        if frames:  # a thread of Rust that has once held the interpreter's lock is sampled too, and has none
            stacks.setdefault(int(thread.partition("(")[2].partition(")")[0]), Counter())[frames] += int(count)
    return stacks, threads


def children(pid: int) -> list[int]:
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return []


def thread_times(pid: int) -> dict[int, tuple[str, float]]:
    times = {}
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
            fields = rest.split()
            times[int(task.name)] = name, (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    except OSError:  # it has just ended
        pass
    return times


def report(stacks: dict[int, Counter[str]], threads: dict[int, tuple[str, float]], cpu_us: float) -> None:
    """Print shares of the measured CPU per call."""
    spent: Counter[tuple[str, str]] = Counter()
    lines: Counter[str] = Counter()
    for thread, (name, cpu_s) in threads.items():
        samples = stacks.get(thread)
        if not samples:
            spent["threads without Python", name] += cpu_s
            continue
        total = samples.total()
        for stack, count in samples.items():
            part = part_of(stack)
            if part != START_UP:
                spent["event loop's thread" if "Runner.run" in stack else "other Python threads", part] += cpu_s * count / total
                lines[stack.rpartition(";")[2]] += cpu_s * count / total
    scale = cpu_us / sum(spent.values())
    print(f"{cpu_us:.0f} us of CPU per call\n\n| thread | part | us/call | share |\n|---|---|---|---|")
    for (thread_kind, part), value in spent.most_common():
        print(f"| {thread_kind} | {part} | {value * scale:.1f} | {value * scale / cpu_us:.0%} |")
    print("\n| innermost line of Python | us/call |\n|---|---|")
    for line, value in lines.most_common(LINES_SHOWN):
        print(f"| `{line}` | {value * scale:.1f} |")


def part_of(stack: str) -> str:
    """What the innermost frame of a known file belongs to."""
    if "importlib" in stack:
        return START_UP
    for frame in reversed(stack.split(";")):
        for part, paths in PARTS.items():
            if any(path in frame for path in paths):
                return part
    return START_UP if "Runner.run" not in stack and "Thread.run" not in stack else "other"


if __name__ == "__main__":
    try:
        main()
    except RunError as exc:
        sys.exit(str(exc))
