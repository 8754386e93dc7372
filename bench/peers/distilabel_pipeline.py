# /// script
# requires-python = ">=3.11"
# dependencies = ["distilabel[openai]==1.5.3", "requests", "beautifulsoup4"]  # it imports the last two without asking for them
# ///
"""distilabel: a pipeline of one `TextGeneration` step, in the processes that it starts for that."""

import os
from collections.abc import Sequence

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DISTILABEL_LOG_LEVEL": "WARNING"}

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from harness import MAX_TOKENS, TIMEOUT_S, measure_runs, parse_job


def main() -> None:
    job = parse_job("distilabel")

    def run(prompts: Sequence[str]) -> list[str | None]:
        model = OpenAILLM(model="bench", base_url=job.base_url, api_key="none", timeout=int(TIMEOUT_S), generation_kwargs={"max_new_tokens": MAX_TOKENS})
        with Pipeline("bench", cache_dir=job.result.parent / "distilabel") as pipeline:
            load = LoadDataFromDicts(data=[{"instruction": prompt} for prompt in prompts], batch_size=job.concurrency)
            generate = TextGeneration(llm=model, input_batch_size=job.concurrency)
            load >> generate
        answers = pipeline.run(use_cache=False)
        return list(answers["default"]["train"]["generation"])

    measure_runs(job, run)


if __name__ == "__main__":
    main()
