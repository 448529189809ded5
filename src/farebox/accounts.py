"""Accounts, keys, limits, top-ups and spending: the use cases of operators, by command or over HTTP, and of callers who
look at their own."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec.structs import replace

from farebox import acting, clock
from farebox.core.allowances import (
    DAY_US,
    NO_CHANGES,
    NO_LIMITS,
    PERIODS,
    Allowance,
    LimitChanges,
    Limits,
    Period,
    began_us,
    owner_of,
    with_changes,
)
from farebox.core.books import LAST_US, Activity, Balance, Done, HoldRow, NoSuchRow, OtherTopUp, TopUp, Transfer
from farebox.core.caching import SECONDS_MAX
from farebox.core.callers import Account, Key, KeyTerms, ManagementKey, PublishedPlans
from farebox.core.keys import MANAGEMENT_PREFIX, digest, hint
from farebox.core.money import format_usd
from farebox.core.plans import Plan, difference
from farebox.identity.keys import REVISION_SECONDS, new_key
from farebox.ports import (
    AnswerShelf,
    Books,
    Directory,
    KeyTaken,
    Ledger,
    PresetShelf,
    PriceShelf,
    ResponseShelf,
    Standings,
    TariffShelf,
    Trail,
)

if TYPE_CHECKING:  # who brings no keys along need not carry it
    from farebox.core.moving.foreign_keys import ForeignKey

Owner = TypeVar("Owner", Account, Key)

DEFAULT_ACCOUNT = "default"

NAME_LENGTH_MAX = 100
LABEL_LENGTH_MAX = 200
OVERLAP_SECONDS_MAX = 90 * 86_400
"""How long two secrets of one key may be good at most."""

TOP_UP_KEY_LENGTH_MAX = 255


class Store(
    Ledger,
    Directory,
    Books,
    Trail,
    PriceShelf,
    TariffShelf,
    AnswerShelf,
    ResponseShelf,
    PresetShelf,
    Standings,
    Protocol,
):
    """What the use cases need of the books."""


class NotFound(Exception):  # noqa: N818 - the word of the house
    """There is no such account, key or plan; the message names it, and how to see those that exist."""


class BadTerms(Exception):  # noqa: N818
    """A value for an account, a key, a limit or a top-up is not valid; the message says what would be."""


class OtherTopUpBefore(Exception):  # noqa: N818
    """The key of a top-up was used for another one; the message says for which."""


@dataclass(frozen=True, slots=True)
class Statement:
    """An account's transfers, oldest first; the holds that they are of, and its keys, by id; and its balance now."""

    account: Account
    balance: Balance
    transfers: list[Transfer]
    orders: dict[str, HoldRow]
    keys: dict[int, Key]


@dataclass(frozen=True, slots=True)
class Spending:
    """Fares posted, in nano-dollars: in all, and in the current UTC day, week (from Monday) and month. `latest_us` is
    when the latest was posted; None where there is none, or nobody looked."""

    total: int = 0
    day: int = 0
    week: int = 0
    month: int = 0
    latest_us: int | None = None


@dataclass(frozen=True, slots=True)
class PaidIn:
    """An account's balance after a top-up. `is_repeat`: the top-up had been booked before."""

    account: Account
    balance: Balance
    is_repeat: bool


class Accounts:
    """The use cases over a store."""

    def __init__(self, store: Store, plans: Mapping[str, Plan]) -> None:
        self._store = store
        self._plans = plans

    async def create(
        self,
        name: str,
        plan: str,
        limit_nanos: int | None,
        paid_in_nanos: int = 0,
        limits: LimitChanges = NO_CHANGES,
    ) -> Account:
        """Open an account; `limit_nanos` is 0 for a prepaid one, None for a postpaid one without limit.

        Raises:
            NotFound: no such plan.
            BadTerms: the name or a limit is not valid.
            NameTaken: an account of this name exists.
        """
        self.check_new(name, plan)
        set_so = _changed(NO_LIMITS, limits)
        account = await self._store.create_account(name, plan, limit_nanos, clock.now_us(), set_so)
        if paid_in_nanos:
            await self._pay_in(account, paid_in_nanos, None, None)
        return account

    async def top_up(self, name: str, amount_nanos: int, key: str | None = None, note: str | None = None) -> PaidIn:
        """Pay money in; under a key (of the operator's choice) once, however often it is repeated.

        Raises:
            NotFound: no such account.
            BadTerms: the amount or the key is not valid.
            OtherTopUpBefore: the key stands for another amount, or another account.
        """
        if amount_nanos <= 0:
            raise BadTerms("a top-up is more than zero")
        if key is not None and not 1 <= len(key) <= TOP_UP_KEY_LENGTH_MAX:
            raise BadTerms(f"a top-up's key has 1 to {TOP_UP_KEY_LENGTH_MAX} characters, not {len(key)}")
        account = await self.find(name)
        is_repeat = await self._pay_in(account, amount_nanos, key, note)
        return PaidIn(account, await self._store.balance(account.id), is_repeat)

    async def change(
        self,
        name: str,
        *,
        plan: str | None = None,
        new_name: str | None = None,
        limits: LimitChanges = NO_CHANGES,
    ) -> Account:
        """Change an account's plan, name or limits, all of them or none: orders from then on are under it. Raises
        NotFound, BadTerms, NameTaken."""
        if plan is not None:
            self._check_plan(plan)
        if new_name is not None:
            _check_name(new_name)

        def changed(account: Account) -> Account:
            return replace(
                account,
                plan=account.plan if plan is None else plan,
                name=account.name if new_name is None else new_name,
                limits=_changed(account.limits, limits),
            )

        return await self._store.change_account((await self.find(name)).id, changed, clock.now_us())

    async def close(self, name: str) -> tuple[Account, bool]:
        """Have an account order nothing any more; True where it was closed before. When this returns, no process
        accepts its keys. Raises NotFound."""
        now_us = clock.now_us()

        def closed(account: Account) -> Account:
            return account if account.closed_us is not None else replace(account, closed_us=now_us)

        account = await self._store.change_account((await self.find(name)).id, closed, now_us)
        if account.closed_us != now_us:
            return account, True
        await asyncio.sleep(2 * REVISION_SECONDS)
        return account, False

    async def reopen(self, name: str) -> Account:
        """Let a closed account order again, with the keys that it had. Raises NotFound."""
        account = await self.find(name)
        return await self._store.change_account(account.id, lambda a: replace(a, closed_us=None), clock.now_us())

    async def every(self) -> list[Account]:
        """All accounts."""
        return list(await self._store.accounts())

    async def accounts(self) -> list[tuple[Account, Balance]]:
        return [(account, await self._store.balance(account.id)) for account in await self._store.accounts()]

    async def find(self, name: str) -> Account:
        """Raises NotFound."""
        account = await self._store.find_account(name)
        if account is None:
            raise NotFound(f"there is no account `{name}`; `farebox account list` shows those there are")
        return account

    async def default(self) -> Account:
        """Whose a new key is where nobody says it: the account of that name, or the only one there is. Raises
        NotFound."""
        every = await self._store.accounts()
        named = [account for account in every if account.name == DEFAULT_ACCOUNT] or every
        if len(named) != 1:
            raise NotFound(f"there are {len(every)} accounts, and none is called `{DEFAULT_ACCOUNT}`")
        return named[0]

    def check_new(self, name: str, plan: str) -> None:
        """Raises BadTerms, NotFound where `create` would."""
        _check_name(name)
        self._check_plan(plan)

    def shows_cost(self, account: Account) -> bool:
        """Whether who acts for an account is told what the upstream charged for its orders."""
        plan = self._plans.get(account.plan)
        return plan is None or plan.shows_cost

    @property
    def hides_costs(self) -> bool:
        """Whether any plan does not show what the upstream charges."""
        return any(not plan.shows_cost for plan in self._plans.values())

    def _check_plan(self, plan: str) -> None:
        if plan not in self._plans:
            raise NotFound(f"there is no plan `{plan}`; there are {', '.join(sorted(self._plans))}")

    async def find_by_id(self, account_id: int) -> Account:
        """Raises NotFound."""
        for account in await self._store.accounts():
            if account.id == account_id:
                return account
        raise NotFound(f"there is no account with the number {account_id}")

    # Keys

    async def create_key(
        self,
        name: str,
        label: str,
        expires_us: int | None = None,
        cache_seconds: int | None = None,
        *,
        may_store: bool = True,
        limits: LimitChanges = NO_CHANGES,
    ) -> tuple[str, Account, Key]:
        """Create a key. Returns the key itself, which is kept nowhere, its account and its row. Raises NotFound,
        BadTerms."""
        check_key(label, expires_us)
        _check_cache_seconds(cache_seconds)
        terms = KeyTerms(expires_us, cache_seconds or None, may_store=may_store, limits=_changed(NO_LIMITS, limits))
        account = await self.find(name)
        key = new_key()
        given = (account.id, label, digest(key), hint(key), clock.now_us())
        return key, account, await self._store.create_key(*given, terms, check_open)

    async def import_key(self, name: str, foreign: "ForeignKey", expires_us: int | None) -> tuple[Key, bool]:
        """Take over a key of another gateway by its digest, with its limits; True where it is there already, which
        stays as it is here. Raises NotFound, BadTerms."""
        account, found = await self.check_import(name, foreign)
        if found is not None:
            return found, True
        limits = _changed(NO_LIMITS, foreign.limits)
        terms = KeyTerms(expires_us, disabled=foreign.disabled, is_imported=True, limits=limits)
        given = (account.id, foreign.label, foreign.digest, foreign.hint, clock.now_us())
        try:
            return await self._store.create_key(*given, terms, check_open), False
        except KeyTaken:
            # Somebody else was quicker: it is there now.
            return await self.import_key(name, foreign, expires_us)

    async def check_import(self, name: str, foreign: "ForeignKey") -> tuple[Account, Key | None]:
        """Raises NotFound, BadTerms where `import_key` would. The account, and the key where it is there already."""
        _check_label(foreign.label)
        self.check_limits(foreign.limits)
        account = await self.find(name)
        check_open(account)
        found = await self._store.find_key(foreign.digest)
        if found is None:
            return account, None
        owner, key = found
        if owner.id != account.id:
            raise BadTerms("this key is another account's already")
        return account, key

    async def rotate_key(
        self, named: str, overlap_seconds: int, expires_us: int | None = None
    ) -> tuple[str, Account, Key]:
        """Give a key another secret, which is returned and kept nowhere. The old one works for so long, too; label,
        limits and what counts against them stay, and so does its expiry where no other is given. Raises NotFound (also
        for a key that is revoked, disabled or expired), BadTerms."""
        if not 0 <= overlap_seconds <= OVERLAP_SECONDS_MAX:
            raise BadTerms(f"an overlap is 0 seconds to {OVERLAP_SECONDS_MAX // 86_400} days")
        account, found = await self.find_key(named)
        now_us = clock.now_us()
        _check_expiry(expires_us)
        key = new_key()
        until_us = now_us + overlap_seconds * 1_000_000

        def rotated(row: Key) -> Key:
            if row.revoked_us is not None or (row.expires_us is not None and row.expires_us <= now_us):
                raise NotFound(f"the key `{row.hint}` is not good any more; `farebox key create` makes another")
            if row.digest != found.digest:
                # Else the secret that is in use would end at once, and with it the overlap that was promised.
                raise NotFound(f"the key `{found.hint}` was given another secret just now, by somebody else")
            return replace(
                row,
                digest=digest(key),
                hint=hint(key),
                updated_us=now_us,
                expires_us=row.expires_us if expires_us is None else expires_us,
                old_digest=row.digest if overlap_seconds else None,
                old_until_us=min(until_us, row.expires_us or until_us) if overlap_seconds else None,
            )

        return key, account, await self._store.rotate_key(found.id, rotated)

    async def keys(self, name: str | None) -> list[tuple[Account, Key]]:
        """The keys of one account, or of all. Raises NotFound."""
        owners = await self._store.accounts() if name is None else [await self.find(name)]
        return [(owner, key) for owner in owners for key in await self._store.keys(owner.id)]

    async def find_key(self, key: str) -> tuple[Account, Key]:
        """Find a key by itself, or by its number, hint or digest (in hexadecimal). Raises NotFound."""
        found = await self._store.find_key(_digest_of(key))
        if found is None:
            named = [each for each in await self.keys(None) if key in (str(each[1].id), each[1].hint)]
            found = named[0] if len(named) == 1 else None
        if found is None:
            raise NotFound(f"there is no key `{hint(key) if len(key) > 20 else key}`; `farebox key list` shows them")
        return found

    async def revoke_key(self, key: str) -> tuple[Account, Key]:
        """Revoke a key for good. Raises NotFound."""
        account, found = await self.find_key(key)
        now_us = clock.now_us()

        def revoked(row: Key) -> Key:
            return replace(row, revoked_us=row.revoked_us or now_us, disabled=False)

        return account, await self._store.change_key(found.id, revoked, now_us)

    async def change_key(
        self,
        key: str,
        *,
        label: str | None = None,
        disabled: bool | None = None,
        cache_seconds: int | None = None,
        may_store: bool | None = None,
        limits: Callable[[Limits], LimitChanges] = lambda _: NO_CHANGES,
    ) -> tuple[Account, Key]:
        """Change a key's label, disable it or enable it again, have answers to its orders kept for the same orders
        again (0: no more), say whether they may be stored for its account, or change its limits, by what they are: all
        of this or nothing. Raises NotFound (also for a revoked key), BadTerms."""
        _check_cache_seconds(cache_seconds)
        if label is not None:
            _check_label(label)
        account, found = await self.find_key(key)
        now_us = clock.now_us()

        def changed(row: Key) -> Key:
            if row.revoked_us is not None and not row.disabled:
                raise NotFound(f"the key `{row.hint}` was revoked, which is for good")
            if label is not None:
                row = replace(row, label=label)
            if disabled is not None:
                row = replace(row, disabled=disabled, revoked_us=(row.revoked_us or now_us) if disabled else None)
            if cache_seconds is not None:
                row = replace(row, cache_seconds=cache_seconds or None)
            if may_store is not None:
                row = replace(row, may_store=may_store)
            return replace(row, limits=_changed(row.limits, limits(row.limits)), updated_us=now_us)

        return account, await self._store.change_key(found.id, changed, now_us)

    # Limits

    async def limit(self, account: Account, key: Key | None, changes: LimitChanges) -> Limits:
        """Change limits of an account, or of one of its keys, and return all. What was spent before counts, too. Raises
        BadTerms."""

        def limited(of: Owner) -> Owner:
            return replace(of, limits=_changed(of.limits, changes))

        now_us = clock.now_us()
        if not changes:
            return (key or account).limits
        if key is None:
            return (await self._store.change_account(account.id, limited, now_us)).limits
        return (await self._store.change_key(key.id, limited, now_us)).limits

    def check_limits(self, changes: LimitChanges) -> None:
        """Raises BadTerms where `limit` would: to be called before anything else is changed."""
        _changed(NO_LIMITS, changes)

    async def allowance(self, of: Account | Key) -> Allowance | None:
        """The limits of an account or a key, and what counts against them; None where there are none."""
        return await self._store.allowance(owner_of("account" if isinstance(of, Account) else "key", of.id))

    # Managers

    async def create_management_key(self, label: str, name: str | None) -> tuple[str, ManagementKey]:
        """Create a management key, for one account or (`name` None) for all. Returns the key itself, which is kept
        nowhere, and its row. Raises NotFound, BadTerms."""
        _check_label(label)
        account = None if name is None else await self.find(name)
        key = new_key(MANAGEMENT_PREFIX)
        row = await self._store.create_management_key(
            label, digest(key), hint(key), account.id if account else None, clock.now_us()
        )
        return key, row

    async def management_keys(self) -> list[ManagementKey]:
        return await self._store.management_keys()

    async def revoke_management_key(self, key: str) -> ManagementKey:
        """Revoke a management key, found by itself, or by its number or hint. Raises NotFound."""
        every = await self.management_keys()
        named = [each for each in every if key in (str(each.id), each.hint) or each.digest == digest(key)]
        if len(named) != 1:
            raise NotFound("there is no such management key; `farebox management-key list` shows them")
        now_us = clock.now_us()
        await self._store.revoke_management_key(named[0].id, now_us)
        return replace(named[0], revoked_us=named[0].revoked_us or now_us)

    # Plans

    async def publish_plans(self, by: str) -> tuple[PublishedPlans, str] | None:
        """Let all nodes serve under this node's plans: those of the node that started last hold. Returns the previous
        plans and what changed, as text; None where nothing did, or there were none."""
        before = await self._store.published_plans()
        known = {plan.name: plan for plan in before.plans} if before else {}
        if (other := difference(known, self._plans)) or before is None:
            await self._store.publish_plans(PublishedPlans(tuple(self._plans.values()), by, clock.now_us()))
        return (before, other) if before is not None and other else None

    # Spending

    async def statement(self, name: str, since_us: int = 0, until_us: int = LAST_US) -> Statement:
        """The statement of an account from one moment to before another. Raises NotFound."""
        account = await self.find(name)
        transfers = await self._store.transfers(account.id, since_us, until_us)
        holds = await self._store.orders([transfer.hold_id for transfer in transfers if transfer.hold_id is not None])
        keys = {key.id: key for key in await self._store.keys(account.id)}
        orders = {hold.id: hold for hold in holds}
        return Statement(account, await self._store.balance(account.id), transfers, orders, keys)

    async def balance(self, account: Account) -> Balance:
        return await self._store.balance(account.id)

    async def spending(self, account: Account, key: Key | None = None) -> Spending:
        now_us = clock.now_us()
        key_id = key.id if key else None
        spent = {
            each: await self._store.spent_nanos(account.id, key_id, began_us(each, now_us) // DAY_US)
            for each in PERIODS
        }
        return Spending(**spent)

    async def spent_this_month(self, account: Account) -> int:
        """Its fares of the current UTC month, in nano-dollars."""
        return await self._store.spent_nanos(account.id, None, began_us("month", clock.now_us()) // DAY_US)

    async def spending_by_key(self, account: Account) -> dict[int, Spending]:
        """The spending of each key of an account that has any, by the key's id."""
        now_us = clock.now_us()
        spent: dict[Period, dict[int, tuple[int, int]]] = {
            each: await self._store.spent_by_key(account.id, began_us(each, now_us) // DAY_US) for each in PERIODS
        }
        return {
            key_id: Spending(**{each: spent[each].get(key_id, (0, 0))[0] for each in PERIODS}, latest_us=latest_us)
            for key_id, (_, latest_us) in spent["total"].items()
        }

    async def activity(self, account: Account | None, key: Key | None, first_day: int, last_day: int) -> list[Activity]:
        """Fares by UTC day and model, the latest day first; of one account or key, or of all."""
        return await self._store.activity(
            None if account is None else account.id, None if key is None else key.id, first_day, last_day
        )

    async def _pay_in(self, account: Account, amount_nanos: int, key: str | None, note: str | None) -> bool:
        now_us = clock.now_us()
        name = f"{now_us:014x}{secrets.token_hex(6)}" if key is None else f"top-up-{sha256(key.encode()).hexdigest()}"
        outcome = await self._store.carry_out(TopUp(name, account.id, amount_nanos, now_us, note, acting.by()))
        match outcome:
            case Done():
                return outcome.is_repeat
            case OtherTopUp(before):
                where = "this account" if before.credit_account == account.id else "another account"
                raise OtherTopUpBefore(
                    f"this key stands for a top-up of ${format_usd(before.amount_nanos)} to {where}; choose another key"
                )
            case NoSuchRow():
                raise NotFound(f"there is no account `{account.name}`")
            case _:
                raise AssertionError(outcome)


def _changed(limits: Limits, changes: LimitChanges) -> Limits:
    try:
        return with_changes(limits, changes)
    except ValueError as error:
        raise BadTerms(str(error)) from error


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > NAME_LENGTH_MAX or name.startswith(("(", "-")) or not name.isprintable():
        raise BadTerms(
            f"{name[: NAME_LENGTH_MAX + 1]!r} is not a name for an account: 1 to {NAME_LENGTH_MAX} printable"
            " characters, no ( or - first"
        )


def _check_label(label: str) -> None:
    if len(label) > LABEL_LENGTH_MAX or not (label.isprintable() or not label):
        raise BadTerms(f"a key's name has at most {LABEL_LENGTH_MAX} printable characters")


def check_key(label: str, expires_us: int | None) -> None:
    """Raises BadTerms where `create_key` would for these."""
    _check_label(label)
    _check_expiry(expires_us)


def check_open(account: Account) -> None:
    """Raises BadTerms: it is closed."""
    if account.closed_us is not None:
        raise BadTerms(f"the account `{account.name}` is closed; `farebox account reopen` opens it again")


def _check_expiry(expires_us: int | None) -> None:
    if expires_us is not None and expires_us <= clock.now_us():
        raise BadTerms("a key's expiry must lie in the future")


def _check_cache_seconds(seconds: int | None) -> None:
    if seconds is not None and not 0 <= seconds <= SECONDS_MAX:
        raise BadTerms(f"answers are kept for 0 (not at all) to {SECONDS_MAX} seconds, not {seconds}")


def _digest_of(key: str) -> bytes:
    try:
        return bytes.fromhex(key) if len(key) == 64 else digest(key)
    except ValueError:
        return digest(key)
