# /// script
# requires-python = ">=3.11"
# dependencies = ["litellm==1.102.4"]
# ///
"""LiteLLM's `acompletion`, as its users call it."""

import asyncio
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its price list from the package: nothing is fetched

import litellm
from harness import MAX_TOKENS, TIMEOUT_S, Job, measure_calls, parse_job


async def main(job: Job) -> None:
    litellm.suppress_debug_info = True
    litellm.telemetry = False

    async def ask(prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        answer = await litellm.acompletion(
            model="openai/bench", api_base=job.base_url, api_key="none", messages=messages, max_tokens=MAX_TOKENS, timeout=TIMEOUT_S
        )
        return answer.choices[0].message.content or ""

    await measure_calls(job, ask)


if __name__ == "__main__":
    asyncio.run(main(parse_job("LiteLLM")))
