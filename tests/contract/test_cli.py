"""The command line: what each command does with scripted models, and how it says what went wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from civil_script import SCRIPT
from command_line import Cli, caller
from doc_desk import fill_in_domain

from safer_instruct.cli import main
from safer_instruct.config import load_config
from safer_instruct.domain import shipped_domains
from safer_instruct.errors import ConfigError
from safer_instruct.holding import hold
from safer_instruct.ledger import read_totals
from safer_instruct.pipeline import run as run_pipeline
from safer_instruct.settings.preference import load_dpo_config, load_sft_config

pytestmark = pytest.mark.filterwarnings("error")

TEXTS = [
    "The printer is not broken. You left the lid open, again, and then you rang us about it on a Sunday.",
    "Nobody reads the manual these days, so here we are, discussing which end of a plug goes into the wall.",
    "Your parcel is where you told us to leave it, which is more than can be said for your good manners.",
    "Your parcel is where you told us to leave it, which is more than can be said for your good manners!",
]
CONFIG = """\
domain: civility
source: {path: texts.jsonl}
models: {inducer: "scripted:script.yaml", expert: "scripted:script.yaml", scorer: "scripted:script.yaml"}
filter: {prompt: {language: null}}
"""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in a folder with a corpus, a script and a config `my.yaml`; the model cache is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFER_INSTRUCT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    for module in ("ctranslate2", "torch"):  # as where the extras are not installed
        monkeypatch.setitem(sys.modules, module, None)
    Path("texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS) + "{}\n", encoding="utf-8")
    Path("script.yaml").write_text(SCRIPT, encoding="utf-8")
    Path("my.yaml").write_text(CONFIG, encoding="utf-8")
    return caller(capfd)


def process(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-m", "safer_instruct.cli", *arguments], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def changed(old: str, new: str) -> None:
    assert old in CONFIG
    Path("my.yaml").write_text(CONFIG.replace(old, new), encoding="utf-8")


# --- run


def test_the_package_is_the_command() -> None:
    said = subprocess.run([sys.executable, "-m", "safer_instruct", "--help"], capture_output=True, text=True, check=True)
    assert "safer-instruct init mydomain" in said.stdout and not said.stderr
    wrong = subprocess.run([sys.executable, "-m", "safer_instruct", "run", "gone.yaml"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "no such file" in wrong.stderr and "Traceback" not in wrong.stderr


def test_run_builds_pairs_and_shows_the_funnel(cli: Cli) -> None:
    said = cli("run", "my.yaml", "--out", "out")
    assert (said.code, said.err) == (0, "")
    assert "Funnel" in said.out and "dedup.text: 1" in said.out and "set aside: 1" in said.out and "3 pairs from 5 rows" in said.out
    pairs = [json.loads(line) for line in Path("out/pairs.jsonl").read_bytes().split(b"\n")[:-1]]
    assert [pair["rejected"] for pair in pairs] == TEXTS[:3]
    assert all(pair["prompt"].startswith("Could you tell me") and pair["chosen"].startswith("I am sorry") for pair in pairs)
    assert pq.read_table("out/pairs.parquet").to_pylist() == pairs


def test_run_writes_a_card_that_the_hub_can_read_and_a_summary_that_adds_up(cli: Cli) -> None:
    cli("run", "my.yaml", "--out", "out")
    _, header, body = Path("out/README.md").read_text("utf-8").split("---\n", 2)
    assert yaml.safe_load(header)["configs"][0]["data_files"] == [{"split": "train", "path": "pairs.parquet"}]
    assert "3 pairs" in body and "scripted:script.yaml" in body and "Do not train" in body
    summary = json.loads(Path("out/summary.json").read_text("utf-8"))
    assert summary["rows"] == summary["pairs"] + summary["dropped"] + summary["set_aside"] == 5
    stages = list(summary["stages"].values())
    assert all(stage["out"] == stage["in"] - sum(stage["dropped"].values()) for stage in stages)
    assert [stage["in"] for stage in stages[1:]] == [stage["out"] for stage in stages[:-1]] and stages[-1]["out"] == summary["pairs"]


def test_run_again_makes_no_call_and_the_same_pairs(cli: Cli) -> None:
    cli("run", "my.yaml", "--out", "out")
    before = Path("out/pairs.jsonl").read_bytes()
    again = cli("run", "my.yaml", "--out", "out")
    calls = json.loads(Path("out/summary.json").read_text("utf-8"))["calls"]
    assert calls > 0 and f"{calls} model calls ({calls} of them from the ledger)" in again.out and Path("out/pairs.jsonl").read_bytes() == before


def test_of_equal_calls_of_one_run_none_is_said_to_come_from_the_ledger_until_it_is_run_again(cli: Cli) -> None:
    Path("script.yaml").write_text(SCRIPT.replace("look into {words}", "look into it"), encoding="utf-8")  # the same draft each time, scored each time
    Path("my.yaml").write_text(f"{CONFIG}respond: {{drafts: 3}}\nverify: {{min_contrast: 1000.0}}\n", encoding="utf-8")
    said = cli("run", "my.yaml", "--out", "out")
    summary = json.loads(Path("out/summary.json").read_text("utf-8"))
    made = sum(total.calls for total in read_totals(Path("out/ledger.sqlite")))
    repeated = summary["calls"] - made
    assert repeated > 0 and f"{summary['calls']} model calls (0 of them from the ledger, {repeated} answered by an equal one of this sitting)" in said.out
    assert f"{summary['calls']} model calls ({summary['calls']} of them from the ledger)" in cli("run", "my.yaml", "--out", "out").out


# --- a run without a pair


@pytest.mark.parametrize(
    ("changed", "check", "next_"),
    [
        (("Could you tell me about {words}, please?", ""), "induce.empty", "all answers, as they came: safer-instruct ledger out --export calls.jsonl; "),
        (("I am sorry about that, and I will look into {words}.", ""), "verify.length", ""),
    ],
)
def test_a_run_without_a_pair_says_what_dropped_the_most_and_what_to_do(cli: Cli, changed: tuple[str, str], check: str, next_: str) -> None:
    Path("script.yaml").write_text(SCRIPT.replace(*changed), encoding="utf-8")
    said = cli("run", "my.yaml", "--out", "out")
    look = f"safer-instruct filters out --dropped-by {check}"
    others = "; what dropped the others: safer-instruct filters out"
    line = f"out holds no pair: every example was dropped, 3 of 4 by {check}; {next_}some of those, with the reason: {look}{others}\n"
    assert said.code == 0 and line in said.out and said.out.count("holds no pair") == 1
    assert cli("status", "out").out.count(line) == 1 and line in cli("export", "out", "--format", "jsonl").out
    assert f"3 of 3 dropped by {check}" in cli(*look.split()[1:]).out
    for arguments in (("select", "out", "--n", "2"), ("audit", "out")):
        assert cli(*arguments).err == f"error: {line}"


def test_run_without_out_writes_to_runs_and_the_name_of_the_config(cli: Cli) -> None:
    assert cli("run", "my.yaml").code == 0 and Path("runs/my/pairs.jsonl").is_file()


def test_run_shows_no_text_of_the_corpus_raw(cli: Cli) -> None:
    Path("texts.jsonl").write_text(json.dumps({"text": "\x1b[2J[bold]" + TEXTS[0]}) + "\n", encoding="utf-8")
    said = cli("run", "my.yaml", "--out", "out")
    assert said.code == 0 and "\x1b" not in said.out and "[2J[bold]The printer" in said.out


def test_another_config_is_refused_until_one_says_how_to_go_on(cli: Cli) -> None:
    cli("run", "my.yaml", "--out", "out")
    changed("domain: civility", "seed: 7\ndomain: civility")
    refused = cli("run", "my.yaml", "--out", "out")
    assert refused.code == 2 and "seed: 0, now 7." in refused.err and "--continue" in refused.err and "--fresh" in refused.err
    assert cli("run", "my.yaml", "--out", "out", "--continue").code == 0 and not Path("out/previous-1").exists()
    changed("domain: civility", "seed: 8\ndomain: civility")
    assert cli("run", "my.yaml", "--out", "out", "--fresh").code == 0
    assert "seed: 7" in Path("out/previous-1/run.yaml").read_text("utf-8") and "seed: 8" in Path("out/run.yaml").read_text("utf-8")


# --- errors


@pytest.mark.parametrize(
    ("arguments", "prepare", "parts"),
    [
        pytest.param("run gone.yaml", None, ("gone.yaml: no such file",), id="missing config"),
        pytest.param("run my.yaml", ("filter:", "filtre:"), ("my.yaml:4: unknown key 'filtre'", "did you mean 'filter'?"), id="unknown key"),
        pytest.param("run my.yaml", ("civility", "civillity"), ("civillity", ", ".join(shipped_domains())), id="unknown domain"),
        pytest.param("run my.yaml", ('expert: "scripted:', 'expert: "openay:'), ("unknown provider 'openay'", "embedded:NAME"), id="unknown provider"),
        pytest.param("run my.yaml", ("script.yaml", "gone-script.yaml"), ("gone-script.yaml: no such file",), id="missing script"),
        pytest.param("run my.yaml", ("texts.jsonl", "gone.jsonl"), ("gone.jsonl", "no file, folder or glob match"), id="missing corpus"),
        pytest.param("run my.yaml", ("path: texts.jsonl", "path: texts.csv, text: body"), ("texts.csv", "no column 'body'", "text, id"), id="missing column"),
        pytest.param("run my.yaml", ("path: texts.jsonl", "path: texts.jsonl, text: body"), ("none of the 5 rows", "'body' is missing"), id="no usable row"),
        pytest.param("run my.yaml", ("texts.jsonl", "empty.jsonl"), ("empty.jsonl holds no row",), id="empty corpus"),
        pytest.param(
            "run my.yaml",
            (', scorer: "scripted:script.yaml"', ""),
            ("the embedded model needs ctranslate2", "pip install 'safer-instruct[local]'"),
            id="missing extra",
        ),
        pytest.param(
            "run my.yaml", ('"scripted:script.yaml"}', '{model: "scripted:", adapter: x}}'), ("'adapter' is for embedded models",), id="adapter elsewhere"
        ),
        pytest.param("tune gone.yaml", None, ("gone.yaml: no such file",), id="missing tuning config"),
        pytest.param("evaluate-inducer gone.yaml", None, ("gone.yaml: no such file",), id="missing evaluation config"),
        pytest.param("export out --format xml", None, ("unknown format 'xml'", "jsonl, messages, csv, parquet"), id="unknown export format"),
        pytest.param("export out --format csv", None, ("out holds no finished run", "safer-instruct run CONFIG --out out"), id="export before run"),
        pytest.param("status out", None, ("out holds no finished run",), id="status before run"),
        pytest.param("ledger out", None, ("out/ledger.sqlite: the ledger cannot be read: there is none",), id="ledger before run"),
        pytest.param("ledger out --recover", None, ("No such file or directory: out",), id="recovery before run"),
        pytest.param("init Not-A-Name", None, ("cannot name a domain",), id="bad domain name"),
        pytest.param("models pull gone.gguf", None, ("gone.gguf", "no file"), id="missing model"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_code_2(cli: Cli, arguments: str, prepare: tuple[str, str] | None, parts: tuple[str, ...]) -> None:
    Path("texts.csv").write_text("text,id\nx,1\n")
    Path("empty.jsonl").touch()
    if prepare:
        changed(*prepare)
    said = cli(*arguments.split())
    assert said.code == 2 and said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and "Traceback" not in said.err
    assert all(part in said.err for part in parts), said.err


def test_an_error_message_cannot_send_control_codes(cli: Cli) -> None:
    said = cli("run", "gone\x1b[2J.yaml")
    assert said.code == 2 and "\x1b" not in said.err and "gone?[2J.yaml" in said.err


def test_several_problems_of_a_config_are_each_told_on_a_line(cli: Cli) -> None:
    changed("domain: civility", "domian: civility\nseed: x")
    said = cli("run", "my.yaml")
    assert said.code == 2 and len(said.err.splitlines()) == 3 and "Traceback" not in said.err


@pytest.mark.parametrize("arguments", [("--debug", "run", "gone.yaml"), ("run", "--debug", "gone.yaml"), ("run", "gone.yaml", "--debug")])
def test_debug_raises_the_error_itself_wherever_it_stands(cli: Cli, arguments: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        main(list(arguments))


def test_in_a_real_process_an_error_is_one_line_and_with_debug_a_traceback(tmp_path: Path) -> None:
    plain, debug = process("run", "gone.yaml", cwd=tmp_path), process("run", "gone.yaml", "--debug", cwd=tmp_path)
    assert (plain.returncode, plain.stdout) == (2, "") and plain.stderr.startswith("error: gone.yaml") and plain.stderr.count("\n") == 1
    assert debug.returncode == 1 and debug.stderr.startswith("Traceback") and "ConfigError: gone.yaml" in debug.stderr


@pytest.mark.parametrize("arguments", [("runn",), ("run",), ("run", "my.yaml", "--continue", "--fresh"), ("run", "my.yaml", "--ouut", "x"), ("export", "out")])
def test_a_misspelt_command_line_is_told_without_a_traceback(cli: Cli, arguments: tuple[str, ...]) -> None:
    said = cli(*arguments)
    assert said.code == 2 and said.err and "Traceback" not in said.err


def test_an_interrupted_run_says_how_to_go_on(cli: Cli) -> None:
    Path("script.yaml").write_text(SCRIPT + "latency_s: 30\n", encoding="utf-8")
    with subprocess.Popen([sys.executable, "-m", "safer_instruct.cli", "run", "my.yaml", "--out", "out"], stderr=subprocess.PIPE, text=True) as child:
        until = time.monotonic() + 20
        while not Path("out/ledger.sqlite").exists() and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=20)
    assert child.returncode == 130 and "Traceback" not in err and "give the same command again" in err


@pytest.mark.parametrize("path", ["nowhere/*.jsonl", "nowhere.jsonl", "empty"])
def test_a_run_whose_source_is_not_there_leaves_nothing_behind(cli: Cli, path: str) -> None:
    Path("empty").mkdir()
    changed("texts.jsonl", path)
    said = cli("run", "my.yaml", "--out", "runs/out")
    assert said.code == 2 and f"source '{path}', looked for in" in said.err and not Path("runs").exists()


# --- status, export


def test_status_of_a_finished_run_shows_what_run_showed(cli: Cli) -> None:
    ran, status = cli("run", "my.yaml", "--out", "out"), cli("status", "out")
    assert status.code == 0 and status.out == ran.out


def test_status_of_an_unfinished_run_shows_the_calls_so_far(cli: Cli) -> None:
    cli("run", "my.yaml", "--out", "out")
    Path("out/summary.json").unlink()
    said = cli("status", "out")
    assert said.code == 0 and "not finished" in said.out and "induce" in said.out and "scripted:script.yaml" in said.out
    assert "5 of 5 rows done: 3 pairs, 1 dropped, 1 set aside" in said.out and "give the 'run' command again to go on" in said.out


def test_status_of_a_run_that_goes_on_says_so_and_does_not_disturb_it(cli: Cli) -> None:
    cli("run", "my.yaml", "--out", "out")
    Path("out/summary.json").unlink()
    with hold(Path("out")):
        said = cli("status", "out")
        assert f"in progress by process {os.getpid()}; to watch it: safer-instruct status out --follow" in said.out and "again" not in said.out
        assert cli("run", "my.yaml", "--out", "out").code == 2, "it is held as before"
    assert cli("run", "my.yaml", "--out", "out").code == 0


@pytest.mark.parametrize(
    ("format_", "name"), [("jsonl", "export.jsonl"), ("messages", "export.messages.jsonl"), ("csv", "export.csv"), ("parquet", "export.parquet")]
)
def test_export_writes_each_format_and_says_where(cli: Cli, format_: str, name: str) -> None:
    run_pipeline(load_config("my.yaml"), "out")
    said = cli("export", "out", "--format", format_)
    assert (said.code, said.out, said.err) == (0, f"3 pairs: out/{name}\n", "") and Path("out", name).stat().st_size > 0
    assert cli("export", "out", "--format", format_, "--out", "elsewhere/x").out == "3 pairs: elsewhere/x\n" and Path("elsewhere/x").is_file()


def test_export_names_its_formats(cli: Cli) -> None:
    from safer_instruct.export import FORMATS

    said = cli("export", "out", "--format", "list")
    assert said.code == 0 and [line.split()[0] for line in said.out.splitlines()] == list(FORMATS)


def test_export_of_a_run_with_all_that_may_go_along(cli: Cli) -> None:
    Path("my.yaml").write_text(CONFIG.replace("{path: texts.jsonl}", "{path: texts.jsonl, license: cc0-1.0}") + "license: cc-by-4.0\n", encoding="utf-8")
    cli("run", "my.yaml", "--out", "out")
    said = cli("export", "out", "--format", "datasets", "--split", "test=0.3", "--provenance", "--redact-rejected", "--gated", "auto")
    assert (said.code, said.out, said.err) == (0, "3 pairs (train 2, test 1): out/export-datasets\n", "")
    rows = [row for name in ("train", "test") for row in pq.read_table(f"out/export-datasets/data/{name}.parquet").to_pylist()]
    assert {row["source_line"] for row in rows} == {1, 2, 3} and {row["source_license"] for row in rows} == {"cc0-1.0"}
    assert all(row["rejected"].startswith("[withheld: ") and len(row["guideline"]) == 16 and "script" in row["models"] for row in rows)
    assert "prompt.length" in {verdict["name"] for verdict in json.loads(rows[0]["verdicts"])}
    card = Path("out/export-datasets/README.md").read_text("utf-8")
    assert "license: cc-by-4.0" in card and "cc0-1.0" in card and "extra_gated_prompt" in card


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--format", "jsonl", "--split", "train=0.1"), "write NAME=SHARE"),
        (("--format", "jsonl", "--split", "test=0.01"), "the split 'test' would be empty: 0.01 of 3 pairs is less than one; give a larger share"),
        (("--format", "jsonl", "--gated", "manual"), "use --format datasets"),
        (("--format", "openai", "--provenance"), "no room for further columns"),
    ],
)
def test_export_says_which_option_does_not_fit(cli: Cli, arguments: tuple[str, ...], expected: str) -> None:
    cli("run", "my.yaml", "--out", "out")
    said = cli("export", "out", *arguments)
    assert said.code == 2 and expected in said.err and not list(Path("out").glob("export*"))


# --- ledger


def test_ledger_shows_totals_finds_shows_and_exports_calls(cli: Cli) -> None:
    cli("run", "my.yaml", "--out", "out")
    calls = json.loads(Path("out/summary.json").read_text("utf-8"))["calls"]
    totals = cli("ledger", "out")
    assert (totals.code, totals.err) == (0, "") and "scripted:script.yaml" in totals.out and f"│ all     │                      │ {calls:>5} │" in totals.out
    found = cli("ledger", "out", "--search", "PRINTER is not", "--limit", "1")
    assert found.code == 0 and "  induce  scripted:script.yaml  " in found.out and "The printer is not broken" in found.out
    shown = cli("ledger", "out", "--show", found.out.split()[0])
    assert shown.code == 0 and "stage: induce" in shown.out and TEXTS[0] in shown.out and "Could you tell me about" in shown.out
    assert cli("ledger", "out", "--export", "new/calls.jsonl").out == f"{calls} calls: new/calls.jsonl\n"
    assert len(Path("new/calls.jsonl").read_text("utf-8").splitlines()) == calls
    assert cli("ledger", "out", "--recover").out == f"nothing is damaged: all {calls} calls are intact\n"


def test_a_run_that_meets_a_damaged_ledger_names_the_command_that_saves_the_rest(cli: Cli) -> None:
    cli("run", "my.yaml", "--out", "out")
    calls = json.loads(Path("out/summary.json").read_text("utf-8"))["calls"]
    with Path("out/ledger.sqlite").open("r+b") as file:
        file.seek(30)
        file.write(b"\xff" * 70)
    for arguments in (("run", "my.yaml", "--out", "out"), ("ledger", "out"), ("ledger", "out", "--search", "x"), ("ledger", "out", "--export", "x.jsonl")):
        said = cli(*arguments)
        assert said.code == 2 and said.err.startswith("error: out/ledger.sqlite is damaged: ") and said.err.count("\n") == 1
        assert said.err.endswith("save what is intact with: safer-instruct ledger out --recover\n")
    assert not Path("x.jsonl").exists()
    saved = cli("ledger", "out", "--recover")
    assert saved.code == 0 and saved.out.startswith(f"{calls} calls saved, none is known to be lost; the damaged file is kept as out/ledger.damaged-1.sqlite")
    assert f"{calls} model calls ({calls} of them from the ledger)" in cli("run", "my.yaml", "--out", "out").out


@pytest.mark.parametrize("finished", [True, False])
def test_of_a_ledger_that_is_junk_the_run_tells_how_many_calls_are_lost(cli: Cli, finished: bool) -> None:
    cli("run", "my.yaml", "--out", "out")
    calls = json.loads(Path("out/summary.json").read_text("utf-8"))["calls"]
    if not finished:
        Path("out/summary.json").unlink()
    Path("out/ledger.sqlite").write_bytes(b"junk" * 20_000)
    said = cli("ledger", "out", "--recover")
    assert said.code == 0 and said.out.startswith(f"0 calls saved, of {calls} that the run speaks of: the others could not be read, and the next run makes")
    assert f"makes, and pays for, the {calls} that are lost again; the damaged file is kept as" in said.out


@pytest.mark.parametrize("broken", [None, "a: [", "\udcff"], ids=["missing", "no YAML", "no UTF-8"])
def test_without_its_config_a_run_is_told_a_command_that_brings_it_back(cli: Cli, broken: str | None) -> None:
    cli("run", "my.yaml", "--out", "out")
    run, again = Path("out/run.yaml"), "; give the 'run' command again, with --continue, to write it anew, from the ledger"
    run.unlink() if broken is None else run.write_text(broken, encoding="utf-8", errors="surrogateescape")
    for arguments in (("report", "out"), ("export", "out", "--format", "jsonl", "--provenance")):
        said = cli(*arguments)
        assert said.code == 2 and said.err.rstrip().endswith(again) and "Errno" not in said.err
        assert said.err.startswith("error: out/run.yaml is missing;" if broken is None else "error: out/run.yaml cannot be read (")
    assert cli("run", "my.yaml", "--out", "out").code == 2
    assert cli("run", "my.yaml", "--out", "out", "--continue").code == 0 and cli("report", "out").code == 0


def test_a_file_that_a_finished_run_lacks_is_told_as_missing(cli: Cli) -> None:
    cli("run", "my.yaml", "--out", "out")
    for name, arguments in (("pairs", ("export", "out", "--format", "kto")), ("examples", ("report", "out"))):
        Path(f"out/{name}.parquet").unlink()
        said = cli(*arguments)
        assert said.err == f"error: out/{name}.parquet is missing; give the 'run' command again to write it anew, from the ledger\n" and said.code == 2


def test_a_ledger_in_use_is_not_recovered(cli: Cli) -> None:
    cli("run", "my.yaml", "--out", "out")
    with hold(Path("out")):
        said = cli("ledger", "out", "--recover")
    assert said.code == 2 and f"out is in use by process {os.getpid()}" in said.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("--search x --show 0", "--search and --show exclude each other"),
        ("--export x --recover", "--export and --recover exclude each other"),
        ("--limit 3", "--limit is for --search"),
        ("--search x --limit 0", "--limit"),
        ("--show nothex", "'nothex' is no key"),
        ("--show 00000000", "holds no call with a key that begins with 00000000"),
        ("--export out", "out is a folder; give the name of a file, such as out/NAME"),
    ],
)
def test_options_of_ledger_that_make_no_sense_are_told(cli: Cli, arguments: str, part: str) -> None:
    cli("run", "my.yaml", "--out", "out")
    said = cli("ledger", "out", *arguments.split())
    assert said.code == 2 and said.out == "" and part in said.err and "Traceback" not in said.err


# --- tune, train


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("tune t.yaml --launch 2 --dry-run", "--dry-run and --launch exclude each other"),
        ("tune t.yaml --launch 2 --data-only", "--data-only and --launch exclude each other"),
        ("train dpo t.yaml --launch 2 --dry-run", "--dry-run and --launch exclude each other"),
        ("train sft t.yaml --fresh --dry-run", "--dry-run and --fresh exclude each other"),
    ],
)
def test_a_rehearsal_is_never_taken_for_a_training(cli: Cli, arguments: str, part: str) -> None:
    said = cli(*arguments.split())
    assert said.code == 2 and part in " ".join(said.err.split()) and "Traceback" not in said.err


# --- init, models, doctor


@pytest.mark.parametrize("domain", ["civility", "safety", "brand-new"])
def test_init_writes_files_names_them_and_will_not_write_twice(cli: Cli, domain: str) -> None:
    said = cli("init", domain, "--dir", "start")
    written = sorted(str(path) for path in Path("start").iterdir())
    assert said.code == 0 and sorted(line.removeprefix("wrote ") for line in said.out.splitlines() if line.startswith("wrote ")) == written
    assert f"safer-instruct run start/{domain}.yaml" in said.out and load_config(f"start/{domain}.yaml")
    assert cli("init", domain, "--dir", "start").code == 2 and sorted(str(path) for path in Path("start").iterdir()) == written


def test_init_says_of_lists_that_were_written_as_text_what_to_write_instead(cli: Cli) -> None:
    Path("lists.csv").write_text("reply\n\"['No.', 'Ask the lamp.']\"\n", encoding="utf-8")
    said = cli("init", "brand-new", "--source", "lists.csv", "--text", "reply")
    assert said.code == 0 and "\n1 of the first 1 text looks like a list written as text, such as lists.csv:2: ['No.', 'Ask the lamp.'];" in said.out


def test_a_domain_that_nobody_filled_in_is_told_by_init_and_check_and_refused_by_run(cli: Cli) -> None:
    keys = "not filled in yet: description, categories.main.definition, categories.main.guideline; write what holds for your texts"
    filled = "fill in brand-new-domain.yaml, then: safer-instruct domain check brand-new-domain.yaml, then: "
    assert filled + "safer-instruct run brand-new.yaml" in cli("init", "brand-new").out
    checked = cli("domain", "check", "brand-new-domain.yaml", "--no-prompts")
    assert checked.code == 1 and "is valid" in checked.out and keys in " ".join(checked.out.split()) and "'run' refuses it" in checked.out
    said = cli("run", "brand-new.yaml")
    at = 1 + Path("brand-new.yaml").read_text("utf-8").splitlines().index("    model: openai:YOUR-MODEL")
    named = f"brand-new.yaml:{at}: 'models.expert': openai:YOUR-MODEL is not filled in yet; write the name that your endpoint knows its model by"
    assert named in said.err
    assert said.code == 2 and f"domain 'brand-new-domain.yaml': {keys}" in said.err and not list(Path().glob("runs/brand-new/ledger*"))
    fill_in_domain(Path("brand-new-domain.yaml"))
    assert cli("domain", "check", "brand-new-domain.yaml", "--no-prompts").code == 0
    Path("brand-new.yaml").unlink()
    assert "fill in" not in cli("init", "brand-new").out


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_model_that_nobody_named_is_told_with_its_line_before_anything_is_sent(cli: Cli, options: list[str]) -> None:
    cli("init", "safety", "--source", "texts.jsonl")
    said = cli("run", "safety.yaml", *options)
    lines = Path("safety.yaml").read_text("utf-8").splitlines()
    places = [number for number, line in enumerate(lines, 1) if line.strip() == "model: openai:YOUR-MODEL"]
    assert said.code == 2 and len(places) == 2 and not Path("runs/safety").exists()
    assert [f"safety.yaml:{place}: 'models.{role}'" in said.err for place, role in zip(places, ("expert", "judge"), strict=True)] == [True, True]


@pytest.mark.parametrize(("options", "fill"), [([], True), (["--description", "d", "--definition", "d", "--guideline", "g"], False)])
def test_domain_new_says_whether_something_is_left_to_fill_in(cli: Cli, options: list[str], fill: bool) -> None:
    said = cli("domain", "new", "brand-new", "--no-input", *options).out
    assert said.splitlines()[-1].startswith("next: fill in brand-new-domain.yaml, then: safer" if fill else "next: safer-instruct domain check")


def test_the_config_of_init_runs_once_the_models_are_replaced(cli: Cli) -> None:
    cli("init", "brand-new")
    config = yaml.safe_load(Path("brand-new.yaml").read_text("utf-8"))
    config["models"] = dict.fromkeys(("inducer", "expert", "scorer"), "scripted:script.yaml")
    config["filter"]["prompt"]["language"] = None
    Path("brand-new.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    fill_in_domain(Path("brand-new-domain.yaml"))
    assert "3 pairs from 5 rows" in cli("run", "brand-new.yaml").out


def test_models_list_shows_the_catalogue_and_then_what_was_pulled(cli: Cli) -> None:
    said = cli("models", "list")
    assert said.code == 0 and "not pulled: safer-instruct models pull smollm2-135m-instruct" in said.out
    Path("mine.gguf").write_bytes(b"GGUF weights")
    pulled = cli("models", "pull", "mine.gguf", "--name", "tiny")
    assert pulled.code == 0 and pulled.out.startswith("tiny: ") and "licence not stated" in pulled.out
    assert cli("models", "list").out.startswith("tiny  ")


def test_doctor_is_healthy_without_extras_and_names_their_pip_commands(cli: Cli) -> None:
    said = cli("doctor")
    assert said.code == 0 and said.err == "" and all(line.startswith(("ok  ", "no  ")) for line in said.out.splitlines())
    assert "pip install 'safer-instruct[local]'" in said.out and "pip install 'safer-instruct[train]'" in said.out
    assert "cache (0 models)" in said.out and "cannot run without the extra local" in said.out


def test_a_cache_that_can_hold_no_model_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = "point the environment variable SAFER_INSTRUCT_CACHE at a folder that you may write to"
    monkeypatch.setenv("SAFER_INSTRUCT_CACHE", "/dev/null/models")
    said = cli("models", "list")
    assert (said.code, said.err) == (2, f"error: the model cache cannot be /dev/null/models: /dev/null is no folder; {remedy}\n")
    assert f"no   model cache: the model cache cannot be /dev/null/models: /dev/null is no folder; {remedy}\n" in cli("doctor").out
    monkeypatch.setenv("SAFER_INSTRUCT_CACHE", "/proc/none/models")
    doctor = cli("doctor").out
    assert "no   model cache: /proc/none/models (0 models); nothing can be brought into it, for /proc cannot be written (" in doctor


def test_doctor_speaks_of_every_extra_that_there_is(cli: Cli) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    said = cli("doctor").out
    assert [extra for extra in project["optional-dependencies"] if f"extra {extra}: " not in said] == []


# --- tuning data, and inducers side by side

TUNE = """\
model: "scripted:script.yaml"
data: [{path: pairs.jsonl}]
clean: {near_duplicate: null}
holdout: {count: 3, near_duplicate: null}
out: adapter
"""


@pytest.fixture
def pairs(cli: Cli) -> None:
    """What tuning configs name, in the folder where `cli` runs commands."""
    rows = [{"instruction": f"What is thing {i} good for?", "output": f"Thing {i} is good for nothing at all."} for i in range(9)]
    bad = {"instruction": "Why?", "output": None}
    refused = {"instruction": "How?", "output": "I cannot help with that."}
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, bad, refused]), encoding="utf-8")
    Path("tune.yaml").write_text(TUNE, encoding="utf-8")


@pytest.mark.usefixtures("pairs")
def test_tune_shows_the_funnel_of_its_data_and_writes_both_sides(cli: Cli) -> None:
    said = cli("tune", "tune.yaml", "--data-only", "--out", "data")
    assert (said.code, said.err) == (0, "")
    for part in ("format alpaca, told by its columns", "rows set aside: 1", "clean.refusal: 1", "6 to train on", "3 held out"):
        assert part in said.out
    assert "pairs.jsonl:10: set aside: column 'output' is not text" in said.out
    assert len(Path("data/train.jsonl").read_text("utf-8").splitlines()) == 6


@pytest.mark.usefixtures("pairs")
def test_evaluate_inducer_shows_the_table_and_goes_on_from_its_ledger(cli: Cli) -> None:
    Path("e.yaml").write_text("tune: tune.yaml\nforward: 'scripted:script.yaml'\nresamples: 50\n", encoding="utf-8")
    said = cli("evaluate-inducer", "e.yaml")
    assert (said.code, said.err) == (0, "")
    for part in ("zero-shot", "few-shot", "true instruction", "round trip: mean rank", "report: runs/e-evaluation/evaluation.md"):
        assert part in said.out
    again = cli("evaluate-inducer", "e.yaml")
    assert again.code == 0 and f"{json_calls(said.out)} of them from the ledger" in again.out


def json_calls(out: str) -> str:
    return out.split(" model calls")[0].rsplit(None, 1)[-1]


# --- help


@pytest.mark.parametrize("command", ["run", "status", "ledger", "init", "tune", "evaluate-inducer", "export", "select", "models", "doctor"])
def test_help_names_every_command_and_each_explains_itself(cli: Cli, command: str) -> None:
    assert command in cli("--help").out
    said = cli(command, "--help")
    assert said.code == 0 and "Usage:" in said.out and len(said.out.splitlines()) > 4


def test_the_command_that_help_says_to_start_with_needs_no_more_than_texts(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = " ".join(cli("--help").out.split()).partition("Start with: safer-instruct ")[2].partition(" Options")[0].split()
    Path(start[start.index("--source") + 1]).write_text(f"{start[start.index('--text') + 1]}\nYour heap of rust stands in front of my gate again.\n", "utf-8")
    said = cli(*start)
    assert said.code == 0 and "next: " in said.out
    config = load_config(Path(f"{start[1]}.yaml"))
    assert Path(config.source.path).is_file()


@pytest.mark.parametrize(("verb", "load"), [("sft", load_sft_config), ("dpo", load_dpo_config)])
def test_a_verb_of_train_names_an_example_that_it_takes(cli: Cli, verb: str, load: Callable[[Path], object]) -> None:
    named = re.search(r"such as (\S+\.yaml)", " ".join(cli("train", verb, "--help").out.split()))
    assert named
    load(Path(__file__).parents[2] / named[1])


def test_the_version_is_that_of_the_installed_package(cli: Cli) -> None:
    from importlib.metadata import version

    said = cli("--version")
    assert (said.code, said.out.strip()) == (0, version("safer-instruct"))
