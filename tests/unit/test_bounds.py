"""No call costs more than was set aside for it, whatever its text and whichever the vocabulary."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.bounds import bound
from safer_instruct.models.protocol import Generation, Sampling, Scoring, Turn
from safer_instruct.prices import Price

pytestmark = pytest.mark.filterwarnings("error")
PRICE = Price(prompt=2.0, completion=8.0)


def byte_tokens(text: str) -> int:
    """The worst byte-level vocabulary: one token for each byte."""
    return len(text.encode("utf-8", "surrogatepass"))


texts = st.text(st.characters(), max_size=40) | st.text(st.sampled_from("é\u0323\ufdfa\u0958\U0001d160a\u0301\u1e9b"), max_size=12)
prompts = texts | st.lists(st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), texts), min_size=1, max_size=4).map(tuple)


@given(prompts, texts, st.integers(1, 5), st.integers(1, 500), st.sampled_from([None, "NFC", "NFKC"]))
def test_no_byte_level_vocabulary_reads_more_tokens_than_the_bound(prompt: Any, continuation: str, n: int, max_tokens: int, form: Any) -> None:
    def read(text: str) -> int:
        return byte_tokens(unicodedata.normalize(form, text) if form else text)

    shown = prompt if isinstance(prompt, str) else "".join(f"<|im_start|>{t.role}\n{t.content}<|im_end|>\n" for t in prompt)
    framing = 0 if isinstance(prompt, str) else sum(8 - byte_tokens("<|im_start|>\n<|im_end|>\n") for _ in prompt)
    cost, tokens = bound(Generation(prompt, Sampling(max_tokens=max_tokens, n=n)), PRICE)
    assert tokens >= read(shown) + framing + n * max_tokens and cost == pytest.approx(PRICE.bound(tokens - n * max_tokens, n * max_tokens))
    _, tokens = bound(Scoring(prompt, continuation), PRICE)
    assert tokens >= read(shown + continuation) + framing + 1


def test_a_short_prompt_is_bounded_by_its_bytes_and_an_allowance() -> None:
    cost, tokens = bound(Generation("Ask.", Sampling(max_tokens=100, n=3)), PRICE)
    assert tokens == 4 + 16 + 256 + 300 and cost == pytest.approx((276 * 2 + 300 * 8) / 1e6)
    chat = (Turn("system", "Be kind."), Turn("user", "h\u00e9"))
    assert bound(Generation(chat, Sampling(max_tokens=10)), PRICE)[1] == (6 + 8 + 4 + 3) + 32 + 256 + 10
    longer = (*chat, Turn("assistant", "Yes."))
    assert bound(Scoring(longer, "end"), PRICE)[1] == (6 + 8 + 4 + 3 + 9 + 4 + 3) + 48 + 256 + 1


def test_a_normal_form_that_is_longer_counts() -> None:
    assert bound(Scoring("\ufdfa", ""), PRICE)[1] - bound(Scoring("", ""), PRICE)[1] == len(unicodedata.normalize("NFKC", "\ufdfa").encode()) == 33
    mixed = "\u0958" + "\u2460" * 5  # NFC makes the first longer, NFKC the others shorter as well
    assert bound(Scoring(mixed, ""), PRICE)[1] - bound(Scoring("", ""), PRICE)[1] == 6 + 15
    joined = bound(Scoring("\u00e9", "\u0323"), PRICE)[1] - bound(Scoring("", ""), PRICE)[1]
    assert joined == len("\u1eb9\u0301".encode()) == 5  # more than the two apart


def test_without_a_price_the_bound_in_money_is_unknown_not_nothing() -> None:
    assert bound(Scoring("Ask.", "Answer."), None) == (None, 4 + 7 + 16 + 256 + 1)


def test_a_batch_is_bounded_at_its_discount() -> None:
    request, half = Generation("Ask.", Sampling()), Price(prompt=2.0, completion=8.0, batch_discount=0.5)
    full, halved = bound(request, half)[0], bound(request, half, batch=True)[0]
    assert full is not None and halved is not None and halved == pytest.approx(full / 2)
