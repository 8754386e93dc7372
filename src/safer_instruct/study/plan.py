"""The whole grid as steps, in order: sets, divisions, trainings, evaluations, comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from safer_instruct.evaluation import Evaluation, evaluate
from safer_instruct.evaluation.figures import Measure
from safer_instruct.evaluation.result import RESULT
from safer_instruct.evaluation.sitting import Progress as Judged
from safer_instruct.settings.pairs import Holdout
from safer_instruct.settings.preference import PreferenceConfig, PreferenceSource
from safer_instruct.study.division import PROMPTS, content_of, divide, file_prompts, key_of, made_sets, sets_of
from safer_instruct.study.pairs import HELD, SIDE, read_pairs
from safer_instruct.study.setsteps import PAIRS, SETS, file_digests, set_name, set_step
from safer_instruct.study.settings import BASE, ArmConfig, StudyConfig, digest_of
from safer_instruct.study.steps import CONTENT, Inner, Result, Step
from safer_instruct.training.run import train_preferences
from safer_instruct.tuning.progress import Progress
from safer_instruct.wholefile import sha256_of

EXPERIMENTS, MODELS = "experiments", "models"
Needed = Mapping[str, Result]


def plan(config: StudyConfig, out: Path) -> list[Step]:
    """All steps of a study in `out`.

    Raises:
        ConfigError: A run config of a set is missing or not valid.
    """
    ordered = sorted(made_sets(config), key=lambda name: config.sets[name].of is not None)
    steps = [step for name in config.experiments for step in _experiment(config, name, out)]
    steps.sort(key=lambda step: step.kind != "split")  # too few pairs are known before any training
    return [*(set_step(config, name, out) for name in ordered), *steps]


def system_of(arm: str, seed: int) -> str:
    """What an arm that was trained with a seed is called in evaluations."""
    return BASE if arm == BASE else f"{arm}.{seed}"


def split_name(name: str) -> str:
    """The step that divides an experiment's pairs."""
    return f"split {name}"


def compare_name(name: str) -> str:
    """The step that compares an experiment's arms."""
    return f"compare {name}"


def training_name(name: str, arm: ArmConfig, verb: str, seed: int) -> str:
    """The step that trains; arms on the same pairs share their SFT."""
    after = " after sft" if verb == "dpo" and "sft" in arm.train else ""
    return f"{verb}{after} {name} {key_of(arm.sets)} seed {seed}"


def evaluation_name(name: str, system: str) -> str:
    """The step that has a system answer and its answers judged."""
    return f"evaluate {name} {system}"


def builders_of(config: StudyConfig, name: str, needed: Needed) -> dict[str, str]:
    """Every model that had a part in the sets of an experiment -> in which."""
    found: dict[str, list[str]] = {}
    for on in sets_of(config, name):
        for model in needed[set_name(on)]["models"]:
            found.setdefault(model, []).append(f"'{on}'")
    return {model: f"the set{'s' if len(sets) > 1 else ''} {', '.join(sets)}" for model, sets in sorted(found.items())}


def _experiment(config: StudyConfig, name: str, out: Path) -> list[Step]:
    experiment, folder = config.experiments[name], out / EXPERIMENTS / name
    steps = [_split_step(config, name, out)]
    systems: dict[str, str] = {BASE: ""}
    for seed in config.seeds:
        for arm_name, arm in experiment.arms.items():
            last = ""
            for verb in arm.train:
                step = _training(config, name, arm, verb, seed, last, out)
                if step.name not in {known.name for known in steps}:
                    steps.append(step)
                last = step.name
            systems[system_of(arm_name, seed)] = last
    size = float(experiment.held_out.count if experiment.held_out else len(file_prompts(config, name)))
    depends = partial(_evaluation_content, config, name)
    for system, trained in systems.items():
        needs = (split_name(name), *((trained,) if trained else ()))
        steps.append(Step(evaluation_name(name, system), "evaluate", needs, depends, partial(_evaluate, config, name, {system: trained}, folder), size))
    needs = (split_name(name), *(set_name(s) for s in sets_of(config, name)), *(t for t in systems.values() if t), *(evaluation_name(name, s) for s in systems))
    compared = partial(_compare, config, name, systems, folder)
    return [*steps, Step(compare_name(name), "compare", tuple(dict.fromkeys(needs)), lambda found: [depends(found), experiment.comparisons], compared)]


def _split_step(config: StudyConfig, name: str, out: Path) -> Step:
    experiment, sets = config.experiments[name], sets_of(config, name)
    used = sorted({on for arm in experiment.arms.values() for on in arm.sets})
    plain = experiment.model_dump(mode="json", include={"held_out"})
    asked = {key: experiment.evaluate.get(key) for key in ("domain", "prompts")}
    depends: list[object] = [plain, asked, [arm.sets for arm in experiment.arms.values()], {on: config.sets[on].shuffled for on in used}]
    depends += [config.pairs, config.held_out_pairs, config.seed]

    def content(_: Needed) -> object:
        given = experiment.evaluate.get("prompts")
        path = given.get("path", "") if isinstance(given, dict) else given
        return [depends, file_digests(config.base, str(path)) if path else []]

    return Step(split_name(name), "split", tuple(set_name(s) for s in sets), content, partial(_split, config, name, out))


def _split(config: StudyConfig, name: str, out: Path, needed: Needed, digest: str, inner: Inner) -> Result:
    sets = {s: read_pairs(out / SETS / s / PAIRS, "category")[0] for s in sets_of(config, name)}
    found = divide(config, name, sets, out / EXPERIMENTS / name)
    pools = {s: {"pairs": len(pool.pairs), "overlapping": pool.overlapping} for s, pool in found.pools.items()}
    files = {key: sha256_of(file) for key, file in found.files.items()}
    told = {"prompts": len(found.prompts), "pools": pools, "pairs": found.count, "held_out": found.held_out, "scarcest": found.scarcest, "files": files}
    return {**told, CONTENT: content_of(found)}


def _training(config: StudyConfig, name: str, arm: ArmConfig, verb: str, seed: int, after: str, out: Path) -> Step:
    key = key_of(arm.sets)
    file = out / EXPERIMENTS / name / "pairs" / f"{key}.jsonl"
    make = config.sft_config if verb == "sft" else config.dpo_config
    settings = make(seed=seed).model_dump(mode="json", exclude={"data", "out", "start"})
    step_name = training_name(name, arm, verb, seed)
    needs = (split_name(name), *((after,) if after else ()))

    def content(needed: Needed) -> object:
        return [settings, needed[split_name(name)]["files"][key]]

    def do(needed: Needed, digest: str, inner: Inner) -> Result:
        folder = out / MODELS / f"{step_name.replace(' ', '-')}-{digest[:8]}"
        start = str(out / needed[after]["folder"]) if after else None
        data = PreferenceSource(path=str(file), group=SIDE)
        ours = {"data": [data.model_dump()], "holdout": Holdout(groups=(HELD,), near_duplicate=None).model_dump(), "out": str(folder), "seed": seed}
        return _trained(make(**ours, start=start), config.base, out, inner)

    epochs = make(seed=seed).epochs
    return Step(step_name, verb, needs, content, do, float(config.pairs * epochs))


def _trained(config: PreferenceConfig, base: Path, out: Path, inner: Inner) -> Result:
    def report(progress: Progress) -> None:
        inner(progress.step, progress.steps, f"steps, loss {progress.loss:.3f}" if progress.step else "steps")

    result = train_preferences(config, base, report, lambda done, of: inner(done, of, "sequences under the reference"))
    weights = next(file for pattern in ("adapter_model.safetensors", "*.safetensors") for file in sorted(result.out.glob(pattern)))
    counts = result.divided.counts()
    told = {"train": counts["train"], "held_out": counts["held_out"], "steps": result.steps, "kept": result.best.step}
    figures = {"before": {"loss": result.before.loss, **result.before.figures}, "best": {"loss": result.best.loss, **result.best.figures}}
    whole = config.training.method == "full"
    return {"folder": str(result.out.relative_to(out.resolve())), "whole": whole, **told, **figures, CONTENT: sha256_of(weights)}


def _evaluation_content(config: StudyConfig, name: str, needed: Needed) -> object:
    """What an evaluation depends on besides the weights and prompts."""
    given = config.experiments[name].evaluate
    return [given, config.model, config.seed, config.level, config.resamples, digest_of(given.get("judges"))]


def _systems(config: StudyConfig, systems: Mapping[str, str], needed: Needed, out: Path) -> dict[str, dict[str, object]]:
    """As an evaluation config has them."""
    found: dict[str, dict[str, object]] = {}
    for system, trained in systems.items():
        result = needed.get(trained)
        model = config.answering(out / result["folder"] if result else None, whole=bool(result and result["whole"]))
        found[system] = {"model": model.model_dump(exclude_unset=True)}
    return found


def _evaluated(config: StudyConfig, name: str, systems: Mapping[str, str], needed: Needed, folder: Path, inner: Inner, **more: Any) -> Evaluation:
    """An evaluation of some systems; all of an experiment share a ledger."""
    experiment, out = config.experiments[name], folder.parent.parent
    ours: dict[str, Any] = {"prompts": {"path": str(folder / PROMPTS), "category_column": "category"}} if experiment.held_out else {}
    for measure in ("harmlessness", "helpfulness"):
        if isinstance(given := experiment.evaluate.get(measure), dict):
            ours[measure] = {**given, "pairs": "baseline"}
    evaluation = config.evaluation(name, _systems(config, systems, needed, out), **ours, **more)

    def report(progress: Judged) -> None:
        inner(progress.done, progress.total, progress.doing)

    return evaluate(evaluation, folder / "evaluation", report=report)


def _evaluate(config: StudyConfig, name: str, systems: Mapping[str, str], folder: Path, needed: Needed, digest: str, inner: Inner) -> Result:
    """Answers of one system, and what the judges say of it beside the base model; the comparison finds all of it in the ledger."""
    found = _evaluated(config, name, {BASE: "", **systems}, needed, folder, inner)
    return {"words": {system: words for system, (_, words) in found.answers.items()}, CONTENT: digest}


def _beside_base(found: Measure | None) -> dict[str, list[float | None]]:
    """System -> who won each prompt beside the base model."""
    return {pair.rpartition(" / ")[0]: values for pair, values in found.outcomes.items()} if found else {}


def _compare(config: StudyConfig, name: str, systems: Mapping[str, str], folder: Path, needed: Needed, digest: str, inner: Inner) -> Result:
    experiment, out = config.experiments[name], folder.parent.parent
    outcomes: dict[str, dict[str, list[list[float | None]]]] = {"harmlessness": {}, "helpfulness": {}}
    for arm, other in experiment.comparisons:
        for seed in config.seeds if other != BASE else ():  # the base model stands beside every arm in the whole evaluation
            two = {system_of(which, seed): systems[system_of(which, seed)] for which in (other, arm)}
            found = _evaluated(config, name, two, needed, folder, inner, baseline=system_of(other, seed))
            for measure, by_pair in outcomes.items():
                if (told := getattr(found, measure)) and told.outcomes:
                    by_pair.setdefault(f"{arm} / {other}", []).append(next(iter(told.outcomes.values())))
    files = [str(folder / "pairs" / f"{key}.jsonl") for key in needed[split_name(name)]["files"]]
    training = [{"path": file, "prompt": "asked"} for file in files]
    whole = _evaluated(config, name, systems, needed, folder, inner, baseline=BASE, training=training, built=builders_of(config, name, needed))
    record = json.loads((folder / "evaluation" / RESULT).read_text(encoding="utf-8"))
    told = {
        "per_prompt": record["per_prompt"],
        "outcomes": outcomes,
        "beside_base": {measure: _beside_base(getattr(whole, measure)) for measure in outcomes},
        "words": {system: words for system, (_, words) in whole.answers.items()},
        "refusals": {system: {label: [rate.count, rate.of] for label, rate in found.refused.items()} for system, found in whole.refusals.items()},
        "downstream": {system: [asdict(score) for score in scores] for system, scores in whole.downstream.items()},
        "warnings": list(whole.warnings),
    }
    return {**told, "folder": str((folder / "evaluation").relative_to(out)), CONTENT: digest}
