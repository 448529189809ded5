"""The audit: recomputes every fare from its cost, and every balance and allowance from the transfers, and names what
differs from what is stored."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from typing import Protocol

from farebox.core.allowances import DAY_US, PERIODS, SECOND_US, Allowance, began_us, date_of
from farebox.core.books import (
    CASH,
    FARES,
    FIRST_CALLER_ACCOUNT,
    Attributed,
    AttributedKey,
    Balance,
    ChargedFare,
    DayKey,
    DayTotal,
    HoldRow,
    Transfer,
    all_owners_of,
    attributed_key,
    charged_fare,
    day_key,
    settlement_id,
)
from farebox.core.charges import Charge
from farebox.core.money import EVENT_NANOS, add_exact, charged, format_usd, is_readable_cost, times_exact
from farebox.core.tariffs import KeptTariffs, Priced, Tariffs, read_kept
from farebox.core.trail import Change, Entry, TrailHead
from farebox.core.usage import Unknown


@dataclass(slots=True)
class Audit:
    """What an audit counted (money in nano-dollars; fares by the kind of their orders, "" where it is not known), and
    each difference as a sentence. None: the books are right."""

    accounts: int = 0
    transfers: int = 0
    holds: dict[str, int] = field(default_factory=lambda: {"pending": 0, "open": 0, "posted": 0, "voided": 0})
    unresolved: int = 0
    fares_nanos: int = 0
    paid_in_nanos: int = 0
    over_hold: int = 0
    adjustments: int = 0
    charged_events: int = 0
    uncharged_events: int = 0
    entries: int = 0
    kinds: dict[str, DayTotal] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Sums:
    credits: int = 0
    debits: int = 0
    pending: int = 0


class Snapshot(Protocol):
    """All rows of the books at one moment; or, for one pass, what has ended before it as it was then, and all else at
    one moment: what is read after the last hold is of that."""

    def transfers(self) -> Iterable[Transfer]:
        """Ordered by id, so that a hold comes before the transfer that ends it."""

    def holds(self) -> Iterable[HoldRow]:
        """Ordered by id."""

    def balances(self) -> Iterable[Balance]: ...

    def charged_fares(self) -> Iterable[ChargedFare]: ...

    def charges(self) -> Iterable[Charge]: ...

    def allowances(self) -> Iterable[Allowance]: ...

    def tariffs(self) -> Iterable[KeptTariffs]: ...

    def day_totals(self) -> Iterable[DayTotal]: ...

    def attributed_totals(self) -> Iterable[Attributed]: ...

    def corrections(self) -> Iterable[Transfer]:
        """Of the transfers, those that correct fares. Those that come while others are read may be missing."""

    def entries(self) -> Iterable[Entry]:
        """The trail, in the order of its numbers."""

    def trail_head(self) -> TrailHead: ...


def audit(rows: Snapshot) -> Audit:
    """Audit the books in one pass over transfers and holds; what is in memory grows with accounts and the totals of
    their days, not with orders."""
    found = Audit()
    due: dict[str, ChargedFare] = {}
    tallies = {allowance.owner: _Tally() for allowance in rows.allowances()}
    sums: dict[int, _Sums] = {}
    held: dict[str, Transfer] = {}
    ended: dict[str, Transfer] = {}
    recounting = _Recounting(rows)
    days = _Days()
    corrections = _Corrections(rows)
    trail = _Trail()
    transfers = iter(rows.transfers())
    for hold in rows.holds():
        # Both come in the order of their ids, an order's transfers with its hold: few wait here for each other.
        while hold.id not in held or (hold.ended_us is not None and settlement_id(hold.id) not in ended):
            if (transfer := next(transfers, None)) is None:
                break
            _take(transfer, sums, held, ended, trail, found)
        found.holds[hold.state] += 1
        found.unresolved += hold.is_unresolved
        ending = ended.pop(settlement_id(hold.id), None)
        found.differences += [
            *_hold_differences(hold, held.pop(hold.id, None), ending),
            *corrections.differences(hold, ending),
        ]
        if hold.priced is not None:
            found.differences += recounting.differences(hold, hold.priced, ending)
        days.take(hold, ending)
        for owner in all_owners_of(hold) if tallies else ():
            if owner in tallies:
                tallies[owner].take(hold, ending)
        events = (ending.events or 0) if ending is not None else 0
        if (fare := charged_fare(hold, events)) is not None:
            due[fare.transfer_id] = fare
    for transfer in transfers:
        _take(transfer, sums, held, ended, trail, found)
    found.differences += [
        *recounting.list_differences(),
        *corrections.left_over(),
        *(f"transfer {t.id}: holds money for an order that is not in the books" for t in held.values()),
        *(f"transfer {t.id}: ends a hold that is not in the books" for t in ended.values()),
    ]
    outside = list(rows.charged_fares())
    found.differences += _charge_differences(rows.charges(), outside, found)
    found.differences += _outside_differences(due, outside)
    _compare_balances(rows.balances(), sums, found)
    found.kinds = days.by_kind()
    found.differences += [
        *days.differences(rows.day_totals()),
        *days.attributed.differences(rows.attributed_totals()),
        *_limit_differences(rows.allowances(), tallies),
        *trail.differences(rows, found),
    ]
    rest = sum(each.credits - each.debits for each in sums.values())
    if rest:
        found.differences.append(f"the books do not balance: credits exceed debits by ${format_usd(rest)}")
    return found


class _Days:
    """The totals of days, summed again from their fares."""

    def __init__(self) -> None:
        self._due: dict[DayKey, DayTotal] = {}
        self.attributed = _Attributed()

    def take(self, hold: HoldRow, ending: Transfer | None) -> None:
        """Count an order, if it has a fare."""
        fare = None if ending is None else ending.fare
        if ending is not None and fare is not None and is_readable_cost(fare.cost):
            key = day_key(hold, ending.created_us)
            if (total := self._due.get(key)) is None:
                total = self._due[key] = DayTotal(key)
            total.count(hold, fare, ending.created_us)
            if (finer := attributed_key(hold, key)) is not None:
                counted = DayTotal(key)
                counted.count(hold, fare, ending.created_us)
                self.attributed.take(finer, counted)

    def by_kind(self) -> dict[str, DayTotal]:
        found: dict[str, DayTotal] = {}
        for total in self._due.values():
            kind = total.key[-1]
            found.setdefault(kind, DayTotal((-1, -1, -1, "", "", kind))).add(total)
        return found

    def differences(self, stored: Iterable[DayTotal]) -> list[str]:
        wrong: list[str] = []
        due_still = dict(self._due)
        for total in stored:
            due = due_still.pop(total.key, DayTotal(total.key))
            if total != due:
                wrong.append(f"{_day_name(total.key)}: its total says {_said(total)}; its transfers say {_said(due)}")
        return wrong + [f"{_day_name(key)}: {_said(due)} are not in the totals" for key, due in due_still.items()]


class _Attributed:
    """The totals by end users and tags, which may be as many as orders: so no list of them is kept, but of each account
    and day a fingerprint, which is the sum of each fare times a number that is made of its total's key. The same sums
    have the same one, and others have not."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], DayTotal] = {}
        self._prints: dict[tuple[int, int], tuple[int, Decimal]] = {}

    def take(self, key: AttributedKey, total: DayTotal) -> None:
        (account_id, day, *_), _, _ = key
        name = (account_id, day)
        weight = int.from_bytes(blake2b(repr(key).encode(errors="replace"), digest_size=16).digest())
        whole = 0
        for count in (total.orders, total.events, total.fares_nanos, total.prompt_tokens, total.answer_tokens):
            whole = whole * _FINGER + count
        whole = whole * _FINGER + total.units
        before, cost = self._prints.get(name, (0, Decimal(0)))
        self._prints[name] = before + weight * whole, add_exact(cost, times_exact(total.cost, weight))
        self._sums.setdefault(name, DayTotal((account_id, day, -1, "", "", ""))).add(total)

    def differences(self, stored: Iterable[Attributed]) -> list[str]:
        found = _Attributed()
        for each in stored:
            found.take((each.total.key, each.end_user, each.tags), each.total)
        return [
            f"account {name[0]}, {date_of(name[1])}: its totals by end user and tag say {found._say(name)}; its"
            f" transfers say {self._say(name)}"
            for name in sorted(self._prints.keys() | found._prints.keys())
            if self._prints.get(name) != found._prints.get(name)
        ]

    def _say(self, name: tuple[int, int]) -> str:
        return _said(self._sums.get(name, DayTotal((-1, -1, -1, "", "", ""))))


_FINGER = 2**61 - 1
"""Larger than any sum."""


def _day_name(key: DayKey) -> str:
    account_id, day, key_id, model, served, kind = key
    by = "" if served == model else f", served by `{served}`"
    return f"account {account_id}, {date_of(day)}, key {key_id}, {kind or 'no kind'} of `{model}`{by}"


def _said(total: DayTotal) -> str:
    used = f"{total.prompt_tokens} and {total.answer_tokens} tokens, {total.units} units"
    return (
        f"{total.orders} orders, ${format_usd(total.fares_nanos)} ({total.events} events, cost ${total.cost:f}; {used})"
    )


def _limit_differences(allowances: Iterable[Allowance], tallies: "dict[str, _Tally]") -> list[str]:
    # One that was set after the first order was read is left to the next audit.
    known = ((tallies[each.owner], each) for each in allowances if each.owner in tallies)
    return [difference for tally, allowance in known for difference in tally.differences(allowance)]


def _compare_balances(balances: Iterable[Balance], sums: dict[int, _Sums], found: Audit) -> None:
    unknown = sums.keys() - {CASH, FARES}
    for balance in balances:
        found.accounts += 1
        unknown.discard(balance.account_id)
        found.differences += _balance_differences(balance, sums.get(balance.account_id, _Sums()))
    found.differences += [f"account {number}: has transfers and is not in the books" for number in sorted(unknown)]


def _take(
    transfer: Transfer,
    sums: dict[int, _Sums],
    held: dict[str, Transfer],
    ended: dict[str, Transfer],
    trail: "_Trail",
    found: Audit,
) -> None:
    found.transfers += 1
    trail.take(transfer)
    if not _has_its_sides(transfer):
        found.differences.append(
            f"transfer {transfer.id}: moves money from account {transfer.debit_account} to account"
            f" {transfer.credit_account}, as none of its kind ({transfer.kind}) does"
        )
    debit = sums.setdefault(transfer.debit_account, _Sums())
    credit = sums.setdefault(transfer.credit_account, _Sums())
    if transfer.kind == "hold":
        debit.pending += transfer.amount_nanos
        held[transfer.id] = transfer
        return
    if transfer.hold_id is not None and not transfer.is_correction:
        ended[transfer.id] = transfer
        if placed := held.get(transfer.hold_id):
            debit.pending -= placed.amount_nanos
    if transfer.kind != "void":
        debit.debits += transfer.amount_nanos
        credit.credits += transfer.amount_nanos
        found.paid_in_nanos += transfer.amount_nanos if transfer.debit_account == CASH else 0
        found.fares_nanos += transfer.amount_nanos if transfer.is_fare else 0
        found.over_hold += transfer.over_hold_nanos > 0
    found.adjustments += transfer.kind == "adjustment"


def _has_its_sides(transfer: Transfer) -> bool:
    """Whether money moves between such accounts as it does in a transfer of its kind. Which account an order's are of,
    and the corrections of its fare, is compared with its hold."""
    debit, credit = transfer.debit_account, transfer.credit_account
    if transfer.kind == "top-up":
        return debit == CASH and credit >= FIRST_CALLER_ACCOUNT
    if transfer.hold_id is None:
        return debit >= FIRST_CALLER_ACCOUNT and credit == CASH
    return credit == FARES or transfer.is_correction


_ENDINGS = {"posted": ("post", "adjustment"), "voided": ("void", "adjustment")}


def _hold_differences(hold: HoldRow, placed: Transfer | None, ending: Transfer | None) -> list[str]:
    wrong: list[str] = []
    if placed is None:
        wrong.append("has no transfer that set its money aside")
    elif (placed.amount_nanos, placed.debit_account) != (hold.amount_nanos, hold.account_id):
        wrong.append(f"says ${format_usd(hold.amount_nanos)}, its transfer ${format_usd(placed.amount_nanos)}")
    due = _ENDINGS.get(hold.state, (None,))
    if (ending.kind if ending else None) not in due:
        wrong.append(f"is {hold.state}, and was ended by {ending.kind if ending else 'nothing'}")
    if ending is not None and ending.debit_account != hold.account_id:
        wrong.append(f"is of account {hold.account_id}, and was ended for account {ending.debit_account}")
    if ending is not None and ending.kind == "void" and ending.amount_nanos != hold.amount_nanos:
        wrong.append(f"set ${format_usd(hold.amount_nanos)} aside and gave ${format_usd(ending.amount_nanos)} back")
    if ending is not None and ending.kind == "adjustment" and hold.state == "voided" and ending.amount_nanos:
        wrong.append(f"was voided, and ${format_usd(ending.amount_nanos)} charged")
    if ending is not None and hold.state == "posted":
        wrong += _fare_differences(hold, ending)
    return [f"hold {hold.id} {each}" for each in wrong]


def _fare_differences(hold: HoldRow, post: Transfer) -> list[str]:
    if post.cost is None or not is_readable_cost(post.cost):
        return [f"was posted at a cost that is no amount: {post.cost}"]
    events, fare = charged(post.cost, hold.event_price_nanos, marked_up=hold.marked_up)
    wrong: list[str] = []
    if (events, fare) != (post.events, post.amount_nanos):
        wrong.append(
            f"cost ${post.cost}: {events} events, ${format_usd(fare)} under the plan `{hold.plan}`;"
            f" booked were {post.events} events, ${format_usd(post.amount_nanos)}"
        )
    price = EVENT_NANOS if hold.marked_up else hold.event_price_nanos
    if post.event_price_nanos != price:
        wrong.append(f"is booked at another price of an event than ${format_usd(price)}, its plan's")
    if post.over_hold_nanos != max(0, post.amount_nanos - hold.amount_nanos):
        wrong.append(f"is flagged ${format_usd(post.over_hold_nanos)} above its hold, which is wrong")
    return wrong


class _Trail:
    """The entries of the trail, compared with what they stand for: none is missing, and each transfer that no order
    made has the one that says who made it."""

    def __init__(self) -> None:
        self._moved: dict[str, Transfer] = {}

    def take(self, transfer: Transfer) -> None:
        if transfer.kind in ("top-up", "adjustment"):
            self._moved[transfer.id] = transfer

    def differences(self, rows: Snapshot, found: Audit) -> list[str]:
        """To be called when all transfers were read: each was in the books before its entry is looked for."""
        wrong: list[str] = []
        head = rows.trail_head()
        last = 0
        for entry in rows.entries():
            found.entries += 1
            if entry.id != last + 1:
                wrong.append(f"the trail has no entry {last + 1}, and one {entry.id}")
            last = entry.id
            if (named := entry.change.transfer_id) is not None:
                wrong += self._entry_differences(entry, self._moved.pop(named, None))
        if last != head.entries:
            wrong.append(f"the trail's last entry is {last}, and {head.entries} were made")
        return wrong + [
            f"transfer {each.id}: nothing in the trail says who made it"
            for each in self._moved.values()
            if each.created_us >= head.whole_from_us
        ]

    def _entry_differences(self, entry: Entry, moved: Transfer | None) -> list[str]:
        change = entry.change
        if moved is None:
            return [f"entry {entry.id} of the trail is of transfer {change.transfer_id}, which is not in the books"]
        if change.account_id not in (moved.debit_account, moved.credit_account):
            return [f"entry {entry.id} of the trail is of account {change.account_id}, its transfer {moved.id} is not"]
        gained = moved.amount_nanos if moved.credit_account == change.account_id else -moved.amount_nanos
        if _gained_nanos(change) != gained:
            return [f"entry {entry.id} of the trail is of another amount than ${format_usd(gained)}, as in {moved.id}"]
        return []


def _gained_nanos(change: Change) -> int | None:
    """By how much the balance grew by what an entry says: of a decided order, by less than nothing, its fare. None
    where it does not say it."""
    is_fare = change.what == "order.decided"
    before, after = change.members.get("fare_usd" if is_fare else "balance_usd", (None, None))
    try:
        gained = int(add_exact(Decimal(str(after)), -Decimal(str(before or 0))).scaleb(9))
    except (ArithmeticError, ValueError):
        return None
    return -gained if is_fare else gained


class _Corrections:
    """The corrections of fares, by the holds of their orders; few orders have any."""

    def __init__(self, rows: Snapshot) -> None:
        self._of: dict[str | None, list[Transfer]] = {}
        for each in rows.corrections():
            if each.is_correction:
                self._of.setdefault(each.hold_id, []).append(each)

    def differences(self, hold: HoldRow, ending: Transfer | None) -> list[str]:
        """Where an order's fare was corrected that it has not, or for another account, or by more than the fare."""
        if hold.id not in self._of:
            return []
        wrong: list[str] = []
        corrections = self._of.pop(hold.id)
        back = sum(each.given_back_nanos for each in corrections)
        if ending is None or not ending.is_fare:
            wrong.append("has no fare, and it was corrected")
        elif back > ending.amount_nanos:
            wrong.append(f"was charged ${format_usd(ending.amount_nanos)}, and ${format_usd(back)} given back")
        wrong += [
            f"is of account {hold.account_id}, and its fare was corrected between {each.debit_account} and"
            f" {each.credit_account}"
            for each in corrections
            if {each.debit_account, each.credit_account} != {hold.account_id, FARES}
        ]
        return [f"hold {hold.id} {each}" for each in wrong]

    def left_over(self) -> list[str]:
        return [f"hold {hold_id}: its fare was corrected, and it is not in the books" for hold_id in self._of]


_PRICED_BEFORE_US = DAY_US
"""How long before its hold the prices of an order are looked up at most: a repeat waits between the two."""


class _Recounting:
    """Computes costs again from what was used, by the price list that stood at the time."""

    def __init__(self, rows: Snapshot) -> None:
        self._rows = rows
        self._read: dict[str, Tariffs | None] = {}

    def _list(self, version: str) -> Tariffs | None:
        """A list by its version; None where it is missing, or is not that of its version."""
        if version not in self._read:
            # One may have come since the last look.
            self._read.update((kept.version, read_kept(kept)) for kept in self._rows.tariffs())
        return self._read.setdefault(version, None)

    def differences(self, hold: HoldRow, priced: Priced, ending: Transfer | None) -> list[str]:
        """Where the cost that was posted is not that of its usage. What an operator decided is not recomputed."""
        wrong: list[str] = []
        if not -_CLOCKS_US <= hold.created_us - priced.at_us <= _PRICED_BEFORE_US:
            wrong.append("was placed at another time than its prices are of")
        if hold.upstream is None:
            wrong.append("has prices, and does not say of which upstream")
        elif (tariffs := self._list(priced.version)) is None:
            wrong.append(f"is priced by the list {priced.version}, which is not in the books, or not as it was")
        elif (tariff := tariffs.find(hold.upstream, priced.model, priced.at_us)) is None:
            wrong.append(f"is priced by the list {priced.version}, which has no `{priced.model}` at `{hold.upstream}`")
        elif ending is not None and ending.kind == "post":
            due = tariff.cost(priced.usage or Unknown("its usage is not in the books"))
            if isinstance(due, Unknown):
                wrong.append(f"was posted at ${ending.cost}, and its cost cannot be computed: {due.reason}")
            elif due.amount != ending.cost:
                wrong.append(
                    f"used what costs ${due.amount:f} by the list {priced.version}; posted were ${ending.cost}"
                )
        if priced.usage is not None:
            counted, stands = (
                (priced.usage.prompt_tokens, priced.usage.answer_tokens),
                (hold.prompt_tokens, hold.answer_tokens),
            )
            if counted != stands:
                wrong.append(
                    f"used {counted[0]} and {counted[1]} tokens by its usage; {stands[0]} and {stands[1]} are booked"
                )
        return [f"hold {hold.id} {each}" for each in wrong]

    def list_differences(self) -> list[str]:
        return [
            f"the price list {kept.version} is not as it was when it was first used"
            for kept in self._rows.tariffs()
            if read_kept(kept) is None
        ]


def _outside_differences(due: dict[str, ChargedFare], outside: Iterable[ChargedFare]) -> list[str]:
    """`due` is what the holds say that an outside biller charges, `outside` what is in the outbox."""
    wrong: list[str] = []
    for stored in outside:
        fare = due.pop(stored.transfer_id, None)
        if fare is None:
            wrong.append(
                f"transfer {stored.transfer_id}: is charged outside, and should not be, or is not in the books"
            )
        elif (stored.charge_to, stored.count) != (fare.charge_to, fare.count):
            wrong.append(
                f"transfer {fare.transfer_id}: comes to {fare.count} events outside; {stored.count} are charged"
            )
    return wrong + [
        f"transfer {each.transfer_id}: its {each.count} events are not charged outside, and should be"
        for each in due.values()
    ]


def _charge_differences(charges: Iterable[Charge], fares: Iterable[ChargedFare], found: Audit) -> list[str]:
    """Where a charge is not the sum of its fares. Counts events charged and not yet charged in `found`."""
    sums: dict[str | None, int] = {}
    for fare in fares:
        sums[fare.charge_id] = sums.get(fare.charge_id, 0) + fare.count
    found.uncharged_events += sums.pop(None, 0)
    wrong: list[str] = []
    for charge in charges:
        found.charged_events += charge.done
        found.uncharged_events += charge.count - charge.done
        if (total := sums.pop(charge.id, 0)) != charge.count:
            wrong.append(f"charge {charge.id}: {charge.count} events, its fares say {total}")
    return [*wrong, *(f"charge {name}: has fares, and is not in the books" for name in sums)]


_CLOCKS_US = 60 * SECOND_US
"""How far the clocks of machines may be apart. A node of an earlier version may have counted a fare that one booked at
the end of a day in the next day."""


class _Tally:
    """What counts against one allowance, recomputed from its holds and fares. Fares are summed by UTC days, with which
    every period begins; those of a day's last minute apart, too."""

    def __init__(self) -> None:
        self._days: dict[int, list[int]] = {}
        self._pending = 0
        self._at_once = 0

    def take(self, hold: HoldRow, ending: Transfer | None) -> None:
        """Count an order of its account or key."""
        if ending is None:
            self._pending += hold.amount_nanos
            self._at_once += hold.state == "pending"
        elif ending.is_fare:
            day, since_us = divmod(ending.created_us, DAY_US)
            sums = self._days.setdefault(day, [0, 0])
            sums[0] += ending.amount_nanos
            sums[1] += ending.amount_nanos if since_us >= DAY_US - _CLOCKS_US else 0

    def differences(self, allowance: Allowance) -> list[str]:
        wrong: list[str] = []
        if (allowance.pending_nanos, allowance.at_once) != (self._pending, self._at_once):
            wrong.append(
                f"{allowance.owner}: ${format_usd(allowance.pending_nanos)} held and {allowance.at_once} orders being"
                f" served count against its limits; its holds say ${format_usd(self._pending)}, {self._at_once}"
            )
        for period in PERIODS:
            first = began_us(period, allowance.counted_us) // DAY_US
            spent = sum(sums[0] for day, sums in self._days.items() if day >= first)
            around = self._days.get(first - 1, (0, 0))[1]
            stored = allowance.spent_nanos(period, allowance.counted_us)
            if not spent <= stored <= spent + around:
                wrong.append(
                    f"{allowance.owner}: ${format_usd(stored)} of its limit ({period}) are used; its fares say"
                    f" ${format_usd(spent)}"
                )
        return wrong


def _balance_differences(balance: Balance, sums: _Sums) -> list[str]:
    wrong: list[str] = []
    for what, stored, computed in (
        ("paid in", balance.credits_nanos, sums.credits),
        ("spent", balance.debits_nanos, sums.debits),
        ("held", balance.pending_nanos, sums.pending),
    ):
        if stored != computed:
            wrong.append(
                f"account {balance.account_id}: ${format_usd(stored)} {what}, its transfers say ${format_usd(computed)}"
            )
    available = balance.available_nanos
    if available is not None and max(0, -available) != balance.overdrawn_nanos:
        wrong.append(f"account {balance.account_id}: ${format_usd(balance.overdrawn_nanos)} overdrawn, which is wrong")
    return wrong
