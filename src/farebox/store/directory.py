"""Who is in the books: accounts, keys and their limits, the plans in force; and what nodes share: price lists, and how
upstreams stand."""

import asyncio
from collections.abc import Callable, Sequence
from secrets import token_bytes
from typing import TypeVar

import msgspec
from msgspec.structs import astuple, replace

from farebox.core import changes
from farebox.core.allowances import NO_LIMITS, PERIODS, Allowance, Limits, began_us, end_user_owner, owner_of
from farebox.core.bills import EndUserSpent
from farebox.core.books import LAST_US
from farebox.core.callers import PLAIN_TERMS, Account, Key, KeyTerms, ManagementKey, PublishedPlans, made_under
from farebox.core.health import Standing
from farebox.core.pricing import KeptPrices
from farebox.core.tariffs import KeptTariffs
from farebox.ports import KeyTaken, NameTaken
from farebox.store.end_users import count_end_user
from farebox.store.engine import Db, Engine
from farebox.store.rows import (
    account_and_key_from,
    account_from,
    allowance_from,
    allowance_row,
    each,
    json_text,
    key_changes,
    key_from,
    number_from,
    prices_from,
    published_from,
)
from farebox.store.threads import Worker
from farebox.store.trail import Note, SqlTrail

T = TypeVar("T")
Owner = TypeVar("Owner", Account, Key)


class SqlDirectory(SqlTrail):
    """The `Directory`, `PriceShelf` and `Standings` ports."""

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(engine, name)
        self._notices = engine.notices()
        self._listening = Worker("farebox-notices")

    async def stop_listening(self) -> None:
        """A wait that is under way ends by itself, within the time that a wait takes."""
        await self._listening.close(self._notices.close if self._notices else None)

    async def _change(self, work: Callable[[Db, Note], T]) -> T:
        """Change what processes remember of callers, in one transaction, enter it in the trail, and let them know."""

        def change(db: Db, note: Note) -> T:
            done = work(db, note)
            db.execute(self._sql.bump_revision)
            return done

        return await self._noting(change)

    async def create_account(
        self, name: str, plan: str, limit_nanos: int | None, created_us: int, limits: Limits = NO_LIMITS
    ) -> Account:
        def create(db: Db, note: Note) -> Account:
            try:
                (account_id,) = db.execute(self._sql.insert_account, (name, plan, created_us)).fetchone()
            except self.engine.conflicting as error:
                raise NameTaken(name) from error
            db.execute(self._sql.insert_balance, (account_id, limit_nanos))
            account = Account(account_id, name, plan, created_us)
            note(changes.account_opened(account, limit_nanos))
            return self._limited(db, note, account, replace(account, limits=limits), created_us)

        return await self._change(create)

    async def change_account(self, account_id: int, change: Callable[[Account], Account], now_us: int) -> Account:
        def write(db: Db, note: Note) -> Account:
            before = self._locked_account(db, account_id)
            after = change(before)
            note(changes.account_changed(before, after))
            self._limited(db, note, before, after, now_us)
            try:
                db.execute(self._sql.change_account, (after.name, after.plan, after.closed_us, account_id))
            except self.engine.conflicting as error:
                raise NameTaken(after.name) from error
            return after

        return await self._change(write)

    def _locked_account(self, db: Db, account_id: int) -> Account:
        db.execute(self._sql.lock_account, (account_id,))
        return account_from(db.execute(self._sql.account_of_id, {"id": account_id}).fetchone())

    async def accounts(self) -> list[Account]:
        return await self._desk.rows(account_from, self._sql.accounts)

    async def find_account(self, name: str) -> Account | None:
        return await self._desk.row(account_from, self._sql.account_named, {"name": name})

    async def create_key(
        self,
        account_id: int,
        label: str,
        digest: bytes,
        hint: str,
        created_us: int,
        terms: KeyTerms = PLAIN_TERMS,
        check: Callable[[Account], None] | None = None,
    ) -> Key:
        def create(db: Db, note: Note) -> Key:
            if check is not None:
                check(self._locked_account(db, account_id))
            given = (account_id, label, digest, hint, created_us)
            try:
                (key_id,) = db.execute(self._sql.insert_key, given).fetchone()
            except self.engine.conflicting as error:
                raise KeyTaken(hint) from error
            bare = Key(key_id, *given)
            key = made_under(terms, bare)
            db.execute(self._sql.change_key, key_changes(key))
            note(changes.key_made(key, is_imported=terms.is_imported))
            return self._limited(db, note, bare, key, created_us)

        return await self._change(create)

    async def keys(self, account_id: int) -> list[Key]:
        return await self._desk.rows(key_from, self._sql.keys, {"account": account_id})

    async def find_key(self, digest: bytes) -> tuple[Account, Key] | None:
        return await self._desk.row(account_and_key_from, self._sql.key_of_digest, {"digest": digest})

    async def change_key(self, key_id: int, change: Callable[[Key], Key], now_us: int) -> Key:
        def write(db: Db, note: Note) -> Key:
            before = self._locked_key(db, key_id)
            after = self._limited(db, note, before, change(before), now_us)
            db.execute(self._sql.change_key, key_changes(after))
            note(changes.key_changed(before, after))
            return after

        return await self._change(write)

    def _locked_key(self, db: Db, key_id: int) -> Key:
        db.execute(self._sql.lock_key, (key_id,))
        return account_and_key_from(db.execute(self._sql.key_of_id, {"id": key_id}).fetchone())[1]

    async def rotate_key(self, key_id: int, change: Callable[[Key], Key]) -> Key:
        def rotate(db: Db, note: Note) -> Key:
            before = self._locked_key(db, key_id)
            key = change(before)
            given = (key.digest, key.hint, key.expires_us, key.updated_us, key.old_digest, key.old_until_us, key_id)
            db.execute(self._sql.rotate_key, given)
            note(changes.key_rotated(before, key))
            return key

        return await self._change(rotate)

    async def has_foreign_keys(self) -> bool:
        return await self._desk.row(tuple, self._sql.is_any_key_foreign) is not None

    async def allowance(self, owner: str) -> Allowance | None:
        return await self._desk.row(allowance_from, self._sql.allowance, {"owner": owner})

    def _limited(self, db: Db, note: Note, before: Owner, after: Owner, now_us: int) -> Owner:
        """Set the limits of an account or a key as they are after a change, if it set them; also to what they were, as
        what counts against them is then counted again, which mends what an older node did not count. Its row is locked
        already: whoever locks a balance as well does that second, so that no two wait for each other."""
        if after.limits is before.limits:
            return after
        if isinstance(after, Account):
            account_id, key_id, owner = after.id, None, owner_of("account", after.id)
        else:
            account_id, key_id, owner = after.account_id, after.id, owner_of("key", after.id)
        note(changes.limits_set(account_id, key_id, before.limits, after.limits))
        # Every order of the account waits here, so none is left out of what is counted, or counted twice.
        db.execute(self._sql.lock_balances, {"ids": json_text([account_id])}).fetchall()
        row = db.execute(self._sql.allowance, {"owner": owner}).fetchone()
        db.execute(self._sql.drop_allowance, {"owner": owner})
        if after.limits != NO_LIMITS:
            minute = () if row is None else allowance_from(row).minute
            found = self._count(db, Allowance(owner, account_id, after.limits, minute=minute), key_id, now_us)
            db.execute(self._sql.insert_allowance, allowance_row(found))
        return after

    async def limit_end_user(
        self, account_id: int, end_user: str | None, change: Callable[[Limits], Limits], now_us: int
    ) -> Limits:
        owner, default = end_user_owner(account_id, end_user), end_user_owner(account_id, None)

        def write(db: Db, note: Note) -> Limits:
            # As above.
            db.execute(self._sql.lock_balances, {"ids": json_text([account_id])}).fetchall()
            row = db.execute(self._sql.allowance, {"owner": owner}).fetchone()
            before = None if row is None else allowance_from(row)
            own = NO_LIMITS if before is None else before.limits
            limits = change(own)
            note(changes.end_user_limited(account_id, end_user, own, limits))
            db.execute(self._sql.drop_allowance, {"owner": owner})
            allowance = Allowance(owner, account_id, limits, counted_us=now_us)
            if end_user is None:
                if limits != NO_LIMITS:
                    db.execute(self._sql.insert_allowance, allowance_row(allowance))
                else:
                    db.execute(self._sql.drop_unlimited_allowances, {"account": account_id})
            elif limits != NO_LIMITS or db.execute(self._sql.allowance, {"owner": default}).fetchone():
                allowance = replace(allowance, minute=() if before is None else before.minute)
                found = count_end_user(db, self._sql, allowance, end_user, now_us)
                db.execute(self._sql.insert_allowance, allowance_row(found))
            return limits

        return await self._noting(write)

    async def allowances_of(self, owners: Sequence[str]) -> list[Allowance]:
        return await self._desk.rows(allowance_from, self._sql.allowances_of, {"ids": json_text(owners)})

    async def limited_end_users(self, account_id: int, after: str, most: int) -> list[Allowance]:
        given = {"account": account_id, "after": after, "most": most}
        return await self._desk.rows(allowance_from, self._sql.end_user_allowances, given)

    async def end_users(self, account_id: int, first_day: int, after: str, most: int) -> list[EndUserSpent]:
        given = {"account": account_id, "first": first_day, "after": after, "most": most}
        return await self._desk.rows(each(EndUserSpent), self._sql.end_users, given)

    async def end_user(self, account_id: int, first_day: int, end_user: str) -> EndUserSpent:
        given = {"account": account_id, "first": first_day, "end_user": end_user}
        (spent,) = await self._desk.rows(tuple, self._sql.end_user, given)
        return EndUserSpent(end_user, *spent)

    async def secret(self, name: str) -> bytes:
        def find(db: Db) -> bytes:
            db.execute(self._sql.keep_secret, {"name": name, "value": token_bytes(32)})
            (value,) = db.execute(self._sql.secret, {"name": name}).fetchone()
            return bytes(value)

        found = await self._desk.rows(tuple, self._sql.secret, {"name": name})
        return bytes(found[0][0]) if found else await self._desk.change(find)

    def _count(self, db: Db, allowance: Allowance, key_id: int | None, now_us: int) -> Allowance:
        """An allowance with all that counts against it, from the ledger."""
        given = {"account": allowance.account_id, "key": key_id, "until": LAST_US}
        pending, at_once = db.execute(self._sql.held_now, given).fetchone()
        spent = {}
        for period in PERIODS:
            since = {"since": began_us(period, now_us)}
            (spent[f"{period}_nanos"],) = db.execute(self._sql.usage, {**given, **since}).fetchone()
        return replace(allowance, pending_nanos=pending, at_once=at_once, counted_us=now_us, **spent)

    async def create_management_key(
        self, label: str, digest: bytes, hint: str, account_id: int | None, created_us: int
    ) -> ManagementKey:
        given = (label, digest, hint, account_id, created_us)

        def create(db: Db, note: Note) -> ManagementKey:
            (key_id,) = db.execute(self._sql.insert_management_key, given).fetchone()
            key = ManagementKey(key_id, *given)
            note(changes.management_key_made(key))
            return key

        return await self._noting(create)

    async def management_keys(self) -> list[ManagementKey]:
        return await self._desk.rows(each(ManagementKey), self._sql.management_keys)

    async def find_management_key(self, digest: bytes) -> ManagementKey | None:
        return await self._desk.row(each(ManagementKey), self._sql.management_key_of_digest, {"digest": digest})

    async def revoke_management_key(self, key_id: int, revoked_us: int) -> None:
        def revoke(db: Db, note: Note) -> None:
            given = {"revoked": revoked_us, "id": key_id}
            if (row := db.execute(self._sql.revoke_management_key, given).fetchone()) is not None:
                note(changes.management_key_revoked(key_id, row[0], revoked_us))

        await self._noting(revoke)

    async def published_plans(self) -> PublishedPlans | None:
        return await self._desk.row(published_from, self._sql.published_plans)

    async def publish_plans(self, published: PublishedPlans) -> None:
        def publish(db: Db, note: Note) -> None:
            # First, so that of two that publish at once one waits here, and one row is left.
            db.execute(self._sql.bump_revision)
            row = db.execute(self._sql.published_plans).fetchone()
            note(changes.plans_published(None if row is None else published_from(row), published))
            db.execute(self._sql.drop_published_plans)
            given = (json_text(published.plans), published.by, published.published_us)
            db.execute(self._sql.publish_plans, given)

        await self._noting(publish)

    async def revision(self) -> int:
        (revision,) = await self._desk.rows(number_from, self._sql.revision)
        return revision

    async def wait_for_change(self, seconds: float) -> None:
        if self._notices is None:
            await asyncio.sleep(seconds)
        else:
            notices = self._notices
            await self._listening.do(lambda: notices.wait(seconds))

    async def kept_prices(self, source: str, after_us: int) -> KeptPrices | None:
        return await self._desk.row(prices_from, self._sql.kept_prices, {"source": source, "after": after_us})

    async def claim_prices(self, source: str, now_us: int, until_us: int) -> bool:
        given = {"source": source, "now": now_us, "until": until_us}
        return await self._desk.write(self._sql.claim_prices, given) == 1

    async def keep_prices(self, source: str, kept: KeptPrices) -> None:
        given = (source, msgspec.msgpack.encode(kept.bodies), kept.read_us)
        await self._desk.write(self._sql.keep_prices, given)

    async def keep_tariffs(self, kept: KeptTariffs) -> None:
        await self._desk.write(self._sql.keep_tariffs, astuple(kept))

    async def standings(self) -> list[Standing]:
        return await self._desk.rows(each(Standing), self._sql.standings)

    async def put_standing(self, standing: Standing) -> None:
        await self._desk.write(self._sql.put_standing, astuple(standing))

    async def forget_standings(self, before_us: int) -> None:
        await self._desk.write(self._sql.forget_standings, {"before": before_us})
