"""From labels to bounds: every score of a run is fitted, and the best of them gets a bound for what is wanted."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from safer_instruct import rundir, yamlfile
from safer_instruct.calibration.conformal import Guarantee, guaranteed_cut, least_to_pass
from safer_instruct.calibration.fit import LEAST_OF_EACH, Cut, Fit, Interval, Method, cut_for_precision, describe_cut, fit
from safer_instruct.calibration.labels import Label, count_rows, digest, joined, of_texts, read_examples, read_labels
from safer_instruct.config import RunConfig
from safer_instruct.errors import ConfigError, RunDirectoryError
from safer_instruct.settings.scoremap import MarginMap
from safer_instruct.thresholds import BY_ITSELF, JUDGED_BY, KEYS, REWARD_KEY, Calibration, is_calibrated
from safer_instruct.wholefile import write_whole

CALIBRATION = "calibration.yaml"


@dataclass(frozen=True, slots=True)
class Aim:
    """What a bound is to give.

    Attributes:
        precision: Share of good ones among the kept, as estimated.
        max_bad: Instead: a share of bad ones that is not to be passed, with `confidence`.
        confidence: Of that guarantee.
    """

    precision: float = 0.9
    max_bad: float | None = None
    confidence: float = 0.95

    @property
    def described(self) -> str:
        """In words."""
        if self.max_bad is None:
            return f"precision of at least {self.precision:g}"
        return f"at most {self.max_bad:g} bad with {self.confidence:g} confidence"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What labels say of one score.

    Attributes:
        name: Of the verdict.
        key: Of the config that bounds it; empty where none does.
        fit: How well it separates; None where there are too few labels of a kind.
        cut: The bound that the aim asks for; None where there is none.
        guarantee: The test that the bound passed, for an aim with `max_bad`.
    """

    name: str
    key: str
    fit: Fit | None
    cut: Cut | None = None
    guarantee: Guarantee | None = None

    @property
    def tells(self) -> bool:
        """Whether it tells good from bad by these labels; one that does not gets its bound written only where somebody names it."""
        return self.fit is not None and self.fit.tells


@dataclass(frozen=True, slots=True)
class Calibrations:
    """What labels say of a run.

    Attributes:
        scores: All that its verdicts carry.
        chosen: Those whose bounds are written.
        labels: What they are.
        margin: How the margins of pairs follow from a score; None where they cannot.
        raw_because: Why not.
        after_another: Whether the run was made with bounds that labels gave before.
    """

    scores: tuple[Calibrated, ...]
    chosen: tuple[Calibrated, ...]
    labels: dict[str, str | int]
    margin: MarginMap | None = None
    raw_because: str = ""
    after_another: bool = False


def calibrate(path: Path, labels: Path, aim: Aim, *, method: Method = "auto", names: Sequence[str] = ()) -> Calibrations:
    """Fit every score of a finished run to labels.

    Args:
        path: The run directory.
        labels: A CSV file: id, label and, if wanted, score.
        aim: What a bound is to give.
        method: How a score is turned into a probability.
        names: Scores that are to get a bound; by default, of those that tell good from bad by these labels, the one whose bound loses the
            fewest good examples. Bounds add up: with two of them more is lost than each says.

    Raises:
        ConfigError: The labels cannot be used, or a name is none of a labelled score that has a key.
        RunDirectoryError: There is no finished run.
        MissingExtraError: The extra `calibrate` is not installed.
    """
    examples, given = read_examples(path), read_labels(labels)
    said = of_texts(examples, given)
    if given and not said:
        raise ConfigError(f"{labels}: all of its {len(given)} labels are of texts that the run no longer holds; label them anew: --sheet NEW.csv")
    found = joined(examples, said, labels)
    resolved = _resolved(path)
    form = resolved["config"]["verify"]["form"]
    keys = _keys(form)
    scores = tuple(_calibrated(name, keys.get(name, ""), rows, aim, method) for name, rows in sorted(found.items()))
    if not any(score.fit for score in scores):
        there = {name for example in examples for name in example.scores}
        raise ConfigError(_too_few(labels, said, len(given) - len(said), there))
    possible = {score.name: score for score in scores if score.cut and score.key}
    if unknown := [name for name in names if name not in possible]:
        raise ConfigError(f"'{unknown[0]}' gets no bound: {_why_not(unknown[0], scores, aim)}")
    best = sorted((score for score in possible.values() if score.tells), key=lambda s: (-_recall(s), s.name))[:1]
    used = {id_ for rows in found.values() for id_, _, _ in rows}
    described: dict[str, str | int] = {"file": os.path.relpath(labels, path), "sha256": digest(labels)}
    described |= {"used": len(used), "of_replaced_texts": len(given) - len(said)}
    margin, why = _margin(scores, form, resolved.get("models") or {})
    chosen = tuple(possible[name] for name in names) or tuple(best)
    return Calibrations(scores, chosen, described, margin, why, after_another=is_calibrated(rundir.read_summary(path)))


def write_calibration(found: Calibrations, aim: Aim, target: Path) -> Path | None:
    """Write the bounds, and what was found about each score, for `calibration: PATH` in a config.

    Returns:
        Where a calibration that the run was made with lies now, if `target` was it, and in a run directory.
    """
    data = {
        "labels": found.labels,
        "aim": aim.described,
        "thresholds": {score.key: round(score.cut.threshold, 6) for score in found.chosen if score.cut},
        "margin": found.margin.model_dump(mode="json") if found.margin else None,
        "raw_because": found.raw_because,
        "maps": {score.name: score.fit.map.model_dump(mode="json", exclude_defaults=True) for score in found.scores if score.fit},
        "scores": {score.name: _plain(score) for score in found.scores},
    }
    how = "# Written by 'safer-instruct calibrate'; a config takes the thresholds over with: calibration: PATH of this file, from the config's folder\n"
    text, kept = how + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120), None
    if target.is_file() and (before := target.read_text(encoding="utf-8")) != text and _in_use(before, target.parent):
        kept = next(file for number in count(1) if not (file := target.with_stem(f"{target.stem}-{number}")).exists())
        write_whole(kept, before)
    write_whole(target, text)
    return kept


def _in_use(text: str, run: Path) -> bool:
    """Whether the run was made with the calibration of this text."""
    try:
        return bool(rundir.read_summary(run)["thresholds"] == yamlfile.parse(text, Calibration, name=CALIBRATION).described)
    except (ConfigError, RunDirectoryError):
        return False


def check_config(config: Path) -> None:
    """That `point_config_at` can be given this config; the calibration that it names so far may be gone.

    Raises:
        ConfigError: It is missing, or no valid config of a run.
    """
    yamlfile.load(config, RunConfig)


def point_config_at(config: Path, target: Path) -> None:
    """Set `calibration:` in a config to `target`; every other line stays as it is, comments too.

    Raises:
        ConfigError: The config cannot be read.
    """
    text = yamlfile.text_of(config)
    relative = os.path.relpath(target, config.parent)
    line = f"calibration: {json.dumps(relative, ensure_ascii=False)}"
    changed, count = re.subn(r"^calibration:[^\n]*$", lambda _: line, text, count=1, flags=re.M)
    if not count:
        changed = f"{text.rstrip()}\n{line}\n"
    write_whole(config, changed)


def read_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ConfigError: There is none.
    """
    found = next((method for method in get_args(Method) if method == name), None)
    if found is None:
        raise ConfigError(f"'{name}' is no method; choose one of {', '.join(get_args(Method))}")
    return cast(Method, found)


def _calibrated(name: str, key: str, rows: Sequence[tuple[str, float, bool]], aim: Aim, method: Method) -> Calibrated:
    values, good = [value for _, value, _ in rows], [label for _, _, label in rows]
    if min(sum(good), len(good) - sum(good)) < LEAST_OF_EACH:
        return Calibrated(name, key, None)
    fitted = fit(values, good, method)
    if not key:  # a bound from below that no config could take
        return Calibrated(name, key, fitted)
    if aim.max_bad is None:
        return Calibrated(name, key, fitted, cut_for_precision(values, good, aim.precision))
    guarantee = guaranteed_cut(values, good, aim.max_bad, aim.confidence)
    return Calibrated(name, key, fitted, describe_cut(values, good, guarantee.threshold) if guarantee else None, guarantee)


def _resolved(path: Path) -> dict[str, Any]:
    """What `run.yaml` says; at least `config.verify.form` is there."""
    try:
        resolved: dict[str, Any] = yaml.safe_load((path / rundir.RUN).read_text(encoding="utf-8"))
        str(resolved["config"]["verify"]["form"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as exc:
        raise rundir.unreadable(path / rundir.RUN, exc) from exc
    return resolved


def _keys(form: str) -> dict[str, str]:
    """Score -> key of the config, as that form of verification has it."""
    gates = {name: key for name, key in KEYS.items() if not name.startswith("verify.")}
    of_form = {
        "contrast": {name: key for name, key in KEYS.items() if name.startswith("verify.")},
        "reward": {"verify.acceptable": REWARD_KEY, "verify.better": KEYS["verify.better"]},
    }
    return gates | of_form.get(form, {})


def _margin(scores: Sequence[Calibrated], form: str, models: Mapping[str, str]) -> tuple[MarginMap | None, str]:
    """How margins follow from a score, or why they stay the verifier's own."""
    role = JUDGED_BY.get(form)
    if role is None:
        return None, f"verify.form '{form}' gives no score to a response by itself, so there is none of the rejected one"
    found = next((score.fit for score in scores if score.name == BY_ITSELF), None)
    if found is None:
        return None, f"fewer than {LEAST_OF_EACH} labels of '{BY_ITSELF}' say good, or bad"
    if not found.tells:
        return None, f"the AUC of '{BY_ITSELF}' may be that of chance"
    if role not in models:
        return None, f"the run does not say which model '{role}' was; give its 'run' command again to write that anew"
    return MarginMap.model_validate({"score": BY_ITSELF, "form": form, "model": models[role], "labels": found.count}), ""


def _too_few(file: Path, labels: Sequence[Label], replaced: int, scores: Collection[str]) -> str:
    if unknown := sorted({label.score for label in labels} - {"", *scores}):
        return f"{file}: the run has no score '{unknown[0]}', which a label names; there are: {', '.join(sorted(scores))}"
    good = sum(label.good for label in labels)
    gone = f"; {replaced} more labels are left out: the run no longer holds the texts that were read" if replaced else ""
    carried = f"{good} good and {len(labels) - good} bad of {count_rows(file)} rows carry a label, and no score has {LEAST_OF_EACH} good and"
    least = f"{carried} {LEAST_OF_EACH} bad, the least that there must be; 100 labels tell something"
    return f"{file}: {least}; label more examples of the run (--sheet writes some to label){gone}"


def _recall(score: Calibrated) -> float:
    return score.cut.recall[0] if score.cut else 0.0


def _why_not(name: str, scores: Sequence[Calibrated], aim: Aim) -> str:
    score = next((s for s in scores if s.name == name), None)
    if score is None:
        return f"no labelled example has such a score; there are: {', '.join(s.name for s in scores)}"
    if score.fit is None:
        return f"fewer than {LEAST_OF_EACH} of its labels say good, or bad"
    if not score.key:
        return f"a calibration bounds it from below by no key of the config; it can bound: {', '.join(s.name for s in scores if s.key)}"
    if aim.max_bad is not None:
        least = least_to_pass(aim.max_bad, aim.confidence)
        return f"none passes the test; it takes at least {least} labelled examples that are all good above the bound"
    return f"none reaches a precision of {aim.precision:g}"


def _plain(score: Calibrated) -> dict[str, Any]:
    """For people: what the labels say of one score."""
    plain: dict[str, Any] = {"key": score.key or None}
    if score.fit:
        plain |= {
            "labels": score.fit.count,
            "good": score.fit.good,
            "method": score.fit.map.method,
            "probability_at": [list(point) for point in score.fit.curve],
        }
        plain |= {"auc": _interval(score.fit.auc), "calibration_error": _interval(score.fit.ece)}
    if score.cut:
        plain |= {"threshold": round(score.cut.threshold, 6), "kept": score.cut.kept}
        plain |= {"precision": _interval(score.cut.precision), "recall": _interval(score.cut.recall)}
    if score.guarantee:
        plain |= {"bad_among_kept": score.guarantee.bad, "most_bad": score.guarantee.most_bad}
    return plain


def _interval(interval: Interval) -> dict[str, float | None]:
    value, low, high = (None if math.isnan(v) else v for v in interval)
    return {"value": value, "low": low, "high": high}
