"""What instructions ask for: a verb and its object, found by rules of word order and a list of verbs.

Self-Instruct (Wang et al. 2023, figure 3) takes the root verb and its direct object from a parser. A parser's model is no package
of its publisher's on PyPI, so this is a heuristic for English: it reads word order, knows the verbs of `verbs.txt` and no others,
and says nothing of a text where it finds none. `coverage` tells how often it found something.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TOKEN = re.compile(r"[a-z][a-z'’-]*|\d+|[.!?\n]+|[^\w\s]")
_LEAD = re.compile(
    r"""^(?:please|kindly|hi|hello|hey|there|ok|okay|now|then|also|first|so|and|just|thanks|thank\ you
    |(?:can|could|would|will)\ you(?:\ please)?
    |i(?:\ want|(?:\ woul)?d\ like|'d\ like|\ need)(?:\ you)?\ to|help\ me\ to|let's|try\ to|you\ (?:should|must|need\ to)|your\ (?:task|job|goal)\ is\ to
    |(?:how|when|where|why)\ (?:do|can|should|would|could|might)\ (?:i|you|we|one|people|someone)|(?:tell|show)\ me\ how\ to|how\ to
    |(?:do|does|did|can|could|may|might|will|would|should|shall|have|has)\ (?:i|we|you|they|he|she|it|(?:my|your|our|the)\ [a-z]+)
    |(?:what|which)\ is\ the\ (?:best|easiest|right)\ way\ to|[a-z]+ly|,)(?=\ |$)""",
    re.VERBOSE,
)
_CONTRACTED = ("'ve", "'m", "n't", "'re", "'d", "'ll")
_F = re.compile(r"(?:lea|loa|shea|thie|hal|cal|el|wol|scar|dwar|whar|hoo)ves$")  # leaves, shelves; but gloves, sleeves, valves
_FE = re.compile(r"(?:kni|wi|(?<!o)li)ves$")  # knives, lives; but olives, archives
_OE = re.compile(r"(?:.*sh|(?:tip|mistle)?t|f|h|w|d|r|fl|sl|al|ob|can|thr)oes")  # shoes, toes; but tomatoes, heroes
_BE = ("is", "are", "was", "were", "'s")
_WORDS = """
before a verb: i we you they he she it who that to not have has had am is are was were been be do did does can could will would should must just
skipped: me us him her them it you myself yourself a an the my your our his their its this that these those some any each every another all both no
skipped: one two three four five ten many several more most few much of up out off back down
end: about above after again against and any are as at be because before between but by can could do during for from had has have how i if in into is it
end: of on or over please so than that then the through to under until using was were what when where whether which while who why will with without would you
end: your today tomorrow yesterday now twice once
"""
_FIRST_SENTENCES = 3
_TOKENS_READ = 60


@dataclass(frozen=True, slots=True)
class Structure:
    """Verbs and their objects over many instructions.

    Attributes:
        pairs: (verb, object) -> instructions; the object is empty where none was found.
        texts: Instructions looked at.
        coverage: Share of them with a verb and an object.
    """

    pairs: Counter[tuple[str, str]]
    texts: int
    coverage: float

    def top(self, verbs: int = 20, objects: int = 4) -> list[tuple[str, int, list[tuple[str, int]]]]:
        """The commonest verbs, and the commonest objects of each, as in Self-Instruct's figure."""
        totals: Counter[str] = Counter()
        for (verb, obj), count in self.pairs.items():
            totals[verb] += count if obj else 0
        found = []
        for verb, count in sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:verbs]:
            own = [(obj, n) for (v, obj), n in self.pairs.items() if v == verb and obj]
            if count:
                found.append((verb, count, sorted(own, key=lambda item: (-item[1], item[0]))[:objects]))
        return found


def structure(texts: Iterable[str]) -> Structure:
    """Count the verb and object of each text that has them."""
    pairs: Counter[tuple[str, str]] = Counter()
    total = found = 0
    for text in texts:
        total += 1
        verb, obj = verb_and_object(text)
        if verb:
            pairs[verb, obj] += 1
            found += bool(obj)
    return Structure(pairs, total, found / total if total else 0.0)


def verb_and_object(text: str) -> tuple[str, str]:
    """The verb that a text turns on, in its base form, and its object as a singular noun; empty where none is found."""
    best = ("", "")
    for sentence in _sentences(text):
        found = _of_sentence(sentence)
        if found[0] and found[1]:
            return found
        best = best if best[0] else found
    return best


def _sentences(text: str) -> list[str]:
    parts = [part.strip() for part in re.split(r"[.!?\n:;]+(?:\s|$)", text[:600].lower().replace("’", "'"))]
    return [part for part in parts if part][:_FIRST_SENTENCES]


def _of_sentence(sentence: str) -> tuple[str, str]:
    while match := _LEAD.match(sentence):
        sentence = sentence[match.end() :].lstrip()
    tokens = _TOKEN.findall(sentence)[:_TOKENS_READ]
    if not tokens:
        return "", ""
    verbs = _forms()
    if verbs.get(tokens[0]) == tokens[0]:
        return _followed(tokens, 0)
    if tokens[0] in ("what", "who", "what's", "who's"):
        rest = tokens[2:] if len(tokens) > 1 and tokens[1] in _BE else tokens[1:] if tokens[0].endswith("'s") else []
        if rest:
            return "be", _object(rest)
    for at in range(1, len(tokens)):
        before = tokens[at - 1]
        if tokens[at] in verbs and (before in _listed("before a verb") or before.endswith(_CONTRACTED)):
            return _followed(tokens, at)
    return "", ""


def _followed(tokens: list[str], at: int) -> tuple[str, str]:
    """The verb there and its object; of 'need to bring a coat' the second verb."""
    verbs = _forms()
    if tokens[at + 1 : at + 2] == ["to"] and at + 2 < len(tokens) and verbs.get(tokens[at + 2]) == tokens[at + 2]:
        at += 2
    return verbs[tokens[at]], _object(tokens[at + 1 :])


def _object(tokens: list[str]) -> str:
    """The last word of the first noun phrase, where one begins at once."""
    at = 0
    while at < len(tokens) and tokens[at] in _listed("skipped"):
        at += 1
    run: list[str] = []
    for token in tokens[at:]:
        if token in _listed("end") or not token[0].isalpha():
            break
        if not token.endswith("ly"):
            run.append(token)
    return _singular(run[-1].removesuffix("'s")) if run and len(run) <= 4 else ""


def _singular(noun: str) -> str:
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if _F.search(noun):
        return noun[:-3] + "f"
    if _FE.search(noun):
        return noun[:-3] + "fe"
    if noun.endswith(("ches", "shes", "xes", "sses")) or (noun.endswith("oes") and not _OE.fullmatch(noun)):
        return noun[:-2]
    if noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and len(noun) > 3:
        return noun[:-1]
    return noun


@cache
def _listed(kind: str) -> frozenset[str]:
    lines = (line.split(": ", 1) for line in _WORDS.strip().splitlines())
    return frozenset(word for name, text in lines if name == kind for word in text.split())


@cache
def _forms() -> dict[str, str]:
    """Each form of each known verb, and its base form."""
    forms: dict[str, str] = {}
    for line in Path(__file__).with_name("verbs.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            base, *irregular = line.split()
            for form in (*_regular(base), *irregular):
                forms.setdefault(form, base)
            forms[base] = base
    return forms


def _regular(base: str) -> tuple[str, ...]:
    if base.endswith("e"):
        return base + "s", base + "d", base[:-1] + "ing"
    if re.search(r"[^aeiou]y$", base):
        return base[:-1] + "ies", base[:-1] + "ied", base + "ing"
    doubled = base + base[-1] if re.search(r"^[^aeiou]*[aeiou][bdglmnprt]$", base) else base
    return base + ("es" if base.endswith(("s", "x", "ch", "sh", "o")) else "s"), doubled + "ed", doubled + "ing"
