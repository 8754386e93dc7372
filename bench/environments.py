"""Environments of the measured clients: one each, made on demand from what the head of the client's script asks for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "safer-instruct" / "bench"
_BLOCK = re.compile(r"^# /// script$\n(?P<body>(?:^#(?: .*)?$\n)+?)^# ///$", re.MULTILINE)  # PEP 723
_INSTALL_TIMEOUT_S = 900


class UnavailableError(Exception):
    """A client cannot be installed here."""


def requirements(script: Path) -> list[str]:
    """What a script says that it needs, in the inline metadata of PEP 723; nothing where it has none."""
    block = _BLOCK.search(script.read_text())
    if not block:
        return []
    body = "".join(line.removeprefix("#").removeprefix(" ") for line in block["body"].splitlines(keepends=True))
    return list(tomllib.loads(body)["dependencies"])


def interpreter(script: Path) -> Path:
    """The Python to run a script with: this one where the script asks for nothing, else one of its own.

    Raises:
        UnavailableError: pip failed.
    """
    wanted = requirements(script)
    if not wanted:
        return Path(sys.executable)
    folder = CACHE / script.stem
    python, mark = folder / "bin" / "python", folder / "installed.txt"
    if not mark.exists() or mark.read_text().splitlines() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing {', '.join(wanted)} into {folder}", file=sys.stderr)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
        mark.write_text("\n".join(wanted) + "\n")
    return python


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    except subprocess.CalledProcessError as exc:
        said = (exc.stderr or exc.stdout).splitlines()
        raise UnavailableError(next((line for line in reversed(said) if line.startswith("ERROR")), f"{command[1:4]} failed")) from exc
    except subprocess.TimeoutExpired as exc:
        raise UnavailableError(f"pip was not done after {_INSTALL_TIMEOUT_S} s") from exc
