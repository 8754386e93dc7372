"""Ours, as in a run: flow control, a budget with a cap, and the ledger; every answer is on disk before it is returned."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness import MAX_TOKENS, TIMEOUT_S, Job, measure_calls, parse_job

from safer_instruct.budget import Budget
from safer_instruct.ledger import Ledger, Meter, Recorded
from safer_instruct.models.flow import Limits
from safer_instruct.models.openai import OpenAIModel
from safer_instruct.models.protocol import Generation, Sampling, Turn
from safer_instruct.models.spending import Spending
from safer_instruct.prices import Price
from safer_instruct.running import run_to_end
from safer_instruct.spent import Spent, write_spent


async def main(job: Job) -> None:
    sampling = Sampling(max_tokens=MAX_TOKENS)
    with tempfile.TemporaryDirectory(dir=job.result.parent) as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        budget = Budget(max_cost=1_000.0)
        budget.begin(Spent(), lambda spent: write_spent(Path(folder) / "spent.json", spent))
        spending = Spending(Price(prompt=1.0, completion=2.0), budget)
        model = OpenAIModel("bench", base_url=job.base_url, limits=Limits(concurrency=job.concurrency, timeout_s=TIMEOUT_S), spending=spending)
        recorded = Recorded(model, ledger, "bench", Meter())

        async def ask(prompt: str) -> str:
            answer = await recorded.generate(Generation((Turn("user", prompt),), sampling))
            return answer.completions[0].text

        await measure_calls(job, ask)
        await model.close()


if __name__ == "__main__":
    run_to_end(main(parse_job("safer-instruct")))
