"""Accounts, keys and top-ups: what an operator does, and what a caller may see of its own."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from farebox.core.ledger import Balance, HoldRow, NoSuchRow, TopUp, Transfer
from farebox.core.plans import Plan
from farebox.identity.keys import digest, hint, new_key
from farebox.ports import Account, Books, Directory, Key, Ledger


class Store(Ledger, Directory, Books, Protocol):
    """All three sides of the books."""


class NotFound(Exception):  # noqa: N818 - the word of the house
    """There is no such account, key or plan; the message names it and what there is."""


@dataclass(frozen=True, slots=True)
class Statement:
    """An account's transfers, oldest first, the orders behind them, and where it stands."""

    account: Account
    balance: Balance
    transfers: list[Transfer]
    orders: dict[str, HoldRow]


@dataclass(frozen=True, slots=True)
class Spending:
    """Fares posted, in nano-dollars: in all, and in the current UTC day, week (from Monday) and month."""

    total: int
    day: int
    week: int
    month: int


class Accounts:
    """The use cases over a store."""

    def __init__(self, store: Store, plans: Mapping[str, Plan]) -> None:
        self._store = store
        self._plans = plans

    async def create(self, name: str, plan: str, limit_nanos: int | None, paid_in_nanos: int = 0) -> Account:
        """Open an account; `limit_nanos` is 0 for a prepaid one, None for a postpaid one without limit.

        Raises:
            NotFound: no such plan.
            NameTaken: an account of this name exists.
        """
        if plan not in self._plans:
            raise NotFound(f"there is no plan `{plan}`; there are {', '.join(sorted(self._plans))}")
        account = await self._store.create_account(name, plan, limit_nanos, _now_us())
        if paid_in_nanos:
            await self._pay_in(account, paid_in_nanos)
        return account

    async def top_up(self, name: str, amount_nanos: int) -> Balance:
        """Pay money in. Raises NotFound."""
        account = await self.find(name)
        await self._pay_in(account, amount_nanos)
        return await self._store.balance(account.id)

    async def accounts(self) -> list[tuple[Account, Balance]]:
        return [(account, await self._store.balance(account.id)) for account in await self._store.accounts()]

    async def find(self, name: str) -> Account:
        """Raises NotFound."""
        account = await self._store.find_account(name)
        if account is None:
            raise NotFound(f"there is no account `{name}`; `farebox account list` shows those there are")
        return account

    async def create_key(self, name: str, label: str) -> tuple[str, Account, Key]:
        """A new key of an account, and its records. The key itself is kept nowhere. Raises NotFound."""
        account = await self.find(name)
        key = new_key()
        return key, account, await self._store.create_key(account.id, label, digest(key), hint(key), _now_us())

    async def keys(self, name: str | None) -> list[tuple[Account, Key]]:
        """The keys of one account, or of all. Raises NotFound."""
        owners = await self._store.accounts() if name is None else [await self.find(name)]
        return [(owner, key) for owner in owners for key in await self._store.keys(owner.id)]

    async def revoke_key(self, key: str) -> tuple[Account, Key]:
        """Revoke a key, given whole, by its number, or by its hint. Raises NotFound."""
        found = await self._store.find_key(digest(key))
        if found is None:
            named = [each for each in await self.keys(None) if key in (str(each[1].id), each[1].hint)]
            found = named[0] if len(named) == 1 else None
        if found is None:
            raise NotFound(f"there is no key `{hint(key) if len(key) > 20 else key}`; `farebox key list` shows them")
        account, row = found
        await self._store.revoke_key(row.id, _now_us())
        return account, next(each for each in await self._store.keys(account.id) if each.id == row.id)

    async def statement(self, name: str) -> Statement:
        """Raises NotFound."""
        account = await self.find(name)
        transfers = await self._store.transfers(account.id)
        holds = await self._store.holds(("pending", "open", "posted", "voided"), account.id)
        return Statement(account, await self._store.balance(account.id), transfers, {hold.id: hold for hold in holds})

    async def balance(self, account: Account) -> Balance:
        return await self._store.balance(account.id)

    async def spending(self, account: Account, key: Key | None = None) -> Spending:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        starts = (today, today - timedelta(days=today.weekday()), today.replace(day=1))
        key_id = key.id if key else None
        day, week, month = [
            await self._store.usage_nanos(account.id, key_id, int(start.timestamp()) * 1_000_000) for start in starts
        ]
        return Spending(await self._store.usage_nanos(account.id, key_id, 0), day, week, month)

    async def _pay_in(self, account: Account, amount_nanos: int) -> None:
        now_us = _now_us()
        outcome = await self._store.carry_out(
            TopUp(f"{now_us:014x}{secrets.token_hex(6)}", account.id, amount_nanos, now_us)
        )
        if isinstance(outcome, NoSuchRow):
            raise NotFound(f"there is no account `{account.name}`")


def _now_us() -> int:
    return time.time_ns() // 1000
