"""Figures with confidence intervals, from what the systems wrote and scored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safer_instruct.analysis.bootstrap import Bootstrap, Interval
from safer_instruct.analysis.similarity import chrf, copied_share, distinct, rouge_l
from safer_instruct.embed import Embedder
from safer_instruct.evaluation.inducer.calls import Induced, Ranks
from safer_instruct.example import Example
from safer_instruct.filters.checks import Check, check_all
from safer_instruct.tuning.pairs import Pair


@dataclass(frozen=True, slots=True)
class SystemFigures:
    """One system's figures; None where its model does not tell, or where the figure makes no sense.

    Attributes:
        rank: Round trip, by log p(response | instruction): mean rank of the true response.
        mrr: Mean reciprocal rank.
        top1: Share ranked first.
        gain_rank: Round trip, by log p(response | instruction) - log p(response): mean rank.
        gain_mrr: Mean reciprocal rank by gain.
        gain_top1: Share ranked first by gain.
        nll: Mean negative log-likelihood per token of the true instruction, its end token left out, in nats.
        perplexity: exp(nll).
        nats: Mean negative log-likelihood of a whole instruction: comparable between models with different tokens.
        chrf: chrF2 against the true instruction, 0 to 100.
        rouge_l: ROUGE-L F1 against it, 0 to 1.
        cosine: Of the vectors of both under an embedder, -1 to 1; None without one.
        copied: Share of the instruction's words in runs of three or more taken from the response.
        length_ratio: Words written over words of the true instructions.
        invalid: Share that is empty, cut, or stopped by a filter.
        distinct_1: Different words over words, all instructions together; no interval, as a resample repeats texts.
        distinct_2: The same of word pairs.
        invalid_by: Reason -> count.
    """

    rank: Interval
    mrr: Interval
    top1: Interval
    gain_rank: Interval
    gain_mrr: Interval
    gain_top1: Interval
    nll: Interval | None = None
    perplexity: Interval | None = None
    nats: Interval | None = None
    chrf: Interval | None = None
    rouge_l: Interval | None = None
    cosine: Interval | None = None
    copied: Interval | None = None
    length_ratio: Interval | None = None
    invalid: Interval | None = None
    distinct_1: float | None = None
    distinct_2: float | None = None
    invalid_by: dict[str, int] | None = None


def figures(
    pairs: Sequence[Pair], induced: Sequence[Induced], ranks: Sequence[Ranks], checks: Sequence[Check], bootstrap: Bootstrap, embedder: Embedder | None = None
) -> SystemFigures:
    """The figures of one system; everything is in the order of `pairs`."""
    texts = [item.text for item in induced]
    reasons = [why_invalid(item, pair, checks) for item, pair in zip(induced, pairs, strict=True)]
    by_text = list(zip(texts, pairs, strict=True))
    nll, perplexity, nats = _likelihood(induced, bootstrap)
    return replace(
        reference(ranks, bootstrap),
        nll=nll,
        perplexity=perplexity,
        nats=nats,
        chrf=bootstrap.mean([chrf(text, pair.prompt) for text, pair in by_text]),
        rouge_l=bootstrap.mean([rouge_l(text, pair.prompt) for text, pair in by_text]),
        cosine=bootstrap.mean(_cosines(texts, [pair.prompt for pair in pairs], embedder)) if embedder else None,
        copied=bootstrap.mean([copied_share(text, pair.response) for text, pair in by_text]),
        length_ratio=bootstrap.ratio([len(text.split()) for text in texts], [len(pair.prompt.split()) for pair in pairs]),
        invalid=bootstrap.mean([float(bool(reason)) for reason in reasons]),
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
        invalid_by=dict(Counter(reason for reason in reasons if reason).most_common()),
    )


def reference(ranks: Sequence[Ranks], bootstrap: Bootstrap) -> SystemFigures:
    """The true instructions' own round trip: what the forward model lets any inducer reach."""
    likely, gained = [rank.by_logprob for rank in ranks], [rank.by_gain for rank in ranks]
    return SystemFigures(
        rank=bootstrap.mean(likely),
        mrr=bootstrap.mean([1 / rank for rank in likely]),
        top1=bootstrap.mean([float(rank <= 1) for rank in likely]),
        gain_rank=bootstrap.mean(gained),
        gain_mrr=bootstrap.mean([1 / rank for rank in gained]),
        gain_top1=bootstrap.mean([float(rank <= 1) for rank in gained]),
    )


def why_invalid(item: Induced, pair: Pair, checks: Sequence[Check]) -> str:
    """Name of the first thing wrong with an instruction; empty for a valid one."""
    if not item.text:
        return "empty"
    if not item.finished:
        return "unfinished"
    verdicts = check_all(checks, Example("", pair.response, "", pair.file, pair.line, prompt=item.text, history=pair.history))
    return next((verdict.name for verdict in verdicts if not verdict.passed and not verdict.flag), "")


def _cosines(texts: Sequence[str], others: Sequence[str], embedder: Embedder) -> list[float]:
    return [float(one @ other) for one, other in zip(embedder.embed(texts), embedder.embed(others), strict=True)]


def _likelihood(induced: Sequence[Induced], bootstrap: Bootstrap) -> tuple[Interval | None, Interval | None, Interval | None]:
    known = [item.logprobs for item in induced if item.logprobs]
    if len(known) < len(induced):  # a mean over those that happened to be scored would flatter
        return None, None, None
    totals, counts = [-sum(logprobs) for logprobs in known], [float(len(logprobs)) for logprobs in known]
    nll = bootstrap.ratio(totals, counts)
    return nll, Interval(math.exp(nll.estimate), math.exp(nll.low), math.exp(nll.high)), bootstrap.mean(totals)


@dataclass(frozen=True, slots=True)
class Difference:
    """One system less another, paired by example: an interval without 0 is a difference that the sample bears out."""

    nll: Interval | None
    rank: Interval
    gain_rank: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        path: Where the report, the result and the ledger are.
        systems: Name -> figures, in the order of the plan; the true instruction's round trip last.
        differences: Name -> the system less the first one.
        induced: Name -> what it wrote, in the order of the plan's pairs.
        calls: Model calls in all.
        from_ledger: How many of them the ledger had the answers of before this sitting.
        repeated: How many of them are equal to another one of this sitting, and took its answer.
        cost: US dollars, of calls in this sitting and earlier ones; None where they are not known.
        seconds: Wall time of this sitting.
        calls_without_usage: How many of them were answered without a word on what they took, so that their cost is not known.
    """

    path: Path
    systems: dict[str, SystemFigures]
    differences: dict[str, Difference]
    induced: dict[str, tuple[str, ...]]
    calls: int
    from_ledger: int
    repeated: int
    cost: float | None
    seconds: float
    calls_without_usage: int = 0


def difference(mine: tuple[Sequence[Induced], Sequence[Ranks]], other: tuple[Sequence[Induced], Sequence[Ranks]], bootstrap: Bootstrap) -> Difference:
    """How the figures of `mine` differ from those of `other` on the same pairs; below 0 is better."""
    nll = None
    if all(item.logprobs for side, _ in (mine, other) for item in side):
        nll = bootstrap.interval(lambda indices: _nll(mine[0], indices) - _nll(other[0], indices))
    by_logprob, by_gain = (
        bootstrap.mean([getattr(a, way) - getattr(b, way) for a, b in zip(mine[1], other[1], strict=True)]) for way in ("by_logprob", "by_gain")
    )
    return Difference(nll, by_logprob, by_gain)


def _nll(induced: Sequence[Induced], indices: Sequence[int]) -> float:
    scored = [induced[i].logprobs or () for i in indices]
    return -sum(map(sum, scored)) / sum(map(len, scored))
