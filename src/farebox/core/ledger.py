"""The ledger's rules: what each command does to the books, decided on the part of them that it touches.

Every movement is an immutable transfer with a debit and a credit side. A hold is a *pending* transfer; exactly one
*post* or *void* ends it, or an *adjustment* where an operator decided, under an id derived from the hold's, so that
ending twice is one ending. A fare that was wrong is never changed: another *adjustment* beside it gives some of it
back, or charges more. Balances are a projection of the transfers. A store reads the balances and holds that
commands name, lets a `Page` decide, and writes the page's rows in one transaction.
"""

from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from farebox.core.allowances import Allowance, Exceeded, end_user_owner
from farebox.core.books import (
    CASH,
    FARES,
    KEY_LIFE_US,
    AskLater,
    AttributedKey,
    Balance,
    ChargedFare,
    Command,
    Correct,
    Corrected,
    DayKey,
    DayTotal,
    Done,
    Fare,
    Held,
    HoldRow,
    HoldState,
    KeepAnswer,
    KeptAnswer,
    KeyUse,
    NameGeneration,
    NoSuchRow,
    NotCorrected,
    NotCovered,
    NotPaidOut,
    NotWanted,
    OtherTopUp,
    Outcome,
    PaidOut,
    PayOut,
    PlaceHold,
    Repeatable,
    Repeated,
    Settle,
    Settled,
    TopUp,
    Transfer,
    TransferKind,
    Undelivered,
    attributed_key,
    charged_fare,
    correction_ids,
    day_key,
    owners_of,
    settlement_id,
)
from farebox.core.money import EVENT_NANOS, charged, format_usd, plain
from farebox.core.questions import FIRST_US
from farebox.core.repeats import is_repeatable
from farebox.core.stored import StoredRow
from farebox.core.tariffs import Priced
from farebox.core.trail import By, Change, Value
from farebox.core.usage import Cost, Nothing, Unknown, Verdict

MOVES: Mapping[HoldState, Mapping[type[Verdict], HoldState]] = {
    "pending": {Cost: "posted", Nothing: "voided", Unknown: "open"},
    "open": {Cost: "posted", Nothing: "voided", Unknown: "open"},
    "posted": {},
    "voided": {},
}
"""Every move of a hold: from its state, by a settlement's verdict, to the next state. A hold that has ended moves no
more; to settle it again changes nothing. (A dead process's pending holds move as by Unknown, all in one statement.)"""


class Page:
    """The part of the books that the commands of one transaction touch, and the rows that they add.

    `balances`, `holds` and `allowances` are those that commands, transfers and uses name, each under its id or owner,
    and perhaps others: they are changed as the commands decide. Where an account's end users have a limit by default,
    one that an order is placed for has an allowance. `booked`: the transfers that exist already under an id
    that a command names. `uses`: what its idempotency keys stand for. `alike`: the ids of the holds that a command may
    repeat, `answered` of those whose answers are kept for that.

    After `decide` for each command, write `new_holds` as they were placed, `new_transfers`, `new_uses` (in place of
    older ones of their keys), `kept_answers`, `undelivered` and `charged_fares`, and by id `changed_holds`,
    `changed_balances` and `changed_allowances`; add `totals` and `attributed` to those of their days; and last of all
    enter `entered` in the trail: what somebody did, when, and who.
    Before the changed holds, write by id what says of `priced` holds who served them and by which prices, of those
    `with_jobs` the job's name, and who was `tried` before. Of the changed holds, `named` are those that got the id of
    their generation, `only_named` those that nothing else was changed of, and `opened` those that were or became open.
    All others have ended, and nothing but what `Settle` says of the generation was changed of them.
    """

    def __init__(
        self,
        balances: dict[int, Balance],
        holds: dict[str, HoldRow],
        allowances: dict[str, Allowance],
        booked: dict[str, Transfer],
        uses: Iterable[KeyUse] = (),
        alike: Collection[str] = (),
        answered: Collection[str] = (),
    ) -> None:
        self._balances = balances
        self._holds = holds
        self._allowances = allowances
        self._booked = booked
        self._uses = {(use.account_id, use.key_digest): use for use in uses}
        self._alike = alike
        self._answered = answered
        self.new_holds: list[HoldRow] = []
        self.new_transfers: list[Transfer] = []
        self.new_uses: list[KeyUse] = []
        self.kept_answers: list[KeptAnswer] = []
        self.undelivered: list[Undelivered] = []
        self.charged_fares: list[ChargedFare] = []
        self.stored: list[StoredRow] = []
        self.changed_holds: dict[str, HoldRow] = {}
        self.named: set[str] = set()
        self.only_named: set[str] = set()
        self.opened: set[str] = set()
        self.priced: dict[str, HoldRow] = {}
        self.with_jobs: dict[str, HoldRow] = {}
        self.tried: dict[str, HoldRow] = {}
        self.changed_balances: dict[int, Balance] = {}
        self.changed_allowances: dict[str, Allowance] = {}
        self.totals: dict[DayKey, DayTotal] = {}
        self.entered: list[tuple[int, By, Change]] = []
        self.attributed: dict[AttributedKey, DayTotal] = {}

    def decide(self, command: Command, worker: str) -> Outcome:
        # By its type: `match` asks each class before it whether the command is one, by way of its metaclass.
        if type(command) is PlaceHold:
            return self._place_hold(command, worker)
        if type(command) is Settle:
            return self._settle(command)
        if type(command) is NameGeneration:
            return self._name_generation(command)
        if type(command) is TopUp:
            return self._top_up(command)
        if type(command) is KeepAnswer:
            return self._keep_after_all(command)
        if type(command) is Correct:
            return self._correct(command)
        if type(command) is PayOut:
            return self._pay_out(command)
        assert type(command) is AskLater
        return self._ask_later(command)

    def _top_up(self, command: TopUp) -> Outcome:
        if command.account_id not in self._balances:
            return _no_account(command.account_id)
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
        self._enter(command, self._booked[command.id], "money.paid_in", command.account_id, command.note)
        return Done()

    def _place_hold(self, command: PlaceHold, worker: str) -> Outcome:
        if (placed := self._holds.get(command.id)) is not None:
            return Held(placed.amount_nanos, placed.reserved_tokens)
        balance = self._balances.get(command.account_id)
        if balance is None:
            return _no_account(command.account_id)
        if command.repeatable is not None and (repeated := self._find_use(command, command.repeatable)) is not None:
            return repeated
        if command.is_repeat and (first := self._find_first(command)) is not None:
            return Repeated(first, is_same=True)
        if command.is_wanted is not None and not command.is_wanted():
            return NotWanted()
        allowances = self._allowances_of(command.account_id, command.key_id, command.end_user)
        room = _room(command, balance, allowances)
        if type(room) is not Held:
            return room
        for allowance in allowances:
            began = allowance.began(command.created_us, room.tokens or 0) if command.is_order else allowance
            self._allow(began.held(room.amount_nanos))
        hold = _placed(command, worker, room)
        self._holds[hold.id] = hold
        self.new_holds.append(hold)
        if hold.upstream is not None or hold.priced is not None:
            self.priced[hold.id] = hold
        self._book(
            Transfer(hold.id, "hold", hold.account_id, FARES, hold.amount_nanos, hold.created_us, hold_id=hold.id)
        )
        self._move(hold.account_id, pending_nanos=hold.amount_nanos)
        if (key := command.repeatable) is not None:
            use = KeyUse(command.account_id, key.key_digest, key.order_digest, command.id, command.created_us)
            self._uses[use.account_id, use.key_digest] = use
            self.new_uses.append(use)
        return room

    def _find_use(self, command: PlaceHold, repeatable: Repeatable) -> Repeated | None:
        """The order that the key stands for. A voided one was not taken up by the upstream, and its key is free again;
        unless it began a job, which failed."""
        use = self._uses.get((command.account_id, repeatable.key_digest))
        if use is None or use.created_us <= command.created_us - KEY_LIFE_US:
            return None
        hold = self._holds[use.hold_id]
        is_free = hold.state == "voided" and hold.job_id is None
        return None if is_free else Repeated(hold, use.order_digest == repeatable.order_digest)

    def _find_first(self, command: PlaceHold) -> HoldRow | None:
        """The order that this one repeats, where another repeat of it was placed since it was looked for, and has
        perhaps ended since."""
        answered = {*self._answered, *(each.hold_id for each in self.undelivered)}
        sought = (command.key_id, command.order_digest)
        for hold_id in (*self._alike, *(placed.id for placed in self.new_holds)):
            hold = self._holds[hold_id]
            is_same = (hold.key_id, hold.order_digest) == sought and is_repeatable(hold, command.created_us)
            if is_same and (hold.state == "pending" or (hold.id in answered and hold.state != "voided")):
                return hold
        return None

    def _name_generation(self, command: NameGeneration) -> Outcome:
        hold = self._holds.get(command.hold_id)
        if hold is None:
            return _no_hold(command.hold_id)
        if hold.id not in self.changed_holds:
            self.only_named.add(hold.id)
        upstream, priced = _served(hold, command)
        generation_id = command.generation_id or hold.generation_id
        named = replace(hold, generation_id=generation_id, upstream=upstream, priced=priced)
        self._change(hold, named, is_naming=True)
        return Done()

    def _keep_after_all(self, command: KeepAnswer) -> Outcome:
        hold = self._holds.get(command.hold_id)
        if hold is None:
            return _no_hold(command.hold_id)
        self._keep(hold, command.body)
        return Done()

    def _ask_later(self, command: AskLater) -> Outcome:
        hold = self._holds.get(command.hold_id)
        if hold is None:
            return _no_hold(command.hold_id)
        if hold.state == "open":
            self._change(hold, replace(hold, asks=hold.asks + 1, ask_us=command.ask_us, reason=command.reason))
        return Done()

    def _settle(self, command: Settle) -> Outcome:
        hold = self._holds.get(command.hold_id)
        if hold is None:
            return _no_hold(command.hold_id)
        if command.stored is not None:
            self.stored.append(command.stored)
        if not MOVES[hold.state]:
            if command.is_unheard and hold.state == "posted":
                # By a try whose end nobody saw.
                self._keep(hold, None if command.answer is None else command.answer.body)
            return Settled(hold.state, self._booked[settlement_id(hold.id)].fare)
        if hold.order_digest is None:
            if command.answer is not None:
                self.kept_answers.append(command.answer)
        elif (command.is_unheard or hold.delivery is not None) and type(command.verdict) is not Nothing:
            self._keep(hold, None if command.answer is None else command.answer.body)
        settled = _moved(hold, command)
        fare: Fare | None = None
        allowances = self._allowances_of(hold.account_id, hold.key_id, hold.end_user)
        verdict = command.verdict
        if type(verdict) is Cost:
            events, nanos = charged(verdict.amount, hold.event_price_nanos, marked_up=hold.marked_up)
            fare = Fare(verdict.amount, events, nanos)
            self._end(hold, command, fare.nanos, fare)
            self._move(hold.account_id, debits_nanos=fare.nanos, pending_nanos=-hold.amount_nanos)
            for allowance in allowances:
                freed = _freed(allowance, hold, _tokens(command))
                self._allow(freed.charged(fare.nanos, command.created_us, command.booked_us))
            self._count(settled, fare, command.created_us)
            if (outside := charged_fare(hold, events)) is not None:
                self.charged_fares.append(outside)
        elif type(verdict) is Unknown:
            if hold.state == "pending":
                for allowance in allowances:
                    self._allow(allowance.left_open())
        else:
            self._end(hold, command, hold.amount_nanos if command.decision is None else 0)
            self._move(hold.account_id, pending_nanos=-hold.amount_nanos)
            for allowance in allowances:
                self._allow(_freed(allowance, hold, 0))
        self._change(hold, settled)
        if (decision := command.decision) is not None:
            self.entered.append(
                (command.created_us, decision.by, _decided(hold, settled, fare, verdict, decision.reason))
            )
        return Settled(settled.state, fare)

    def _count(self, hold: HoldRow, fare: Fare, posted_us: int) -> None:
        key = day_key(hold, posted_us)
        if (total := self.totals.get(key)) is None:
            total = self.totals[key] = DayTotal(key)
        total.count(hold, fare, posted_us)
        if (finer := attributed_key(hold, key)) is not None:
            self.attributed.setdefault(finer, DayTotal(key)).count(hold, fare, posted_us)

    def _correct(self, command: Correct) -> Outcome:
        hold = self._holds.get(command.hold_id)
        if hold is None:
            return _no_hold(command.hold_id)
        ending = self._booked.get(settlement_id(hold.id))
        if ending is None or not ending.is_fare:
            return NotCorrected()
        ids = correction_ids(hold.id)
        before = [self._booked[name] for name in ids if name in self._booked]
        fare = ending.amount_nanos - sum(each.given_back_nanos for each in before)
        back = command.back_nanos
        if back is None:
            assert command.fare_nanos is not None
            back = fare - command.fare_nanos
        said = {(each.given_back_nanos, each.note) for each in before}
        if not back or (command.fare_nanos is None and (back, command.reason) in said):
            return Corrected(hold.account_id, back, fare, is_repeat=True)
        if back > fare or len(before) == len(ids):
            return NotCorrected(fare)
        sides = (FARES, hold.account_id) if back > 0 else (hold.account_id, FARES)
        self._book(
            Transfer(
                ids[len(before)],
                "adjustment",
                *sides,
                abs(back),
                command.created_us,
                hold_id=hold.id,
                note=command.reason,
            )
        )
        self._move(hold.account_id, credits_nanos=max(0, back), debits_nanos=max(0, -back))
        self._enter(
            command,
            self._booked[ids[len(before)]],
            "money.given_back" if back > 0 else "money.charged",
            hold.account_id,
            command.reason,
            {"fare_usd": (format_usd(fare), format_usd(fare - back))},
        )
        return Corrected(hold.account_id, back, fare - back)

    def _pay_out(self, command: PayOut) -> Outcome:
        balance = self._balances.get(command.account_id)
        if balance is None:
            return _no_account(command.account_id)
        left = balance.balance_nanos
        if balance.pending_nanos or left < 0:
            return NotPaidOut(balance.pending_nanos, left)
        if left:
            self._book(
                Transfer(
                    command.id,
                    "adjustment",
                    command.account_id,
                    CASH,
                    left,
                    command.created_us,
                    note=command.reason,
                )
            )
            self._move(command.account_id, debits_nanos=left)
            self._enter(command, self._booked[command.id], "money.paid_out", command.account_id, command.reason)
        return PaidOut(left)

    def _enter(
        self,
        command: TopUp | Correct | PayOut,
        moved: Transfer,
        what: str,
        account_id: int,
        reason: str | None,
        more: Mapping[str, tuple[Value, Value]] | None = None,
    ) -> None:
        """Enter in the trail what somebody moved, once the balance is what it comes to."""
        after = self._balances[account_id].balance_nanos
        gained = moved.amount_nanos if moved.credit_account == account_id else -moved.amount_nanos
        change = Change(
            what=what,
            account_id=account_id,
            hold_id=moved.hold_id,
            transfer_id=moved.id,
            members={"balance_usd": (format_usd(after - gained), format_usd(after)), **(more or {})},
            reason=reason,
        )
        self.entered.append((command.created_us, command.by, change))

    def _keep(self, hold: HoldRow, body: bytes | None) -> None:
        if hold.order_digest is not None:
            self.undelivered.append(Undelivered(hold.id, hold.key_id, hold.order_digest, hold.created_us, body))

    def _end(self, hold: HoldRow, command: Settle, amount_nanos: int, fare: Fare | None = None) -> None:
        kind: TransferKind = "void" if fare is None else "post"
        self._book(
            Transfer(
                settlement_id(hold.id),
                kind if command.decision is None else "adjustment",
                debit_account=hold.account_id,
                credit_account=FARES,
                amount_nanos=amount_nanos,
                created_us=command.created_us,
                hold_id=hold.id,
                cost=None if fare is None else fare.cost,
                events=None if fare is None else fare.events,
                event_price_nanos=None if fare is None else EVENT_NANOS if hold.marked_up else hold.event_price_nanos,
                over_hold_nanos=max(0, amount_nanos - hold.amount_nanos),
                note=None if command.decision is None else command.decision.reason,
            )
        )

    def _book(self, transfer: Transfer) -> None:
        assert transfer.amount_nanos >= 0, transfer
        assert transfer.id not in self._booked, transfer
        self._booked[transfer.id] = transfer
        self.new_transfers.append(transfer)

    def _change(self, before: HoldRow, hold: HoldRow, *, is_naming: bool = False) -> None:
        assert hold.state == before.state or hold.state in MOVES[before.state].values(), (before, hold)
        if hold.generation_id != before.generation_id:
            self.named.add(hold.id)
        if hold.upstream is not before.upstream or hold.priced is not before.priced:
            self.priced[hold.id] = hold
        if hold.job_id is not before.job_id:
            self.with_jobs[hold.id] = hold
        if hold.tried is not before.tried:
            self.tried[hold.id] = hold
        if not is_naming:
            self.only_named.discard(hold.id)
        if "open" in (hold.state, before.state):
            self.opened.add(hold.id)
        self._holds[hold.id] = self.changed_holds[hold.id] = hold

    def _allowances_of(self, account_id: int, key_id: int, end_user: str | None) -> list[Allowance]:
        if not self._allowances:
            return []
        found = [each for owner in owners_of(account_id, key_id) if (each := self._allowances.get(owner)) is not None]
        if end_user is not None:
            own = self._allowances.get(end_user_owner(account_id, end_user))
            default = self._allowances.get(end_user_owner(account_id, None))
            if own is not None:
                found.append(own if default is None else replace(own, limits=own.limits.within(default.limits)))
        return found

    def _allow(self, allowance: Allowance) -> None:
        """Write down what counts against an allowance. Its own limits stay as they are, whatever is in force."""
        own = self._allowances[allowance.owner].limits
        if allowance.limits is not own:
            allowance = replace(allowance, limits=own)
        self._allowances[allowance.owner] = self.changed_allowances[allowance.owner] = allowance

    def _move(self, account_id: int, credits_nanos: int = 0, debits_nanos: int = 0, pending_nanos: int = 0) -> None:
        moved = self._balances[account_id].moved(credits_nanos, debits_nanos, pending_nanos)
        self._balances[account_id] = self.changed_balances[account_id] = moved


def _decided(before: HoldRow, after: HoldRow, fare: Fare | None, verdict: Verdict, reason: str) -> Change:
    """What an operator decided on an open hold, as the trail says it."""
    members: dict[str, tuple[Value, Value]] = {
        "state": (before.state, after.state),
        "held_usd": (format_usd(before.amount_nanos), "0" if after.ended_us else format_usd(before.amount_nanos)),
    }
    if type(verdict) is Cost:
        members["cost_usd"] = (None, plain(verdict.amount))
    if after.ended_us is not None:
        members["fare_usd"] = (None, format_usd(0 if fare is None else fare.nanos))
    return Change(
        what="order.decided",
        account_id=before.account_id,
        key_id=before.key_id,
        hold_id=before.id,
        transfer_id=settlement_id(before.id) if after.ended_us is not None else None,
        members=members,
        reason=reason,
    )


def _no_account(account_id: int) -> NoSuchRow:
    return NoSuchRow(f"account {account_id}")


def _no_hold(hold_id: str) -> NoSuchRow:
    return NoSuchRow(f"hold {hold_id}")


def _room(command: PlaceHold, balance: Balance, allowances: list[Allowance]) -> Held | NotCovered | Exceeded:
    """How much may be set aside for an order, and how many tokens it may become: what the balance has, within every
    limit."""
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
    return Held(command.wanted_nanos if available is None else min(command.wanted_nanos, max(0, available)), tokens)


def _placed(command: PlaceHold, worker: str, held: Held) -> HoldRow:
    # What every hold has goes without names, and what few have is told behind that, as in `exchange.py`.
    hold = HoldRow(
        command.id,
        command.account_id,
        command.key_id,
        worker,
        "pending",
        held.amount_nanos,
        command.plan,
        command.event_price_nanos,
        command.model,
        command.streamed,
        command.created_us,
        command.marked_up,
        reserved_tokens=held.tokens,
        order_digest=command.order_digest,
        upstream=command.upstream,
        priced=command.priced,
        kind=command.kind,
        units=command.units,
        end_user=command.end_user,
        tags=command.tags,
    )
    if (outside := command.outside) is not None:
        hold = replace(hold, charge_to=outside.charge_to, charge_times=outside.times)
    return hold


def _freed(allowance: Allowance, hold: HoldRow, tokens: int | None) -> Allowance:
    """The allowance after the hold has ended. `tokens` is how many the order became; where that is not known (None),
    those that were reserved stay counted."""
    freed = allowance.ended(hold.amount_nanos, was_served=hold.state == "pending")
    if tokens is None or hold.reserved_tokens is None:
        return freed
    return freed.corrected(hold.created_us, tokens - hold.reserved_tokens)


def _tokens(command: Settle) -> int | None:
    """The tokens of prompt and answer together; None where neither is known."""
    if command.prompt_tokens is None and command.answer_tokens is None:
        return None
    return (command.prompt_tokens or 0) + (command.answer_tokens or 0)


def _moved(hold: HoldRow, command: Settle) -> HoldRow:
    """The hold in its next state, with what the command knows of the generation. An open one is asked about soon, if
    the upstream has a name for it, or for its job."""
    state = MOVES[hold.state][type(command.verdict)]
    generation_id = command.generation_id or hold.generation_id
    job_id = command.job_id or hold.job_id
    upstream, priced = _served(hold, command)
    moved = replace(
        hold,
        state=state,
        generation_id=generation_id,
        served_model=command.served_model or hold.served_model,
        prompt_tokens=hold.prompt_tokens if command.prompt_tokens is None else command.prompt_tokens,
        answer_tokens=hold.answer_tokens if command.answer_tokens is None else command.answer_tokens,
        reason=command.verdict.reason if type(command.verdict) is Unknown else None,
        ended_us=None if state == "open" else command.created_us,
        ask_us=command.created_us + FIRST_US if state == "open" and (generation_id or job_id) else None,
        upstream=upstream,
        priced=priced,
        sent_us=command.sent_us or hold.sent_us,
        head_us=command.head_us or hold.head_us,
        read_us=command.read_us or hold.read_us,
    )
    if command.job_id or command.units is not None or command.tried:
        units = hold.units if command.units is None else command.units
        moved = replace(moved, job_id=job_id, units=units, tried=command.tried or hold.tried)
    return moved


def _served(hold: HoldRow, command: NameGeneration | Settle) -> tuple[str | None, Priced | None]:
    """Who served the order and by which prices: as it was placed, unless the command says otherwise. The prices of one
    upstream are none of another's."""
    if command.upstream is None or command.upstream == hold.upstream:
        return hold.upstream, hold.priced if command.priced is None else command.priced
    return command.upstream, command.priced
