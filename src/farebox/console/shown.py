"""How values stand on a page: amounts to the last nano-dollar, moments in UTC."""

from collections.abc import Iterable

from markupsafe import Markup

from farebox import clock
from farebox.core.allowances import date_of
from farebox.core.money import NANOS_PER_USD

PLACES_MIN = 2
_NANO_PLACES = 9


def places_of(amounts: Iterable[int | None]) -> int:
    """How many decimals amounts need that stand above each other: as many as the finest of them has."""
    most = PLACES_MIN
    for nanos in amounts:
        fraction = f"{abs(nanos or 0) % NANOS_PER_USD:09d}".rstrip("0")
        most = max(most, len(fraction))
    return most


def usd(nanos: int | None, places: int | None = None) -> str:
    """Nano-dollars as text, never rounded: `$1,234.50`; those below zero begin with a minus."""
    if nanos is None:
        return "no limit"
    places = max(places or 0, places_of([nanos]))
    whole, fraction = divmod(abs(nanos), NANOS_PER_USD)
    sign = "\N{MINUS SIGN}" if nanos < 0 else ""
    return f"{sign}${whole:,}.{f'{fraction:09d}'[:places]}"


def money(nanos: int | None, places: int | None = None, *, is_open: bool = False) -> Markup:
    """The same as it stands in a table: what is below zero, or not known yet, is marked by more than its colour."""
    kind = "open" if is_open else "negative" if nanos is not None and nanos < 0 else ""
    return Markup('<span class="money {}">{}</span>').format(kind, usd(nanos, places))


def exact(amount: str, places: int = PLACES_MIN) -> str:
    """An exact amount in USD with at least so many decimals."""
    whole, _, fraction = amount.partition(".")
    return f"${int(whole):,}.{fraction.ljust(places, '0')}"


def decimals_of(amounts: Iterable[str | None]) -> int:
    """As `places_of`, of exact amounts."""
    return max([PLACES_MIN, *(len((amount or "").partition(".")[2]) for amount in amounts)])


def count(number: int) -> str:
    return f"{number:,}"


def moment(us: int | None, timespec: str = "seconds") -> Markup:
    """A moment in UTC, to be read by people and machines."""
    if us is None:
        return Markup('<span class="none">never</span>')
    iso = clock.iso(us, timespec)
    return Markup('<time datetime="{}">{}</time>').format(iso, iso.replace("T", " ").removesuffix("Z"))


def time_of_day(us: int) -> str:
    """Hours and minutes in UTC."""
    return clock.iso(us, "minutes")[11:16]


def day(number: int) -> str:
    return date_of(number)


def lasted(us: int) -> str:
    """How long something took."""
    seconds = us / 1_000_000
    if seconds < 10:
        return f"{seconds:.3f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def about(seconds: float) -> str:
    """A time that is not known exactly."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.2g} ms"
    return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
