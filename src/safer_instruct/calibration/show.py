"""What a calibration found, as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from safer_instruct.calibration.calibrate import Aim, Calibrations
from safer_instruct.calibration.fit import LEAST_OF_EACH, Interval
from safer_instruct.terminal import safe
from safer_instruct.thresholds import CHANCE, load_calibration


def show_calibrations(console: Console, found: Calibrations, aim: Aim) -> None:
    """One row per score; below, what was chosen and what stands in the way of more."""
    table = Table(
        title=f"{found.labels['used']} labelled examples; threshold for: {aim.described}; below each value its 95% interval, below a bound how many it keeps",
        title_justify="left",
    )
    table.box, table.pad_edge = None, False  # with frames the names of scores do not fit into 80 columns
    for heading in ("score", "good", "AUC", "ECE", "bound", "precision", "recall"):
        table.add_column(heading, justify="left" if heading == "score" else "right", no_wrap=heading == "score")
    for score in found.scores:
        if score.fit is None:
            table.add_row(safe(score.name), "", f"fewer than {LEAST_OF_EACH} good or bad", "", "", "")
            continue
        cut = ["none" if score.key else "", "", ""]
        if score.cut:
            cut = [f"{score.cut.threshold:+.4f}\nkeeps {score.cut.kept}", _shown(score.cut.precision), _shown(score.cut.recall)]
        table.add_row(safe(score.name), f"{score.fit.good}/{score.fit.count}", _shown(score.fit.auc), _shown(score.fit.ece), *cut)
    console.print(table)
    if gone := found.labels["of_replaced_texts"]:
        anew = "a sheet that has the others, to label them anew: --sheet NEW.csv --labels OLD.csv"
        console.print(safe(f"{gone} labels are left out: the run no longer holds the texts that were read; {anew}"))
        if found.after_another:
            biased = "the bounds of an earlier calibration had such texts written anew, so the labels that are left are no fair sample of them"
            console.print(safe(biased), style="yellow", soft_wrap=True)
    console.print("ECE: expected calibration error of the probability fitted to the score", style="dim")
    if reversed_ := [score.name for score in found.scores if score.fit and score.fit.auc[2] < CHANCE]:
        console.print(safe(f"higher is worse by these labels (are good and bad the right way round?), so no bound from below helps: {', '.join(reversed_)}"))
    if by_chance := [score.name for score in found.scores if score.fit and not score.tells and score.name not in reversed_]:
        console.print(safe(f"AUC may be that of chance, so do not filter by it on the strength of these labels: {', '.join(by_chance)}"))
    for score in found.scores:
        if score.guarantee:
            counted = f"{score.guarantee.bad} of {score.guarantee.kept} kept are bad"
            console.print(safe(f"{score.name}: {counted}, so at most {score.guarantee.most_bad:.1%} of such with {aim.confidence:.0%} confidence"))
    by = f"the difference of the probabilities fitted to {found.margin.score}" if found.margin else f"the verifier's own: {found.raw_because}"
    console.print(safe(f"margin of a pair: {by}"))
    for score in found.chosen:
        if score.cut and score.fit:
            console.print(
                safe(f"chosen: {score.key}: {score.cut.threshold:+.6f} (a bound on {score.name}; it keeps {score.cut.kept} of the {score.fit.count} labelled)"),
                soft_wrap=True,
            )
    if not found.chosen:
        console.print(safe(_why_none(found)), soft_wrap=True)


def no_longer_bounded(before: Path, found: Calibrations) -> Iterator[str]:
    """The bounds of the calibration in `before` that a new one does not set, in sentences, with what would keep them."""
    score_of = {score.key: score.name for score in found.scores if score.key}
    chosen = {score.key for score in found.chosen}
    named = "".join(f"--score {score.name} " for score in found.chosen)
    for key, value in load_calibration(before).thresholds.items():
        if key not in chosen:
            remedy = f"; to bound it, too: {named}--score {score_of[key]}" if key in score_of else ""
            yield f"no longer set: {key}, {value:+.6f} so far; it goes back to the config's own{remedy}"


def _why_none(found: Calibrations) -> str:
    passed_over = [f"--score {score.name}" for score in found.scores if score.cut and score.key and score.fit and score.fit.auc[2] >= CHANCE]
    if not passed_over:
        return "no score reaches that with a bound that a config can set: label more, ask for less, or use a stronger judge"
    by_name = f"label more, or name one all the same ({' or '.join(passed_over)})"
    return f"nothing was chosen: no score that a config can bound reaches that and tells good from bad by these labels; {by_name}"


def _shown(interval: Interval) -> str:
    value, low, high = interval
    return "" if math.isnan(value) else f"{value:.3f}\n{low:.2f}-{high:.2f}"
