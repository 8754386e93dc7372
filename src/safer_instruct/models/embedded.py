"""The embedded engine: a small real language model in this process, CTranslate2, no torch.

Answers are a function of the request alone, bit for bit on one machine:

- A request is one unit of work: its `n` completions are drawn together from one prompt, nothing else is in the batch.
- Each generation opens a fresh generator after `set_random_seed`: CTranslate2 seeds its sampler once per worker thread,
  so only a new thread starts from a known state. A one-token draw under the lock pins the seed before another request
  may set its own.
- Scoring runs one sequence at a time: a prefill of a hundred tokens fills a core by itself.
- Matrices are multiplied by oneDNN on every processor. CTranslate2 would take MKL on Intel's: faster there by a quarter,
  with another rounding (the same config gave other pairs) and half as much memory again (bench/README.md).
- Weights and sums are int8, or float32 on processors that do not add int8 up exactly (`arithmetic.py`): slower, and another model to the ledger.

One thread per request and as many requests as cores is also the fastest arrangement measured (bench/README.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safer_instruct.errors import ModelError
from safer_instruct.extras import require
from safer_instruct.models import store
from safer_instruct.models.arithmetic import arithmetic
from safer_instruct.models.codec import Codec
from safer_instruct.models.protocol import Completion, Generated, Generation, Prompt, Scored, Scoring, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_WORKERS = 8  # each holds its own copy of the weights while it generates
_MKL = "CT2_USE_MKL"
_YES = ("1", "true", "TRUE")  # as CTranslate2 reads it
_seed_lock = threading.Lock()
Answer = TypeVar("Answer")


class EmbeddedModel:
    """A pulled GGUF model, with or without a LoRA adapter merged in."""

    priced, status = True, ""

    def __init__(self, name: str, adapter: Path | None = None, *, max_context: int = 2048) -> None:
        """Open the model; the first use of a (model, adapter) pair converts it, which takes some seconds.

        Args:
            name: A model of the cache.
            adapter: A PEFT LoRA folder.
            max_context: Longest prompt and continuation together, in tokens; bounds memory.

        Raises:
            MissingExtraError: The extra `local` is not installed.
            ModelError: The model has not been pulled.
        """
        os.environ[_MKL] = os.environ.get(_MKL) or "0"  # read once, when the library multiplies first
        self._engine = require("ctranslate2", extra="local", purpose="the embedded model")
        self._compute = arithmetic()
        self._folder, digest = store.converted(name, adapter)
        self._codec = Codec(self._folder)
        self._scorer: Any = None
        self._scorer_lock = threading.Lock()
        self._max_context = max_context = min(max_context, self._codec.window or max_context)
        self.name = f"embedded:{name}" + (f"+{adapter.name}" if adapter else "")
        how = ("+mkl" if os.environ[_MKL] in _YES else "") + ("" if self._compute == "int8" else f"+{self._compute}")
        self.fingerprint = f"embedded:{digest}:ctranslate2-{self._engine.__version__}{how}:{max_context}"
        self.concurrency = workers()

    async def generate(self, request: Generation) -> Generated:
        """Complete a prompt; see `Model.generate`."""
        return await self._in_worker(lambda: self._generate(request))

    async def score(self, request: Scoring) -> Scored:
        """Log-probability of every token of a continuation; see `Model.score`."""
        return await self._in_worker(lambda: self._score(request))

    async def close(self) -> None:
        """Free the weights."""
        self._scorer = None

    async def _in_worker(self, call: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(_pool(), call)

    def _generate(self, request: Generation) -> Generated:
        started = time.monotonic()
        sampling = request.sampling
        prompt = self._prompt_ids(request.prompt, room=sampling.max_tokens)
        alternatives = self._first_tokens(prompt, request.alternatives) if request.alternatives else ()
        greedy = sampling.temperature <= 0
        if alternatives and greedy and sampling.max_tokens == 1:
            return self._likeliest_token(alternatives, len(prompt), sampling.n, started)
        result = self._seeded_generator(_unit_seed(request)).generate_batch(
            [self._codec.tokens(prompt)],
            num_hypotheses=1 if greedy else sampling.n,  # the prompt is read once for all of them
            max_length=sampling.max_tokens,
            sampling_topk=1 if greedy else sampling.top_k,
            sampling_temperature=1.0 if greedy else sampling.temperature,
            repetition_penalty=sampling.repetition_penalty,
            include_prompt_in_result=False,
            return_scores=True,
        )[0]
        drawn = (self._completion(ids, score, request) for ids, score in zip(result.sequences_ids, result.scores, strict=True))
        completions = tuple(replace(completion, alternatives=alternatives) for completion in drawn)
        written = sum(map(len, result.sequences_ids))
        return Generated(completions * (sampling.n if greedy else 1), Usage(len(prompt), written, seconds=time.monotonic() - started))

    def _first_tokens(self, prompt: Sequence[int], count: int) -> tuple[tuple[str, float], ...]:
        """The likeliest next tokens as text, with their log-probabilities in nats."""
        logprobs = self._next_logprobs(prompt)
        likeliest = (-logprobs).argsort(kind="stable")[:count]
        return tuple((self._codec.decode([int(i)]), round(float(logprobs[i]), 6)) for i in likeliest)

    def next_logprobs(self, prompt: Prompt, texts: Sequence[str]) -> list[float]:
        """Log-probability, in nats, that the prompt goes on with the first token of each text; blocks the calling thread."""
        logprobs = self._next_logprobs(self._prompt_ids(prompt, room=1))
        return [float(logprobs[self._codec.continuation(text, end=False)[0]]) for text in texts]

    def _next_logprobs(self, prompt: Sequence[int]) -> NDArray[np.float64]:
        """[vocabulary] Log-probability of each token after the prompt, in nats."""
        numpy = require("numpy", extra="local", purpose="the embedded model")
        tokens = self._codec.tokens(prompt)
        result = self._shared_scorer().generate_batch([tokens], max_length=1, sampling_topk=1, include_prompt_in_result=False, return_logits_vocab=True)[0]
        logits: NDArray[np.float64] = numpy.array(result.logits[0][0], dtype="float64").reshape(-1)
        logprobs: NDArray[np.float64] = logits - numpy.logaddexp.reduce(logits)
        return logprobs

    def _likeliest_token(self, alternatives: tuple[tuple[str, float], ...], prompt_tokens: int, n: int, started: float) -> Generated:
        """The greedy answer of one token: the first of the alternatives, so nothing need be generated."""
        text, logprob = alternatives[0]
        completion = Completion(text.strip(), logprob, finished=False, tokens=1, alternatives=alternatives)
        return Generated((completion,) * n, Usage(prompt_tokens, 1, seconds=time.monotonic() - started))

    def _completion(self, ids: Sequence[int], score: float, request: Generation) -> Completion:
        eos = self._codec.token_id(self._codec.eos)
        finished = len(ids) < request.sampling.max_tokens or (bool(ids) and ids[-1] == eos)
        penalised = request.sampling.repetition_penalty != 1.0  # then the engine's score is not the model's probability
        return Completion(self._codec.decode(ids).strip(), None if penalised else round(score, 6), finished, len(ids))

    def _score(self, request: Scoring) -> Scored:
        started = time.monotonic()
        longest = min(request.max_tokens or self._max_context, self._max_context // 2)
        continuation = self._codec.continuation(request.continuation, end=False)[:longest]
        prompt = self._prompt_ids(request.prompt, room=len(continuation))
        if not prompt:
            raise ModelError("a continuation can only be scored after a prompt; this prompt has no token")
        logprobs = tuple(round(value, 6) for value in self.token_logprobs(prompt, continuation))
        return Scored(logprobs, Usage(len(prompt) + len(continuation), 0, seconds=time.monotonic() - started))

    def token_logprobs(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Log-probability of each continuation token after the prompt tokens, in nats; blocks the calling thread."""
        if not continuation:
            return []
        tokens = self._codec.tokens([*prompt, *continuation])
        result = self._shared_scorer().score_batch([tokens], max_input_length=0)[0]  # by default 1,024 tokens, and the rest is not scored
        logprobs: list[float] = result.log_probs[len(prompt) - 1 :]
        return logprobs

    def _shared_scorer(self) -> Any:
        """The generator that all scoring goes through; it draws nothing, so it need not be fresh."""
        with self._scorer_lock:
            if self._scorer is None:
                self._scorer = self._open(inter_threads=workers())
        return self._scorer

    def _prompt_ids(self, prompt: Prompt, *, room: int) -> list[int]:
        """Token ids of the prompt; what does not fit beside `room` tokens is cut from its middle."""
        ids = self._codec.prompt(prompt if isinstance(prompt, str) else [asdict(turn) for turn in prompt])
        fits = max(2, self._max_context - room)
        if len(ids) > fits:
            ids = ids[: fits // 2] + ids[len(ids) - (fits - fits // 2) :]
        return ids

    def _seeded_generator(self, seed: int) -> Any:
        with _seed_lock:
            self._engine.set_random_seed(seed)
            generator = self._open(inter_threads=1)
            generator.generate_batch([[self._codec.eos]], max_length=1, sampling_topk=2)
        return generator

    def _open(self, *, inter_threads: int) -> Any:
        try:
            return self._engine.Generator(str(self._folder), device="cpu", compute_type=self._compute, inter_threads=inter_threads, intra_threads=1)
        except RuntimeError as exc:
            raise ModelError(f"the converted model in {self._folder} cannot be opened ({exc}); delete that folder and run again") from exc


def workers() -> int:
    """How many requests the engine works on at a time: the cores this process may use, at most 8."""
    return max(1, min(_MAX_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers(), thread_name_prefix="embedded")


def _unit_seed(request: Generation) -> int:
    """The seed of one unit: a digest of the whole request, so equal seeds of different requests draw apart."""
    return int.from_bytes(hashlib.sha256(repr(request).encode()).digest()[:4], "big") >> 1
