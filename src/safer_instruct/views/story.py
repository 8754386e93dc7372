"""The whole story of one example: where it came from, what was made of it, and what every check said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from safer_instruct.example import Candidate, Draft, Example, Verdict
from safer_instruct.state import stage_of
from safer_instruct.terminal import safe

_REJECTED = "rejected."  # before the names of verdicts on what is to replace the source text


def as_record(example: Example) -> dict[str, Any]:
    """The story as plain data: every field, which candidate and draft were taken, and how it ended."""
    dropped, taken, accepted = example.dropped_by, _taken(example), _accepted(example)
    record = asdict(example)
    if not example.history:
        del record["history"]
    for number, candidate in enumerate(record["candidates"]):
        candidate["taken"] = number == taken
    for number, draft in enumerate(record["drafts"]):
        draft["taken"] = number == accepted
    ended = {"state": "dropped", "stage": stage_of(dropped), "by": dropped.name, "reason": example.drop_reason} if dropped else {"state": "pair"}
    return {**record, "ended": ended}


def tell(console: Console, example: Example, kind: str = "") -> None:
    """Print it in the order in which it happened; `kind`, from `margins.kind_said`, says what the pair's margin is."""
    _print(console, safe(example.id, None), "bold")
    _print(console, safe(f"{example.file}:{example.line}{f' ({example.place})' if example.place else ''}  category {example.category}"), "dim")
    if example.twin_of:
        _print(console, safe(f"contrast twin of {example.twin_of}: its rejected response is a needless refusal"), "dim")
    if example.history:
        _heading(console, f"Said before: {len(example.history)} turns")
        for turn in example.history:
            _print(console, Text(f"{turn.role}: ", style="bold").append(safe(turn.content)))
    _heading(console, _source(example))
    _print(console, safe(example.text))
    _verdicts(console, _own(example, before=True))
    _instructions(console, example)
    _responses(console, example, kind)
    beside = ("pair.",) if _replacing(example) else ("pair.", _REJECTED)
    _verdicts(console, [v for v in example.verdicts if v.name.startswith(beside)])
    _heading(console, "End")
    _end(console, example, kind)


def _source(example: Example) -> str:
    """What the source text became."""
    if example.twin_of:
        return "The instruction that it is to look like"
    if not example.chosen:
        return "Source text"
    if example.source_is_chosen:
        return "Source text (the chosen response)"
    return "Source text (another response took its place as the rejected one)" if example.rejected else "Source text (the rejected response)"


def _instructions(console: Console, example: Example) -> None:
    said, taken, count = _own(example, before=False), _taken(example), len(example.candidates)
    if count or said:
        passes = 1 + sum(v.name.startswith("target.pass_") for v in example.verdicts)
        several = f" of {passes} passes, likeliest first in each" if passes > 1 else ", likeliest first"
        several += ", equal ones once" if count > 1 else ""
        _heading(console, f"Instructions: {count}{several}" if count else "Instructions: none")
    for number, candidate in enumerate(example.candidates):
        _candidate(console, number, candidate, taken)
    _verdicts(console, said)


def _responses(console: Console, example: Example, kind: str) -> None:
    """Those for either side of the pair, each below its own heading; their margins stay the verifier's own where the pair's is calibrated."""
    unit = " (raw)" if kind.startswith("calibrated") else ""
    replacing = _replacing(example)
    others = [draft for draft in example.drafts if not any(draft is one for one in replacing)]
    for heading, drafts in (("Responses", others), ("Written for the rejected side", replacing)):
        if drafts:
            _heading(console, f"{heading}: {len(drafts)}")
        for number, draft in enumerate(drafts):
            as_rejected = draft.text == example.rejected and not example.source_is_chosen
            _draft(console, number, draft, unit, accepted=draft is example.accepted, as_rejected=as_rejected)


def _replacing(example: Example) -> list[Draft]:
    """Drafts that were to take the place of the source text as the rejected response; they come last, and some were not judged."""
    begun = next((n for n, d in enumerate(example.drafts) if any(v.name.startswith(_REJECTED) for v in d.verdicts)), len(example.drafts))
    return list(example.drafts[begun:])


def _candidate(console: Console, number: int, candidate: Candidate, taken: int | None) -> None:
    if number == taken:
        fate, style = "taken", "green"
    elif failed := _named(v for v in candidate.verdicts if v.drops):
        fate, style = f"not taken: {failed}", "red"
    elif candidate.verdicts:
        fate, style = "passed, and was taken in a pass before", "dim"
    else:
        fate, style = "not looked at, since a likelier one was taken", "dim"
    numbers = "" if candidate.logprob is None else f"log p {candidate.logprob:+.3f}, "
    _print(console, Text(f"{number + 1}. ").append(safe(candidate.text)))
    _print(console, Text(f"   {numbers}").append(safe(fate).plain, style))
    _verdicts(console, candidate.verdicts)


def _draft(console: Console, number: int, draft: Draft, unit: str, *, accepted: bool, as_rejected: bool) -> None:
    if as_rejected:
        fate, style = "taken as the rejected response", "green"
    elif accepted:
        fate, style = "accepted", "green"
    elif not draft.verdicts:
        fate, style = "not judged, since another one was taken", "dim"
    elif failed := _named(v for v in draft.verdicts if v.drops):
        fate, style = f"not accepted: {failed}", "red"
    else:
        fate, style = "passed, but another one was better", "dim"
    numbers = [f"round {draft.attempt + 1}", *([f"mended {draft.revision} times"] if draft.revision else []), *([f"by {draft.expert}"] if draft.expert else [])]
    numbers += [] if draft.logprob is None else [f"log p per token {draft.logprob:+.3f}"]
    numbers += [] if draft.margin is None else [f"margin {draft.margin:+.3f}{unit}"]
    _print(console, Text(f"{number + 1}. ").append(safe(draft.text)))
    _print(console, Text(f"   {', '.join(numbers)}, ").append(safe(fate).plain, style))
    _verdicts(console, draft.verdicts)


def _end(console: Console, example: Example, kind: str) -> None:
    dropped = example.dropped_by
    if dropped:
        _print(console, Text("dropped", style="bold red").append(safe(f" at stage '{stage_of(dropped)}' by {dropped.name}: {example.drop_reason}")))
        return
    margin = "" if example.margin is None else f", margin {example.margin:+.3f}{f', {kind}' if kind else ''}"
    _print(console, Text("a pair", style="bold green").append(safe(margin)))
    _print(console, Text("prompt: ", style="bold").append(safe(example.prompt)))
    _print(console, Text("chosen: ", style="bold").append(safe(example.chosen)))
    if example.rejected:
        _print(console, Text("rejected: ", style="bold").append(safe(example.rejected)))
    elif tried := [v for v in example.verdicts if v.name.startswith(_REJECTED)]:
        failed = _named(v for v in tried if not v.passed)
        why = f"kept since nothing else passed: {failed}" if failed else "which matches the chosen response as it is"
        _print(console, Text("rejected: ", style="bold").append(safe(f"the source text, {why}")))


def _verdicts(console: Console, verdicts: Iterable[Verdict]) -> None:
    for verdict in verdicts:
        said, style = ("ok  ", "green") if verdict.passed else ("flag", "yellow") if verdict.flag else ("no  ", "red")
        score = "" if verdict.score is None else f"  {verdict.score:g}"
        reason = f"  {verdict.reason}" if verdict.reason else ""
        _print(console, Text("   ").append(said, style=style).append("  ").append(safe(f"{verdict.name}{score}{reason}")))


def _own(example: Example, *, before: bool) -> list[Verdict]:
    """Verdicts on the text itself (`before`), or on what was induced and taken; candidates and drafts show their own."""
    elsewhere = {v.name for c in example.candidates for v in c.verdicts} | {v.name for d in example.drafts for v in d.verdicts}
    own = [v for v in example.verdicts if v.name not in elsewhere and not v.name.startswith(("pair.", _REJECTED))]
    return [v for v in own if (stage_of(v) == "collect") == before]


def _taken(example: Example) -> int | None:
    """Which candidate became the prompt: the first that nothing stood in the way of."""
    if not example.prompt:
        return None
    return next((i for i, c in enumerate(example.candidates) if c.text == example.prompt and not any(v.drops for v in c.verdicts)), None)


def _accepted(example: Example) -> int | None:
    """Which draft became a side of the pair."""
    return next((number for number, draft in enumerate(example.drafts) if draft is example.accepted), None)


def _named(verdicts: Iterable[Verdict]) -> str:
    return ", ".join(v.name for v in verdicts)


def _heading(console: Console, text: str) -> None:
    console.print()
    _print(console, Text(text), "bold")


def _print(console: Console, text: Text, style: str = "") -> None:
    console.print(text, style=style or None, soft_wrap=True, highlight=False)
