# /// script
# requires-python = ">=3.11"
# dependencies = ["bespokelabs-curator==0.1.31"]
# ///
"""bespokelabs-curator: a dataset of prompts through `curator.LLM`, with its cache of answers on disk."""

import os
import tempfile
from collections.abc import Sequence

os.environ |= {"TELEMETRY_ENABLED": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "none"}

import tiktoken
from bespokelabs import curator
from harness import MAX_TOKENS, TIMEOUT_S, measure_runs, parse_job


class Encoding:
    """Stands for the vocabulary that tiktoken would fetch: one token per 4 characters, at no cost, which is in curator's favour."""

    def encode(self, text: str, *, disallowed_special: tuple[str, ...] = ()) -> range:
        return range(len(text) // 4)


tiktoken.get_encoding = lambda name: Encoding()

UNLIMITED_PER_MINUTE = 1_000_000_000


def main() -> None:
    job = parse_job("curator")
    model = curator.LLM(
        model_name="gpt-4o-mini",  # a name with a price, as curator looks one up
        backend="openai",
        generation_params={"max_tokens": MAX_TOKENS},
        backend_params={
            "base_url": job.base_url,
            "request_timeout": int(TIMEOUT_S),
            "max_concurrent_requests": job.concurrency,
            "max_requests_per_minute": UNLIMITED_PER_MINUTE,
            "max_tokens_per_minute": UNLIMITED_PER_MINUTE,
        },
    )
    with tempfile.TemporaryDirectory(dir=job.result.parent) as folder:

        def run(prompts: Sequence[str]) -> list[str]:
            return list(model(list(prompts), working_dir=folder).dataset["response"])

        measure_runs(job, run)


if __name__ == "__main__":
    main()
