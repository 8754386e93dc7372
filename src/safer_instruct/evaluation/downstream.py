"""Downstream tasks through lm-evaluation-harness, whose every request is a call of ours: in the ledger, within the budget."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safer_instruct.errors import ConfigError, SaferInstructError
from safer_instruct.evaluation.settings import DownstreamConfig
from safer_instruct.evaluation.sitting import gathered
from safer_instruct.extras import require
from safer_instruct.models.protocol import Generation, Model, Sampling, Scoring

_MAX_TOKENS, _RESAMPLES = 256, 1_000


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One figure of one task: `metric` as the harness names it, its value, and its standard error where there is one."""

    task: str
    metric: str
    value: float
    error: float | None


def check_harness() -> None:
    """See that the harness is there, before anything is paid for.

    Raises:
        MissingExtraError: lm-eval is not installed.
    """
    require("lm_eval", extra="lm-eval", purpose="downstream")


async def downstream(model: Model, config: DownstreamConfig, base: Path, seed: int) -> list[TaskScore]:
    """A model's figures on the tasks of `config`.

    Raises:
        MissingExtraError: lm-eval is not installed.
        ConfigError: There is no such task, or its data cannot be had.
        ModelError: The model failed, or does not score.
    """
    evaluator = require("lm_eval.evaluator", extra="lm-eval", purpose="downstream")
    loop = asyncio.get_running_loop()
    asked = _asking(model, loop, seed)
    return await asyncio.to_thread(_run, evaluator, asked, config, base, seed)


def _run(evaluator: Any, asked: Any, config: DownstreamConfig, base: Path, seed: int) -> list[TaskScore]:
    from lm_eval.tasks import TaskManager

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress is not ours to show
            manager = _tasks(TaskManager, config, base)
            found = evaluator.simple_evaluate(
                asked,
                tasks=list(config.tasks),
                num_fewshot=config.shots,
                limit=config.limit,
                bootstrap_iters=_RESAMPLES,
                log_samples=False,
                task_manager=manager,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    except SaferInstructError:
        raise
    except Exception as exc:
        raise ConfigError(f"downstream: lm-evaluation-harness cannot run {', '.join(config.tasks)}: {type(exc).__name__}: {exc}") from exc
    return [score for task, figures in found["results"].items() for score in _scores(task, figures)]


def _tasks(manager: Any, config: DownstreamConfig, base: Path) -> Any:
    """The index of tasks; the harness' own, thousands of files, only where it is needed."""
    folder = str(base / config.include) if config.include else None
    if folder and set(config.tasks) <= set((own := manager(include_path=folder, include_defaults=False)).all_tasks):
        return own
    return manager(include_path=folder)


def _scores(task: str, figures: dict[str, Any]) -> list[TaskScore]:
    found = []
    for key, value in figures.items():
        metric, _, filter_ = key.partition(",")
        if filter_ and not metric.endswith("_stderr") and isinstance(value, int | float):
            error = figures.get(f"{metric}_stderr,{filter_}")
            shown = metric if filter_ == "none" else f"{metric} ({filter_})"
            found.append(TaskScore(task, shown, float(value), float(error) if isinstance(error, int | float) else None))
    return found


def _asking(model: Model, loop: asyncio.AbstractEventLoop, seed: int) -> Any:
    """The model as the harness sees it; its threads wait for calls that our event loop makes."""
    from lm_eval.api.model import LM

    def wait(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def likelihood(pair: tuple[str, str]) -> float:
        return sum((await model.score(Scoring(*pair))).logprobs)

    async def generate(asked: tuple[str, dict[str, Any]]) -> str:
        context, given = asked
        stops = given.get("until") or []
        sampling = Sampling(int(given.get("max_gen_toks", _MAX_TOKENS)), float(given.get("temperature", 0.0)) if given.get("do_sample") else 0.0, 0)
        answer = await model.generate(Generation(context, sampling, seed))
        return _cut("" if answer.withheld else answer.completions[0].text, [stops] if isinstance(stops, str) else stops)

    class Asked(LM):  # type: ignore[misc,unused-ignore]
        """`is_greedy` is not told by our models and is False: exact-match figures of cloze tasks (LAMBADA's accuracy) are then 0."""

        def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
            return [(value, False) for value in wait(gathered(likelihood, [r.args for r in requests], model.concurrency))]

        def loglikelihood_rolling(self, requests: Any) -> list[float]:
            found: list[float] = wait(gathered(likelihood, [("", r.args[0]) for r in requests], model.concurrency))
            return found

        def generate_until(self, requests: Any) -> list[str]:
            found: list[str] = wait(gathered(generate, [r.args for r in requests], model.concurrency))
            return found

    return Asked()


def _cut(text: str, stops: list[str]) -> str:
    """The text up to the first of the stops."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
