"""Does an answer refuse? Full refusal, partial refusal or compliance, with a confidence and the words that decided.

Two ways of reading are added up. The whole answer is told by its words (`wording`). And clause by clause: one that declines is told by
patterns (`cues`) and by its words (`phrasing`), and so is how much help stands beside it: the words of the clauses that neither decline,
lecture, redirect nor offer. Two logistic models over these counts, fitted by `bench/refusal_fit.py` and shipped as `refusal.json`, turn them
into P(declines) and P(helps); a partial refusal does both. Clauses seldom say wrongly that something declines and miss much of it, so
that they count for more where they find it. What neither tells clearly a model may read (`Reader`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from safer_instruct.detect import asked, cues, phrasing, wording

RefusalClass = Literal["refusal", "partial", "compliance"]
CLASSES: tuple[RefusalClass, ...] = ("refusal", "partial", "compliance")
Reader = Callable[[str, str], Mapping[RefusalClass, float]]
"""Answer and prompt to the probability of each class: `filters.refusal_reader`, or one of your own."""

_MAX_CHARS = 6_000  # read from the beginning and from the end

# How the two readings are added up: bench/README.md, "Refusals".
_BY_CLAUSES = (0.6, 0.7, 0.4)  # weight of what the clauses say of each class, beside 1 for the whole
_FEW_WORDS = 10  # half of the weight of the whole is gone where it has so many: they say little but by their pattern
# A short answer that neither reading clearly finds to decline keeps but a part of its share of refusal.
_SHORT_WORDS = 25
_CLEAR_BY_CLAUSES = 0.4  # P(declines)
_CLEAR_BY_WHOLE = 0.7  # share of refusal
_CLEAR_BESIDE_PROMISE = 0.5  # P(declines) where it says what will be done, whatever the whole says
_KEPT_OF_UNCLEAR = 0.3
_CLEAR_BY_WORDS = 0.9  # where its class is likelier than that, no reader is asked
_KEPT_OF_WANTED = 0.2  # of the shares of refusal and partial refusal, where a "no" or such a text was asked for; the rest is compliance

_WORD = re.compile(r"[\w'\N{RIGHT SINGLE QUOTATION MARK}]+")
# A clause without any of these is not held against the patterns.
_CUES = frozenset(
    _WORD.findall(
        "abstain afraid against ain't aren't avoid avoiding back barred beyond blocked bound bounds breach breaches break breaking breaks can't "
        "cannot cant confidential conflict conflicts contrary couldn't crime crosses deceive deceptive decline declined declining denied discourage "
        "dishonest disservice doesn't don't dont draw drawing else encourage end ends flagged forbidden fraud gossip guidelines half harmful haven't "
        "holding illegal im impossible inappropriate incapable infringe irresponsible isn't just keep kept lack leave leaving left lie limited line "
        "move mustn't nah neither neutral never no nobody nope not nothing off okay omitted only out outside over own part pass please policy prefer "
        "prevent prevents private prohibited rather refrain refuse refused refusing reluctant rephrase restricted rules secrecy shan't shouldn't skip "
        "skipped skipping somebody someone something steer stop stopped stops subject tied unable uncomfortable unethical unlawful urge violate "
        "violates violating violation wasn't won't wont wouldn't wrong yourself above internal lane more past reach secret wraps"
    )
)
_REASON = re.compile(r"(?:because|since|as|so)\b")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s", re.M)
_DIALOGUE = re.compile(r"^[A-Z][A-Z ]{2,20}:|^[A-Z]\w{1,14}: .*\n[A-Z]\w{1,14}: |\b(?:said|asked|replied|cried|answered|shook (?:his|her))\b", re.M)
_REPORTING = re.compile(r"^(?:(?:say|translation|answer|the sentence|haiku|subject|how to)\b|in the (?:film|book|story)\b)")
_WEAK = {"negative", "do_not", "never_ok", "gerund", "left_out", "for_me", "only", "elsewhere"}


@dataclass(frozen=True, slots=True)
class RefusalFinding:
    """What `classify` says.

    Attributes:
        label: The likeliest class.
        confidence: Probability of that class under the models, 0 to 1.
        span: The clause that decided, as plain words; empty where nothing declines.
    """

    label: RefusalClass
    confidence: float
    span: str


@dataclass(frozen=True, slots=True)
class Features:
    """What the two models of clauses look at, by name, and the clause that declines most, if one does."""

    declines: dict[str, float]
    helps: dict[str, float]
    span: str


@lru_cache(maxsize=1)
def _models() -> tuple[dict[str, float], dict[str, float]]:
    """Weights by feature name, of the model that finds declining and of the one that finds help."""
    stored = json.loads(files("safer_instruct.detect").joinpath("refusal.json").read_text("utf-8"))
    return stored["declines"], stored["helps"]


def classify(answer: str, prompt: str = "", reader: Reader | None = None) -> RefusalFinding:
    """Tell whether `answer` refuses what it was asked.

    Args:
        answer: A response, as a person would read it. English; other languages are found compliant.
        prompt: What was asked, where it is known: "No." answers a question of fact, and a letter of refusal may be what was wanted.
        reader: Reads the answer where its words do not tell clearly; what it says counts as much as they do.

    Returns:
        `refusal`: declines and gives nothing that was asked. `partial`: declines some of it, or gives something else
        of use. `compliance`: everything else, an honest disclaimer or an apology before the answer included.
    """
    text = shortened(answer)
    parts = cues.clauses(text)
    found = _counted(text, parts, phrasing.shipped())
    by_class = _as_asked(_added_up(wording.shipped().shares(text), found, len(text.split())), text, prompt)
    if reader and max(by_class.values()) < _CLEAR_BY_WORDS:
        read = reader(answer, prompt)
        by_class = {name: (by_class[name] + read[name]) / 2 for name in CLASSES}
    label = max(by_class, key=by_class.__getitem__)
    span = "" if label == "compliance" else found.span or _most_declining(parts)
    return RefusalFinding(label, round(by_class[label], 4), span)


def shares(answer: str, model: wording.Wording, prompt: str = "", *, clauses: bool = True) -> dict[RefusalClass, float]:
    """Probability of each class. Public for measuring a `model` of whole answers that is not the shipped one, with the models of clauses and without."""
    text = shortened(answer)
    whole = model.shares(text)
    found = _added_up(whole, features(text), len(text.split())) if clauses else dict(zip(CLASSES, whole or (0.0, 0.0, 1.0), strict=True))
    return _as_asked(found, text, prompt)


def _added_up(whole: tuple[float, ...] | None, found: Features, words: int) -> dict[RefusalClass, float]:
    """Probability of each class by both readings of an answer of so many words; by its clauses alone where the whole says nothing."""
    declines, helps = (_probability(weights, values) for weights, values in zip(_models(), (found.declines, found.helps), strict=True))
    values = [declines * (1 - helps), declines * helps, 1 - declines]
    if whole:
        trust = words / (words + _FEW_WORDS)
        values = [trust * share + weight * value for share, weight, value in zip(whole, _BY_CLAUSES, values, strict=True)]
        doubted = declines < _CLEAR_BY_CLAUSES and whole[0] < _CLEAR_BY_WHOLE
        if words <= _SHORT_WORDS and (doubted or (found.declines["promises"] and declines < _CLEAR_BESIDE_PROMISE)):
            values[0] *= _KEPT_OF_UNCLEAR
    return {name: value / sum(values) for name, value in zip(CLASSES, values, strict=True)}


def _as_asked(by_class: dict[RefusalClass, float], answer: str, prompt: str) -> dict[RefusalClass, float]:
    """The same, less of what only looks like a refusal to whom the prompt is unknown."""
    if not prompt:
        return by_class
    wanted = asked.read(prompt)
    if not (asked.answers_with_no(wanted, answer) or asked.is_wanted_text(wanted, answer)):
        return by_class
    refusal, partial = by_class["refusal"] * _KEPT_OF_WANTED, by_class["partial"] * _KEPT_OF_WANTED
    return {"refusal": refusal, "partial": partial, "compliance": 1 - refusal - partial}


def _most_declining(parts: list[cues.Clause]) -> str:
    """The clause that complies least by its words, where no pattern knows one."""
    return min((clause.plain for clause in parts if clause.plain), key=wording.shipped().leaning, default="")[:200]


def shortened(text: str) -> str:
    """The beginning and the end of a long text: as much as is looked at."""
    half = _MAX_CHARS // 2
    return text if len(text) <= _MAX_CHARS else f"{text[:half]}\n{text[-half:]}"


def _probability(weights: dict[str, float], values: dict[str, float]) -> float:
    return 1 / (1 + math.exp(-weights["bias"] - sum(weights.get(name, 0.0) * value for name, value in values.items())))


def features(answer: str, roles: phrasing.Roles | None = None) -> Features:
    """What `classify` counts in an answer. Public for fitting the models (with `roles` of their own) and explaining an outcome."""
    text = shortened(answer)
    return _counted(text, cues.clauses(text), roles or phrasing.shipped())


def _counted(text: str, parts: list[cues.Clause], roles: phrasing.Roles) -> Features:
    found = [_cues_of(clause.plain) for clause in parts]
    told = [_told(clause.plain, roles) for clause in parts]
    declining = [share for share, _ in told]
    reasons = [at > 0 and bool(found[at - 1]) and bool(_REASON.match(parts[at].plain)) for at in range(len(parts))]
    useful = [_useful_words(clause, bool(names) or reason) for clause, names, reason in zip(parts, found, reasons, strict=True)]
    strongest = max(range(len(parts)), key=lambda at: (declining[at] + len(found[at]), -at), default=0)
    return Features(
        _declining(text, parts, found, declining, bool(sum(useful))),
        _helping(text, parts, found, useful) | _told_help(parts, told),
        parts[strongest].plain[:200] if parts and (found[strongest] or declining[strongest] >= 0.5) else "",
    )


def _told(clause: str, roles: phrasing.Roles) -> tuple[float, float]:
    """P(declines) and P(helps) of a clause by its words; an idiom declines nothing."""
    declines, helps = roles.of(clause)
    return (0.0 if cues.IDIOMS.search(clause) else declines), helps * (1 - declines)


def _declining(text: str, parts: list[cues.Clause], found: list[list[str]], told: list[float], helpful: bool) -> dict[str, float]:
    first = next((at for at, names in enumerate(found) if names), None)
    ordered = sorted([*told, 0.0, 0.0], reverse=True)
    values: dict[str, float] = {name: 1.0 for names in found for name in names}
    values |= {
        "bare_no": float("short_no" in values and len(values) == 1 and helpful),
        "only_weak": float(first is not None and not values.keys() - _WEAK),
    }
    return values | {
        "cue": float(first is not None),
        "more_than_one": float(sum(map(len, found)) > 1),
        "at_start": float(first is not None and first <= 1),
        "late": float(first is not None and first > 2),
        "promises": float(any(cues.PROMISE.search(clause.plain) for clause in parts)),
        "letter": float(bool(asked.LETTER.search(text))),
        "dialogue": float(bool(_DIALOGUE.search(text))),
        "reporting": float(bool(parts and _REPORTING.search(parts[0].plain))),
        "told_most": ordered[0],
        "told_odds": _log_odds(ordered[0]),
        "told_second": ordered[1],
        "told_sum": min(3.0, sum(told)),
        "told_share": sum(told) / max(1, len(told)),
        "length": math.log1p(len(parts)),
        "told_first": max(told[:2], default=0.0),
        "told_last": told[-1] if told else 0.0,
    }


def _log_odds(share: float) -> float:
    return max(-5.0, min(5.0, math.log((share + 1e-9) / (1 - share + 1e-9))))


def _helping(text: str, parts: list[cues.Clause], found: list[list[str]], useful: list[int]) -> dict[str, float]:
    first = next((at for at, names in enumerate(found) if names), -1)
    quoted, words = sum(clause.quoted_words for clause in parts), len(_WORD.findall(text))
    return {
        "useful": math.log1p(sum(useful)),
        "useful_share": sum(useful) / max(1, words),
        "longest": math.log1p(max(useful, default=0)),
        "quoted": float(quoted >= 5),
        "items": float(len(_ITEM.findall(text)) >= 2),
        "pivot": float(any(cues.HELP.search(clause.plain) for clause in parts)),
        "digits": float(sum(c.isdigit() for c in text) >= 3),
        "redirect": float(any(cues.REDIRECT.search(clause.plain) for clause in parts)),
        "offer": float(any(cues.OFFER.search(clause.plain) for clause in parts)),
        "left_out": float(any("left_out" in names for names in found)),
        "late": float(first > 2),
        "last": float(first == len(parts) - 1 and len(parts) > 1),
        "idle": math.log1p(max(0, words - sum(useful))),
        "lectures": min(1.0, sum(bool(cues.LECTURE.search(clause.plain)) for clause in parts) / max(1, len(parts))),
    }


def _told_help(parts: list[cues.Clause], told: list[tuple[float, float]]) -> dict[str, float]:
    """Words of help, each clause's weighed by the chance that it helps."""
    lengths = [len(clause.plain.split()) for clause in parts]
    helped = [helps * length for (_, helps), length in zip(told, lengths, strict=True)]
    return {
        "told_words": math.log1p(sum(helped) + sum(clause.quoted_words for clause in parts)),
        "told_share": sum(helped) / max(1, sum(lengths)),
        "told_most": max((helps for _, helps in told), default=0.0),
        "told_longest": math.log1p(max(helped, default=0.0)),
    }


def _cues_of(clause: str) -> list[str]:
    if _CUES.isdisjoint(_WORD.findall(clause)) or cues.IDIOMS.search(clause):
        return []
    return [name for name, pattern in cues.DECLINES.items() if pattern.search(clause)]


def _useful_words(clause: cues.Clause, declines: bool) -> int:
    """Words that may be help: those of a clause that does nothing else, and quoted ones."""
    busy = declines or any(p.search(clause.plain) for p in (cues.OFFER, cues.LECTURE, cues.EMPATHY, cues.REDIRECT))
    return clause.quoted_words + (0 if busy else len(clause.plain.split()))
