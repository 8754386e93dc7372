"""`safer-instruct train`: preference pairs in, an adapter or a model out, with its card, its log and a picture of its curves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safer_instruct.errors import ConfigError
from safer_instruct.models import adapter_path
from safer_instruct.reverse import read_record
from safer_instruct.settings.preference import DpoConfig, PreferenceConfig
from safer_instruct.training import curves
from safer_instruct.training.card import deciding, record, write_record
from safer_instruct.training.data import Divided, EncodedPair, cut_of, divide, encoder
from safer_instruct.training.log import log_to, read_log
from safer_instruct.training.objective import Preferences
from safer_instruct.training.reference import Note
from safer_instruct.training.result import TrainResult
from safer_instruct.tuning.bases import Base, open_base
from safer_instruct.tuning.finished import CHECKPOINTS, LOG, finished, held
from safer_instruct.tuning.launch import is_first
from safer_instruct.tuning.loss import Evaluation
from safer_instruct.tuning.objective import Objective
from safer_instruct.tuning.progress import Progress
from safer_instruct.tuning.rehearse import Load, Rehearsal, completions_load, rehearse
from safer_instruct.tuning.train import check_start, micro_batch, train
from safer_instruct.tuning.trainer import Completions
from safer_instruct.tuning.tune import save_weights
from safer_instruct.wholefile import write_whole

__all__ = ["TrainResult", "dry_run", "train_preferences"]

REFERENCE, CURVES = "reference", "curves.svg"


def train_preferences(
    config: PreferenceConfig, base: Path | str, report: Callable[[Progress], None] = lambda _: None, note: Note = lambda done, of: None
) -> TrainResult:
    """Train as `config` says: `SftConfig` on the chosen responses, `DpoConfig` on the pairs. Paths are relative to `base`.

    A training that was stopped goes on from its last checkpoint when it is called again with the same config and data. One that has
    finished is not made again: what it gave is read.

    Args:
        config: What and how.
        base: What its paths are relative to.
        report: Is told of each step and evaluation.
        note: Is told how far the log-probabilities of the reference are.

    Raises:
        ConfigError: The config names something that does not exist, or the method does not run here.
        SourceError: The data is not usable.
        MissingExtraError: The extra `train` is not installed.
        ModelError: The base model is not there.
        RunDirectoryError: `out` holds a finished training of another config, or something that is no training, or another process trains in it.
    """
    base = Path(base)
    out = (base / config.out).resolve()
    with held(out, lambda: _prepare(config, base)) as ready:
        return _train(ready, base, out, report, note)


def _train(ready: _Ready, base: Path, out: Path, report: Callable[[Progress], None], note: Note) -> TrainResult:
    if found := finished(out, lambda: deciding(ready.config, ready.model, ready.start, ready.divided), ready.config):
        if is_first():
            shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)  # a kill may have come before the last line of this function
        before, best = Evaluation(**found["before"]), Evaluation(**found["best"])
        return TrainResult(out, before, best, ready.divided, found["steps"], 0.0, already=True)
    objective = ready.objective(out / REFERENCE, note)
    trained = train(
        ready.model, objective, ready.config, report, checkpoints=out / CHECKPOINTS, start=ready.start, callbacks=[log_to(out / LOG)] if is_first() else ()
    )
    first = trained.first
    result = TrainResult(out, first, trained.best, ready.divided, trained.evaluations[-1].step, trained.seconds)
    if trained.main:
        save_weights(trained, ready.model, out)
        lines = [{"step": 0, "epoch": 0.0, "held_out": {"loss": first.loss, **first.figures}}, *read_log(out / LOG)]
        write_whole(out / CURVES, curves.draw(f"{out.name}: {ready.what}", curves.panels(lines)))
        write_record(out, record(ready.config, base, ready.model, ready.start, result, trained.evaluations))
        shutil.rmtree(out / CHECKPOINTS)
    return result


def dry_run(config: PreferenceConfig, base: Path) -> tuple[Divided, Rehearsal]:
    """What `train_preferences` would take, from three real steps on the longest pairs; nothing is written.

    Raises:
        As `train_preferences`.
    """
    ready = _prepare(config, base)
    return ready.divided, rehearse(ready.model, ready.load(), ready.config, ready.start)


@dataclass(frozen=True, slots=True)
class _Ready:
    """All that training starts from."""

    config: PreferenceConfig
    model: Base
    divided: Divided
    train: Sequence[EncodedPair]
    held_out: Sequence[EncodedPair]
    start: Path | None

    @property
    def what(self) -> str:
        """For titles."""
        if isinstance(self.config, DpoConfig):
            return f"{self.config.loss}, beta {self.config.beta:g}, {len(self.train)} pairs"
        return f"SFT, {len(self.train)} pairs"

    def objective(self, cache: Path, note: Note) -> Objective:
        """What is learned."""
        if isinstance(self.config, DpoConfig):
            return Preferences(self.train, self.held_out, self.config, cache, note, end=self.model.codec.continuation("", end=True)[-1])
        return Completions([pair.sides()[0] for pair in self.train], [pair.sides()[0] for pair in self.held_out])

    def load(self) -> Load:
        """What there is to get through."""
        config = self.config
        if not isinstance(config, DpoConfig):
            return completions_load([pair.sides()[0] for pair in self.train], [pair.sides()[0] for pair in self.held_out])

        def longest(count: int, folder: Path) -> Objective:
            return Preferences(sorted(self.train, key=lambda pair: pair.length)[-count:], self.held_out[:1], config, folder)

        lengths = Preferences(self.train, (), config, Path()).lengths
        completions = sum(len(pair.chosen) + len(pair.rejected) for pair in self.train)
        return Load(2 * sum(len(pair.prompt) for pair in self.train), completions, longest, lengths, sum(pair.length for pair in self.held_out))


def _prepare(config: PreferenceConfig, base: Path) -> _Ready:
    divided = divide(config.data, config.holdout, base, config.max_pairs)
    model = open_base(config.model, base, attention=config.training.attention)
    encode = encoder(model.codec, config)
    train, held_out = [encode(pair) for pair in divided.train], [encode(pair) for pair in divided.held_out]
    divided = replace(divided, cut=cut_of([*train, *held_out], config))
    start = adapter_path(config.start, base) if config.start else None
    if start:
        _check_base(start, model)
        check_start(config, start)
    return _Ready(_with_room_for_a_baseline(config, train), model, divided, train, held_out, start)


def _check_base(adapter: Path, model: Base) -> None:
    """Refuse an adapter that says that it was tuned from other weights, where digests tell: those of the cache are of the weights alone.

    Raises:
        ConfigError: It does, or what it says cannot be read.
    """
    said = read_record(adapter) or {}
    of_cache = model.embedded or str(said.get("base")).startswith("embedded:")
    if of_cache and said.get("base_sha256", model.digest) != model.digest:
        raise ConfigError(f"'start: {adapter}' was tuned from {said.get('base')}, and 'model' is {model.name}: other weights; name the same model in both")


def _with_room_for_a_baseline(config: PreferenceConfig, pairs: Sequence[EncodedPair]) -> PreferenceConfig:
    """KTO needs two responses in memory at a time, however long they are."""
    if not isinstance(config, DpoConfig) or config.loss != "kto" or config.training.micro_batch:
        return config
    fits = micro_batch(config, max(pair.length // 2 for pair in pairs))
    least = next(m for m in range(2, config.batch_size + 1) if config.batch_size % m == 0)
    return config.model_copy(update={"training": config.training.model_copy(update={"micro_batch": max(fits, least)})})
