"""Cleaning of tuning pairs: each check drops a pair with a reason, in order, as the pipeline's filters do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from safer_instruct.example import Example, Verdict
from safer_instruct.filters.dedup import Deduplicator
from safer_instruct.filters.protocol import Filter
from safer_instruct.filters.rules import Language, Refusal
from safer_instruct.settings.pairs import CleanConfig
from safer_instruct.tuning.overlap import Overlap
from safer_instruct.tuning.pairs import Pair, whole_pairs

Check = Callable[[Pair], Verdict]


def clean(pairs: Iterable[Pair], config: CleanConfig, base: Path) -> Iterator[tuple[Pair, Verdict]]:
    """Each pair with the verdict that drops it, or with one that passed; what decides between duplicates is the input order.

    Raises:
        SourceError: A file of evaluation prompts is missing, or not whole.
    """
    with ExitStack() as stack:
        checks: list[Check] = [_present, _bounds("prompt", config.prompt_words), _bounds("response", config.response_words)]
        if config.refusals:
            checks.append(_filtered("refusal", Refusal(on="prompt")))
        if config.languages:
            checks.append(_filtered("language", Language(on="prompt", languages=config.languages)))
        if config.evaluation:
            checks.append(_apart(config, base))
        seen = stack.enter_context(closing(Deduplicator("pair", config.near_duplicate)))
        checks.append(lambda pair: seen.check(f"{pair.prompt}\n{pair.response}", f"{pair.file}:{pair.line}"))
        for pair in pairs:
            yield pair, _first_failure(pair, checks)


def _first_failure(pair: Pair, checks: Iterable[Check]) -> Verdict:
    verdict = Verdict("clean", True)
    for check in checks:
        verdict = check(pair)
        if not verdict.passed:
            break
    return verdict


def _present(pair: Pair) -> Verdict:
    missing = [name for name, text in (("instruction", pair.prompt), ("response", pair.response)) if not text.strip()]
    return Verdict("clean.empty", not missing, None, f"its {missing[0]} is empty" if missing else "")


def _bounds(side: str, bounds: tuple[int, int]) -> Check:
    least, most = bounds

    def check(pair: Pair) -> Verdict:
        count = len(getattr(pair, side).split())
        reason = "" if least <= count <= most else f"its {side} has {count} words, not {least} to {most}"
        return Verdict("clean.length", not reason, count, reason)

    return check


def _filtered(name: str, rule: Filter) -> Check:
    """One of the pipeline's filters of instructions, asked of the response."""

    def check(pair: Pair) -> Verdict:
        passed, score, reason = rule.check(Example("", "", "", pair.file, pair.line, prompt=pair.response))
        return Verdict(f"clean.{name}", passed, score, "" if passed else f"its response {reason}".replace(" and not an instruction", ""))

    return check


def _apart(config: CleanConfig, base: Path) -> Check:
    """No overlap with prompts that a model will be tested on."""
    tested = [(source.path, Overlap((p.prompt for p in whole_pairs((source,), base)), 0.7, shared_run=config.shared_run)) for source in config.evaluation]

    def check(pair: Pair) -> Verdict:
        why = next((f"its instruction {found}, compared with {name}" for name, index in tested if (found := index.why(pair.prompt))), "")
        return Verdict("clean.evaluation", not why, None, why)

    return check
