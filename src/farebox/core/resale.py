"""What callers are told whose plan `shows` the fare alone: every amount is the fare, every price the plan's, and
nothing lets the upstream's cost be worked out.

The one rule: by name, what may be money is taken out, and the fare put into `usage.cost`. So a member that an upstream
begins to send tomorrow tells nothing either.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

import msgspec
from msgspec import Raw

from farebox.core.errors import Refusal, invalid
from farebox.core.formats import Format, Progress, Seen
from farebox.core.legible import Fields, decode_fields, decode_list, written
from farebox.core.meter import Meter
from farebox.core.money import format_usd, is_readable_cost, plain, times_exact
from farebox.core.plans import Plan
from farebox.core.reading import UNREADABLE, skip_to_json
from farebox.core.sse import data_event, event_data, event_name, named_event
from farebox.core.tariffs import Tariff
from farebox.core.usage import Cost, Verdict, read_cost

_MONEY = re.compile("cost|pric|byok|fare|discount|usd|charge|credit|spen[dt]|surcharge|margin|markup", re.IGNORECASE)
"""Names of members that may tell money."""

_MAY_TELL = re.compile(rb"usage|" + _MONEY.pattern.encode(), re.IGNORECASE)

_HOLDERS = ("response", "message", "output")
"""Members in which an answer may stand with its usage: of an event in responses and messages, of what is kept."""

_METADATA = ("openrouter_metadata", "x_groq", "meta", "timings")
"""Members in which upstreams tell what they like about an answer, and nothing of its content."""


def tells_money(name: str) -> bool:
    """Whether a member of this name, or a header, may tell money."""
    return _MONEY.search(name) is not None


def tells_cost(name: str) -> bool:
    """Whether a member of this name of Farebox's own tells what the upstream charged."""
    return name.startswith("cost")


FareOf = Callable[[Raw], Raw | None]
"""The fare of a usage as a JSON number; None where its cost is not known."""


def fare_number(nanos: int) -> Raw:
    """An amount as a JSON number, exact."""
    return Raw(format_usd(nanos).encode())


def retold(body: bytes, fare_of: FareOf) -> bytes:
    """A whole answer, or the data of an event, with the fare in its usage and no other money; the same bytes where
    nothing of it had to be changed. Raises those of UNREADABLE."""
    fields = decode_fields(body)
    return bytes(written(fields)) if _retell(fields, fare_of) else body


def _retell(fields: Fields, fare_of: FareOf) -> bool:
    """Change an answer's members; whether there was anything to change."""
    is_changed = False
    for name, value in list(fields.items()):
        told: Raw | None = value
        if name == "usage":
            told = _usage(value, fare_of)
        elif _MONEY.search(name):
            told = None
        elif name in _HOLDERS and bytes(value).startswith(b"{"):
            inner = decode_fields(value)
            told = written(inner) if _retell(inner, fare_of) else value
        elif name in _METADATA:
            told = _without_money(value)
        if told is None:
            del fields[name]
        elif told is not value:
            fields[name] = told
        is_changed = is_changed or told is not value
    return is_changed


def _usage(usage: Raw, fare_of: FareOf) -> Raw:
    if not bytes(usage).startswith(b"{"):
        return usage
    fare = fare_of(usage)
    fields = decode_fields(_without_money(usage))
    if fare is not None:
        fields["cost"] = fare
    return written(fields)


def _without_money(value: Raw) -> Raw:
    """A value without the members, however deep, that may tell money."""
    text = bytes(value)
    if text.startswith(b"{"):
        fields = decode_fields(value)
        return written({name: _without_money(each) for name, each in fields.items() if not _MONEY.search(name)})
    if text.startswith(b"["):
        return Raw(msgspec.json.encode([_without_money(each) for each in decode_list(value)]))
    return value


class ResoldMeter(Meter):
    """A meter whose caller is told the fare alone. Comments that may tell money are left out, and so are events that
    nobody can read and that may."""

    __slots__ = ("_plan",)

    def __init__(self, wire: Format, progress: Progress, plan: Plan, tariff: Tariff | None = None) -> None:
        super().__init__(wire, progress, tariff)
        self._plan = plan

    def read_answer(self, body: bytes) -> tuple[bytes, Refusal | None]:
        read, failure = super().read_answer(body)
        if failure is not None:
            return read, failure
        try:
            return retold(skip_to_json(read), self._fare_of), None
        except UNREADABLE:
            return b"{}", None

    def _passed(self, event: bytes) -> bytes:
        told = self._retold(event)
        return super()._passed(event) if told is event else told

    def _sent_on(self, event: bytes, seen: Seen) -> bytes:
        return self._retold(super()._sent_on(event, seen))

    def _retold(self, event: bytes) -> bytes:
        if not _MAY_TELL.search(event):
            return event
        if (data := event_data(event)) is None:
            return b""
        try:
            told = retold(data, self._fare_of)
        except UNREADABLE:
            return b""
        if told is data:
            return event
        name = event_name(event)
        return data_event(told) if name is None else named_event(name, told)

    def _fare_of(self, usage: Raw) -> Raw | None:
        verdict: Verdict = read_cost(usage) if self._tariff is None else self.verdict("")
        return fare_number(self._plan.fare_nanos(verdict.amount)) if isinstance(verdict, Cost) else None


def without_amounts(reason: str) -> str:
    """Why an order is not settled, without what an upstream reported that is no amount."""
    said, found, _ = reason.partition("is not an amount")
    return said + found


# Prices

_PRICE = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")

_ABOUT_PRICES = frozenset({"unit", "billable", "variant", "min_prompt_tokens", "utc_start", "utc_end", "utc_days"})
"""Members of a `pricing` that say what a price is for, and when it holds. All others are prices."""

_UPSTREAMS_OWN = frozenset({"discount"})
"""What is said of the upstream's prices, and holds for no plan's."""

_WITH_PRICES = ("endpoints", "data", "models", "top_provider")
"""Members of an entry in which prices stand further down."""

_NONE = Raw(b"null")

ENTRIES_KEPT_MAX = 2048
"""Entries with a plan's prices that are kept: of a kilobyte or two each."""


def with_plans_prices(entry: Raw, plan: Plan) -> Raw:
    """An entry of a list (a model, an endpoint, or an object that holds some) with each price as the plan has it."""
    try:
        return _priced(entry, plan.multiplier)
    except UNREADABLE:
        return _NONE


def without_prices(entry: Raw) -> Raw:
    """The same for whoever sends no key, where some plan shows its fares alone: no price is told (-1)."""
    try:
        return _priced(entry, None)
    except UNREADABLE:
        return _NONE


def before_markup(price: str, plan: Plan) -> str | None:
    """A price of the plan's as the upstream has it, so that who asks by it learns nothing of the upstream's; None where
    it is none."""
    if not _PRICE.fullmatch(price) or not is_readable_cost(amount := Decimal(price)):
        return None
    return plain(amount / plan.multiplier)


def in_upstreams_prices(body: bytes, plan: Plan) -> bytes:
    """An order that names the highest prices it would be served at (`provider.max_price`), which are the plan's, as its
    upstream gets it. Raises Refusal 400."""
    try:
        fields = decode_fields(body)
        provider = decode_fields(fields.get("provider", _NONE))
        most = decode_fields(provider.get("max_price", _NONE))
    except UNREADABLE:
        return body  # who reads it for its wishes says what is wrong
    told = Fields()
    for name, value in most.items():
        text = bytes(value)
        price = before_markup(text.strip(b'"').decode("utf-8", "replace"), plan)
        if text != b"null" and price is None:
            raise invalid(f"provider.max_price.{name[:40]}: write an amount in USD that is not below zero")
        told[name] = value if price is None else Raw(price.encode())
    return bytes(written({**fields, "provider": written({**provider, "max_price": written(told)})}))


_TOO_DEAR = re.compile(r"it costs \$[0-9.]+(?: a million tokens)?, and (provider\.max_price\.\w+) is \$[0-9.]+")


def unpriced(message: str) -> str:
    """Why nobody serves an order as it is asked, without the upstreams' prices."""
    return _TOO_DEAR.sub(r"it costs more than \1", message)


def _priced(value: Raw, times: Decimal | None) -> Raw:
    text = bytes(value)
    if text.startswith(b"["):
        return Raw(msgspec.json.encode([Raw(_priced_entry(bytes(each), times)) for each in decode_list(value)]))
    if not text.startswith(b"{"):
        return value
    told = Fields()
    for name, each in decode_fields(value).items():
        if name in _WITH_PRICES:
            told[name] = _priced(each, times)
        elif name.startswith("pric"):
            told[name] = _marked_up(each, times)
        elif not _MONEY.search(name):
            told[name] = each
    return written(told)


@lru_cache(maxsize=ENTRIES_KEPT_MAX)
def _priced_entry(entry: bytes, times: Decimal | None) -> bytes:
    """An entry of a list, which is asked for again and again: a model list of OpenRouter's has 400."""
    return bytes(_priced(Raw(entry), times))


def _marked_up(value: Raw, times: Decimal | None) -> Raw:
    """Prices, however deep they stand, times the plan's multiplier: exact, and of the type that they have. One below
    zero says that it is not one number, and zero is zero."""
    text = bytes(value)
    if text.startswith(b"{"):
        return written(
            {
                name: each if name in _ABOUT_PRICES else _marked_up(each, times)
                for name, each in decode_fields(value).items()
                if name not in _UPSTREAMS_OWN
            }
        )
    if text.startswith(b"["):
        return Raw(msgspec.json.encode([_marked_up(each, times) for each in decode_list(value)]))
    quote = b'"' if text.startswith(b'"') else b""
    digits = text.strip(b'"').decode("utf-8", "replace")
    if not _PRICE.fullmatch(digits):
        return value if not any(map(str.isdigit, digits)) else _NONE
    price = Decimal(digits)
    if price < 0:
        return value
    if times is None:
        return Raw(quote + b"-1" + quote)
    return Raw(quote + plain(times_exact(price, times)).encode() + quote) if is_readable_cost(price) else _NONE
