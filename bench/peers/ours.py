"""Ours: the engine behind the ledger, every answer on disk before it is returned."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from harness import MAX_TOKENS, TIMEOUT_S, Job, measure_calls, parse_job

from safer_instruct.ledger import Ledger, Meter, Recorded
from safer_instruct.models.openai import OpenAIModel
from safer_instruct.models.protocol import Generation, Sampling, Turn

try:
    from safer_instruct.models.transport import event_loop
except ImportError:  # before the transport had a module of its own
    event_loop = asyncio.new_event_loop


async def main(job: Job) -> None:
    model = OpenAIModel("bench", base_url=job.base_url, concurrency=job.concurrency, timeout_s=TIMEOUT_S)
    sampling = Sampling(max_tokens=MAX_TOKENS)
    with tempfile.TemporaryDirectory(dir=job.result.parent) as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        recorded = Recorded(model, ledger, "bench", Meter())

        async def ask(prompt: str) -> str:
            answer = await recorded.generate(Generation((Turn("user", prompt),), sampling))
            return answer.completions[0].text

        await measure_calls(job, ask)
        await model.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(main(parse_job("safer-instruct")))
