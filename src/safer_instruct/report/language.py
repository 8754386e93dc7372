"""What the prompts are about: verbs and objects, how varied they are, and where they lie beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from safer_instruct.analysis.diversity import Clusters, hashed, plane, self_bleu, vendi
from safer_instruct.analysis.similarity import distinct
from safer_instruct.analysis.verbnoun import structure
from safer_instruct.embed import load_embedder
from safer_instruct.errors import MissingExtraError
from safer_instruct.report.document import Figure, Section, Table
from safer_instruct.report.gather import RunView
from safer_instruct.visible import shorten

if TYPE_CHECKING:
    from safer_instruct.embed import Vectors

_DISTINCT_OVER, _BLEU_OVER, _VENDI_OVER, _MAPPED = 2_000, 500, 2_000, 4_000
_HOVER_CHARS = 160
_CLUSTERS_SHOWN = 8
_LEAST_COVERED = 0.3


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of each run's sampled prompts, and what made them."""

    vectors: tuple[Vectors, ...]
    by: str
    note: str


def embed_prompts(views: Sequence[RunView]) -> Embedded:
    """Embed a sample of each run's prompts; without the extra `embed`, by the words that they share."""
    texts = [[pair.prompt for pair in view.pairs[:_MAPPED]] for view in views]
    try:
        embedder = load_embedder()
    except MissingExtraError:
        every = hashed([text for column in texts for text in column])
        begins = [sum(map(len, texts[:i])) for i in range(len(texts) + 1)]
        cut = tuple(every[a:b] for a, b in pairwise(begins))
        return Embedded(cut, "shared words", "Vendi score and map go by shared words; pip install 'safer-instruct[embed]' makes them go by meaning.")
    return Embedded(tuple(embedder.embed(column) for column in texts), f"the embedder '{embedder.name}'", "")


def instructions(views: Sequence[RunView]) -> Section:
    """A sunburst of verbs and their objects per run."""
    figures = []
    for number, view in enumerate(views):
        found = structure(pair.prompt for pair in view.pairs)
        top = found.top()
        tree = [{"name": verb, "value": count, "children": _children(count, nouns)} for verb, count, nouns in top]
        rows = tuple((verb, count, ", ".join(f"{noun} ({n})" for noun, n in nouns)) for verb, count, nouns in top)
        says = f"A verb with an object was found in {found.coverage:.1%} of {found.texts:,} prompts"
        says += ", which is too few to stand for the set." if found.coverage < _LEAST_COVERED else "."
        if top:
            says += f" The commonest verb is '{top[0][0]}' ({top[0][1] / max(1, found.texts):.0%})."
        title = "Verbs and their objects" + (f": {view.name}" if len(views) > 1 else "")
        figures.append(
            Figure(f"verbs-{number}", title, says, "sunburst", {"tree": tree}, Table("", ("verb", "prompts", "objects"), rows), wide=len(views) == 1)
        )
    intro = (
        "Inner ring: the verb that a prompt turns on; outer ring: its object. Found by word order and a list of verbs, for English; a heuristic and no parser."
    )
    return Section("instructions", "Verbs", "What the prompts ask for", intro, tuple(figures))


def _children(count: int, nouns: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """The objects drawn, and one slice for the others."""
    drawn: list[dict[str, Any]] = [{"name": noun, "value": n} for noun, n in nouns]
    rest = count - sum(n for _, n in nouns)
    return [*drawn, {"name": "others", "value": rest, "rest": True}] if rest else drawn


def diversity(views: Sequence[RunView], embedded: Embedded) -> Section:
    """Figures of variety side by side, near-duplicate clusters, and the map."""
    clusters = [view.clusters for view in views]
    parts: list[Figure | Table] = [_figures(views, clusters, embedded)]
    parts += [_clusters(view, found) for view, found in zip(views, clusters, strict=True) if found.sizes]
    parts.append(_map(views, embedded))
    intro = "Measured on equally many prompts of each set, since all of these figures move with the number of texts."
    return Section("diversity", "Diversity", "Diversity", intro, tuple(parts))


def _figures(views: Sequence[RunView], clusters: Sequence[Clusters], embedded: Embedded) -> Table:
    least = min(len(view.pairs) for view in views)
    prompts = [[pair.prompt for pair in view.pairs] for view in views]
    responses = [[pair.chosen for pair in view.pairs] for view in views]
    n, bleu, effective = min(least, _DISTINCT_OVER), min(least, _BLEU_OVER), min(least, _VENDI_OVER)
    rows: list[tuple[Any, ...]] = [
        (
            f"distinct-{order} of prompts",
            *(f"{distinct(column[:n], order):.3f}" for column in prompts),
            f"different over all {order}-grams, {n:,} prompts; higher is more varied",
        )
        for order in (1, 2, 3)
    ]
    varied = [f"{distinct(column[:n], 2):.3f}" if any(column[:n]) else "" for column in responses]
    rows.append(("distinct-2 of chosen", *varied, f"the same of {n:,} chosen responses"))
    rows.append(
        ("self-BLEU of prompts", *(f"{self_bleu(column[:bleu]):.3f}" for column in prompts), f"each against the others, {bleu:,} prompts; lower is more varied")
    )
    rows.append(
        (
            "Vendi score of prompts",
            *(f"{vendi(v[:effective]):,.1f}" for v in embedded.vectors),
            f"effective number of different prompts among {effective:,}, by {embedded.by}",
        )
    )
    shares = [f"{found.clustered / found.texts:.1%}" if found.texts else "" for found in clusters]
    rows.append(("near-duplicate prompts", *shares, "share of all prompts that stand in a group of Jaccard similarity 0.7 (word trigrams)"))
    return Table("Variety", ("figure", *(view.name for view in views), "what it says"), tuple(rows))


def _clusters(view: RunView, found: Clusters) -> Table:
    rows = tuple((size, shorten(view.prompts[first], 200)) for size, first in zip(found.sizes[:_CLUSTERS_SHOWN], found.examples, strict=False))
    return Table(f"Largest groups of near-duplicate prompts: {view.name} ({len(found.sizes):,} groups)", ("prompts", "the first of them"), rows)


def _map(views: Sequence[RunView], embedded: Embedded) -> Figure:
    import numpy as np

    points, share = plane(np.concatenate(embedded.vectors))
    pairs = [(view, pair) for view in views for pair in view.pairs[:_MAPPED]]
    groups: dict[str, list[list[Any]]] = {}
    for (view, pair), (x, y) in zip(pairs, points.tolist(), strict=True):
        groups.setdefault(view.name if len(views) > 1 else pair.category, []).append([round(x, 3), round(y, 3), shorten(pair.prompt, _HOVER_CHARS)])
    ordered = list(groups.items()) if len(views) > 1 else sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    says = f"{len(pairs):,} prompts, by {embedded.by}; near means alike. The two directions (PCA) show {share:.0%} of the variance, so distances are rough."
    rows = tuple((name, len(found), shorten(found[0][2], 100)) for name, found in ordered)
    data = {"groups": [{"name": name, "points": found} for name, found in ordered]}
    return Figure(
        "map", "Map of the prompts", says, "scatter", data, Table("", ("run" if len(views) > 1 else "category", "prompts", "one of them"), rows), wide=True
    )
