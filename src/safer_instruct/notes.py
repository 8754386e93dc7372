"""What a finished run says of itself in sentences, for terminal, card and report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safer_instruct.oneline import listed, many

_AGAINST_CUTS = {
    "induce.unfinished": "raise induce.max_tokens, or turn the model's reasoning off",
    "verify.unfinished": "raise max_tokens, of 'respond' or of the expert, turn the model's reasoning off, or ask for shorter answers in the guideline",
    "rejected.unfinished": "raise rejected.max_tokens, or turn the model's reasoning off",
}


def unread_said(unread: Mapping[str, Any]) -> str:
    """Which files were not read to their end, in words without a stop; `unread` as in the summary."""
    files, places = unread["files"], unread["places"]
    rest = f" and {files - len(places):,} more" if files > len(places) else ""
    return f"{many(files, 'file')} {'was' if files == 1 else 'were'} not read to the end; nothing was read from {', '.join(places)}{rest} on"


def unread_note(unread: Mapping[str, Any]) -> str:
    """The same for terminal and card, with what to do."""
    return (
        f"{unread_said(unread)}. However many rows are lost with it, such an end counts as one row set aside; "
        "rejected_rows.jsonl says why: replace the file, and give the 'run' command again"
    )


def changed_notes(changed: Mapping[str, bool]) -> list[str]:
    """Which files were written to while they were read, and what to do, for terminal and card; `changed` says of each whether it only grew."""
    mixed = "rows of two versions may stand in this run"
    missing = f"rows added since may be missing, and where it was written anew, {mixed}"
    notes = []
    for grew, verb, result in ((False, "changed", mixed), (True, "grew", missing)):
        if names := [name for name, only_grew in changed.items() if only_grew == grew]:
            read = f"{verb} while {'it was' if len(names) == 1 else 'they were'} read"
            notes.append(f"{listed(names)} {read}: {result}; give the same command again once nothing writes there, finished calls are not made twice")
    return notes


def no_pair(path: Path, summary: Mapping[str, Any]) -> str:
    """What to say of the finished run at `path` where it has no pair, with what dropped the most and what to do."""
    check, count = most_dropped(summary)
    if not count:
        return f"{path} holds no pair: every example was dropped; what dropped them: safer-instruct filters {path}"
    empty = f"all answers, as they came: safer-instruct ledger {path} --export calls.jsonl" if check.endswith(".empty") else ""
    steps = (
        against_cuts(check) or empty,
        f"some of those, with the reason: safer-instruct filters {path} --dropped-by {check}",
        f"what dropped the others: safer-instruct filters {path}" if count < summary["dropped"] else "",
    )
    return f"{path} holds no pair: every example was dropped, {count:,} of {summary['dropped']:,} by {check}; {'; '.join(filter(None, steps))}"


def most_dropped(summary: Mapping[str, Any]) -> tuple[str, int]:
    """The check that dropped the most examples, of equal ones the first in the order of the flow, and how many; 0 where nothing was dropped."""
    dropped = (each for stage in summary["stages"].values() for each in stage["dropped"].items())
    return max(dropped, key=lambda each: each[1], default=("", 0))


def against_cuts(check: str) -> str:
    """What to do where `check` drops completions that did not end; empty for any other check."""
    return _AGAINST_CUTS.get(check, "")


def side_notes(summary: Mapping[str, Any]) -> list[str]:
    """What a person should know of the two sides, in sentences for terminal and card."""
    notes = []
    if side := summary.get("rejected"):
        before, after = summary["length_gap"]["source"], summary["length_gap"]["pairs"]
        gap = f"; chosen minus rejected, in words: mean {before['mean']:+.1f} with the source text, {after['mean']:+.1f} as the pairs are" if after else ""
        kept = f", {side['fallback']} keep the source text because none passed, {side['fitting']} because it fits as it is"
        notes.append(f"rejected side '{side['form']}': {side['replaced']} of {summary['pairs']} pairs{kept}{gap}")
    if twins := summary.get("twins"):
        near = f"; their chrF to the instruction is {twins['similarity']['mean']:.2f} on the mean" if twins["similarity"] else ""
        dropped = ", ".join(f"{name} {n}" for name, n in twins["dropped"].items())
        notes.append(
            f"contrast twins, counted apart: {twins['out']} of {twins['in']} came through{f' (dropped: {dropped})' if dropped else ''}{near}; "
            f"the column 'twin_of' marks them"
        )
    return notes
