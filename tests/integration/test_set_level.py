"""Keeping the best of duplicates and choosing the set, in whole runs over scripted models and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from civil_script import SCRIPT

from safer_instruct import derived, rundir
from safer_instruct.audit.reading import read_set
from safer_instruct.cli import main
from safer_instruct.config import load_config
from safer_instruct.errors import ConfigError, MissingExtraError, RunDirectoryError
from safer_instruct.export import export_pairs
from safer_instruct.pipeline import run
from safer_instruct.report.build import write_report
from safer_instruct.selectconfig import SelectConfig, read_quotas
from safer_instruct.selected import select_from_run
from safer_instruct.tables import read_pairs

SHORT = "Your parcel is where you told us to leave it which is more than can be said for your good manners towards our driver"
LONG = SHORT + " on Friday"
OTHERS = [
    "The printer is not broken. You left the lid open, again, and then you rang us about it on a Sunday.",
    "Nobody reads the manual these days, so here we are, discussing which end of a plug goes into the wall.",
    "A tent that is pitched in a river gets wet, and no warranty in the world changes what water does.",
]


def write_config(folder: Path, texts: list[str], **sections: Any) -> Path:
    (folder / "texts.jsonl").write_text("".join(json.dumps({"id": f"t{i}", "text": text}) + "\n" for i, text in enumerate(texts)), "utf-8")
    (folder / "script.yaml").write_text(SCRIPT, "utf-8")
    models = dict.fromkeys(("inducer", "expert", "scorer"), "scripted:script.yaml")
    config = {"domain": "civility", "source": {"path": "texts.jsonl", "id": "id"}, "models": models, **sections}
    config["filter"] = {"prompt": {"language": None}, **sections.get("filter", {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    return folder / "config.yaml"


def go(folder: Path, texts: list[str], **sections: Any) -> dict[str, Any]:
    return run(load_config(write_config(folder, texts, **sections)), folder / "out").summary


def verdicts(folder: Path) -> dict[str, tuple[str | None, str | None]]:
    rows = pq.read_table(folder / "out" / "examples.parquet").to_pylist()
    return {row["id"]: (row["dropped_by"], row["drop_reason"]) for row in rows}


def test_the_first_of_two_like_texts_stays_unless_the_best_is_asked_for(tmp_path: Path) -> None:
    texts = [SHORT, *OTHERS, LONG]
    (tmp_path / "first").mkdir()
    (tmp_path / "best").mkdir()
    go(tmp_path / "first", texts)
    go(tmp_path / "best", texts, filter={"keep": "best"})
    assert verdicts(tmp_path / "first")["t4"] == ("dedup.text", "is a near-duplicate of t0")
    best = verdicts(tmp_path / "best")
    assert best["t0"] == ("dedup.text", "is a near-duplicate of t4, which is better or came first")
    assert list(best) == ["t0", "t1", "t2", "t3", "t4"] and [by for by, _ in best.values()].count(None) == 4


def test_a_run_that_keeps_the_best_comes_out_the_same_when_it_is_run_again(tmp_path: Path) -> None:
    go(tmp_path, [SHORT, *OTHERS, LONG], filter={"keep": "best"}, select={"near": 0.9})
    before = {name: (tmp_path / "out" / name).read_bytes() for name in ("examples.parquet", "pairs.parquet", "pairs.jsonl")}
    again = go(tmp_path, [SHORT, *OTHERS, LONG], filter={"keep": "best"}, select={"near": 0.9})
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    assert again["timing"]["calls_from_ledger"] == again["calls"]


def test_exact_duplicates_go_also_where_near_ones_may_stay(tmp_path: Path) -> None:
    go(tmp_path, [SHORT, LONG, SHORT.upper()], filter={"keep": "best", "near_duplicate": None})
    assert [by for by, _ in verdicts(tmp_path).values()] == [None, None, "dedup.text"]


def test_pairs_that_are_not_chosen_are_dropped_with_a_reason_and_the_books_add_up(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    summary = go(tmp_path, [SHORT, *OTHERS], select={"target": 2})
    assert (summary["pairs"], summary["stages"]["verify"]["dropped"]) == (2, {"select": 2})
    assert [reason for _, reason in verdicts(tmp_path).values() if reason] == ["is not among the 2 chosen of 4"] * 2


def test_select_writes_the_chosen_beside_a_finished_run_and_leaves_the_run_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wordllama")
    go(tmp_path, [SHORT, *OTHERS])
    out, before = tmp_path / "out", list(read_pairs(tmp_path / "out"))
    with pytest.raises(SystemExit) as ended:
        main(["select", str(out), "--n", "3"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"3 of 4 pairs: {out / 'selected.jsonl'}\ndropped: select: 1\n")
    chosen = [json.loads(line) for line in (out / "selected.jsonl").read_text("utf-8").splitlines()]
    assert [len(read_set(out / f"selected.{ending}")) for ending in ("jsonl", "parquet")] == [3, 3], "audit takes it as it is"
    assert pq.read_table(out / "selected.parquet").to_pylist() == chosen and all(row in before for row in chosen) and len(chosen) == 3
    assert list(read_pairs(out)) == before
    report = json.loads((out / "selection.json").read_text("utf-8"))
    assert (report["pairs"], report["selected"], sum(report["categories"].values())) == (4, 3, 3)
    fewer = select_from_run(out, SelectConfig(target=2))
    assert fewer["selected"] == 2


def test_clusters_of_duplicate_pairs_are_told_with_who_stayed(tmp_path: Path) -> None:
    go(tmp_path, [SHORT, *OTHERS, LONG], filter={"near_duplicate": None})
    report = select_from_run(tmp_path / "out", SelectConfig(near=0.25))
    (cluster,) = report["clusters"]
    assert cluster["kept"] == ["t0"] and [(gone["id"], gone["by"]) for gone in cluster["dropped"]] == [("t4", "dedup.pair")]
    assert 0.25 <= cluster["dropped"][0]["similarity"] < 1 and report["selected"] == 4


def test_a_new_run_forgets_what_was_selected_from_the_old_one(tmp_path: Path) -> None:
    go(tmp_path, [SHORT, *OTHERS])
    select_from_run(tmp_path / "out", SelectConfig())
    assert (tmp_path / "out" / "selected.jsonl").exists()
    go(tmp_path, [SHORT, *OTHERS[1:]])
    assert not list((tmp_path / "out").glob("select*")) and not (tmp_path / "out" / rundir.ASIDE).exists()


def test_the_same_run_given_again_keeps_what_was_made_of_its_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    go(tmp_path, [SHORT, *OTHERS])
    out = tmp_path / "out"
    select_from_run(out, SelectConfig())
    write_report(out)
    export_pairs(out, "jsonl")
    made = {name: (out / name).read_bytes() for name in derived.DERIVED}
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tmp_path / "config.yaml"), "--out", str(out)])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "removed" not in said and "still of other pairs" not in said
    assert {name: (out / name).read_bytes() for name in derived.DERIVED} == made
    (tmp_path / "texts.jsonl").write_text("".join((tmp_path / "texts.jsonl").read_text("utf-8").splitlines(keepends=True)[1:]), "utf-8")
    with pytest.raises(SystemExit):
        main(["run", str(tmp_path / "config.yaml"), "--out", str(out)])
    said = capsys.readouterr().out
    assert "removed: selected.parquet, selected.jsonl, selection.json, report.html, report.md (of the run before)" in said
    assert "still of other pairs than these: export.jsonl; export again what you need\n" in said
    assert not any((out / name).exists() for name in derived.DERIVED)
    with pytest.raises(SystemExit):
        main(["run", str(tmp_path / "config.yaml"), "--out", str(out)])
    said = capsys.readouterr().out
    assert "still of other pairs than these: export.jsonl; " in said and "removed" not in said


def test_what_cannot_be_selected_from_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunDirectoryError, match="holds no finished run"):
        select_from_run(tmp_path, SelectConfig())
    go(tmp_path, OTHERS)
    with pytest.raises(ConfigError, match="category 'kind', of which there is no pair"):
        select_from_run(tmp_path / "out", SelectConfig(quotas={"kind": 1}))
    with pytest.raises(ConfigError, match="there is no embedder 'glove'"):
        select_from_run(tmp_path / "out", SelectConfig(target=1, embedder="glove"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"safer-instruct\[embed\]"):
        select_from_run(tmp_path / "out", SelectConfig(target=1))


def test_quotas_are_read_from_the_command_line() -> None:
    assert read_quotas(["hate=1", "a=b=2.5"]) == {"hate": 1.0, "a=b": 2.5}
    for given, wrong in {
        "hate": "it names no category, or no share",
        "=1": "it names no category, or no share",
        "hate=many": "'many' is no number",
        "hate=-1": "a share is 0 or more",
        "hate=inf": "a share is a finite number",
        "hate=nan": "a share is a finite number",
    }.items():
        with pytest.raises(ConfigError, match=f"'{given}' is no quota: {wrong}; write CATEGORY=SHARE"):
            read_quotas([given])
    with pytest.raises(ConfigError, match="'hate=2' is no quota: 'hate' is given twice"):
        read_quotas(["hate=1", "hate=2"])
