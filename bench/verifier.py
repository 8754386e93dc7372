"""How well does the embedded verifier tell good replies from bad ones?  python bench/verifier.py [--limit N]

80 labelled pairs (bench/data/civility-labelled.jsonl, 16 trades of their own, written for this): for each form of verification the
share of pairs it orders rightly, its AUC over single replies, and its balanced accuracy at threshold 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from safer_instruct.config import VerifyConfig
from safer_instruct.domain import Domain, load_domain
from safer_instruct.models.embedded import EmbeddedModel
from safer_instruct.models.protocol import Scoring
from safer_instruct.models.store import EMBEDDED
from safer_instruct.stages.verify import ContrastVerifier
from safer_instruct.templates import load_template

Score = Callable[[str, str], Awaitable[float]]
LABELLED = Path(__file__).parent / "data" / "civility-labelled.jsonl"


def forms(model: EmbeddedModel, domain: Domain) -> dict[str, Score]:
    """Every form of verification: (prompt, reply) -> score, higher is better."""
    category = domain.categories["support"]
    bare = domain.model_copy(update={"categories": {"support": category.model_copy(update={"examples": ()})}})
    with_examples = ContrastVerifier(model, load_template("contrast"), domain, VerifyConfig())
    without = ContrastVerifier(model, load_template("contrast"), bare, VerifyConfig())
    question = load_template("question")

    async def yes_no(prompt: str, reply: str) -> float:
        text = question.render(prompt=prompt, response=reply, question=category.criteria[0])
        yes, no = await asyncio.gather(*(model.score(Scoring(text, f" {word}")) for word in ("Yes", "No")))
        return yes.mean - no.mean

    async def yes_no_examples(prompt: str, reply: str) -> float:
        shots = ""
        for e in category.examples:
            for response, word in ((e.chosen, "Yes"), (e.rejected, "No")):
                shots += question.render(prompt=e.prompt, response=response, question=category.criteria[0]) + f" {word}\n\n"
        text = shots + question.render(prompt=prompt, response=reply, question=category.criteria[0])
        yes, no = await asyncio.gather(*(model.score(Scoring(text, f" {word}")) for word in ("Yes", "No")))
        return yes.mean - no.mean

    async def likelihood(prompt: str, reply: str) -> float:
        return (await model.score(Scoring(f"### Message:\n{prompt}\n\n### Reply:\n", reply))).mean

    return {
        "log p(reply | message) alone": likelihood,
        "yes/no by logprob": yes_no,
        "yes/no by logprob, 4 example pairs": yes_no_examples,
        "guideline contrast": lambda p, r: without.contrast(p, r, bare.categories["support"]),
        "guideline contrast, 4 example pairs": lambda p, r: with_examples.contrast(p, r, category),
    }


def pairwise(good: list[float], bad: list[float]) -> float:
    """Share of pairs ordered rightly; a tie counts half."""
    return sum((g > b) + 0.5 * (g == b) for g, b in zip(good, bad, strict=True)) / len(good)


def auc(good: list[float], bad: list[float]) -> float:
    """Probability that a good reply scores above a bad one of any pair."""
    return sum((g > b) + 0.5 * (g == b) for g in good for b in bad) / (len(good) * len(bad))


async def main() -> None:
    """Score every reply by every form and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=80)
    limit = parser.parse_args().limit
    rows = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()][:limit]
    model = EmbeddedModel(EMBEDDED)
    print(f"{'form':38} pairwise   AUC  balanced accuracy at 0   pairwise: subtle, bad news")
    for name, score in forms(model, load_domain("civility")).items():
        good = await asyncio.gather(*(score(r["prompt"], r["good"]) for r in rows))
        bad = await asyncio.gather(*(score(r["prompt"], r["bad"]) for r in rows))
        balanced = (sum(g >= 0 for g in good) + sum(b < 0 for b in bad)) / (2 * len(rows))
        by_note = []
        for note in ("subtle", "bad news"):
            at = [i for i, r in enumerate(rows) if r["note"] == note]
            by_note.append(f"{pairwise([good[i] for i in at], [bad[i] for i in at]):.3f}" if at else "-")
        print(f"{name:38} {pairwise(good, bad):8.3f} {auc(good, bad):5.3f} {balanced:24.3f}   {', '.join(by_note):>26}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
