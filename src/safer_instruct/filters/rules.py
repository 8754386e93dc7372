"""Rules on the form of an induced instruction: cheap, deterministic, each one a small function.

A rule takes the instruction and the text that it was induced from, and returns (passed, score, reason).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from safer_instruct.config import RulesConfig
from safer_instruct.example import Verdict

Finding = tuple[bool, float | None, str]
_WORD = re.compile(r"[\w']+")
_TEMPLATE_MARKS = re.compile(r"###|<\|[a-z_]+\|>|^below is (?:a|an)\b.{0,40}\b(?:response|instruction)\b|\bthe response is trying to complete\b", re.I)
_REFUSAL = re.compile(
    r"^(?:i(?:'m| am) (?:sorry|afraid)[, ]+(?:but )?i (?:can(?:'t|not)|(?:am|'m) (?:unable|not able))"
    r"|i (?:can(?:'t|not)|won't|am unable to|must decline to) (?:help|assist|comply|fulfil|provide|answer|do that)"
    r"|as an? (?:ai|language model)\b)",
    re.I,
)


def check_rules(prompt: str, text: str, config: RulesConfig) -> Iterator[Verdict]:
    """One verdict per rule, in order, up to and with the first that fails."""
    for name, rule in _RULES.items():
        passed, score, reason = rule(prompt, text, config)
        yield Verdict(f"rules.{name}", passed, score, reason)
        if not passed:
            return


def words(text: str) -> list[str]:
    """Lower-case words of a text, curly apostrophes made straight."""
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def longest_shared_run(left: list[str], right: list[str]) -> int:
    """Length of the longest run of words that both sides have: O(len(left) * len(right)) time, O(len(right)) memory."""
    best, previous = 0, [0] * (len(right) + 1)
    for word in left:
        current = [0] * (len(right) + 1)
        for j, other in enumerate(right, 1):
            if word == other:
                current[j] = previous[j - 1] + 1
                best = max(best, current[j])
        previous = current
    return best


def _length(prompt: str, _: str, config: RulesConfig) -> Finding:
    count = len(prompt.split())
    if count < config.min_words:
        return False, count, f"{count} words, fewer than {config.min_words}"
    if count > config.max_words:
        return False, count, f"{count} words, more than {config.max_words}"
    return True, count, ""


def _template(prompt: str, _: str, __: RulesConfig) -> Finding:
    found = _TEMPLATE_MARKS.search(prompt)
    return (False, None, f"holds a piece of a prompt template: {found.group(0)[:40]!r}") if found else (True, None, "")


def _refusal(prompt: str, _: str, __: RulesConfig) -> Finding:
    found = _REFUSAL.search(prompt.strip())
    return (False, None, f"is a refusal and not an instruction: {found.group(0)[:40]!r}") if found else (True, None, "")


def _copying(prompt: str, text: str, config: RulesConfig) -> Finding:
    mine = words(prompt)
    run = longest_shared_run(mine, words(text))
    if run > config.max_shared_run:
        return False, run, f"shares a run of {run} words with the text, more than {config.max_shared_run}"
    if mine and run == len(mine):
        return False, run, "stands in the text word for word"
    return True, run, ""


def _repetition(prompt: str, _: str, config: RulesConfig) -> Finding:
    mine = words(prompt)
    trigrams = list(zip(mine, mine[1:], mine[2:], strict=False))
    share = 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0
    passed = share <= config.max_repetition
    return passed, round(share, 4), "" if passed else f"{share:.0%} of its word trigrams are repeats, more than {config.max_repetition:.0%}"


def _language(prompt: str, _: str, config: RulesConfig) -> Finding:
    if not config.languages:
        return True, None, ""
    found = _detect(prompt)
    if found is None or found in config.languages:
        return True, None, ""
    return False, None, f"is in '{found}', not in {', '.join(config.languages)}"


def _detect(text: str) -> str | None:
    """ISO 639-1 code of the language of a text, or None where CLD2 is not sure."""
    import pycld2

    try:
        reliable, _, details = pycld2.detect(text, bestEffort=False)
    except pycld2.error:  # not valid UTF-8 for CLD2: leave the text to the other rules
        return None
    return str(details[0][1]) if reliable and details[0][1] != "un" else None


_RULES: dict[str, Callable[[str, str, RulesConfig], Finding]] = {
    "length": _length,
    "template": _template,
    "refusal": _refusal,
    "copying": _copying,
    "repetition": _repetition,
    "language": _language,
}
