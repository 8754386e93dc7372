"""A whole run over a crawl: pages become passages, are sifted and routed, and what each came from reaches the export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from made_crawls import http, packed, page, record, uri, wet

from safer_instruct import equipment
from safer_instruct.cli import main
from safer_instruct.config import load_config
from safer_instruct.export import Options, export_pairs
from safer_instruct.pipeline import run
from safer_instruct.routing import open_router

OVERCLAIMING = Path(__file__).parents[2] / "examples" / "overclaiming"
CLAIMS = {
    1: "That cough is nothing at all, I can promise you so much. Take two of the green pills and it will be gone by the morning, no doctor needed.",
    2: "You will win this in court, there is no way around it. The contract is void because your landlord signed it on a Sunday, believe me.",
    3: "This fund cannot fall, it never has and it never will. Put all of your money into it today and the bank will thank you for the profit.",
    4: "The early peas want a string to climb on, and a can of water once a week that is poured slowly at the foot of each of the plants.",
    5: "Please enable JavaScript in the settings of your browser and load this page again, so that we can show you all of it as it should be.",
    6: "Dieser Fonds kann nicht fallen, das hat er noch nie getan. Stecken Sie heute Ihr ganzes Geld hinein, und die Bank wird es Ihnen danken.",
}


def crawl(folder: Path) -> None:
    pages = [page(n, f"<nav>Home</nav><article><h1>Advice</h1><p>{text}</p></article>".encode()) for n, text in CLAIMS.items() if n != 3]
    (folder / "shards" / "a").mkdir(parents=True)
    (folder / "shards" / "a" / "1.warc.gz").write_bytes(packed(record(9, b"GET /", kind="request"), *pages, page(7, status="404 Not Found")))
    (folder / "shards" / "2.warc.wet.gz").write_bytes(packed(wet(3, CLAIMS[3]), record(8, http(b"<p>cut</p>"), length=5_000)))


def config(folder: Path) -> Path:
    shutil.copy(OVERCLAIMING / "script.yaml", folder / "script.yaml")
    made = yaml.safe_load((OVERCLAIMING / "routed.yaml").read_text("utf-8"))
    del made["source"]["id"]
    made["source"]["path"] = "shards"
    (folder / "c.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
    return folder / "c.yaml"


def test_a_crawl_becomes_pairs_by_category_and_every_record_is_accounted_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crawl(tmp_path)
    opened: list[object] = []
    monkeypatch.setattr(equipment, "open_router", lambda *given: opened.append(given) or open_router(*given))
    result = run(load_config(config(tmp_path)), tmp_path / "out")
    collected = result.summary["stages"]["collect"]
    assert len(opened) == 1, "by embedding it takes its time"
    assert collected["dropped"] == {"collect.route": 2, "text.language": 1}, "peas and Javascript belong nowhere, and one is in German"
    assert (result.summary["rows"], result.summary["set_aside"], result.summary["pairs"]) == (8, 2, 3)
    aside = [json.loads(line) for line in (tmp_path / "out" / "rejected_rows.jsonl").read_text("utf-8").splitlines()]
    assert sorted((row["file"], row["line"]) for row in aside) == [("shards/2.warc.wet.gz", 2), ("shards/a/1.warc.gz", 7)]
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "out" / "examples.parquet").to_pylist()}
    routed = {row["text"]: row for row in rows.values()}
    assert [routed[CLAIMS[n]]["category"] for n in (1, 2, 3)] == ["medical", "legal", "financial"]
    assert "belongs to no category" in json.dumps(routed[CLAIMS[4]], default=str) and routed[CLAIMS[5]]["dropped_by"] == "collect.route"
    exported = pq.read_table(export_pairs(tmp_path / "out", "parquet", options=Options(provenance=True)).path).to_pylist()
    assert {(row["source_file"], row["source_line"], uri(n) in row["source_place"]) for n, row in zip((3, 1, 2), exported, strict=True)} == {
        ("shards/2.warc.wet.gz", 1, True),
        ("shards/a/1.warc.gz", 2, True),
        ("shards/a/1.warc.gz", 3, True),
    }


def test_a_run_with_other_keywords_is_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crawl(tmp_path)
    path = config(tmp_path)
    run(load_config(path), tmp_path / "out")
    before = (tmp_path / "out" / "pairs.jsonl").read_bytes()
    again = run(load_config(path), tmp_path / "out")
    assert again.summary["timing"]["calls_from_ledger"] == again.summary["calls"] > 0 and (tmp_path / "out" / "pairs.jsonl").read_bytes() == before
    path.write_text(path.read_text("utf-8").replace("cough*", "cold*"), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["run", str(path), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2 and "route" in capsys.readouterr().err
