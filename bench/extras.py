"""What each extra adds: packages and MB in site-packages, beside the base install.

    python bench/extras.py               every extra, each into an empty folder of its own; `--only local review` for some of them

Nothing is compiled to bytecode. torch is taken as `--torch` says, since without it pip takes a CUDA build of several GB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    extras = list(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    parser.add_argument("--only", nargs="+", choices=extras, default=extras)
    parser.add_argument("--torch", default="torch==2.13.0", help="The torch that extras with torch get.")
    given = parser.parse_args()
    print("| install | packages | MB | beyond the base |\n|---|---|---|---|", flush=True)
    base_count, base_mb = _installed("", given.torch)
    print(f"| `safer-instruct` | {base_count} | {base_mb:,.0f} | |", flush=True)
    for extra in given.only:
        try:
            count, mb = _installed(f"[{extra}]", given.torch)
        except subprocess.CalledProcessError as exc:
            print(f"{extra}: not measured: {(exc.stderr or '').strip().splitlines()[-1:]}", file=sys.stderr)
            continue
        print(f"| `[{extra}]` | {count} | {mb:,.0f} | {count - base_count} packages, {mb - base_mb:,.0f} MB |", flush=True)


def _installed(extra: str, torch: str) -> tuple[int, float]:
    """How many packages an install has, and their megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        held, target = Path(folder, "held.txt"), Path(folder, "site")
        held.write_text(f"{torch}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", "--target", str(target)]
        subprocess.run([*command, "--constraint", str(held), f"{ROOT}{extra}"], check=True, capture_output=True, text=True)
        return len(list(target.glob("*.dist-info"))), sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
