"""The steps that make the sets of a study: a run, an unfiltered run, invented pairs, or pairs that are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safer_instruct.config import RunConfig
from safer_instruct.errors import SourceError
from safer_instruct.evaluation.honesty import builders_of_run
from safer_instruct.rundir import LEDGER, SUMMARY
from safer_instruct.state import RunState
from safer_instruct.study.invented import Recipe, invent_pairs
from safer_instruct.study.pairs import read_pairs, write_pairs
from safer_instruct.study.runs import content_of, make_run, matched, models_of, placed, run_config, tokens_of, unfiltered
from safer_instruct.study.settings import SetConfig, StudyConfig
from safer_instruct.study.steps import CONTENT, Inner, Result, Step
from safer_instruct.wholefile import sha256_of

SETS, PAIRS = "sets", "pairs.jsonl"
_SPARE = 4  # of a quick run's pairs: some overlap with evaluation prompts
_QUICK_TOKENS = 20_000  # a quick study need not use up what a whole run took
Needed = Mapping[str, Result]


def set_step(config: StudyConfig, name: str, out: Path) -> Step:
    """The step that makes a set; a shuffled one is made where pairs are drawn, and is none.

    Raises:
        ConfigError: Its run config is missing or not valid.
    """
    given, folder = config.sets[name], out / SETS / name
    needs = (set_name(given.of),) if given.of and given.kind != "shuffled" else ()
    if given.kind == "path":
        return Step(set_name(name), "read", (), lambda _: file_digests(config.base, str(given.path)), partial(_taken, config, name, folder))
    run = run_config(config.base / str(given.run or config.sets[str(given.of)].run), _target(config, given))
    if given.kind == "invented":
        recipe = partial(_recipe, config, given, run)
        return Step(set_name(name), "invent", needs, lambda found: _recipe_content(recipe(found)), partial(_invented, recipe, name, folder))
    carried_out = unfiltered(run) if given.kind == "unfiltered" else run
    ledger = out / SETS / str(given.of) / "run" / LEDGER if given.of else None
    return Step(set_name(name), given.kind, needs, lambda _: content_of(carried_out), partial(_run, carried_out, ledger, name, folder))


def set_name(name: str) -> str:
    """The step that makes a set."""
    return f"set {name}"


def _target(config: StudyConfig, given: SetConfig) -> int | None:
    """A quick study's runs end as soon as they have enough."""
    if not config.quick:
        return None
    kept = [e.held_out.count for e in config.experiments.values() if e.held_out and config.sets[e.held_out.of] in (given, config.sets.get(str(given.of)))]
    return config.pairs + config.held_out_pairs + max(kept, default=0) + _SPARE


def _taken(config: StudyConfig, name: str, folder: Path, needed: Needed, digest: str, inner: Inner) -> Result:
    given = config.sets[name]
    path = config.base / str(given.path)
    pairs, bad = read_pairs(path, given.category_column)
    write_pairs(folder / PAIRS, pairs)
    summary = json.loads((path / SUMMARY).read_text(encoding="utf-8")) if (path / SUMMARY).is_file() else None
    models = sorted({builder.model for builder in builders_of_run(path, name)})
    tokens = tokens_of(summary) if summary else None
    return {"pairs": len(pairs), "set_aside": bad, "tokens": tokens, "models": models, CONTENT: sha256_of(folder / PAIRS)}


def _run(run: RunConfig, ledger: Path | None, name: str, folder: Path, needed: Needed, digest: str, inner: Inner) -> Result:
    def watch(state: RunState) -> None:
        inner(0, 0, f"run of {state.total} texts" if state.total else "run")

    summary = make_run(run, folder / "run", ledger=ledger, watch=watch)
    pairs, bad = read_pairs(folder / "run")
    write_pairs(folder / PAIRS, pairs)
    models = sorted({model.model for model in models_of(run)})
    return {"pairs": len(pairs), "set_aside": bad, "tokens": tokens_of(summary), "texts": summary["rows"], "models": models, CONTENT: sha256_of(folder / PAIRS)}


def _recipe(config: StudyConfig, given: SetConfig, run: RunConfig, needed: Needed) -> Recipe:
    experts = [run.models.expert] if run.models.expert else [e.bare for e in (run.models.experts or {}).values()]
    base = placed(config.answering(), config.base)
    writers = [placed(m, config.base) for m in given.writers] if given.writers else [*(placed(m, run.base) for m in experts), base]
    tokens = given.tokens or int(needed[set_name(str(given.of))]["tokens"])
    inventor = placed(given.inventor, config.base) if given.inventor else base
    return Recipe(run, inventor, tuple(writers), given.answers, min(tokens, _QUICK_TOKENS) if config.quick else tokens, config.seed)


def _recipe_content(recipe: Recipe) -> Any:
    models = [model.model_dump(mode="json") for model in (recipe.inventor, *recipe.writers)]
    return [models, recipe.answers, recipe.tokens, recipe.seed, content_of(recipe.run)]


def _invented(recipe: Callable[[Needed], Recipe], name: str, folder: Path, needed: Needed, digest: str, inner: Inner) -> Result:
    made = recipe(needed)
    found = invent_pairs(made, folder / "calls", lambda done, of: inner(done, of, "tokens of the budget used"))
    if not found.pairs:
        raise SourceError(f"set '{name}': {found.prompts} prompts were invented with {found.tokens} tokens, and no pair came of them; raise 'tokens'")
    write_pairs(folder / PAIRS, found.pairs)
    models = sorted({model.model for model in (made.inventor, *made.writers, made.run.models.scorer)})
    return {"pairs": len(found.pairs), "set_aside": 0, "tokens": found.tokens, "prompts": found.prompts, "models": models, CONTENT: sha256_of(folder / PAIRS)}


def file_digests(base: Path, name: str) -> list[str]:
    """SHA-256 of each file that a path, a folder or a glob leads to; of a run directory that of its pairs."""
    pairs = base / name / PAIRS
    return [sha256_of(file) for file in ([pairs] if pairs.is_file() else matched(base, name))]
