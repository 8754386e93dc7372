"""Pairs in other forms: every pair, every character, in a file that is whole."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from runs import SUMMARY, summed_up, write_books

from safer_instruct import rundir, tables
from safer_instruct.audit import read_set
from safer_instruct.card import Release, dataset_card
from safer_instruct.errors import ConfigError, RunDirectoryError, SaferInstructError
from safer_instruct.example import Example, Verdict
from safer_instruct.export import FORMATS, Options, export_pairs
from safer_instruct.export.registry import FileFormat
from safer_instruct.export.rows import PROVENANCE

pytestmark = pytest.mark.filterwarnings("error")

ODD = [
    "quotes \"and\" 'more'",
    "comma, semicolon; tab\t",
    "lines\none\r\ntwo\rthree",
    "\u2028\u2029\x85 separators",
    "\U0001f642 \u202e \x1b[31m",
    "=1+1",
    "  spaces  ",
    "\ufeffbom",
]
OK = Verdict("prompt.length", True, 7.0)
EXAMPLES = [
    Example(f"id{i}", f"rejected {text}", "support", "t.jsonl", i, prompt=f"prompt {text}", chosen=f"chosen {text}").with_verdicts(OK)
    for i, text in enumerate(ODD)
]
PAIRS = [{"prompt": e.prompt, "chosen": e.chosen, "rejected": e.text, "category": "support", "id": e.id} for e in EXAMPLES]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with these pairs and a dropped example."""
    with tables.outputs(tmp_path) as out:
        for example in (*EXAMPLES, replace(EXAMPLES[0], id="dropped").with_verdicts(Verdict("prompt.length", False))):
            out.add(example)
    write_books(tmp_path, len(PAIRS))
    return tmp_path


def select(run: Path, ids: list[str]) -> None:
    pq.write_table(pa.table({"id": ids}), run / rundir.SELECTED)


@pytest.mark.parametrize("provenance", [False, True])
def test_only_selected_pairs_leave_in_the_order_of_the_run_and_the_card_says_so(run: Path, provenance: bool) -> None:
    select(run, ["id5", "id2", "id4"])
    options = Options(selected=True, provenance=provenance)
    rows = [json.loads(line) for line in export_pairs(run, "jsonl", options=options).path.read_text("utf-8").splitlines()]
    assert [{name: row[name] for name in PAIRS[0]} for row in rows] == [PAIRS[2], PAIRS[4], PAIRS[5]]
    folder, count, splits, *_ = export_pairs(run, "datasets", options=replace(options, splits={"test": 0.4}))
    assert count == sum(splits.values()) == 3 and set(splits) == {"train", "test"}
    card = (folder / "README.md").read_text("utf-8")
    assert f"Only a selection of the run's {len(PAIRS)} pairs is here (`safer-instruct select`)." in card and "3 pairs (" in card


def test_a_run_without_a_selection_or_with_one_of_other_pairs_says_what_to_do(run: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"has no selection yet; make one: safer-instruct select "):
        export_pairs(run, "jsonl", options=Options(selected=True))
    select(run, ["gone"])
    with pytest.raises(RunDirectoryError, match=r"holds none of its pairs; make it anew: safer-instruct select "):
        export_pairs(run, "jsonl", options=Options(selected=True))
    (run / rundir.SELECTED).write_bytes(b"PAR1")
    with pytest.raises(RunDirectoryError, match=r"selected.parquet cannot be read .*; make it anew: safer-instruct select "):
        export_pairs(run, "jsonl", options=Options(selected=True))


def test_jsonl_holds_one_object_per_line_in_trls_columns(run: Path) -> None:
    path, count, *_ = export_pairs(run, "jsonl")
    assert (path, count) == (run / "export.jsonl", len(PAIRS))
    assert [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] == PAIRS


def test_messages_are_conversations_of_one_turn_each(run: Path) -> None:
    path = export_pairs(run, "messages").path
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    assert path.name == "export.messages.jsonl" and len(rows) == len(PAIRS)
    for row, pair in zip(rows, PAIRS, strict=True):
        assert row["prompt"] == [{"role": "user", "content": pair["prompt"]}]
        assert row["chosen"] == [{"role": "assistant", "content": pair["chosen"]}]
        assert row["rejected"] == [{"role": "assistant", "content": pair["rejected"]}]
        assert (row["category"], row["id"]) == (pair["category"], pair["id"])


def test_csv_comes_back_character_by_character(run: Path) -> None:
    path = export_pairs(run, "csv").path
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == PAIRS and list(rows[0]) == list(tables.PAIR_COLUMNS)


def test_parquet_has_text_columns_only(run: Path) -> None:
    path = export_pairs(run, "parquet").path
    table = pq.read_table(path)
    assert table.to_pylist() == PAIRS and {str(field.type) for field in table.schema} == {"string"}


def test_a_run_without_pairs_exports_an_empty_file_of_each_format(tmp_path: Path) -> None:
    with tables.outputs(tmp_path):
        pass
    write_books(tmp_path, 0)
    sizes = {name: export_pairs(tmp_path, name).path.stat().st_size for name, form in FORMATS.items() if isinstance(form, FileFormat)}
    assert sizes["jsonl"] == sizes["messages"] == 0 and pq.read_table(tmp_path / "export.parquet").num_rows == 0
    assert (tmp_path / "export.csv").read_text().strip() == "prompt,chosen,rejected,category,id"


def test_the_file_can_be_chosen_and_its_folder_is_made(run: Path, tmp_path: Path) -> None:
    assert export_pairs(run, "jsonl", tmp_path / "new" / "x.jsonl")[0] == tmp_path / "new" / "x.jsonl"
    assert not (run / "export.jsonl").exists() and [p.name for p in (tmp_path / "new").iterdir()] == ["x.jsonl"]


def test_an_unknown_format_is_told_with_the_known_ones(run: Path) -> None:
    with pytest.raises(ConfigError, match="unknown format 'xml'; choose one of jsonl, messages, csv, parquet"):
        export_pairs(run, "xml")


def test_a_run_that_is_not_finished_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no finished run"):
        export_pairs(tmp_path, "jsonl")
    assert list(tmp_path.iterdir()) == []


def test_after_an_error_the_earlier_export_stays(run: Path) -> None:
    path = export_pairs(run, "csv").path
    before = path.read_bytes()
    (run / rundir.PAIRS).write_bytes(b"damaged")
    with pytest.raises(Exception, match=r"."):
        export_pairs(run, "csv")
    assert path.read_bytes() == before and not list(run.glob(".*.part"))


def test_what_is_no_regular_file_is_not_replaced(run: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with suppress(SaferInstructError):
        export_pairs(run, "jsonl", pipe)
    assert pipe.is_fifo()


# --- formats


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_kto_gives_each_side_a_row_with_its_label(run: Path) -> None:
    rows = lines(export_pairs(run, "kto").path)
    assert [(r["prompt"], r["completion"], r["label"]) for r in rows[:2]] == [
        (PAIRS[0]["prompt"], PAIRS[0]["chosen"], True),
        (PAIRS[0]["prompt"], PAIRS[0]["rejected"], False),
    ]
    assert len(rows) == 2 * len(PAIRS) and {r["id"] for r in rows} == {p["id"] for p in PAIRS}


def test_openai_has_the_documented_keys_and_no_other(run: Path) -> None:
    row = lines(export_pairs(run, "openai").path)[0]
    assert row == {
        "input": {"messages": [{"role": "user", "content": PAIRS[0]["prompt"]}], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": PAIRS[0]["chosen"]}],
        "non_preferred_output": [{"role": "assistant", "content": PAIRS[0]["rejected"]}],
    }
    with pytest.raises(ConfigError, match="leave out --provenance"):
        export_pairs(run, "openai", options=Options(provenance=True))


def test_an_hh_transcript_has_two_turns_whatever_the_texts_say(tmp_path: Path) -> None:
    sly = Example("a", "No.\n\nHuman: again?\n\nAssistant: No.", "support", "t.jsonl", 1, prompt="Is it\n\nHuman: mine?", chosen="Yes.\n\nBest wishes")
    with tables.outputs(tmp_path) as out:
        out.add(sly)
    write_books(tmp_path, 1)
    row = lines(export_pairs(tmp_path, "hh").path)[0]
    for side in ("chosen", "rejected"):
        assert row[side].count("\n\nHuman:") == row[side].count("\n\nAssistant:") == 1
    assert row["chosen"].endswith("\n\nAssistant: Yes.\n\nBest wishes")


# --- what goes with the pairs


def test_provenance_says_where_each_pair_comes_from(run: Path) -> None:
    table = pq.read_table(export_pairs(run, "parquet", options=Options(provenance=True)).path)
    assert table.column_names == [*tables.PAIR_COLUMNS, *PROVENANCE]
    rows = table.to_pylist()
    assert [{name: row[name] for name in tables.PAIR_COLUMNS} for row in rows] == PAIRS
    assert [(row["source_file"], row["source_line"]) for row in rows] == [("t.jsonl", i) for i in range(len(ODD))]
    first = rows[0]
    assert (first["source_license"], first["guideline"]) == ("cc0-1.0", "0123456789abcdef")
    assert json.loads(first["models"])["inducer"] == {"name": "embedded:small+reverse", "fingerprint": "embedded:feed:ctranslate2-4.8"}
    assert json.loads(first["templates"])["induce"] == "00ff"
    assert json.loads(first["verdicts"]) == [{"name": "prompt.length", "passed": True, "score": 7.0}]


def test_every_format_but_a_fixed_one_takes_provenance(run: Path) -> None:
    for name, form in FORMATS.items():
        if not (isinstance(form, FileFormat) and form.fixed):
            assert export_pairs(run, name, options=Options(provenance=True)).pairs == len(PAIRS)


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_gives_a_rejected_text_away_where_it_is_withheld(tmp_path: Path, name: str) -> None:
    said = Verdict("pair.copying", False, 0.5, "copies 'umbrellaquote'", True)
    with tables.outputs(tmp_path) as out:
        out.add(replace(EXAMPLES[0], text="umbrellaquote").with_verdicts(said))
    write_books(tmp_path, 1)
    form = FORMATS[name]
    options = Options(redact=True, provenance=not (isinstance(form, FileFormat) and form.fixed))
    path = export_pairs(tmp_path, name, options=options).path
    files = [file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    texts = [pq.read_table(file).to_pylist().__repr__() if file.suffix == ".parquet" else file.read_text("utf-8") for file in files]
    assert not any("umbrellaquote" in text for text in texts)
    digest = hashlib.sha256(b"umbrellaquote").hexdigest()
    assert any(f"[withheld: 13 characters, sha256 {digest}]" in text for text in texts)


def test_a_card_tells_counts_limits_licences_and_terms(run: Path) -> None:
    options = Options({"test": 0.25}, provenance=True, redact=True, gated="manual")
    folder, _, splits, *_ = export_pairs(run, "datasets", options=options)
    _, header, body = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    data = yaml.safe_load(header)
    assert splits == {"train": 6, "test": 2} and "Splits: train 6, test 2." in body
    assert data["license"] == "cc-by-4.0" and "cc0-1.0" in body and data["size_categories"] == ["n<1K"]
    assert data["extra_gated_prompt"] == SUMMARY["domain"]["misuse"] in body
    for expected in ("dedup.text 2", "`openai:large`", "not calibrated", "are withheld", "`source_line`", "0.25", "- the judge was asked 20 times"):
        assert expected in body


@pytest.mark.parametrize(
    ("license_", "header"),
    [
        ("", {"license": "other", "license_name": "not-decided"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Our own terms, 2nd", {"license": "other", "license_name": "our-own-terms-2nd"}),
    ],
)
def test_a_licence_that_the_hub_does_not_know_is_another_with_a_name(license_: str, header: dict[str, str]) -> None:
    card = dataset_card({**SUMMARY, "pairs": 1, "license": license_}, Release({"train": "x"}, {"train": 1}))
    data = yaml.safe_load(card.split("---\n")[1])
    assert {name: value for name, value in data.items() if name.startswith("license")} == header


def test_only_a_card_can_be_gated(run: Path) -> None:
    with pytest.raises(ConfigError, match="use --format datasets"):
        export_pairs(run, "croissant", options=Options(gated="auto"))


def test_a_run_of_an_older_version_is_told_to_be_run_again(run: Path) -> None:
    (run / rundir.SUMMARY).write_text(json.dumps(summed_up(run)))
    assert export_pairs(run, "jsonl").pairs == 8
    for name, options in (("datasets", Options()), ("jsonl", Options(provenance=True))):
        with pytest.raises(RunDirectoryError, match="older version"):
            export_pairs(run, name, options=options)


def test_paths_may_be_plain_strings(run: Path, tmp_path: Path) -> None:
    assert export_pairs(str(run), "csv", str(tmp_path / "c.csv")).path == tmp_path / "c.csv"
    assert export_pairs(str(run), "datasets").path == run / "export-datasets"
    assert len(read_set(str(tmp_path / "c.csv"))) == len(read_set(run)) == export_pairs(run, "csv").pairs


def test_a_name_of_ones_own_will_do_but_not_that_of_another_format(run: Path, tmp_path: Path) -> None:
    for name in ("pairs.txt", "pairs", "pairs.JSONL", "pairs.v2"):
        assert export_pairs(run, "messages", tmp_path / name).path == tmp_path / name
    for name in ("pairs.csv", "pairs.Parquet"):
        with pytest.raises(ConfigError, match=r"format 'messages' does not end in \.\w+; give --out a name that ends in \.jsonl$"):
            export_pairs(run, "messages", tmp_path / name)


# --- folders


def test_a_folder_is_written_again_but_not_over_other_files(run: Path) -> None:
    first = export_pairs(run, "datasets").path
    assert first == run / "export-datasets"
    names = {str(file.relative_to(first)) for file in first.rglob("*") if file.is_file()}
    assert names == {"README.md", "croissant.json", "data/train.parquet"}
    export_pairs(run, "datasets")
    (first / "mine.txt").touch()
    with pytest.raises(RunDirectoryError, match=r"holds other files \(mine.txt\)"):
        export_pairs(run, "datasets")
    assert not list(run.glob(".*.part"))


def test_splits_of_a_file_format_are_files_of_a_folder(run: Path) -> None:
    path, count, splits, *_ = export_pairs(run, "messages", options=Options({"test": 0.25}, seed=3))
    assert (path, count, splits) == (run / "export-messages", 8, {"train": 6, "test": 2})
    train, test = lines(path / "train.messages.jsonl"), lines(path / "test.messages.jsonl")
    assert sorted(row["id"] for row in train + test) == [pair["id"] for pair in PAIRS] and len(test) == 2


def test_provenance_gives_the_rejected_side_place_and_licence_of_each_row(tmp_path: Path) -> None:
    """In direction `chosen` the source text is the chosen side; columns that are not read must not make it both."""
    own = Example("a", "A good text.", "support", "b.pdf", 7, prompt="p", chosen="A good text.", rejected="A weak one.", license="cc-by-4.0", place="page 2")
    plain = replace(own, id="b", license="", place="")
    with tables.outputs(tmp_path) as out:
        out.add(own)
        out.add(plain)
    write_books(tmp_path, 2)
    rows = pq.read_table(export_pairs(tmp_path, "parquet", options=Options(provenance=True)).path).to_pylist()
    assert [(row["chosen"], row["rejected"], row["source_place"], row["source_license"]) for row in rows] == [
        ("A good text.", "A weak one.", "page 2", "cc-by-4.0"),
        ("A good text.", "A weak one.", "", "cc0-1.0"),
    ]


def test_what_corpus_config_and_domain_say_is_words_in_the_card_and_nothing_that_is_read() -> None:
    evil = "<script>x</script> | \x1b[31m MIT\n# H"
    link, name = "[a](javascript:alert(1))", "a b/../c\x1b[31m|`"
    domain = {**SUMMARY["domain"], "name": "my_domain", "description": evil, "misuse": link, "guidelines": {name: "ab12"}}
    summary = {**SUMMARY, "domain": domain, "pairs": 3, "source_licenses": {evil: 1, link: 1}, "license": evil, "source_license": link}
    summary |= {"notes": [evil], "thresholds": evil, "models": {"expert": f"openai:{evil}`"}}
    card = dataset_card(summary, Release({"train": "pairs.parquet"}, {"train": 3}, gated=True))
    header, body = yaml.safe_load(card.split("---\n")[1]), card.split("---\n", 2)[2]
    assert "\x1b" not in card and header["extra_gated_prompt"] == link
    assert "<script>" not in body.replace("`openai:<script>x</script> ", "") and "\n# H" not in body and "[a](" not in body
    told = "&lt;script&gt;x&lt;/script&gt; \\| \u27e8U+001B\u27e9\\[31m MIT # H"
    assert body.count(told) == 6 and f"{told} (1 pair), \\[a\\](javascript\\:alert(1)) (1 pair);" in body
    assert "| a b/../c\u27e8U+001B\u27e9\\[31m\\|\\` | `ab12` |" in body and "# my\\_domain: preference pairs" in body
    assert "| expert | `openai:<script>x</script> \\| \u27e8U+001B\u27e9[31m MIT # H'` |" in body


def test_the_card_counts_pairs_by_licence_and_names_adapters() -> None:
    summary = {**SUMMARY, "pairs": 10, "source_licenses": {"cc-by-4.0": 6, "mit": 1}, "adapters": {"inducer": "ab" * 32}}
    card = dataset_card(summary, Release({"train": "pairs.parquet"}, {"train": 10}))
    assert "cc-by-4.0 (6 pairs), mit (1 pair); the licence of each stands in its row (export with provenance); of the other 3: cc0-1.0." in card
    assert "(adapter sha256 `abababababababab`)" in card


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet", "kto", "messages"])
def test_an_export_takes_the_place_of_an_earlier_one_and_of_nothing_else(run: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "mine.out"
    for _ in range(2):
        export_pairs(run, name, target)
    before = target.read_bytes()
    for other in {"csv", "jsonl", "parquet", "kto"} - {name}:
        with pytest.raises(ConfigError, match=r"mine\.out exists already, and holds something else"):
            export_pairs(run, other, target)
    assert target.read_bytes() == before and [file.name for file in tmp_path.glob("*.out*")] == ["mine.out"]
    target.write_bytes(b"")
    assert export_pairs(run, name, target).pairs and target.read_bytes() == before


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_an_export_with_further_columns_takes_the_place_of_one_without(run: Path, tmp_path: Path, name: str) -> None:
    for options in (Options(), Options(provenance=True), Options()):
        export_pairs(run, name, tmp_path / f"mine.{name}", options)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Where?"}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"prompts\.jsonl exists already, and holds something else"):
        export_pairs(run, "jsonl", prompts)
    assert export_pairs(run, name).pairs == export_pairs(run, name, options=Options(provenance=True)).pairs, "its own place is always free"


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("datasets", "README.md", "hi\n"),
        ("llamafactory", "dataset_info.json", '{\n "my_set": {"file_name": "mine.json"}\n}\n'),
        ("axolotl", "axolotl.yaml", "base_model: mine\n"),
        ("jsonl", "train.jsonl", '{"text": "mine"}\n'),
    ],
)
def test_a_folder_of_somebody_elses_is_not_taken_for_an_earlier_export(run: Path, tmp_path: Path, name: str, file: str, text: str) -> None:
    options, folder = Options({"test": 0.3}), tmp_path / "mine"
    folder.mkdir()
    (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"mine/{file} exists already, and holds something else"):
        export_pairs(run, name, folder, options)
    assert [path.name for path in folder.iterdir()] == [file] and (folder / file).read_text("utf-8") == text
    (folder / file).unlink()
    for seed in range(2):
        export_pairs(run, name, folder, replace(options, seed=seed))
