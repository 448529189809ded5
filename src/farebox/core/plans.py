"""Plans: the terms under which an account's callers are served."""

from collections.abc import Mapping
from decimal import ROUND_FLOOR, Context, Decimal
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from farebox.core.allowances import Limits
from farebox.core.money import EVENT_NANOS, charged, events_usd

FREE_ANSWER_TOKENS_MAX = 2048

_FLOOR = Context(prec=40, rounding=ROUND_FLOOR)


class Plan(Struct, frozen=True, omit_defaults=True):
    """What an event costs a caller, how long an answer may be, which models may be ordered.

    `event_price_nanos` is the plan's multiplier times $0.00001, so that a fare is a product of two integers.
    `models` are shell patterns over model ids (`openai/*`); None allows every model. `narrower` are further
    patterns that must allow a model as well: those of limits, each as whose limits they are and the patterns.
    `shows`: what its callers are told, the `cost` beside the fare, or the `fare` alone (`core.resale`).
    """

    name: str
    event_price_nanos: int
    answer_tokens_max: int | None = None
    models: tuple[str, ...] | None = None
    narrower: tuple[tuple[str, tuple[str, ...]], ...] = ()
    shows: Literal["cost", "fare"] = "cost"

    def fare_nanos(self, cost: Decimal) -> int:
        """The fare of a readable cost in USD."""
        return charged(cost, self.event_price_nanos, marked_up=self.marks_up)[1]

    def cost_covered(self, nanos: int) -> Decimal:
        """The largest cost in USD, rounded down, whose fare `nanos` cover."""
        if not self.marks_up:
            return events_usd(max(0, nanos) // self.event_price_nanos)
        return _FLOOR.divide(events_usd(max(0, nanos) // EVENT_NANOS), self.multiplier)

    @property
    def shows_cost(self) -> bool:
        """Whether its callers are told what the upstream charged."""
        return self.shows == "cost"

    @property
    def marks_up(self) -> bool:
        """Whether a cost is multiplied before it is rounded up to events: where the fare alone is told, so that the
        steps of fares do not tell the multiplier."""
        return self.shows == "fare"

    @property
    def multiplier(self) -> Decimal:
        return Decimal(self.event_price_nanos) / EVENT_NANOS

    def narrowed(self, whose: str, limits: Limits) -> "Plan":
        """The plan narrowed by limits: models that both allow, the lower answer cap. `whose` names the limits in
        refusals."""
        caps = [cap for cap in (self.answer_tokens_max, limits.answer_tokens_max) if cap is not None]
        narrower = self.narrower if limits.models is None else (*self.narrower, (whose, limits.models))
        return replace(self, answer_tokens_max=min(caps, default=None), narrower=narrower)

    def refusing(self, *names: str) -> str | None:
        """Whose terms do not include a model under any of its names: a plan's, or a limit's; None where it is
        allowed."""
        if self.models is not None and not _matches(names, self.models):
            return f"the plan `{self.name}`"
        return next((whose for whose, patterns in self.narrower if not _matches(names, patterns)), None)

    @property
    def allows_all(self) -> bool:
        """Whether every model may be ordered."""
        return self.models is None and not self.narrower

    def allows(self, *names: str) -> bool:
        return self.refusing(*names) is None


def _matches(names: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def event_price_nanos(multiplier: Decimal) -> int:
    """The price of an event under `multiplier`, in nano-dollars.

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


def difference(before: Mapping[str, Plan], after: Mapping[str, Plan]) -> str:
    """Which plans are new, changed or gone, as text like `new: a, b; gone: c`; empty where none is."""
    named = {
        "new": [name for name in after if name not in before],
        "changed": [name for name, plan in after.items() if name in before and before[name] != plan],
        "gone": [name for name in before if name not in after],
    }
    return "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in named.items() if names)
