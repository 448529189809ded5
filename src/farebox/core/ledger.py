"""The ledger's rules: what each command does to the books, decided on the part of them that it touches.

Every movement is an immutable transfer with a debit and a credit side. A hold is a *pending* transfer; exactly one
*post* or *void* ends it, or an *adjustment* where an operator decided, under an id derived from the hold's, so that
ending twice is one ending. Balances are a projection of the transfers. A store reads the balances and holds that
commands name, lets a `Page` decide, and writes the page's rows in one transaction. (One long module: the values and the
rules over them are one story.)
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from farebox.core.allowances import Allowance, Exceeded, Period, owner_of
from farebox.core.money import events_ceil
from farebox.core.questions import FIRST_US
from farebox.core.usage import Cost, Nothing, Unknown, Verdict

CASH = 0
"""The account top-ups come from: what the operator was paid outside."""

FARES = 1
"""The account fares go to."""

FIRST_CALLER_ACCOUNT = 2

TransferKind = Literal["top-up", "hold", "post", "void", "adjustment"]
HoldState = Literal["pending", "open", "posted", "voided"]


class Transfer(Struct, frozen=True):
    """One movement. `hold_id` on what places or ends a hold; cost, events and price on what charges a fare; `note` is
    an operator's, and on every adjustment."""

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


class Balance(Struct, frozen=True):
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
        after = replace(
            self,
            credits_nanos=self.credits_nanos + credits_nanos,
            debits_nanos=self.debits_nanos + debits_nanos,
            pending_nanos=self.pending_nanos + pending_nanos,
        )
        available = after.available_nanos
        overdrawn = 0 if available is None else max(0, -available)
        return after if overdrawn == after.overdrawn_nanos else replace(after, overdrawn_nanos=overdrawn)


class HoldRow(Struct, frozen=True):
    """One order's life in the books, and the record of the generation it became.

    While it is open, `ask_us` is when the upstream is next asked what it cost, None when nobody will ask again; `asks`
    counts the questions. `charge_to` and `charge_times` as in `Outside`, None where nobody outside is told.
    `reserved_tokens` are those counted in advance, where tokens are limited.
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

    @property
    def is_unresolved(self) -> bool:
        """Whether nobody will be asked what it cost any more: an operator must decide."""
        return self.state == "open" and self.ask_us is None


class Outside(Struct, frozen=True):
    """That an outside biller charges the caller: under the id of the caller's request, or, where that is empty, with
    the run that serves it; and how many of its events stand for one of ours."""

    charge_to: str = ""
    times: int = 1


class ChargedFare(Struct, frozen=True):
    """A fare that the outside biller is to be told: so many of its events. `charge_id` is the charge it became part
    of."""

    transfer_id: str
    charge_to: str
    count: int
    charge_id: str | None = None


class Repeatable(Struct, frozen=True):
    """What makes an order recognizable when it is sent again: digests of the caller's idempotency key, and of what was
    asked under it."""

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


KEY_LIFE_US = 24 * 3600 * 1_000_000
"""How long an idempotency key stands for its order."""


class TopUp(Struct, frozen=True):
    """Pay money into an account. The id makes it idempotent: it stands for one amount to one account."""

    id: str
    account_id: int
    amount_nanos: int
    created_us: int
    note: str | None = None


class PlaceHold(Struct, frozen=True):
    """Set money aside: `wanted_nanos` if the account has them and limits leave them, what there is down to
    `least_nanos` otherwise; and the same for the tokens that the order may become, where they are limited.

    Nothing is set aside where `repeatable` names an order that was placed before. Rates are those of orders: what
    `is_order` denies is bound by money alone.
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
    wanted_tokens: int = 0
    least_tokens: int = 0
    is_order: bool = True


class NameGeneration(Struct, frozen=True):
    """Write down under which id the upstream knows the order."""

    hold_id: str
    generation_id: str


class Settle(Struct, frozen=True):
    """End a hold as the verdict says, complete the generation's record, and keep the answer where one is to be kept.

    `decision` is the reason of an operator whose verdict it is.
    """

    hold_id: str
    verdict: Verdict
    created_us: int
    generation_id: str | None = None
    served_model: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    answer: KeptAnswer | None = None
    decision: str | None = None


class AskLater(Struct, frozen=True):
    """The upstream was asked what an open hold cost, and had no answer: ask again at `ask_us`, or never."""

    hold_id: str
    ask_us: int | None
    reason: str


Command = TopUp | PlaceHold | NameGeneration | Settle | AskLater


class Done(Struct, frozen=True):
    """A top-up or a generation's name is in the books; `is_repeat` where the top-up was before."""

    is_repeat: bool = False


class OtherTopUp(Struct, frozen=True):
    """The id stands for another top-up; nothing was paid in."""

    transfer: Transfer


class Held(Struct, frozen=True):
    """The money is set aside. `tokens` is what the order may become, where tokens are limited."""

    amount_nanos: int
    tokens: int | None = None


class Repeated(Struct, frozen=True):
    """The caller's idempotency key stands for an order already: how that one stands, and whether this is the same."""

    hold: HoldRow
    is_same: bool


class NotCovered(Struct, frozen=True):
    """The account cannot cover the least that was asked, or a limit does not leave it (`owner`'s, for a period);
    nothing was set aside."""

    available_nanos: int
    owner: str | None = None
    period: Period | None = None


class Settled(Struct, frozen=True):
    """How the hold stands after settling. Events and fare where it was posted, None where it was not."""

    state: HoldState
    events: int | None = None
    fare_nanos: int | None = None


class NoSuchRow(Struct, frozen=True):
    """The command names an account or a hold that is not in the books."""

    name: str


Outcome = Done | OtherTopUp | Held | Repeated | NotCovered | Exceeded | Settled | NoSuchRow


def settlement_id(hold_id: str) -> str:
    """The id of the one transfer that ends a hold."""
    return f"{hold_id}-end"


def charged_fare(hold: HoldRow, events: int) -> ChargedFare | None:
    """What an outside biller is told of a fare of so many events."""
    if hold.charge_to is None or hold.charge_times is None or not events:
        return None
    return ChargedFare(settlement_id(hold.id), hold.charge_to, events * hold.charge_times)


def owners_of(account_id: int, key_id: int) -> tuple[str, str]:
    """Whose allowances an order counts against."""
    return owner_of("account", account_id), owner_of("key", key_id)


def account_of(command: Command) -> int | None:
    return command.account_id if isinstance(command, TopUp | PlaceHold) else None


def hold_of(command: Command) -> str | None:
    return command.hold_id if isinstance(command, NameGeneration | Settle | AskLater) else None


class Page:
    """The part of the books that one batch touches, and the rows it adds.

    `booked` are the transfers already there under an id that the batch names, `uses` those of its idempotency keys;
    `holds` has the holds of both, `allowances` those of the accounts and keys of all. After `decide` for each command,
    write `new_transfers`, `new_holds`, `changed_holds`, `changed_balances`, `changed_allowances`, `new_uses` (in place
    of older ones of their keys), `kept_answers` and `charged_fares`.
    """

    def __init__(
        self,
        balances: Iterable[Balance],
        holds: Iterable[HoldRow],
        booked: Iterable[Transfer] = (),
        uses: Iterable[KeyUse] = (),
        allowances: Iterable[Allowance] = (),
    ) -> None:
        self._allowances = {allowance.owner: allowance for allowance in allowances}
        self._balances = {balance.account_id: balance for balance in balances}
        self._holds = {hold.id: hold for hold in holds}
        self._booked = {transfer.id: transfer for transfer in booked}
        self._uses = {(use.account_id, use.key_digest): use for use in uses}
        self.new_transfers: list[Transfer] = []
        self.new_uses: list[KeyUse] = []
        self.kept_answers: list[KeptAnswer] = []
        self.charged_fares: list[ChargedFare] = []
        self._new_holds: set[str] = set()
        self._changed_holds: set[str] = set()
        self._changed_balances: set[int] = set()
        self._changed_allowances: set[str] = set()

    @property
    def new_holds(self) -> list[HoldRow]:
        return [self._holds[hold_id] for hold_id in self._new_holds]

    @property
    def changed_holds(self) -> list[HoldRow]:
        return [self._holds[hold_id] for hold_id in self._changed_holds - self._new_holds]

    @property
    def changed_balances(self) -> list[Balance]:
        return [self._balances[account_id] for account_id in self._changed_balances]

    @property
    def changed_allowances(self) -> list[Allowance]:
        return [self._allowances[owner] for owner in self._changed_allowances]

    def decide(self, command: Command, worker: str) -> Outcome:
        match command:
            case PlaceHold():
                return self._place_hold(command, worker)
            case NameGeneration():
                return self._name_generation(command)
            case Settle():
                return self._settle(command)
            case AskLater():
                return self._ask_later(command)
            case TopUp():
                return self._top_up(command)

    def _top_up(self, command: TopUp) -> Outcome:
        if command.account_id not in self._balances:
            return NoSuchRow(f"account {command.account_id}")
        if (booked := self._booked.get(command.id)) is not None:
            is_same = (booked.credit_account, booked.amount_nanos) == (command.account_id, command.amount_nanos)
            return Done(is_repeat=True) if is_same else OtherTopUp(booked)
        self._book(
            Transfer(
                command.id,
                "top-up",
                debit_account=CASH,
                credit_account=command.account_id,
                amount_nanos=command.amount_nanos,
                created_us=command.created_us,
                note=command.note,
            )
        )
        self._move(command.account_id, credits_nanos=command.amount_nanos)
        return Done()

    def _place_hold(self, command: PlaceHold, worker: str) -> Outcome:
        balance = self._balances.get(command.account_id)
        if balance is None:
            return NoSuchRow(f"account {command.account_id}")
        if (placed := self._holds.get(command.id)) is not None:
            return Held(placed.amount_nanos, placed.reserved_tokens)
        if command.repeatable is not None and (repeated := self._find_use(command, command.repeatable)) is not None:
            return repeated
        allowances = self._allowances_of(command.account_id, command.key_id)
        available, owner, period = balance.available_nanos, None, None
        tokens: int | None = None
        for allowance in allowances:
            if command.is_order and (exceeded := allowance.refuse(command.created_us, command.least_tokens)):
                return exceeded
            within = allowance.available_nanos(command.created_us)
            if within is not None and (available is None or within[0] < available):
                available, period = within
                owner = allowance.owner
            if (left := allowance.tokens_available(command.created_us)) is not None:
                tokens = min(left, command.wanted_tokens if tokens is None else tokens)
        if available is not None and available < command.least_nanos:
            return NotCovered(max(0, available), owner, period)
        amount = command.wanted_nanos if available is None else min(command.wanted_nanos, max(0, available))
        for allowance in allowances:
            began = allowance.began(command.created_us, tokens or 0) if command.is_order else allowance
            self._allow(began.held(amount))
        self._holds[command.id] = HoldRow(
            command.id,
            command.account_id,
            command.key_id,
            worker,
            "pending",
            amount,
            command.plan,
            command.event_price_nanos,
            command.model,
            command.streamed,
            command.created_us,
            charge_to=command.outside.charge_to if command.outside else None,
            charge_times=command.outside.times if command.outside else None,
            reserved_tokens=tokens,
        )
        self._new_holds.add(command.id)
        self._book(
            Transfer(command.id, "hold", command.account_id, FARES, amount, command.created_us, hold_id=command.id)
        )
        self._move(command.account_id, pending_nanos=amount)
        if command.repeatable is not None:
            self._use_key(command, command.repeatable)
        return Held(amount, tokens)

    def _find_use(self, command: PlaceHold, repeatable: Repeatable) -> Repeated | None:
        """The order that the key stands for. One that the upstream did not take up has left its key free again."""
        use = self._uses.get((command.account_id, repeatable.key_digest))
        if use is None or use.created_us <= command.created_us - KEY_LIFE_US:
            return None
        hold = self._holds[use.hold_id]
        return None if hold.state == "voided" else Repeated(hold, use.order_digest == repeatable.order_digest)

    def _use_key(self, command: PlaceHold, repeatable: Repeatable) -> None:
        use = KeyUse(command.account_id, repeatable.key_digest, repeatable.order_digest, command.id, command.created_us)
        self._uses[use.account_id, use.key_digest] = use
        self.new_uses.append(use)

    def _name_generation(self, command: NameGeneration) -> Outcome:
        hold = self._holds.get(command.hold_id)
        if hold is None:
            return NoSuchRow(f"hold {command.hold_id}")
        self._change(replace(hold, generation_id=command.generation_id))
        return Done()

    def _ask_later(self, command: AskLater) -> Outcome:
        hold = self._holds.get(command.hold_id)
        if hold is None:
            return NoSuchRow(f"hold {command.hold_id}")
        if hold.state == "open":
            self._change(replace(hold, asks=hold.asks + 1, ask_us=command.ask_us, reason=command.reason))
        return Done()

    def _settle(self, command: Settle) -> Outcome:
        hold = self._holds.get(command.hold_id)
        if hold is None:
            return NoSuchRow(f"hold {command.hold_id}")
        if hold.state in ("posted", "voided"):
            ending = self._booked[settlement_id(hold.id)]
            return Settled(hold.state, ending.events, ending.amount_nanos if hold.state == "posted" else None)
        if command.answer is not None:
            self.kept_answers.append(command.answer)
        allowances = self._allowances_of(hold.account_id, hold.key_id)
        match command.verdict:
            case Unknown(reason):
                self._change(_completed(hold, command, "open", reason))
                if hold.state == "pending":
                    for allowance in allowances:
                        self._allow(allowance.left_open())
                return Settled("open")
            case Nothing():
                self._end(hold, command, "voided", hold.amount_nanos if command.decision is None else 0)
                self._move(hold.account_id, pending_nanos=-hold.amount_nanos)
                for allowance in allowances:
                    self._allow(_freed(allowance, hold, 0))
                return Settled("voided")
            case Cost(amount):
                events = events_ceil(amount)
                fare = events * hold.event_price_nanos
                self._end(hold, command, "posted", fare, amount, events)
                self._move(hold.account_id, debits_nanos=fare, pending_nanos=-hold.amount_nanos)
                for allowance in allowances:
                    freed = _freed(allowance, hold, _tokens(command))
                    self._allow(freed.charged(fare, command.created_us))
                if (charged := charged_fare(hold, events)) is not None:
                    self.charged_fares.append(charged)
                return Settled("posted", events, fare)

    def _end(
        self,
        hold: HoldRow,
        command: Settle,
        state: Literal["posted", "voided"],
        amount_nanos: int,
        cost: Decimal | None = None,
        events: int | None = None,
    ) -> None:
        kind: TransferKind = "post" if state == "posted" else "void"
        self._book(
            Transfer(
                settlement_id(hold.id),
                kind if command.decision is None else "adjustment",
                debit_account=hold.account_id,
                credit_account=FARES,
                amount_nanos=amount_nanos,
                created_us=command.created_us,
                hold_id=hold.id,
                cost=cost,
                events=events,
                event_price_nanos=hold.event_price_nanos if state == "posted" else None,
                over_hold_nanos=max(0, amount_nanos - hold.amount_nanos),
                note=command.decision,
            )
        )
        self._change(_completed(hold, command, state, None))

    def _book(self, transfer: Transfer) -> None:
        assert transfer.amount_nanos >= 0, transfer
        assert transfer.id not in self._booked, transfer
        self._booked[transfer.id] = transfer
        self.new_transfers.append(transfer)

    def _change(self, hold: HoldRow) -> None:
        self._holds[hold.id] = hold
        self._changed_holds.add(hold.id)

    def _allowances_of(self, account_id: int, key_id: int) -> list[Allowance]:
        if not self._allowances:
            return []
        return [found for owner in owners_of(account_id, key_id) if (found := self._allowances.get(owner)) is not None]

    def _allow(self, allowance: Allowance) -> None:
        self._allowances[allowance.owner] = allowance
        self._changed_allowances.add(allowance.owner)

    def _move(self, account_id: int, credits_nanos: int = 0, debits_nanos: int = 0, pending_nanos: int = 0) -> None:
        self._balances[account_id] = self._balances[account_id].moved(credits_nanos, debits_nanos, pending_nanos)
        self._changed_balances.add(account_id)


def _freed(allowance: Allowance, hold: HoldRow, tokens: int | None) -> Allowance:
    """With the hold ended, and its tokens as many as there were; None where that is not known: then they stay."""
    freed = allowance.ended(hold.amount_nanos, was_served=hold.state == "pending")
    if tokens is None or hold.reserved_tokens is None:
        return freed
    return freed.corrected(hold.created_us, tokens - hold.reserved_tokens)


def _tokens(command: Settle) -> int | None:
    """What the order became, both ways."""
    if command.prompt_tokens is None and command.answer_tokens is None:
        return None
    return (command.prompt_tokens or 0) + (command.answer_tokens or 0)


def _completed(hold: HoldRow, command: Settle, state: HoldState, reason: str | None) -> HoldRow:
    """The hold in its new state, with what the command knows of the generation. An open one is asked about soon, if the
    upstream has a name for it."""
    generation_id = command.generation_id or hold.generation_id
    return replace(
        hold,
        state=state,
        generation_id=generation_id,
        served_model=command.served_model or hold.served_model,
        prompt_tokens=hold.prompt_tokens if command.prompt_tokens is None else command.prompt_tokens,
        answer_tokens=hold.answer_tokens if command.answer_tokens is None else command.answer_tokens,
        reason=reason,
        ended_us=None if state == "open" else command.created_us,
        ask_us=command.created_us + FIRST_US if state == "open" and generation_id else None,
    )
