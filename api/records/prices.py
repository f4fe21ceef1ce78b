"""What a call's usage costs: exact, by the prices of a profile."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from serve.config import Strict

CALL = "call"
"""Stands in place of a model for the call itself, which costs by its minutes."""

PLACES = Decimal("0.000000001")
"""What a row of usage is rounded to, once; whatever is summed afterwards is a sum of such amounts."""

Unit = Literal[
    "minutes",
    "audio_seconds",
    "characters",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "busy_seconds",
    "gpu_seconds",
]


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError('write the amount in quotes, as "0.15": a number with a point is not exact')
    return value


class Price(Strict):
    """What one model costs by one unit, from a day on until a newer price of the same two."""

    model: str = Field(min_length=1, max_length=100, description=f"Its name; {CALL}: the call itself, by its minutes")
    unit: Unit = Field(
        description="What is counted. cached_tokens: those of the input that came from a cache; without a price of "
        "their own they cost what input_tokens do"
    )
    amount: Annotated[Decimal, BeforeValidator(_exact)] = Field(
        ge=0, max_digits=20, decimal_places=12, description='In quotes, as "0.15"'
    )
    per: int = Field(default=1, ge=1, le=10**12, description="Units that the amount is for, as 1000000")
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217; one for all prices of a profile")
    since: datetime.date = Field(description="First day (UTC) of this price")

    @model_validator(mode="after")
    def _minutes_are_of_calls(self) -> Price:
        if (self.model == CALL) != (self.unit == "minutes"):
            raise ValueError(f"minutes are counted of `{CALL}` alone, and nothing else is counted of it")
        return self


def check(prices: Sequence[Price]) -> None:
    """Refuse prices that contradict each other.

    Raises:
        ValueError: In two currencies, or two of the same model, unit and day.
    """
    currencies = sorted({price.currency for price in prices})
    if len(currencies) > 1:
        raise ValueError(f"prices are in one currency, here they are in {', '.join(currencies)}")
    known: set[tuple[str, str, datetime.date]] = set()
    for price in prices:
        key = (price.model, price.unit, price.since)
        if key in known:
            raise ValueError(f"two prices of {price.model}, {price.unit}, since {price.since}: leave one")
        known.add(key)


class Prices:
    """A price list.

    Attributes:
        all: As the profile has them.
        currency: Of all of them; empty: there are none.
    """

    def __init__(self, prices: Sequence[Price] = ()) -> None:
        self.all = tuple(prices)
        self.currency = prices[0].currency if prices else ""

    def cost(self, model: str, used: Mapping[str, float], day: datetime.date) -> tuple[Decimal, datetime.date | None]:
        """Return what was used of a model costs at the prices of a day, rounded to nine places.

        Args:
            model: Its name, or `CALL`.
            used: Fields of `serve.contracts.Usage`, or `minutes`.
            day: When.

        Returns:
            The amount, and the newest date among the prices that were applied; 0 and None: no price is known.
        """
        counts = units(used)
        cached = self._price(model, "cached_tokens", day)
        if cached is not None:
            counts["input_tokens"] -= counts["cached_tokens"]
        total, newest = Decimal(0), None
        with localcontext(prec=60):
            for unit, count in counts.items():
                price = cached if unit == "cached_tokens" else self._price(model, unit, day)
                if price is None or not count:
                    continue
                total += price.amount * count / price.per
                newest = max(newest or price.since, price.since)
            return total.quantize(PLACES), newest

    def _price(self, model: str, unit: str, day: datetime.date) -> Price | None:
        valid = [each for each in self.all if each.model == model and each.unit == unit and each.since <= day]
        return max(valid, key=lambda each: each.since, default=None)


def units(used: Mapping[str, float]) -> dict[Unit, Decimal]:
    """Return what was used, by the units that prices are for; what was not used is 0."""

    def exact(name: str) -> Decimal:
        # As it is written, not as binary has it.
        return Decimal(str(used.get(name, 0)))

    return {
        "minutes": exact("minutes"),
        "audio_seconds": exact("audio_seconds"),
        "characters": exact("characters"),
        "input_tokens": exact("prompt_tokens"),
        "cached_tokens": min(exact("cached_tokens"), exact("prompt_tokens")),
        "output_tokens": exact("completion_tokens"),
        "busy_seconds": exact("busy_seconds"),
        "gpu_seconds": exact("gpu_seconds"),
    }
