"""Every figure of README and docs that `figures.yaml` names, measured again and set beside what is claimed.

    python bench/figures.py --list                # what there is, and how long it takes
    python bench/figures.py                       # what takes at most two minutes each
    python bench/figures.py --minutes 60          # everything up to an hour
    python bench/figures.py --only gates routing  # these

A claim is a phrase that stands in a file, its numbers in braces: `AUC of log P {0.760}`. The command's output is searched for the same
phrase with any numbers, or for `find`, a regular expression with a group for each of them. They agree if they differ by no more
than `within`, or by no more than the factor `times`; without either they must be the same. Ends with 1 if one does not agree.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
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
    """A command, and what is claimed of its output."""

    name: str
    command: str
    minutes: float
    claims: tuple[Claim, ...]


def load(path: Path = ROOT / "bench" / "figures.yaml") -> list[Measurement]:
    """All measurements, in the order of the file."""
    return [
        Measurement(name, given["command"], given["minutes"], tuple(_claim(c, given.get("file", "bench/README.md")) for c in given["claims"]))
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
    parser.add_argument("--list", action="store_true", help="show what there is")
    parser.add_argument("--demo", type=Path, help="the run directory of 'make demo', where there is one; it is made otherwise")
    given = parser.parse_args()
    every = load()
    if unknown := set(given.only or ()) - {m.name for m in every}:
        parser.error(f"no measurement {', '.join(sorted(unknown))}; there are {', '.join(m.name for m in every)}")
    if given.list:
        for m in every:
            print(f"{m.name:<18} {m.minutes:6.1f} min  {len(m.claims):3} claims  {m.command}")
        return 0
    chosen = [m for m in every if (m.name in given.only if given.only else m.minutes <= given.minutes)]
    print("| measurement | claimed | found | |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        wrong = sum(_measure(m, given.demo or Path(folder) / "demo") for m in chosen)
    left = [m.name for m in every if m not in chosen]
    print(f"\n{sum(len(m.claims) for m in chosen)} claims, {wrong} off" + (f"; not measured: {', '.join(left)}" if left else ""))
    return min(wrong, 1)


def _measure(measurement: Measurement, demo: Path) -> int:
    """Run one command, print a row for each claim, and say how many do not agree."""
    if "DEMO" in measurement.command and not demo.exists() and measurement.command != _DEMO:
        _run(_DEMO, demo)
    began = time.monotonic()
    output = _run(measurement.command, demo)
    took, wrong = time.monotonic() - began, 0
    for claim in measurement.claims:
        match = claim.find.search(output)
        found = [_number(text) for text in match.groups()] if match else []
        fits = bool(match) and claim.agrees(found)
        wrong += not fits
        shown = ", ".join(f"{value:g}" for value in found) or "nothing in the output"
        print(f"| {measurement.name} | {claim.phrase.strip('| ').replace('|', '/')} | {shown} | {'' if fits else '**off**'} |", flush=True)
    print(f"| {measurement.name} | | {took:.0f} s | |", flush=True)
    return wrong


def _run(command: str, demo: Path) -> str:
    """What a command says; `bench/x.py` is run by this Python, `DEMO` is the demo's run directory."""
    words = shlex.split(command.replace("DEMO", shlex.quote(str(demo))))
    program = [str(Path(sys.executable).with_name("safer-instruct"))] if words[0] == "safer-instruct" else [sys.executable, words[0]]
    done = subprocess.run([*program, *words[1:]], cwd=ROOT, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{command}: ended with {done.returncode}: {done.stderr[-400:]}", file=sys.stderr)
    return done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
