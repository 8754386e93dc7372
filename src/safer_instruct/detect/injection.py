"""Marks of prompt injection and of prompt templates: words meant for a model and not for a reader, and characters nobody sees."""

from __future__ import annotations

import re

from safer_instruct.detect.spans import Span
from safer_instruct.detect.words import words, words_of

_TEMPLATE = re.compile(r"###|<\|[a-z_]+\|>|^below is (?:a|an)\b.{0,40}\b(?:response|instruction)\b|\bthe response is trying to complete\b", re.I)
_TEMPLATE_WORDS = frozenset(("below", "response"))
_RULES_OF = r"(?:(?:your|the|all|any|every|these|those|my|previous|prior|above|earlier|preceding|foregoing|system|safety|original|initial|other|of|such) ){0,4}"
_ORDERS = r"(?:instructions?|prompts?|rules|guidelines|directions|directives|context|messages?|restrictions|criteria|constraints|training)"
_SHAPES: dict[str, re.Pattern[str]] = {
    "override": re.compile(
        rf"\b(?:ignore|disregard|forget|override|bypass|neglect|skip over|do not follow|don't follow|stop following) (?:about |everything |anything "
        rf"|what(?:ever)? )?{_RULES_OF}{_ORDERS}\b"
        r"|\b(?:ignore|disregard|forget) (?:everything|anything|all|what was said)(?: that (?:was|is|has been|you(?:'ve| have"
        r"| were)?))? ?(?:\w+ ){0,2}?(?:above|before|previously|so far|told|said)\b",
        re.I,
    ),
    "role": re.compile(
        r"\byou are (?:now|no longer) (?:an? )?(?:\w+ ){0,3}(?:dan\b|unrestricted|unfiltered|jailbroken|bound by|in (?:developer|debug|god"
        r"|admin) mode|free of|free from|assistant|chatbot|language model|ai\b)"
        r"|\b(?:enable|enter|activate|switch to|now in) (?:developer|debug|god|admin|dan|jailbreak|sudo) mode\b|\bact as (?:dan\b|an? (?:unrestricted"
        r"|unfiltered|jailbroken))|\bpretend (?:that )?you have no (?:rules|restrictions|guidelines|filters)",
        re.I,
    ),
    "extract": re.compile(
        r"\b(?:reveal|print|repeat|show|output|display|leak|recite|tell me|write out|give me|what (?:is|are)|copy)(?: me)?(?: us)? (?:back )?(?:your"
        r"|the|all|this|verbatim|entire|full|exact|complete|initial|hidden|secret|of|word for word|above| )*"
        r"(?:system (?:prompt|message|instructions)|(?:hidden|initial|secret|original) (?:prompt|instructions)|prompt above|text above)",
        re.I,
    ),
    "judge": re.compile(
        r"\b(?:judges?|graders?|evaluators?|raters?|reviewers?|assessors?|llm|ai|model)\b[^.\n]{0,40}\b(?:must|should|has to|have to|please|will"
        r"|needs to)\b[^.\n]{0,30}\b(?:answer|say|output|reply|respond|give|score|rate|return|mark|choose|pick|select)\b"
        r"|\b(?:answer|reply|respond|say|output|return)\b (?:only |simply |just |always |with |the word "
        r"|exactly )*[\"'\N{LEFT SINGLE QUOTATION MARK}\N{LEFT DOUBLE QUOTATION MARK}]?yes\b"
        r"[\"'\N{RIGHT SINGLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}]?"
        r" (?:to (?:all|every|each|any)|for (?:all|every|each)|only|regardless|no matter|and nothing)"
        r"|\b(?:give|award|assign|rate) (?:this|it|the (?:response|answer|reply|text)|me)\b[^.\n]{0,30}\b(?:full marks|top (?:marks|score)"
        r"|highest (?:score|rating|mark)|maximum (?:score|rating)|(?:score|rating) of (?:5|10|100)|(?:5|10)/(?:5|10)|a (?:5|10)\b)",
        re.I,
    ),
    "channel": re.compile(
        r"<\|?(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id|end_header_id|begin_of_text)\|?>|\[/?INST\]|<</?SYS>>"
        r"|^\s{0,3}(?:#{2,}\s*)?(?:system|assistant)\s?:\s*\S"
        r"|\[(?:system|admin|developer)(?: (?:note|message|prompt|override))?\]|\b(?:new|updated|important|real|actual) (?:system )?instructions?\s?:"
        r"|\b(?:begin|end) (?:of )?(?:system|hidden) (?:prompt|message|instructions)\b",
        re.I | re.M,
    ),
    "hidden": re.compile(r"[\u200b\u2060\u2062-\u2064\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]"),
}
# Two looks tell nearly every text that it holds nothing of the above.
_LOUD = frozenset(
    words(
        "above act admin ai assessor assessors assign assistant award begin_of_text bypass developer disregard end_header_id endoftext eot_id "
        "evaluator evaluators follow following forget give grader graders hidden ignore im_end im_start inst instruction instructions jailbroken "
        "judge judges llm longer mark marks mode model neglect now override pretend prompt prompts rate rater raters rating reviewer reviewers "
        "score scores skip start_header_id sys system unrestricted user yes"
    )
)
_HIDDEN = _SHAPES["hidden"]
INJECTION_KINDS = tuple(_SHAPES)


def find_injections(text: str) -> list[Span]:
    """Marks of prompt injection in `text`, in order; at most one of each kind.

    Kinds: `override` (ignore your instructions), `role` (you are now ...), `extract` (show your prompt), `judge` (answer yes, give
    full marks), `channel` (chat markup, "SYSTEM:"), `hidden` (zero-width, direction-changing and tag characters).
    """
    vocabulary = words_of(text).vocabulary
    if "'" in text or "\N{RIGHT SINGLE QUOTATION MARK}" in text:  # 'ignore in quotation marks, model's: what stands between is a word, too
        vocabulary = vocabulary.union(words_of(text).joined.replace("'", " ").split())
    loud = not vocabulary.isdisjoint(_LOUD)
    hidden = not text.isascii() and _HIDDEN.search(text)
    if not loud and not hidden:
        return []
    possible = _possible(text.lower(), vocabulary) if text.isascii() else INJECTION_KINDS  # beyond ASCII, letters have more than two cases
    found = ((kind, pattern.search(text)) for kind, pattern in _SHAPES.items() if (hidden if kind == "hidden" else loud and kind in possible))
    return sorted((Span(kind, *match.span()) for kind, match in found if match), key=lambda s: s.start)


def _possible(lower: str, vocabulary: frozenset[str]) -> set[str]:
    """The kinds of which a lower-case ASCII text holds a word that each match of theirs has; a look for it costs little beside the pattern."""
    kinds = {kind for kind, marks in _MARKS_OF.items() if any(mark in lower for mark in marks)}
    if not _AGENTS.isdisjoint(vocabulary) and any(mark in lower for mark in _MUST):
        kinds.add("judge")
    if ":" in lower and ("system" in lower or "assistant" in lower or "instruction" in lower):
        kinds.add("channel")
    return kinds


_MARKS_OF = {
    "override": ("ignore", "disregard", "forget", "override", "bypass", "neglect", "skip over", "do not follow", "don't follow", "stop following"),
    "role": ("you are now", "you are no longer", " mode", "act as ", "pretend"),
    "extract": ("system prompt", "system message", "system instructions", "prompt above", "text above", "hidden ", "initial ", "secret ", "original "),
    "judge": ("yes", "full marks", "top marks", "top score", "highest ", "maximum ", "core of ", "ating of ", "5/5", "5/10", "10/5", "10/10", "a 5", "a 10"),
    "channel": ("<", "[", "begin ", "end "),
}
_AGENTS = frozenset(words("judge judges grader graders evaluator evaluators rater raters reviewer reviewers assessor assessors llm ai model"))
_MUST = ("must", "should", "has to", "have to", "please", "will", "needs to")


def template_mark(text: str) -> str:
    """The piece of a prompt template that an instruction holds, or ''."""
    if _TEMPLATE_WORDS.isdisjoint(words_of(text).vocabulary) and "###" not in text and "<|" not in text:
        return ""
    found = _TEMPLATE.search(text)
    return found.group(0) if found else ""
