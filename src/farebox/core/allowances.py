"""Allowances: the limits of an account or a key, and how much of them is used.

Limits are enforced where money is: by the transaction that places a hold, so that all processes together keep to them.
Rates are a sliding window: orders and tokens are counted by the second over the last minute; the second that has left
it in part still counts whole, so no minute ever has more than its limit. An order's tokens are counted in advance, as
the most that it can become, and corrected when it ends. Days, weeks (from Monday) and months are those of UTC.
"""

from collections.abc import Mapping
from datetime import date
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from farebox.core.money import format_usd, parse_usd
from farebox.core.reading import read_whole

DAY_US = 24 * 3600 * 1_000_000
SECOND_US = 1_000_000
MINUTE_SECONDS = 60

AHEAD_US = 3600 * SECOND_US
"""Fares counted further in the future than this were counted by a wrong clock, and are taken to be of now."""

Period = Literal["day", "week", "month", "total"]
PERIODS: tuple[Period, ...] = ("day", "week", "month", "total")

Rate = Literal["requests_per_minute", "tokens_per_minute", "orders_at_once"]

Slot = tuple[int, int, int]
"""A second (since 1970), and how many orders and tokens began in it."""


class Limits(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The most that is allowed; None: no limit. Money is in nano-dollars; `models` are shell patterns over model ids,
    as in a plan."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    orders_at_once: int | None = None
    day_nanos: int | None = None
    week_nanos: int | None = None
    month_nanos: int | None = None
    total_nanos: int | None = None
    models: tuple[str, ...] | None = None
    answer_tokens_max: int | None = None

    @property
    def money(self) -> dict[Period, int]:
        """The money limits that are set, in nano-dollars."""
        return {period: limit for period in PERIODS if (limit := getattr(self, _field_of(period))) is not None}

    def within(self, default: "Limits") -> "Limits":
        """These limits, and where there is none, the default's."""
        own = {name: limit for name in self.__struct_fields__ if (limit := getattr(self, name)) is not None}
        return replace(default, **own)


NO_LIMITS = Limits()

COUNT_MAX = 1_000_000_000
PATTERNS_MAX = 1_000
PATTERN_LENGTH_MAX = 200

COUNTS = ("requests_per_minute", "tokens_per_minute", "orders_at_once", "answer_tokens_max")
AMOUNTS: Mapping[str, Period] = {
    "usd_per_day": "day",
    "usd_per_week": "week",
    "usd_per_month": "month",
    "usd_total": "total",
}
MODELS = "models"
LIMIT_NAMES = (*COUNTS, *AMOUNTS, MODELS)
"""The limits' names in the API, in commands and in `farebox.toml`, where money is in USD."""

LimitChanges = Mapping[str, str | list[str] | None]
"""New values of limits by LIMIT_NAMES, numbers as text; None lifts a limit."""

NO_CHANGES: LimitChanges = {}


def with_changes(limits: Limits, changes: LimitChanges) -> Limits:
    """The limits after the changes; these very ones where there are none.

    Raises:
        ValueError: an unknown name or an impossible value; the message names it and says what would be right.
    """
    fields: dict[str, object] = {}
    for name, value in changes.items():
        if name not in LIMIT_NAMES:
            raise ValueError(f"{name}: there is no such limit; there are {', '.join(LIMIT_NAMES)}")
        field = _field_of(AMOUNTS[name]) if name in AMOUNTS else name
        if value is None:
            fields[field] = None
        elif name == MODELS:
            fields[field] = _patterns(value)
        elif isinstance(value, list):
            raise ValueError(f"{name}: write one number")
        else:
            fields[field] = _count(name, value) if name in COUNTS else _amount(name, value)
    return replace(limits, **fields) if fields else limits


def limits_by_name(limits: Limits) -> dict[str, str | int | list[str] | None]:
    """All limits by LIMIT_NAMES, None where there is none; USD amounts as plain decimal text."""
    money = limits.money
    return {
        **{name: getattr(limits, name) for name in COUNTS},
        **{name: format_usd(money[period]) if period in money else None for name, period in AMOUNTS.items()},
        MODELS: None if limits.models is None else list(limits.models),
    }


def usage_by_name(allowance: "Allowance | None", now_us: int) -> dict[str, str | int]:
    """How much is used of each limit that is counted, by LIMIT_NAMES; USD amounts as plain decimal text."""
    if allowance is None:
        return {}
    current = allowance.current(now_us)
    return {
        "requests_per_minute": sum(orders for _, orders, _ in current),
        "tokens_per_minute": sum(tokens for _, _, tokens in current),
        "orders_at_once": allowance.at_once,
        **{name: format_usd(allowance.spent_nanos(period, now_us)) for name, period in AMOUNTS.items()},
    }


def _field_of(period: Period) -> str:
    """The field of a period in Limits and Allowance."""
    return f"{period}_nanos"


def _count(name: str, value: str) -> int:
    count = read_whole(value, 1, COUNT_MAX)
    if count is None:
        raise ValueError(f"{name}: {value[:50]!r} is no limit; write a whole number from 1 to {COUNT_MAX}")
    return count


def _amount(name: str, value: str) -> int:
    try:
        return parse_usd(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _patterns(value: str | list[str]) -> tuple[str, ...]:
    patterns = [each.strip() for each in (value.split(",") if isinstance(value, str) else value)]
    if not 1 <= len(patterns) <= PATTERNS_MAX or not all(0 < len(each) <= PATTERN_LENGTH_MAX for each in patterns):
        raise ValueError(
            f"models: write 1 to {PATTERNS_MAX} model ids or shell patterns over them, each of up to"
            f" {PATTERN_LENGTH_MAX} characters, such as openai/*"
        )
    return tuple(patterns)


class Exceeded(Struct, frozen=True):
    """A rate limit that an order would exceed: `most` is the limit, `remaining` what is left of it, `reset_us` when
    there is room for the order. `never`: the order alone is more than the limit."""

    owner: str
    rate: Rate
    most: int
    remaining: int
    reset_us: int
    never: bool = False


END_USER_LIMITS = ("requests_per_minute", "tokens_per_minute", "orders_at_once", *AMOUNTS)
"""The limits that an end user may have."""


def owner_of(kind: Literal["account", "key"], row_id: int) -> str:
    """The name that the books have for the owner of an allowance: `account 7`, `key 3`."""
    return f"{kind} {row_id}"


def end_user_owner(account_id: int, end_user: str | None) -> str:
    """The same of an account's end user, `end_user 7 NAME`; of none (`end_users 7`), for the limits that each of them
    has where it has none of its own, against which nothing counts."""
    return f"end_users {account_id}" if end_user is None else f"end_user {account_id} {end_user}"


class Allowance(Struct, frozen=True):
    """The limits of one account or key, and what counts against them.

    `pending_nanos` is the sum of its holds that have not ended, `at_once` the number of its orders that are being
    served. `total_nanos`, `day_nanos`, ... sum up its fares; the latest was counted at `counted_us`, which says of
    which day, week and month the sums are. `minute` has the seconds of the last minute in which orders began, oldest
    first.
    """

    owner: str
    account_id: int
    limits: Limits
    pending_nanos: int = 0
    total_nanos: int = 0
    day_nanos: int = 0
    week_nanos: int = 0
    month_nanos: int = 0
    counted_us: int = 0
    at_once: int = 0
    minute: tuple[Slot, ...] = ()

    def spent_nanos(self, period: Period, now_us: int) -> int:
        """The fares of the current day, week or month, or of all time."""
        spent: int = getattr(self, _field_of(period))
        return spent if self.counted_us >= began_us(period, max(now_us, self.counted_us)) else 0

    def available_nanos(self, now_us: int) -> tuple[int, Period] | None:
        """How much may still be held, and the period whose limit says so; None where money has no limit."""
        now = self._righted(now_us)
        left = [(most - now.spent_nanos(period, now_us), period) for period, most in self.limits.money.items()]
        if not left:
            return None
        least, period = min(left)
        return least - self.pending_nanos, period

    def tokens_available(self, now_us: int) -> int | None:
        """How many tokens the last minute has left; None where tokens have no limit."""
        most = self.limits.tokens_per_minute
        return None if most is None else most - sum(tokens for _, _, tokens in self.current(now_us))

    def refuse(self, now_us: int, least_tokens: int) -> Exceeded | None:
        """The rate limit that an order of at least so many tokens would exceed now; None where it may begin."""
        limits, current = self.limits, self.current(now_us)
        if limits.orders_at_once is not None and self.at_once >= limits.orders_at_once:
            return Exceeded(self.owner, "orders_at_once", limits.orders_at_once, 0, now_us + SECOND_US)
        orders = [(second, orders) for second, orders, _ in current]
        tokens = [(second, tokens) for second, _, tokens in current]
        exceeded = self._no_room("requests_per_minute", limits.requests_per_minute, orders, 1, now_us)
        return exceeded or self._no_room("tokens_per_minute", limits.tokens_per_minute, tokens, least_tokens, now_us)

    def _no_room(
        self, rate: Rate, most: int | None, counts: list[tuple[int, int]], needed: int, now_us: int
    ) -> Exceeded | None:
        if most is None or needed <= (remaining := most - sum(count for _, count in counts)):
            return None
        room, reset_us = remaining, now_us
        for second, count in counts:
            room += count
            if needed <= room:
                # The second has left the minute when the one after its sixtieth begins.
                reset_us = (second + MINUTE_SECONDS + 1) * SECOND_US
                break
        return Exceeded(self.owner, rate, most, max(0, remaining), reset_us, never=needed > most)

    def began(self, now_us: int, tokens: int) -> "Allowance":
        """The allowance after an order began that may become so many tokens."""
        if self.limits.requests_per_minute is None and self.limits.tokens_per_minute is None:
            return self
        current = self.current(now_us)
        second = max(now_us // SECOND_US, current[-1][0] if current else 0)
        if current and current[-1][0] == second:
            _, orders, before = current[-1]
            return replace(self, minute=(*current[:-1], (second, orders + 1, before + tokens)))
        return replace(self, minute=(*current, (second, 1, tokens)))

    def held(self, nanos: int) -> "Allowance":
        """The allowance after money was set aside for an order."""
        return replace(self, pending_nanos=self.pending_nanos + nanos, at_once=self.at_once + 1)

    def ended(self, held_nanos: int, *, was_served: bool) -> "Allowance":
        """The allowance after a hold ended. `was_served`: its order still counted as being served, as an open hold's
        does not."""
        return replace(self, pending_nanos=self.pending_nanos - held_nanos, at_once=self.at_once - was_served)

    def left_open(self) -> "Allowance":
        """The allowance after a hold became open: its order is no longer being served, its money stays aside."""
        return replace(self, at_once=self.at_once - 1)

    def charged(self, fare_nanos: int, fare_us: int, now_us: int | None = None) -> "Allowance":
        """The allowance after a fare was posted, which is of `fare_us`; now, unless `now_us` says that it is later. A
        fare of a day, week or month that has ended counts against no other."""
        now = self._righted(fare_us if now_us is None else now_us)
        latest_us = max(fare_us, now.counted_us)
        sums = {
            _field_of(period): now.spent_nanos(period, latest_us)
            + (fare_nanos if fare_us == latest_us or fare_us >= began_us(period, latest_us) else 0)
            for period in PERIODS
        }
        return replace(now, **sums, counted_us=latest_us)

    def corrected(self, began_us: int, by_tokens: int) -> "Allowance":
        """The allowance with an ended order's tokens corrected, if the second in which it began (`began_us`) still
        counts.

        One that a clock behind brought counts with what was then the latest second, which may be any from its own on.
        So what it did not use is taken from the earliest of these: what is left leaves the minute too late, never too
        early. What it used beyond is added to the earliest."""
        second = began_us // SECOND_US
        # A second leaves the minute from its front, when an order begins more than a minute after it.
        if self.minute and self.minute[0][0] > second and self.minute[-1][0] > second + MINUTE_SECONDS:
            return self
        corrected: list[Slot] = []
        for at, orders, tokens in self.minute:
            by = max(by_tokens, -tokens) if at >= second else 0
            by_tokens -= by
            corrected.append((at, orders, tokens + by))
        return replace(self, minute=tuple(corrected))

    def current(self, now_us: int) -> tuple[Slot, ...]:
        """The seconds that count now. Those a little ahead were counted by a machine whose clock is ahead."""
        now = now_us // SECOND_US
        return tuple(slot for slot in self.minute if now - MINUTE_SECONDS <= slot[0] <= now + MINUTE_SECONDS)

    def _righted(self, now_us: int) -> "Allowance":
        return replace(self, counted_us=now_us) if self.counted_us > now_us + AHEAD_US else self


def began_us(period: Period, now_us: int) -> int:
    """When the current period began, in microseconds since 1970."""
    day = day_of(now_us)
    match period:
        case "day":
            return day * DAY_US
        case "week":
            return (day - _date(day).weekday()) * DAY_US
        case "month":
            return (day - _date(day).day + 1) * DAY_US
        case "total":
            return 0


def day_of(us: int) -> int:
    """Days since 1970."""
    return us // DAY_US


def date_of(day: int) -> str:
    """A day since 1970 as ISO 8601 writes it."""
    return _date(day).isoformat()


def month_of_day(day: int) -> tuple[int, int]:
    """The first day of a day's month, and that of the month behind it."""
    first = _date(day).replace(day=1)
    behind = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return first.toordinal() - _EPOCH, behind.toordinal() - _EPOCH


def _date(day: int) -> date:
    return date.fromordinal(_EPOCH + day)


_EPOCH = date(1970, 1, 1).toordinal()

LAST_DAY = date(9998, 12, 31).toordinal() - _EPOCH
"""The last day that can be asked for: those behind it, and the month behind its own, have dates, too."""
