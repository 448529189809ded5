"""Plans: the terms under which an account's callers are served."""

from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from types import MappingProxyType

from msgspec import Struct

from farebox.core.money import EVENT_NANOS, events_ceil

FREE_ANSWER_TOKENS_MAX = 2048


class Plan(Struct, frozen=True):
    """What an event costs a caller, how long an answer may be, which models may be asked.

    `event_price_nanos` is the plan's multiplier times an event, so that a fare is one integer product.
    `models` are shell patterns over model ids (`openai/*`); None allows every model.
    """

    name: str
    event_price_nanos: int
    answer_tokens_max: int | None = None
    models: tuple[str, ...] | None = None

    def fare_nanos(self, cost: Decimal) -> int:
        """The fare of a readable cost in USD."""
        return events_ceil(cost) * self.event_price_nanos

    def allows(self, model: str) -> bool:
        return self.models is None or any(fnmatchcase(model, pattern) for pattern in self.models)


def event_price_nanos(multiplier: Decimal) -> int:
    """The price of an event under `multiplier`.

    Raises:
        ValueError: not above zero, above 1,000, or finer than four decimals (a fare would not be whole nano-dollars).
    """
    price = multiplier * EVENT_NANOS
    if not multiplier.is_finite() or not 0 < multiplier <= 1000 or price != price.to_integral_value():
        raise ValueError(f"a multiplier is above 0, at most 1000 and has at most 4 decimals, not {multiplier}")
    return int(price)


BUILT_IN: Mapping[str, Plan] = MappingProxyType(
    {
        "paying": Plan("paying", EVENT_NANOS),
        "free": Plan("free", 10 * EVENT_NANOS, answer_tokens_max=FREE_ANSWER_TOKENS_MAX),
    }
)
