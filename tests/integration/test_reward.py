"""Reward models: a real classifier in transformers, tiny and untrained, and one behind a server that speaks vLLM's `/classify`."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from safer_instruct.config import ModelConfig
from safer_instruct.errors import AccessError, ConfigError, ModelError
from safer_instruct.models import open_model
from safer_instruct.models.protocol import Generation, Sampling, Scoring, Turn

WORDS = ["where", "is", "my", "parcel", "i", "am", "so", "sorry", "it", "comes", "tomorrow", "look", "again", "?", ",", "."]
ASKED = Scoring((Turn("user", "Where is my parcel?"),), "I am so sorry, it comes tomorrow.")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights, a word-level vocabulary, and one label."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("classifier")
    vocabulary = {
        word: i
        for i, word in enumerate(
            [
                "[PAD]",
                "[UNK]",
                "[CLS]",
                "[SEP]",
                *["where", "is", "my", "parcel", "i", "am", "so", "sorry", "it", "comes", "tomorrow", "look", "again", "?", ",", "."],
            ]
        )
    }
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = tokenizers.normalizers.Lowercase(), tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    transformers.set_seed(0)
    shape = {"vocab_size": len(vocabulary), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.BertForSequenceClassification(transformers.BertConfig(**shape, num_labels=1)).save_pretrained(folder)
    transformers.BertForSequenceClassification(transformers.BertConfig(**shape, id2label={0: "rude", 1: "kind", 2: "odd"})).save_pretrained(folder / "several")
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder / "several")
    return folder


def reward(model: str, base: Path, request: Scoring = ASKED, **config: Any) -> float:
    opened = open_model(ModelConfig(model=model, **config), base)

    async def ask() -> float:
        try:
            return (await opened.score(request)).mean
        finally:
            await opened.close()

    return asyncio.run(ask())


def test_a_classifier_gives_each_response_a_number_of_its_own(classifier: Path) -> None:
    first, again = (reward(f"reward:{classifier.name}", classifier.parent) for _ in range(2))
    other = reward(f"reward:{classifier.name}", classifier.parent, Scoring(ASKED.prompt, "Look again."))
    assert first == again != other and math.isfinite(first)


def test_of_several_labels_the_named_one_counts(classifier: Path) -> None:
    kind, rude, odd = (reward(f"reward:several#{label}", classifier) for label in ("kind", "rude", "odd"))
    shares = [1 / (1 + math.exp(-value)) for value in (kind, rude, odd)]  # log-odds, so the shares of all labels add up to one
    assert math.isclose(sum(shares), 1, abs_tol=1e-4)
    with pytest.raises(AccessError, match="the classifier has 3 labels; name the good one behind '#': rude, kind, odd"):
        reward("reward:several", classifier)


def test_the_fingerprint_changes_with_the_weights(classifier: Path, tmp_path: Path) -> None:
    for file in classifier.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    same = open_model(ModelConfig(model="reward:."), tmp_path).fingerprint
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert open_model(ModelConfig(model="reward:."), tmp_path).fingerprint != same


def test_a_folder_without_a_model_is_refused_and_so_is_writing(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        open_model(ModelConfig(model="reward:nothing"), tmp_path)
    model = open_model(ModelConfig(model=f"reward:{classifier.name}"), classifier.parent)
    with pytest.raises(AccessError, match="writes nothing"):
        asyncio.run(model.generate(Generation("Hello", Sampling())))


class Classify(BaseHTTPRequestHandler):
    """vLLM's `/classify` for a chat: one logit per label, the length of the last message among them."""

    labels = 1
    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        if self.path != "/classify":
            self.answer(404, {"error": {"message": "Not Found"}})
            return
        probs = [len(body["messages"][-1]["content"]) / 10, *[0.0] * (self.labels - 1)]
        data = [{"index": 0, "label": "LABEL_0", "probs": probs, "num_classes": self.labels}]
        self.answer(200, {"object": "list", "data": data, "usage": {"prompt_tokens": 9, "total_tokens": 9}})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def served() -> Iterator[tuple[str, type[Classify]]]:
    handler = type("Handler", (Classify,), {"asked": [], "labels": 1})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_served_classifier_is_asked_with_the_chat(served: tuple[str, type[Classify]], tmp_path: Path) -> None:
    url, handler = served
    assert reward("reward:my-rm", tmp_path, base_url=url) == 3.3
    assert handler.asked[0] == {
        "model": "my-rm",
        "messages": [{"role": "user", "content": "Where is my parcel?"}, {"role": "assistant", "content": "I am so sorry, it comes tomorrow."}],
        "use_activation": False,
    }


def test_of_a_served_classifier_s_labels_the_good_one_is_named_by_number(served: tuple[str, type[Classify]], tmp_path: Path) -> None:
    url, handler = served
    handler.labels = 2
    assert reward("reward:my-rm#0", tmp_path, base_url=url) == 3.3 and reward("reward:my-rm#1", tmp_path, base_url=url) == -3.3
    with pytest.raises(AccessError, match="has 2 labels"):
        reward("reward:my-rm", tmp_path, base_url=url)
    with pytest.raises(ConfigError, match="write the number of the good one"):
        reward("reward:my-rm#kind", tmp_path, base_url=url)


def test_a_wrong_address_is_told_with_what_it_should_be(served: tuple[str, type[Classify]], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="base_url is what stands before '/classify': for vLLM without '/v1'"):
        reward("reward:my-rm", tmp_path, base_url=f"{served[0]}/v1")
