"""Money: exact decimals in, integer nano-dollars and events out. No float comes near.

An event is $0.00001. A cost becomes events once, rounded up, at settlement; money in the books is whole nano-dollars.
"""

from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from math import ceil

EVENT_NANOS = 10_000
"""Nano-dollars in one event."""

NANOS_PER_USD = 1_000_000_000

_ZERO = Decimal(0)
_EVENT_DIGITS = Decimal(5)
_NANO_DIGITS = 9

COST_MAX_USD = Decimal(1_000_000)
"""More than any one answer can cost: a larger number is an error of the upstream's, not a cost."""

COST_DIGITS_MAX = 60
"""Longest coefficient read as a cost. A binary float written out in full has at most 17 significant digits."""

_COST_EXPONENT_MIN = -400
"""Below the smallest binary float (5e-324): smaller exponents are noise, and would make exact arithmetic large."""

_EXACT = Context(prec=COST_DIGITS_MAX - _COST_EXPONENT_MIN, traps=[Inexact, InvalidOperation])


def is_readable_cost(cost: Decimal) -> bool:
    """Whether a reported cost is an amount that can be booked: finite, not negative, of sane size and length."""
    if not cost.is_finite() or (cost.is_signed() and cost != 0):
        return False
    _, digits, exponent = cost.as_tuple()
    return (
        isinstance(exponent, int)
        and exponent >= _COST_EXPONENT_MIN
        and len(digits) <= COST_DIGITS_MAX
        and cost <= COST_MAX_USD
    )


def events_ceil(cost: Decimal) -> int:
    """Events that `cost` (USD, readable) becomes: rounded up, exactly. Zero is zero."""
    assert _ZERO <= cost <= COST_MAX_USD, cost
    return ceil(_EXACT.scaleb(cost, _EVENT_DIGITS))


def charged(cost: Decimal, event_price_nanos: int, *, marked_up: bool) -> tuple[int, int]:
    """The events and the nano-dollars that a readable cost is charged: so many events of the cost at the plan's price
    of one; or, `marked_up`, the cost times the plan's multiplier in events of $0.00001. Either way rounded up once.

    The second is for who is not to see the cost: all such fares are whole steps of the same $0.00001, whatever the
    multiplier, so that no number of them tells it.
    """
    if not marked_up:
        events = events_ceil(cost)
        return events, events * event_price_nanos
    assert _ZERO <= cost <= COST_MAX_USD, cost
    # Nano-dollars of an event of the cost, in ten-thousandths of $0.00001: the multiplier, exactly.
    events = ceil(_EXACT.scaleb(_EXACT.multiply(cost, Decimal(event_price_nanos)), _EVENT_DIGITS - 4))
    return events, events * EVENT_NANOS


def add_exact(one: Decimal, other: Decimal) -> Decimal:
    """The sum of two readable costs, not rounded to the ambient precision."""
    return _EXACT.add(one, other)


Limbs = tuple[int, int, int]
"""A cost's digits behind the point, the first to ninth (with all before the point), to the 18th and to the 27th: each
a whole number, so that any database adds them up exactly. Of sums, the last two may be larger than nine digits."""

_LIMB = 10**9


def limbs_of(cost: Decimal) -> tuple[Limbs, Decimal]:
    """A cost's limbs, and what is left of it that is finer: nearly always zero."""
    scaled = _EXACT.scaleb(cost, 3 * _NANO_DIGITS)
    whole = int(scaled)
    upper, last = divmod(whole, _LIMB)
    first, middle = divmod(upper, _LIMB)
    return (first, middle, last), _EXACT.scaleb(_EXACT.subtract(scaled, Decimal(whole)), -3 * _NANO_DIGITS)


def cost_of(limbs: Limbs, finer: Decimal = _ZERO) -> Decimal:
    """The cost whose limbs these are."""
    first, middle, last = limbs
    whole = _EXACT.scaleb(Decimal((first * _LIMB + middle) * _LIMB + last), -3 * _NANO_DIGITS)
    return _EXACT.add(whole, finer)


def plain(amount: Decimal) -> str:
    """An exact amount as text, without an exponent and without zeros that say nothing."""
    text = f"{amount:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def times_exact(price: Decimal, count: int | Decimal) -> Decimal:
    """So many times a price, not rounded."""
    return _EXACT.multiply(price, Decimal(count))


def events_usd(events: int) -> Decimal:
    """What `events` are worth in USD, exactly."""
    return Decimal(events).scaleb(-_EVENT_DIGITS)


def usd_of(nanos: int) -> Decimal:
    """Nano-dollars in USD, exactly, without zeros that say nothing."""
    return Decimal(format_usd(nanos))


def whole_events(nanos: int) -> int | None:
    """How many steps of $0.00001 an amount is; None where it is none such."""
    events, rest = divmod(nanos, EVENT_NANOS)
    return None if rest else events


def nanos_usd(nanos: int) -> Decimal:
    """Nano-dollars in USD, exactly."""
    return _EXACT.scaleb(Decimal(nanos), -_NANO_DIGITS)


def floor_units(amount: Decimal, unit_price: Decimal) -> int:
    """How many whole units of `unit_price` (above zero) `amount` covers; 0 when it is negative."""
    return max(0, int(amount // unit_price))


@lru_cache(maxsize=1024)
def format_usd(nanos: int) -> str:
    """Nano-dollars as plain decimal USD without trailing zeros: 20_000 -> "0.00002", 5_000_000_000 -> "5"."""
    sign = "-" if nanos < 0 else ""
    whole, fraction = divmod(abs(nanos), NANOS_PER_USD)
    return f"{sign}{whole}.{fraction:09d}".rstrip("0") if fraction else f"{sign}{whole}"


def parse_usd(text: str) -> int:
    """A plain USD amount ("5", "0.25", "$1") as nano-dollars.

    Raises:
        ValueError: not a plain decimal number, negative, finer than a nano-dollar, or over a thousand million dollars.
    """
    plain = text.strip().removeprefix("$")
    whole, dot, fraction = plain.partition(".")
    if not (whole + fraction).isascii() or not (whole + fraction).isdigit() or (dot and not fraction):
        raise ValueError(f"{text!r} is not an amount in USD; write it like 5 or 0.25")
    if len(fraction) > _NANO_DIGITS:
        raise ValueError(f"{text!r} is finer than $0.000000001, the smallest amount the books hold")
    if len(whole) > _NANO_DIGITS:
        raise ValueError(f"{text!r} is more than the books hold in one transfer ($999,999,999)")
    return int(whole or "0") * NANOS_PER_USD + int(fraction.ljust(_NANO_DIGITS, "0"))
