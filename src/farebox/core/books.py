"""What stands in the books: rows, the commands that change them, and the outcomes of commands. The rules are in
`core.ledger`."""

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Literal, final

from msgspec import Struct

from farebox.core.allowances import DAY_US, Exceeded, Period, end_user_owner, owner_of
from farebox.core.money import add_exact
from farebox.core.stored import StoredRow
from farebox.core.tariffs import Priced
from farebox.core.trail import NOT_TOLD, By
from farebox.core.usage import Verdict

CASH = 0
"""The account top-ups come from: what the operator was paid outside."""

FARES = 1
"""The account fares go to."""

FIRST_CALLER_ACCOUNT = 2

TransferKind = Literal["top-up", "hold", "post", "void", "adjustment"]
HoldState = Literal["pending", "open", "posted", "voided"]
Delivery = Literal["joined", "lost"]


class Fare(Struct, frozen=True, gc=False):
    """What an order was charged: the upstream's exact cost in USD, the events it came to, the fare in nano-dollars."""

    cost: Decimal
    events: int
    nanos: int


class Transfer(Struct, frozen=True, gc=False):
    """One movement of money. `hold_id` stands on transfers that place or end a hold, or correct its fare; cost, events
    and the price of an event on those that charge a fare; `note` is an operator's reason, and stands on every
    adjustment."""

    id: str
    kind: TransferKind
    debit_account: int
    credit_account: int
    amount_nanos: int
    created_us: int
    hold_id: str | None = None
    cost: Decimal | None = None
    events: int | None = None
    event_price_nanos: int | None = None
    over_hold_nanos: int = 0
    note: str | None = None

    @property
    def is_fare(self) -> bool:
        """Whether it charges what an order cost."""
        return self.cost is not None

    @property
    def is_correction(self) -> bool:
        """Whether it corrects the fare of an order that has ended."""
        return self.kind == "adjustment" and self.hold_id is not None and self.id != settlement_id(self.hold_id)

    @property
    def given_back_nanos(self) -> int:
        """Of a correction: what the account got back; below zero where it was charged more."""
        return self.amount_nanos if self.debit_account == FARES else -self.amount_nanos

    @property
    def fare(self) -> Fare | None:
        """What it charges for an order; None where it is no fare."""
        if self.cost is None:
            return None
        assert self.events is not None, self
        return Fare(self.cost, self.events, self.amount_nanos)


class Balance(Struct, frozen=True, gc=False):
    """An account's projection. `limit_nanos` is how far below zero it may go: 0 prepaid, None without limit.

    `overdrawn_nanos` is how far fares above their holds took it beyond that; nothing can be held until it is made good.
    """

    account_id: int
    credits_nanos: int
    debits_nanos: int
    pending_nanos: int
    limit_nanos: int | None
    overdrawn_nanos: int = 0

    @property
    def balance_nanos(self) -> int:
        """Paid in less fares posted."""
        return self.credits_nanos - self.debits_nanos

    @property
    def available_nanos(self) -> int | None:
        """What may still be held; None without limit."""
        return None if self.limit_nanos is None else self.balance_nanos + self.limit_nanos - self.pending_nanos

    def moved(self, credits_nanos: int = 0, debits_nanos: int = 0, pending_nanos: int = 0) -> "Balance":
        paid_in = self.credits_nanos + credits_nanos
        spent = self.debits_nanos + debits_nanos
        pending = self.pending_nanos + pending_nanos
        limit = self.limit_nanos
        overdrawn = 0
        if limit is not None and spent + pending > paid_in + limit:
            overdrawn = spent + pending - paid_in - limit
        return Balance(self.account_id, paid_in, spent, pending, limit, overdrawn)


class HoldRow(Struct, frozen=True, gc=False):
    """One order's life in the books, and the record of the generation it became.

    While it is open, `ask_us` is when the upstream is next asked what it cost, None when nobody will ask again; `asks`
    counts the questions. `charge_to` and `charge_times` as in `Outside`, None where nobody outside is told.
    `reserved_tokens` are those counted in advance, where tokens are limited. By the `order_digest` a repeat of an order
    without an idempotency key is recognized. `delivery`: `joined`, a repeat waits for its answer; `lost`, its caller or
    its process has gone before that. `upstream` is the name of the one that served it, None for the built-in one;
    `priced` is by which prices it is charged, None where its upstream tells the cost. `job_id` is by what name the
    upstream knows the job that the order began, None where it began none: such a hold is open until the job has ended.
    `marked_up`: its cost is multiplied before it is rounded up to events (`core.money.charged`); of orders from before
    schema 0023 none is.
    `kind` is what was ordered (chat, images, ...), and `units` how much of that kind's unit it used beside tokens
    (`core.kinds`); None where that is not known: of orders from before schema 0016 it never is. `end_user` and `tags`
    are for whom it was, as they are kept (`core.attribution`); None where the order named none. It went to the upstream
    at `sent_us`, whose head came at `head_us`, and what it answered had ended at `read_us`; `tried` says which others
    did not serve it, and why. None where that is not known: of orders from before schema 0025, or whose process died.
    """

    id: str
    account_id: int
    key_id: int
    worker: str
    state: HoldState
    amount_nanos: int
    plan: str
    event_price_nanos: int
    model: str
    streamed: bool
    created_us: int
    marked_up: bool = False
    generation_id: str | None = None
    served_model: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    reason: str | None = None
    ended_us: int | None = None
    asks: int = 0
    ask_us: int | None = None
    charge_to: str | None = None
    charge_times: int | None = None
    reserved_tokens: int | None = None
    order_digest: bytes | None = None
    delivery: Delivery | None = None
    upstream: str | None = None
    priced: Priced | None = None
    job_id: str | None = None
    kind: str | None = None
    units: int | None = None
    end_user: str | None = None
    tags: str | None = None
    sent_us: int | None = None
    head_us: int | None = None
    read_us: int | None = None
    tried: str | None = None

    @property
    def is_unresolved(self) -> bool:
        """Whether nobody will be asked what it cost any more: an operator must decide."""
        return self.state == "open" and self.ask_us is None


class Outside(Struct, frozen=True):
    """An outside biller charges the caller: with the request whose id `charge_to` is, or, where that is empty, with the
    run that serves it. `times` of its events stand for one of ours."""

    charge_to: str = ""
    times: int = 1


class ChargedFare(Struct, frozen=True):
    """A fare that the outside biller is to be told: `count` of its events. `charge_id` names the charge that the fare
    became part of."""

    transfer_id: str
    charge_to: str
    count: int
    charge_id: str | None = None


class Repeatable(Struct, frozen=True):
    """By what an order is recognized when it is sent again: digests of the caller's idempotency key, and of the path
    and body that were sent under it."""

    key_digest: bytes
    order_digest: bytes


class KeyUse(Struct, frozen=True):
    """The order that was placed under an account's idempotency key. `created_us` is the order's."""

    account_id: int
    key_digest: bytes
    order_digest: bytes
    hold_id: str
    created_us: int


class KeptAnswer(Struct, frozen=True):
    """A whole answer's body, or a stream's, kept to be given again."""

    hold_id: str
    content_type: str
    body: bytes


class Undelivered(Struct, frozen=True):
    """A whole answer that nobody was there to take, for a repeat of its order; `body` is None where none was kept.
    `created_us` is the order's."""

    hold_id: str
    key_id: int
    order_digest: bytes
    created_us: int
    body: bytes | None


class Sought(Struct, frozen=True):
    """The order that another says it repeats, or, where that is not `is_marked`, seems to repeat: one with the same
    digest under the same key."""

    account_id: int
    key_id: int
    order_digest: bytes
    is_marked: bool
    now_us: int


class Seen(Struct, frozen=True):
    """What the books say of that order: its hold's id, None where there is none to join. Then `may_follow` says whether
    one may be found in a moment: it has ended, and the process that served it may be about to note that nobody took its
    answer."""

    hold_id: str | None = None
    may_follow: bool = False


class First(Struct, frozen=True):
    """The order that was found, as it stands now; `body` is the answer that was kept for its repeats, if there is
    one."""

    hold: HoldRow
    body: bytes | None


KEY_LIFE_US = 24 * 3600 * 1_000_000
"""How long an idempotency key stands for its order: `Page._find_use` holds it to that, and `forget_old_answers` sweeps
what is older."""


@final
class TopUp(Struct, frozen=True, gc=False):
    """Pay money into an account. The id makes it idempotent: it stands for one amount to one account."""

    id: str
    account_id: int
    amount_nanos: int
    created_us: int
    note: str | None = None
    by: By = NOT_TOLD


@final
class PlaceHold(Struct, frozen=True, gc=False):
    """Set money aside: `wanted_nanos` if the account has that much and its limits allow it, otherwise as much as there
    is, if that is at least `least_nanos`. The same for the tokens that the order may become, where they are limited.

    Nothing is set aside where `repeatable` names an order that was placed before, or where it `is_repeat` and one with
    its `order_digest` is under way; nor where it is not wanted any more when it is carried out, which is asked last of
    all. Limits on orders and tokens a minute hold for orders only: without `is_order`, money alone is looked at.

    `marked_up`, `upstream` and `priced` as in HoldRow, of the upstream that is tried first; `kind` and `units`, too: as
    many as the order itself says it will use. `end_user` and `tags` as in HoldRow; the limits of an end user are looked
    at as those of the key are.
    """

    id: str
    account_id: int
    key_id: int
    wanted_nanos: int
    least_nanos: int
    plan: str
    event_price_nanos: int
    model: str
    streamed: bool
    created_us: int
    repeatable: Repeatable | None = None
    outside: Outside | None = None
    marked_up: bool = False
    wanted_tokens: int = 0
    least_tokens: int = 0
    is_order: bool = True
    order_digest: bytes | None = None
    is_repeat: bool = False
    is_wanted: Callable[[], bool] | None = None
    upstream: str | None = None
    priced: Priced | None = None
    kind: str | None = None
    units: int | None = None
    end_user: str | None = None
    tags: str | None = None


@final
class NameGeneration(Struct, frozen=True, gc=False):
    """Write down under which id the upstream knows the order, once that is known; `upstream` and `priced` where another
    serves it than the one that it was placed for."""

    hold_id: str
    generation_id: str | None
    upstream: str | None = None
    priced: Priced | None = None


class Decision(Struct, frozen=True):
    """An operator decided on an open hold: why, and who it was."""

    reason: str
    by: By = NOT_TOLD


@final
class Settle(Struct, gc=False):
    """End a hold as the verdict says, complete the generation's record, and keep the answer where one is to be kept:
    under an idempotency key always, else where nobody is there to take it (`is_unheard`, which may be said until it is
    carried out), or a repeat waits for it.

    `stored` is the answer as its account may ask for it later. `decision` is there where the verdict is an operator's.
    `upstream` and `priced`, with the usage, are of the upstream that served it; None: as they stand in the hold. Where
    another served it than the hold says, its `priced` is what is given here, or None. `job_id`, `sent_us`, `head_us`,
    `read_us` and `tried` as in HoldRow, None: as they stand there. `created_us` is when the order ended, which is when
    it is booked, too, unless `booked_us` says that this is later.
    """

    hold_id: str
    verdict: Verdict
    created_us: int
    generation_id: str | None = None
    served_model: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    answer: KeptAnswer | None = None
    is_unheard: bool = False
    decision: Decision | None = None
    upstream: str | None = None
    priced: Priced | None = None
    stored: StoredRow | None = None
    job_id: str | None = None
    units: int | None = None
    sent_us: int | None = None
    head_us: int | None = None
    read_us: int | None = None
    tried: str | None = None
    booked_us: int | None = None


@final
class KeepAnswer(Struct, frozen=True, gc=False):
    """Keep an answer for repeats of its order after all: it was sent, and its caller did not take it."""

    hold_id: str
    body: bytes | None


@final
class AskLater(Struct, frozen=True, gc=False):
    """The upstream was asked what an open hold cost, and had no answer: ask again at `ask_us`, or never."""

    hold_id: str
    ask_us: int | None
    reason: str


@final
class Correct(Struct, frozen=True, gc=False):
    """Correct the fare of an order that has ended, by a transfer beside it, for a reason: give back so much of it
    (`back_nanos`), or have it come to so much (`fare_nanos`). To give back the same for the same reason is a repeat; so
    is a fare that it comes to already."""

    hold_id: str
    created_us: int
    reason: str
    back_nanos: int | None = None
    fare_nanos: int | None = None
    by: By = NOT_TOLD


@final
class PayOut(Struct, frozen=True, gc=False):
    """Pay out what is left in an account, if none of it is held."""

    id: str
    account_id: int
    created_us: int
    reason: str
    by: By = NOT_TOLD


Command = TopUp | PlaceHold | NameGeneration | Settle | KeepAnswer | AskLater | Correct | PayOut


class Done(Struct, frozen=True, gc=False):
    """A top-up or a generation's name is in the books; `is_repeat` where the top-up was before."""

    is_repeat: bool = False


class OtherTopUp(Struct, frozen=True):
    """The id stands for another top-up; nothing was paid in."""

    transfer: Transfer


class Corrected(Struct, frozen=True):
    """The account got so much back (below zero: was charged more), and the order's fare comes to so much now."""

    account_id: int
    back_nanos: int
    fare_nanos: int
    is_repeat: bool = False


class NotCorrected(Struct, frozen=True):
    """Nothing was moved: there is no fare (`fare_nanos` None), less of it is left than was to be given back, or it was
    corrected as often as it can be."""

    fare_nanos: int | None = None


class PaidOut(Struct, frozen=True):
    """What was left is paid out: so much, perhaps nothing."""

    amount_nanos: int


class NotPaidOut(Struct, frozen=True):
    """Nothing was moved: so much is held for orders, or owed (`balance_nanos` below zero)."""

    pending_nanos: int
    balance_nanos: int


class Held(Struct, frozen=True, gc=False):
    """The money is set aside. `tokens` is how many the order may become, where tokens are limited."""

    amount_nanos: int
    tokens: int | None = None


class Repeated(Struct, frozen=True):
    """An earlier order stands under the caller's idempotency key, or is the one that this order repeats: its hold, and
    whether this order is the same."""

    hold: HoldRow
    is_same: bool


class NotWanted(Struct, frozen=True):
    """Nothing was set aside: nobody wanted it any more."""


class NotCovered(Struct, frozen=True):
    """Nothing was set aside: the account cannot cover the least that was asked, or `owner`'s limit for a `period` does
    not allow it."""

    available_nanos: int
    owner: str | None = None
    period: Period | None = None


class Settled(Struct, frozen=True, gc=False):
    """How the hold stands after settling; `fare` where it was posted, None where it was not."""

    state: HoldState
    fare: Fare | None = None


class NoSuchRow(Struct, frozen=True):
    """The command names an account or a hold that is not in the books."""

    name: str


Outcome = (
    Done
    | OtherTopUp
    | Held
    | Repeated
    | NotWanted
    | NotCovered
    | Exceeded
    | Settled
    | NoSuchRow
    | Corrected
    | NotCorrected
    | PaidOut
    | NotPaidOut
)


def settlement_id(hold_id: str) -> str:
    """The id of the one transfer that ends a hold."""
    return f"{hold_id}-end"


CORRECTIONS_MAX = 20
"""How often one order's fare is corrected at most."""


def correction_ids(hold_id: str) -> list[str]:
    """The ids of the transfers that correct an order's fare, the first of them first. They come after those of all
    orders, so that an audit reads them last."""
    return [f"adjust-{hold_id}-{number:02}" for number in range(CORRECTIONS_MAX)]


def charged_fare(hold: HoldRow, events: int) -> ChargedFare | None:
    """What an outside biller is to be told of a fare of so many events; None where nobody is, or the fare is zero."""
    if hold.charge_to is None or hold.charge_times is None or not events:
        return None
    return ChargedFare(settlement_id(hold.id), hold.charge_to, events * hold.charge_times)


@lru_cache(10_000)
def owners_of(account_id: int, key_id: int) -> tuple[str, str]:
    """Whose allowances an order counts against; that of its end user aside."""
    return owner_of("account", account_id), owner_of("key", key_id)


def all_owners_of(hold: HoldRow) -> tuple[str, ...]:
    """Whose allowances an order counts against."""
    owners = owners_of(hold.account_id, hold.key_id)
    return owners if hold.end_user is None else (*owners, end_user_owner(hold.account_id, hold.end_user))


DayKey = tuple[int, int, int, str, str, str]
"""What a day's total is of: an account, a UTC day (since 1970), a key, the model that was asked for, the one that
served, and the orders' kind ("" where that is not known)."""


class DayTotal(Struct, gc=False):
    """The fares of one day, summed: what `key` says they are of, how many there are, the events, nano-dollars and exact
    cost in USD that they came to, what was used, and when the latest was posted."""

    key: DayKey
    orders: int = 0
    events: int = 0
    fares_nanos: int = 0
    cost: Decimal = Decimal(0)
    prompt_tokens: int = 0
    answer_tokens: int = 0
    units: int = 0
    latest_us: int = 0

    def count(self, hold: HoldRow, fare: Fare, posted_us: int) -> None:
        """Count a fare, with the hold that it ended as it stands now."""
        self.orders += 1
        self.events += fare.events
        self.fares_nanos += fare.nanos
        self.cost = add_exact(self.cost, fare.cost)
        self.prompt_tokens += hold.prompt_tokens or 0
        self.answer_tokens += hold.answer_tokens or 0
        self.units += hold.units or 0
        if posted_us > self.latest_us:
            self.latest_us = posted_us

    def add(self, other: "DayTotal") -> None:
        """Count all of another one's fares."""
        self.orders += other.orders
        self.events += other.events
        self.fares_nanos += other.fares_nanos
        self.cost = add_exact(self.cost, other.cost)
        self.prompt_tokens += other.prompt_tokens
        self.answer_tokens += other.answer_tokens
        self.units += other.units
        self.latest_us = max(self.latest_us, other.latest_us)

    def take_away(self, other: "DayTotal") -> None:
        """Count them no more: they are a part of these. The latest moment stays."""
        self.orders -= other.orders
        self.events -= other.events
        self.fares_nanos -= other.fares_nanos
        self.cost = add_exact(self.cost, -other.cost)
        self.prompt_tokens -= other.prompt_tokens
        self.answer_tokens -= other.answer_tokens
        self.units -= other.units


def day_key(hold: HoldRow, posted_us: int) -> DayKey:
    """Which total counts the fare of an order that was posted at a moment."""
    served = hold.served_model or hold.model
    return (hold.account_id, posted_us // DAY_US, hold.key_id, hold.model, served, hold.kind or "")


AttributedKey = tuple[DayKey, str, str]
"""What a total of orders with an end user or tags is of: a day's total, and of this an end user and tags, as they are
kept ("" for none)."""


def attributed_key(hold: HoldRow, key: DayKey) -> AttributedKey | None:
    """Which such total counts an order that a day's total counts; None where it has neither."""
    if hold.end_user is None and hold.tags is None:
        return None
    return (key, hold.end_user or "", hold.tags or "")


class Attributed(Struct, frozen=True):
    """A total of orders for an end user, or under a tag's value ("" where the order had none)."""

    end_user: str
    tags: str
    total: DayTotal


class Activity(Struct, frozen=True):
    """What orders of one UTC day (since 1970) and one model came to. `model` is the one asked, `served_model` the one
    that answered."""

    day: int
    model: str
    served_model: str
    requests: int
    fares_nanos: int
    prompt_tokens: int
    answer_tokens: int


def activity_of(total: DayTotal) -> Activity:
    """The same of a total by day, model and the model that served."""
    _, day, _, model, served, _ = total.key
    return Activity(day, model, served, total.orders, total.fares_nanos, total.prompt_tokens, total.answer_tokens)


class NotEnded(Struct, frozen=True):
    """How many holds have not ended: pending, open and to be asked about, open and to be decided by an operator; and
    open for as long as a job runs, which is asked about."""

    pending: int
    open: int
    unresolved: int
    jobs: int = 0


LAST_US = 2**62
"""Later than any moment in the books."""
