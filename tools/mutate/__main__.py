"""Change the core one small thing at a time and see whether a test notices: `python tools/mutate [ROOM or FILE ...]`.

rooms.yaml       the files of each room, and the quick tests that hold them
equivalent.yaml  changes that no test can notice, each with its reason
mutants.py       which changes there are
trial.py         a copy of the repository in which they are tried, one after the other
session.py       a pytest session that runs its tests once as they are, and again for each mutant
swapping.py      a mutant put into modules that are imported already
forking.py       something done in a process of its own

A mutant meets the tests that run a line of its statement, the quickest first, until one fails. Where there are more than `--sample` in a file,
that many are drawn by `--seed`. The score is what was killed of all that were tried and are not equivalent; one that no test reaches has survived.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from mutants import Mutant, find_mutants, sample_mutants
from trial import ROOT, Copy

HERE = Path(__file__).parent
SOURCE = "src/safer_instruct/"


@dataclass(slots=True)
class Score:
    """What became of the mutants of one file."""

    file: str
    of: int
    ends: Counter[str] = field(default_factory=Counter)

    def row(self) -> str:
        """For the table."""
        ends = self.ends
        killed, counted = ends["killed"] + ends["hung"], ends.total() - ends["equivalent"]
        share = f"{killed / counted:.0%}" if counted else ""
        return f"| `{self.file}` | {self.of} | {ends.total()} | {killed} | {ends['equivalent']} | {ends['survived'] + ends['unreached']} | {share} |"


def main() -> None:
    """Print the table, and below it what survived."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("chosen", nargs="*", help="rooms of rooms.yaml or files below src/safer_instruct; all, if none")
    parser.add_argument("--sample", type=int, default=25, help="most mutants of a file (25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="only print the mutants")
    options = parser.parse_args()
    rooms = yaml.safe_load((HERE / "rooms.yaml").read_text("utf-8"))
    equivalent = yaml.safe_load((HERE / "equivalent.yaml").read_text("utf-8")) or {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy goes, too
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:  # noqa: S108 - a disk's fsync is most of what a ledger's test takes
        copy = None if options.list else Copy(Path(folder))
        for name, room in rooms.items():
            files = [file for file in room["files"] if not options.chosen or {name, file} & set(options.chosen)]
            if files:
                _try_room(copy, name, room, files, equivalent, options)


def _try_room(
    copy: Copy | None, name: str, room: dict[str, list[str]], files: list[str], equivalent: dict[str, dict[str, str]], options: argparse.Namespace
) -> None:
    scores, survivors, tried = {}, [], {}
    for file in files:
        found = find_mutants((ROOT / SOURCE / file).read_bytes())
        scores[SOURCE + file] = Score(file, len(found))
        drawn = sample_mutants(found, options.sample, f"{options.seed}:{file}")
        tried[SOURCE + file] = [mutant for mutant in drawn if mutant.key not in equivalent.get(file, {})]
        scores[SOURCE + file].ends["equivalent"] = len(drawn) - len(tried[SOURCE + file])
        if copy is None:
            sys.stdout.writelines(f"{file}:{mutant}\n" for mutant in drawn)

    def told(file: str, mutant: Mutant, end: str) -> None:
        scores[file].ends[end] += 1
        if end in ("survived", "unreached"):
            survivors.append(f"{end} {file.removeprefix(SOURCE)}:{mutant}")

    if copy:
        copy.try_all(tried, [f"tests/unit/{test}" for test in room["tests"]], room.get("without", []), told)
        whole = Score(f"{name}, all", sum(score.of for score in scores.values()), sum((score.ends for score in scores.values()), Counter()))
        head = "| file | mutants | tried | killed | equivalent | survived | score |\n|---|---|---|---|---|---|---|\n"
        sys.stdout.write("\n" + head + "\n".join(score.row() for score in [*scores.values(), whole]) + "\n\n" + "\n".join(survivors) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
