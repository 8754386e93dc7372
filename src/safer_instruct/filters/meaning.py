"""Benchmarks by what their prompts mean: contamination in other words, which no run of words shows."""

from __future__ import annotations

from collections.abc import Sequence

from safer_instruct.embed import load_embedder


class BenchmarkMeaning:
    """The vectors of some benchmarks' prompts."""

    def __init__(self, benchmarks: Sequence[tuple[str, Sequence[str]]], embedder: str) -> None:
        """Embed all prompts; 1 kB each with the static embedder.

        Args:
            benchmarks: Name and prompts of each.
            embedder: As for `embed.load_embedder`.

        Raises:
            ConfigError: There is no such embedder.
            MissingExtraError: It is not installed.
        """
        self._prompts = [(name, prompt) for name, prompts in benchmarks for prompt in prompts]
        self._embedder = load_embedder(embedder)
        self._vectors = self._embedder.embed([prompt for _, prompt in self._prompts]) if self._prompts else None

    def nearest(self, text: str) -> tuple[float, str, str]:
        """Cosine, benchmark and prompt of the nearest; 0 and empty where there is no prompt."""
        if self._vectors is None:
            return 0.0, "", ""
        cosines = self._vectors @ self._embedder.embed([text])[0]
        at = int(cosines.argmax())
        return float(cosines[at]), *self._prompts[at]
