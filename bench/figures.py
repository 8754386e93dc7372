"""Every figure of README and docs that `figures.yaml` names, measured again and set beside what is claimed.

    python bench/figures.py --list                # what there is, and how long it takes
    python bench/figures.py                       # what takes at most two minutes each
    python bench/figures.py --minutes 60          # everything up to an hour
    python bench/figures.py --only gates routing  # these
    python bench/figures.py --skip gates routing  # all but these: the last line of a run that was cut short says which are left

A claim is a phrase that stands in a file, its numbers in braces: `AUC of log P {0.760}`. The command's output is searched for the same
phrase with any numbers, or for `find`, a regular expression with a group for each of them. They agree if they differ by no more
than `within`, or by no more than the factor `times`; without either they must be the same. Commands of `first` make what the measured one needs; in
all of them FOLDER is an empty folder, and DEMO the run directory of 'make demo'. A command that fails, or that takes six times as long as it should and is
ended for it, is named; the others go on. Ends with 1 if a claim does not agree or a command failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
_MARKED = re.compile(r"\{([^{}]+)\}")
_DEMO = "safer-instruct run examples/civility.yaml --out DEMO"  # what 'make demo' runs
_NUMBER = r"([-+]?\d[\d,]*(?:\.\d+)?)"


@dataclass(frozen=True, slots=True)
class Claim:
    """A phrase of a file, and what it says.

    Attributes:
        file: Where it stands, relative to the repository.
        says: The phrase, numbers in braces.
        find: What finds the same numbers in the output.
        within: How far each may be off.
        times: By which factor each may be off, both ways.
    """

    file: str
    says: str
    find: re.Pattern[str]
    within: float
    times: float

    @property
    def phrase(self) -> str:
        """As it stands in the file."""
        return _MARKED.sub(r"\1", self.says)

    @property
    def numbers(self) -> list[float]:
        """What it claims."""
        return [_number(text) for text in _MARKED.findall(self.says)]

    def agrees(self, found: list[float]) -> bool:
        """Whether what was measured is what is claimed."""
        return all(_close(a, b, self.within, self.times) for a, b in zip(self.numbers, found, strict=True))


@dataclass(frozen=True, slots=True)
class Measurement:
    """A command, and what is claimed of its output.

    Attributes:
        name: What `--only` calls it.
        command: A script of this folder, or the program, with its arguments.
        minutes: What it takes on two idle cores.
        claims: What it is to say.
        first: Commands that make what it needs.
        note: What else is to be known before it is run.
    """

    name: str
    command: str
    minutes: float
    claims: tuple[Claim, ...]
    first: tuple[str, ...] = ()
    note: str = ""

    @property
    def limit_s(self) -> float:
        """When it is given up: a busy machine is slow, a process that hangs is for ever."""
        return max(600.0, 360 * self.minutes)


def load(path: Path = ROOT / "bench" / "figures.yaml") -> list[Measurement]:
    """All measurements, in the order of the file."""
    return [
        Measurement(
            name,
            given["command"],
            given["minutes"],
            tuple(_claim(c, given.get("file", "bench/README.md")) for c in given["claims"]),
            tuple(given.get("first", ())),
            given.get("note", ""),
        )
        for name, given in yaml.safe_load(path.read_text("utf-8")).items()
    ]


def _claim(given: dict[str, Any], file: str) -> Claim:
    says = given["says"]
    pieces = [re.escape(text) for text in _MARKED.split(says)[::2]]
    find = given.get("find", _NUMBER.join(pieces)).replace("NUMBER", _NUMBER)
    return Claim(given.get("file", file), says, re.compile(find, re.MULTILINE), given.get("within", 0.0), given.get("times", 1.0))


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _close(claimed: float, found: float, within: float, times: float) -> bool:
    if abs(claimed - found) <= within + 1e-9:
        return True
    return times > 1 and claimed > 0 and claimed / times <= found <= claimed * times


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="measure what takes at most so long")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measure these, however long they take")
    parser.add_argument("--skip", nargs="+", metavar="NAME", default=[], help="leave these out")
    parser.add_argument("--list", action="store_true", help="show what there is")
    parser.add_argument("--demo", type=Path, help="the run directory of 'make demo', where there is one; it is made otherwise")
    given = parser.parse_args()
    every = load()
    if unknown := {*(given.only or ()), *given.skip} - {m.name for m in every}:
        parser.error(f"no measurement {', '.join(sorted(unknown))}; there are {', '.join(m.name for m in every)}")
    if given.list:
        for m in every:
            print(f"{m.name:<20} {m.minutes:6.1f} min  {len(m.claims):3} claims  {m.command}{m.note and f'   ({m.note})'}")
        return 0
    chosen = [m for m in every if m.name not in given.skip and (m.name in given.only if given.only else m.minutes <= given.minutes)]
    return measure_all(every, chosen, given.demo)


def measure_all(every: list[Measurement], chosen: list[Measurement], demo: Path | None = None) -> int:
    """Print a row for each claim of the chosen ones, and a total, also of those that were measured before Ctrl-C.

    Returns:
        Exit code 1 if a claim is off, a command failed, or not all were measured.
    """
    print("| measurement | claimed | found | |\n|---|---|---|---|", flush=True)
    done: list[Measurement] = []
    off, failed = 0, []
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        for m in chosen:
            wrong, ran = _measure(m, demo or Path(folder) / "demo")
            off += wrong
            failed += [] if ran else [m.name]
            done.append(m)
    print(f"\n{sum(len(m.claims) for m in done)} claims of {len(done)} commands, {off} off", end="")
    print(f"; failed: {' '.join(failed)}" if failed else "; none failed", end="")
    left = [m.name for m in every if m not in done]
    print(f"; not measured: {' '.join(left)}" if left else "", flush=True)
    return int(off > 0 or bool(failed) or len(done) < len(chosen))


def _measure(measurement: Measurement, demo: Path) -> tuple[int, bool]:
    """Run one command, print a row for each claim, and say how many do not agree, and whether the command ended well."""
    began, output, well = time.monotonic(), "", True
    with tempfile.TemporaryDirectory() as folder:
        lacks_demo = "DEMO" in measurement.command and not demo.exists() and measurement.command != _DEMO
        for command in (*([_DEMO] if lacks_demo else ()), *measurement.first, measurement.command):
            output, well = _run(command, {"DEMO": str(demo), "FOLDER": folder}, measurement.limit_s)
            if not well:
                break
    wrong = 0
    for claim in measurement.claims:
        match = claim.find.search(output)
        found = [_number(text) for text in match.groups()] if match else []
        fits = bool(match) and claim.agrees(found)
        wrong += not fits
        shown = ", ".join(f"{value:g}" for value in found) or "nothing in the output"
        print(f"| {measurement.name} | {claim.phrase.strip('| ').replace('|', '/')} | {shown} | {'' if fits else '**off**'} |", flush=True)
    print(f"| {measurement.name} | | {time.monotonic() - began:.0f} s | {'' if well else '**failed**'} |", flush=True)
    return wrong, well


def _run(command: str, places: dict[str, str], limit_s: float) -> tuple[str, bool]:
    """What a command says, and whether it ended well and in time; `bench/x.py` is run by this Python."""
    words = [reduce(lambda word, name: word.replace(name, places[name]), places, word) for word in shlex.split(command)]
    program = [str(Path(sys.executable).with_name("safer-instruct"))] if words[0] == "safer-instruct" else [sys.executable, words[0]]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        settings: dict[str, Any] = {"cwd": ROOT, "env": os.environ | {"COLUMNS": "200"}, "stdout": said, "stderr": complained, "start_new_session": True}
        with subprocess.Popen([*program, *words[1:]], **settings) as process:
            try:
                code = process.wait(limit_s)
                how = f"ended with {code}" if code else ""
            except subprocess.TimeoutExpired:
                how = f"did not end within {limit_s:.0f} s"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
        said.seek(0)
        complained.seek(0)
        output = (said.read() + complained.read()).decode(errors="replace")
    if how:
        print(f"{command}: {how}: {output[-400:]}", file=sys.stderr, flush=True)
    return output, not how


if __name__ == "__main__":
    sys.exit(main())
