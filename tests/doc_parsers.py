"""Commands read by the programs' own parsers, and not run."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
import tomllib
from functools import cache
from typing import Any

import pytest
import typer
from doc_rules import OTHER_PACKAGES
from documented import ROOT

from safer_instruct.cli import app
from safer_instruct.config import load_config, load_tune_config
from safer_instruct.evaluation.settings import load_evaluation
from safer_instruct.remote.arguments import addresses
from safer_instruct.settings.preference import load_dpo_config, load_sft_config
from safer_instruct.storage.address import parse as parse_address
from safer_instruct.study.settings import load_study

LOADERS: dict[str, Any] = {
    "run": load_config,
    "tune": load_tune_config,
    "evaluate": load_evaluation,
    "study": load_study,
    "train sft": load_sft_config,
    "train dpo": load_dpo_config,
}
_UsageError: Any = typer.BadParameter.__mro__[1]  # typer does not export it
_FILE = re.compile(r"^(?:bench|deploy|examples|tests|tools)/[\w./-]+$")


class _ParsedError(Exception):
    """A script's arguments were good."""


def read_command(text: str, *, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a command has a program, option, argument, value or file that there is not.

    Args:
        text: The command.
        whole: Whether it must have all its arguments; in the running text some are only named.
        monkeypatch: For scripts.
    """
    words = shlex.split(text)
    while re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    for word in words:
        assert not _FILE.match(word) or (ROOT / word).exists(), f"{word}: there is no such file"
    if words[0] == "safer-instruct":
        _read_ours([word for word in words[1:] if whole or word != "..."], whole)
    elif words[0].endswith("pip"):
        _read_pip(words[1:])
    elif words[0] == "make":
        _read_make(words[1:])
    elif words[0].startswith("bench/") or (words[1:2] and words[1].startswith("bench/")):
        _read_script(words[words[0] == "python" :], whole, monkeypatch)


def _read_ours(words: list[str], whole: bool) -> None:
    for word in words:
        if "://" in word and word.partition("://")[0] in ("s3", "gs", "az"):
            parse_address(word)
    try:
        with addresses():
            _silent_app().main([word.replace("://", "/") if word.startswith(("s3", "gs", "az")) else word for word in words], standalone_mode=False)
    except _UsageError as exc:
        message = exc.format_message()
        assert not whole and message.startswith("Missing"), f"safer-instruct {shlex.join(words)}: {message}"
    _load_config(words)


@cache
def _silent_app() -> Any:
    command = typer.main.get_command(app)
    _silence(command)
    return command


def _silence(command: Any) -> None:
    """Keep a command, and all below it, from doing anything once its arguments are read."""
    for child in getattr(command, "commands", {}).values():
        child.callback = None
        _silence(child)


def _load_config(words: list[str]) -> None:
    """Load the config that a command names, where the repository has it."""
    for name, load in LOADERS.items():
        count = len(name.split())
        if words[:count] == name.split() and words[count:] and (ROOT / words[count]).is_file():
            load(ROOT / words[count])


def _read_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    if words[0] == "wheel":
        assert words[1:] == ["--no-deps", "--wheel-dir", "dist", "./"]  # a bare name would be fetched
        return
    assert words[0] == "install"
    for word in words[1:]:
        ours = re.fullmatch(r"(?:\.|safer-instruct)(?:\[([\w,-]+)\])?", word)
        if ours:
            unknown = set((ours[1] or "").split(",")) - {"", *project["optional-dependencies"]}
            assert not unknown, f"pip install {word}: there is no extra {sorted(unknown)}"
        else:
            assert (
                word in ("-e", "--no-deps", "--upgrade", "--index-url")
                or word.startswith("https://download.pytorch.org/")
                or word.endswith(".whl")
                or word in OTHER_PACKAGES
            ), f"pip install {word}: not in OTHER_PACKAGES of tests/doc_rules.py"


def _read_make(words: list[str]) -> None:
    targets = re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"))
    assert set(words) <= set(targets), f"make {shlex.join(words)}: targets are {targets}"


def _read_script(words: list[str], whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read options with the script's own parser, which ends it there; a script that reads them by hand must name each."""
    path = ROOT / words[0]
    assert path.exists(), f"{words[0]}: there is no such script"
    source = path.read_text("utf-8") if path.is_file() else ""
    if path.suffix != ".py" or len(words) == 1:
        return
    if "parse_args()" not in source:
        assert all(word in source for word in words if word.startswith("--")) and "sys.argv" in source, f"{shlex.join(words)}: it reads no such argument"
        return
    with monkeypatch.context() as patch:
        original = argparse.ArgumentParser.parse_args

        def parse_args(self: argparse.ArgumentParser, *_: Any) -> None:
            original(self, [re.sub(r"^N$", "1000", word) for word in words[1:]])
            raise _ParsedError

        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(argparse.ArgumentParser, "error", lambda self, message: pytest.fail(f"{shlex.join(words)}: {message}"))
        patch.setattr(sys, "argv", [str(path)])
        patch.syspath_prepend(str(path.parent))
        before = set(sys.modules)
        try:
            with pytest.raises(_ParsedError):
                runpy.run_path(str(path), run_name="__main__")
        finally:
            for name in set(sys.modules) - before:  # scripts and their neighbours: another folder may hold the same names
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(ROOT / "bench")):
                    del sys.modules[name]
