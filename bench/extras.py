"""What each extra adds: packages and MB in site-packages, beside the base install.

    python bench/extras.py                     of what is installed here: what an extra requires, and what that requires, by the packages' own lists of files
    python bench/extras.py --install litellm   into an empty folder, for extras that are not here: minutes, and a download

Bytecode is not counted. With --install torch is taken as `--torch` says, since without it pip takes a CUDA build of several GB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
NAME = "safer-instruct"
Sizes = dict[str, float]  # package -> MB


def main() -> None:
    extras = sorted(distribution(NAME).metadata.get_all("Provides-Extra") or [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", nargs="+", choices=extras, default=[], metavar="EXTRA")
    parser.add_argument("--torch", default="torch==2.13.0", help="The torch that extras with torch get.")
    given = parser.parse_args()
    base = {**_closure(NAME, ""), NAME: _source_mb()}
    print(f"| extra | packages beyond the base | MB | the largest |\n|---|---|---|---|\n| none | {len(base)} | {sum(base.values()):,.0f} | {_largest(base)} |")
    for extra in given.install or extras:
        try:
            found = _installed(extra, given.torch) if given.install else _closure(NAME, extra)
        except PackageNotFoundError as exc:
            print(f"| `{extra}` | not measured here: {exc.name} is not installed | | |", flush=True)
            continue
        more = {name: mb for name, mb in found.items() if name not in base}
        print(f"| `{extra}` | {len(more)} | {sum(more.values()):,.0f} | {_largest(more)} |", flush=True)


def _largest(sizes: Sizes) -> str:
    return ", ".join(f"{name} {mb:,.0f}" for name, mb in sorted(sizes.items(), key=lambda one: -one[1])[:3])


def _source_mb() -> float:
    """The package itself, which may be installed as a link to the checkout."""
    return sum(path.stat().st_size for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc") / 1e6


def _closure(name: str, extra: str) -> Sizes:
    """Everything that a package with an extra needs, itself included."""
    found, left = {}, [(name, extra)]
    seen = set(left)
    while left:
        of, with_extra = left.pop()
        found[of] = _mb(of)
        for needed in _required(of, with_extra):
            if needed not in seen:
                seen.add(needed)
                left.append(needed)
    return found


def _required(name: str, extra: str) -> Iterator[tuple[str, str]]:
    for line in distribution(name).requires or []:
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": extra}):
            plain = needed.name.lower().replace("_", "-").replace(".", "-")
            yield plain, ""
            yield from ((plain, one) for one in needed.extras)


def _mb(name: str) -> float:
    files = distribution(name).files or []
    return sum(file.size or 0 for file in files if file.suffix != ".pyc") / 1e6


def _installed(extra: str, torch: str) -> Sizes:
    """The same, of an install into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        held, target = Path(folder, "held.txt"), Path(folder, "site")
        held.write_text(f"{torch}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", "--target", str(target)]
        subprocess.run([*command, "--constraint", str(held), f"{ROOT}[{extra}]"], check=True)
        return {path.name.partition("-")[0].lower().replace("_", "-"): _recorded(path / "RECORD") for path in target.glob("*.dist-info")}


def _recorded(record: Path) -> float:
    sizes = (line.rsplit(",", 1)[1] for line in record.read_text("utf-8").splitlines())
    return sum(int(size) for size in sizes if size) / 1e6


if __name__ == "__main__":
    main()
