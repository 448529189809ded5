"""What an event costs, from a run's pricing as the platform writes it."""

import json
from typing import Any

import pytest
from msgspec import DecodeError, Raw

from farebox.actor.event_prices import EventPrices, read_event_prices

EVENT = "openrouter-api-usage"


def read(event: Any, name: str = EVENT) -> EventPrices | None:
    pricing = {"pricingModel": "PAY_PER_EVENT", "pricingPerEvent": {"actorChargeEvents": {name: event}}}
    return read_event_prices(Raw(json.dumps(pricing).encode()), EVENT)


def tiers(**prices: float) -> dict[str, Any]:
    return {"eventTieredPricingUsd": {tier: {"tieredEventPriceUsd": price} for tier, price in prices.items()}}


@pytest.mark.parametrize(
    ("event", "prices"),
    [
        ({"eventPriceUsd": 0.00001}, EventPrices(10_000, 100_000, 10)),
        ({"eventPriceUsd": 0.0000125}, EventPrices(12_500, 125_000, 10)),
        ({"eventPriceUsd": 1.00000001e-05}, EventPrices(10_001, 100_010, 10)),
        (tiers(FREE=0.0001, BRONZE=0.00001, GOLD=0.00001), EventPrices(10_000, 100_000, 1)),
        (tiers(FREE=0.0001, BRONZE=0.000012, DIAMOND=0.00001), EventPrices(12_000, 100_000, 1)),
        (tiers(BRONZE=0.00001), EventPrices(10_000, 10_000, 1)),
        (tiers(FREE=0.0001), EventPrices(100_000, 100_000, 1)),
    ],
)
def test_prices_are_read_to_the_nano_dollar_and_the_dearest_paid_tier_counts(event: Any, prices: EventPrices) -> None:
    assert read(event) == prices
    paying, free = prices.plans
    assert (paying.event_price_nanos, paying.answer_tokens_max) == (prices.paying_nanos, None)
    assert (free.event_price_nanos, free.answer_tokens_max) == (prices.free_nanos, 2048)


@pytest.mark.parametrize(
    ("event", "name", "said"),
    [
        ({"eventPriceUsd": 0.00001}, "another", "no event `openrouter-api-usage`; it has another"),
        ({}, EVENT, "has no price"),
        ({"eventPriceUsd": 0}, EVENT, "above 0 and at most"),
        ({"eventPriceUsd": -1}, EVENT, "above 0 and at most"),
        ({"eventPriceUsd": 2}, EVENT, "above 0 and at most"),
        (tiers(GOLD=0), EVENT, "above 0 and at most"),
    ],
)
def test_a_pricing_that_prices_nothing_is_named(event: Any, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(event, name)


def test_what_is_not_paid_per_event_has_no_prices() -> None:
    assert read_event_prices(Raw(b'{"pricingModel": "FREE"}'), EVENT) is None
    with pytest.raises(DecodeError):
        read_event_prices(Raw(b'{"pricing": 1}'), EVENT)
