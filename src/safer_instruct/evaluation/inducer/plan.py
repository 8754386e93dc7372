"""What is evaluated: the config, and the systems, templates and pairs that it comes to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from safer_instruct import yamlfile
from safer_instruct.config import BudgetConfig, FilterConfig, InduceConfig, ModelConfig, ServeConfig, TuneConfig, load_tune_config
from safer_instruct.errors import ConfigError
from safer_instruct.models import PROVIDERS
from safer_instruct.reverse import ReversedTemplate, Shot, resolve_form, reversal
from safer_instruct.settings.numbers import Positive, Share
from safer_instruct.settings.pairs import CleanConfig, Holdout, PairSource
from safer_instruct.tuning.data import Prepared, prepare
from safer_instruct.tuning.pairs import Pair
from safer_instruct.yamlfile import Strict

_SHOT_WORDS = 50  # examples shown are not longer: a small model's context is short


class SystemConfig(Strict):
    """One inducer.

    Attributes:
        model: Who writes.
        template: As for `induce.template`; `prompted` shows examples.
        form: As for `induce.form`.
        shots: Examples from the training side that a template which shows some is given.
    """

    model: ModelConfig
    template: str = "reverse"
    form: Literal["auto", "raw", "chat"] = "auto"
    shots: Annotated[int, Field(ge=0)] = 4


class EvaluationConfig(Strict):
    """`safer-instruct evaluate-inducer`: inducers side by side on held-out pairs.

    Attributes:
        tune: A tuning config, relative to this one: its data and split, its base model without examples (`zero-shot`) and with
            some (`few-shot`), and the adapter that it wrote (`tuned`), where there is one.
        data: Without `tune`: where the pairs are.
        clean: Without `tune`: what they must pass.
        holdout: Without `tune`: which are held out; only these are evaluated on.
        systems: Further inducers by name.
        shots: Examples that `few-shot` is shown.
        limit: Evaluate on so many held-out pairs, in the order of their hash; null for all.
        forward: Scores responses given an instruction, for the round trip; the same for all systems.
        distractors: Other held-out responses that the true one is ranked among.
        max_response_chars: Responses are scored up to here in the round trip: its cost is in proportion.
        max_tokens: Cap on an instruction.
        temperature: Of the draw; 0 is greedy.
        embedder: What tells likeness in meaning to the true instruction: `static`, `minilm` or `sentence-transformers:NAME` (extra
            `embed`); null leaves that figure out, and so does `auto`, which is `static`, where the extra is not installed.
        filter: As for `run`; its filters of instructions say what is valid.
        samples: Pairs shown side by side.
        resamples: Of the bootstrap.
        level: Confidence level of the intervals.
        budget: A hard cap on what calls to remote models may take.
        prices: A file of prices, as for `run`.
        seed: Of examples, distractors, draws and bootstrap.
    """

    tune: str | None = None
    data: tuple[PairSource, ...] = ()
    clean: CleanConfig = CleanConfig()
    holdout: Holdout = Holdout()
    systems: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")], SystemConfig] = Field(default_factory=dict)
    shots: Positive = 4
    limit: Positive | None = None
    forward: ModelConfig = ModelConfig(model="embedded:smollm2-135m-instruct")
    distractors: Positive = 32
    max_response_chars: Positive = 300
    max_tokens: Positive = 80
    temperature: Annotated[float, Field(ge=0)] = 0.0
    embedder: str | None = "auto"
    filter: FilterConfig = FilterConfig()
    samples: Annotated[int, Field(ge=0)] = 20
    resamples: Positive = 2_000
    level: Share = 0.95
    budget: BudgetConfig = BudgetConfig()
    prices: str | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _something_to_evaluate(self) -> EvaluationConfig:
        if bool(self.tune) == bool(self.data):
            raise ValueError("give either 'tune' (a tuning config) or 'data'")
        if not self.tune and not self.systems:
            raise ValueError("give 'systems': the inducers to evaluate")
        return self


@dataclass(frozen=True, slots=True)
class System:
    """One inducer, ready to be asked."""

    name: str
    model: ModelConfig
    template: ReversedTemplate
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated on what.

    Attributes:
        config: The settings.
        base: The folder that paths in models and systems are relative to.
        systems: In the order they are shown.
        prepared: The data, split.
        pairs: The held-out pairs that are evaluated on.
        adapter: Folder of what was tuned, whose card gets the table; None where there is nothing.
    """

    config: EvaluationConfig
    base: Path
    systems: tuple[System, ...]
    prepared: Prepared
    pairs: tuple[Pair, ...]
    adapter: Path | None


def load_plan(path: Path, *, limit: int | None = None) -> Plan:
    """Read an evaluation config, or a tuning config, which stands for `{tune: THAT}`.

    Raises:
        ConfigError: It is missing or not valid, or a system was tuned with another template than it is asked with.
        SourceError: The data is not usable.
    """
    config = EvaluationConfig(tune=path.name) if _is_tuning(path) else yamlfile.load(path, EvaluationConfig)
    if limit:
        config = config.model_copy(update={"limit": limit})
    base = path.parent
    if not config.tune:
        return _plan(config, base, prepare(config.data, config.clean, config.holdout, base), {}, None)
    tuning = load_tune_config(base / config.tune)
    if tuning.task != "induce":
        raise ConfigError(f"{base / config.tune}: tunes for task '{tuning.task}'; only inducers are evaluated")
    home = (base / config.tune).parent
    prepared = prepare(tuning.data, tuning.clean, tuning.holdout, home)
    out = (home / tuning.out).resolve()
    tuned = out if _is_adapter(out) or (out / "config.json").is_file() else None
    return _plan(config, base, prepared, _of_tuning(tuning, home, config.shots, tuned), tuned)


def _is_tuning(path: Path) -> bool:
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False  # reading it as a config will say what is wrong
    return isinstance(read, dict) and not {"tune", "systems"} & read.keys() and "out" in read


def _of_tuning(tuning: TuneConfig, home: Path, shots: int, tuned: Path | None) -> dict[str, SystemConfig]:
    """The base model without and with examples, and what was tuned."""
    template = str((home / tuning.template).absolute()) if (home / tuning.template).is_file() else tuning.template
    asked: dict[str, Any] = {"template": template, "form": resolve_form(tuning.form, tuning.template)}
    base, mine = _base_and_tuned(tuning.model, home, tuned)
    systems = {
        "zero-shot": SystemConfig(model=base, **asked),
        "few-shot": SystemConfig(model=base, template="prompted", form="raw" if base.serve else "auto", shots=shots),
    }
    return systems | ({"tuned": SystemConfig(model=mine, **asked)} if mine else {})


def _base_and_tuned(model: str, home: Path, tuned: Path | None) -> tuple[ModelConfig, ModelConfig | None]:
    """The base model and what was tuned on it; a model of the transformers kind is served, and an adapter shares its server."""
    if model.partition(":")[0] in PROVIDERS:
        return ModelConfig(model=model), ModelConfig(model=model, adapter=str(tuned)) if tuned else None
    weights = f"served:{(home / model).absolute() if (home / model).exists() else model}"
    if tuned and not _is_adapter(tuned):  # a whole model
        return ModelConfig(model=weights, serve=ServeConfig()), ModelConfig(model=f"served:{tuned}", serve=ServeConfig())
    serve = ServeConfig(adapters={"tuned": str(tuned)} if tuned else {})
    return ModelConfig(model=weights, serve=serve), ModelConfig(model=weights, serve=serve, adapter="tuned") if tuned else None


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _plan(config: EvaluationConfig, base: Path, prepared: Prepared, own: dict[str, SystemConfig], adapter: Path | None) -> Plan:
    systems = []
    for name, given in (own | config.systems).items():
        shots = {"": choose_shots(prepared.train, given.shots, config.seed)} if given.shots else {}
        asked = reversal(InduceConfig(template=given.template, form=given.form), given.model, base, shots)
        systems.append(System(name, given.model, asked.template, asked.note))
    pairs = sorted(prepared.held_out, key=lambda pair: _order(pair, 0))[: config.limit]
    if len(prepared.held_out) < 2:
        raise ConfigError("only 1 pair is held out, and a round trip needs others to rank it among; raise 'holdout.share' or 'holdout.count'")
    return Plan(config, base, tuple(systems), prepared, tuple(pairs), adapter)


def choose_shots(train: Sequence[Pair], count: int, seed: int) -> tuple[Shot, ...]:
    """Examples from the training side, short ones, of different groups, chosen by hash and so not by order."""
    short = [pair for pair in train if len(pair.response.split()) <= _SHOT_WORDS and len(pair.prompt.split()) <= _SHOT_WORDS]
    chosen: dict[str, Shot] = {}
    for pair in sorted(short or train, key=lambda pair: _order(pair, seed)):
        chosen.setdefault(pair.group, Shot(pair.prompt, pair.response))
        if len(chosen) == count:
            break
    return tuple(chosen.values())


def _order(pair: Pair, seed: int) -> str:
    return hashlib.sha256(repr((seed, pair.prompt, pair.response)).encode("utf-8", "surrogatepass")).hexdigest()
