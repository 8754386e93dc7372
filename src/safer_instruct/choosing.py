"""What set-level checks say of columns: near-duplicates of a text or an instruction, and which pairs make the set.

Columns in, verdicts out: nothing here knows of files, streams or runners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safer_instruct.conversation import in_context
from safer_instruct.embed import load_embedder
from safer_instruct.errors import ConfigError
from safer_instruct.example import Example, Verdict
from safer_instruct.filters.contradictions import find_contradictions
from safer_instruct.filters.near import Deduplicated, deduplicate
from safer_instruct.filters.semantic import deduplicate_vectors
from safer_instruct.selectconfig import SelectConfig
from safer_instruct.selection import coverage, select, share_out
from safer_instruct.settings.semantic import SemanticConfig

if TYPE_CHECKING:
    from safer_instruct.embed import Vectors


@dataclass(frozen=True, slots=True)
class Pair:
    """What the choice looks at."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    category: str
    margin: float | None

    @classmethod
    def of(cls, example: Example) -> Pair:
        """What there is to look at of an example that is a pair; its prompt stands after what was said before."""
        prompt = in_context(example.history, example.prompt)
        return cls(example.id, prompt, example.chosen, example.rejected_text, example.category, example.margin)


@dataclass(slots=True)
class Choice:
    """What was said of n pairs.

    Attributes:
        verdicts: [n] Of each pair; the one that drops it is last.
        clusters: [n] Id of the first pair of its cluster of duplicates.
        coverage: Mean cosine of the prompts that are no duplicates to the nearest chosen one; None where none were embedded.
    """

    verdicts: list[list[Verdict]]
    clusters: list[str]
    coverage: float | None = None

    def living(self) -> list[int]:
        """Positions of the pairs that nothing has dropped."""
        return [i for i, said in enumerate(self.verdicts) if all(v.passed for v in said)]


def distinct(name: str, ids: Sequence[str], texts: Sequence[str], scores: Sequence[float] | None, threshold: float) -> list[Verdict]:
    """A verdict `name` per text: of near-duplicates the one with the best score passes (see `near.deduplicate`)."""
    return _said(name, ids, deduplicate(texts, scores, threshold=threshold))


def distinct_texts(field: str, rows: Sequence[tuple[str, str, float]], near: float, semantic: SemanticConfig | None) -> list[list[Verdict]]:
    """What is said of each (id, text, score): a near-duplicate, and of those that are none, a duplicate in meaning where that is looked for.

    Args:
        field: `text` or `prompt`; verdicts are `dedup.text` and `dedup.semantic.text`.
        rows: In order.
        near: Jaccard similarity of word trigrams.
        semantic: Which cosine counts.
    """
    ids, texts, scores = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    said = [[verdict] for verdict in distinct(f"dedup.{field}", ids, texts, scores, near)]
    bound = getattr(semantic, field) if semantic else None
    if bound is not None and semantic is not None:
        left = [i for i, (verdict,) in enumerate(said) if verdict.passed]
        columns = [ids[i] for i in left], [texts[i] for i in left], [scores[i] for i in left]
        for i, verdict in zip(left, distinct_in_meaning(f"dedup.semantic.{field}", *columns, bound, semantic.embedder), strict=True):
            said[i].append(verdict)
    return said


def distinct_in_meaning(name: str, ids: Sequence[str], texts: Sequence[str], scores: Sequence[float] | None, threshold: float, embedder: str) -> list[Verdict]:
    """A verdict `name` per text: of those whose vectors point the same way the one with the best score passes.

    Raises:
        ConfigError: The embedder is unknown.
        MissingExtraError: It is not installed.
    """
    if not texts:
        return []
    return _said(name, ids, deduplicate_vectors(load_embedder(embedder).embed(texts), scores, threshold=threshold))


def choose_pairs(pairs: Sequence[Pair], config: SelectConfig) -> Choice:
    """Drop duplicate and contradictory pairs, keeping those with the largest margin, then choose as many as are wanted.

    Raises:
        ConfigError: A quota names a category that no pair has, or the embedder is unknown.
        MissingExtraError: The embedder is not installed.
    """
    ids = [pair.id for pair in pairs]
    choice = Choice([[] for _ in pairs], list(ids))
    _check_quotas(pairs, config)
    quality = [float("nan") if pair.margin is None or config.quality == "none" else pair.margin for pair in pairs]
    if config.near is not None:
        found = deduplicate(map(_whole, pairs), quality, threshold=config.near)
        _note(choice, "dedup.pair", ids, found, list(range(len(pairs))))
    if config.contradictions is not None:
        _resolve_contradictions(choice, pairs, quality, config.contradictions)
    alive = choice.living()
    if config.semantic is None and (config.target is None or config.target >= len(alive)) and config.quotas is None:
        return choice
    vectors = load_embedder(config.embedder).embed([pairs[i].prompt for i in alive])
    if config.semantic is not None:
        compared = vectors if config.semantic_of == "prompt" else load_embedder(config.embedder).embed([_whole(pairs[i]) for i in alive])
        found = deduplicate_vectors(compared, [quality[i] for i in alive], threshold=config.semantic)
        _note(choice, "dedup.semantic", [ids[i] for i in alive], found, alive)
        vectors, alive = vectors[found.keep], [i for i, keep in zip(alive, found.keep.tolist(), strict=True) if keep]
    if config.target is not None or config.quotas is not None:
        _choose(choice, [pairs[i] for i in alive], [quality[i] for i in alive], alive, vectors, config)
    return choice


def _resolve_contradictions(choice: Choice, pairs: Sequence[Pair], quality: Sequence[float], threshold: float) -> None:
    """Of a refusal and a compliance to nearly the same prompt only the pair with the larger margin stays."""
    alive = choice.living()
    prompts, chosen = ([getattr(pairs[i], side) for i in alive] for side in ("prompt", "chosen"))
    lost = {one.loser: one for one in find_contradictions(prompts, chosen, [quality[i] for i in alive], threshold=threshold)}
    for at, position in enumerate(alive):
        if at not in lost:
            choice.verdicts[position].append(Verdict("contradiction", True))
            continue
        mine, theirs = ("refuses", "answers") if lost[at].refuses else ("answers", "refuses")
        reason = f"{mine} what {pairs[alive[lost[at].winner]].id}, which is better or came first, {theirs}"
        choice.verdicts[position].append(Verdict("contradiction", False, lost[at].similarity, reason))


def _whole(pair: Pair) -> str:
    return f"{pair.prompt}\n{pair.chosen}\n{pair.rejected}"


def _choose(choice: Choice, pairs: Sequence[Pair], quality: Sequence[float], alive: Sequence[int], vectors: Vectors, config: SelectConfig) -> None:
    target = min(config.target or len(pairs), len(pairs))
    quotas = share_out(target, config.quotas) if config.quotas else None
    weight, groups = config.quality_weight if config.quality != "none" else 0.0, [pair.category for pair in pairs]
    chosen = select(vectors, quality, target, groups=groups, quotas=quotas, quality_weight=weight, seed=config.seed)
    places = {at: number for number, at in enumerate(chosen, 1)}
    for at, position in enumerate(alive):
        passed = at in places
        reason = "" if passed else f"is not among the {len(chosen)} chosen of {len(pairs)}"
        choice.verdicts[position].append(Verdict("select", passed, places.get(at), reason))
    choice.coverage = round(float(coverage(vectors, chosen).mean()), 4) if chosen else None


def _note(choice: Choice, name: str, ids: Sequence[str], found: Deduplicated, positions: Sequence[int]) -> None:
    for at, verdict in enumerate(_said(name, ids, found)):
        choice.verdicts[positions[at]].append(verdict)
        if int(found.cluster[at]) != at:
            choice.clusters[positions[at]] = choice.clusters[positions[int(found.cluster[at])]]


def _said(name: str, ids: Sequence[str], found: Deduplicated) -> list[Verdict]:
    said = []
    for keep, kept, similarity in zip(found.keep.tolist(), found.kept.tolist(), found.similarity.tolist(), strict=True):
        same = f"is a near-duplicate of {ids[kept]}, which is better or came first"
        said.append(Verdict(name, True) if keep else Verdict(name, False, round(similarity, 4), same))
    return said


def _check_quotas(pairs: Sequence[Pair], config: SelectConfig) -> None:
    there = {pair.category for pair in pairs}
    for name in config.quotas or ():
        if name not in there:
            raise ConfigError(f"select.quotas names the category '{name}', of which there is no pair; there are: {', '.join(sorted(there)) or 'none'}")
