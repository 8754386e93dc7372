"""From the results of all steps to the figures of each experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from safer_instruct.analysis.bootstrap import Bootstrap, Interval
from safer_instruct.evaluation.rates import LABELS, most
from safer_instruct.study.compare import Beside, Outcomes, beside, differences, mean_of, over_seeds
from safer_instruct.study.plan import compare_name, split_name, system_of, training_name
from safer_instruct.study.settings import BASE, StudyConfig
from safer_instruct.study.steps import Result


@dataclass(frozen=True, slots=True)
class Arm:
    """What an arm came to, over its seeds.

    Attributes:
        name: In the config; `base` is the base model.
        win_rate: More harmless than the base model, ties half; None for the base model, or where nobody judged pairs.
        by_seed: The win rate of each seed.
        helpful: The same of helpfulness, where it was measured.
        harmful: Share of answers that violate the guideline; None where nobody judged answers by themselves.
        refused: Label of the prompts -> full refusals, and answers, over all seeds.
        words: Of an answer, on the mean.
        downstream: Task and metric -> the mean over seeds.
    """

    name: str
    win_rate: Interval | None
    by_seed: tuple[float, ...]
    helpful: Interval | None
    harmful: Interval | None
    refused: dict[str, tuple[int, int]]
    words: float
    downstream: dict[str, float]


@dataclass(frozen=True, slots=True)
class Figures:
    """What an experiment found.

    Attributes:
        name: In the config.
        arms: The base model first.
        harmless: Comparisons by who is more harmless.
        helpful: By who is more helpful; empty where it was not measured.
        harmful: By the difference of the harmful rates; empty where nobody judged answers by themselves.
        split: How the pairs were divided, as the step left it.
        warnings: What makes the figures flatter.
        folder: Of the evaluation, within the study's directory.
    """

    name: str
    arms: tuple[Arm, ...]
    harmless: tuple[Beside, ...]
    helpful: tuple[Beside, ...]
    harmful: tuple[Beside, ...]
    split: Result
    warnings: tuple[str, ...]
    folder: str


def figures_of(config: StudyConfig, name: str, results: Mapping[str, Result]) -> Figures:
    """The figures of one experiment."""
    experiment, found = config.experiments[name], results[compare_name(name)]
    bootstrap = Bootstrap(len(found["per_prompt"]), resamples=config.resamples, level=config.level, seed=config.seed)
    harmful = {which: _harmful(config, which, found["per_prompt"]) for which in (BASE, *experiment.arms)}
    arms = tuple(_arm(config, which, found, harmful[which], bootstrap) for which in (BASE, *experiment.arms))
    pairs = experiment.comparisons
    apart = {(a, b): differences(harmful[a], harmful[b]) for a, b in pairs if harmful[a] and harmful[b]}
    return Figures(
        name,
        arms,
        tuple(beside(_outcomes(config, pairs, found, "harmlessness"), bootstrap, even=0.5, larger_is_better=True, seed=config.seed)),
        tuple(beside(_outcomes(config, pairs, found, "helpfulness"), bootstrap, even=0.5, larger_is_better=True, seed=config.seed)),
        tuple(beside(apart, bootstrap, even=0.0, larger_is_better=False, seed=config.seed)),
        results[split_name(name)],
        (*found["warnings"], *_unchanged(config, name, results)),
        found["folder"],
    )


def trainings_of(config: StudyConfig, name: str, results: Mapping[str, Result]) -> list[tuple[str, str, int, Result]]:
    """What is trained on, how, the seed, and what became of it; each training once."""
    found: dict[str, tuple[str, str, int, Result]] = {}
    for arm in config.experiments[name].arms.values():
        for seed in config.seeds:
            for verb in arm.train:
                step = training_name(name, arm, verb, seed)
                how = "DPO after SFT" if step.startswith("dpo after") else verb.upper()
                found.setdefault(step, (" and ".join(arm.sets), how, seed, results[step]))
    return list(found.values())


def _unchanged(config: StudyConfig, name: str, results: Mapping[str, Result]) -> Iterator[str]:
    for on, how, seed, made in trainings_of(config, name, results):
        if made["kept"] == 0:
            yield (
                f"{how} on {on}, seed {seed}, was best on its held-out pairs before the first of its {made['steps']} steps: "
                "it left the model as it was, and what is compared with it says nothing about the set"
            )


def _arm(config: StudyConfig, which: str, found: Result, harmful: Sequence[Outcomes], bootstrap: Bootstrap) -> Arm:
    systems = _systems(config, which)
    harmless, helpful = (_beside_base(config, which, found, measure) for measure in ("harmlessness", "helpfulness"))
    refused: dict[str, tuple[int, int]] = {}
    for label in LABELS:
        counted = [found["refusals"][s][label] for s in systems if label in found["refusals"].get(s, {})]
        if counted:
            refused[label] = (sum(count for count, _ in counted), sum(of for _, of in counted))
    return Arm(
        which,
        mean_of(over_seeds(harmless), bootstrap) if harmless else None,
        tuple(fmean(known) for said in harmless if (known := [v for v in said if v is not None])),
        mean_of(over_seeds(helpful), bootstrap) if helpful else None,
        mean_of(over_seeds(harmful), bootstrap) if harmful else None,
        refused,
        fmean(found["words"][s] for s in systems),
        _downstream([found["downstream"][s] for s in systems if s in found["downstream"]]),
    )


def _outcomes(config: StudyConfig, pairs: Sequence[tuple[str, str]], found: Result, measure: str) -> dict[tuple[str, str], list[Outcomes]]:
    """For each two arms and each seed who won, by prompt; what nobody judged is left out."""
    told = {
        (arm, other): _beside_base(config, arm, found, measure) if other == BASE else found["outcomes"][measure].get(f"{arm} / {other}", [])
        for arm, other in pairs
    }
    return {pair: by_seed for pair, by_seed in told.items() if by_seed}


def _beside_base(config: StudyConfig, which: str, found: Result, measure: str) -> list[Outcomes]:
    said = found["beside_base"][measure]
    return [said[system] for system in _systems(config, which) if system in said]


def _systems(config: StudyConfig, which: str) -> list[str]:
    return list(dict.fromkeys(system_of(which, seed) for seed in config.seeds))


def _harmful(config: StudyConfig, which: str, per_prompt: Sequence[Mapping[str, Any]]) -> list[Outcomes]:
    """For each seed, whether most judges call the answer harmful, by prompt; a tie counts as harmful, as in `evaluate`. Empty where nobody says."""
    found: list[Outcomes] = []
    for system in _systems(config, which):
        values = [most([said.get(system) for said in prompt["harmful"].values()]) for prompt in per_prompt]
        if any(value is not None for value in values):
            found.append(values)
    return found if not found or which != BASE else [found[0]] * len(config.seeds)


def _downstream(by_seed: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for scores in by_seed:
        for score in scores:
            found.setdefault(f"{score['task']}, {score['metric']}", []).append(float(score["value"]))
    return {name: fmean(values) for name, values in found.items()}
