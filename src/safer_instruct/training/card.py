"""What stands beside trained weights: `tuning.json` with everything, and a model card for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safer_instruct.models.adapterfiles import adapter_digest
from safer_instruct.oneline import many, one_line
from safer_instruct.reverse import RECORD
from safer_instruct.settings.preference import REFERENCE_FREE, DpoConfig, PreferenceConfig
from safer_instruct.training.data import Cut, Divided, sources_of
from safer_instruct.training.losses import TIE
from safer_instruct.training.result import TrainResult, hidden_by_rounding
from safer_instruct.tuning.bases import Base
from safer_instruct.tuning.loss import Evaluation
from safer_instruct.tuning.train import compute_dtype
from safer_instruct.wholefile import write_whole

CARD = "README.md"
_MEANING = {
    "accuracy": f"share of pairs in which the chosen response has the larger reward; ties (at most {TIE:g} nats times beta apart) count half",
    "margin": "reward of the chosen response less that of the rejected one, mean",
    "chosen_reward": "reward of the chosen response, mean",
    "rejected_reward": "reward of the rejected response, mean",
    "chosen_logp": "log-probability of the chosen response, nats, mean",
    "rejected_logp": "log-probability of the rejected response, nats, mean",
    "chosen_drift": "log-probability of the chosen response now less at the start, nats per token",
    "rejected_drift": "the same of the rejected response",
    "kl": "KL divergence from the start, on responses that the model samples to held-out prompts, nats per token",
}


def record(config: PreferenceConfig, base: Path, model: Base, start: Path | None, result: TrainResult, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """All that a training was made with and gave; `models export` reads the base from it."""
    divided = result.divided
    return {
        **deciding(config, model, start, divided),
        "base": config.model,
        "base_folder": None if model.embedded else str(base.resolve()),
        "data": divided.counts() | {"by_source": sources_of(divided.train), "cut": asdict(divided.cut) if divided.cut else None},
        "config": config.model_dump(mode="json"),
        "dtype": compute_dtype(config),
        "steps": result.steps,
        "evaluations": [asdict(e) for e in evaluations],
        "before": asdict(result.before),
        "best": asdict(result.best),
    }


def deciding(config: PreferenceConfig, model: Base, start: Path | None, divided: Divided) -> dict[str, Any]:
    """What tells a training from others with the same settings."""
    return {
        "task": "dpo" if isinstance(config, DpoConfig) else "sft",
        "base_sha256": model.digest,
        "start_sha256": adapter_digest(start) if start else None,
        "data_sha256": divided.sha256,
    }


def write_record(out: Path, given: dict[str, Any]) -> None:
    """Write the card, and `tuning.json`, which says that the training has finished."""
    write_whole(out / CARD, card(given))
    write_whole(out / RECORD, json.dumps(given, indent=1) + "\n")


def card(given: dict[str, Any]) -> str:
    """The model card, in Markdown."""
    config, data, before, best = given["config"], given["data"], given["before"], given["best"]
    method = config["training"]["method"]
    form = "A whole model, trained from" if method == "full" else f"A {'QLoRA' if method == 'qlora' else 'LoRA'} adapter for"
    rows = [("loss", before["loss"], best["loss"], "what training makes smaller")]
    rows += [(name, before["figures"][name], best["figures"][name], text) for name, text in _MEANING.items() if name in best["figures"]]
    table = "\n".join(f"| {name} | {old:.4f} | {new:.4f} | {meaning} |" for name, old, new, meaning in rows)
    sources = ", ".join(f"{_plain(name)} ({count})" for name, count in data["by_source"].items())
    return f"""# {"Model" if method == "full" else "Adapter"}: {_plain(Path(config["out"]).name)}

{form} `{_plain(given["base"])}`, written by `safer-instruct train {given["task"]}`. {_learned(given)}

- Base weights, SHA-256: `{given["base_sha256"]}`
{_started(given)}- Pairs: {data["train"]} trained on, {data["held_out"]} held out by the hash of their prompts; from {sources}; SHA-256 `{given["data_sha256"]}`
- Left out: {data["set_aside"]} rows that could not be read, {data["duplicates"]} duplicates, {data["straddling"]} too like a held-out pair,
  {data["beyond"]} beyond `max_pairs`
{_cut(data["cut"])}- Steps: {_steps(given)}, learning rate {config["learning_rate"]:g}, {many(config["epochs"], "epoch")} at most
- Seed {config["seed"]}, {given["dtype"]}
- Kept: the state after step {best["step"]}, that with the lowest held-out loss

On the held-out pairs:

| figure | at the start | kept | |
|---|---|---|---|
{table}

{_rounded(given)}![Curves](curves.svg)

Every step is in `training.jsonl`; every evaluation, the seed and all settings are in `tuning.json`.
{_told(given["task"])} Whether its answers are better is a question for
generations on prompts of other origin.
"""


def _learned(given: dict[str, Any]) -> str:
    config = given["config"]
    if given["task"] == "sft":
        return "It learned to write the chosen responses; the loss is that of their tokens alone, in nats per token."
    reference = (
        "without a reference"
        if config["loss"] in REFERENCE_FREE
        else f"with {'the adapter that it started from' if config['start'] else 'the base model'} as the reference"
    )
    return f"It learned to prefer the chosen responses, by the loss `{config['loss']}` with beta {config['beta']:g}, {reference}."


def _steps(given: dict[str, Any]) -> str:
    """How many, and of how many pairs: the last of an epoch has what is left."""
    most = given["config"]["batch_size"]
    return f"{given['steps']}, each of {'up to ' if given['data']['train'] % most else ''}{many(most, 'pair')}"


def _rounded(given: dict[str, Any]) -> str:
    """What stands under the table where the start seems to have learned something: its rewards are 0, but for the dtype."""
    if given["task"] == "sft" or given["config"]["loss"] in REFERENCE_FREE or given["dtype"] != "bfloat16":
        return ""
    hidden = hidden_by_rounding(given["before"]["figures"], given["best"]["figures"])
    loss = " and the loss 0.6931" if given["config"]["loss"] in ("sigmoid", "robust") else ""
    return f"""At the start the model is its own reference: accuracy is 0.5, margin and drift are 0{loss}, and what differs from that in the table
is the rounding of bfloat16 alone. The first steps in `training.jsonl` are as noisy; `dtype: float32` removes it.{f" Mind: {hidden}." if hidden else ""}

"""


def _told(task: str) -> str:
    """What the figures are about."""
    if task == "sft":
        return "The loss says how likely the model finds the held-out chosen responses of this data set, and nothing about the rejected ones."
    return "These figures say how well the model tells the pairs of this data set apart."


def _cut(found: dict[str, int] | None) -> str:
    return "".join(f"- Cut: {line}\n" for line in Cut(**found).told()) if found else ""


def _started(given: dict[str, Any]) -> str:
    start = given["config"]["start"]
    return f"- Started from: adapter `{_plain(start)}`, SHA-256 `{given['start_sha256']}`\n" if start else ""


def _plain(text: str) -> str:
    """Somebody's name for something, where Markdown and HTML would read signs in it."""
    return "".join(c for c in one_line(text) if c not in "`<>|[]&")
