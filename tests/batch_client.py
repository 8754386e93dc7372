"""A sitting of its own, to be killed: asks so many questions through the ledger and a batched model, and prints the answers.

python batch_client.py PROVIDER BASE_URL FOLDER QUESTIONS [--die-after-first] [--budget]
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from safer_instruct.budget import Budget
from safer_instruct.ledger import Ledger, Meter, Recorded
from safer_instruct.models.batch.anthropic import AnthropicBatches
from safer_instruct.models.batch.api import Timing
from safer_instruct.models.batch.collector import BatchedModel
from safer_instruct.models.batch.gemini import GeminiBatches
from safer_instruct.models.batch.mistral import MistralBatches
from safer_instruct.models.batch.openai import OpenAIBatches
from safer_instruct.models.protocol import Generation, Sampling, Turn
from safer_instruct.models.transport import event_loop
from safer_instruct.prices import Price
from safer_instruct.spent import Spent, earlier_spent, write_spent

KEY_ENV = "BATCH_TEST_KEY"
KINDS: dict[str, Any] = {"openai": OpenAIBatches, "anthropic": AnthropicBatches, "gemini": GeminiBatches, "mistral": MistralBatches}
FAST = Timing(gather_s=0.05, longest_gather_s=5.0, first_poll_s=0.01, longest_poll_s=0.05, settle_s=0.3, give_up_s=30.0)
PRICE = Price(prompt=100.0, completion=200.0, batch_discount=0.5)


def question(number: int | str, n: int = 1) -> Generation:
    """One of the questions that are asked."""
    return Generation((Turn("user", f"question {number}"),), Sampling(max_tokens=20, temperature=0.5, top_k=0, n=n), seed=3)


def model(provider: str, url: str, folder: Path, **settings: Any) -> BatchedModel:
    """A batched model at a test server."""
    return BatchedModel(KINDS[provider]("m", base_url=url, api_key_env=KEY_ENV, timing=FAST), folder / "batches.sqlite", **{"timing": FAST, **settings})


async def sitting(provider: str, url: str, folder: Path, questions: int, *, die_after_first: bool, with_budget: bool) -> list[str]:
    """Ask all questions at once and wait for all answers."""
    path, budget = folder / "spent.json", None
    if with_budget:
        budget = Budget(max_cost=1000.0)
        budget.begin(earlier_spent(path, Spent()), lambda spent: write_spent(path, spent))
    batched = model(provider, url, folder, price=PRICE, spend=budget)
    with Ledger(folder / "ledger.sqlite") as ledger:
        recorded = Recorded(batched, ledger, "test", Meter())

        async def ask(number: int) -> str:
            asked = batched if die_after_first else recorded
            answer = await asked.generate(question(number))
            if die_after_first:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer.completions[0].text

        try:
            return await asyncio.gather(*map(ask, range(questions)))
        finally:
            await batched.close()
            if budget:
                budget.close()


if __name__ == "__main__":
    provider_, url_, folder_, questions_, *flags = sys.argv[1:]
    with asyncio.Runner(loop_factory=event_loop) as runner:
        work = sitting(provider_, url_, Path(folder_), int(questions_), die_after_first="--die-after-first" in flags, with_budget="--budget" in flags)
        print(json.dumps(runner.run(work)))
