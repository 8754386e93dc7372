"""YAML blocks of the docs, whole or in part, read as what they are part of."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import yaml
from documented import ROOT, Block

from safer_instruct import yamlfile
from safer_instruct.config import ModelsConfig, RunConfig, TuneConfig
from safer_instruct.domain import Category, Domain, load_domain
from safer_instruct.errors import SaferInstructError
from safer_instruct.evaluation.inducer.plan import EvaluationConfig
from safer_instruct.evaluation.settings import EvaluateConfig
from safer_instruct.filters.registry import open_filters
from safer_instruct.models import PROVIDERS
from safer_instruct.prices import load_prices
from safer_instruct.settings.preference import DpoConfig, SftConfig
from safer_instruct.study.settings import StudyConfig

Data = dict[str, Any]
_ROLES = ("inducer", "expert", "scorer", "judge", "student", "rewriter", "reward")
_MADE: Data = {"definition": "d", "guideline": "g", "criteria": ["q?"]}
# What each kind of file must say beside what a block shows of it.
REST: dict[type[yamlfile.Strict], Data] = {
    RunConfig: {"domain": "civility", "source": {"path": "x.jsonl"}, "models": dict.fromkeys(_ROLES, "scripted:")},
    Domain: {"name": "x", "description": "d", "categories": {"main": _MADE}},
    TuneConfig: {"model": "embedded:smollm2-135m-instruct", "data": [{"path": "x.jsonl"}], "out": "adapter"},
    SftConfig: {"model": "embedded:smollm2-135m-instruct", "data": ["x.jsonl"], "out": "adapter"},
    DpoConfig: {"model": "embedded:smollm2-135m-instruct", "data": ["x.jsonl"], "out": "adapter"},
    EvaluateConfig: {},
    EvaluationConfig: {},
    StudyConfig: {},
}
# Which kind a page speaks of, where a block could be of several; a page that is not named here speaks of a run.
KINDS: dict[str, type[yamlfile.Strict]] = {
    "docs/new-domain.md": DpoConfig,
    "docs/train.md": DpoConfig,
    "docs/tune.md": TuneConfig,
    "docs/tuning-data.md": TuneConfig,
    "docs/evaluate-inducer.md": EvaluationConfig,
    "docs/evaluate.md": EvaluateConfig,
}
# Blocks whose lines are each for itself, not one config: page -> their first key.
APART = {"docs/pairs.md": "rejected"}


def read_yaml(block: Block, folder: Path) -> None:
    """Read the config that a block is, or is part of; `folder` takes the files that it names.

    Raises:
        AssertionError: It is no part of any, or of several and KINDS does not say which, or not a valid one.
    """
    text = textwrap.dedent(block.text)
    apart = text.startswith(f"{APART[block.page]}:") if block.page in APART else False
    if isinstance(yaml.safe_load(text).get("prices"), dict):  # a config names a file
        (folder / "prices.yaml").write_text(text, encoding="utf-8")
        load_prices(folder / "prices.yaml")
        return
    for part in re.split(r"(?m)^(?=\w)", text)[1:] if apart else [text]:
        _read(block, part, folder)


def _read(block: Block, text: str, folder: Path) -> None:
    data = _whole(text, block)
    kind = _kind(data, block)
    merged = _merged(REST[kind], {key: value for key, value in data.items() if key != "..."})
    file = folder / f"line-{block.line}.yaml"
    file.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
    try:
        config = load_domain(file.name, folder) if kind is Domain else yamlfile.load(file, kind)
        _check_models(merged)
        if isinstance(config, RunConfig):
            open_filters(config.filter, _files(folder))
    except SaferInstructError as exc:
        raise AssertionError(f"{block}: {exc}") from exc


def _whole(text: str, block: Block) -> Data:
    """What a block says; one model, or one key of a category, is put where it belongs, and keys that stand twice are found."""
    data = yaml.safe_load(text)
    assert isinstance(data, dict), f"{block}: no keys and values"
    top = re.findall(r"(?m)^([\w-]+):", text)
    assert len(top) == len(set(top)), f"{block}: a key stands twice: {top}"
    if set(data) <= set(ModelsConfig.model_fields) and not set(data) <= set(RunConfig.model_fields):
        return {"models": data}
    if set(data) <= set(Category.model_fields) and not any(set(data) <= set(kind.model_fields) for kind in REST):
        return {"categories": {"main": _MADE | data}}
    return data


def _kind(data: Data, block: Block) -> type[yamlfile.Strict]:
    fitting = [kind for kind in REST if set(data) - {"..."} <= set(kind.model_fields)]
    assert fitting, f"{block}: the keys {list(data)} are of no config together"
    named = KINDS.get(block.page, RunConfig)
    assert len(fitting) == 1 or named in fitting, f"{block}: could be {[kind.__name__ for kind in fitting]}; name one for the page in KINDS of {__name__}.py"
    return fitting[0] if len(fitting) == 1 else named


def _merged(rest: Data, shown: Data) -> Data:
    """What a block shows over what it leaves out; experts are in the place of an expert, and a domain has its own categories."""
    merged = dict(rest)
    for key, value in shown.items():
        merged[key] = _merged(rest[key], value) if isinstance(value, dict) and isinstance(rest.get(key), dict) and key != "categories" else value
    if "experts" in shown:
        merged.pop("expert", None)
    if isinstance(shown.get("categories"), dict) and "name" not in shown:  # an excerpt
        merged["categories"] = {name: _MADE | (category or {}) for name, category in shown["categories"].items()}
    merged.pop("...", None)
    return merged


def _check_models(data: Any) -> None:
    """Every model's provider is one that there is."""
    if isinstance(data, dict):
        for value in data.values():
            _check_models(value)
    elif isinstance(data, list):
        for value in data:
            _check_models(value)
    elif isinstance(data, str) and re.fullmatch(r"[a-z]+:\S+", data) and data.partition(":")[0] not in ("http", "https", "hf", "s3", "gs", "az"):
        assert data.partition(":")[0] in PROVIDERS, f"{data}: providers are {', '.join(PROVIDERS)}"


def _files(folder: Path) -> Path:
    """The files that configs of the docs name for their filters."""
    for path in (folder / "filters", folder / "benchmarks"):
        path.mkdir(exist_ok=True)
    shutil.copy(ROOT / "examples" / "filters" / "shouting.py", folder / "filters")
    benchmark = {"text": "Which of the planets has the largest number of moons, as far as anybody knows today?"}
    (folder / "benchmarks" / "trivia.jsonl").write_text(json.dumps(benchmark) + "\n", encoding="utf-8")
    return folder
