"""How far a model has moved from the state that training started from: the KL divergence on responses that it writes itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from safer_instruct.tuning.train import trained_weights

_MAX_TOKENS = 48  # per response: the mean over tokens settles long before, and writing is what costs
_SEED = 0


class Divergence:
    """The KL divergence of a model from itself as it was, on responses that it samples now.

    At each token of a sampled response the whole distribution over the vocabulary is compared, sum over v of p(v) (log p(v) - log q(v)),
    rather than the sampled token alone: the same mean, and far less noise (Amini et al. 2025, https://arxiv.org/abs/2504.10637).
    """

    def __init__(self, model: Any, end: int) -> None:
        """Remember the weights that are trained as they are now; a response ends with the token `end`."""
        self._origin = trained_weights(model)
        self._end = end

    def of(self, model: Any, prompts: Sequence[tuple[int, ...]]) -> list[tuple[float, int]]:
        """For each prompt: the divergence summed over the tokens of one response, in nats, and how many tokens that are.

        The same seed each time; the random state of training is left as it was.

        Args:
            model: The model as it is now, with the parameters that it had at the start.
            prompts: Token ids.
        """
        if not prompts:
            return []
        together = list(zip(prompts, self._sampled(model, prompts), strict=True))
        now = [_log_distributions(model, *pair) for pair in together]
        with self._as_it_was(model):
            before = [_log_distributions(model, *pair) for pair in together]
        return [(float((p.exp() * (p - q)).sum()), len(p)) for p, q in zip(now, before, strict=True)]

    def _sampled(self, model: Any, prompts: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """One response to each prompt, at temperature 1, the end token with it."""
        import torch
        from transformers import GenerationConfig

        width, device = max(map(len, prompts)), next(model.parameters()).device
        ids = torch.tensor([[self._end] * (width - len(p)) + list(p) for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        settings = GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=_MAX_TOKENS, eos_token_id=self._end, pad_token_id=self._end
        )
        with torch.random.fork_rng():
            torch.manual_seed(_SEED)
            rows = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)[:, width:].tolist()
        return [tuple(row[: row.index(self._end) + 1] if self._end in row else row) for row in rows]

    @contextmanager
    def _as_it_was(self, model: Any) -> Iterator[None]:
        """`model` with the weights of the start; then with its own again."""
        own = trained_weights(model)
        model.load_state_dict(self._origin, strict=False)
        try:
            yield
        finally:
            model.load_state_dict(own, strict=False)


def _log_distributions(model: Any, prompt: tuple[int, ...], response: tuple[int, ...]) -> Any:
    """Log-probabilities of the vocabulary at each token of the response, shape (tokens, vocabulary)."""
    import torch

    ids = torch.tensor([[*prompt, *response]], device=next(model.parameters()).device)
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(response) + 1).logits
    return logits[0, :-1].float().log_softmax(-1)
