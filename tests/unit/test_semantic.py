"""Embedders, and duplicates in meaning."""

from __future__ import annotations

import numpy as np
import pytest

from safer_instruct.embed import load_embedder
from safer_instruct.errors import ConfigError
from safer_instruct.filters.semantic import deduplicate_vectors
from safer_instruct.minilm import Bert


def unit(*rows: list[float]) -> np.ndarray:
    vectors = np.array(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_best_of_each_direction_stays() -> None:
    vectors = unit([1, 0], [1, 0.05], [0, 1], [0.05, 1])
    found = deduplicate_vectors(vectors, [1.0, 2.0, 2.0, 1.0], threshold=0.95)
    assert found.keep.tolist() == [False, True, True, False]
    assert (found.kept.tolist(), found.cluster.tolist()) == ([1, 1, 2, 2], [0, 0, 2, 2])
    assert found.similarity[0] == pytest.approx(float(vectors[0] @ vectors[1]))


def test_it_is_the_same_as_comparing_one_by_one_over_many_blocks() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(*rng.normal(size=(2_500, 3)).tolist())
    scores = rng.integers(0, 5, 2_500).astype(float)
    found = deduplicate_vectors(vectors, scores.tolist(), threshold=0.97)
    stay: list[int] = []
    for i in sorted(range(2_500), key=lambda i: (-scores[i], i)):
        if not stay or float((vectors[stay] @ vectors[i]).max()) < 0.97:
            stay.append(i)
    assert sorted(stay) == np.flatnonzero(found.keep).tolist()


def test_nothing_in_nothing_out() -> None:
    assert len(deduplicate_vectors(np.empty((0, 4), np.float32), threshold=0.9).keep) == 0


def test_static_vectors_are_of_length_one_and_do_not_depend_on_their_company() -> None:
    pytest.importorskip("wordllama")
    embedder = load_embedder()
    texts = ["How do I reset my password?", "A much longer text about the weather in the hills, and what to wear.", "\ud800 broken", ""]
    vectors = embedder.embed(texts)
    assert vectors.shape == (4, 256) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx([1, 1, 1, 0], abs=1e-5)
    assert all((embedder.embed([text])[0] == vector).all() for text, vector in zip(texts, vectors, strict=True))


def test_a_paraphrase_is_nearer_than_another_subject() -> None:
    pytest.importorskip("wordllama")
    one, same, other = load_embedder().embed(
        ["How do I get coffee out of a shirt?", "What removes a coffee stain from clothes?", "Which river runs through Paris?"]
    )
    assert float(one @ same) > float(one @ other) + 0.2


def test_an_unknown_embedder_is_refused_with_what_there_is() -> None:
    for name in ("glove", "sentence-transformers:", "static:x"):
        with pytest.raises(ConfigError, match="write 'static', 'minilm' or 'sentence-transformers:NAME-OR-FOLDER'"):
            load_embedder(name)


def test_the_forward_pass_in_numpy_is_that_of_transformers() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=12, intermediate_size=48)
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
        ids = torch.randint(0, 50, (3, 7))
        expected = model(ids).last_hidden_state.numpy()
    ours = Bert({name: tensor.numpy() for name, tensor in model.state_dict().items()}, 12)(ids.numpy())
    assert np.abs(ours - expected).max() < 1e-4
