"""What makes an evaluation flatter: judges related to what they judge, prompts that were trained on, length that decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safer_instruct import rundir, tables, yamlfile
from safer_instruct.config import ModelConfig
from safer_instruct.errors import SourceError
from safer_instruct.evaluation.families import family_of
from safer_instruct.evaluation.figures import Measure
from safer_instruct.evaluation.prompts import PROMPT_COLUMNS, Prompt
from safer_instruct.evaluation.settings import EvaluateConfig, OverlapConfig, TrainingData
from safer_instruct.filters.near import deduplicate
from safer_instruct.oneline import one_line, shortened
from safer_instruct.settings.pairs import RowSource
from safer_instruct.sources import SourceRow
from safer_instruct.tuning.open import open_rows
from safer_instruct.tuning.overlap import Overlap

_LENGTH_TELLS, _LENGTH_PAIRS = 0.7, 20  # share that the longer or the shorter answer wins, and the fewest decided prompts that it is told of
_POSITION_TELLS = 0.6
_SHOWN, _BEGINNING = 5, 60  # prompts that overlap, and characters of each: its id may be a digest, which stands in no file of the user's


@dataclass(frozen=True, slots=True)
class Builder:
    """A model that had a part in the training data: its string, what it did, and for which run."""

    model: str
    role: str
    where: str


@dataclass(frozen=True, slots=True)
class Overlapping:
    """Prompts of the evaluation that overlap with training prompts: how many of how many, how, and of some their ids and first words."""

    training: int
    prompts: int
    same: int
    run: int
    near: int
    cluster: int
    ids: tuple[str, ...]
    beginnings: tuple[str, ...]

    @property
    def any(self) -> int:
        """Prompts that overlap in whatever way."""
        return self.same + self.run + self.near + self.cluster


def builders(config: EvaluateConfig) -> list[Builder]:
    """The models that wrote or judged the training data, as the config and the run directories name them."""
    found = []
    for model in config.built_with:
        sets = config.found_in.get(model)
        found.append(Builder(model, "a model", sets) if sets else Builder(model, "named in built_with", "the config"))
    for data in config.training:
        found += builders_of_run(config.base / data.path, data.path)
    return found


def builders_of_run(folder: Path, where: str) -> list[Builder]:
    """The models that wrote or judged in the run of a directory; none where it is no such directory."""
    record = folder / rundir.RUN
    return list(_of_run(yamlfile.read(record), where)) if record.is_file() else []


def circularity(config: EvaluateConfig, built: Sequence[Builder]) -> list[str]:
    """Warnings where a judge is, or is related to, a model that built the data or is evaluated."""
    warnings = []
    for name, judge in config.judges.items():
        family = family_of(judge.model.model)
        for builder in built:
            did = f"{builder.role} of {builder.where}"
            if _same(judge.model.model, builder.model):
                warnings.append(f"judge '{name}' ({judge.model.model}) had a part in building the data ({did}): what it liked then it likes now")
            elif family and family == family_of(builder.model):
                warnings.append(f"judge '{name}' and {builder.model} ({did}) are of one family, {family}: judges like what their relatives write")
        for system, given in config.systems.items():
            if given.model and _related(judge.model, given.model, family):
                warnings.append(
                    f"judge '{name}' and system '{system}' are of one family, {family or judge.model.model}: judges like what their relatives write"
                )
    return list(dict.fromkeys(warnings))


def check_training(config: EvaluateConfig) -> None:
    """See that the training data can be read and has prompts, which is wanted only at the end.

    Raises:
        SaferInstructError: A file of `training` cannot be read, or no row has a prompt.
    """
    for data in config.training:
        next(training_prompts(data, config.base), None)


def find_overlap(prompts: Sequence[Prompt], config: EvaluateConfig) -> Overlapping | None:
    """How many prompts stand in the training data: word for word, by a long run of words, nearly, or in a cluster with one that does.

    Raises:
        SaferInstructError: A file of `training` cannot be read.
    """
    if not config.training:
        return None
    training = [text for data in config.training for text in training_prompts(data, config.base)]
    return overlap([prompt.text for prompt in prompts], [prompt.id for prompt in prompts], training, config.overlap)


def overlap(texts: Sequence[str], ids: Sequence[str], training: Sequence[str], config: OverlapConfig) -> Overlapping:
    """As `find_overlap`, of texts; each prompt counts once, under the closest kind."""
    exact = Overlap(training, config.near, shared_run=config.shared_run)
    both = deduplicate([*training, *texts], threshold=config.cluster) if training and texts else None
    trained = set(both.cluster[: len(training)].tolist()) if both else set()
    kinds: dict[str, list[int]] = {"same": [], "run": [], "near": [], "cluster": []}
    for at, text in enumerate(texts):
        why = exact.why(text)
        if why:
            kinds["same" if "same words" in why else "run" if "run of" in why else "near"].append(at)
        elif both and int(both.cluster[len(training) + at]) in trained:
            kinds["cluster"].append(at)
    some = [at for found in kinds.values() for at in found][:_SHOWN]
    same, run, near, cluster = (len(found) for found in kinds.values())
    beginnings = tuple(shortened(one_line(texts[at]), _BEGINNING) for at in some)
    return Overlapping(len(training), len(texts), same, run, near, cluster, tuple(ids[at] for at in some), beginnings)


def training_prompts(data: TrainingData, base: Path) -> Iterator[str]:
    """The prompts of a finished run, or of what `train` would read: of a folder with splits the part `train`.

    Raises:
        SaferInstructError: It cannot be read, or no row has a prompt.
    """
    if (base / data.path / rundir.PAIRS).is_file():
        yield from (pair["prompt"] for pair in tables.read_pairs(base / data.path))
        return
    columns, found = ((data.prompt,) if data.prompt else PROMPT_COLUMNS), 0
    for row in open_rows(RowSource(path=data.path), base):
        text = next((row.fields[name] for name in columns if isinstance(row.fields.get(name), str)), "") if isinstance(row, SourceRow) else ""
        if text:
            found += 1
            yield str(text)
    if not found:
        raise SourceError(f"training '{data.path}': no row has a column {' or '.join(columns)} with text; name the column in 'prompt'")


def overlap_warnings(found: Overlapping | None) -> list[str]:
    """What to say of prompts that were trained on."""
    if found is None:
        return ["nothing tells whether these prompts were trained on: name the training data in 'training'"]
    if not found.any:
        return []
    kinds = f"{found.same} word for word, {found.run} by a run of words, {found.near} nearly, {found.cluster} in a cluster with one"
    some = ", ".join(f"{id_} ('{beginning}')" for id_, beginning in zip(found.ids, found.beginnings, strict=True))
    return [f"{found.any} of {found.prompts} prompts overlap with the {found.training} training prompts ({kinds}), such as {some}"]


def bias_warnings(kind: str, found: Measure) -> list[str]:
    """Where length alone tells the winner, or a judge goes by position."""
    warnings = []
    for c in found.comparisons:
        decided, longer = c.counts.wins + c.counts.losses, c.longer_wins
        if longer is not None and decided >= _LENGTH_PAIRS and max(longer, 1 - longer) >= _LENGTH_TELLS:
            which = "longer" if longer > 0.5 else "shorter"
            warnings.append(
                f"{kind}: length alone tells who wins between {c.system} and {c.other}: the {which} answer (in words) is the winner on "
                f"{max(longer, 1 - longer):.0%} of the {decided} prompts with a winner, equal lengths counting half; "
                f"at equal length the win rate is {c.length_controlled.win_rate.estimate:.2f} instead of {c.win_rate.estimate:.2f}"
            )
    for name, bias in found.judges.items():
        first = bias.shown_first
        if first is not None and max(first, 1 - first) >= _POSITION_TELLS:
            warnings.append(
                f"{kind}: judge '{name}' prefers the answer shown {'first' if first > 0.5 else 'second'} in {max(first, 1 - first):.0%} of its answers"
            )
    return warnings


def _of_run(record: Mapping[str, Any], where: str) -> Iterator[Builder]:
    """By what `run.yaml` says of the config; its `models` names the roles that were filled, as `expert` or `panel.NAME`."""
    configured = (record.get("config") or {}).get("models") or {}
    for filled in record.get("models") or {}:
        role, _, name = filled.partition(".")
        given = configured.get(role) or {}
        if model := (given.get(name) or {} if name else given).get("model"):
            yield Builder(str(model), role, where)


def _related(judge: ModelConfig, system: ModelConfig, family: str) -> bool:
    return _same(judge.model, system.model) or (bool(family) and family == family_of(system.model))


def _same(one: str, other: str) -> bool:
    """One model by two routes is one model: providers are left aside."""
    return one.partition(":")[2].casefold().rpartition("/")[2] == other.partition(":")[2].casefold().rpartition("/")[2] != ""
