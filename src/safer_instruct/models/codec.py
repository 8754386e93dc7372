"""Text to tokens and back, for one converted model: the same object serves training, induction and scoring."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from safer_instruct.errors import ModelError
from safer_instruct.extras import require
from safer_instruct.models.chattemplate import ChatTemplate
from safer_instruct.models.protocol import UNFINISHED_USER

Message = Mapping[str, str]
_SPECIAL = ("bos_token", "eos_token", "unk_token")
_BREAK = "\N{SYMBOL FOR END OF TRANSMISSION}\N{SYMBOL FOR END OF TEXT}"


class Codec:
    """Tokenizer and chat template of one model.

    A prompt and its continuation are always encoded apart and joined as tokens, so a continuation has the same
    tokens in training, generation and scoring.
    """

    def __init__(self, folder: Path) -> None:
        """Read `tokenizer.json`, `chat.jinja` and `config.json` from a converted model.

        Raises:
            MissingExtraError: The extra `local` is not installed.
            ModelError: The chat template is not valid.
        """
        tokenizers = require("tokenizers", extra="local", purpose="the embedded model")
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        special = config.get("special_tokens") or {name: config[name] for name in _SPECIAL if config.get(name)}  # a tokenizer's, or a GGUF file's
        self._chat = ChatTemplate((folder / "chat.jinja").read_text(encoding="utf-8"), special)
        self.eos: str = config["eos_token"]
        self._bos: str | None = config["bos_token"] if config.get("begin_prompts") else None
        self.window: int | None = config.get("window")  # tokens that the engine can score at most

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; control tokens written in it are honoured, so never pass untrusted text here alone."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def prompt(self, prompt: str | Sequence[Message]) -> list[int]:
        """Token ids of a raw prompt, or of a chat up to the point where the assistant speaks.

        A raw prompt begins with the token of beginning where the model was trained so (`begin_prompts` in its `config.json`).
        Control tokens that a message spells out are broken up: a text cannot end its own turn.

        Raises:
            ModelError: The model has no chat template, or it refuses these messages.
        """
        if isinstance(prompt, str):
            begin = [self.token_id(self._bos)] if self._bos else []
            return begin + self.encode(self._defused(prompt))
        messages = [{"role": m["role"], "content": self._defused(m["content"])} for m in prompt]
        if messages[-1]["role"] == UNFINISHED_USER:
            return self.encode(self._up_to_the_end_of(messages))
        return self.encode(self._chat.render(messages, add_generation_prompt=True))

    def _up_to_the_end_of(self, messages: Sequence[Message]) -> str:
        """A chat up to where the user's last message breaks off."""
        *before, last = messages
        return self._chat.render([*before, {"role": "user", "content": last["content"] + _BREAK}], add_generation_prompt=False).rpartition(_BREAK)[0]

    def continuation(self, text: str, *, end: bool) -> list[int]:
        """Token ids of a continuation; with `end` the end token stands last."""
        ids = self.encode(self._defused(text))
        return [*ids, self.token_id(self.eos)] if end else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, control tokens left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary entries of `ids`."""
        return [self._tokenizer.id_to_token(i) for i in ids]

    def token_id(self, token: str) -> int:
        """Id of a vocabulary entry."""
        found: int | None = self._tokenizer.token_to_id(token)
        if found is None:
            raise ModelError(f"the vocabulary has no token {token!r}")
        return found

    def _defused(self, text: str) -> str:
        return defused(text, self._control())

    @lru_cache  # noqa: B019 - a codec lives as long as its engine
    def _control(self) -> tuple[str, ...]:
        return control_tokens(self._tokenizer.get_added_tokens_decoder().values())


def control_tokens(added: Iterable[Any]) -> tuple[str, ...]:
    """Those of a tokenizer's `added` tokens (`AddedToken`) that a text must not spell out."""
    return tuple(token.content for token in added if token.special and len(token.content) > 2)


def defused(text: str, control: Iterable[str]) -> str:
    """`text` with the `control` tokens that it spells out broken up behind their first character: it cannot end its own turn."""
    for token in control:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
