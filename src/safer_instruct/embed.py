"""Texts as vectors, for likeness in meaning: semantic duplicates and diversity."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safer_instruct.errors import ConfigError, MissingExtraError
from safer_instruct.extras import require
from safer_instruct.minilm import MiniLM

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_PURPOSE = "embedding texts (semantic duplicates, diversity)"
_WEIGHTS, _TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
_CHARS = 4_000  # of a text: its beginning says what it is about
_BATCH = 2_048


class Embedder(Protocol):
    """Turns texts into vectors; the same text always gives the same vector, whatever it comes with."""

    name: str

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[n, d] One vector per text, of Euclidean length 1, so that a dot product is a cosine."""
        ...


def load_embedder(name: str = "static") -> Embedder:
    """The embedder called so.

    Args:
        name: `static`; `minilm`; or `sentence-transformers:NAME`, a model of that library by its name on a hub or by its folder.

    Raises:
        ConfigError: There is none of that name, or its weights are not there.
        MissingExtraError: What it needs is not installed.
    """
    kind, _, model = name.partition(":")
    if kind == "sentence-transformers" and model:
        return _SentenceTransformer(model)
    if name == "static":
        return Static()
    if name == "minilm":
        return MiniLM()
    raise ConfigError(f"there is no embedder '{name}'; write 'static', 'minilm' or 'sentence-transformers:NAME-OR-FOLDER'")


class Static:
    """The mean of one vector per token: the token vectors that the wheel of WordLlama carries (32,000 of 256 dimensions, MIT).

    They are read from its files; the package itself is not imported, for it would look for a tokenizer on a hub.
    """

    name = "static"

    def __init__(self) -> None:
        folder = _folder_of("wordllama")
        safetensors = require("safetensors.numpy", extra="embed", purpose=_PURPOSE)
        tokenizers = require("tokenizers", extra="embed", purpose=_PURPOSE)
        self._vectors = next(iter(safetensors.load_file(folder / _WEIGHTS).values())).astype("float32")
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / _TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[n, 256] One vector per text, of length 1; zeros for a text without a token."""
        import numpy as np

        found = [np.empty((0, self._vectors.shape[1]), np.float32)]
        for begin in range(0, len(texts), _BATCH):
            clean = [text[:_CHARS].encode("utf-8", "replace").decode() for text in texts[begin : begin + _BATCH]]
            found.append(self._means([encoding.ids for encoding in self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)]))
        return np.concatenate(found)

    def _means(self, ids: list[list[int]]) -> Vectors:
        import numpy as np

        means = np.zeros((len(ids), self._vectors.shape[1]), np.float32)
        for row, tokens in enumerate(ids):
            if tokens:
                means[row] = self._vectors[tokens].sum(axis=0)
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.float32(1e-12))
        return means


class _SentenceTransformer:
    """A model of sentence-transformers."""

    def __init__(self, model: str) -> None:
        self.name = f"sentence-transformers:{model}"
        library = require("sentence_transformers", extra="embed-torch", purpose=_PURPOSE)
        self._model: Any = library.SentenceTransformer(model)

    def embed(self, texts: Sequence[str]) -> Vectors:
        import numpy as np

        vectors = self._model.encode(list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)


def _folder_of(package: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(package, "embed", _PURPOSE)
    return Path(spec.submodule_search_locations[0])
