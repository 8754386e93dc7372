"""What the Ray runner costs beside the local one, with scripted models: CPU per example of all processes, and the driver's memory.

    .venv-dev/bin/python bench/ray_runner.py --rows 2000 20000
    .venv-dev/bin/python bench/ray_runner.py --rows 1000000 --runners ray     # three quarters of an hour; how far it is stands on stderr

CPU is user and system time of every process that a run starts, read from /proc four times a second and at the end; what a
process takes after its last reading is missing. Of several sizes the difference between the largest and the smallest counts,
so what a cluster takes to start is told apart from what an example takes. With BENCH_BY_PROCESS=1 it is told by kind of process, too.

Memory is read as often; of the largest size it is told by tenths of the examples done. Whatever ends this process, `kill -9` too, the
run, its cluster and its files go with it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import yaml
from driver_memory import MARK, Curve, Memory, cleared_away, memory_of, part_of

NOUNS = ["umbrella", "kettle", "parcel", "lamp", "cake", "card", "bicycle", "ticket", "tent", "ladder", "sofa", "piano", "garden", "window", "carpet"]
VERBS = ["broke", "bent", "melted", "vanished", "leaked", "cracked", "rusted", "froze", "burned", "sank", "shrank", "tore", "faded", "snapped"]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
EVERY_S, TOLD_EVERY_S = 0.25, 60.0
BYTES_FOR_A_ROW = 9_000  # the ledger twice while shards are merged into it, texts and results, and what is remembered of texts


def write_project(folder: Path, rows: int) -> Path:
    """A source of distinct texts, and scripted models: ten calls for an example."""
    rng = random.Random(1)
    return write_config(folder, (" ".join(f"{rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.randrange(1000)}" for _ in range(6)) for _ in range(rows)))


def write_config(folder: Path, texts: Iterable[str], **more: object) -> Path:
    """Texts, scripted models that answer in the words of the text, and the config of a run over them."""
    with (folder / "texts.jsonl").open("w") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"id": f"r{number}", "text": text}) + "\n")
    script = {
        # no opening in common: who looks for near-duplicates would compare each with a tenth of all others
        "generate": [{"match": "Instruction", "answers": ["Explain {words}."]}, {"answers": ["Gladly: {words}."]}],
        "score": [{"match": "### Instruction", "logprob": -1.0}, {"logprob": -2.0}],
    }
    (folder / "script.yaml").write_text(yaml.safe_dump(script))
    config = {
        "domain": "civility",
        "source": {"path": "texts.jsonl"},
        "models": dict.fromkeys(("inducer", "expert", "scorer"), "scripted:script.yaml"),
        "filter": {"prompt": {"language": None}},
        "verify": {"min_words": 1, "min_margin": -1.0, "min_contrast": -1.0},
        **more,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


class Watch:
    """CPU seconds of all processes that carry a mark in their environment, and the memory of one of them and of the others."""

    def __init__(self, mark: str, driver: int, folder: Path, rows: int) -> None:
        self._mark, self._driver, self._folder = f"{MARK}={mark}".encode(), driver, folder
        self._ticks: dict[str, int] = {}
        self._ours: dict[str, bool] = {}
        self._names: dict[str, str] = {}
        self._told_at = time.monotonic()
        self.done = 0
        self.curve = Curve(rows)
        self.driver_mb: list[float] = []

    def look(self) -> None:
        others: dict[str, float] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with suppress(OSError, KeyError):
                    self._look_at(folder, others)
        with suppress(OSError, ValueError):
            progress = json.loads((self._folder / "out" / "progress.json").read_text())
            self.done = progress["stages"]["verify"]["done"]
        with suppress(OSError, KeyError):
            memory = memory_of(self._driver)
            self.driver_mb.append(memory.all)
            self.curve.note(self.done, memory, others)
            if time.monotonic() - self._told_at >= TOLD_EVERY_S:
                self._tell(memory)

    def _tell(self, memory: Memory) -> None:
        self._told_at = time.monotonic()
        self.curve.note_disk(self.done, self._folder)
        print(f"{time.strftime('%H:%M:%S')} {self.done:,} done, driver {memory.all:.0f} MB, {memory.own:.0f} its own", file=sys.stderr, flush=True)

    def _look_at(self, folder: Path, others: dict[str, float]) -> None:
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        name = f"{folder.name}-{stat[19]}"  # with its time of start: ids come again
        if not self._ours.get(name):  # between fork and exec it has another environment
            self._ours[name] = self._mark in (folder / "environ").read_bytes()
        if self._ours[name]:
            self._ticks[name] = int(stat[11]) + int(stat[12])
            said = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            self._names[name] = said or self._names.get(name, "")  # actors change theirs, and who has just ended has none
            if int(folder.name) != self._driver:
                part = part_of(self._names[name])
                others[part] = others.get(part, 0.0) + memory_of(int(folder.name)).own

    def by_process(self) -> str:
        """CPU seconds of the kinds of processes, most first."""
        kinds: dict[str, int] = {}
        for name, ticks in self._ticks.items():
            words = self._names[name].split()
            kind = words[0] if words and words[0].startswith("ray::") else next((Path(w).name for w in words[1:] if w.endswith(".py")), "")
            kind = kind or next((Path(w).name for w in words[:1]), "?")
            kind = "driver" if "safer_instruct.cli" in words else kind
            kinds[kind] = kinds.get(kind, 0) + ticks
        return ", ".join(f"{kind} {ticks / TICKS_PER_S:.1f}" for kind, ticks in sorted(kinds.items(), key=lambda pair: -pair[1])[:12])

    @property
    def cpu_s(self) -> float:
        return sum(self._ticks.values()) / TICKS_PER_S


def measure(runner: str, rows: int, workers: int) -> tuple[dict[str, float], Curve]:
    mark = uuid4().hex
    with cleared_away("bench-ray-", mark) as folder:
        _check_room(folder, rows)
        command = [sys.executable, "-m", "safer_instruct.cli", "run", str(write_project(folder, rows)), "--out", str(folder / "out")]
        command += ["--runner", "ray", "--workers", str(workers)] if runner == "ray" else []
        here = {MARK: mark, "RAY_TMPDIR": str(folder)}  # Ray's logs go with the rest
        began = time.monotonic()
        with (folder / "said").open("wb") as said, subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=os.environ | here) as process:
            watch = Watch(mark, process.pid, folder, rows)
            while process.poll() is None:
                watch.look()
                time.sleep(EVERY_S)
        watch.curve.note_disk(rows, folder)
        assert process.returncode == 0, (folder / "said").read_text()
        summary = json.loads((folder / "out" / "summary.json").read_text())
    if os.environ.get("BENCH_BY_PROCESS"):
        print(f"CPU seconds: {watch.by_process()}", file=sys.stderr)
    mb = watch.driver_mb
    figures = {
        "rows": rows,
        "pairs": summary["pairs"],
        "cpu_s": watch.cpu_s,
        "wall_s": time.monotonic() - began,
        "driver_mb_at_half": mb[len(mb) // 2],
        "driver_mb_at_most": max(mb),
    }
    return figures, watch.curve


def _check_room(folder: Path, rows: int) -> None:
    free, wanted = shutil.disk_usage(folder).free, rows * BYTES_FOR_A_ROW
    if free < wanted:
        sys.exit(f"{rows:,} rows take up to {wanted / 1e9:.0f} GB on disk for a time, {folder.parent} has {free / 1e9:.0f} GB left; name another by TMPDIR")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--runners", nargs="+", default=["local", "ray"])
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {options.workers} workers for each part\n")
    print("| runner | examples | pairs | CPU s | ms per example | wall s | driver MB at half | driver MB at most |\n|---|---|---|---|---|---|---|---|")
    slopes: dict[str, float] = {}
    curves: list[tuple[str, Curve]] = []
    for runner in options.runners:
        found = []
        for rows in sorted(options.rows):
            one, curve = measure(runner, rows, options.workers)
            found.append(one)
            per = 1000 * one["cpu_s"] / one["rows"]
            print(
                f"| {runner} | {one['rows']:,} | {one['pairs']:,} | {one['cpu_s']:.1f} | {per:.2f} | {one['wall_s']:.0f} "
                f"| {one['driver_mb_at_half']:.0f} | {one['driver_mb_at_most']:.0f} |",
                flush=True,
            )
        curves.append((runner, curve))
        first, last = found[0], found[-1]
        if last["rows"] > first["rows"]:
            slopes[runner] = 1000 * (last["cpu_s"] - first["cpu_s"]) / (last["rows"] - first["rows"])
    for runner, slope in slopes.items():
        print(
            f"\n{runner}: {slope:.2f} ms of CPU for each further example"
            + (f", {slope / slopes['local']:.2f} times local" if runner != "local" and "local" in slopes else "")
        )
    for runner, curve in curves:
        print(f"\n{runner}, {curve.rows:,} examples: the most in each tenth, in the driver {curve.slope()}\n\n{curve.table()}")


if __name__ == "__main__":
    main()
