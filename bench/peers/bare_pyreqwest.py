# /// script
# requires-python = ">=3.11"
# dependencies = ["pyreqwest==0.15.1", "uvloop==0.23.0"]
# ///
"""The transport alone: pyreqwest under uvloop with nothing around it, no retries, no checks, nothing kept."""

import asyncio
import json
from datetime import timedelta

import uvloop
from harness import MAX_TOKENS, TIMEOUT_S, Job, measure_calls, parse_job
from pyreqwest.client import ClientBuilder


async def main(job: Job) -> None:
    url, headers = job.base_url + "/chat/completions", {"Content-Type": "application/json", "Authorization": "Bearer none"}
    builder = ClientBuilder().default_headers(headers).timeout(timedelta(seconds=TIMEOUT_S)).no_proxy()
    async with builder.build() as client:

        async def ask(prompt: str) -> str:
            body = json.dumps({"model": "bench", "messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS}).encode()
            response = await client.post(url).body_bytes(body).build().send()
            return str(json.loads(bytes(await response.bytes()))["choices"][0]["message"]["content"])

        await measure_calls(job, ask)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(parse_job("bare pyreqwest")))
