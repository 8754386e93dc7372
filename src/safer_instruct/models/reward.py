"""Reward models: a sequence classifier of the user's, in this process (transformers) or behind an address.

`score` gives one number, the reward of the continuation as the answer to the prompt: the logit of a classifier with one label,
as reward models have (Ouyang et al. 2022, section 3.5), and of one with several the log-odds of the label that the model string
names behind `#`: `reward:PATH#polite`.

Served: vLLM's `/classify`, which takes a chat, and SGLang's and others' `/v1/classify` of that shape.
https://docs.vllm.ai/en/stable/models/pooling_models/classify/
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat

from safer_instruct.errors import AccessError, ConfigError, ModelError
from safer_instruct.extras import require
from safer_instruct.models.addresses import Address, read_addresses
from safer_instruct.models.chat import authorization, messages
from safer_instruct.models.codec import control_tokens, defused
from safer_instruct.models.flow import Limits
from safer_instruct.models.parsing import MalformedError, shaped
from safer_instruct.models.protocol import Generated, Generation, Scored, Scoring, Turn, Usage
from safer_instruct.models.remote import RemoteModel
from safer_instruct.models.spending import Spending, Tokens, reported
from safer_instruct.wholefile import sha256_of

_WEIGHTS = ("*.safetensors", "*.bin", "config.json", "tokenizer*.json", "chat_template.jinja")


class TransformersReward:
    """A sequence classifier in a folder, run by transformers on this machine; one answer at a time."""

    priced, status, concurrency = True, "", 1

    def __init__(self, name: str, base: Path, *, max_tokens: int = 2048) -> None:
        """Look for the weights; they are loaded with the first call.

        Args:
            name: The folder, relative to `base`, and behind `#` the label that is good where there are several.
            base: What it is relative to.
            max_tokens: Longer chats lose their beginning.

        Raises:
            MissingExtraError: The extra `train` is not installed.
            ModelError: There is no model in the folder.
        """
        require("torch", extra="train", purpose="a reward model")
        require("transformers", extra="train", purpose="a reward model")
        folder, _, self._label = name.partition("#")
        self._folder, self._max_tokens = base / folder, max_tokens
        if not (self._folder / "config.json").is_file():
            raise ModelError(f"reward:{name}: {self._folder} holds no model (config.json is missing); name a folder, or set base_url for a served one")
        self.name = f"reward:{name}"
        self.fingerprint = f"{self.name}@{_digest(self._folder)}:{max_tokens}"
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None

    async def generate(self, request: Generation) -> Generated:
        """A classifier writes nothing."""
        raise AccessError(f"{self.name} is a reward model and writes nothing; name it as models.reward only")

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`: one number, the reward."""
        return await asyncio.to_thread(self._score, request)

    async def close(self) -> None:
        """Free the weights."""
        self._loaded = None

    def _score(self, request: Scoring) -> Scored:
        import torch

        started = time.monotonic()
        with self._lock, torch.inference_mode():
            tokenizer, model = self._loaded = self._loaded or self._load()
            encoded = _encode(tokenizer, request, self._max_tokens)
            logits = [float(value) for value in model(**encoded).logits[0]]
        labels = {str(label): int(i) for i, label in model.config.id2label.items()}
        reward = _reward(logits, self._label, labels, self.name)
        return Scored((reward,), Usage(int(encoded["input_ids"].shape[-1]), 0, seconds=time.monotonic() - started))

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._folder)
            model = AutoModelForSequenceClassification.from_pretrained(self._folder)
        except (OSError, ValueError) as exc:
            raise ModelError(f"{self.name}: {self._folder} cannot be opened as a sequence classifier: {exc}") from exc
        return tokenizer, model.eval()


class _Row(BaseModel):
    probs: list[FiniteFloat]
    label: str | None = None


class _Usage(BaseModel):
    prompt_tokens: Any = None


class _Classified(BaseModel):
    data: list[_Row]
    usage: _Usage | None = None


class ServedReward(RemoteModel):
    """A sequence classifier behind one or several addresses that answer `/classify`."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str | Sequence[str],
        api_key_env: str = "",
        limits: Limits | None = None,
        spending: Spending | None = None,
        revision: str | None = None,
    ) -> None:
        """Check what can be checked without a call.

        Args:
            name: The name that the endpoint knows the model by; behind `#` the number of the label that is good where there are several.
            base_url: What stands before `/classify`: for vLLM without `/v1`, for SGLang with it.
            api_key_env: Name of the environment variable that holds the key.
            limits: What is kept to at each endpoint.
            spending: Prices the calls.
            revision: What is served, in the user's words; then the addresses are no part of the fingerprint.

        Raises:
            ConfigError: What stands behind `#` is no number.
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        model, _, self._label = name.partition("#")
        if self._label and not self._label.isdecimal():
            raise ConfigError(f"reward:{name}: a served classifier does not tell its labels in order; write the number of the good one behind '#'")
        addresses = read_addresses(base_url, api_key_env, f"reward:{name}")
        super().__init__(f"reward:{name}", model, addresses, limits=limits, spending=spending, headers=authorization, revision=revision)

    async def generate(self, request: Generation) -> Generated:
        """A classifier writes nothing."""
        raise AccessError(f"{self.name} is a reward model and writes nothing; name it as models.reward only")

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`: one number, the reward."""
        chat = [*messages(request.prompt), {"role": "assistant", "content": request.continuation}]
        body = {"model": self._model, "messages": chat, "use_activation": False}
        logits, usage = await self._remote.ask("/classify", body, request, _read)
        labels = {str(i): i for i in range(len(logits))}
        return Scored((_reward(logits, self._label, labels, self.name),), usage)

    def _hints(self, address: Address, status: int, message: str, body: Mapping[str, Any]) -> list[str]:
        hints = super()._hints(address, status, message, body)
        return [*hints, "base_url is what stands before '/classify': for vLLM without '/v1'"] if status == 404 else hints


def _read(data: dict[str, Any]) -> tuple[list[float], Tokens | None]:
    answer = shaped(data, _Classified)
    if len(answer.data) != 1 or not answer.data[0].probs:
        raise MalformedError(f"{len(answer.data)} classifications where one was asked for")
    told = reported(answer.usage.prompt_tokens) if answer.usage else None
    return list(answer.data[0].probs), Tokens(told[0], 0) if told else None


def _reward(logits: Sequence[float], label: str, labels: Mapping[str, int], name: str) -> float:
    """The only logit, or the log-odds of `label` among several."""
    if len(logits) == 1:
        return round(logits[0], 6)
    if label not in labels:
        raise AccessError(f"{name}: the classifier has {len(logits)} labels; name the good one behind '#': {', '.join(labels)}")
    good, others = logits[labels[label]], [value for i, value in enumerate(logits) if i != labels[label]]
    most = max(others)
    return round(good - most - math.log(sum(math.exp(value - most) for value in others)), 6)


def _encode(tokenizer: Any, request: Scoring, max_tokens: int) -> Any:
    """The chat with the response as the assistant's turn; without a chat template prompt and response as a pair of texts.

    Control tokens that a text spells out are broken up, as `Codec` does it: a response cannot add turns that praise it.
    """
    turns = request.prompt if not isinstance(request.prompt, str) else (Turn("user", request.prompt),)
    control = control_tokens(tokenizer.added_tokens_decoder.values())
    chat = [{"role": t.role, "content": defused(t.content, control)} for t in (*turns, Turn("assistant", request.continuation))]
    tokenizer.truncation_side = "left"
    given: dict[str, Any] = {"return_tensors": "pt", "truncation": True, "max_length": max_tokens}
    if not tokenizer.chat_template:
        *prompt, response = (turn["content"] for turn in chat)
        return tokenizer("\n".join(prompt), response, **given)
    return tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False, **given)


def _digest(folder: Path) -> str:
    """Of the weights and everything that decides how they are used."""
    digest = hashlib.sha256()
    for path in sorted({file for pattern in _WEIGHTS for file in folder.glob(pattern)}):
        digest.update(path.name.encode())
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()[:32]
