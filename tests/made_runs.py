"""Finished run directories made for tests: real files, written by the package's own writers, from examples given or made up."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from safer_instruct import rundir, tables
from safer_instruct.example import Candidate, Draft, Example, Verdict

THINGS = ["umbrella", "kettle", "parcel", "lamp", "cake", "library card", "bicycle", "train ticket", "tent", "ladder", "sofa", "piano", "garden hose", "mirror"]
ASKS = [
    "Can you repair my {}?",
    "I have lost my {} and want a new one.",
    "How do I return a {}?",
    "Write a note about the {}.",
    "Please replace the {} that I bought.",
]
GOOD = ["Gladly, please bring your {} and we will see to it today.", "I am sorry about the {}. We will send another one this week.", "Of course, here is how."]
BAD = ["Nobody but you would break a {}, read the manual.", "Your {} is no concern of ours, so stop asking.", "What did you expect of a {} at that price?"]
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
CATEGORIES = ["complaint", "order", "question"]


def write_run(path: Path, examples: Sequence[Example], **changed: Any) -> Path:
    """A run directory with these examples; `changed` replaces parts of its summary."""
    path.mkdir(parents=True, exist_ok=True)
    with tables.outputs(path) as out:
        for example in examples:
            out.add(example)
    summary = {**_summary(examples), **changed}
    (path / rundir.SUMMARY).write_text(json.dumps(summary), encoding="utf-8")
    config = {
        "domain": "manners",
        "filter": {"min_logprob": -6.0, "consistency": {"min_gain": 0.1}},
        "verify": {"form": "contrast", "min_contrast": 0.0, "min_margin": 0.0},
    }
    (path / rundir.RUN).write_text(yaml.safe_dump({"config": config}), encoding="utf-8")
    return path


def made_up(count: int, seed: int = 0, candidates: int = 2) -> Iterator[Example]:
    """Examples of every outcome, with prompts, responses and scores that vary."""
    draw = random.Random(seed)
    for i in range(count):
        thing = draw.choice(THINGS)
        prompt, chosen, text = (f"{draw.choice(forms).format(thing)} {_rest(draw)}" for forms in (ASKS, GOOD, BAD))
        likelihood, gain, margin = -abs(draw.gauss(3, 2)), draw.gauss(0.6, 0.35), draw.gauss(0.4, 0.3)
        checks = [
            Verdict("prompt.length", True, float(len(prompt.split()))),
            Verdict("likelihood", likelihood > -6, likelihood, "" if likelihood > -6 else f"the inducer gives it {likelihood:.3f} nats, less than -6.000"),
            Verdict("consistency", gain > 0.1, gain, "" if gain > 0.1 else f"adds {gain:.3f}, less than 0.100"),
        ]
        better = Verdict("verify.better", margin > 0, margin, "" if margin > 0 else "no better than the rejected one")
        base = Example(f"e{i:06}", text, CATEGORIES[min(2, int(draw.expovariate(1)))], "texts.jsonl", i + 1)
        options = tuple(Candidate(prompt, likelihood - n, True, tuple(checks)) for n in range(candidates))
        if not all(check.passed for check in checks):
            yield Example(base.id, text, base.category, base.file, base.line, options, verdicts=tuple(checks))
            continue
        drafts = (Draft(chosen, 0, -1.0, True, margin, (better,)),)
        kept = {"chosen": chosen, "margin": margin} if better.passed else {}
        yield Example(base.id, text, base.category, base.file, base.line, options, prompt, drafts=drafts, verdicts=(*checks, better), **kept)


def _rest(draw: random.Random) -> str:
    return " ".join("".join(draw.choices(SYLLABLES, k=draw.randrange(1, 4))) for _ in range(draw.randrange(2, 24)))


def _summary(examples: Sequence[Example]) -> dict[str, Any]:
    dropped: dict[str, Counter[str]] = {"filter": Counter(), "verify": Counter()}
    for example in examples:
        if by := example.dropped_by:
            dropped["verify" if by.name.startswith("verify") else "filter"][by.name] += 1
    left, stages = len(examples), {}
    for stage in ("collect", "induce", "filter", "respond", "verify"):
        gone = dict(dropped.get(stage, {}))
        stages[stage] = {
            "in": left,
            "dropped": gone,
            "out": left - sum(gone.values()),
            "calls": left,
            "prompt_tokens": 9 * left,
            "completion_tokens": 5 * left,
            "cost": 0.0,
        }
        left -= sum(gone.values())
    return {
        "rows": len(examples),
        "set_aside": 0,
        "dropped": len(examples) - left,
        "pairs": left,
        "stages": stages,
        "calls": 5 * len(examples),
        "prompt_tokens": 45 * len(examples),
        "completion_tokens": 25 * len(examples),
        "cost": 0.0,
        "models": {"inducer": "scripted:"},
        "thresholds": "defaults or the config's own, not calibrated",
        "timing": {"wall_s": 12.5, "calls_from_ledger": 0, "model_s": dict.fromkeys(stages, 2.5)},
    }
