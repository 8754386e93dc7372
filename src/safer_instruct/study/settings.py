"""What a YAML config of `safer-instruct study` can say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PrivateAttr, model_validator

from safer_instruct import yamlfile
from safer_instruct.config import ModelConfig, ServeConfig
from safer_instruct.errors import ConfigError
from safer_instruct.evaluation import EvaluateConfig
from safer_instruct.settings.numbers import Positive
from safer_instruct.settings.preference import DpoConfig, SftConfig
from safer_instruct.yamlfile import Strict

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Training = TypeVar("Training", SftConfig, DpoConfig)
BASE = "base"
_KINDS = ("run", "path", "shuffled", "unfiltered", "invented")
_QUICK_PROMPTS = 4
_OURS = ("data", "holdout", "max_pairs", "model", "start", "seed", "out")
_OURS_OF_EVALUATION = ("systems", "baseline", "training", "built_with", "seed", "level", "resamples")


class SetConfig(Strict):
    """Where a set of preference pairs comes from. Exactly one of `run`, `path`, `shuffled`, `unfiltered` and `invented` is given.

    A bare string in the config stands for `{path: STRING}`.

    Attributes:
        run: A config of `safer-instruct run`, relative to the study; it is carried out within the study's directory.
        path: A run directory, or a file of pairs in TRL's columns.
        shuffled: Name of a set whose pairs are taken with the prompts of other pairs of the same category: does induction matter?
        unfiltered: Name of a `run` set that is made again with every filter and verifier off: does filtering matter?
        invented: Name of a `run` set at whose cost in tokens pairs are made without any text: prompts that a model invents, several
            answers, the best against the worst by the scorer, as UltraFeedback does. Does real text matter?
        category_column: For files: column with the category; without it all pairs are of one. Run directories have it.
        inventor: For `invented`: who invents prompts; by default the study's model.
        writers: For `invented`: who answers, in turn; by default the run's expert and the study's model.
        answers: For `invented`: answers to each prompt.
        tokens: For `invented`: the budget, read and written together; by default what the set that it is compared with took.
    """

    run: str | None = None
    path: str | None = None
    shuffled: str | None = None
    unfiltered: str | None = None
    invented: str | None = None
    category_column: str | None = None
    inventor: ModelConfig | None = None
    writers: Annotated[tuple[ModelConfig, ...], Field(min_length=1)] | None = None
    answers: Annotated[int, Field(ge=2)] = 4
    tokens: Positive | None = None

    @property
    def kind(self) -> str:
        """Which of the five it is."""
        return next(name for name in _KINDS if getattr(self, name) is not None)

    @property
    def of(self) -> str | None:
        """The set that a control is compared with."""
        return self.shuffled or self.unfiltered or self.invented

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_origin(self) -> SetConfig:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of run, path, shuffled, unfiltered and invented; {', '.join(given) or 'none'} is given")
        return self


class ArmConfig(Strict):
    """A model that is trained. The base model is an arm by itself, called `base`.

    Attributes:
        sets: Whose pairs it is trained on; of several the same number each. One name may stand without a list: `sets: ours`.
        train: `[sft]`, `[dpo]`, or `[sft, dpo]`, where DPO goes on from what SFT gave.
    """

    sets: Annotated[tuple[str, ...], Field(min_length=1)]
    train: Annotated[tuple[Literal["sft", "dpo"], ...], Field(min_length=1)] = ("sft", "dpo")

    @model_validator(mode="before")
    @classmethod
    def _one_set(cls, value: object) -> object:
        return {**value, "sets": [value["sets"]]} if isinstance(value, dict) and isinstance(value.get("sets"), str) else value

    @model_validator(mode="after")
    def _in_order(self) -> ArmConfig:
        if self.train not in (("sft",), ("dpo",), ("sft", "dpo")):
            raise ValueError("'train' is [sft], [dpo] or [sft, dpo]")
        return self


class HeldOut(Strict):
    """Prompts of a set that are kept for the evaluation, by the hash of their words.

    Attributes:
        of: Which set.
        count: How many.
    """

    of: str
    count: Positive


class ExperimentConfig(Strict):
    """Arms side by side on the same prompts, trained on equally many pairs: one table.

    Attributes:
        arms: By name.
        compare: Pairs of arms, the one that is hoped to be better first; by default every arm with the base model.
        held_out: Evaluate on prompts of a set; otherwise `evaluate.prompts` names a file. No arm is trained on a pair whose prompt
            overlaps with one that it is evaluated on.
        evaluate: As a config of `safer-instruct evaluate`, without systems, training data and seed.
    """

    arms: Annotated[dict[Name, ArmConfig], Field(min_length=1)]
    compare: tuple[tuple[str, str], ...] | None = None
    held_out: HeldOut | None = None
    evaluate: dict[str, Any]

    @property
    def comparisons(self) -> tuple[tuple[str, str], ...]:
        """What is compared with what."""
        return self.compare if self.compare is not None else tuple((name, BASE) for name in self.arms)


class StudyConfig(Strict):
    """`safer-instruct study`: what preference data is worth, told by models that are trained on it.

    Attributes:
        model: The base model, as for `train`.
        serve: For models that are not embedded: how the trained weights are served to be evaluated.
        seeds: Of the trainings; each arm is trained once with each.
        pairs: Pairs that each arm of an experiment is trained on; fewer, if one of its sets has fewer.
        held_out_pairs: Further pairs of its sets that each training chooses its best state by.
        sets: By name.
        sft: As a config of `train sft`, without model, data, seed and folder.
        dpo: As a config of `train dpo`, likewise.
        experiments: By name.
        seed: Of the controls, the draws of pairs, and the evaluation.
        level: Confidence level of the intervals; 1 - level is that of the tests.
        resamples: Of the bootstrap, and of the test.
    """

    model: str = "embedded:smollm2-135m-instruct"
    serve: ServeConfig | None = None
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    pairs: Positive
    held_out_pairs: Positive = 4
    sets: Annotated[dict[Name, SetConfig], Field(min_length=1)]
    sft: dict[str, Any] = Field(default_factory=dict)
    dpo: dict[str, Any] = Field(default_factory=dict)
    experiments: Annotated[dict[Name, ExperimentConfig], Field(min_length=1)]
    seed: int = 0
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    resamples: Positive = 2_000
    _base: Path = PrivateAttr(default_factory=Path)
    _file: Path | None = PrivateAttr(default=None)
    _quick: bool = PrivateAttr(default=False)

    @property
    def base(self) -> Path:
        """The folder that paths in the config are relative to: the config's own."""
        return self._base

    @property
    def quick(self) -> bool:
        """Whether it was scaled down: then it shows that the machinery works, and nothing about the data."""
        return self._quick

    @model_validator(mode="after")
    def _names_are_there(self) -> StudyConfig:
        for name, given in self.sets.items():
            _known(f"sets.{name}.{given.kind}", given.of, self.sets)
            if given.of and given.kind != "shuffled" and self.sets[given.of].kind != "run":
                raise ValueError(f"sets.{name}: '{given.kind}' needs a set that a run makes, and '{given.of}' is none")
            if given.shuffled and self.sets[given.shuffled].kind == "shuffled":
                raise ValueError(f"sets.{name}: '{given.shuffled}' is shuffled already")
        for name, experiment in self.experiments.items():
            if BASE in experiment.arms:
                raise ValueError(f"experiments.{name}: 'base' is the base model, and is there by itself; call the arm something else")
            for arm, trained in experiment.arms.items():
                for on in trained.sets:
                    _known(f"experiments.{name}.arms.{arm}.sets", on, self.sets)
            for pair in experiment.comparisons:
                for arm in pair:
                    _known(f"experiments.{name}.compare", arm, (BASE, *experiment.arms))
            _known(f"experiments.{name}.held_out.of", experiment.held_out.of if experiment.held_out else None, self.sets)
            if experiment.held_out and self.sets[experiment.held_out.of].kind == "shuffled":
                raise ValueError(f"experiments.{name}.held_out: a shuffled set has no prompts of its own")
        return self

    def sft_config(self, **ours: Any) -> SftConfig:
        """The config of one supervised tuning."""
        return _filled(self, "sft", SftConfig, ours)

    def dpo_config(self, **ours: Any) -> DpoConfig:
        """The config of one preference optimisation."""
        return _filled(self, "dpo", DpoConfig, ours)

    def evaluation(self, name: str, systems: Mapping[str, Any], *, built: Mapping[str, str] = MappingProxyType({}), **ours: Any) -> EvaluateConfig:
        """The evaluation config of an experiment for some systems.

        Args:
            name: Of the experiment.
            systems: By name.
            built: Models that had a part in the sets -> which sets.
            ours: What the study says itself; wins over the config.
        """
        given = {**self.experiments[name].evaluate, "systems": dict(systems), "seed": self.seed, "level": self.level, "resamples": self.resamples, **ours}
        given |= {"built_with": list(built)} if built else {}
        config = yamlfile.parse_part(given, EvaluateConfig, at=("experiments", name, "evaluate"), file=self._file)
        config._base, config._found_in = self.base, dict(built)
        return config

    def answering(self, adapter: Path | None = None, *, whole: bool = False) -> ModelConfig:
        """How the base model, or what was trained of it, answers; `whole` where every weight was trained."""
        if self.model.startswith("embedded:"):
            return ModelConfig(model=self.model, adapter=str(adapter) if adapter else None)
        where = f"served:{adapter if whole and adapter else self.model}"
        return ModelConfig(model=where, adapter=None if whole or adapter is None else str(adapter), serve=self.serve)


def load_study(path: Path | str, *, quick: bool = False) -> StudyConfig:
    """Read a study config, and check all of it before anything is done.

    Args:
        path: The file.
        quick: Scale it down to a few minutes.

    Raises:
        ConfigError: It is missing or not valid.
    """
    config = yamlfile.load(Path(path), StudyConfig)
    config._file, config._base = Path(path), Path(path).absolute().parent
    for key in ("sft", "dpo"):
        _refuse(key, getattr(config, key), _OURS, config)
    for name, experiment in config.experiments.items():
        key = f"experiments.{name}.evaluate"
        _refuse(key, experiment.evaluate, _OURS_OF_EVALUATION, config)
        if (experiment.held_out is None) == ("prompts" not in experiment.evaluate):
            raise ConfigError(f"{path}: experiments.{name}: give either 'held_out' (prompts of a set) or 'evaluate.prompts' (a file)")
        prompts: dict[str, Any] = {"prompts": "-"} if experiment.held_out else {}
        config.evaluation(name, {BASE: {"model": config.answering()}}, **prompts)
    whole = [t for t in (config.sft_config(), config.dpo_config()) if t.training.method == "full"]
    if whole and config.model.startswith("embedded:"):
        raise ConfigError(f"{path}: an embedded model is evaluated with a LoRA adapter; leave out training.method 'full', or name a folder as 'model'")
    return _scaled_down(config) if quick else config


def digest_of(*parts: object) -> str:
    """Sixteen hex digits for plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _known(where: str, name: str | None, names: Any) -> None:
    if name is not None and name not in names:
        raise ValueError(f"{where}: there is no '{name}'; there are {', '.join(names)}")


def _refuse(where: str, given: Mapping[str, Any], names: tuple[str, ...], config: StudyConfig) -> None:
    for name in names:
        if name in given:
            raise ConfigError(f"{yamlfile.located((*where.split('.'), name), config._file)}: '{where}.{name}' does not belong there: the study sets it itself")


def _filled(config: StudyConfig, key: str, section: type[Training], ours: dict[str, Any]) -> Training:
    placeholders = {"data": ["-"], "out": "-", "model": config.model}
    return yamlfile.parse_part({**getattr(config, key), **placeholders, **ours}, section, at=(key,), file=config._file)


def _scaled_down(config: StudyConfig) -> StudyConfig:
    """The same study with as little of everything as shows that all parts work together."""
    short = {"epochs": 1, "evaluations_per_epoch": 1, "batch_size": 2, "max_tokens": 64}
    experiments = {}
    for name, experiment in config.experiments.items():
        evaluate = json.loads(json.dumps(experiment.evaluate))
        if isinstance(prompts := evaluate.get("prompts"), str):
            evaluate["prompts"] = {"path": prompts, "limit": _QUICK_PROMPTS}
        elif prompts:
            prompts["limit"] = min(prompts.get("limit") or _QUICK_PROMPTS, _QUICK_PROMPTS)
        evaluate["generate"] = {**evaluate.get("generate", {}), "max_tokens": 16}
        for judge in evaluate.get("judges", {}).values():
            judge["examples"] = min(judge.get("examples", 1), 1)
        held_out = experiment.held_out and experiment.held_out.model_copy(update={"count": min(experiment.held_out.count, _QUICK_PROMPTS)})
        experiments[name] = experiment.model_copy(update={"evaluate": evaluate, "held_out": held_out})
    small = {"pairs": min(config.pairs, 4), "held_out_pairs": min(config.held_out_pairs, 2), "seeds": config.seeds[:1], "experiments": experiments}
    found = config.model_copy(update={**small, "sft": {**config.sft, **short}, "dpo": {**config.dpo, **short}})
    found._quick = True
    return found
