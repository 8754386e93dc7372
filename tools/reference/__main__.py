"""Write docs/reference from the code: `python tools/reference`, or with `--check` only tell what is not up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import api
import cli
import config

DOCS = Path(__file__).parents[2] / "docs" / "reference"
PAGES = {"cli.md": cli.page, "config.md": config.page, "python.md": api.page}
NOTE = "<!-- Written by tools/reference from the code: change the docstring there, then run `make reference`. -->\n\n"


def main() -> int:
    """Exit code 1 where `--check` finds a page that is not what the code says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, NOTE + page().rstrip() + "\n"
        if check and (not path.is_file() or path.read_text("utf-8") != text):
            stale.append(str(path.relative_to(DOCS.parents[1])))
        elif not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"not what the code says: {', '.join(stale)}; run: make reference\n")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
