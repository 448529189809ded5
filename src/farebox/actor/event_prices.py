"""What the Actor's priced event costs, as a run's pricing says: one price for all, or one for each tier of users.

Shapes: Apify's OpenAPI document, `ActorChargeEvent`.
"""

from decimal import ROUND_CEILING, Decimal

import msgspec
from msgspec import Raw, Struct

from farebox.core.money import NANOS_PER_USD
from farebox.core.plans import BUILT_IN, FREE_ANSWER_TOKENS_MAX, Plan

FREE_TIER = "FREE"
FREE_TIMES = 10
"""How many of the platform's events stand for one event of a free caller, where all pay the same price for an event."""


class EventPrices(Struct, frozen=True):
    """What one of our events costs a caller, in nano-dollars, and how many of the platform's priced events stand for
    one event of a free caller: 1 where the free tier has a price of its own, FREE_TIMES where all pay the same."""

    paying_nanos: int
    free_nanos: int
    free_times: int

    @property
    def plans(self) -> tuple[Plan, Plan]:
        """The plans of paying and of free callers."""
        return (
            Plan("paying", self.paying_nanos),
            Plan("free", self.free_nanos, answer_tokens_max=FREE_ANSWER_TOKENS_MAX),
        )


OWN_PRICES = EventPrices(BUILT_IN["paying"].event_price_nanos, BUILT_IN["free"].event_price_nanos, 1)
"""Where the run is not paid per event."""


class _Tier(Struct, rename="camel"):
    tiered_event_price_usd: Decimal


class _Event(Struct, rename="camel"):
    event_price_usd: Decimal | None = None
    event_tiered_pricing_usd: dict[str, _Tier] | None = None


class _PerEvent(Struct, rename="camel", frozen=True):
    actor_charge_events: dict[str, Raw] = {}


class _Pricing(Struct, rename="camel"):
    pricing_model: str
    pricing_per_event: _PerEvent = _PerEvent()


def read_event_prices(pricing: Raw, event: str) -> EventPrices | None:
    """The prices of one event in a run's `pricingInfo`; None where the run is not paid per event.

    Raises:
        ValueError: the event is not among those that are charged, or has no price.
        msgspec.DecodeError: it is not a pricing.
    """
    read = msgspec.json.decode(pricing, type=_Pricing)
    if read.pricing_model != "PAY_PER_EVENT":
        return None
    events = read.pricing_per_event.actor_charge_events
    if event not in events:
        declared = ", ".join(sorted(events)) or "none"
        raise ValueError(f"the Actor's pricing has no event `{event}`; it has {declared}")
    found = msgspec.json.decode(events[event], type=_Event)
    tiers = {tier: each.tiered_event_price_usd for tier, each in (found.event_tiered_pricing_usd or {}).items()}
    if tiers:
        # The dearest of several paid tiers: an order's hold must cover it.
        paid = max((price for tier, price in tiers.items() if tier != FREE_TIER), default=tiers.get(FREE_TIER))
        assert paid is not None
        return EventPrices(_nanos(paid), _nanos(tiers.get(FREE_TIER, paid)), 1)
    if found.event_price_usd is None:
        raise ValueError(f"the event `{event}` has no price")
    return EventPrices(_nanos(found.event_price_usd), FREE_TIMES * _nanos(found.event_price_usd), FREE_TIMES)


def _nanos(price: Decimal) -> int:
    """A price in nano-dollars, rounded up. Raises ValueError: it is not above 0, or above $1."""
    if not price.is_finite() or not 0 < price <= 1:
        raise ValueError(f"a price of an event is above 0 and at most $1, not {price}")
    return int((price * NANOS_PER_USD).to_integral_value(ROUND_CEILING))
