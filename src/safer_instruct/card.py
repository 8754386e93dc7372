"""The dataset card: what the set is, how it was built, and what it must not be used for."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import yaml

from safer_instruct.config import RunConfig
from safer_instruct.domain import Domain
from safer_instruct.prices import show_usd


def dataset_card(config: RunConfig, domain: Domain, summary: dict[str, Any], pairs_file: str) -> str:
    """A Hugging Face dataset card in Markdown, YAML header included."""
    header = {
        "license": config.license or "other",
        "task_categories": ["text-generation"],
        "tags": ["preference", "dpo", "safer-instruct", domain.name],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": pairs_file}]}],
    }
    roles = "\n".join(f"| {role} | `{name}` |" for role, name in summary["models"].items())
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# {domain.name}: preference pairs from real text

{domain.description}

{summary["pairs"]} pairs (prompt, chosen, rejected, category, id), built by Safer-Instruct {metadata.version("safer-instruct")} from
{summary["rows"]} rows of source text. The rejected response is a source text as it stood; a reversed-tuned model wrote the
prompt that it answers; an expert model wrote the chosen response from the domain's guideline; a verifier accepted it.

## How it was built

| stage | in | dropped | out |
|---|---|---|---|
{_funnel(summary)}

{summary["set_aside"]} rows were set aside before the first stage (`rejected_rows.jsonl` says why); every dropped example stands in
`examples.parquet` with the verdict that dropped it. Thresholds: {summary["thresholds"]}.

| role | model |
|---|---|
{roles}

{summary["calls"]} model calls, {summary["prompt_tokens"]} prompt tokens and {summary["completion_tokens"]} completion tokens;
cost in US dollars: {show_usd(summary["cost"])}.

## Intended use and limits

Preference tuning (DPO and its kin) and reward modelling in this domain. Prompts and chosen responses are written by
models and were not read by a person; they may state things that are not so.

{domain.misuse}

Licence: {config.license or "not decided (set `license` in the config)"}; the source texts keep the licence of their source.
"""


def _funnel(summary: dict[str, Any]) -> str:
    rows = []
    for name, stage in summary["stages"].items():
        reasons = ", ".join(f"{reason} {n}" for reason, n in stage["dropped"].items()) or "none"
        rows.append(f"| {name} | {stage['in']} | {reasons} | {stage['out']} |")
    return "\n".join(rows)
