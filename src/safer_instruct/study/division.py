"""What each arm of an experiment is trained on: equally many pairs, and none whose prompt is evaluated on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safer_instruct.domain import load_domain
from safer_instruct.errors import SourceError
from safer_instruct.evaluation.prompts import read_prompts
from safer_instruct.study.pairs import StudyPair, apart_from, deranged, draw, keep_for_evaluation, write_rows, write_training
from safer_instruct.study.settings import BASE, StudyConfig

PROMPTS = "prompts.jsonl"
Sets = Mapping[str, Sequence[StudyPair]]


@dataclass(frozen=True, slots=True)
class Pool:
    """What a set has for training: its pairs, and how many more overlap with an evaluation prompt."""

    pairs: tuple[StudyPair, ...]
    overlapping: int


@dataclass(frozen=True, slots=True)
class Division:
    """How an experiment's pairs are divided.

    Attributes:
        prompts: What is evaluated on.
        pools: By set.
        count: Pairs that each arm is trained on.
        held_out: Further pairs that each training chooses its best state by.
        scarcest: The set that set the count; empty where the config did.
        files: What is trained on -> the file with it.
    """

    prompts: tuple[str, ...]
    pools: dict[str, Pool]
    count: int
    held_out: int
    scarcest: str
    files: dict[str, Path]


def key_of(on: Sequence[str]) -> str:
    """A name for what is trained on: a set, or several."""
    return "+".join(on)


def divide(config: StudyConfig, name: str, sets: Sets, out: Path) -> Division:
    """Keep prompts for the evaluation, draw the pairs of every arm, and write both into `out`.

    Args:
        config: The study.
        name: Of the experiment.
        sets: The pairs of every set that it uses.
        out: The experiment's folder.

    Raises:
        SourceError: A set has too few pairs, or the prompts cannot be read.
    """
    prompts = _prompts(config, name, sets, out)
    pools = {}
    for which in sets_of(config, name):
        kept, overlapping = apart_from(sets[which], prompts)
        pools[which] = Pool(tuple(kept), overlapping)
    count, scarcest = _count(config, name, pools)
    files = {}
    for on in _trained_on(config, name):
        files[key_of(on)] = out / "pairs" / f"{key_of(on)}.jsonl"
        write_training(files[key_of(on)], *_drawn(config, on, pools, count))
    return Division(tuple(prompts), pools, count, config.held_out_pairs, scarcest, files)


def origin(config: StudyConfig, name: str) -> str:
    """The set that the pairs are taken from: of a shuffled one that which it shuffles."""
    return config.sets[name].shuffled or name


def sets_of(config: StudyConfig, name: str) -> list[str]:
    """The sets that an experiment takes pairs or prompts from, in the order of the config."""
    experiment = config.experiments[name]
    used = {origin(config, on) for arm in experiment.arms.values() for on in arm.sets} | ({experiment.held_out.of} if experiment.held_out else set())
    return [which for which in config.sets if which in used]


def made_sets(config: StudyConfig) -> list[str]:
    """The sets that are made or read: those that an experiment uses, and what controls are compared with; in the order of the config."""
    used = {which for name in config.experiments for which in sets_of(config, name)}
    used |= {of for which in used if (of := config.sets[which].of)}
    return [which for which in config.sets if which in used]


def unused_sets(config: StudyConfig) -> list[str]:
    """A sentence for each set of the config that no experiment uses: it is not made, and stands in no table."""
    trained_on = {on for experiment in config.experiments.values() for arm in experiment.arms.values() for on in arm.sets}
    return [
        f"sets.{name}: no arm is trained on this set, and no experiment holds out its prompts, so it is left out; "
        f"name it in an arm's 'sets' (experiments.NAME.arms.ARM.sets), or remove it"
        for name in config.sets
        if name not in trained_on and name not in made_sets(config)
    ]


def file_prompts(config: StudyConfig, name: str) -> list[str]:
    """The prompts of an experiment's file.

    Raises:
        SourceError: There is no file, or no usable row.
    """
    evaluation = config.evaluation(name, {BASE: {"model": config.answering()}})
    found, _ = read_prompts(evaluation.prompts, load_domain(evaluation.domain, config.base), config.base, config.seed)
    return [prompt.text for prompt in found]


def _prompts(config: StudyConfig, name: str, sets: Sets, out: Path) -> list[str]:
    """The prompts that are evaluated on; those of a set are written to a file first."""
    experiment = config.experiments[name]
    if experiment.held_out:
        kept = keep_for_evaluation(sets[experiment.held_out.of], experiment.held_out.count)
        domain = load_domain(str(experiment.evaluate.get("domain")), config.base)
        only = next(iter(domain.categories)) if len(domain.categories) == 1 else ""
        write_rows(out / PROMPTS, [{"prompt": pair.prompt, "category": pair.category or only} for pair in kept])
        return [pair.prompt for pair in kept]
    return file_prompts(config, name)


def _trained_on(config: StudyConfig, name: str) -> list[tuple[str, ...]]:
    return sorted({arm.sets for arm in config.experiments[name].arms.values()})


def _count(config: StudyConfig, name: str, pools: Mapping[str, Pool]) -> tuple[int, str]:
    """How many pairs every arm can have, and the set that has no more."""
    count, scarcest = config.pairs, ""
    lower = True
    while lower:
        lower = False
        for on in _trained_on(config, name):
            train, held_out = _drawn(config, on, pools, count)
            if len(held_out) < config.held_out_pairs or not train:
                at = min((origin(config, which) for which in on), key=lambda which: len(pools[which].pairs))
                pool = pools[at]
                raise SourceError(
                    f"experiment '{name}': the set '{at}' has {len(pool.pairs)} pairs to train on ({pool.overlapping} more overlap with evaluation prompts), "
                    f"too few beside the {config.held_out_pairs} of 'held_out_pairs'; add texts, hold out fewer prompts, or lower 'held_out_pairs'"
                )
            if len(train) < count:
                count, scarcest, lower = len(train), key_of(on), True
    return count, scarcest


def _drawn(config: StudyConfig, on: Sequence[str], pools: Mapping[str, Pool], count: int) -> tuple[list[StudyPair], list[StudyPair]]:
    """Pairs to train on and to hold out: from each set the same number, of the same pairs whether they are shuffled or not."""
    train: list[StudyPair] = []
    held_out: list[StudyPair] = []
    for place, which in enumerate(on):
        wanted, kept = (len(range(place, many, len(on))) for many in (count, config.held_out_pairs))
        pool = pools[origin(config, which)].pairs
        some, rest = draw(pool, min(wanted, max(0, len(pool) - kept)), kept)
        if config.sets[which].shuffled:
            some, rest = deranged(some, config.seed), _all_deranged(rest, config.seed)
        train += some
        held_out += rest
    return train, held_out


def _all_deranged(pairs: Sequence[StudyPair], seed: int) -> list[StudyPair]:
    """Every one of the few pairs that the best state is chosen by: across categories where one has no other prompt."""
    within = deranged(pairs, seed)
    return within if len(within) == len(pairs) else deranged([replace(pair, category="") for pair in pairs], seed)


def content_of(division: Division) -> str:
    """A digest of all files and prompts."""
    digest = hashlib.sha256("\0".join(division.prompts).encode("utf-8", "surrogatepass"))
    for key, file in sorted(division.files.items()):
        digest.update(f"\n{key}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
