"""What preference pairs are worth, told without training: what a model thinks of them beforehand, and how varied they are.

Every indicator comes with a sentence on what it means, and with a warning where it is bad. The bounds of the warnings are rules of thumb.
`INDICATORS` lists what is worked out; one more is one more function there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from safer_instruct.analysis.diversity import hashed, near_clusters, self_bleu, vendi
from safer_instruct.analysis.proportion import wilson
from safer_instruct.analysis.style import LEAST_PAIRS, length_gap_of, separability
from safer_instruct.config import BudgetConfig, ModelConfig
from safer_instruct.detect.words import words
from safer_instruct.errors import MissingExtraError, ModelError, RequestError, RunDirectoryError
from safer_instruct.evaluation.sitting import OpenModels, check_folder, gathered, held_ledger
from safer_instruct.ledger import Meter
from safer_instruct.models.protocol import Scored, Scoring
from safer_instruct.running import run_to_end
from safer_instruct.settings.preference import PreferenceSource
from safer_instruct.sources import BadRow
from safer_instruct.storage.address import is_remote
from safer_instruct.training.data import draw, laid_out, read_unique
from safer_instruct.training.preferences import Preference
from safer_instruct.wholefile import write_whole

VALUE = "value.json"
_STYLE_TELLS = 0.8  # an AUC
_NAMED_ALIKE = re.compile(r"(train|training|test|validation|valid|val|eval|evaluation|dev|pairs)(-\d+-of-\d+)?")  # files of many sets
_VARIED_OVER = 500  # texts: self-BLEU and the Vendi score grow with their number, so sets are compared at one
Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Indicator:
    """One thing about a set of pairs.

    Attributes:
        name: What is measured.
        value: The figure, as people read it.
        number: The figure itself.
        means: What it says of the set, in a sentence.
        warning: What is wrong and what to do, where it is bad; empty otherwise.
    """

    name: str
    value: str
    number: float
    means: str
    warning: str = ""


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A pair with the log-probability of each token of its responses under the reference model, given the prompt, in nats."""

    pair: Preference
    chosen: tuple[float, ...]
    rejected: tuple[float, ...]

    @property
    def margin(self) -> float:
        """Log p(chosen | prompt) - log p(rejected | prompt)."""
        return sum(self.chosen) - sum(self.rejected)

    @property
    def margin_per_token(self) -> float:
        """The same of means per token."""
        return fmean(self.chosen) - fmean(self.rejected)


@dataclass(frozen=True, slots=True)
class Value:
    """What was found.

    Attributes:
        indicators: Each with its meaning.
        pairs: Looked at.
        unscored: Of these, what the model could not score, because they are too long for it, say.
        set_aside: Rows that gave no pair.
        duplicates: Pairs that came again.
        calls: Model calls made.
        from_ledger: Of these, those that the ledger had the answers of before this sitting.
        repeated: Of these, those that are equal to another one of this sitting, and took its answer.
    """

    indicators: tuple[Indicator, ...]
    pairs: int
    unscored: int
    set_aside: tuple[BadRow, ...]
    duplicates: int
    calls: int
    from_ledger: int
    repeated: int


def value_pairs(
    source: PreferenceSource,
    base: Path,
    model: ModelConfig,
    out: Path,
    *,
    limit: int | None = None,
    layout: str = "chat",
    system: str | None = None,
    max_cost: float | None = None,
    tick: Tick = lambda done, of: None,
) -> Value:
    """Tell what the pairs of `source` are worth; every call goes through a ledger in `out`, and the result into `value.json` there.

    Args:
        source: Where the pairs are.
        base: What paths are relative to.
        model: The reference: the model that is to be trained, or one like it. It must be able to score.
        out: A folder.
        limit: Look at so many pairs, drawn by their own hash.
        layout: As in `PreferenceConfig`.
        system: As in `PreferenceConfig`.
        max_cost: US dollars that calls to a remote model may take, over all sittings in `out`.
        tick: Is told how many responses are scored, and of how many.

    Raises:
        SourceError: There is no usable pair.
        RunDirectoryError: `out` is no folder, or holds a run, a training, a `value.json` of something else, or the value of another set.
        ModelError: The model failed, or cannot score.
        BudgetError: `max_cost` is reached.
    """
    check_folder(out, VALUE)
    named = _named_from(out, source.path, base)
    _check_set(out, named)
    pairs, duplicates, bad = read_unique((source,), base)
    pairs = draw(pairs, limit)
    out.mkdir(parents=True, exist_ok=True)
    scored, meter = run_to_end(_score(pairs, base, model, out, layout, system, max_cost, tick))
    found = tuple(indicator for work_out in INDICATORS for indicator in work_out(pairs, scored))
    result = Value(found, len(pairs), len(pairs) - len(scored), bad, duplicates, meter.calls, meter.from_ledger, meter.repeated)
    record: dict[str, Any] = {"set": named, "model": model.model, "adapter": model.adapter, "layout": layout}
    record |= {"pairs": result.pairs, "unscored": result.unscored}
    record |= {"set_aside": len(bad), "duplicates": duplicates, "indicators": [asdict(i) for i in found]}
    write_whole(out / VALUE, json.dumps(record, indent=1) + "\n")
    return result


def default_folder(pairs: str) -> Path:
    """Where the value of a set goes unless something else is said, by its name; with its folder's before it where many sets' files are called so."""
    path = Path(pairs).resolve()
    before = f"{path.parent.name}-" if path.parent.name and _NAMED_ALIKE.fullmatch(path.stem) else ""
    return Path("runs") / f"{before}{path.stem}-value"


def margins(pairs: Sequence[Preference], scored: Sequence[ScoredPair]) -> list[Indicator]:
    """What the model thinks of the pairs as it stands, which is the reference of a training that starts from it."""
    if not scored:
        return []
    per_token = [s.margin_per_token for s in scored]
    sums = [s.margin for s in scored]
    right = fmean(value > 0 for value in per_token)
    bounds = wilson(sum(value > 0 for value in per_token), len(per_token))
    share = f"{right:.0%} ({bounds.low:.0%} to {bounds.high:.0%})"
    return [
        Indicator(
            "reference prefers the chosen",
            share,
            right,
            "Share of pairs whose chosen response the model finds likelier per token: training it on what it already agrees with teaches it little.",
            _agreement_warning(right),
        ),
        Indicator(
            "margin per token",
            f"{fmean(per_token):+.3f} nats, median {median(per_token):+.3f}",
            fmean(per_token),
            "log p(chosen | prompt) - log p(rejected | prompt), means per token: how far the model has to be moved, and in which direction.",
            "the responses are far apart in likelihood, which style alone can do: DPO may learn the style; look at style separability, or do SFT first"
            if abs(fmean(per_token)) > 1.5
            else "",
        ),
        Indicator(
            "margin, sum",
            f"{fmean(sums):+.1f} nats, median {median(sums):+.1f}",
            fmean(sums),
            "The same of sums, as DPO sees it: it contains the difference in length.",
            _sum_warning(fmean(sums), fmean(per_token)),
        ),
    ]


def lengths(pairs: Sequence[Preference], scored: Sequence[ScoredPair]) -> list[Indicator]:
    """Whether length alone tells the sides apart."""
    chosen, rejected = ([len(words(text)) for text in side] for side in ([p.response for p in pairs], [p.rejected for p in pairs]))
    gap = length_gap_of(chosen, rejected)
    longer = gap.longer + (1 - gap.longer - gap.shorter) / 2
    warning = ""
    if not 0.2 <= longer <= 0.8:
        which = "longer" if longer > 0.8 else "shorter"
        warning = (
            f"whoever takes the {which} response is right in {max(longer, 1 - longer):.0%} of the pairs: a model may learn to write {which} answers and no more"
        )
    return [
        Indicator(
            "chosen is the longer one",
            f"{longer:.0%}; median {gap.chosen:g} words against {gap.rejected:g}",
            longer,
            "Share of pairs whose chosen response has more words, ties counted half: near 50% length teaches nothing.",
            warning,
        )
    ]


def variety(pairs: Sequence[Preference], scored: Sequence[ScoredPair]) -> list[Indicator]:
    """How varied prompts and responses are."""
    sample = draw(pairs, _VARIED_OVER)
    found = []
    for name, texts in (
        ("prompts", [p.prompt for p in sample]),
        ("chosen responses", [p.response for p in sample]),
        ("rejected responses", [p.rejected for p in sample]),
    ):
        bleu, effective = self_bleu(texts), vendi(hashed(texts))
        warning = f"the {name} resemble each other in wording: what is learned from them may not carry over to other words" if bleu > 0.6 else ""
        means = (
            f"How alike the wording of {len(texts)} {name} is, 0 to 1, and how many different ones they amount to by the words that they share (Vendi score)."
        )
        found.append(Indicator(f"self-BLEU of {name}", f"{bleu:.2f}, as varied as {effective:.0f} unlike texts", bleu, means, warning))
    clusters = near_clusters([p.prompt for p in pairs])
    share = (clusters.clustered - len(clusters.sizes)) / len(pairs)
    warning = (
        f"{clusters.clustered - len(clusters.sizes)} prompts are near-duplicates of others: 'safer-instruct select' leaves them out" if share > 0.05 else ""
    )
    found.append(
        Indicator(
            "near-duplicate prompts",
            f"{share:.0%}",
            share,
            "Share of prompts that could go because another is nearly the same (Jaccard of word trigrams 0.7).",
            warning,
        )
    )
    return found


def style_only(pairs: Sequence[Preference], scored: Sequence[ScoredPair]) -> list[Indicator]:
    """Whether a classifier that knows no word tells the sides apart; nothing where there are few pairs, or no scikit-learn."""
    if len(pairs) < LEAST_PAIRS:
        return []
    try:
        told = separability([p.prompt for p in pairs], [p.response for p in pairs], [p.rejected for p in pairs])
    except MissingExtraError:
        return []
    auc, telling = told.auc, ", ".join(name for name, _ in told.telling[:3])
    warning = f"style gives the sides away ({telling}): a model may learn the form and no more" if auc.estimate > _STYLE_TELLS else ""
    return [
        Indicator(
            "told apart by style alone",
            f"AUC {auc.estimate:.2f} ({auc.low:.2f} to {auc.high:.2f})",
            auc.estimate,
            "How well length, layout and punctuation alone tell chosen from rejected, on pairs not fitted to: 0.5 is chance.",
            warning,
        )
    ]


INDICATORS: tuple[Callable[[Sequence[Preference], Sequence[ScoredPair]], list[Indicator]], ...] = (margins, lengths, style_only, variety)


def _named_from(out: Path, pairs: str, base: Path) -> str:
    """The set as `value.json` names it: by its path from there, which holds wherever both are moved together, or by its address."""
    return pairs.rstrip("/") if _is_elsewhere(pairs) else os.path.relpath((base / pairs).resolve(), out.resolve())


def _is_elsewhere(pairs: str) -> bool:
    return pairs.startswith("hf:") or is_remote(pairs)


def _check_set(out: Path, named: str) -> None:
    """That a folder does not hold the value of another set.

    Raises:
        RunDirectoryError: It does.
    """
    try:
        there = str(json.loads((out / VALUE).read_text(encoding="utf-8"))["set"])
    except (OSError, ValueError, KeyError, TypeError):  # not there, or older than the name in it
        return
    if there != named:
        other = there if _is_elsewhere(there) else os.path.relpath((out.resolve() / there).resolve())
        raise RunDirectoryError(f"{out / VALUE} is the value of other pairs, {other}; choose another --out for these, or move that file away")


def _agreement_warning(right: float) -> str:
    if right > 0.9:
        return f"the model prefers the chosen response in {right:.0%} of the pairs already: DPO has little left to teach it on these"
    if right < 0.1:
        return f"the model prefers the rejected response in {1 - right:.0%} of the pairs: the chosen ones are unlike what it writes; train sft on them first"
    return ""


def _sum_warning(total: float, per_token: float) -> str:
    if total * per_token < 0 and abs(total) > 5:
        return "sums and means point in opposite directions: the difference in length outweighs that in likelihood; 'loss: ipo' or 'simpo' goes by means"
    return ""


async def _score(
    pairs: Sequence[Preference], base: Path, which: ModelConfig, out: Path, layout: str, system: str | None, max_cost: float | None, tick: Tick
) -> tuple[list[ScoredPair], Meter]:
    done = 0
    async with AsyncExitStack() as stack:
        ledger = stack.enter_context(held_ledger(out))
        models = OpenModels(out, ledger, stack, models=[which], base=base, budget=BudgetConfig(max_cost=max_cost), prices=None)
        model = models.open(which, "value")

        async def one(request: Scoring) -> Scored | None:
            nonlocal done
            try:
                found: Scored | None = await model.score(request)
            except RequestError:  # too long for this model, say
                found = None
            done += 1
            tick(done, 2 * len(pairs))
            return found

        requests = [Scoring(laid_out(pair, layout, system), text) for pair in pairs for text in (pair.response, pair.rejected)]
        answers = await gathered(one, requests, model.concurrency)
    both = zip(pairs, answers[::2], answers[1::2], strict=True)
    scored = [ScoredPair(pair, a.logprobs, b.logprobs) for pair, a, b in both if a and b and a.logprobs and b.logprobs]
    if not scored:
        raise ModelError(
            f"model '{which.model}' could score none of the {len(pairs)} pairs; take one that gives log-probabilities of prompts, such as the embedded one"
        )
    return scored, models.used()
