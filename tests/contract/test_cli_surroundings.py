"""The command line where its surroundings are odd: displays that lack characters, columns or room, paths that are empty, signals."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from civil_script import SCRIPT
from command_line import Cli, caller

from safer_instruct.cli import COMMANDS, GROUPS
from safer_instruct.config import load_config
from safer_instruct.errors import RunDirectoryError
from safer_instruct.holding import hold
from safer_instruct.ledger import read_totals
from safer_instruct.pipeline import run as run_pipeline
from safer_instruct.wholefile import write_whole

pytestmark = pytest.mark.filterwarnings("error")

TEXTS = [
    "The printer is not broken. You left the lid open, \u05e9\u05dc\u05d5\u05dd, again, and then you rang us \N{REPLACEMENT CHARACTER} about it on a Sunday.",
    "Nobody reads the manual these days, so here we are, discussing which end of a plug goes into the wall.",
]
CONFIG = """\
domain: civility
source: {path: texts.jsonl, id: id}
models: {inducer: "scripted:script.yaml", expert: "scripted:script.yaml", scorer: "scripted:script.yaml"}
filter: {prompt: {language: null}}
"""
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in a folder with a corpus, a script and a config `my.yaml`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFER_INSTRUCT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    lines = (json.dumps({"id": f"row-{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS))
    Path("texts.jsonl").write_text("".join(lines), encoding="utf-8")
    Path("script.yaml").write_text(SCRIPT, encoding="utf-8")
    Path("my.yaml").write_text(CONFIG, encoding="utf-8")
    return caller(capfd)


def process(*arguments: str, stdout: Any = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "safer_instruct.cli", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, stdout=stdout, stderr=subprocess.PIPE, check=False)


def made() -> None:
    run_pipeline(load_config(Path("my.yaml")), "out")


# --- the display


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}, C_LOCALE], ids=["latin-1", "ascii", "C"])
def test_a_display_that_lacks_characters_gets_escapes_for_them(cli: Cli, environment: dict[str, str]) -> None:
    ran = process("run", "my.yaml", "--out", "out", **environment)
    assert (ran.returncode, ran.stderr) == (0, b"") and rb"\u05e9\u05dc\u05d5\u05dd" in ran.stdout and rb"\ufffd" in ran.stdout
    for arguments in (("status", "out"), ("why", "out", "row-0"), ("filters", "out")):
        said = process(*arguments, **environment)
        assert (said.returncode, said.stderr) == (0, b""), arguments
    as_json = process("why", "out", "row-0", "--json", **environment)
    assert as_json.returncode == 0 and TEXTS[0] in json.dumps(json.loads(as_json.stdout), ensure_ascii=False)


def test_how_errors_are_encoded_stays_as_one_has_asked_for(cli: Cli) -> None:
    made()
    assert b"????" in process("status", "out", PYTHONIOENCODING="ascii:replace").stdout


def test_a_width_of_nothing_is_taken_for_an_unknown_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    made()
    monkeypatch.setenv("COLUMNS", "0")
    assert "Funnel" in cli("status", "out").out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
@pytest.mark.parametrize("arguments", [("run", "my.yaml", "--out", "out"), ("domain", "list"), ("export", "--format", "list"), ("filters", "made")])
def test_a_display_that_takes_nothing_more_is_told_from_a_full_disk(cli: Cli, arguments: tuple[str, ...]) -> None:
    run_pipeline(load_config(Path("my.yaml")), "made")
    with Path("/dev/full").open("wb") as full:
        said = process(*arguments, stdout=full)
    assert said.returncode == 2 and said.stderr.startswith(b"error: standard output cannot be written (No space left on device); only what is shown is lost")
    assert said.stderr.count(b"\n") == 1 and (arguments[0] != "run" or Path("out/summary.json").is_file())


def test_a_file_that_may_not_grow_so_large_is_named(tmp_path: Path) -> None:
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(RunDirectoryError, match=r"large\.txt cannot be written: no file may grow so large here \(ulimit -f\)") as told:
            write_whole(tmp_path / "large.txt", "x" * 2048)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    assert isinstance(told.value.__cause__, OSError) and told.value.__cause__.errno == errno.EFBIG and list(tmp_path.iterdir()) == []


# --- paths


def path_parameters() -> Iterator[tuple[str, Any]]:
    """Every parameter of every command that is a path, and what reads it."""
    commands = [*COMMANDS.values(), *(registered.callback for group in GROUPS.values() for registered in group.registered_commands)]
    for command in commands:
        for name, hint in get_type_hints(command, include_extras=True).items():
            if "pathlib" in str(get_args(hint)[:1]):
                yield f"{command.__name__} {name}", get_args(hint)[1].parser


@pytest.mark.parametrize("written", ["", " ", "-"], ids=["empty", "blank", "dash"])
@pytest.mark.parametrize(
    "arguments",
    [
        *(("run", "my.yaml", "--out"), ("run", "my.yaml", "--work"), ("run",), ("init", "mine", "--dir"), ("init", "mine", "--source")),
        *(("status",), ("filters",), ("why",), ("judges",), ("ledger",), ("report",), ("review",), ("calibrate",), ("select",), ("export",), ("audit",)),
        *(("export", "out", "--format", "csv", "--out"), ("audit", "out", "--out"), ("report", "out", "--out"), ("report", "out", "--compare")),
        *(("report", "out", "--labels"), ("ledger", "out", "--export"), ("review", "out", "--labels"), ("calibrate", "out", "--sheet")),
        *(("calibrate", "out", "--config"), ("calibrate", "out", "--labels"), ("tune",), ("tune", "my.yaml", "--out"), ("evaluate-inducer",)),
        *(("evaluate",), ("evaluate", "my.yaml", "--sheet"), ("evaluate", "my.yaml", "--answers"), ("evaluate", "my.yaml", "--out"), ("study",)),
        *(("study", "my.yaml", "--out"), ("train", "sft"), ("train", "dpo"), ("train", "dpo", "my.yaml", "--out"), ("value", "out", "--out")),
        *(("models", "export"), ("models", "export", "x", "--to", "gguf", "--out"), ("domain", "check"), ("domain", "show"), ("domain", "new", "x", "--dir")),
    ],
    ids=" ".join,
)
def test_an_empty_path_and_a_stream_are_refused(cli: Cli, arguments: tuple[str, ...], written: str) -> None:
    before = sorted(Path().iterdir())
    said = cli(*arguments, written)
    told = "'-' stands for no stream here" if written == "-" else "the path is empty"
    assert said.code == 2 and told in said.err and sorted(Path().iterdir()) == before


def test_every_parameter_that_is_a_path_has_a_parser_that_looks_at_it() -> None:
    paths = list(path_parameters())
    assert len(paths) >= 40
    for name, parser in paths:
        assert parser is not None, name
        with pytest.raises(typer.BadParameter, match="the path is empty"):
            parser("")


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("file", "file cannot be a run directory: it is a file; choose"),
        ("file/out", "file/out cannot be a run directory: file is a file; choose"),
        ("astray", "astray cannot be a run directory: it is a link to gone, where nothing is; choose"),
        ("/dev/null", "/dev/null cannot be a run directory: it is no folder; choose"),
    ],
)
def test_what_stands_in_the_place_of_a_run_directory_is_told(cli: Cli, out: str, told: str) -> None:
    Path("file").touch()
    Path("astray").symlink_to("gone")
    said = cli("run", "my.yaml", "--out", out)
    assert said.code == 2 and told in said.err


# --- configs


def test_a_config_in_utf_16_is_told_as_such(cli: Cli) -> None:
    Path("my.yaml").write_text(CONFIG, encoding="utf-16")
    assert "my.yaml: cannot be read as UTF-8 text: invalid UTF-8 at byte offset 0 of the file; the file looks like UTF-16" in cli("run", "my.yaml").err


@pytest.mark.parametrize(
    ("budget", "told"), [("{max_cost: 1,0}", True), ("{max_cost: 1,000.5}", True), ("{max_cost: 1, 7: 2}", False), ("{maxcost: 1}", False)]
)
def test_a_number_with_a_comma_within_braces_is_told_as_such(cli: Cli, budget: str, told: bool) -> None:
    Path("my.yaml").write_text(f"{CONFIG}budget: {budget}\n", encoding="utf-8")
    said = cli("run", "my.yaml")
    assert said.code == 2 and "unknown key 'budget." in said.err and ("within {...} a comma ends a value: write 1.5, not 1,5" in said.err) is told


@pytest.mark.parametrize(
    "section",
    [
        "respond: {template: t.j2}",
        "induce: {template: t.j2}",
        "respond: {revise: 1, revision: t.j2}",
        "rejected: {form: matched, template: t.j2}",
        "twins: {share: 0.5, model: expert, refuser: expert, template: t.j2}",
        "twins: {share: 0.5, model: expert, refuser: expert, refusal_template: t.j2}",
    ],
)
def test_a_value_that_a_template_is_not_given_is_found_before_any_call(cli: Cli, section: str) -> None:
    Path("t.j2").write_text("One line,\nand {{ nosuch }}.\n", encoding="utf-8")
    Path("my.yaml").write_text(f"{CONFIG}{section}\n", encoding="utf-8")
    said = cli("run", "my.yaml", "--out", "out")
    assert said.code == 2 and "t.j2:2: 'nosuch' is no value that this template is given" in said.err and "there are: " in said.err
    assert not Path("out/ledger.sqlite").exists() or not read_totals(Path("out/ledger.sqlite"))


# --- a run in progress


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "out", "--format", "csv"),
        ("report", "out"),
        ("audit", "out"),
        ("select", "out"),
        ("filters", "out"),
        ("why", "out", "row-0"),
        ("judges", "out"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_a_finished_run_says_that_one_is_in_progress(cli: Cli, arguments: tuple[str, ...]) -> None:
    made()
    Path("out/summary.json").unlink()
    assert "it was begun and not ended, so give its command again" in cli(*arguments).err
    with hold(Path("out")):
        said = cli(*arguments)
    assert said.code == 2 and f"out holds no finished run (it is in progress by process {os.getpid()}); wait until it has ended" in said.err
    assert "again" not in said.err


# --- signals


@contextmanager
def running(*before: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A run that waits for a model's answer."""
    Path("script.yaml").write_text(SCRIPT + "latency_s: 60\n", encoding="utf-8")
    command = [*before, sys.executable, "-m", "safer_instruct.cli", "run", "my.yaml", "--out", "out"]
    with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        until = time.monotonic() + 60
        while not Path("out/progress.json").exists() and time.monotonic() < until:
            time.sleep(0.02)
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_run_with_a_word_and_its_exit_code(cli: Cli, number: signal.Signals) -> None:
    with running() as child:
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert err == "error: stopped; finished model calls are saved: give the same command again to go on\n"
    assert json.loads(Path("out/progress.json").read_text("utf-8"))["phase"] == "stopped"


def test_sigterm_stops_a_run_in_the_background_where_ctrl_c_is_ignored(cli: Cli) -> None:
    with running("sh", "-c", "trap '' INT; exec \"$@\"", "sh") as child:
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGTERM and err.startswith("error: stopped; ") and err.count("\n") == 1


def test_a_signal_that_is_ignored_stays_so(cli: Cli) -> None:
    with running("sh", "-c", "trap '' HUP; exec \"$@\"", "sh") as child:
        child.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1)
        child.terminate()
        assert child.wait(60) == 128 + signal.SIGTERM


def test_signals_are_left_alone_in_the_processes_of_a_training_on_several(cli: Cli) -> None:
    with running(RANK="0") as child:
        child.terminate()
        assert child.wait(60) == -signal.SIGTERM


def test_the_second_signal_ends_the_process_and_a_fork_ends_at_the_first(tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
from safer_instruct.commands.common import stoppable
with stoppable():
    up, down = os.pipe()
    fork = os.fork()
    if not fork:
        os.write(down, b"up")
        time.sleep(60)
        os._exit(7)
    os.read(up, 2)
    os.kill(fork, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, f"{-signal.SIGTERM}\n", "")
