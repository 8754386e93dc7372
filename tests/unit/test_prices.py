"""What models cost: hosted ones are never silently free, and the user's word wins over the shipped table's."""

from __future__ import annotations

from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from safer_instruct.errors import ConfigError
from safer_instruct.prices import FREE, LongRates, Price, Prices, load_prices, show_usd, user_file

pytestmark = pytest.mark.filterwarnings("error")
OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com/v1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without prices of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "safer-instruct"


def written(path: Path, prices: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"prices": prices}), encoding="utf-8")
    return path


def prompt_price(model: str, base_url: str | None = OPENAI, prices: Prices | None = None) -> float | None:
    price = (prices or load_prices()).find(model, base_url)
    return None if price is None else price.prompt


def table(**prices: dict[str, Any]) -> Prices:
    return Prices({key: Price(**{"completion": 0.0, **price}) for key, price in prices.items()})


def test_every_shipped_price_says_whose_it_is_where_it_was_read_and_when() -> None:
    shipped = load_prices().by_key
    assert len(shipped) >= 20
    for key, price in shipped.items():
        assert price.source.startswith("https://") and price.read is not None and date(2026, 1, 1) <= price.read <= date(2030, 1, 1), key
        assert price.host == {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}[key.partition(":")[0]]
        assert 0 < price.prompt < price.completion and (price.cached or 0) < price.prompt <= (price.cache_write or price.prompt)
        assert price.long is None or (price.long.prompt > price.prompt and price.long.completion > price.completion)


def test_the_shipped_file_tells_how_to_override_it() -> None:
    text = (resources.files("safer_instruct") / "prices.yaml").read_text(encoding="utf-8")
    assert "Prices change" in text and "~/.config/safer-instruct/prices.yaml" in text and "`prices:`" in text


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("openai:gpt-4o-2024-08-06", "openai:gpt-4o"),
        ("openai:gpt-4o-mini-2024-07-18", "openai:gpt-4o-mini"),
        ("openai:gpt-5-nano-2025-08-07", "openai:gpt-5-nano"),
    ],
)
def test_a_dated_snapshot_costs_what_its_family_costs(model: str, family: str) -> None:
    prices = load_prices()
    assert prices.find(model, OPENAI) is prices.by_key[family]


def test_a_snapshot_with_a_price_of_its_own_keeps_it() -> None:
    assert prompt_price("openai:gpt-4o-2024-05-13") == 5.0 and prompt_price("openai:gpt-4o") == 2.5


def test_a_date_without_dashes_is_a_date_too() -> None:
    assert prompt_price("anthropic:claude-haiku-4-5-20251001", ANTHROPIC) == 1.0


@pytest.mark.parametrize(
    "model", ["openai:gpt-4o-audio-preview", "openai:gpt-4o-mini-tts", "openai:ft:gpt-4o:acme", "openai:gpt-4o-latest", "openai:gpt", "gpt-4o"]
)
def test_a_name_that_only_begins_alike_is_unknown(model: str) -> None:
    assert prompt_price(model) is None


def test_of_several_keys_that_fit_the_longest_wins() -> None:
    prices = table(**{"openai:*": {"prompt": 1.0}, "openai:org/*": {"prompt": 2.0}, "openai:org/big": {"prompt": 3.0}, "openai:org/*-8b*": {"prompt": 4.0}})
    found = {m: prompt_price(f"openai:{m}", OPENAI, prices) for m in ("x", "org/small", "org/big", "org/big-2026-01-01", "org/m-8b-it")}
    assert found == {"x": 1.0, "org/small": 2.0, "org/big": 3.0, "org/big-2026-01-01": 3.0, "org/m-8b-it": 4.0}


def test_only_the_star_is_special_in_a_key() -> None:
    prices = table(**{"openai:a.b[c]?": {"prompt": 1.0}, "openai:x.*": {"prompt": 2.0}})
    assert [prompt_price(f"openai:{m}", OPENAI, prices) for m in ("a.b[c]?", "aXb[c]?", "a.bc", "x.y", "xy")] == [1.0, None, None, 2.0, None]


def test_a_price_with_a_host_holds_there_alone_and_through_any_provider() -> None:
    assert prompt_price("openai:claude-haiku-4-5", ANTHROPIC) == 1.0
    assert prompt_price("openai:gpt-4o", "https://API.openai.com./v1") == 2.5
    assert prompt_price("openai:gpt-4o", "https://eu.api.openai.com/v1") is None
    assert prompt_price("openai:gpt-4o", "https://api.openai.com.evil.example/v1") is None


@pytest.mark.parametrize(
    "base_url", [OPENAI, ANTHROPIC, "https://openrouter.ai/api/v1", "https://llm.example.com/v1", "http://8.8.8.8/v1", "", "://", "http://[x"]
)
def test_a_hosted_model_without_a_price_is_unknown(base_url: str) -> None:
    assert load_prices().find("openai:brand-new", base_url) is None


OWN = (
    None,
    "http://127.0.0.1:8000/v1",
    "http://localhost:8000/v1",
    "http://[::1]:1/v1",
    "http://10.1.2.3/v1",
    "http://192.168.0.9/v1",
    "http://gpu-box:8000/v1",
)
OWN_BY_NAME = ("http://vllm.team.svc.cluster.local/v1", "http://vllm.team.svc/v1", "http://box.lan/v1", "http://api.internal/v1", "http://m.localhost/v1")


@pytest.mark.parametrize("base_url", OWN + OWN_BY_NAME)
def test_an_endpoint_of_ones_own_is_free_unless_priced(base_url: str | None) -> None:
    assert load_prices().find("openai:gpt-4o", base_url) == FREE
    assert prompt_price("openai:gpt-4o", base_url, table(**{"openai:gpt-4o": {"prompt": 0.5}})) == 0.5


def test_what_the_config_says_wins_over_every_file() -> None:
    price = load_prices().find("openai:gpt-4o", OPENAI, (7.0, 9.0))
    assert price is not None and (price.prompt, price.completion, price.cached, price.batch_discount) == (7.0, 9.0, None, 0.0)
    assert load_prices().require("openai:brand-new", OPENAI, (0.0, 0.0)) == FREE


def test_a_missing_price_is_told_with_the_places_to_put_it(home: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_prices().require("openai:brand-new", "https://llm.example.com:444/v1?key=secret")
    message = str(caught.value)
    assert "budget.max_cost" in message and "'openai:brand-new' at llm.example.com" in message and "secret" not in message
    assert "price_per_million" in message and str(home / "prices.yaml") in message
    with pytest.raises(ConfigError, match="'litellm:x' at its endpoint"):
        load_prices().require("litellm:x", "")


def test_the_users_file_is_laid_over_the_shipped_one_and_the_runs_over_both(home: Path, tmp_path: Path) -> None:
    assert user_file() == home / "prices.yaml"
    written(home / "prices.yaml", {"openai:gpt-4o": {"prompt": 1.0, "completion": 2.0}, "openai:mine": {"prompt": 3.0, "completion": 4.0}})
    assert [prompt_price(f"openai:{m}") for m in ("gpt-4o", "mine", "gpt-4o-mini")] == [1.0, 3.0, 0.15]
    both = load_prices(written(tmp_path / "run.yaml", {"openai:mine": {"prompt": 5.0, "completion": 6.0}}))
    assert [prompt_price(f"openai:{m}", OPENAI, both) for m in ("gpt-4o", "mine", "gpt-4o-mini")] == [1.0, 5.0, 0.15]


def test_an_entry_takes_the_place_of_the_whole_entry(tmp_path: Path) -> None:
    prices = load_prices(written(tmp_path / "run.yaml", {"openai:gpt-6-luna": {"prompt": 1.0, "completion": 2.0}}))
    assert prices.by_key["openai:gpt-6-luna"] == Price(prompt=1.0, completion=2.0)


def test_a_file_that_the_config_names_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_prices(tmp_path / "prices.yaml")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"openai:m": {"prompt": 1.0}}, "completion"),
        ({"openai:m": {"prompt": -1.0, "completion": 1.0}}, "greater than or equal to 0"),
        ({"openai:m": {"prompt": float("nan"), "completion": 1.0}}, "finite"),
        ({"openai:m": {"prompt": 1.0, "completion": 1.0, "catched": 1.0}}, "did you mean 'cached'"),
        ({"openai:m": {"prompt": 1.0, "completion": 1.0, "batch_discount": 50}}, "less than or equal to 1"),
        ({"gpt-4o": {"prompt": 1.0, "completion": 1.0}}, "PROVIDER:MODEL"),
        ({"*:gpt-4o": {"prompt": 1.0, "completion": 1.0}}, "PROVIDER:MODEL"),
    ],
)
def test_a_wrong_entry_is_refused_with_the_file_named(entry: dict[str, Any], said: str, home: Path) -> None:
    written(home / "prices.yaml", entry)
    with pytest.raises(ConfigError, match=said) as caught:
        load_prices()
    assert str(home / "prices.yaml") in str(caught.value)


@pytest.mark.parametrize("prices", ["[openai:m]", "[{model: openai:m, prompt: 1, completion: 1}]", "", "3"])
def test_what_is_no_mapping_of_models_is_told_how_one_is_written(prices: str, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(f"prices: {prices}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"prices.yaml:1: 'prices': expected models, .*PROVIDER:MODEL and its price, such as 'openai:gpt-4o-mini: {prompt"):
        load_prices(tmp_path / "prices.yaml")


PRICE = Price(prompt=2.0, cached=0.5, cache_write=2.5, completion=8.0, batch_discount=0.5, long=LongRates(above=1000, prompt=4.0, cached=1.0, completion=12.0))


def test_a_cost_is_the_sum_of_what_was_read_and_written() -> None:
    assert PRICE.cost(1000, 100) == pytest.approx((1000 * 2 + 100 * 8) / 1e6)
    assert PRICE.cost(1000, 100, cached_tokens=400, written_tokens=100) == pytest.approx((500 * 2 + 400 * 0.5 + 100 * 2.5 + 800) / 1e6)
    assert PRICE.cost(1000, 100, batch=True) == pytest.approx(PRICE.cost(1000, 100) / 2)


def test_a_long_prompt_costs_the_long_rates_for_all_of_it() -> None:
    assert PRICE.cost(1001, 100, cached_tokens=1, written_tokens=500) == pytest.approx((1000 * 4 + 1 * 1 + 100 * 12) / 1e6)


def test_caches_without_a_rate_cost_what_reading_costs() -> None:
    assert Price(prompt=2.0, completion=8.0).cost(10, 0, cached_tokens=4, written_tokens=3) == pytest.approx(20 / 1e6)


rates = st.floats(0, 100, allow_nan=False)
maybe = st.none() | rates
long_rates = st.builds(LongRates, above=st.integers(1, 3000), prompt=rates, completion=rates, cached=maybe, cache_write=maybe)
prices = st.builds(
    Price, prompt=rates, completion=rates, cached=maybe, cache_write=maybe, long=st.none() | long_rates, batch_discount=st.floats(0, 1), host=st.none()
)


@given(prices, st.integers(0, 5000), st.integers(0, 5000), st.data())
def test_no_request_costs_more_than_its_bound(price: Price, prompt: int, completion: int, data: st.DataObject) -> None:
    read = data.draw(st.integers(0, prompt))
    cached = data.draw(st.integers(0, read))
    written_ = data.draw(st.integers(0, read - cached))
    took, batch = data.draw(st.integers(0, completion)), data.draw(st.booleans())
    cost = price.cost(read, took, cached_tokens=cached, written_tokens=written_, batch=batch)
    assert cost <= price.bound(prompt, completion, batch=batch) * (1 + 1e-12)


def test_a_bound_counts_the_dearer_band_where_either_may_apply() -> None:
    cheaper_when_long = Price(prompt=2.0, completion=8.0, long=LongRates(above=1000, prompt=1.0, completion=4.0))
    assert cheaper_when_long.bound(1001, 0) == pytest.approx(1001 * 2 / 1e6) and PRICE.bound(1001, 0) == pytest.approx(1001 * 4 / 1e6)
    assert PRICE.bound(1000, 0) == pytest.approx(1000 * 2.5 / 1e6)


def test_the_bound_of_a_plain_price_is_its_cost() -> None:
    assert Price(prompt=2.0, completion=8.0, batch_discount=0.25).bound(1000, 100, batch=True) == pytest.approx(0.75 * 2800 / 1e6)


@pytest.mark.parametrize(
    ("cost", "shown"), [(None, "unknown"), (0.0, "0.00"), (4.999, "5.00"), (1234.5, "1,234.50"), (0.98, "0.98"), (0.098, "0.098"), (0.00314, "0.0031")]
)
def test_dollars_are_shown_so_that_small_ones_can_be_told_from_none(cost: float | None, shown: str) -> None:
    assert show_usd(cost) == shown
