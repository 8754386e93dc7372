"""Each export is read by the very code that it is for, where that installs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from runs import write_books

from safer_instruct import tables
from safer_instruct.example import Example, Verdict
from safer_instruct.export import Options, export_pairs

ODD = [
    "plain",
    'quotes " and \\ back',
    "lines\none\ttwo",
    "\N{SNOWMAN} \U0001f642 na\u00efve",
    "=1+1",
    "{braces} {0}",
    "- yaml: [1]",
    "</s>",
    "a",
    "b",
    "c",
    "d",
]
EXAMPLES = [
    Example(f"id{i}", f"rejected {text}", "support", "t.jsonl", i + 1, prompt=f"prompt {text}", chosen=f"chosen {text}").with_verdicts(Verdict("p", True, 1.0))
    for i, text in enumerate(ODD)
]
PAIRS = [{"prompt": e.prompt, "chosen": e.chosen, "rejected": e.text, "category": "support", "id": e.id} for e in EXAMPLES]
SPLIT = Options({"test": 0.25}, provenance=True)


@pytest.fixture(scope="module", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing in here may need a hub; caches are the test's own."""
    patch = pytest.MonkeyPatch()
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        patch.setenv(name, "1")
    patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with these pairs."""
    path = tmp_path_factory.mktemp("run")
    with tables.outputs(path) as out:
        for example in EXAMPLES:
            out.add(example)
    write_books(path, len(PAIRS))
    return path


def loaded(path: Path, cache: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(cache))


def test_trl_knows_each_of_its_types(run: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    for name, conversational in (("kto", False), ("kto-messages", True)):
        data = loaded(export_pairs(run, name, tmp_path / name).path, tmp_path / "cache")
        assert trl.is_conversational(data[0]) == conversational and len(data) == 2 * len(PAIRS) and data.features["label"].dtype == "bool"
    paired = trl.unpair_preference_dataset(
        loaded(export_pairs(run, "jsonl", tmp_path / "p.jsonl").path, tmp_path / "cache").select_columns(["prompt", "chosen", "rejected"])
    )
    ours = loaded(tmp_path / "kto", tmp_path / "cache")
    key = lambda row: (row["prompt"], row["label"], row["completion"])  # noqa: E731
    assert sorted(map(key, paired)) == sorted(map(key, ours))


def test_trl_finds_prompt_and_answers_in_an_hh_transcript(run: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    data = loaded(export_pairs(run, "hh", tmp_path / "hh.jsonl").path, tmp_path / "cache")
    for row, pair in zip(data, PAIRS, strict=True):
        found = trl.extract_prompt({"chosen": row["chosen"], "rejected": row["rejected"]})
        assert found["prompt"].strip() == f"Human: {pair['prompt']}\n\nAssistant:"
        assert (found["chosen"].strip(), found["rejected"].strip()) == (pair["chosen"], pair["rejected"])


def test_datasets_reads_the_folder_by_its_card(run: Path, tmp_path: Path) -> None:
    folder = export_pairs(run, "datasets", tmp_path / "set", SPLIT).path
    data = pytest.importorskip("datasets").load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in data.items()} == {"train": 9, "test": 3}
    rows = sorted([*data["train"], *data["test"]], key=lambda row: row["source_line"])
    assert [{name: row[name] for name in tables.PAIR_COLUMNS} for row in rows] == PAIRS


def test_datasets_reads_what_is_there_and_not_another_set_of_that_name_from_its_cache(run: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for options, begins in ((Options(), PAIRS[0]["rejected"]), (Options(redact=True), "[withheld: ")):
        folder = export_pairs(run, "datasets", tmp_path / "set", options).path
        assert datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))[0]["rejected"].startswith(begins)


def test_the_hub_reads_the_header_of_the_card(run: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    folder = export_pairs(run, "datasets", tmp_path / "set", Options(gated="auto")).path
    card = hub.DatasetCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0" and card.data.size_categories == ["n<1K"] and card.data.extra_gated_prompt
    assert hub.DatasetCardData(**card.data.to_dict()).to_dict() == card.data.to_dict()


def test_mlcroissant_finds_no_fault_and_reads_the_records(run: Path, tmp_path: Path) -> None:
    mlc = pytest.importorskip("mlcroissant")
    folder = export_pairs(run, "croissant", tmp_path / "set", SPLIT).path
    dataset = mlc.Dataset(jsonld=str(folder / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert [w for w in issues.warnings if "citeAs" not in w] == []  # a recommended property that only the author can give
    records = [record for split in ("train", "test") for record in dataset.records(split)]
    assert len(records) == len(PAIRS)
    got = {record_value(record, "id"): record_value(record, "prompt") for record in records}
    assert got == {pair["id"]: pair["prompt"] for pair in PAIRS}


def record_value(record: dict[str, Any], name: str) -> str:
    value = next(v for k, v in record.items() if k.split("/")[-1] == name)
    return value.decode() if isinstance(value, bytes) else value


def test_rewardbench_reads_conversations(run: Path, tmp_path: Path) -> None:
    utils = pytest.importorskip("rewardbench.utils", exc_type=ImportError)
    transformers = pytest.importorskip("transformers")
    path = export_pairs(run, "rewardbench", tmp_path / "bench.jsonl").path
    tokenizer = small_tokenizer(transformers)
    data = utils.load_and_process_dataset(str(path), json=True, tokenizer=tokenizer)
    assert len(data) == len(PAIRS)
    for row, pair in zip(data, PAIRS, strict=True):
        assert row["text_chosen"] == f"<user>{pair['prompt']}<assistant>{pair['chosen']}"
        assert row["text_rejected"] == f"<user>{pair['prompt']}<assistant>{pair['rejected']}"


def small_tokenizer(transformers: Any) -> Any:
    from tokenizers import Tokenizer, models

    made = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")))
    made.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    return made


def test_llama_factory_reads_both_kinds(run: Path, tmp_path: Path) -> None:
    parser = pytest.importorskip("llamafactory.data.parser", exc_type=ImportError)
    converter = pytest.importorskip("llamafactory.data.converter", exc_type=ImportError)
    for name in ("llamafactory", "llamafactory-kto"):
        folder = export_pairs(run, name, tmp_path / name, SPLIT).path
        info = list(json.loads((folder / "dataset_info.json").read_text()))
        assert info == ["civility_train", "civility_test"]
        seen = []
        for entry in parser.get_dataset_list(info, str(folder)):
            data = loaded(folder / entry.dataset_name, tmp_path / "cache")
            seen += [converter.AlpacaDatasetConverter(entry, None)(row) for row in data]
        assert len(seen) == len(PAIRS) * (2 if name.endswith("kto") else 1)
        by_prompt = {pair["prompt"]: pair for pair in PAIRS}
        for row in seen:
            pair = by_prompt[row["_prompt"][0]["content"]]
            answers = [message["content"] for message in row["_response"]]
            assert answers in ([pair["chosen"], pair["rejected"]], [pair["chosen"], ""], ["", pair["rejected"]])
            assert (answers == [pair["chosen"], pair["rejected"]]) == (name == "llamafactory")


def test_axolotl_reads_both_kinds(run: Path, tmp_path: Path) -> None:
    dpo = pytest.importorskip("axolotl.prompt_strategies.dpo.chat_template", exc_type=ImportError)
    kto = pytest.importorskip("axolotl.prompt_strategies.kto.chatml", exc_type=ImportError)
    transformers = pytest.importorskip("transformers")
    folder = export_pairs(run, "axolotl", tmp_path / "dpo", SPLIT).path
    config = yaml.safe_load((folder / "axolotl.yaml").read_text())
    assert config["rl"] == "dpo" and config["datasets"][0]["type"] == "chat_template.default" and len(config["test_datasets"]) == 1
    transform, _ = dpo.default({"chat_template": "tokenizer_default", **config})
    row = loaded(folder / config["datasets"][0]["path"], tmp_path / "cache")[0]
    pair = next(pair for pair in PAIRS if pair["id"] == row["id"])
    found = transform(row, tokenizer=small_tokenizer(transformers))
    assert (found["prompt"], found["chosen"], found["rejected"]) == (f"<user>{pair['prompt']}", pair["chosen"], pair["rejected"])
    folder = export_pairs(run, "axolotl-kto", tmp_path / "kto").path
    config = yaml.safe_load((folder / "axolotl.yaml").read_text())
    assert config["rl"] == "kto" and config["datasets"][0]["type"] == "chatml.prompt_pairs" and "test_datasets" not in config
    found = kto.prompt_pairs(config)(loaded(folder / "train.jsonl", tmp_path / "cache")[0])
    assert found["prompt"].startswith(f"<|im_start|>user\n{PAIRS[0]['prompt']}<|im_end|>")
    assert found["completion"] == f"{PAIRS[0]['chosen']}<|im_end|>" and found["label"] is True


class _Argilla(BaseHTTPRequestHandler):
    """As much of an Argilla server as its client asks before it reads files."""

    def do_GET(self) -> None:
        body = json.dumps({"id": "7f1c3f0e-5b1e-4f33-9c57-0d6f2b7c4a11", "username": "me", "role": "owner", "first_name": "Me", "version": "2.8.0"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def argilla() -> Iterator[Any]:
    rg = pytest.importorskip("argilla")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Argilla)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        rg.Argilla(api_url=f"http://127.0.0.1:{server.server_port}", api_key="x")
        yield rg
    finally:
        server.shutdown()
        server.server_close()


def test_argilla_reads_settings_and_records(run: Path, tmp_path: Path, argilla: Any) -> None:
    from argilla._models import DatasetModel
    from argilla.records._io import JsonIO

    folder = export_pairs(run, "argilla", tmp_path / "set", SPLIT).path
    settings = argilla.Settings.from_json(folder / ".argilla" / "settings.json")
    assert [f.name for f in settings.fields] == ["prompt", "chosen", "rejected"] and [q.name for q in settings.questions] == ["better", "comment"]
    settings.validate()
    assert DatasetModel(**json.loads((folder / ".argilla" / "dataset.json").read_text())).name == "civility"
    records = JsonIO._records_from_json(folder / "records.json")
    by_id = {record.id: record for record in records}
    assert {id_: dict(record.fields) for id_, record in by_id.items()} == {p["id"]: {n: p[n] for n in ("prompt", "chosen", "rejected")} for p in PAIRS}
    assert {record.metadata["split"] for record in records} == {"train", "test"} and by_id["id0"].metadata["source_line"] == 1
