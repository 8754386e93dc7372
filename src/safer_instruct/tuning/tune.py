"""`safer-instruct tune`: pairs in, adapter folder out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safer_instruct.config import TuneConfig
from safer_instruct.models import adapter_path
from safer_instruct.models.adapterfiles import adapter_digest
from safer_instruct.models.arithmetic import arithmetic
from safer_instruct.models.codec import Codec
from safer_instruct.models.embedded import EmbeddedModel
from safer_instruct.reverse import RECORD
from safer_instruct.tuning.bases import Base, load_base, open_base
from safer_instruct.tuning.data import Prepared, prepare
from safer_instruct.tuning.finished import CHECKPOINTS, finished, held
from safer_instruct.tuning.launch import is_first
from safer_instruct.tuning.loss import Encoded
from safer_instruct.tuning.pairs import Pair
from safer_instruct.tuning.progress import Progress
from safer_instruct.tuning.prompting import Prompting, load_prompting
from safer_instruct.tuning.rehearse import Rehearsal, completions_load, rehearse
from safer_instruct.tuning.train import Trained, check_start, compute_dtype, train
from safer_instruct.tuning.trainer import Completions
from safer_instruct.wholefile import write_whole

__all__ = ["TuneResult", "dry_run", "embedded_loss", "load_base", "tune"]


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What `tune` did.

    Attributes:
        adapter: Folder with the PEFT adapter, its card and `tuning.json`.
        before: Held-out loss of the base model, nats per completion token.
        after: Held-out loss of the adapter that was kept.
        train_pairs: How many pairs were trained on.
        held_out_pairs: How many were held out.
        seconds: Wall time of training and evaluation.
        embedded: Held-out loss of the adapter as the embedded engine sees it: merged, in int8. It differs from `after` by
            the quantisation error. None where the base is no model of the cache.
        already: Whether it was finished before, so that nothing was tuned in this sitting.
    """

    adapter: Path
    before: float
    after: float
    train_pairs: int
    held_out_pairs: int
    seconds: float
    embedded: float | None = None
    already: bool = False


def tune(config: TuneConfig, base: Path | str, report: Callable[[Progress], None] = lambda _: None) -> TuneResult:
    """Tune an adapter as `config` says; its paths are relative to `base`.

    A run that was stopped goes on from its last checkpoint when it is called again with the same config and data. One that has finished is not
    made again: what it gave is read.

    Args:
        config: From `load_tune_config`.
        base: The folder that its paths are relative to: the config's own.
        report: Is told how the training goes.

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
        return _tune(ready, config, base, out, report)


def _tune(ready: _Ready, config: TuneConfig, base: Path, out: Path, report: Callable[[Progress], None]) -> TuneResult:
    if found := finished(out, lambda: _deciding(config, ready), config):
        return _read(out, found)
    trained = train(ready.model, Completions(ready.train, ready.held_out), config, report, checkpoints=out / CHECKPOINTS, start=ready.start)
    result = TuneResult(out, trained.evaluations[0].loss, trained.best.loss, len(ready.train), len(ready.held_out), trained.seconds)
    if not trained.main:
        return result
    save_weights(trained, ready.model, out)
    if ready.model.embedded and config.training.method == "lora":
        result = replace(result, embedded=embedded_loss(EmbeddedModel(ready.model.embedded, out), ready.held_out))
    _save_record(out, _record(config, base, ready, trained) | {"embedded_loss": result.embedded})
    shutil.rmtree(out / CHECKPOINTS)
    return result


def _read(out: Path, found: dict[str, Any]) -> TuneResult:
    """What a training that has finished gave."""
    if is_first():
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)  # a kill may have come just before they were removed
    before, after = found["evaluations"][0]["loss"], found["best"]["loss"]
    return TuneResult(out, before, after, found["train_pairs"], found["held_out_pairs"], 0.0, found.get("embedded_loss"), already=True)


def dry_run(config: TuneConfig, base: Path) -> Rehearsal:
    """What `tune` would take, from three real steps; nothing is written.

    Raises:
        As `tune`.
    """
    ready = _prepare(config, base)
    return rehearse(ready.model, completions_load(ready.train, ready.held_out), config, ready.start)


@dataclass(frozen=True, slots=True)
class _Ready:
    """All that training starts from."""

    model: Base
    prompting: Prompting
    data: Prepared
    train: list[Encoded]
    held_out: list[Encoded]
    start: Path | None


def _prepare(config: TuneConfig, base: Path) -> _Ready:
    model = open_base(config.model, base, attention=config.training.attention)
    prompting = load_prompting(config, base)
    data = prepare(config.data, config.clean, config.holdout, base)
    encode = encoder(model.codec, prompting, config.max_tokens)
    start = adapter_path(config.start, base) if config.start else None
    if start:
        check_start(config, start)
    return _Ready(model, prompting, data, [encode(p) for p in data.train], [encode(p) for p in data.held_out], start)


def embedded_loss(model: EmbeddedModel, pairs: list[Encoded]) -> float:
    """Mean negative log-likelihood per completion token in nats, as the embedded engine sees it."""
    logprobs = [value for pair in pairs for value in model.token_logprobs(pair.prompt, pair.completion)]
    return -sum(logprobs) / len(logprobs)


def encoder(codec: Codec, prompting: Prompting, max_tokens: int) -> Callable[[Pair], Encoded]:
    """What turns a pair into token ids, each side cut at `max_tokens`."""

    def encode(pair: Pair) -> Encoded:
        prompt, completion = prompting.render(pair)
        context = codec.prompt(prompt if isinstance(prompt, str) else [asdict(turn) for turn in prompt])
        target = codec.continuation(completion, end=True)
        return Encoded(tuple(context[:max_tokens]), tuple(target[:max_tokens]), pair.source)

    return encode


def _record(config: TuneConfig, base: Path, ready: _Ready, trained: Trained) -> dict[str, Any]:
    return {
        **_deciding(config, ready),
        "base": config.model,
        "base_folder": None if ready.model.embedded else str(base.resolve()),
        "domain": config.domain,
        "category": config.category,
        "data": asdict(ready.data.funnel),
        "train_pairs": len(ready.train),
        "held_out_pairs": len(ready.held_out),
        "config": config.model_dump(mode="json"),
        "evaluations": [asdict(e) for e in trained.evaluations],
        "best": asdict(trained.best),
        "dtype": compute_dtype(config),
    }


def _deciding(config: TuneConfig, ready: _Ready) -> dict[str, Any]:
    """What tells a training from others with the same settings."""
    return {
        "task": config.task,
        "base_sha256": ready.model.digest,
        "start_sha256": adapter_digest(ready.start) if ready.start else None,
        "data_sha256": ready.data.sha256,
        **ready.prompting.record(),
    }


def save_weights(trained: Trained, model: Base, out: Path) -> None:
    """Write an adapter in half precision, half the bytes and far below the int8 error of the engine; a whole model in bfloat16, with its tokenizer."""
    import torch

    out.mkdir(parents=True, exist_ok=True)
    adapter = hasattr(trained.model, "peft_config")
    (out / "README.md").unlink(missing_ok=True)  # PEFT would go on with it, and complain that it is none of its own; ours is written next
    dtype = torch.float16 if adapter else torch.bfloat16
    state = {name: weight.to(dtype) for name, weight in (trained.state or {}).items() if not adapter or "lora_" in name}
    trained.model.save_pretrained(out, state_dict=state)
    if not adapter:
        model.tokenizer.save_pretrained(out)


def _save_record(out: Path, record: dict[str, Any]) -> None:
    write_whole(out / "README.md", _card(record))
    write_whole(out / RECORD, json.dumps(record, indent=1) + "\n")  # last: it says that the training has finished


def _card(record: dict[str, Any]) -> str:
    before, best = record["evaluations"][0], record["best"]
    rows = "\n".join(f"| {source} | {before['by_source'][source]:.3f} | {loss:.3f} |" for source, loss in best["by_source"].items())
    what = (
        "the instruction that a response answers, P(prompt | response)"
        if record["task"] == "induce"
        else "a response as the domain's guideline asks, P(response | prompt)"
    )
    config = record["config"]
    started = f"- Started from: adapter `{config['start']}`, SHA-256 `{record['start_sha256']}`\n" if config["start"] else ""
    method = config["training"]["method"]
    form = "A whole model, tuned from" if method == "full" else f"A {'QLoRA' if method == 'qlora' else 'LoRA'} adapter (rank {config['lora']['rank']}) for"
    engine, quantised = record["embedded_loss"], " and quantised to int8" if arithmetic() == "int8" else ""
    served = "" if engine is None else f"The embedded engine, with the adapter merged{quantised}, gives the same held-out pairs {engine:.3f}.\n\n"
    return f"""# {"Model" if method == "full" else "Adapter"}: {Path(config["out"]).name}

{form} `{record["base"]}`, written by `safer-instruct tune`. It generates {what}.

- Base weights, SHA-256: `{record["base_sha256"]}`
{started}- Template: `{record["template"]}`, digest `{record["template_digest"]}`
- Pairs: {record["train_pairs"]} trained on, {record["held_out_pairs"]} held out; data SHA-256 `{record["data_sha256"]}`
- Kept: step {best["step"]}, the lowest held-out loss (mean negative log-likelihood per completion token, nats)

| held-out pairs of | base | tuned |
|---|---|---|
| all | {before["loss"]:.3f} | {best["loss"]:.3f} |
{rows}

{served}Every evaluation, the seed and all settings are in `tuning.json`.
"""
