"""Expert evaluation by programs: what a response claims is checked by running something, in a sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from safer_instruct import sandbox
from safer_instruct.conversation import messages
from safer_instruct.domain import Domain, Program
from safer_instruct.errors import ConfigError
from safer_instruct.example import Draft, Example, Turn, Verdict
from safer_instruct.filters.checks import RAISED
from safer_instruct.oneline import one_line
from safer_instruct.sandbox import Limits, run_program
from safer_instruct.sandbox.run import environment
from safer_instruct.stages.functions import lacks
from safer_instruct.stages.verify import HopelessError, Verifier

_CALL = Path(sandbox.__file__).with_name("call.py")
_EXCEPTION = 3  # the exit code of call.py where the function raised one
_BESIDE = re.compile(r"\{folder\}/([^{}]+?)(?:::.*)?")  # of test.py::test_it the file
_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.M | re.S)
_REASON_CHARS = 300


class ProgramVerifier:
    """The programs of a domain first, each of which a chosen response must pass; then whoever judges besides."""

    def __init__(self, domain: Domain, judge: Verifier | None) -> None:
        """Find the programs.

        Args:
            domain: Says which.
            judge: Asked about drafts that pass all of them; None where the programs alone decide.

        Raises:
            ConfigError: A program is not there, or a category has none and nobody judges it.
        """
        self._judge = judge
        self._programs = {name: tuple(Runnable.of(program) for program in domain.programs(name)) for name in domain.categories}
        self._slots = asyncio.Semaphore(os.cpu_count() or 1)
        bare = [name for name, programs in self._programs.items() if not programs]
        if judge is None and bare:
            raise ConfigError(f"domain '{domain.name}', category '{bare[0]}': verify.form 'program' needs 'verifiers'; give them, or use another form")

    async def baseline(self, example: Example) -> float:
        """See `Verifier.baseline`; programs that the rejected text must not pass are asked first.

        Raises:
            HopelessError: It passes one.
        """
        for program in self._programs[example.category]:
            if program.spec.rejected_fails:
                found = await self._run(program, example, example.text)
                if found.passed:
                    raise HopelessError(replace(found, passed=False, reason="the rejected text passes it as well, so the pair would say nothing"))
        return await self._judge.baseline(example) if self._judge else 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`; a draft that fails a program is not shown to the judge."""
        found = [await self._run(program, example, draft.text) for program in self._programs[example.category]]
        draft = replace(draft, verdicts=(*draft.verdicts, *found))
        if self._judge is None or not all(v.passed for v in found):
            return draft
        return await self._judge.judge(example, draft, baseline)

    async def _run(self, program: Runnable, example: Example, response: str) -> Verdict:
        async with self._slots:
            return await program.verdict(example.prompt, response, example.history)


@dataclass(frozen=True, slots=True)
class Runnable:
    """A program that is there.

    Attributes:
        spec: As the domain says it.
        command: What is run; `{file}`, `{prompt}` and `{messages}` are filled in each time.
    """

    spec: Program
    command: tuple[str, ...]

    @classmethod
    def of(cls, spec: Program) -> Runnable:
        """Find it.

        Raises:
            ConfigError: It is not there, or a file of the domain that it is given is not.
        """
        folder = str(spec.folder.absolute())
        if spec.python is not None:
            return cls(spec, (sys.executable, "-I", str(_CALL), folder, _found(spec.python, spec), "{prompt}", "{messages}"))
        filled = [_filled(word, {"folder": folder, "python": sys.executable}) for word in spec.command]
        path = shutil.which(filled[0], path=environment(spec.folder)["PATH"] + os.pathsep + os.environ.get("PATH", ""))
        if path is None:
            hint = "; run: pip install 'safer-instruct[code]'" if filled[0] == "bandit" else ""
            raise ConfigError(f"verifier '{spec.title}': there is no program '{filled[0]}', neither beside this Python nor on the PATH; install it{hint}")
        for word in spec.command:
            if (beside := _BESIDE.fullmatch(word)) and not (spec.folder / beside[1]).exists():
                raise ConfigError(f"verifier '{spec.title}': there is no '{beside[1]}' in {folder}, which its command names")
        return cls(spec, (str(Path(path).absolute()), *filled[1:]))

    @property
    def verdict_name(self) -> str:
        """What its verdicts are called."""
        return f"verify.program.{self.spec.title}"

    async def verdict(self, prompt: str, response: str, history: Sequence[Turn] = ()) -> Verdict:
        """What it says of one response to a prompt, which comes after `history`."""
        spec = self.spec
        limits = Limits(timeout_s=spec.timeout_s, memory_mb=spec.memory_mb, output_kb=spec.output_kb)
        with tempfile.TemporaryDirectory(prefix="safer-instruct-") as folder:
            names = {"file": f"response{spec.suffix}", "prompt": "prompt.txt", "messages": "messages.json"}
            files = {name: Path(folder, file) for name, file in names.items()}
            held = {"file": code_of(response) if spec.reads == "code" else response, "prompt": prompt, "messages": json.dumps(messages(history, prompt))}
            for name, text in held.items():
                files[name].write_bytes(text.encode("utf-8", "replace"))
            ran = await run_program([_filled(word, {k: str(v) for k, v in files.items()}) for word in self.command], Path(folder), files["file"], limits)
        if not ran.confined:
            raise ConfigError(f"verifier '{spec.title}': {one_line(ran.tail)}")
        if ran.code == 0:
            return Verdict(self.verdict_name, True)
        if spec.python is not None and ran.code == _EXCEPTION:
            return Verdict(self.verdict_name, False, None, f"{RAISED}{_end_of(one_line(ran.tail))}")
        why = ran.stopped or (f"was killed by signal {-ran.code}" if ran.code and ran.code < 0 else f"exit code {ran.code}")
        said = one_line(ran.tail)
        return Verdict(self.verdict_name, False, None, f"{why}: {_end_of(said)}" if said else why)


def record(domain: Domain) -> dict[str, str]:
    """Verdict name -> digest of the files of its own that a program consists of, for `run.yaml`."""
    specs = {spec.title: spec for name in domain.categories for spec in domain.programs(name)}
    found = {f"verify.program.{title}": _digest(spec) for title, spec in specs.items()}
    return {name: digest for name, digest in found.items() if digest}


def code_of(response: str) -> str:
    """What stands in the fenced code blocks of a response, one below the other; all of it where it has none."""
    blocks: list[str] = _FENCED.findall(response)
    return "\n".join(blocks) if blocks else response


def _digest(spec: Program) -> str:
    named = [spec.python.rpartition(":")[0]] if spec.python else [_filled(word, {"folder": str(spec.folder)}) for word in spec.command]
    files = [spec.folder / word for word in named if (spec.folder / word).is_file()]
    own = [file for file in files if file.resolve().is_relative_to(spec.folder.resolve())]
    return hashlib.sha256(b"".join(file.read_bytes() for file in own)).hexdigest() if own else ""


def _found(target: str, spec: Program) -> str:
    place, _, name = target.rpartition(":")
    own = spec.folder / (place if place.endswith(".py") else f"{place.replace('.', '/')}.py")
    file = own if own.is_file() else _installed(place)
    if file is None:
        raise ConfigError(f"verifier '{spec.title}': there is no '{place}', neither in {spec.folder.absolute()} nor installed")
    if file.suffix == ".py" and (why := lacks(file, name)):
        raise ConfigError(f"verifier '{spec.title}': {why}")
    return target


def _installed(module: str) -> Path | None:
    """Where it is; of one that is no file, a path without an ending."""
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(found.origin or "") if found else None


def _filled(word: str, values: dict[str, str]) -> str:
    """`word` with `{name}` replaced by its value; other braces stay, and what a value says is not looked at again."""
    return re.sub(r"\{(" + "|".join(values) + r")\}", lambda found: values[found.group(1)], word)


def _end_of(said: str) -> str:
    return said if len(said) <= _REASON_CHARS else "..." + said[-_REASON_CHARS:]
