"""Any OpenAI-compatible endpoint, hosted or one's own (vLLM, SGLang, llama-server, Ollama), over HTTP without an SDK.

A raw prompt goes to `/completions`, a chat to `/chat/completions`. What may pass is tried again, what cannot is an error at
once: see `remote`. The key is read from the environment and stands in the request header only.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from safer_instruct.errors import AccessError
from safer_instruct.models.addresses import HOSTS, Address, read_addresses
from safer_instruct.models.chat import Logprobs, authorization, completion_body, dialect_of, read_answer, read_completions
from safer_instruct.models.flow import Limits
from safer_instruct.models.parsing import FilteredError
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring, Usage
from safer_instruct.models.remote import UNKNOWN, USE_EMBEDDED, RemoteModel, fill_up
from safer_instruct.models.spending import Spending

_MOST_CHARS_PER_TOKEN = 8  # of text that is to be scored: what is left out at a token cap need not be sent
_NAMES_N = re.compile(r"""(['"`])n\1|\b(?:parameter|field|argument):? n\b""", re.I)


class OpenAIModel(RemoteModel):
    """A model behind one OpenAI-compatible endpoint, or several that serve the same weights."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | Sequence[str] = HOSTS["openai"].url,
        api_key_env: str = HOSTS["openai"].key_env,
        limits: Limits | None = None,
        spending: Spending | None = None,
        want_logprobs: bool = False,
        revision: str | None = None,
        provider: str = "openai",
    ) -> None:
        """Check what can be checked without a call.

        Args:
            model: The name that the endpoint knows the model by.
            base_url: Where `/completions` and `/chat/completions` are found; a query string is sent along. Of several
                addresses each call goes to the one with the least to do.
            api_key_env: Name of the environment variable that holds the key; endpoints on this machine need none.
            limits: What is kept to at each endpoint.
            spending: Prices the calls, and lets them draw on the run's budget.
            want_logprobs: Ask for `Completion.logprob`; not every endpoint knows it.
            revision: What is served, in the user's words; then the addresses are no part of the fingerprint.
            provider: Stands before the model's name.

        Raises:
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        name = f"{provider}:{model}"
        addresses = read_addresses(base_url, api_key_env, name)
        super().__init__(name, model, addresses, limits=limits, spending=spending, headers=authorization, revision=revision)
        self._want_logprobs, self._dialect = want_logprobs, dialect_of(provider, addresses[0].host)
        self.fingerprint += "+logprobs" if want_logprobs else ""

    def generate(self, request: Generation) -> Coroutine[Any, Any, Generated]:
        """See `Model.generate`."""
        return fill_up(request, self._complete)

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`; raw prompts only, on endpoints that echo the prompt with its log-probabilities."""
        if not isinstance(request.prompt, str):
            raise AccessError(f"{self.name} cannot score after a chat, only after a raw prompt ('value' has --layout raw for it); {USE_EMBEDDED}")
        if not request.continuation:
            return Scored(())
        continuation = request.continuation[: request.max_tokens * _MOST_CHARS_PER_TOKEN] if request.max_tokens else request.continuation
        body = {"model": self._model, "prompt": request.prompt + continuation, "echo": True, "max_tokens": 1, "temperature": 0, "logprobs": 1}
        answer, usage = await self._remote.ask("/completions", body, request, partial(read_answer, n=1))
        logprobs = _continuation_logprobs(answer.choices[0].logprobs or Logprobs(), len(continuation), usage.prompt_tokens)
        if not logprobs:
            raise AccessError(f"{self.name} at {self._remote.where} returns no log-probabilities of the prompt, so it cannot score; {USE_EMBEDDED}")
        return Scored(logprobs[: request.max_tokens], usage)

    async def _complete(self, request: Generation) -> tuple[list[Completion], Usage]:
        """The completions of one answer; of one that a content filter stopped, that many withheld ones, which cost nothing."""
        body = completion_body(self._model, request, self._dialect, want_logprobs=self._want_logprobs)
        path = "/completions" if isinstance(request.prompt, str) else "/chat/completions"
        try:
            return await self._remote.ask(path, body, request, partial(read_completions, n=body.get("n", 1), alternatives=bool(request.alternatives)))
        except FilteredError as exc:
            return [Completion(str(exc), withheld="filter")] * request.sampling.n, Usage()

    def _hints(self, address: Address, status: int, message: str, body: Mapping[str, Any]) -> list[str]:
        hints = super()._hints(address, status, message, body)
        hints += [f"this endpoint may not know {name}; {remedy}" for name, remedy in UNKNOWN.items() if name in body and name in message]
        if body.get("n", 1) > 1 and _NAMES_N.search(message):
            hints.append("this endpoint may not give several answers to one request; set induce.candidates and respond.drafts to 1")
        if "logprobs" in body and "echo" not in body and "logprobs" in message:
            hints.append("this endpoint may not give log-probabilities; set 'logprobs: false' for this model")
        if "response_format" in body and any(word in message.lower() for word in ("response_format", "schema", "structured output")):
            hints.append("this endpoint may not know JSON-schema output; set 'json_schema: false' for this model")
        if "echo" in body:
            hints.append(f"if this endpoint cannot score, {USE_EMBEDDED}")
        return hints


def _continuation_logprobs(logprobs: Logprobs, length: int, prompt_tokens: int) -> tuple[float, ...]:
    """The values of the tokens that hold any of the last `length` characters of an echoed prompt; none when they are not all known.

    Positions are counted back from the prompt's end: vLLM counts a start token such as `<s>`, which the prompt does not
    show, into the offsets. SGLang gives -1 for every offset; the tokens' own lengths serve as well.
    """
    tokens, values, offsets = logprobs.tokens or [], logprobs.token_logprobs or [], logprobs.text_offset or [-1]
    count = prompt_tokens if len(tokens) - prompt_tokens in (0, 1) else len(tokens) - 1  # one more token was generated, or none
    if count < 1 or len(values) != len(tokens):
        return ()
    if min(offsets) < 0 or len(offsets) != len(tokens):
        offsets = list(accumulate(map(len, tokens), initial=0))[:-1]
    ends = [*offsets[1:], offsets[-1] + len(tokens[-1])]
    start = ends[count - 1] - length
    taken = [i for i in range(count) if offsets[i] >= start or ends[i] > start]
    known = [value for i in taken if (value := values[i]) is not None]
    missing = len(taken) - len(known) - (0 in taken and values[0] is None)  # nothing stands before the first token of all: it has no value
    return tuple(known) if start >= 0 and not missing else ()
