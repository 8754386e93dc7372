# /// script
# requires-python = ">=3.11"
# dependencies = ["aiohttp==3.14.5"]
# ///
"""The floor: an aiohttp loop with nothing around it, no retries, no checks, nothing kept."""

import asyncio
import json

import aiohttp
from harness import MAX_TOKENS, TIMEOUT_S, Job, measure_calls, parse_job


async def main(job: Job) -> None:
    url, headers = job.base_url + "/chat/completions", {"Content-Type": "application/json", "Authorization": "Bearer none"}
    connector, timeout = aiohttp.TCPConnector(limit=job.concurrency), aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:

        async def ask(prompt: str) -> str:
            body = json.dumps({"model": "bench", "messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS}).encode()
            async with session.post(url, data=body) as response:
                return str(json.loads(await response.read())["choices"][0]["message"]["content"])

        await measure_calls(job, ask)


if __name__ == "__main__":
    asyncio.run(main(parse_job("bare aiohttp")))
