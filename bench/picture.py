"""Draw what a finished run prints as an SVG, for the README:  python bench/picture.py runs/civility docs/demo.svg"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from safer_instruct.rundir import read_summary
from safer_instruct.terminal import show_summary


def main() -> None:
    """Record the summary of a run and write the SVG."""
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    console = Console(record=True, width=110, force_terminal=True)
    show_summary(console, run, read_summary(run))
    out.parent.mkdir(parents=True, exist_ok=True)
    console.save_svg(str(out), title="safer-instruct run examples/civility.yaml")


if __name__ == "__main__":
    main()
