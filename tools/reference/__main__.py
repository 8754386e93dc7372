"""Write what the documentation says of the code: `python tools/reference`, or with `--check` only tell what is not up to date.

config.py                   docs/reference/config.md: every key of every YAML file
cli.py                      docs/reference/cli.md: every command and option
api.py                      docs/reference/python.md: the public names
rooms.py, architecture.py   docs/architecture.svg, and the table in docs/architecture.md: rooms, imports, the way of one text
docstrings.py               what all of them read
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import api
import architecture
import cli
import config

DOCS = Path(__file__).parents[2] / "docs"
NOTE = "<!-- Written by tools/reference from the code: change the docstring there, then run `make reference`. -->\n\n"
BEGIN, END = "<!-- rooms:begin -->", "<!-- rooms:end -->"


def main() -> int:
    """Exit code 1 where `--check` finds a file that is not what the code says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for path, text in written().items():
        if check and (not path.is_file() or path.read_text("utf-8") != text):
            stale.append(str(path.relative_to(DOCS.parent)))
        elif not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"not what the code says: {', '.join(stale)}; run: make reference\n")
    return bool(stale)


def written() -> dict[Path, str]:
    """Every file, and what is to stand in it."""
    pages = {"config.md": config.page(), "cli.md": cli.page(), "python.md": api.page()}
    found = {DOCS / "reference" / name: NOTE + text.rstrip() + "\n" for name, text in pages.items()}
    house = DOCS / "architecture.md"
    before, _, rest = house.read_text("utf-8").partition(BEGIN)
    _, _, behind = rest.partition(END)
    with_table = f"{before}{BEGIN}\n{architecture.table()}\n{END}{behind}"
    return {**found, DOCS / "architecture.svg": architecture.picture(), house: with_table}


if __name__ == "__main__":
    sys.exit(main())
