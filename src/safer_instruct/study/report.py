"""What a study leaves to read: tables in three forms, pictures, and a page that says what each arm is and what is significant."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from safer_instruct.evaluation.escaping import escaped
from safer_instruct.evaluation.figures import p_words
from safer_instruct.evaluation.files import plain
from safer_instruct.evaluation.rates import LABELS
from safer_instruct.oneline import many, one_line
from safer_instruct.study.compare import Beside
from safer_instruct.study.division import origin, sets_of, unused_sets
from safer_instruct.study.figures import Figures, figures_of, trainings_of
from safer_instruct.study.plots import Bar, Panel, draw
from safer_instruct.study.setsteps import set_name
from safer_instruct.study.settings import BASE, StudyConfig
from safer_instruct.study.steps import Result
from safer_instruct.study.tables import Cell, P, Percent, Share, Table, markdown, rendered
from safer_instruct.wholefile import write_whole

REPORT, CONFIG, FIGURES, TABLES, PLOTS = "study.md", "study.yaml", "study.json", "tables", "plots"
QUICK = "Quick run: it shows that the machinery works, and says nothing about the data."
_HOW = {
    "run": "a run of the pipeline",
    "path": "pairs that were there",
    "shuffled": "the pairs of '{of}' with the prompts of others",
    "unfiltered": "the run of '{of}' with every filter and verifier off",
    "invented": "prompts invented by a model, best against worst of {answers} answers, at the tokens of '{of}'",
}


def write_report(config: StudyConfig, out: Path, results: Mapping[str, Result], command: str) -> list[Figures]:
    """Write everything that is read, from the results of all steps; `command` is what made them."""
    figures = [figures_of(config, name, results) for name in config.experiments]
    page = [*_head(config, command)]
    for found in figures:
        tables = tables_of(config, found, results)
        for table in tables:
            for name, text in rendered(table):
                _write(out / TABLES / name, text)
        _write(out / PLOTS / f"{found.name}.svg", _picture(config, found))
        page += _section(config, found, tables)
    _write(out / REPORT, "\n".join(page).rstrip() + "\n")
    _write(out / CONFIG, yaml.safe_dump(resolved(config), sort_keys=False, allow_unicode=True, width=120))
    _write(out / FIGURES, json.dumps({"quick": config.quick, "experiments": [plain(asdict(f)) for f in figures]}, indent=1) + "\n")
    return figures


def resolved(config: StudyConfig) -> dict[str, Any]:
    """The config with every default filled in, and what it was made with."""
    trainings = {verb: make().model_dump(mode="json", exclude={"data", "out", "start", "seed", "model"}) for verb, make in _makers(config).items()}
    return {**config.model_dump(mode="json"), **trainings, "safer_instruct": version("safer-instruct"), "quick": config.quick}


def tables_of(config: StudyConfig, found: Figures, results: Mapping[str, Result]) -> list[Table]:
    """The four tables of an experiment."""
    notes = (QUICK,) if config.quick else ()
    return [_arms(config, found, notes), _comparisons(found, notes), _sets(config, found, results, notes), _trainings(config, found, results, notes)]


def sentences(config: StudyConfig, found: Figures) -> list[str]:
    """What is significant and what is not, one sentence for each comparison."""
    told = [_sentence(c, "more harmless", "win rate", config.level) for c in found.harmless]
    told += [_sentence(c, "more helpful", "win rate", config.level) for c in found.helpful]
    return told + [_sentence(c, "less often harmful", "difference of the harmful rates", config.level, percent=True) for c in found.harmful]


def fewer(warnings: Sequence[str]) -> list[str]:
    """The warnings; those that differ in nothing but the system's name once, with how many more there are."""
    alike: dict[str, list[str]] = {}
    for warning in warnings:
        alike.setdefault(re.sub(r"system '[^']*'", "system", warning), []).append(warning)
    return [f"{same[0]} (and so for {len(same) - 1} systems more)" if len(same) > 1 else same[0] for same in alike.values()]


def _head(config: StudyConfig, command: str) -> Iterator[str]:
    yield "# Study"
    yield ""
    if config.quick:
        yield f"**{QUICK}**"
        yield ""
    seeds = ", ".join(map(str, config.seeds))
    yield f"Made by `{escaped(command)}` (safer-instruct {version('safer-instruct')}); base model `{escaped(config.model)}`;"
    yield f"training seeds {seeds}; seed of the rest {config.seed}."
    yield f"Everything that reproduces it stands in `{CONFIG}`, all figures in `{FIGURES}`, each table as Markdown, LaTeX and CSV in `{TABLES}/`."
    yield ""
    yield "Figures are means over prompts of the means over seeds; what single seeds give stands beside."
    yield f"Intervals: {config.level:.0%}, paired bootstrap over prompts ({config.resamples:,} resamples), for these seeds."
    yield "p: paired randomisation test over prompts, two-sided, by Holm's method for all comparisons of a measure."
    yield ""
    if unused := unused_sets(config):
        yield from (f"- {escaped(sentence)}" for sentence in unused)
        yield ""


def _section(config: StudyConfig, found: Figures, tables: list[Table]) -> Iterator[str]:
    experiment = config.experiments[found.name]
    yield f"## {escaped(found.name)}"
    yield ""
    yield "What each arm is:"
    yield ""
    yield f"- **base**: `{escaped(config.model)}` as it is."
    for name, arm in experiment.arms.items():
        origins = "; ".join(f"'{on}', {_how(config, on)}" for on in arm.sets)
        yield f"- **{escaped(name)}**: base, then {' and '.join(verb.upper() for verb in arm.train)} on {found.split['pairs']} pairs of {escaped(origins)}."
    yield ""
    yield "What is significant:"
    yield ""
    yield from (f"- {escaped(sentence)}" for sentence in sentences(config, found) or ["nothing was compared"])
    yield ""
    if found.warnings:
        yield "What to mind:"
        yield ""
        yield from (f"- {escaped(one_line(warning))}" for warning in fewer(found.warnings))
        yield ""
    yield f"![Estimates with their intervals]({PLOTS}/{found.name}.svg)"
    yield ""
    for table in tables:
        yield markdown(table)
    yield f"Answers and judgements: `{escaped(found.folder)}`."
    yield ""


def _arms(config: StudyConfig, found: Figures, notes: tuple[str, ...]) -> Table:
    experiment = config.experiments[found.name]
    labels = [label for label in LABELS if any(label in arm.refused for arm in found.arms)]
    tasks = sorted({task for arm in found.arms for task in arm.downstream})
    helpful = any(arm.helpful for arm in found.arms)
    headings = ["arm", "trained on", "pairs", "more harmless than base", "harmful", *(["more helpful than base"] if helpful else [])]
    headings += [*(f"refused, {label} prompts" for label in labels), "words", *tasks]
    rows = []
    for arm in found.arms:
        given = experiment.arms.get(arm.name)
        row: list[Cell] = [arm.name, f"{' and '.join(given.sets)}: {', '.join(given.train)}" if given else "nothing", found.split["pairs"] if given else 0]
        row += ["" if arm.name == BASE else arm.win_rate, Percent(arm.harmful) if arm.harmful else None]
        row += ["" if arm.name == BASE else arm.helpful] if helpful else []
        row += [*(Share(*arm.refused[label]) if label in arm.refused else None for label in labels), arm.words, *(arm.downstream.get(task) for task in tasks)]
        rows.append(tuple(row))
    title = f"{found.name}: {found.split['prompts']} held-out prompts, {many(len(config.seeds), 'seed')}"
    return Table(f"{found.name}-arms", title, tuple(headings), tuple(rows), (*notes, *_size_notes(config, found)))


def _size_notes(config: StudyConfig, found: Figures) -> Iterator[str]:
    count, scarcest = found.split["pairs"], found.split["scarcest"]
    if scarcest:
        yield f"The set '{scarcest}' has no more than {count} pairs to train on, so every arm is trained on {count}; {config.pairs} were asked for."


def _comparisons(found: Figures, notes: tuple[str, ...]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    measures = (("more harmless", found.harmless, False), ("more helpful", found.helpful, False), ("harmful, difference", found.harmful, True))
    for measure, comparisons, percent in measures:
        for c in comparisons:
            value: Cell = Percent(c.value, signed=True) if percent else c.value
            seeds = ", ".join(f"{v:+.0%}" if percent else f"{v:.2f}" for v in c.by_seed)
            better = {1: c.arm, -1: c.other, 0: "cannot tell"}[c.better]
            rows.append((measure, c.arm, c.other, value, seeds, c.prompts, P(c.p_adjusted), better))
    headings = ("measure", "arm", "beside", "win rate or difference", "by seed", "prompts", "p", "better")
    return Table(f"{found.name}-comparisons", f"{found.name}: arms beside each other", headings, tuple(rows), notes)


def _sets(config: StudyConfig, found: Figures, results: Mapping[str, Result], notes: tuple[str, ...]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    trained_on = {on for arm in config.experiments[found.name].arms.values() for on in arm.sets}
    for name in (name for name in config.sets if name in trained_on or name in sets_of(config, found.name)):
        made, pool = results[set_name(origin(config, name))], found.split["pools"][origin(config, name)]
        per_pair = made["tokens"] / made["pairs"] if made["tokens"] else None
        rows.append((name, _how(config, name), made["pairs"], pool["overlapping"], pool["pairs"], made["tokens"], per_pair and round(per_pair)))
    headings = ("set", "made by", "pairs", "overlap with prompts", "left", "tokens", "tokens per pair")
    return Table(f"{found.name}-sets", f"{found.name}: the sets", headings, tuple(rows), notes)


def _trainings(config: StudyConfig, found: Figures, results: Mapping[str, Result], notes: tuple[str, ...]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for on, how, seed, made in trainings_of(config, found.name, results):
        before, best = made["before"], made["best"]
        rows.append((on, how, seed, made["train"], made["steps"], made["kept"], before["loss"], best["loss"], best.get("accuracy", ""), best.get("margin", "")))
    headings = ("trained on", "how", "seed", "pairs", "steps", "kept", "loss before", "loss", "accuracy", "margin")
    title = f"{found.name}: trainings, on {found.split['held_out']} further pairs of their own sets"
    return Table(f"{found.name}-trainings", title, headings, tuple(rows), notes)


def _sentence(c: Beside, word: str, what: str, level: float, *, percent: bool = False) -> str:
    form = "+.0%" if percent else ".2f"
    value = f"{c.value.estimate:{form}}, {level:.0%} {c.value.low:{form}} to {c.value.high:{form}}"
    shown = f"{what} of {c.arm} beside {c.other} {value}, {p_words(c.p_adjusted)}"
    if not c.better:
        return f"cannot tell whether {c.arm} or {c.other} is {word} ({shown})"
    better, worse = (c.arm, c.other) if c.better > 0 else (c.other, c.arm)
    even = 0.0 if percent else 0.5
    agreeing = sum((value - even) * (c.value.estimate - even) > 0 for value in c.by_seed)
    spread = "" if agreeing == len(c.by_seed) else f"; only {agreeing} of {len(c.by_seed)} seeds say so"
    return f"{better} is {word} than {worse} ({shown}{spread})"


def _how(config: StudyConfig, name: str) -> str:
    given = config.sets[name]
    return _HOW[given.kind].format(of=given.of, answers=given.answers)


def _picture(config: StudyConfig, found: Figures) -> str:
    won = tuple(Bar(arm.name, arm.win_rate, arm.by_seed) for arm in found.arms if arm.win_rate)
    harmful = tuple(Bar(arm.name, arm.harmful) for arm in found.arms if arm.harmful)
    compared = tuple(Bar(f"{c.arm} / {c.other}", c.value, c.by_seed) for c in found.harmless if c.other != BASE)
    panels = [
        Panel("more harmless than base, win rate", won, 0.5),
        Panel("harmful answers, share", harmful),
        Panel("beside each other, win rate", compared, 0.5),
    ]
    note = f"{config.level:.0%} intervals over prompts; grey: single seeds{'. ' + QUICK if config.quick else ''}"
    return draw(f"{found.name}: {found.split['pairs']} pairs, {found.split['prompts']} prompts", [p for p in panels if p.bars], note)


def _makers(config: StudyConfig) -> dict[str, Any]:
    used = {verb for experiment in config.experiments.values() for arm in experiment.arms.values() for verb in arm.train}
    return {verb: make for verb, make in (("sft", config.sft_config), ("dpo", config.dpo_config)) if verb in used}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
