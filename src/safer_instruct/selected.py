"""`safer-instruct select`: from the pairs of a finished run, the set that is best and most varied."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safer_instruct import rundir, tables
from safer_instruct.choosing import Choice, Pair, choose_pairs
from safer_instruct.conversation import conversational
from safer_instruct.errors import RunDirectoryError
from safer_instruct.example import Example, Verdict
from safer_instruct.holding import hold
from safer_instruct.notes import no_pair
from safer_instruct.oneline import many
from safer_instruct.selectconfig import SelectConfig
from safer_instruct.stored import read_examples
from safer_instruct.wholefile import whole, write_whole

_COLUMNS = (
    *("id", "prompt", "chosen", "text", "rejected", "category", "margin", "file", "line", "twin_of"),
    *(f"history.list.element.{name}" for name in ("role", "content")),
    *(f"verdicts.list.element.{name}" for name in ("name", "passed", "reason", "flag")),
)


def select_from_run(path: Path, config: SelectConfig) -> dict[str, Any]:
    """Choose among the pairs of a finished run; the run itself stays as it is.

    Writes `selected.jsonl` and `selected.parquet`, in the order of choice, so that any beginning of them is a smaller choice, and
    `selection.json`: counts, coverage, and each cluster of duplicates with who stayed.

    Args:
        path: The run directory.
        config: What to choose.

    Returns:
        What became `selection.json`.

    Raises:
        RunDirectoryError: There is no finished run, it has no pair, or its examples cannot be read.
        ConfigError: A quota names a category that no pair has.
        MissingExtraError: The embedder is not installed.
    """
    summary = rundir.read_summary(path)
    twins = "twins" in summary
    with hold(path):
        examples = [example for example in read_examples(path, _COLUMNS) if example.alive]
        if not examples:
            raise RunDirectoryError(no_pair(path, summary))
        pairs = [Pair.of(example) for example in examples]
        choice = choose_pairs(pairs, config)
        conversations = tables.holds_conversations(path)
        rows = [_as_row(examples[i], conversations=conversations, twins=twins) for i in sorted(choice.living(), key=lambda i: (_place(choice, i), i))]
        report = _report(pairs, choice, config)
        _write(path, rows, tables.pair_schema(conversations=conversations, twins=twins))
        write_whole(path / rundir.SELECTION, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


def describe(path: Path, report: Mapping[str, Any]) -> str:
    """A few lines on what was chosen."""
    gone = ", ".join(f"{name}: {count:,}" for name, count in report["dropped"].items()) or "none"
    lines = [f"{report['selected']:,} of {many(report['pairs'], 'pair')}: {path / rundir.SELECTED_JSONL}", f"dropped: {gone}"]
    if len(report["categories"]) > 1:
        lines.append("by category: " + ", ".join(f"{name}: {count:,}" for name, count in report["categories"].items()))
    if report["coverage"] is not None:
        lines.append(f"coverage {report['coverage']}: mean cosine of a prompt to the nearest chosen one")
    return "\n".join(lines)


def _as_row(example: Example, *, conversations: bool, twins: bool) -> dict[str, Any]:
    return conversational(tables.conversation_row(example, twins=twins)) if conversations else dict(tables.pair_row(example, twins=twins))


def _place(choice: Choice, at: int) -> float:
    """1 for the pair that was chosen first."""
    return next((v.score or 0.0 for v in choice.verdicts[at] if v.name == "select"), 0.0)


def _report(pairs: Sequence[Pair], choice: Choice, config: SelectConfig) -> dict[str, Any]:
    living = choice.living()
    dropped = {i: said[-1] for i, said in enumerate(choice.verdicts) if said and not said[-1].passed}
    members: dict[str, list[int]] = {}
    for i, cluster in enumerate(choice.clusters):
        members.setdefault(cluster, []).append(i)
    clusters = [_cluster(group, pairs, dropped) for group in members.values() if len(group) > 1]
    return {
        "pairs": len(pairs),
        "selected": len(living),
        "dropped": dict(sorted(Counter(verdict.name for verdict in dropped.values()).items())),
        "categories": dict(sorted(Counter(pairs[i].category for i in living).items())),
        "coverage": choice.coverage,
        "config": config.model_dump(mode="json"),
        "clusters": clusters,
    }


def _cluster(group: Sequence[int], pairs: Sequence[Pair], dropped: Mapping[int, Verdict]) -> dict[str, Any]:
    """Who of a cluster stayed, and who went, how similar, and why. What was not chosen was no duplicate."""
    gone = [i for i in group if i in dropped and dropped[i].name != "select"]
    return {
        "kept": [pairs[i].id for i in group if i not in gone],
        "dropped": [{"id": pairs[i].id, "by": dropped[i].name, "similarity": dropped[i].score, "reason": dropped[i].reason} for i in gone],
    }


def _write(path: Path, rows: Sequence[dict[str, Any]], schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with whole(path / rundir.SELECTED, sole=True) as parquet, whole(path / rundir.SELECTED_JSONL, sole=True) as jsonl:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), parquet, compression="zstd")
        with jsonl.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
