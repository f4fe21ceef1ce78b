"""Prices: which one counts, to the last place, and which lists are refused."""

from __future__ import annotations

import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.config import ApiConfig
from api.records.prices import PLACES, Price, Prices

pytestmark = pytest.mark.unit

DAY = datetime.date(2026, 7, 1)


def price(**changes: Any) -> dict[str, Any]:
    usual = {"model": "m", "unit": "input_tokens", "amount": "0.15", "per": 1_000_000, "currency": "EUR"}
    return {**usual, "since": "2026-01-01", **changes}


def prices(*said: dict[str, Any]) -> Prices:
    return Prices([Price.model_validate(each) for each in said])


def test_the_newest_price_of_the_day_counts() -> None:
    known = prices(price(), price(amount="0.30", since="2026-07-01"), price(amount="9", since="2026-07-02"))
    used = {"prompt_tokens": 1_000_000.0}
    assert known.cost("m", used, DAY) == (Decimal("0.3"), DAY)
    assert known.cost("m", used, datetime.date(2026, 6, 30)) == (Decimal("0.15"), datetime.date(2026, 1, 1))
    assert known.cost("m", used, datetime.date(2025, 12, 31)) == (0, None)
    assert known.cost("another", used, DAY) == (0, None)
    assert known.cost("m", {"completion_tokens": 5}, DAY) == (0, None)


def test_cached_tokens_have_a_price_of_their_own_or_that_of_the_input() -> None:
    used = {"prompt_tokens": 1_000_000, "cached_tokens": 400_000}
    assert prices(price()).cost("m", used, DAY)[0] == Decimal("0.15")
    own = prices(price(), price(unit="cached_tokens", amount="0.05"))
    assert own.cost("m", used, DAY)[0] == Decimal("0.11")
    free = prices(price(), price(unit="cached_tokens", amount="0"))
    assert free.cost("m", used, DAY)[0] == Decimal("0.09")


@given(
    st.dictionaries(
        st.sampled_from(["audio_seconds", "characters", "completion_tokens", "gpu_seconds"]),
        st.one_of(st.integers(0, 10**9), st.floats(0, 10**6, allow_nan=False)),
    ),
    st.decimals("0", "1000", places=6),
    st.sampled_from([1, 60, 1000, 1_000_000]),
)
def test_a_cost_is_exact_and_rounded_once(used: dict[str, float], amount: Decimal, per: int) -> None:
    units = {"completion_tokens": "output_tokens"}
    known = prices(*(price(unit=units.get(name, name), amount=str(amount), per=per) for name in used))
    exact = sum((Fraction(amount) * Fraction(str(count)) / per for count in used.values()), Fraction(0))
    cost, _ = known.cost("m", used, DAY)
    assert abs(Fraction(cost) - exact) <= Fraction(PLACES) / 2
    assert cost == cost.quantize(PLACES)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([price(), price(model="b", currency="USD")], "one currency, here they are in EUR, USD"),
        ([price(), price(amount="1")], "two prices of m, input_tokens, since 2026-01-01"),
        ([price(amount=0.15)], "in quotes"),
        ([price(amount="-1")], "greater than or equal to 0"),
        ([price(unit="minutes")], "counted of `call` alone"),
        ([price(model="call")], "counted of `call` alone"),
        ([price(currency="Euro")], "pattern"),
        ([price(unit="words")], "'minutes', 'audio_seconds'"),
        ([price(since="soon")], "date"),
        ([price(per=0)], "greater than or equal to 1"),
    ],
)
def test_a_list_that_cannot_be_right_is_refused(wrong: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValidationError, match=r"prices") as caught:
        ApiConfig.model_validate({"prices": wrong})
    assert said in str(caught.value)


def test_prices_cross_to_a_replica_as_they_are() -> None:
    config = ApiConfig.model_validate({"prices": [price(amount="0.150000000001")]})
    assert ApiConfig.model_validate(config.model_dump(mode="json")) == config
    assert config.prices[0].amount == Decimal("0.150000000001")
