"""Weights of one's own behind a server of our own: vLLM for model folders, llama.cpp for GGUF files.

The server is started by the first call, so a run whose calls are all in the ledger starts none. It listens on a free port of
the loopback and takes a random key that only this process knows. When it crashes, the calls in flight wait until it
has been started again and are asked anew; when this process ends, however it ends, the server ends too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from operator import methodcaller
from pathlib import Path
from typing import TypeVar

from safer_instruct.config import ModelConfig
from safer_instruct.errors import AccessError, ModelError, RequestError
from safer_instruct.models.flow import Limits
from safer_instruct.models.openai import OpenAIModel
from safer_instruct.models.protocol import Generated, Generation, Scored, Scoring, Usage
from safer_instruct.models.serving import weights
from safer_instruct.models.serving.server import Server, Started
from safer_instruct.models.serving.spec import adapter_digest, serve_spec
from safer_instruct.models.spending import Spending

Answer = TypeVar("Answer")


class ServedModel:
    """A model behind a server that this process starts, watches and stops."""

    priced = True

    def __init__(self, config: ModelConfig, base: Path, *, limits: Limits | None = None, spending: Spending | None = None, want_logprobs: bool = False) -> None:
        """Look for the weights and take their digest; nothing is started yet.

        Args:
            config: A model `served:WHAT`.
            base: The folder that paths in it are relative to.
            limits: What is kept to at the server.
            spending: Prices the calls, and lets them draw on the run's budget.
            want_logprobs: Ask for `Completion.logprob`.

        Raises:
            ConfigError: A setting does not fit the engine, or an adapter does not exist.
            ModelError: The weights do not exist.
        """
        self._spec, self._adapter = serve_spec(config, base)
        self._want_logprobs = want_logprobs
        self.name = config.model + (f"+{self._adapter}" if self._adapter else "")
        self.fingerprint = self._fingerprint()
        limits = limits or Limits()
        slots = self._spec.slots or limits.concurrency
        self.concurrency = min(limits.concurrency, slots)  # what queues within the server eats into the timeout
        self._limits, self._spending = replace(limits, concurrency=self.concurrency), spending
        self._most_at_once = slots if self._spec.engine == "llama.cpp" else None
        self._server: Server | None = None
        self._engine: tuple[Started, OpenAIModel] | None = None

    @property
    def status(self) -> str:
        """See `Model.status`."""
        return self._engine[1].status if self._engine else ""

    async def generate(self, request: Generation) -> Generated:
        """See `Model.generate`."""
        parts = [await self._answered(methodcaller("generate", part)) for part in self._parts(request)]
        return Generated(tuple(c for part in parts for c in part.completions), sum((part.usage for part in parts), Usage()))

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`; vLLM only."""
        if self._spec.engine == "llama.cpp":
            raise AccessError(
                f"{self.name}: llama.cpp's server gives no log-probabilities of a prompt, so it cannot score; "
                "leave models.scorer (for 'value' --model) at its default, the embedded model, or serve a model folder with vLLM"
            )
        return await self._answered(methodcaller("score", request))

    async def close(self) -> None:
        """Stop the server, unless another model shares it; a later call starts it anew."""
        server, self._server = self._server, None
        try:
            await self._drop_engine()
        finally:
            if server:
                await server.leave()

    async def _answered(self, ask: Callable[[OpenAIModel], Awaitable[Answer]]) -> Answer:
        """The answer of the running server; asked again of the next one as often as it crashes meanwhile."""
        server = self._server = self._server or Server.join(self._spec)
        while True:
            started = await server.ready()
            call = asyncio.ensure_future(ask(await self._engine_for(started)))
            started.calls.add(call)
            try:
                return await call
            except asyncio.CancelledError:
                if not started.crashed or _is_cancelled():
                    raise
            except RequestError:
                raise
            except ModelError:
                if not await server.to_blame(started):
                    raise
            finally:
                started.calls.discard(call)

    async def _engine_for(self, started: Started) -> OpenAIModel:
        """The HTTP client of a running server; each start has a key of its own, and perhaps a port."""
        if self._engine and self._engine[0] is started:
            return self._engine[1]
        engine = OpenAIModel(
            self._adapter if self._adapter and self._spec.engine == "vllm" else self._spec.name,
            base_url=started.base_url,
            api_key_env=started.key_variable,
            limits=self._limits,
            spending=self._spending,
            want_logprobs=self._want_logprobs,
        )
        old, self._engine = self._engine, (started, engine)
        if old:
            await old[1].close()
        return engine

    async def _drop_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine:
            await engine[1].close()

    def _parts(self, request: Generation) -> Iterator[Generation]:
        """The request, cut where it asks for more completions at once than llama.cpp has slots, which it refuses."""
        most, n = self._most_at_once, request.sampling.n
        if most is None or n <= most:
            yield request
            return
        for done in range(0, n, most):
            yield replace(request, sampling=replace(request.sampling, n=min(most, n - done)), seed=request.seed + done)

    def _fingerprint(self) -> str:
        """Weights, adapter, engine, and the flags that may change an answer; not the port, slots, memory or number of GPUs."""
        spec = self._spec
        parts = {
            "weights": weights.digest(spec.weights),
            "adapter": adapter_digest(spec, self._adapter) if self._adapter else None,
            "engine": spec.engine,
            "context": spec.config.context,
            "args": spec.config.args,
            "logprobs": self._want_logprobs,
        }
        return "served:" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _is_cancelled() -> bool:
    """Whether the caller is being cancelled, not only the call that it waits for."""
    task = asyncio.current_task()
    return bool(task and task.cancelling())
