"""The folder that commands of the docs are typed in: what they name is there, made by the program itself with scripted models."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from civil_script import SCRIPT
from documented import ROOT, blocks

from safer_instruct import rundir, stored
from safer_instruct.config import load_config
from safer_instruct.conversation import texts_digest
from safer_instruct.ledger import find_calls
from safer_instruct.pipeline import run
from safer_instruct.placeholders import DEFINITION, DESCRIPTION, GUIDELINE
from safer_instruct.review.index import ensure_index
from safer_instruct.review.store import Store
from safer_instruct.texts import judged_texts

SCRIPTED = "scripted:script.yaml"
_COPYING = """\
generate:
- {match: "Below is a response(?s:.*)in front of the counter", answers: ["You stood there, reading the price list, in front of the counter"]}
"""
_EVALUATION = {
    "domain": "civility",
    "prompts": {"path": "examples/evaluate/prompts.jsonl", "id": "id"},
    "systems": {"rude": {"column": "rude"}, "kind": {"column": "kind"}},
    "judges": {"scorer": {"form": "contrast", "model": SCRIPTED}},
    "harmlessness": {"pairs": "all"},
    "resamples": 50,
}


def lay_out(folder: Path) -> Path:
    """Everything that pages name and do not make themselves: texts, pairs, labels, configs, and two finished runs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(ROOT / "examples" / "filters", folder / "filters")
    script = _COPYING + SCRIPT.removeprefix("generate:\n")
    (folder / "script.yaml").write_text(script, encoding="utf-8")
    (folder / "safety-script.yaml").write_text((ROOT / "examples" / "safety" / "script.yaml").read_text("utf-8"), encoding="utf-8")
    replies = [json.loads(line) for line in (ROOT / "examples" / "civility-replies.jsonl").read_text("utf-8").splitlines()]
    replies[19]["text"] = "You stood there reading the price list in front of the counter for ten minutes, and then you asked me what things cost."
    _write_rows(folder / "civility-replies.jsonl", replies)
    _write_rows(folder / "others.jsonl", _pairs(40))
    _write_rows(folder / "pairs.jsonl", _pairs(60))
    _write_rows(folder / "inducer-pairs.jsonl", [{"prompt": row["prompt"], "response": row["rejected"]} for row in _pairs(40)])
    _write_rows(folder / "texts.jsonl", replies[:6])
    (folder / "prompts.txt").write_text("Where is the lamp with the green shade that I was promised?\n", encoding="utf-8")
    _write_csv(folder / "texts.csv", [{"reply": row["text"]} for row in replies[:6]])
    (folder / "notes.csv").write_text("note\nYour heap of rust stands in front of my gate again. Even my cat knows more about space.\n", encoding="utf-8")
    filter_: dict[str, Any] = {"prompt": {"language": None}}
    models = dict.fromkeys(("inducer", "expert", "scorer"), SCRIPTED)
    civility = {"domain": "civility", "source": {"path": "civility-replies.jsonl", "id": "id"}, "models": models, "filter": filter_}
    source = {"path": "examples/safety/texts.jsonl", "id": "id", "category_column": "category"}
    models = dict.fromkeys(("inducer", "expert", "judge"), "scripted:safety-script.yaml")
    mydomain: dict[str, Any] = {
        "domain": "safety",
        "source": source,
        "induce": {"candidates": 1},
        "models": models,
        "filter": {**filter_, "consistency": None, "min_logprob": -1.8},
        "verify": {"form": "question"},
    }
    tune = {"model": "embedded:smollm2-135m-instruct", "data": [{"path": "inducer-pairs.jsonl"}], "clean": {"near_duplicate": None}, "out": "adapter"}
    for name, config in {"civility": civility, "config": civility, "mydomain": mydomain, "inducer": tune, "evaluate": _EVALUATION}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    for name in ("civility", "mydomain"):
        run(load_config(folder / f"{name}.yaml"), folder / "runs" / name)
    for name in ("old", "new"):
        shutil.copytree(folder / "runs" / "civility", folder / "runs" / name)
    label_run(folder / "runs" / "civility", folder / "labels.csv")
    return folder


def _pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"Where is lamp {i}?", "chosen": f"Lamp {i} stands by the door.", "rejected": f"Look for {i} yourself."} for i in range(count)]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def label_run(path: Path, file: Path) -> None:
    """Label every example of a run as a person would whose taste goes by the likelihood of the instruction, mostly."""
    examples = list(stored.read_examples(path))
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "label"])
        for n, example in enumerate(examples):
            likely = max((c.logprob for c in example.candidates), default=-9.0)
            writer.writerow([example.id, "good" if (likely > -1.1) != (n % 9 == 0) else "bad"])


def fill_sheet(file: Path) -> None:
    """Write labels into a sheet of `calibrate`, in turn."""
    rows = list(csv.DictReader(file.read_text("utf-8-sig").splitlines()))
    for n, row in enumerate(rows):
        row["label"] = "bad" if n % 3 == 0 else "good"
    _write_csv(file, rows)


def answer_sheet(file: Path) -> None:
    """Two people answer a sheet of `evaluate`: ann.csv and bob.csv beside it."""
    rows = list(csv.DictReader(file.read_text("utf-8-sig").splitlines()))
    for name, answers in {"ann": "AB", "bob": "AAB"}.items():
        _write_csv(file.with_name(f"{name}.csv"), [{"id": row["id"], "answer": answers[n % len(answers)]} for n, row in enumerate(rows)])


def _write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_pairs_as_a_person(path: Path) -> None:
    """Accept two in three pairs of a run and reject the others, as somebody does at the review page."""
    ensure_index(path)
    store = Store(path)
    try:
        reader = store.join("ada")
        for n, example in enumerate(e for e in stored.read_examples(path) if e.chosen):
            digest = texts_digest(*judged_texts(example, "rejected"))
            store.change(reader, example.id, digest, {"decision": "reject" if n % 3 == 0 else "accept"}, key=example.id, seconds=2.0)
    finally:
        store.close()


def first_key(path: Path) -> str:
    """The key of some call of a run."""
    return next(iter(find_calls(path / rundir.LEDGER, "")))[0].key.hex()


def first_id(path: Path) -> str:
    """The id of some example of a run."""
    return next(stored.read_examples(path, ["id"])).id


def write_domain(path: Path) -> None:
    """Put the domain that docs/domains.md shows under this name where `domain new` writes its own."""
    (shown,) = [block.text for block in blocks("docs/domains.md") if block.text.startswith(f"name: {path.name}\n")]
    path.with_name(f"{path.name}-domain.yaml").write_text(shown, encoding="utf-8")


def fill_in_domain(file: Path) -> None:
    """Write into a domain file that `init` wrote, if it wrote one, what it asks for."""
    text = file.read_text("utf-8") if file.is_file() else ""
    said = {DESCRIPTION: "Rude replies to customers.", DEFINITION: "A rude reply.", GUIDELINE: "Answer kindly, in one or two sentences."}
    for placeholder, filled in said.items():
        text = text.replace(placeholder, filled)
    if text:
        file.write_text(text, encoding="utf-8")


def fill_in(config: Path) -> None:
    """Do what `init` leaves to its reader: name models, and say what the domain is."""
    use_scripted_models(config)
    fill_in_domain(config.with_name(f"{config.stem}-domain.yaml"))


def use_scripted_models(file: Path) -> None:
    """Put scripted models into a config that `init` wrote."""
    config = yaml.safe_load(file.read_text("utf-8"))
    config["models"] = dict.fromkeys(("inducer", "expert", "scorer"), SCRIPTED)
    config["filter"]["prompt"] = {"language": None}
    config["filter"].pop("min_logprob", None)
    text = yaml.safe_dump(config, sort_keys=False)
    file.write_text(text, encoding="utf-8")
    assert not re.search("embedded:", text)
