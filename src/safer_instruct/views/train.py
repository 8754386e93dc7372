"""Training on preferences, shown on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from safer_instruct.bars import watched
from safer_instruct.oneline import calls_words, many
from safer_instruct.terminal import safe, show_rehearsal, tell_training, training_news

if TYPE_CHECKING:
    from safer_instruct.settings.preference import PreferenceConfig, PreferenceSource
    from safer_instruct.training.data import Divided
    from safer_instruct.training.result import TrainResult
    from safer_instruct.training.value import Value
    from safer_instruct.tuning.progress import Progress
    from safer_instruct.tuning.rehearse import Rehearsal

_SHOWN = {"margin": "margin", "accuracy": "accuracy", "chosen_drift": "drift chosen", "rejected_drift": "drift rejected", "kl": "KL"}

_LEFT_OUT = {"set_aside": "rows set aside", "duplicates": "duplicates", "straddling": "too like a held-out pair", "beyond": "beyond max_pairs"}


@contextmanager
def watch_training(console: Console) -> Iterator[tuple[Callable[[Progress], None], Callable[[int, int], None]]]:
    """Yields `report` and `note` for `train_preferences`: a bar with loss, margin and accuracy, and a line at each evaluation."""
    with watched(console, "opening the model, then the held-out loss before training") as told:

        def note(done: int, of: int) -> None:
            if done < of:
                told.tell(done, of, doing="reference")
            else:
                told.tell(0, None, doing="held-out evaluation before training")

        def report(progress: Progress) -> None:
            tell_training(console, told, progress, "training", training_news(progress) + _figures(progress.figures))
            if progress.held_out:
                console.print(
                    f"step {progress.step}: held-out loss {progress.held_out.loss:.4f}{_figures(progress.held_out.figures)}", highlight=False, soft_wrap=True
                )

        yield report, note


def show_trained(console: Console, result: TrainResult, config: PreferenceConfig) -> None:
    """The held-out figures before and after, whether they can be told from rounding, and what was written."""
    from safer_instruct.settings.preference import REFERENCE_FREE, DpoConfig
    from safer_instruct.training.result import hidden_by_rounding

    show_divided(console, result.divided)
    took = "" if result.already else f", in {result.seconds:.0f} s with set-up and evaluations"
    console.print(f"{many(result.steps, 'step')}{took}; kept: step {result.best.step}", highlight=False)
    table = Table()
    for heading in ("held out", "at the start", "kept"):
        table.add_column(heading, justify="left" if heading == "held out" else "right")
    table.add_row("loss", f"{result.before.loss:.4f}", f"{result.best.loss:.4f}")
    for name, value in result.best.figures.items():
        table.add_row(name.replace("_", " "), f"{result.before.figures[name]:.4f}", f"{value:.4f}")
    console.print(table)
    refers = isinstance(config, DpoConfig) and config.loss not in REFERENCE_FREE
    if refers and (hidden := hidden_by_rounding(result.before.figures, result.best.figures)):
        console.print(f"mind: {hidden}", style="yellow", highlight=False, soft_wrap=True)
    if result.best.step == result.before.step:
        console.print("no evaluation was better than the start, so nothing was learned that is kept: lower learning_rate, or look at the pairs", style="yellow")
    if result.already:
        console.print(safe(f"finished already: {result.out}; nothing was trained (--fresh moves it aside and trains anew)"), soft_wrap=True, highlight=False)
        return
    console.print(safe(f"written to {result.out}: the weights, README.md, tuning.json, training.jsonl, curves.svg"), soft_wrap=True, highlight=False)


def show_dry_run(console: Console, config: PreferenceConfig, divided: Divided, found: Rehearsal) -> None:
    """What a training will take."""
    from safer_instruct.settings.preference import DpoConfig

    show_divided(console, divided)
    show_rehearsal(console, found, config.epochs, "set-up and reference come" if isinstance(config, DpoConfig) else "set-up comes")


def show_parts(console: Console, sources: Sequence[PreferenceSource], base: Path) -> None:
    """Of folders that are divided into splits which one is read, and which are not."""
    from safer_instruct.training.preferences import passed_over

    for source in sources:
        if others := passed_over(source, base):
            told = f"{source.path}: only the split '{source.split}' is read, not {', '.join(others)}"
            console.print(safe(told), highlight=False, soft_wrap=True)


def show_divided(console: Console, divided: Divided) -> None:
    """What became of the pairs, the first rows that were set aside, and what was cut."""
    counts = divided.counts()
    left_out = ", ".join(f"{counts[name]} {text}" for name, text in _LEFT_OUT.items() if counts[name])
    console.print(
        f"{many(counts['train'], 'pair')} to train on, {counts['held_out']} held out{f' (left out: {left_out})' if left_out else ''}", highlight=False
    )
    for row in divided.bad_rows[:3]:
        console.print(safe(f"  {row.file}:{row.line}: set aside: {row.reason}"), style="dim", soft_wrap=True)
    for line in divided.cut.told() if divided.cut else ():
        console.print(line, style="yellow", soft_wrap=True, highlight=False)


@contextmanager
def watch_scoring(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yields `tick` for `value_pairs`: a bar with responses scored and time left."""
    with watched(console, "scoring") as told:
        yield told.tell


def show_value(console: Console, found: Value, file: Path) -> None:
    """Each indicator with what it means, and a warning where it is bad."""
    console.print(f"{many(found.pairs, 'pair')} ({found.duplicates} more were duplicates, {many(len(found.set_aside), 'row')} set aside)", highlight=False)
    for row in found.set_aside[:3]:
        console.print(safe(f"  {row.file}:{row.line}: set aside: {row.reason}"), style="dim", soft_wrap=True)
    if found.unscored:
        console.print(f"{many(found.unscored, 'pair')} could not be scored by this model: left out of the margins", style="yellow")
    for indicator in found.indicators:
        console.print(f"[bold]{indicator.name}[/bold]: {indicator.value}", highlight=False)
        console.print(f"  {indicator.means}", highlight=False, style="dim")
        if indicator.warning:
            console.print(f"  warning: {indicator.warning}", highlight=False, style="yellow")
    console.print(safe(f"{calls_words(found.calls, found.from_ledger, found.repeated)}; {file}"), soft_wrap=True, highlight=False)


def _figures(found: Mapping[str, float]) -> str:
    return "".join(f"  {label} {found[name]:.3f}" for name, label in _SHOWN.items() if name in found)
