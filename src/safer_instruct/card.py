"""The dataset card: what the set is, how it was built, and what it must not be used for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import yaml

from safer_instruct.config import ModelConfig, RunConfig
from safer_instruct.domain import Domain
from safer_instruct.margins import kind_said
from safer_instruct.models import adapter_path
from safer_instruct.models.adapterfiles import adapter_digest
from safer_instruct.oneline import many
from safer_instruct.prices import show_usd
from safer_instruct.tables import pairs_and_twins
from safer_instruct.texts import direction_of
from safer_instruct.visible import as_code, plain, visible

_HUB_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
_MADE = {
    "rejected": """The rejected response is a source text as it stood; a reversed-tuned model wrote the
prompt that it answers; an expert model wrote the chosen response from the domain's guideline; a verifier accepted it.""",
    "chosen": """The chosen response is a source text as it stood; a reversed-tuned model wrote the
prompt that it answers; a weaker model answered that prompt, which is the rejected response; a verifier found the source text better.""",
}
_MADE_KEPT = {
    "rejected": """The rejected response is a source text as it stood, and the prompt what it answered;
an expert model wrote the chosen response from the domain's guideline; a verifier accepted it.""",
    "chosen": """The chosen response is a source text as it stood, and the prompt what it answered;
a weaker model answered that prompt, which is the rejected response; a verifier found the source text better.""",
}
_CONVERSATIONS = {
    "replace": """The source texts are turns of conversations. A prompt is a list of messages: what was said before, as it stood, and
at its end the message that the model wrote. Pairs with one value of `conversation` are turns of one conversation.""",
    "keep": """The source texts are turns of conversations. A prompt is a list of messages: all that was said before the text, as it
stood; no model wrote any of it. Pairs with one value of `conversation` are turns of one conversation.""",
}
_REPLACED = {
    "matched": "rewritten by a model in the length and format of the chosen response",
    "student": "another text, which a student model answered without the guideline",
}
_GUIDELINE = {
    "rejected": "digest of the guideline that the expert wrote from",
    "chosen": "digest of the guideline, which the student was not shown",
}
_WRITTEN = {"rejected": "chosen", "chosen": "rejected"}


@dataclass(frozen=True, slots=True)
class Release:
    """What a card is for.

    Attributes:
        files: Data file by split, relative to the card.
        counts: Pairs by split.
        provenance: Columns that say where each pair comes from; empty when they were left out.
        redacted: Whether the rejected responses are digests.
        gated: Whether readers must agree to the terms first.
        reviewed: Whether it holds only pairs that people accepted, as they corrected them.
        selected: Whether it holds only pairs that `select` chose.
        corrected: In how many pairs a person corrected a text.
        digests: SHA-256 of the data file by split: `datasets` takes one set for another of the same folder name, cached before, unless their
            cards differ in them.
    """

    files: Mapping[str, str]
    counts: Mapping[str, int]
    provenance: tuple[str, ...] = ()
    redacted: bool = False
    gated: bool = False
    reviewed: bool = False
    selected: bool = False
    corrected: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def chosen(self) -> bool:
        """Whether it may be less than the run's pairs, or other than they: what the run counted of its pairs is then not said of it."""
        return self.reviewed or self.selected


def describe(config: RunConfig, domain: Domain) -> dict[str, Any]:
    """What the summary keeps of config and domain, so that a card can be written long after the run, without either file."""
    guidelines = {name: hashlib.sha256(category.guideline.encode()).hexdigest()[:16] for name, category in domain.categories.items()}
    return {
        "domain": {"name": domain.name, "description": domain.description, "misuse": domain.misuse, "direction": domain.direction, "guidelines": guidelines},
        "license": config.license,
        "source_license": config.source.license,
        **({"conversations": {"turns": config.source.turns, "given": config.induce.given}} if config.source.messages else {}),
        **({"adapters": adapters} if (adapters := _adapters(config)) else {}),
    }


def _adapters(config: RunConfig) -> dict[str, str]:
    """SHA-256 of each adapter that is merged in this process, by role; of a served one the fingerprint of its model holds it."""
    merged = {role: model.adapter for role, model in config.models if isinstance(model, ModelConfig) and model.adapter and model.model.startswith("embedded:")}
    return {role: adapter_digest(adapter_path(adapter, config.base)) for role, adapter in merged.items()}


def dataset_card(summary: Mapping[str, Any], release: Release) -> str:
    """A Hugging Face dataset card in Markdown, YAML header included.

    Args:
        summary: `summary.json` of the run.
        release: What the card is for.
    """
    domain = summary["domain"]
    return f"""---
{yaml.safe_dump(_header(summary, release), sort_keys=False, allow_unicode=True).strip()}
---

# {plain(domain["name"])}: preference pairs from real text

{plain(domain["description"])}

{_contents(summary, release)}

## How it was built

| stage | in | dropped | out |
|---|---|---|---|
{_table(_funnel(summary))}

{summary["set_aside"]} rows were set aside before the first stage, because they could not be read or used. Thresholds of the filters:
{plain(summary["thresholds"])}.

| role | model |
|---|---|
{_table((plain(role), f"{as_code(name)}{_adapter(summary, role)}") for role, name in summary["models"].items())}

{summary["calls"]} model calls, {summary["prompt_tokens"]} prompt tokens and {summary["completion_tokens"]} completion tokens;
cost in US dollars: {show_usd(summary["cost"])}.{"" if release.chosen else _wrote(summary)}{_margins(summary, release)}

| category | {_GUIDELINE[direction_of(summary)]} |
|---|---|
{_table((plain(name), f"`{digest}`") for name, digest in domain["guidelines"].items())}

## Intended use

Preference tuning (DPO and its kin) and reward modelling in this domain.

## Misuse

{plain(domain["misuse"])}

## Known limits

{_of_prompts(summary, release)}
- What counts as acceptable is the domain's guideline, applied by a model; thresholds: {plain(summary["thresholds"])}.
- The two sides come from different writers, so style and length may tell them apart; `safer-instruct audit` says how far, before a reward model finds out.
- The source texts may name people or things; they stand as they were found, where no filter of the run removed them.
{_notes(summary)}

## Licence

This set: {plain(summary["license"]) or "not decided; without a licence nobody else may use it"}. Source texts:
{_source_licenses(summary, release)}.
"""


def _of_prompts(summary: Mapping[str, Any], release: Release) -> str:
    """What is to be known of the prompts, and of what models wrote."""
    source = direction_of(summary)
    written = _WRITTEN[source]
    unread = f"written by models, and {_read(release)}; they may state things that are not so."
    before = f"- What was said before a prompt stands as it was found; the assistant spoke there as it does in the {source} text.\n"
    if summary.get("conversations", {}).get("given") == "keep":
        return f"{before}- {written.capitalize()} responses are {unread}"
    inferred = f"- Prompts were inferred from the {source} text by a model; nobody asked them in these words.\n- Prompts and {written} responses are {unread}"
    return before + inferred if "conversations" in summary else inferred


def repeats_said(summary: Mapping[str, Any]) -> str:
    """How many of the chosen responses are unique, in a sentence; empty for a set without pairs, and for runs from before it was counted."""
    unique = summary.get("unique_chosen") or {}
    if unique.get("share") is None:
        return ""
    repeats = f"{unique['exact_repeats']} repeat an earlier one word for word, {unique['near_repeats']} nearly (trigram similarity from {unique['near']})"
    return f"{unique['share']:.1%} of the chosen responses are unique; {repeats}"


def _wrote(summary: Mapping[str, Any]) -> str:
    """How many pairs each of several experts wrote, and how varied they are; empty where there is nothing to say."""
    writers = summary.get("writers") or {}
    by_expert = ", ".join(f"{name} {took['pairs']}" for name, took in writers.items())
    said = [f"Pairs by expert: {by_expert}."] if len(writers) > 1 else []
    said += [f"{repeats}."] if (repeats := repeats_said(summary)) else []
    return "\n\n".join(["", *said]) if said else ""


def _margins(summary: Mapping[str, Any], release: Release) -> str:
    """How much better the chosen responses are found, and on which scale; empty for runs from before that was said."""
    said = summary.get("margin")
    if said is None:
        return ""
    counted = said.get("beyond_labels") and not release.chosen
    beyond = f"; in {said['beyond_labels']} of {said['pairs']} pairs a score lies beyond all labelled ones" if counted else ""
    because = f" ({said['why']})" if said.get("why") else ""
    none = "; corrected pairs have none" if release.corrected else ""
    return f"\n\nMargins (`margin`, exported with provenance): {kind_said(summary)}{because}{beyond}{none}."


def _adapter(summary: Mapping[str, Any], role: str) -> str:
    digest = summary.get("adapters", {}).get(role, "")
    return f" (adapter sha256 `{digest[:16]}`)" if digest else ""


def _source_licenses(summary: Mapping[str, Any], release: Release) -> str:
    """The licence that the config states; where texts have licences of their own, how many of the run's pairs each covers."""
    stated = plain(summary["source_license"]) or "not stated in the config; they keep the licence of their source"
    own = summary.get("source_licenses", {})
    if not own:
        return stated
    told = ", ".join(plain(name) + ("" if release.chosen else f" ({many(count, 'pair')})") for name, count in own.items())
    rest = summary["pairs"] - sum(own.values())
    others = "all others" if release.chosen else f"the other {rest}"
    return f"{told}; the licence of each stands in its row (export with provenance)" + (f"; of {others}: {stated}" if rest else "")


def _read(release: Release) -> str:
    corrected = f", {release.corrected} of the pairs after a correction" if release.corrected else ""
    return f"each was accepted by a person{corrected}" if release.reviewed else "none was left out or changed for what a person said of it"


def _notes(summary: Mapping[str, Any]) -> str:
    return "".join(f"- {plain(note)}\n" for note in summary.get("notes", ()))


def _header(summary: Mapping[str, Any], release: Release) -> dict[str, Any]:
    name, total = summary["domain"]["name"], sum(release.counts.values())
    digests = ", ".join(f"{split} {digest}" for split, digest in release.digests.items())
    told = {"description": f"SHA-256 of the data: {digests}"} if digests else {}
    header: dict[str, Any] = {
        "pretty_name": f"{name}: preference pairs",
        **_license(summary["license"]),
        "task_categories": ["text-generation"],
        "tags": ["preference", "dpo", "safer-instruct", name],
        "size_categories": [next((label for most, label in _SIZES if total < most), "n>10M")],
        "configs": [{"config_name": "default", **told, "data_files": [{"split": split, "path": file} for split, file in release.files.items()]}],
    }
    if release.gated:
        header["extra_gated_heading"] = "Agree to the terms of use"
        header["extra_gated_prompt"] = visible(summary["domain"]["misuse"])
        header["extra_gated_fields"] = {"I will not train a model to produce the rejected responses": "checkbox"}
    return header


def _license(name: str) -> dict[str, str]:
    """As the hub takes it: one of its identifiers, which are lower-case, or `other` with a name."""
    if _HUB_LICENSE.fullmatch(name.lower()):
        return {"license": name.lower()}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-") or "not-decided"}


def _contents(summary: Mapping[str, Any], release: Release) -> str:
    total, turns = sum(release.counts.values()), summary.get("conversations")
    made = (_MADE_KEPT if turns and turns["given"] == "keep" else _MADE)[direction_of(summary)]
    columns = "prompt, chosen, rejected, category, id" + (", conversation" if turns else "") + (", twin_of" if "twins" in summary else "")
    built = f"{total} pairs ({columns}), built by Safer-Instruct {metadata.version('safer-instruct')} from\n{summary['rows']} rows of source text. {made}"
    parts = [built, *_sides(summary, release)]
    if turns:
        parts.append(_CONVERSATIONS[turns["given"]])
    if len(release.counts) > 1:
        counts = ", ".join(f"{split} {count}" for split, count in release.counts.items())
        parts.append(f"Splits: {counts}. Pairs with the same or nearly the same prompt or source text stand in one split.")
    if release.reviewed:
        parts.append(f"Only the pairs that people accepted in a review are here: {total} of {pairs_and_twins(summary)}. {_corrected(release)}")
    if release.selected:
        parts.append(f"Only a selection of the run's {pairs_and_twins(summary)} pairs is here (`safer-instruct select`).")
    if release.provenance:
        parts.append(f"Each row says where it comes from: {', '.join(f'`{name}`' for name in release.provenance)}.")
    if release.redacted:
        parts.append(
            "**The rejected responses are withheld.** In their place stand length and SHA-256 of the text, so that whoever has the\nsources can put them back."
        )
    return "\n\n".join(parts)


def _corrected(release: Release) -> str:
    if not release.corrected:
        return "None of their texts was corrected."
    where = "; `corrected` names the texts" if release.provenance else ""
    return f"In {release.corrected} of them a person corrected texts: those stand as corrected, whoever wrote them at first{where}."


def _sides(summary: Mapping[str, Any], release: Release) -> Iterable[str]:
    """What is to be said where rejected responses are no source texts, and where some pairs are contrast twins."""
    if side := summary.get("rejected"):
        replaced = "some of the run's" if release.chosen else side["replaced"]
        yield f"In {replaced} pairs the rejected response is not that source text as it stood: it is {_REPLACED[side['form']]}."
    if twins := summary.get("twins"):
        made = "Some of the run's" if release.chosen else twins["out"]
        yield (
            f"{made} pairs are contrast twins: a model wrote a harmless prompt that looks like that of the pair `twin_of`; the chosen response helps,\n"
            "and the rejected one is a needless refusal, written by a model. In the other pairs `twin_of` is empty."
        )


def _funnel(summary: Mapping[str, Any]) -> Iterable[tuple[object, ...]]:
    for name, stage in summary["stages"].items():
        reasons = ", ".join(f"{plain(reason)} {n}" for reason, n in stage["dropped"].items()) or "none"
        yield name, stage["in"], reasons, stage["out"]


def _table(rows: Iterable[Iterable[object]]) -> str:
    """Rows whose texts have been made plain."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
