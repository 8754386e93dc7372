"""Texts without a category are given one, by keywords or by likeness in meaning: deterministic, one text at a time, without a call to a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safer_instruct.config import SourceConfig
from safer_instruct.detect.words import words, words_of
from safer_instruct.domain import Category, Domain
from safer_instruct.embed import load_embedder
from safer_instruct.errors import ConfigError
from safer_instruct.example import Verdict
from safer_instruct.settings.route import RouteConfig
from safer_instruct.sources import SourceRow, read_rows

if TYPE_CHECKING:
    from safer_instruct.embed import Embedder, Vectors

VERDICT = "collect.route"


class Scores(Protocol):
    """Tells how near a text is to each category."""

    digest: str

    def scores(self, text: str) -> Sequence[float]:
        """One score per category, in the order of the domain; the larger, the nearer."""
        ...


class Router:
    """Gives texts their category.

    Attributes:
        digest: Of all that decides beside the config: keywords of the domain file, labelled texts, the embedder.
    """

    def __init__(self, config: RouteConfig, domain: Domain, base: Path) -> None:
        """Read what it needs now, so that what is missing is known before the run.

        Raises:
            ConfigError: A category has no keywords, or the labelled texts are not usable.
            SourceError: The labelled texts cannot be read.
            MissingExtraError: The embedder is not installed.
        """
        self._config, self._names = config, tuple(domain.categories)
        self._scores: Scores = _Keywords(config, domain) if config.by == "keywords" else _Means(config, domain, base)
        self.digest = self._scores.digest

    def route(self, text: str) -> tuple[str, Verdict]:
        """The nearest category, and whether it is near enough."""
        scores = self._scores.scores(text)
        best = max(range(len(scores)), key=lambda at: (scores[at], -at))
        score = round(float(scores[best]), 4)
        return self._names[best], Verdict(VERDICT, not (reason := self._objection(scores, best)), score, reason)

    def _objection(self, scores: Sequence[float], best: int) -> str:
        config, unit = self._config, "keywords" if self._config.by == "keywords" else "cosine"
        if scores[best] < config.bound:
            return f"belongs to no category: the nearest is '{self._names[best]}' ({unit} {scores[best]:.4g}, below {config.bound:g})"
        others = [at for at in range(len(scores)) if at != best]
        next_ = max(others, key=lambda at: scores[at], default=None)
        if next_ is not None and scores[best] - scores[next_] < config.lead:
            both = f"'{self._names[best]}' ({unit} {scores[best]:.4g}) and '{self._names[next_]}' ({scores[next_]:.4g})"
            return f"stands between {both}: the lead is below {config.lead:g}"
        return ""


def open_router(source: SourceConfig, domain: Domain, base: Path) -> Router | None:
    """The router that a config asks for, or None where it asks for none. Raises what `Router` does."""
    return None if source.route is None else Router(source.route, domain, base)


def route_record(router: Router | None) -> dict[str, str]:
    """What routing depends on beside the config, for `run.yaml`; nothing where there is none."""
    return {} if router is None else {"route_sha256": router.digest}


class _Keywords:
    """Counts the different keywords of each category in a text."""

    def __init__(self, config: RouteConfig, domain: Domain) -> None:
        listed: Mapping[str, Sequence[str]] = config.keywords or {name: category.keywords for name, category in domain.categories.items()}
        for name in listed:
            domain.category(name)
        if lacking := [name for name in domain.categories if not listed.get(name)]:
            raise ConfigError(f"source.route by keywords: no keywords for {', '.join(lacking)}; list them in source.route.keywords or in the domain file")
        self._needles = [tuple(dict.fromkeys(map(_needle, listed[name]))) for name in domain.categories]
        self.digest = _digest(self._needles)

    def scores(self, text: str) -> list[float]:
        """See `Scores`."""
        joined = words_of(text).joined
        return [float(sum(needle in joined for needle in needles)) for needles in self._needles]


class _Means:
    """The cosine of a text to the mean of what is known of each category."""

    def __init__(self, config: RouteConfig, domain: Domain, base: Path) -> None:
        import numpy as np

        self._embedder: Embedder = load_embedder(config.embedder)
        labelled = _labelled(base, config.examples, domain) if config.examples else {}
        texts = [[*_known(name, category, domain), *labelled.get(name, ())] for name, category in domain.categories.items()]
        means = np.stack([self._embedder.embed(known).mean(axis=0) for known in texts])
        self._means: Vectors = (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        self.digest = _digest([config.embedder, texts])

    def scores(self, text: str) -> list[float]:
        """See `Scores`."""
        scores: list[float] = (self._means @ self._embedder.embed([text])[0]).tolist()
        return scores


def _known(name: str, category: Category, domain: Domain) -> list[str]:
    """What the domain file says of a category, and its examples of the side that the corpus is."""
    shown = [f"{pair.prompt} {pair.rejected if domain.direction == 'rejected' else pair.chosen}" for pair in category.examples]
    return [f"{name}. {category.definition}", *shown]


def _labelled(base: Path, path: str, domain: Domain) -> dict[str, list[str]]:
    """The texts of a file by their category."""
    found: dict[str, list[str]] = {}
    for row in read_rows(SourceConfig(path=path), base):
        text, category = (row.fields.get("text"), row.fields.get("category")) if isinstance(row, SourceRow) else (None, None)
        if not isinstance(text, str) or category not in domain.categories:
            said = f"its category is {category!r}" if isinstance(row, SourceRow) else row.reason
            raise ConfigError(f"{row.file}:{row.line}: not a text of one of {', '.join(domain.categories)}: {said}; mend it, as source.route.examples needs it")
        found.setdefault(str(category), []).append(text)
    return found


def _needle(keyword: str) -> str:
    """What stands in the words of a text, with one blank around each, where the keyword does."""
    said = " ".join(words(keyword.removesuffix("*")))
    return f" {said}" if keyword.endswith("*") else f" {said} "


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
