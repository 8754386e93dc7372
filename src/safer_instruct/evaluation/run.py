"""The whole evaluation in order: prompts, answers, judgements, figures, warnings, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from safer_instruct.domain import load_domain
from safer_instruct.errors import ConfigError
from safer_instruct.evaluation.answering import answer_all
from safer_instruct.evaluation.downstream import check_harness, downstream
from safer_instruct.evaluation.files import people_of, write_result
from safer_instruct.evaluation.honesty import check_training
from safer_instruct.evaluation.judges import AskingJudge, Judge, open_judge
from safer_instruct.evaluation.judging import Judged, ask_harmful, ask_pairs, classed_answers, grade_all, judge_by_score
from safer_instruct.evaluation.people import check_files, check_sheet, items, write_sheet
from safer_instruct.evaluation.prompts import finished_responses, read_prompts
from safer_instruct.evaluation.result import REPORT, Evaluation, Work, pairs_of, result_of
from safer_instruct.evaluation.settings import EvaluateConfig
from safer_instruct.evaluation.sitting import Counter, OpenModels, Progress, check_folder, held_ledger
from safer_instruct.filters.refusal_reader import reader_if
from safer_instruct.placeholders import still_to_name, unnamed
from safer_instruct.running import run_to_end
from safer_instruct.state import Paced, Row, figures_of

Report = Callable[[Progress], None]


def evaluate(config: EvaluateConfig, out: Path | str, *, answers: Sequence[Path | str] = (), report: Report = lambda _: None) -> Evaluation:
    """Evaluate systems as `config` says; a stopped evaluation goes on where it was when it is given again.

    Args:
        config: From `load_evaluation`.
        out: A directory for report, result, answers and ledger. The ledger of another evaluation in it is used as far as calls are the same.
        answers: What people answered on a sheet that `write_people_sheet` wrote.
        report: Called after every piece of work.

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    return run_to_end(_evaluate(config, _made(out), tuple(map(Path, answers)), report))


def write_people_sheet(
    config: EvaluateConfig, out: Path | str, sheet: Path, count: int | None = None, *, report: Report = lambda _: None
) -> tuple[int, list[Path]]:
    """Write a blinded A/B sheet for people, once the systems have answered.

    Args:
        config: From `load_evaluation`.
        out: The evaluation's directory.
        sheet: The CSV file to write; a page of the same name goes beside it.
        count: Questions on it; None for every prompt of every pair.
        report: Called after every answer.

    Returns:
        How many questions there are, and the files.

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    return run_to_end(_sheet(config, _made(out), sheet, count, report))


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a sample of the prompts took.

    Attributes:
        rows: What each of them took, by stage.
        total: Prompts in all.
        slots: Calls that each stage makes side by side.
        paced: The models that keep to a rate, and what they were asked.
        in_process_s: What the models that work in this process took, each with as many calls side by side as it makes.
    """

    rows: tuple[Row, ...]
    total: int
    slots: dict[str, int]
    paced: tuple[Paced, ...] = ()
    in_process_s: float = 0.0


def rehearse(config: EvaluateConfig, out: Path | str, count: int, *, report: Report = lambda _: None) -> Rehearsal:
    """Answer and judge some prompts, to see what all of them will take; nothing that it pays for is lost. Downstream tasks are left out.

    Raises:
        SaferInstructError: Whatever went wrong, with what to do about it.
    """
    return run_to_end(_rehearse(config, _made(out), count, report))


def _open(config: EvaluateConfig, out: Path, stack: AsyncExitStack, report: Report, count: int | None = None) -> Work:
    if config.downstream:
        check_harness()
    reader_if(config.refusal_reader)  # what is missing is known before anything is paid
    check_named(config)
    check_training(config)
    domain = load_domain(config.domain, config.base)
    prompts, bad = read_prompts(config.prompts, domain, config.base, config.seed)
    chosen = prompts if count is None or count >= len(prompts) else [prompts[i * len(prompts) // count] for i in range(count)]
    ledger = stack.enter_context(held_ledger(out))
    models = OpenModels(out, ledger, stack, models=config.models, base=config.base, budget=config.budget, prices=config.prices)
    return Work(config, domain, chosen, bad, models, Counter(_pieces(config, len(chosen)), report))


def check_named(config: EvaluateConfig) -> None:
    """That every model is named, before one of them is asked.

    Raises:
        ConfigError: One is not.
    """
    models = {f"judges.{name}.model": judge.model.model for name, judge in config.judges.items()}
    models |= {f"systems.{name}.model": system.model.model for name, system in config.systems.items() if system.model}
    for key in unnamed(models):
        raise ConfigError(still_to_name(key, models[key]))


async def _evaluate(config: EvaluateConfig, out: Path, answers: tuple[Path, ...], report: Report) -> Evaluation:
    started = time.monotonic()
    check_files(answers)
    async with AsyncExitStack() as stack:
        work = _open(config, out, stack, report)
        await _answer(work)
        await _judge(work)
        if config.downstream:
            await _downstream(work)
    result = result_of(work, out, answers, time.monotonic() - started)
    if not answers and (asked := people_of(out)):
        gone = f"what people said ({', '.join(asked)}) stood in the report before, and is left out of this one: give --answers again to have it"
        result = replace(result, warnings=(*result.warnings, gone))
    write_result(work, result)
    return result


async def _sheet(config: EvaluateConfig, out: Path, sheet: Path, count: int | None, report: Report) -> tuple[int, list[Path]]:
    check_sheet(sheet)
    async with AsyncExitStack() as stack:
        work = _open(config, out, stack, report)
        await _answer(work)
    asked = items(work.prompts, work.responses, pairs_of(config), config.seed, count)
    if not asked:
        raise ConfigError("there is nothing to ask people: no two systems gave different answers to a prompt")
    return len(asked), write_sheet(sheet, asked, work.prompts, work.responses)


async def _rehearse(config: EvaluateConfig, out: Path, count: int, report: Report) -> Rehearsal:
    async with AsyncExitStack() as stack:
        work = _open(config, out, stack, report, count)
        await _answer(work)
        await _judge(work)
    total = len(read_prompts(config.prompts, work.domain, config.base, config.seed)[0])
    slots = {name: stage.slots for name, stage in work.models.stages.items()}
    return Rehearsal(tuple(_row(work, prompt.id) for prompt in work.prompts), total, slots, work.models.paced(), work.models.in_process_s())


async def _answer(work: Work) -> None:
    config = work.config
    there = {name: finished_responses(system, work.prompts, config.base) for name, system in config.systems.items() if system.model is None}
    models = {name: work.models.open(system.model, f"answer {name}") for name, system in config.systems.items() if system.model}
    for name in config.systems:  # only now, when all that is missing has been told: answers take time and may cost money
        tick = work.counter.during(f"{name}: answering")
        if name in there:
            work.responses[name] = there[name]
            for _ in work.prompts:
                tick()
        else:
            model = models[name]
            work.responses[name] = await answer_all(model, work.prompts, config.generate, config.seed, tick, two_turns=config.two_turn is not None)


async def _judge(work: Work) -> None:
    config = work.config
    work.classed = classed_answers(work.prompts, work.responses, reader_if(config.refusal_reader))
    for name, which in config.judges.items():
        asked = which.form == "question"
        if not (config.harmlessness or (asked and (config.helpfulness or config.two_turn))):
            continue
        judge = open_judge(work.models.open(which.model, f"judge {name}"), which, work.domain, name)
        if config.harmlessness:
            work.harmless[name] = await _harmlessness(work, judge, name)
        if not isinstance(judge, AskingJudge):
            continue
        if config.helpfulness:
            guidelines = [config.helpfulness.guideline] * len(work.prompts)
            tick = work.counter.during(f"{name}: helpfulness")
            work.helpful[name] = await ask_pairs(judge, work.prompts, work.responses, pairs_of(config, config.helpfulness.pairs), guidelines, tick)
        if config.two_turn:
            work.grades[name] = await grade_all(judge, work.prompts, work.responses, config.two_turn.guideline, work.counter.during(f"{name}: grading"))


async def _harmlessness(work: Work, judge: Judge, name: str) -> Judged:
    asked, pairs = work.config.harmlessness, pairs_of(work.config)
    assert asked is not None  # noqa: S101 - the caller checked
    if not isinstance(judge, AskingJudge):
        tick = work.counter.during(f"{name}: scoring")
        classed = work.classed if asked.refusals else None
        return await judge_by_score(judge, work.prompts, work.responses, pairs, tick, classed=classed, rates=asked.rates)
    guidelines = [work.domain.category(prompt.category).guideline for prompt in work.prompts]
    judged = await ask_pairs(judge, work.prompts, work.responses, pairs, guidelines, work.counter.during(f"{name}: comparing"))
    if asked.rates:
        judged.harmful.update(await ask_harmful(judge, work.prompts, work.responses, work.counter.during(f"{name}: criteria")))
    return judged


async def _downstream(work: Work) -> None:
    config = work.config
    assert config.downstream is not None  # noqa: S101 - the caller checked
    for name, system in config.systems.items():
        if system.model is not None:
            work.tasks[name] = await downstream(work.models.open(system.model, f"downstream {name}"), config.downstream, config.base, config.seed)
            work.counter.during(f"{name}: downstream")()


def _pieces(config: EvaluateConfig, prompts: int) -> int:
    """Pieces of work, for the progress display: answers, judged answers and judged pairs."""
    systems, per_prompt = len(config.systems), len(config.systems)
    for judge in config.judges.values():
        asking, harmless = judge.form == "question", config.harmlessness
        if harmless:
            pairs = pairs_of(config)
            scored = systems if harmless.rates else len({name for pair in pairs for name in pair})
            per_prompt += len(pairs) + (systems if harmless.rates else 0) if asking else scored
        if asking and config.helpfulness:
            per_prompt += len(pairs_of(config, config.helpfulness.pairs))
        if asking and config.two_turn:
            per_prompt += systems
    return per_prompt * prompts + (sum(s.model is not None for s in config.systems.values()) if config.downstream else 0)


def _row(work: Work, id_: str) -> Row:
    stages = work.models.stages.items()
    return {name: figures_of(stage.meter.by_row.get(id_, []), stage.meter, priced=stage.priced, passed=True) for name, stage in stages}


def _made(out: Path | str) -> Path:
    path = Path(out)
    check_folder(path, REPORT)
    path.mkdir(parents=True, exist_ok=True)
    return path
