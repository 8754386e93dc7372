# /// script
# requires-python = ">=3.11"
# dependencies = ["openai==3.54.0"]
# ///
"""The openai SDK, as its users call it."""

import asyncio

import openai
from harness import MAX_TOKENS, TIMEOUT_S, Job, measure_calls, parse_job


async def main(job: Job) -> None:
    async with openai.AsyncOpenAI(base_url=job.base_url, api_key="none", timeout=TIMEOUT_S) as client:

        async def ask(prompt: str) -> str:
            answer = await client.chat.completions.create(model="bench", messages=[{"role": "user", "content": prompt}], max_tokens=MAX_TOKENS)
            return answer.choices[0].message.content or ""

        await measure_calls(job, ask)


if __name__ == "__main__":
    asyncio.run(main(parse_job("openai SDK")))
