"""Start-up of every command: the help of each, and the light ones on a small run of scripted models.

    python bench/startup.py                    five times each; `--times 9` for more, `--only audit "python -c"` for commands that hold one of these

Wall time is the median; CPU is user and system time of the process, the median too, and does not depend on what else the machine does; the peak
is the most that the process had in memory. 'python -c pass' is the floor: it is measured again beside every run of every command, and `floors` says how many
of these a command takes, which a busy machine changes least.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
LIGHT = (
    "--version",
    "init civility --dir made",
    "domain list",
    "domain check civility",
    "models list",
    "status runs/civility",
    "filters runs/civility",
    "why runs/civility ID",
    "ledger runs/civility",
    "export runs/civility --format jsonl",
    "select runs/civility",
    "calibrate runs/civility --sheet sheet.csv",
    "audit pairs.jsonl",
    "report runs/civility",
    "evaluate --power",
    "run civility.yaml --out runs/civility",
)


FLOOR = [sys.executable, "-c", "pass"]


class Taken(NamedTuple):
    wall_s: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--lay-out", metavar="FOLDER", help="Only make the folder that commands are given in, and say which there are.")
    given = parser.parse_args()
    if given.lay_out:
        print(json.dumps(_lay_out(Path(given.lay_out))))
        return
    ours = [sys.executable, "-m", "safer_instruct.cli"]
    with tempfile.TemporaryDirectory() as folder:
        desk = Path(folder, "desk")
        told = json.loads(subprocess.run([sys.executable, __file__, "--lay-out", str(desk)], check=True, capture_output=True, text=True).stdout)
        lines = [*(f"{name} --help".strip() for name in told["commands"]), *LIGHT]
        cases = {"python -c pass": FLOOR, "python -c 'import safer_instruct'": [sys.executable, "-c", "import safer_instruct"]}
        cases |= {line: [*ours, *shlex.split(line.replace("ID", told["id"]))] for line in lines}
        print(f"load before: {os.getloadavg()[0]:.1f}\n\n| command | floors | wall ms | CPU ms | peak MB |\n|---|---|---|---|---|", flush=True)
        for line, command in cases.items():
            if any(part in line for part in given.only):
                several, floor = zip(*((_measure(command, desk), _measure(FLOOR, desk)) for _ in range(given.times)), strict=True)
                floors = statistics.median(one.cpu_s for one in several) / statistics.median(one.cpu_s for one in floor)
                wall, cpu = (1000 * statistics.median(getattr(one, name) for one in several) for name in ("wall_s", "cpu_s"))
                print(f"| `{line}` | {floors:,.1f} | {wall:,.0f} | {cpu:,.0f} | {max(one.peak_mb for one in several):,.0f} |", flush=True)


def _lay_out(desk: Path) -> dict[str, Any]:
    """Make the folder, in a process of its own: one that has loaded much gives its memory to the peak of every child."""
    sys.path.insert(0, str(ROOT / "tests"))
    import typer
    from doc_desk import first_id, lay_out  # the folder that the docs' commands are tested in

    from safer_instruct.cli import app

    lay_out(desk)
    return {"id": first_id(desk / "runs" / "civility"), "commands": list(_commands(typer.main.get_command(app)))}


def _commands(command: Any, name: str = "") -> Iterator[str]:
    """Names of a command and of all below it."""
    yield name
    for part, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{name} {part}".strip())


def _measure(command: list[str], desk: Path) -> Taken:
    """One process, from its start to its end."""
    for made in ("made", "sheet.csv"):
        subprocess.run(["rm", "-rf", made], cwd=desk, check=True)
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=desk, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "120"}) as process:
        assert process.stderr
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)}: exit code {process.returncode}\n{said.decode()}")
    return Taken(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
