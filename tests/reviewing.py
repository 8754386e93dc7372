"""Finished run directories to review, and a review server in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from runs import summed_up

from safer_instruct import rundir, tables
from safer_instruct.example import Example, Verdict


def write_run(path: Path, texts: Sequence[tuple[str, str, str]], *, dropped: int = 0) -> Path:
    """A finished run of (prompt, chosen, rejected), the last `dropped` of which a check dropped; in the place of another one if `path` holds one."""
    path.mkdir(parents=True, exist_ok=True)
    (path / rundir.SUMMARY).unlink(missing_ok=True)
    with tables.outputs(path) as out:
        for number, (prompt, chosen, rejected) in enumerate(texts):
            example = Example(f"x{number:03}", rejected, "support", "texts.jsonl", number + 1, prompt=prompt, chosen=chosen, margin=0.5)
            passed = number < len(texts) - dropped
            out.add(example.with_verdicts(Verdict("verify.better", passed, 0.5, "" if passed else "not better")))
    (path / rundir.SUMMARY).write_text(json.dumps(summed_up(path)), "utf-8")
    (path / rundir.RUN).write_text("config: {domain: civility}\n", "utf-8")
    return path


class Server:
    """`safer-instruct review` as a user starts it; `addresses` by annotator."""

    def __init__(self, path: Path, *names: str, port: int = 0, options: Sequence[str] = ()) -> None:
        named = [argument for name in names for argument in ("--annotator", name)]
        ports = ["--port", str(port)] if port else []
        command = [sys.executable, "-m", "safer_instruct.cli", "review", str(path), "--no-browser", *named, *ports, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addresses: dict[str, str] = {}
        assert self.process.stdout
        while len(self.addresses) < len(names):
            line = self.process.stdout.readline()
            assert line, "the server ended"
            if found := re.match(r"(\S+): (http\S+)", line):
                self.addresses[found[1]] = found[2]

    @property
    def port(self) -> int:
        return int(re.findall(r":(\d+)/", next(iter(self.addresses.values())))[0])

    def kill(self) -> None:
        """As the out-of-memory killer would."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
