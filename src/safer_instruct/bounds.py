"""What one call may cost at most, and how many tokens it may take: known before it is sent."""

from __future__ import annotations

import unicodedata

from safer_instruct.models.protocol import Generation, Scoring
from safer_instruct.prices import Price

_TOKENS_PER_MESSAGE = 16
_TOKENS_PER_REQUEST = 256


def bound(request: Generation | Scoring, price: Price | None, *, batch: bool = False) -> tuple[float | None, int]:
    """The most that one attempt at `request` can cost, and the most tokens it can take; the cost is None without a price.

    Tokens read: at most the bytes of the prompt. In byte-level vocabularies (GPT-2's kind: OpenAI, Llama 3, Qwen, SmolLM)
    and in those that fall back to bytes (SentencePiece with byte fallback: Llama 2, Mistral, Gemma), each token stands for
    at least one byte of UTF-8. A vocabulary may normalise the text first, which can lengthen it, so the longest of the
    usual forms (as it is, NFC, NFKC) counts. On top comes what a chat template writes around the messages: 16 tokens for
    each message (OpenAI's takes 3 or 4) and 256 for each request, in which the system prompts that Qwen's, Llama's and
    gpt-oss's templates add by themselves find room. Providers who keep their vocabulary to themselves (Anthropic) are
    taken to be no worse than a token per byte.

    Tokens written: at most `max_tokens` for each completion, which is what the endpoint is told; hidden reasoning counts
    towards it. A score asks for one.
    """
    prompt, written, end = request.prompt, 1, ""
    if isinstance(request, Scoring):
        end = request.continuation
    else:
        written = request.sampling.n * request.sampling.max_tokens
    read = _TOKENS_PER_REQUEST
    if isinstance(prompt, str):
        read += _TOKENS_PER_MESSAGE + _most_bytes(prompt + end)
    else:
        for turn in prompt[:-1]:
            read += _TOKENS_PER_MESSAGE + _most_bytes(turn.role) + _most_bytes(turn.content)
        read += _TOKENS_PER_MESSAGE + _most_bytes(prompt[-1].role) + _most_bytes(prompt[-1].content + end) if prompt else _most_bytes(end)
    return (None if price is None else price.bound(read, written, batch=batch)), read + written


def _most_bytes(text: str) -> int:
    """Bytes of a text in UTF-8, in the longest of the forms that a vocabulary may bring it into."""
    if text.isascii():
        return len(text)
    forms = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFKC", text))
    return max(len(form.encode("utf-8", "surrogatepass")) for form in forms)
