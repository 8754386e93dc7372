"""Checks of where pairs come from and who judged them: contamination, provenance, order flips, self-preference."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from safer_instruct import rundir
from safer_instruct.audit.finding import Finding, Level, graded, share
from safer_instruct.audit.reading import JUDGES, ORIGINS, PairSet
from safer_instruct.detect.contamination import BenchmarkIndex, read_prompts
from safer_instruct.judging import Judging, read_judging

_LEAST = 20


def contamination(pairs: PairSet, benchmarks: Mapping[str, Path]) -> Finding:
    """Prompts that stand in benchmarks that the user names."""
    if not benchmarks:
        return Finding("contamination", "none", "no benchmark was named (--benchmark NAME=FILE)")
    index = BenchmarkIndex((name, read_prompts(path)) for name, path in benchmarks.items())
    rows: dict[int, str] = {}
    by: Counter[str] = Counter()
    for at, prompt in enumerate(pairs.prompts):
        if found := index.find(prompt):
            rows[at] = f"stands in {found.benchmark}: '{found.run}'"
            by[found.benchmark] += 1
    told = ", ".join(f"{name} {count:,}" for name, count in by.most_common()) or f"none of the {len(index):,} prompts of {', '.join(benchmarks)}"
    level = graded(share(len(rows), len(pairs)), 1e-9, 0.001) if rows else "ok"
    do = "Drop them before training, or leave that benchmark out of the evaluation." if rows else ""
    return Finding("contamination", level, f"prompts that stand in a benchmark: {told}", do, list(rows), rows, dict(by))


def provenance(pairs: PairSet) -> Finding:
    """Whether rows say where they come from."""
    if pairs.run:
        missing = [name for name, text in _licences(pairs.path).items() if not text]
        found = "every pair has its source file and line, models, templates and guideline (export --provenance)"
        if missing:
            do = "State 'source.license' and 'license' in the config, then give the 'run' command again with --continue: no call is made again."
            return Finding("provenance", "look", f"{found}; not stated: {', '.join(missing)}", do)
        return Finding("provenance", "ok", found)
    full = {name: count for name, count in pairs.origins.items() if count}
    if not full:
        some = ", ".join(ORIGINS[:5])
        do = "Ask for the origin of each row before training on it: licence and takedowns cannot be honoured without. Of a run of ours: export --provenance."
        return Finding("provenance", "bad", f"no column says where a pair comes from ({some} ...)", do)
    gaps = {name: len(pairs) - count for name, count in full.items() if count < len(pairs)}
    told = ", ".join(f"{name} ({share(count, len(pairs)):.0%} of rows)" for name, count in full.items())
    licensed = any("license" in name for name in full)
    level: Level = "ok" if licensed and not gaps else "look"
    do = "" if level == "ok" else "Fill the gaps." if licensed else "No column tells a licence: ask for it."
    return Finding("provenance", level, f"columns that tell an origin: {told}", do, figures=full)


def _licences(path: Path) -> dict[str, str]:
    summary = rundir.read_summary(path)
    return {name: str(summary.get(key) or "") for name, key in (("licence of the sources", "source_license"), ("licence of the set", "license"))}


def order_flips(pairs: PairSet) -> Finding:
    """How often a judge's preference turned with the order of the responses."""
    if not pairs.run:
        return Finding("order-flips", "none", "needs the verdicts of a run directory")
    flips = read_judging(pairs.path).flips
    if not flips:
        return Finding("order-flips", "none", "no judge was asked in both orders (verify.form: question)")
    told = "answers that turned with the order: " + ", ".join(f"{name} {rate:.0%} of {drafts:,} drafts" for name, (rate, drafts) in flips.items())
    figures = {name: rate for name, (rate, _) in flips.items()}
    enough = {name: rate for name, (rate, drafts) in flips.items() if drafts >= _LEAST}
    worst = max(enough, key=lambda name: enough[name], default="")
    level = graded(enough[worst], 0.1, 0.3) if enough else "ok"
    if level != "ok":
        do = f"'{worst}' follows the order: take a stronger judge or a panel; what flips is dropped, but what does not may be luck."
        return Finding("order-flips", level, told, do, figures=figures)
    if len(enough) < len(flips):
        do = f"Run on more texts before you rely on that share; from {_LEAST} drafts on it decides the verdict."
        return Finding("order-flips", "look", f"{told}; fewer than {_LEAST} drafts of a judge are too few to tell", do, figures=figures)
    return Finding("order-flips", "ok", told, figures=figures)


def self_preference(pairs: PairSet) -> Finding:
    """Whether judges judge their own writing, and how they treat it."""
    if pairs.run:
        return _of_run(pairs.path)
    if not (pairs.writers and pairs.judges):
        return Finding("self-preference", "none", f"needs columns that name writers (chosen_model, rejected_model) and judge ({', '.join(JUDGES)})")
    own: dict[str, list[bool]] = defaultdict(list)  # per judge: where exactly one side is its own, whether that one won
    others: dict[str, list[bool]] = defaultdict(list)  # per writer: the same under other judges
    for (better, worse), judge in zip(pairs.writers, pairs.judges, strict=True):
        for writer, won in ((better, True), (worse, False)):
            if better != worse and writer:
                (own if writer == judge else others)[writer].append(won)
    own = {judge: won for judge, won in own.items() if len(won) >= _LEAST}
    if not own:
        return Finding("self-preference", "ok", "no judge has judged twenty of its own responses")
    rates = {judge: (fmean(won), fmean(others[judge]) if len(others[judge]) >= _LEAST else 0.5, len(won)) for judge, won in own.items()}
    worst = max(rates, key=lambda judge: rates[judge][0] - rates[judge][1])
    mine, theirs, many = rates[worst]
    found = f"'{worst}' prefers its own response in {mine:.0%} of {many:,} pairs; other judges prefer it in {theirs:.0%}"
    level = graded(mine - theirs, 0.1, 0.25)
    do = "" if level == "ok" else "Have these pairs judged by somebody else."
    rows = [at for at, ((better, worse), judge) in enumerate(zip(pairs.writers, pairs.judges, strict=True)) if worst == judge == better != worse]
    return Finding("self-preference", level, found, do, rows, {}, {judge: {"own": a, "others": b} for judge, (a, b, _) in rates.items()})


def _of_run(path: Path) -> Finding:
    models = {str(role): str(name) for role, name in rundir.read_summary(path)["models"].items()}
    judges = {role: name for role, name in models.items() if role == "judge" or role.startswith("panel.")}
    if not judges:
        return Finding("self-preference", "none", "no judge took part in this run")
    writers = {name for role, name in models.items() if role.partition(".")[0] in ("expert", "experts", "student")}
    own = [role.removeprefix("panel.") for role, name in judges.items() if name in writers]
    if not own:
        return Finding("self-preference", "ok", f"no judge ({', '.join(judges.values())}) wrote what it judged")
    mine, theirs = _yes(read_judging(path), own)
    do = "Have another model judge, or put some beside it: models.panel."
    if mine is None or theirs is None:
        return Finding("self-preference", "look", f"the judge {_named(judges, own)} also wrote the responses, and nobody else judged them", do)
    level = graded(mine - theirs, 0.1, 0.25)
    found = f"{', '.join(own)} also wrote the responses: says yes to {mine:.0%} of them, the other judges to {theirs:.0%}"
    return Finding("self-preference", level, found, "" if level == "ok" else do, figures={"own": mine, "others": theirs})


def _named(judges: Mapping[str, str], own: Sequence[str]) -> str:
    """The models behind these judges."""
    return ", ".join(dict.fromkeys(name for role, name in judges.items() if role.removeprefix("panel.") in own))


def _yes(judging: Judging, own: Sequence[str]) -> tuple[float | None, float | None]:
    """Share of yes that the judges of their own writing give, and that the others give."""
    said: dict[bool, list[float]] = {True: [], False: []}
    for units in judging.votes.values():
        for votes in units:
            for judge, vote in zip(judging.judges, votes, strict=True):
                if vote is not None:
                    said[judge in own].append(vote)
    mine, theirs = (fmean(said[side]) if len(said[side]) >= _LEAST else None for side in (True, False))
    return mine, theirs
