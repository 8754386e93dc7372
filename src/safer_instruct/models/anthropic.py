"""Anthropic's Messages API, and servers that speak it (llama-server, vLLM, gateways), over HTTP without an SDK.

It answers chats only: a raw prompt goes as a user's message, and nothing can be scored. It takes neither a number of
completions, so that each is a request of its own, nor a seed: asked again, the same request gets another answer. The ledger
keeps the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safer_instruct.errors import AccessError
from safer_instruct.models.addresses import HOSTS, Address, read_addresses
from safer_instruct.models.flow import Limits
from safer_instruct.models.messages import headers, message_body, read_message, single
from safer_instruct.models.parsing import FilteredError
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring, Usage
from safer_instruct.models.remote import UNKNOWN, USE_EMBEDDED, RemoteModel
from safer_instruct.models.spending import Spending
from safer_instruct.models.together import together


class AnthropicModel(RemoteModel):
    """A model behind one endpoint of the Messages API, or several that serve the same weights."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | Sequence[str] = HOSTS["anthropic"].url,
        api_key_env: str = HOSTS["anthropic"].key_env,
        limits: Limits | None = None,
        spending: Spending | None = None,
        revision: str | None = None,
    ) -> None:
        """Check what can be checked without a call.

        Args:
            model: The name that the endpoint knows the model by.
            base_url: Where `/messages` is found; of several addresses each call goes to the one with the least to do.
            api_key_env: Name of the environment variable that holds the key; endpoints on this machine need none.
            limits: What is kept to at each endpoint.
            spending: Prices the calls, and lets them draw on the run's budget.
            revision: What is served, in the user's words; then the addresses are no part of the fingerprint.

        Raises:
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        name = f"anthropic:{model}"
        addresses = read_addresses(base_url, api_key_env, name)
        super().__init__(name, model, addresses, limits=limits, spending=spending, headers=headers, revision=revision)

    async def generate(self, request: Generation) -> Generated:
        """See `Model.generate`, but for the seed; the completions are asked for at the same time."""
        one = single(self._model, request)
        body = message_body(self._model, one)
        answers = await together(self._ask(body, one) for _ in range(request.sampling.n))
        return Generated(tuple(completion for completion, _ in answers), sum((usage for _, usage in answers), Usage()))

    async def score(self, request: Scoring) -> Scored:
        """It cannot.

        Raises:
            AccessError: Always.
        """
        raise AccessError(f"{self.name} cannot score: the Messages API tells no log-probabilities; {USE_EMBEDDED}")

    async def _ask(self, body: Mapping[str, Any], request: Generation) -> tuple[Completion, Usage]:
        """One completion; one that a content filter stopped costs nothing."""
        try:
            return await self._remote.ask("/messages", body, request, read_message)
        except FilteredError as exc:
            return Completion(str(exc), withheld="filter"), Usage()

    def _hints(self, address: Address, status: int, message: str, body: Mapping[str, Any]) -> list[str]:
        hints = super()._hints(address, status, message, body)
        if "top_k" in body and "top_k" in message:
            hints.append(f"this endpoint may not know top_k; {UNKNOWN['top_k']}")
        return hints
