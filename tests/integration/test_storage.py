"""Object storage over a real S3 server: sources, runs, readers, exports, one writer at a time, and what is said when it fails."""

from __future__ import annotations

import glob
import gzip
import io
import json
import os
import random
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from civil_script import SCRIPT
from command_line import Cli, Said, caller
from s3_server import KEY, SECRET, S3Server

from safer_instruct.config import SourceConfig
from safer_instruct.errors import RunDirectoryError, SourceError, StorageError
from safer_instruct.ledger.content import Call
from safer_instruct.ledger.rows import zstd
from safer_instruct.models.batch.jobs import Jobs, Row
from safer_instruct.models.protocol import Usage
from safer_instruct.remote import copies
from safer_instruct.remote.publish import MANIFEST
from safer_instruct.rundir import read_summary
from safer_instruct.sources import BadRow, SourceText, read_rows, read_source
from safer_instruct.storage import claim, journal
from safer_instruct.storage.address import parse
from safer_instruct.storage.claim import LOCK, claimed
from safer_instruct.storage.client import Bucket, ExistsError
from safer_instruct.storage.files import matches
from safer_instruct.storage.journal import Journal, list_segments, read_calls
from safer_instruct.tables import read_pairs

TEXTS = [
    "The printer is not broken. You left the lid open, again, and then you rang us about it on a Sunday.",
    "Nobody reads the manual these days, so here we are, discussing which end of a plug goes into the wall.",
    "Your parcel is where you told us to leave it, which is more than can be said for your good manners.",
]
CONFIG = """\
domain: civility
source: {path: SOURCE}
models: {inducer: "scripted:script.yaml", expert: "scripted:script.yaml", scorer: "scripted:script.yaml"}
filter: {prompt: {language: null}}
"""


@pytest.fixture
def bucket(s3: S3Server, request: pytest.FixtureRequest) -> Bucket:
    """A bucket of this test's own."""
    name = request.node.name.partition("[")[0].replace("_", "-")[5:60].strip("-")
    s3.create_bucket(name)
    return Bucket(parse(f"s3://{name}/"))


@pytest.fixture
def cli(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("script.yaml").write_text(SCRIPT, encoding="utf-8")
    Path("texts.jsonl").write_text(lines(), encoding="utf-8")
    Path("my.yaml").write_text(CONFIG.replace("SOURCE", "texts.jsonl"), encoding="utf-8")

    plain = caller(capfd)

    def call(*arguments: str) -> Said:
        said = plain(*arguments)
        assert SECRET not in said.out + said.err and KEY not in said.out + said.err
        return said

    return call


def lines(texts: list[str] = TEXTS) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts) + "{}\n"


def parquet(texts: list[str] = TEXTS) -> bytes:
    held = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), held)
    return held.getvalue()


def place(bucket: Bucket, key: str = "") -> str:
    return str(bucket.root.below(key))


def texts_of(path: str) -> list[tuple[str, int, str]]:
    return [(row.file, row.line, row.text) for row in read_source(SourceConfig(path=path), Path("/")) if isinstance(row, SourceText)]


# --- sources


def test_every_format_is_read_with_its_rows_and_its_address(bucket: Bucket) -> None:
    csv = "text\n" + "".join(f'"{text}"\n' for text in TEXTS)
    data = {
        "a.jsonl": lines().encode(),
        "b.jsonl.gz": gzip.compress(lines().encode()),
        "c.csv": csv.encode(),
        "d.csv.zst": zstd.compress(csv.encode()),
        "e.parquet": parquet(),
        "f.txt": "\n\n".join(TEXTS).encode(),
    }
    for name, content in data.items():
        bucket.put(f"texts/{name}", content)
    bucket.put("texts/.hidden.jsonl", lines().encode())
    bucket.put("texts/notes.bin", b"no format")
    found = texts_of(place(bucket, "texts"))
    assert [(file.rpartition("/")[2], text) for file, _, text in found] == [(name, text) for name in data for text in TEXTS]
    assert found[0][:2] == (place(bucket, "texts/a.jsonl"), 1) and found[7][1] == 3 and found[-1][1] == 5
    bad = [row for row in read_source(SourceConfig(path=place(bucket, "texts/a.jsonl")), Path()) if isinstance(row, BadRow)]
    assert [(row.file, row.line) for row in bad] == [(place(bucket, "texts/a.jsonl"), 4)]
    assert len(texts_of(place(bucket, "texts/*.jsonl*"))) == 6 and len(texts_of(place(bucket, "**/?.parquet"))) == 3
    with pytest.raises(SourceError, match="no object and no glob match"):
        texts_of(place(bucket, "texts/*.docx"))
    assert len(list(read_rows(SourceConfig(path=place(bucket, "texts/e.parquet")), Path()))) == 3


def test_a_large_object_is_read_no_further_than_somebody_reads(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "An answer that is long enough to be worth an instruction of its own. " * 20
    bucket.put("big.jsonl", lines([text] * 20_000).encode())
    fetched: list[int] = []
    plain = Bucket.get_range

    def counted(self: Bucket, key: str, start: int, end: int, etag: str = "") -> bytes:
        fetched.append(end - start)
        return plain(self, key, start, end, etag)

    monkeypatch.setattr(Bucket, "get_range", counted)
    rows = read_source(SourceConfig(path=place(bucket, "big.jsonl")), Path())
    assert [next(rows).line for _ in range(10)] == list(range(1, 11)) and sum(fetched) < 1 << 20
    assert sum(1 for _ in rows) == 19_991 and max(fetched) == 4 << 20  # the broken row is one of them


def test_a_source_that_changes_while_it_is_read_stops_the_run(bucket: Bucket) -> None:
    bucket.put("texts.jsonl", lines(TEXTS * 2000).encode())
    rows = read_source(SourceConfig(path=place(bucket, "texts.jsonl")), Path())
    next(rows)
    bucket.put("texts.jsonl", lines(TEXTS * 2001).encode())
    with pytest.raises(StorageError, match=r"texts\.jsonl: the object was replaced or deleted while it was read"):
        list(rows)


def test_what_fsspec_knows_is_read_too() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/shelf/a.jsonl", lines().encode())
    memory.pipe("/shelf/b.parquet", parquet())
    assert [text for _, _, text in texts_of("memory://shelf")] == TEXTS * 2
    assert texts_of("memory://shelf/*.parquet")[2] == ("memory:///shelf/b.parquet", 3, TEXTS[2])
    with pytest.raises(StorageError, match="nosuch:// addresses cannot be read"):
        texts_of("nosuch://here")


def test_a_glob_over_keys_matches_what_one_over_files_does(tmp_path: Path) -> None:
    draw, compared = random.Random(5), 0
    for number in range(60):
        root, keys = tmp_path / str(number), []
        for _ in range(6):
            key = "/".join("".join(draw.choices("ab[-]!", k=draw.randint(1, 3))) for _ in range(draw.randint(1, 3)))
            with suppress(OSError):  # a file where another key needs a folder, or the same again
                (root / key).parent.mkdir(parents=True, exist_ok=True)
                (root / key).touch(exist_ok=False)
                keys.append(key)
        for _ in range(40):
            pattern = "/".join("".join(draw.choices("ab**?[-]!", k=draw.randint(1, 4))) for _ in range(draw.randint(1, 3)))
            there = {found for found in glob.glob(pattern, root_dir=root, recursive=True) if (root / found).is_file()}
            assert {key for key in keys if matches(key.split("/"), pattern.split("/"))} == there, pattern
            compared += bool(there)
    assert compared > 50


# --- runs and their readers


def test_a_run_at_an_address_is_published_and_every_command_reads_it_there(bucket: Bucket, cli: Cli, tmp_path: Path) -> None:
    out = place(bucket, "runs/one")
    bucket.put("texts/a.jsonl.gz", gzip.compress(lines().encode()))
    Path("my.yaml").write_text(CONFIG.replace("SOURCE", place(bucket, "texts/*.gz")), encoding="utf-8")
    said = cli("run", "my.yaml", "--out", out)
    assert said.code == 0 and f"{out}/pairs.jsonl" in said.out and str(tmp_path) not in said.out
    keys = [each.key for each in bucket.list("runs")]
    assert "runs/one/manifest.json" in keys and "runs/one/lock.json" not in keys and not any("probe" in key or key.endswith(".calls") for key in keys)
    everything = b"".join(bucket.get(key) for key in keys)
    assert SECRET.encode() not in everything and KEY.encode() not in everything

    assert "3 pairs from 4 rows" in cli("status", out).out
    assert [each for each in copies.fetch_run(parse(out), ledger=False).iterdir() if not each.stat().st_size] == [], "what is not there is not made up"
    id_ = json.loads(bucket.get("runs/one/pairs.jsonl").split(b"\n")[0])["id"]
    assert TEXTS[0][:40] in cli("why", out, id_).out and "induce" in cli("ledger", out).out and "from 3 examples" in cli("filters", out).out
    beside = cli("report", out, place(bucket, "runs/one/pairs.jsonl"), "--out", place(bucket, "r.html"))
    assert place(bucket, "r.html") in beside.out and place(bucket, "r.md") in beside.out and bucket.head("r.md")
    assert f"{out}/report.html" in cli("report", out).out and bucket.get("runs/one/report.html").startswith(b"<!doctype html>")
    assert "report.html" in json.loads(bucket.get("runs/one/manifest.json"))["files"]
    assert f"3 pairs: {place(bucket, 'sets/dpo')}" in cli("export", out, "--format", "datasets", "--out", place(bucket, "sets/dpo")).out
    assert cli("export", out, "--format", "jsonl", "--out", place(bucket, "sets/p.jsonl")).code == 0
    assert [row["rejected"] for row in map(json.loads, bucket.get("sets/p.jsonl").splitlines())] == TEXTS
    assert f"3 rows to label: {place(bucket, 'sheet.csv')}" in cli("calibrate", out, "--sheet", place(bucket, "sheet.csv")).out
    filled = bucket.get("sheet.csv").replace(b",,,", b",good,,", 1)
    bucket.put("sheet.csv", filled)
    refused = cli("calibrate", out, "--sheet", place(bucket, "sheet.csv"))
    assert refused.code == 2 and f"{place(bucket, 'sheet.csv')} is filled in, in 1 row; " in refused.err and bucket.get("sheet.csv") == filled
    bucket.put("labels.csv", f"id,label\n{id_},good\n".encode())
    assert f"{place(bucket, 'labels.csv')}: 1 good and 0 bad of 1 rows carry a label" in cli("calibrate", out, "--labels", place(bucket, "labels.csv")).err
    assert out in cli("audit", out).out and place(bucket, "sets/p.jsonl") in cli("audit", place(bucket, "sets/p.jsonl")).out
    Path("model.json").write_text("{}", encoding="utf-8")
    valued = cli("value", out, "--model", "scripted:model.json")
    assert valued.out.startswith("3 pairs (0 more were duplicates") and Path("runs/one-value/value.json").is_file()
    refused = cli("export", out, "--format", "datasets", "--out", place(bucket, "sets"))
    assert refused.code == 2 and "holds other files (dpo/README.md" in refused.err

    for arguments in (("status", out, "--follow"), ("ledger", out, "--recover")):
        assert f"works on a folder of this machine, and {out} is none" in cli(*arguments).err

    again = cli("run", "my.yaml", "--out", out)
    assert "30 model calls (30 of them from the ledger)" in again.out and bucket.head("runs/one/report.html") is None
    assert "removed: report.html, report.md (of the run before)" in again.out
    fresh = cli("run", "my.yaml", "--out", out, "--fresh")
    assert "30 model calls (0 of them from the ledger)" in fresh.out and bucket.head("runs/one/previous-1/pairs.parquet")


def test_exports_are_read_by_pyarrow_and_datasets_where_they_stand(bucket: Bucket, cli: Cli, s3: S3Server) -> None:
    from pyarrow import fs

    out = place(bucket, "run")
    assert cli("run", "my.yaml", "--out", out).code == 0
    assert cli("export", out, "--format", "parquet", "--out", place(bucket, "set/train.parquet")).code == 0
    system = fs.S3FileSystem(endpoint_override=s3.url, scheme="http", access_key=KEY, secret_key=SECRET, region="us-east-1")
    for key in ("run/pairs.parquet", "set/train.parquet"):
        assert pq.read_table(f"{bucket.root.bucket}/{key}", filesystem=system).column("rejected").to_pylist() == TEXTS
    datasets = pytest.importorskip("datasets")
    local = Path("here.parquet")
    bucket.download("set/train.parquet", local)
    assert datasets.Dataset.from_parquet(str(local), cache_dir="cache-datasets")["rejected"][:] == TEXTS


def test_a_reader_in_a_loop_never_sees_half_a_run(bucket: Bucket, cli: Cli) -> None:
    """Two sets of texts in turn, published over each other; whoever reads sees one of them, or no finished run."""
    out, stop, torn = place(bucket, "run"), threading.Event(), []
    seen: set[int] = set()
    address = parse(out)

    def read() -> None:
        while not stop.is_set():
            try:
                folder = copies.fetch_run(address, ledger=True)
                summary = read_summary(folder)
                rejected = [pair["rejected"] for pair in read_pairs(folder)]
            except RunDirectoryError as exc:
                if "no finished run" not in str(exc) and "holds no run" not in str(exc):
                    torn.append(repr(exc))
            except Exception as exc:  # noqa: BLE001 - whatever a reader meets is what this test is about
                torn.append(repr(exc))
            else:
                seen.add(len(rejected))
                if rejected != TEXTS[: len(rejected)] or summary["pairs"] != len(rejected):
                    torn.append(f"{summary['pairs']} pairs said, {len(rejected)} there")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for count in (3, 2, 3, 2):
            Path("texts.jsonl").write_text(lines(TEXTS[:count]), encoding="utf-8")
            assert cli("run", "my.yaml", "--out", out).code == 0
            deadline = time.monotonic() + 60
            while count not in seen and time.monotonic() < deadline:
                time.sleep(0.02)
            seen.discard(5 - count)
    finally:
        stop.set()
        reader.join()
    assert torn == [] and seen


def test_another_machine_refuses_another_config_and_goes_on_with_the_same(bucket: Bucket, cli: Cli) -> None:
    out = place(bucket, "run")
    assert cli("run", "my.yaml", "--out", out, "--work", "here").code == 0
    Path("other.yaml").write_text(Path("my.yaml").read_text() + "seed: 7\n", encoding="utf-8")
    refused = cli("run", "other.yaml", "--out", out, "--work", "elsewhere")
    assert refused.code == 2 and "seed: 0, now 7." in refused.err and bucket.head("run/manifest.json")
    assert "30 model calls (30 of them from the ledger)" in cli("run", "my.yaml", "--out", out, "--work", "elsewhere").out
    assert cli("run", "other.yaml", "--out", out, "--work", "elsewhere", "--continue").code == 0
    assert cli("run", "other.yaml", "--out", out, "--work", "here").code == 0  # which has not seen what was done elsewhere
    summary = json.loads(Path("here/summary.json").read_text())
    assert summary["timing"]["calls_from_ledger"] == summary["calls"] > 0


def test_a_bucket_that_was_emptied_gets_the_finished_calls_again(bucket: Bucket, cli: Cli) -> None:
    out = place(bucket, "run")
    assert cli("run", "my.yaml", "--out", out, "--work", "here").code == 0
    bucket.delete(each.key for each in bucket.list("run"))
    assert cli("run", "my.yaml", "--out", out, "--dry-run", "--work", "here").code == 0
    segments = list_segments(bucket, parse(out))
    assert sum(1 for _ in read_calls(bucket, parse(out), segments)) == 30


def test_a_dry_run_leaves_its_calls_and_no_results(bucket: Bucket, cli: Cli) -> None:
    out = place(bucket, "run")
    assert cli("run", "my.yaml", "--out", out, "--dry-run", "--sample", "1", "--work", "here").code == 0
    assert bucket.head("run/manifest.json") is None and list_segments(bucket, parse(out))
    assert "calls so far" in (said := cli("status", out).out) and "give the 'run' command again" in said
    with closing(Jobs(Path("batches.sqlite"))) as jobs:
        jobs.advance(jobs.plan("openai:m@there", "token", "/path", [Row(b"key", 0, None, 9)]), "open", remote="b")
    bucket.upload("run/batches.sqlite", Path("batches.sqlite"))
    said = cli("status", out).out
    assert "provider of openai:m@there" in said and f"to go on: safer-instruct run CONFIG --out {out}; it waits for what is at the provider" in said
    bucket.delete(["run/batches.sqlite"])
    assert cli("run", "my.yaml", "--out", out, "--work", "elsewhere").code == 0
    assert json.loads(Path("elsewhere/summary.json").read_text())["timing"]["calls_from_ledger"] > 0


# --- one writer


def call(number: int) -> Call:
    return Call(number.to_bytes(16, "big"), "induce", "model", b'["generate",{}]', b"[]", Usage(3, 4, 0.5, 1.5), 17.0)


def test_a_writer_that_fell_silent_is_taken_over_and_told_so(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "RENEWED_EVERY_S", 3600.0)
    address, said = parse(place(bucket, "run")), []
    with claimed(bucket, address, pytest.fail) as first:
        first.begin(4)
        elsewhere = json.loads(bucket.get("run/lock.json")) | {"machine": "another", "host": "elsewhere"}
        first._etag = bucket.put("run/lock.json", json.dumps(elsewhere).encode())
        with pytest.raises(RunDirectoryError, match=r"in use by process \d+ on elsewhere, which was heard of \d s ago"), claimed(bucket, address, said.append):
            pass
        monkeypatch.setattr(claim, "STALE_S", 0.0)
        with claimed(bucket, address, said.append) as second:
            assert second.earlier_epoch == 4 and "elsewhere is gone" in said[0]
            with pytest.raises(RunDirectoryError, match="was taken over by process"):
                first.check()
            second.renew()
    assert bucket.head("run/" + LOCK) is None and not list(bucket.list("run"))


def test_of_many_who_begin_at_once_one_wins(bucket: Bucket) -> None:
    address, held, refused = parse(place(bucket, "run")), [], []
    everybody, done = threading.Barrier(6), threading.Event()

    def begin() -> None:
        everybody.wait()
        try:
            with claimed(bucket, address, pytest.fail):
                held.append(1)
                done.wait(30)
        except RunDirectoryError:
            refused.append(1)
            if len(refused) == 5:
                done.set()

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)


def test_a_lost_answer_to_a_put_is_no_conflict_and_another_object_is(bucket: Bucket) -> None:
    assert bucket.create("one", b"mine") == bucket.create("one", b"mine")
    with pytest.raises(ExistsError):
        bucket.create("one", b"another's")


def test_many_commits_become_one_object_and_none_is_lost(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_JOINED", 5)
    address = parse(place(bucket, "run"))
    written = Journal(bucket, address, 3)
    for number in range(12):
        written.append([call(2 * number), call(2 * number + 1)])
        segments = list_segments(bucket, address)
        assert [int.from_bytes(one.key, "big") for one in read_calls(bucket, address, segments)] == list(range(2 * number + 2))
    assert [(s.first, s.last) for s in segments] == [(1, 5), (6, 10), (11, 11), (12, 12)]
    bucket.put("run/ledger/000003-0000000002-0000000002.calls", b"left by a kill between the two steps")
    assert list_segments(bucket, address) == segments


# --- what is said


@pytest.mark.parametrize(
    ("environment", "address", "says"),
    [
        pytest.param({}, "s3://no-such-bucket/run", "s3://no-such-bucket: there is no such bucket; check its name, and AWS_ENDPOINT_URL", id="no bucket"),
        pytest.param({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://lab/run", "s3://lab/run/lock.json cannot be reached (no answer)", id="network"),
        pytest.param({"AWS_PROFILE": "gone"}, "s3://lab/run", "AWS_PROFILE names the profile 'gone', which stands neither in", id="no profile"),
        pytest.param({}, "s3://lab", "a run needs a place of its own in the bucket", id="bucket itself"),
        pytest.param({}, "s3://me:secret@lab/run", "holds a user name or a key; credentials come from the environment", id="secret"),
        pytest.param({}, "hf://datasets/me/run", "only s3://, gs://, az:// can hold runs and exports", id="not writable"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(environment: dict[str, str], address: str, says: str, s3: S3Server, cli: Cli, monkeypatch: Any) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = cli("run", "my.yaml", "--out", address)
    assert said.code == 2 and says in said.err and said.err.count("\n") == 1 and "secret" not in said.err


def test_keys_that_are_refused_are_named_by_variable_and_not_shown(bucket: Bucket, cli: Cli, s3: S3Server) -> None:
    bucket.put("run/x", b"")
    with s3.refusing():
        said = cli("status", place(bucket, "run"))
    assert said.code == 2 and "access is denied (" in said.err and "AWS_ACCESS_KEY_ID" in said.err


def test_a_profile_gives_keys_where_the_environment_has_none(bucket: Bucket, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n[sso]\nsso_session = me\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert cli("run", "my.yaml", "--out", place(bucket, "run")).code == 0
    monkeypatch.setenv("AWS_PROFILE", "sso")
    assert "aws configure export-credentials --profile sso" in cli("status", place(bucket, "run")).err


def test_commands_for_this_machine_refuse_an_address_before_they_make_a_folder(cli: Cli) -> None:
    for arguments in (("evaluate", "--out", "s3://lab/x"), ("tune", "my.yaml", "--out", "s3://lab/x"), ("review", "s3://lab/x")):
        said = cli(*arguments)
        assert said.code == 2 and "files of this machine only" in said.err
    assert not [name for name in os.listdir() if name.startswith("s3")]
    assert "--work is for a run at an address" in cli("run", "my.yaml", "--out", "out", "--work", "w").err


def test_a_manifest_and_files_that_do_not_fit_are_never_read_as_a_run(bucket: Bucket, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_PAUSE_S", 0.01)
    assert cli("run", "my.yaml", "--out", place(bucket, "run")).code == 0
    bucket.put("run/pairs.parquet", b"of another run")
    said = cli("export", place(bucket, "run"), "--format", "jsonl")
    assert said.code == 2 and f"not those that {place(bucket, 'run')}/{MANIFEST} names" in said.err
