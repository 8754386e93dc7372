"""What the Ray runner costs beside the local one, with scripted models: CPU per example of all processes, and the driver's memory.

    .venv-dev/bin/python bench/ray_runner.py --rows 2000 20000
    .venv-dev/bin/python bench/ray_runner.py --rows 300000 --runners ray

CPU is user and system time of every process that a run starts, read from /proc four times a second and at the end; what a
process takes after its last reading is missing. Of several sizes the difference between the largest and the smallest counts,
so what a cluster takes to start is told apart from what an example takes. With BENCH_BY_PROCESS=1 it is told by kind of process, too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import yaml

NOUNS = ["umbrella", "kettle", "parcel", "lamp", "cake", "card", "bicycle", "ticket", "tent", "ladder", "sofa", "piano", "garden", "window", "carpet"]
VERBS = ["broke", "bent", "melted", "vanished", "leaked", "cracked", "rusted", "froze", "burned", "sank", "shrank", "tore", "faded", "snapped"]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
EVERY_S = 0.25


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
    """CPU seconds of all processes that carry a mark in their environment, and the memory of one of them."""

    def __init__(self, mark: str, driver: int) -> None:
        self._mark, self._driver = f"BENCH_RUN={mark}".encode(), driver
        self._ticks: dict[str, int] = {}
        self._ours: dict[str, bool] = {}
        self._names: dict[str, str] = {}
        self.driver_mb: list[float] = []

    def look(self) -> None:
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with suppress(OSError):
                    self._look_at(folder)
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{self._driver}/status").read_text().splitlines()
            self.driver_mb.append(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")))

    def _look_at(self, folder: Path) -> None:
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        name = f"{folder.name}-{stat[19]}"  # with its time of start: ids come again
        if not self._ours.get(name):  # between fork and exec it has another environment
            self._ours[name] = self._mark in (folder / "environ").read_bytes()
        if self._ours[name]:
            self._ticks[name] = int(stat[11]) + int(stat[12])
            said = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            self._names[name] = said or self._names.get(name, "")  # actors change theirs, and who has just ended has none

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


def measure(runner: str, rows: int, workers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-ray-") as name:
        folder, mark = Path(name), uuid4().hex
        command = [sys.executable, "-m", "safer_instruct.cli", "run", str(write_project(folder, rows)), "--out", str(folder / "out")]
        command += ["--runner", "ray", "--workers", str(workers)] if runner == "ray" else []
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"BENCH_RUN": mark}) as process:
            watch = Watch(mark, process.pid)
            while process.poll() is None:
                watch.look()
                time.sleep(EVERY_S)
            assert process.stdout
            said = process.stdout.read().decode()
        assert process.returncode == 0, said
        summary = json.loads((folder / "out" / "summary.json").read_text())
    if os.environ.get("BENCH_BY_PROCESS"):
        print(f"CPU seconds: {watch.by_process()}", file=sys.stderr)
    mb = watch.driver_mb
    return {
        "rows": rows,
        "pairs": summary["pairs"],
        "cpu_s": watch.cpu_s,
        "wall_s": time.monotonic() - began,
        "driver_mb_at_half": mb[len(mb) // 2],
        "driver_mb_at_most": max(mb),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--runners", nargs="+", default=["local", "ray"])
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {options.workers} workers for each part\n")
    print("| runner | examples | pairs | CPU s | ms per example | wall s | driver MB at half | driver MB at most |\n|---|---|---|---|---|---|---|---|")
    slopes: dict[str, float] = {}
    for runner in options.runners:
        found = [measure(runner, rows, options.workers) for rows in sorted(options.rows)]
        for one in found:
            per = 1000 * one["cpu_s"] / one["rows"]
            print(
                f"| {runner} | {one['rows']:,} | {one['pairs']:,} | {one['cpu_s']:.1f} | {per:.2f} | {one['wall_s']:.0f} "
                f"| {one['driver_mb_at_half']:.0f} | {one['driver_mb_at_most']:.0f} |",
                flush=True,
            )
        first, last = found[0], found[-1]
        if last["rows"] > first["rows"]:
            slopes[runner] = 1000 * (last["cpu_s"] - first["cpu_s"]) / (last["rows"] - first["rows"])
    for runner, slope in slopes.items():
        print(
            f"\n{runner}: {slope:.2f} ms of CPU for each further example"
            + (f", {slope / slopes['local']:.2f} times local" if runner != "local" and "local" in slopes else "")
        )


if __name__ == "__main__":
    main()
