"""Alerts: what needs a person, and of which of it somebody is to be told now.

A *trouble* is what is found to be so now. Where it is the first time, it is *raised*: written down under its name, with
its level, and every receiver that wants it is told once. It is told again only where it has become worse (its level is
higher), or where it was over in between.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from farebox.core.allowances import DAY_US, Allowance, Period, began_us, date_of, day_of
from farebox.core.health import WHOLE, Standing
from farebox.core.money import NANOS_PER_USD, format_usd

Kind = Literal[
    "low_balance", "limit_80", "limit_100", "unresolved_orders", "failing_upstream", "failing_task", "stale_prices"
]

KINDS: Mapping[str, str] = {
    "low_balance": "an account has little left",
    "limit_80": "an account or a key has used 80% of a limit of money",
    "limit_100": "such a limit is used up",
    "unresolved_orders": "orders whose cost an operator must decide",
    "failing_upstream": "an upstream that serves no orders any more",
    "failing_task": "a background task that keeps failing",
    "stale_prices": "prices that could not be renewed",
}
"""The kinds of trouble, and what each is in words."""

OF_ACCOUNTS = ("low_balance", "limit_80", "limit_100")
"""Those that are about one account: a receiver of one account's alerts is told of no other."""

TEST = "test"
"""The kind of what a manager sends to try a receiver."""

LOW_NANOS = NANOS_PER_USD
"""With less than this left an account is low that has no threshold of its own."""

WARNED_PERCENT = 80
USED_UP_PERCENT = 99
"""A limit counts as used up from here on. An order that does not fit in what is left is refused and costs nothing, so
the last hundredth may never be spent."""

MODELS_TOLD_MAX = 5


class Trouble(Struct, frozen=True):
    """Something that is so now, and needs a person.

    `name` is what it is raised under: the same for as long as it is the same trouble. `said` tells it to people,
    `facts` to programs, with money as exact text. It is told once it has been there for `patience_us`, and not over
    before `until_us`. `where` is the console's page for it.
    """

    name: str
    kind: Kind
    said: str
    facts: Mapping[str, str | int | list[str] | None]
    account_id: int | None = None
    level: int = 1
    patience_us: int = 0
    until_us: int = 0
    where: str = ""


class Raised(Struct, frozen=True):
    """A trouble that was found: since when, and the level at which it was told; 0: it was not yet. It may be over from
    `until_us` on."""

    name: str
    level: int
    since_us: int
    until_us: int


class Changes(Struct, frozen=True):
    """What a look at everything comes to: troubles to be told now, those to be written down or put off, and names that
    are over."""

    told: tuple[Trouble, ...] = ()
    noted: tuple[Raised, ...] = ()
    over: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.told or self.noted or self.over)


TOLD_AT_ONCE = 100
"""How many troubles one look tells of; the others come with the next one."""


def decide(raised: Mapping[str, Raised], troubles: Iterable[Trouble], now_us: int) -> Changes:
    """What is to be told and written down, by what was raised before and what is so now."""
    told: list[Trouble] = []
    noted: list[Raised] = []
    found = {trouble.name: trouble for trouble in troubles}
    for trouble in found.values():
        before = raised.get(trouble.name)
        since_us = now_us if before is None else before.since_us
        if trouble.level > (0 if before is None else before.level) and now_us - since_us >= trouble.patience_us:
            if len(told) < TOLD_AT_ONCE:
                told.append(trouble)
        elif before is None:
            noted.append(Raised(trouble.name, 0, now_us, trouble.until_us))
        elif before.until_us < trouble.until_us:
            noted.append(replace(before, until_us=trouble.until_us))
    over = tuple(name for name, each in raised.items() if name not in found and each.until_us <= now_us)
    return Changes(tuple(told), tuple(noted), over)


# What there is to be found


class Low(NamedTuple):
    """An account that has less left than `below_nanos`, whatever is held of it: holds come and go."""

    account_id: int
    account: str
    left_nanos: int
    below_nanos: int


def low_balance(low: Low) -> Trouble:
    account_id, account, left_nanos, below_nanos = low
    left, below = format_usd(left_nanos), format_usd(below_nanos)
    left_in_words = f"${left}" if left_nanos >= 0 else f"-${format_usd(-left_nanos)}"
    return Trouble(
        f"low_balance {account_id}",
        "low_balance",
        f"Account {account} has {left_in_words} left, less than ${below}",
        {"account": account, "left_usd": left, "below_usd": below},
        account_id,
        where=f"/accounts/{account_id}",
    )


class Used(Struct, frozen=True):
    """How much of a limit of money is used, in nano-dollars, from WARNED_PERCENT on."""

    owner: str
    account_id: int
    period: Period
    most_nanos: int
    spent_nanos: int

    @property
    def is_used_up(self) -> bool:
        return self.spent_nanos * 100 >= self.most_nanos * USED_UP_PERCENT


def limits_used(allowance: Allowance, now_us: int) -> list[Used]:
    """The limits of money of an account or a key that are nearly used, or used up."""
    found = []
    for period, most in allowance.limits.money.items():
        spent = allowance.spent_nanos(period, now_us)
        if spent * 100 >= most * WARNED_PERCENT:
            found.append(Used(allowance.owner, allowance.account_id, period, most, spent))
    return found


def limit_used(used: Used, account: str, key: str | None, now_us: int) -> Trouble:
    """`key` is what the key is called, or whoever else has limits within an account; None: it is the account's own."""
    began = date_of(day_of(began_us(used.period, now_us)))
    per = "in all" if used.period == "total" else f"a {used.period}"
    owner, _, row_id = used.owner.partition(" ")
    whose = f"Account {account}" if key is None else f"{owner.capitalize()} {key} of account {account}"
    most, spent = format_usd(used.most_nanos), format_usd(used.spent_nanos)
    has = "has used up" if used.is_used_up else f"has used {WARNED_PERCENT}% of"
    kind: Kind = "limit_100" if used.is_used_up else "limit_80"
    return Trouble(
        f"limit {used.owner} {used.period} {began} {used.most_nanos}",
        kind,
        f"{whose} {has} its ${most} {per}: ${spent} spent",
        {
            "account": account,
            **({} if key is None else {owner: key}),
            "limit": f"usd_{'total' if used.period == 'total' else f'per_{used.period}'}",
            "limit_usd": most,
            "spent_usd": spent,
            "since": None if used.period == "total" else began,
        },
        used.account_id,
        level=100 if used.is_used_up else WARNED_PERCENT,
        until_us=_ends_us(used.period, now_us),
        where=f"/keys/{row_id}" if owner == "key" else f"/accounts/{used.account_id}",
    )


_DAYS = {"day": 1, "week": 7, "month": 31}


def _ends_us(period: Period, now_us: int) -> int:
    """When the current period ends; 0 for that which has no end."""
    if period == "total":
        return 0
    return began_us(period, began_us(period, now_us) + _DAYS[period] * DAY_US)


def unresolved_orders(number: int) -> Trouble:
    """Told again whenever there are about twice as many."""
    orders = "1 order" if number == 1 else f"{number:,} orders"
    return Trouble(
        "unresolved_orders",
        "unresolved_orders",
        f"{orders} whose cost nobody will be asked for any more: decide on each",
        {"orders": number},
        level=number.bit_length(),
        where="/reconcile",
    )


def failing_upstreams(standings: Iterable[Standing], patience_us: int) -> list[Trouble]:
    """Those that were left alone after they failed, and have served no order since, be it of one model."""
    failing: dict[str, list[Standing]] = {}
    for standing in standings:
        if standing.until_us and standing.failures:
            failing.setdefault(standing.upstream, []).append(standing)
    return [_failing_upstream(name, found, patience_us) for name, found in sorted(failing.items())]


def _failing_upstream(name: str, standings: Sequence[Standing], patience_us: int) -> Trouble:
    ranked = sorted(standings, key=lambda each: (each.model != WHOLE, each.model))
    models = [each.model for each in ranked if each.model != WHOLE][:MODELS_TOLD_MAX]
    is_whole = ranked[0].model == WHOLE
    what = "all its models" if is_whole else ", ".join(models)
    reason = ranked[0].reason
    return Trouble(
        f"failing_upstream {name}",
        "failing_upstream",
        f"Upstream {name or 'of the settings'} fails with {what}" + (f": {reason}" if reason else ""),
        {"upstream": name, "models": [] if is_whole else models, "reason": reason, "failures": ranked[0].failures},
        patience_us=patience_us,
        where="/models",
    )


def failing_task(name: str, harm: str, patience_us: int, until_us: int) -> Trouble:
    """As one process sees it, which may be the only one: it is over when none has said so again before `until_us`."""
    return Trouble(
        f"failing_task {name}",
        "failing_task",
        f"The task {name} failed and has not begun again" + (f": {harm}" if harm else ""),
        {"task": name, "harm": harm},
        patience_us=patience_us,
        until_us=until_us,
    )


def stale_prices(why: str | None, patience_us: int, until_us: int) -> Trouble:
    """As one process sees it."""
    reason = why or "they should have been renewed"
    return Trouble(
        "stale_prices",
        "stale_prices",
        f"Prices are stale: {reason}",
        {"reason": reason},
        patience_us=patience_us,
        until_us=until_us,
        where="/models",
    )


# Who is told, and what


Form = Literal["webhook", "slack"]
FORMS: Mapping[str, str] = {"webhook": "a signed webhook", "slack": "a message for Slack, or what takes the same"}


class Receiver(Struct, frozen=True):
    """Where alerts go. It is told of the `kinds`, and where `account_id` is set, of that account's alone. `secret`
    signs what a webhook sends; Slack's form has none. Its URL is a secret, too."""

    id: int
    label: str
    url: str
    form: Form
    secret: str | None
    kinds: tuple[str, ...]
    account_id: int | None
    created_us: int

    def wants(self, trouble: Trouble) -> bool:
        return trouble.kind in self.kinds and self.account_id in (None, trouble.account_id)


State = Literal["due", "delivered", "given_up"]


class Delivery(Struct, frozen=True):
    """An alert on its way to one receiver: `body` is sent as it stands, each time under the same `id`. `said` is what
    went wrong at the last of its `attempts`; empty: nothing."""

    id: str
    receiver_id: int
    kind: str
    body: str
    created_us: int
    due_us: int | None
    attempts: int = 0
    state: State = "due"
    said: str = ""
    ended_us: int | None = None


PAUSES_SECONDS = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 21_600, 36_000)
"""After each attempt that failed. After the last of them it is tried once more: a day after the first."""


def after_attempt(delivery: Delivery, problem: str | None, now_us: int, *, is_last: bool = False) -> Delivery:
    """A delivery after an attempt at it: None where the receiver took it, else what went wrong."""
    attempts = delivery.attempts + 1
    if problem is None:
        return replace(delivery, attempts=attempts, state="delivered", said="", due_us=None, ended_us=now_us)
    if is_last or attempts > len(PAUSES_SECONDS):
        return replace(delivery, attempts=attempts, state="given_up", said=problem, due_us=None, ended_us=now_us)
    due_us = now_us + PAUSES_SECONDS[attempts - 1] * 1_000_000
    return replace(delivery, attempts=attempts, said=problem, due_us=due_us)


def deliveries_of(
    troubles: Iterable[Trouble], receivers: Iterable[Receiver], ids: Iterable[str], now_us: int, now: str
) -> list[tuple[str, Delivery]]:
    """What is sent of each trouble: its name, and the delivery to a receiver; `now` is the same moment as text."""
    every, names = list(receivers), iter(ids)
    return [
        (trouble.name, delivery(receiver, next(names), trouble.kind, trouble.said, trouble.facts, now_us, now))
        for trouble in troubles
        for receiver in every
        if receiver.wants(trouble)
    ]


def delivery(
    receiver: Receiver,
    name: str,
    kind: str,
    said: str,
    facts: Mapping[str, str | int | list[str] | None],
    now_us: int,
    now: str,
) -> Delivery:
    """A delivery of the id `name`, due at once."""
    if receiver.form == "slack":
        body = msgspec.json.encode({"text": escaped_for_slack(f"Farebox: {said}")})
    else:
        told = {"id": name, "type": kind, "timestamp": now, "message": said, "data": facts}
        body = msgspec.json.encode(told)
    return Delivery(name, receiver.id, kind, body.decode(), now_us, now_us)


_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def escaped_for_slack(text: str) -> str:
    """The three characters that have a meaning there, as Slack's documentation says: a name could mention everybody."""
    return text.translate(_SLACK)
