"""Ledger, Directory and Books in memory: the same rules, nothing durable."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from secrets import token_bytes
from typing import Self, TypeVar

from msgspec.structs import replace

from farebox import acting, clock
from farebox.core import changes
from farebox.core.allowances import DAY_US, NO_LIMITS, PERIODS, Allowance, Limits, began_us, end_user_owner, owner_of
from farebox.core.audit import Snapshot
from farebox.core.bills import (
    BookedOrder,
    Days,
    EndUserSpent,
    Movement,
    Movements,
    OrderFilter,
    OrderPlace,
    Sums,
    TotalsFilter,
    moved_nanos,
)
from farebox.core.books import (
    LAST_US,
    Activity,
    Attributed,
    AttributedKey,
    Balance,
    ChargedFare,
    Command,
    DayKey,
    DayTotal,
    First,
    HoldRow,
    HoldState,
    KeptAnswer,
    KeyUse,
    NotEnded,
    Outcome,
    PlaceHold,
    Seen,
    Sought,
    Transfer,
    Undelivered,
    activity_of,
    all_owners_of,
    settlement_id,
)
from farebox.core.caching import CachedRow
from farebox.core.callers import PLAIN_TERMS, Account, Key, KeyTerms, ManagementKey, PublishedPlans, made_under
from farebox.core.charges import Charge
from farebox.core.health import Standing
from farebox.core.keys import PREFIX
from farebox.core.ledger import Page
from farebox.core.money import add_exact
from farebox.core.presets import PRESETS_MAX, VERSIONS_MAX, PresetVersion, next_version
from farebox.core.pricing import KeptPrices
from farebox.core.questions import FURTHEST_US
from farebox.core.repeats import LOST_US, REPEAT_LIFE_US, Kept, first_of, seen_ended
from farebox.core.stored import StoredRow
from farebox.core.tariffs import KeptTariffs
from farebox.core.trail import Change, Entry, Told, TrailFilter, TrailHead
from farebox.ports import KeyTaken, NameTaken, TooManyPresets

T = TypeVar("T")
Owner = TypeVar("Owner", Account, Key)


class MemoryStore:
    """Ledger, Directory and Books in memory: the same rules, nothing durable."""

    def __init__(self, worker: str = "memory") -> None:
        self._worker = worker
        self._living = {worker}
        self._accounts: dict[int, Account] = {}
        self._keys: dict[int, Key] = {}
        self._balances: dict[int, Balance] = {}
        self._holds: dict[str, HoldRow] = {}
        self._transfers: dict[str, Transfer] = {}
        self._uses: dict[tuple[int, bytes], KeyUse] = {}
        self._answers: dict[str, KeptAnswer] = {}
        self._undelivered: dict[str, Undelivered] = {}
        self._given: set[str] = set()
        self._charged: list[ChargedFare] = []
        self._totals: dict[DayKey, DayTotal] = {}
        self._attributed: dict[AttributedKey, DayTotal] = {}
        self._secrets: dict[str, bytes] = {}
        self._revision = 1
        self._allowances: dict[str, Allowance] = {}
        self._management_keys: dict[int, ManagementKey] = {}
        self._plans: list[PublishedPlans] = []
        self._prices: dict[str, KeptPrices] = {}
        self._price_claims: dict[str, int] = {}
        self._tariffs: dict[str, KeptTariffs] = {}
        self._standings: dict[tuple[str, str], Standing] = {}
        self._cached: dict[bytes, CachedRow] = {}
        self._stored: dict[tuple[int, str], StoredRow] = {}
        self._presets: dict[int, dict[str, list[PresetVersion]]] = {}
        self._trail: list[Entry] = []

    @property
    def worker(self) -> str:
        return self._worker

    async def carry_out(self, command: Command) -> Outcome:
        if isinstance(command, PlaceHold) and command.end_user is not None:
            owner = end_user_owner(command.account_id, command.end_user)
            if owner not in self._allowances and end_user_owner(command.account_id, None) in self._allowances:
                now_us = command.created_us
                self._allowances[owner] = self._count_end_user(command.account_id, command.end_user, NO_LIMITS, now_us)
        page = Page(
            self._balances,
            self._holds,
            self._allowances,
            self._transfers,
            self._uses.values(),
            alike=list(self._holds),
            answered=self._undelivered,
        )
        outcome = page.decide(command, self._worker)
        self._uses.update({(use.account_id, use.key_digest): use for use in page.new_uses})
        self._answers.update({answer.hold_id: answer for answer in page.kept_answers})
        for kept in page.undelivered:
            if kept.body is not None or kept.hold_id not in self._undelivered:
                self._undelivered[kept.hold_id] = kept
        self._charged += page.charged_fares
        for row in page.stored:
            if row.background:
                await self.end_stored(row)
            else:
                await self.keep_stored(row)
        for key, total in page.totals.items():
            self._totals.setdefault(key, DayTotal(key)).add(total)
        for at_us, by, change in page.entered:
            self._trail.append(Entry(len(self._trail) + 1, at_us, by, change))
        for finer, total in page.attributed.items():
            self._attributed.setdefault(finer, DayTotal(finer[0])).add(total)
        return outcome

    def _note(self, change: Change | None) -> None:
        if change is not None:
            self._trail.append(Entry(len(self._trail) + 1, clock.now_us(), acting.by(), change))

    async def entries(self, wanted: TrailFilter, before: int, most: int) -> list[Told]:
        told = [self._told(each) for each in reversed(self._trail) if each.id < before]
        return [each for each in told if wanted.takes(each.entry, each.manager_account_id)][:most]

    def _told(self, entry: Entry) -> Told:
        account, key = self._accounts.get(entry.change.account_id or 0), self._keys.get(entry.change.key_id or 0)
        manager = self._management_keys.get(entry.by.manager_id or 0)
        return Told(
            entry,
            account.name if account else None,
            key.label if key else None,
            key.hint if key else None,
            key.digest if key else None,
            manager.account_id if manager else None,
        )

    async def answer(self) -> None:
        """Memory always answers."""

    async def claim_questions(self, now_us: int, until_us: int, most: int) -> list[HoldRow]:
        asked = [hold for hold in self._holds.values() if hold.state == "open" and hold.ask_us is not None]
        due = [h for h in asked if not now_us < (h.ask_us or 0) <= now_us + FURTHEST_US]
        claimed = [replace(hold, ask_us=until_us) for hold in sorted(due, key=lambda hold: hold.ask_us or 0)[:most]]
        self._holds.update({hold.id: hold for hold in claimed})
        return claimed

    async def kept_answer(self, hold_id: str) -> KeptAnswer | None:
        return self._answers.get(hold_id)

    async def key_use(self, account_id: int, key_digest: bytes) -> KeyUse | None:
        return self._uses.get((account_id, key_digest))

    async def find_first(self, sought: Sought) -> Seen:
        def is_same(order: HoldRow | Undelivered) -> bool:
            name = (order.key_id, order.order_digest)
            return name == (sought.key_id, sought.order_digest) and order.created_us > sought.now_us - REPEAT_LIFE_US

        kept = [
            Kept(u.hold_id, u.body is not None, u.hold_id in self._given)
            for u in self._undelivered.values()
            if is_same(u)
        ]
        same = sorted(filter(is_same, self._holds.values()), key=lambda hold: hold.created_us)
        not_ended = [hold for hold in same if hold.ended_us is None]
        found = first_of(kept[::-1], not_ended, self._is_gone, is_marked=sought.is_marked)
        if found is None:
            posted = [h for h in same if h.state == "posted" and (h.ended_us or 0) > sought.now_us - LOST_US]
            ended = [(hold.id, hold.worker) for hold in (*posted, *not_ended)]
            return seen_ended(ended, self._worker, self._is_gone) if sought.is_marked else Seen()
        if found.marked is not None:
            self._holds[found.hold_id] = replace(self._holds[found.hold_id], delivery=found.marked)
        return Seen(found.hold_id)

    def _is_gone(self, worker: str) -> bool:
        return worker not in self._living

    async def first(self, hold_id: str) -> First:
        kept = self._undelivered.get(hold_id)
        return First(self._holds[hold_id], None if kept is None else kept.body)

    async def mark_lost(self, hold_id: str) -> None:
        if (hold := self._holds[hold_id]).state == "pending" and hold.delivery is None:
            self._holds[hold_id] = replace(hold, delivery="lost")

    async def give_undelivered(self, hold_id: str, now_us: int) -> None:
        self._given.add(hold_id)

    async def forget_undelivered(self, before_us: int) -> None:
        for kept in list(self._undelivered.values()):
            if kept.created_us < before_us:
                del self._undelivered[kept.hold_id]

    async def forget_answers(self, before_us: int) -> None:
        for key, use in list(self._uses.items()):
            if use.created_us < before_us:
                del self._uses[key]
                self._answers.pop(use.hold_id, None)

    async def balance(self, account_id: int) -> Balance:
        return self._balances[account_id]

    async def open_orphans(self) -> list[HoldRow]:
        orphans = [h for h in self._holds.values() if h.state == "pending" and self._is_gone(h.worker)]
        why = "the process that served it has gone"
        opened = [
            replace(h, state="open", reason=why, ask_us=0 if h.generation_id else None, delivery="lost")
            for h in orphans
        ]
        self._holds.update({hold.id: hold for hold in opened})
        for owner in (owner for hold in opened for owner in all_owners_of(hold)):
            if owner in self._allowances:
                self._allowances[owner] = self._allowances[owner].left_open()
        return opened

    def beside(self, worker: str) -> Self:
        """The same books, as another process has them."""
        other = copy(self)
        other._worker = worker
        self._living.add(worker)
        return other

    def die(self) -> None:
        """The process ends."""
        self._living.discard(self._worker)

    async def create_account(
        self, name: str, plan: str, limit_nanos: int | None, created_us: int, limits: Limits = NO_LIMITS
    ) -> Account:
        if any(account.name == name for account in self._accounts.values()):
            raise NameTaken(name)
        account = Account(len(self._accounts) + 2, name, plan, created_us)
        self._accounts[account.id] = account
        self._balances[account.id] = Balance(account.id, 0, 0, 0, limit_nanos)
        self._revision += 1
        self._note(changes.account_opened(account, limit_nanos))
        return await self._limit(account, replace(account, limits=limits), created_us)

    async def change_account(self, account_id: int, change: Callable[[Account], Account], now_us: int) -> Account:
        before = self._limited(self._accounts[account_id])
        after = change(before)
        if any(other.name == after.name and other.id != account_id for other in self._accounts.values()):
            raise NameTaken(after.name)
        self._note(changes.account_changed(before, after))
        self._accounts[account_id] = replace(after, limits=NO_LIMITS)
        self._revision += 1
        return await self._limit(before, after, now_us)

    async def accounts(self) -> list[Account]:
        return list(map(self._limited, self._accounts.values()))

    async def find_account(self, name: str) -> Account | None:
        return next((account for account in await self.accounts() if account.name == name), None)

    def _limited(self, of: Owner) -> Owner:
        """An account or a key, with its limits."""
        allowance = self._allowances.get(owner_of("account" if isinstance(of, Account) else "key", of.id))
        return of if allowance is None else replace(of, limits=allowance.limits)

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
        if check is not None:
            check(self._limited(self._accounts[account_id]))
        if any(key.digest == digest for key in self._keys.values()):
            raise KeyTaken(hint)
        bare = Key(len(self._keys) + 1, account_id, label, digest, hint, created_us)
        key = made_under(terms, bare)
        self._write_key(key)
        self._note(changes.key_made(key, is_imported=terms.is_imported))
        return await self._limit(bare, key, created_us)

    async def keys(self, account_id: int) -> list[Key]:
        return [self._limited(key) for key in self._keys.values() if key.account_id == account_id]

    async def find_key(self, digest: bytes) -> tuple[Account, Key] | None:
        key = next((key for key in self._keys.values() if digest in (key.digest, key.old_digest)), None)
        return None if key is None else (self._limited(self._accounts[key.account_id]), self._limited(key))

    async def change_key(self, key_id: int, change: Callable[[Key], Key], now_us: int) -> Key:
        before = self._limited(self._keys[key_id])
        after = await self._limit(before, change(before), now_us)
        self._note(changes.key_changed(before, after))
        self._write_key(after)
        return after

    async def rotate_key(self, key_id: int, change: Callable[[Key], Key]) -> Key:
        before = self._limited(self._keys[key_id])
        after = change(before)
        self._note(changes.key_rotated(before, after))
        self._write_key(after)
        return after

    def _write_key(self, key: Key) -> None:
        self._keys[key.id] = replace(key, limits=NO_LIMITS)
        self._revision += 1

    async def has_foreign_keys(self) -> bool:
        return any(not key.hint.startswith(PREFIX) or key.old_digest for key in self._keys.values())

    async def allowance(self, owner: str) -> Allowance | None:
        return self._allowances.get(owner)

    async def _limit(self, before: Owner, after: Owner, now_us: int) -> Owner:
        """Set the limits of an account or a key, where `after` has others, or the same again."""
        limits = after.limits
        if limits is before.limits:
            return after
        if isinstance(after, Account):
            account_id, key_id, owner = after.id, None, owner_of("account", after.id)
        else:
            account_id, key_id, owner = after.account_id, after.id, owner_of("key", after.id)
        self._revision += 1
        self._note(changes.limits_set(account_id, key_id, before.limits, limits))
        old = self._allowances.pop(owner, None)
        if limits == NO_LIMITS:
            return after
        own = [h for h in self._holds.values() if h.account_id == account_id and key_id in (None, h.key_id)]
        self._allowances[owner] = Allowance(
            owner,
            account_id,
            limits,
            pending_nanos=sum(hold.amount_nanos for hold in own if hold.ended_us is None),
            counted_us=now_us,
            at_once=sum(hold.state == "pending" for hold in own),
            minute=old.minute if old else (),
            **{
                f"{each}_nanos": await self.spent_nanos(account_id, key_id, began_us(each, now_us) // DAY_US)
                for each in PERIODS
            },
        )
        return after

    async def limit_end_user(
        self, account_id: int, end_user: str | None, change: Callable[[Limits], Limits], now_us: int
    ) -> Limits:
        owner = end_user_owner(account_id, end_user)
        before = self._allowances.get(owner)
        own = before.limits if before else NO_LIMITS
        limits = change(own)
        self._allowances.pop(owner, None)
        self._note(changes.end_user_limited(account_id, end_user, own, limits))
        if end_user is None:
            if limits != NO_LIMITS:
                self._allowances[owner] = Allowance(owner, account_id, limits, counted_us=now_us)
            for name, each in list(self._allowances.items()):
                if name.startswith(f"end_user {account_id} ") and each.limits == limits == NO_LIMITS:
                    del self._allowances[name]
        elif limits != NO_LIMITS or end_user_owner(account_id, None) in self._allowances:
            self._allowances[owner] = self._count_end_user(account_id, end_user, limits, now_us)
        return limits

    def _count_end_user(self, account_id: int, end_user: str, limits: Limits, now_us: int) -> Allowance:
        own = [h for h in self._holds.values() if (h.account_id, h.end_user) == (account_id, end_user)]
        totals = [
            total for (key, named, _), total in self._attributed.items() if (key[0], named) == (account_id, end_user)
        ]
        spent = {
            f"{each}_nanos": sum(t.fares_nanos for t in totals if t.key[1] >= began_us(each, now_us) // DAY_US)
            for each in PERIODS
        }
        return replace(
            Allowance(end_user_owner(account_id, end_user), account_id, limits),
            pending_nanos=sum(hold.amount_nanos for hold in own if hold.ended_us is None),
            counted_us=now_us,
            at_once=sum(hold.state == "pending" for hold in own),
            **spent,
        )

    async def allowances_of(self, owners: Sequence[str]) -> list[Allowance]:
        return [self._allowances[owner] for owner in owners if owner in self._allowances]

    async def limited_end_users(self, account_id: int, after: str, most: int) -> list[Allowance]:
        prefix = f"end_user {account_id} "
        own = [each for name, each in sorted(self._allowances.items()) if name.startswith(prefix) and name > after]
        return [each for each in own if each.limits != NO_LIMITS][:most]

    async def end_users(self, account_id: int, first_day: int, after: str, most: int) -> list[EndUserSpent]:
        wanted = TotalsFilter(first_day, LAST_US, ("end_user",))
        found = await self.attributed_totals(account_id, wanted, LAST_US)
        named = sorted((each.end_user, each.total) for each in found if each.end_user > after)
        return [EndUserSpent(name, t.orders, t.fares_nanos, t.latest_us) for name, t in named][:most]

    async def end_user(self, account_id: int, first_day: int, end_user: str) -> EndUserSpent:
        found = await self.end_users(account_id, first_day, "", LAST_US)
        return next((each for each in found if each.end_user == end_user), EndUserSpent(end_user, 0, 0, 0))

    async def secret(self, name: str) -> bytes:
        return self._secrets.setdefault(name, token_bytes(32))

    async def create_management_key(
        self, label: str, digest: bytes, hint: str, account_id: int | None, created_us: int
    ) -> ManagementKey:
        key = ManagementKey(len(self._management_keys) + 1, label, digest, hint, account_id, created_us)
        self._management_keys[key.id] = key
        self._note(changes.management_key_made(key))
        return key

    async def management_keys(self) -> list[ManagementKey]:
        return list(self._management_keys.values())

    async def find_management_key(self, digest: bytes) -> ManagementKey | None:
        return next((key for key in self._management_keys.values() if key.digest == digest), None)

    async def revoke_management_key(self, key_id: int, revoked_us: int) -> None:
        if self._management_keys[key_id].revoked_us is None:
            key = self._management_keys[key_id] = replace(self._management_keys[key_id], revoked_us=revoked_us)
            self._note(changes.management_key_revoked(key_id, key.account_id, revoked_us))

    async def published_plans(self) -> PublishedPlans | None:
        return self._plans[-1] if self._plans else None

    async def publish_plans(self, published: PublishedPlans) -> None:
        self._note(changes.plans_published(self._plans[-1] if self._plans else None, published))
        self._plans.append(published)
        self._revision += 1

    async def revision(self) -> int:
        return self._revision

    async def kept_prices(self, source: str, after_us: int) -> KeptPrices | None:
        kept = self._prices.get(source)
        return kept if kept is not None and kept.read_us > after_us else None

    async def claim_prices(self, source: str, now_us: int, until_us: int) -> bool:
        if now_us < self._price_claims.get(source, 0) <= until_us:
            return False
        self._price_claims[source] = until_us
        return True

    async def keep_prices(self, source: str, kept: KeptPrices) -> None:
        self._prices[source] = kept
        self._price_claims[source] = 0

    async def keep_tariffs(self, kept: KeptTariffs) -> None:
        self._tariffs.setdefault(kept.version, kept)

    async def save_preset(
        self, account_id: int, slug: str, system_prompt: str | None, config: str, now_us: int
    ) -> PresetVersion:
        every = self._presets.setdefault(account_id, {})
        if slug not in every and len(every) >= PRESETS_MAX:
            raise TooManyPresets
        versions = every.setdefault(slug, [])
        latest = versions[-1] if versions else None
        versions.append(next_version(latest, account_id, slug, system_prompt, config, now_us))
        del versions[:-VERSIONS_MAX]
        saved = versions[-1].version
        self._note(changes.preset_saved(account_id, slug, None if latest is None else latest.version, saved))
        return versions[-1]

    async def preset(self, account_id: int, slug: str, version: int | None = None) -> PresetVersion | None:
        every = await self.preset_versions(account_id, slug)
        return next((each for each in reversed(every) if version in (None, each.version)), None)

    async def presets(self, account_id: int) -> list[PresetVersion]:
        latest = [each[-1] for each in self._presets.get(account_id, {}).values()]
        return sorted(latest, key=lambda each: (-each.created_us, each.slug))

    async def preset_versions(self, account_id: int, slug: str) -> list[PresetVersion]:
        return list(self._presets.get(account_id, {}).get(slug, []))

    async def drop_preset(self, account_id: int, slug: str) -> bool:
        versions = self._presets.get(account_id, {}).pop(slug, None)
        if versions is not None:
            self._note(changes.preset_saved(account_id, slug, versions[-1].version, None))
        return versions is not None

    async def cached_answer(self, digest: bytes, now_us: int) -> CachedRow | None:
        row = self._cached.get(digest)
        return row if row is not None and row.until_us > now_us else None

    async def keep_cached(self, row: CachedRow) -> None:
        self._cached[row.digest] = row

    async def sweep_cached(self, now_us: int, bytes_max: int) -> tuple[int, int]:
        good = sorted((each for each in self._cached.values() if each.until_us > now_us), key=lambda each: each.kept_us)
        while sum(len(each.body) for each in good) > bytes_max:
            del good[0]
        self._cached = {each.digest: each for each in good}
        return len(good), sum(len(each.body) for each in good)

    async def stored(self, account_id: int, response_id: str, now_us: int) -> StoredRow | None:
        row = self._stored.get((account_id, response_id))
        return row if row is not None and row.until_us > now_us else None

    async def stored_chain(self, account_id: int, response_id: str, now_us: int, most: int) -> list[StoredRow]:
        chain: list[StoredRow] = []
        name: str | None = response_id
        while name is not None and len(chain) <= most:
            row = await self.stored(account_id, name, now_us)
            if row is None:
                break
            chain.append(replace(row, events=None))
            name = row.previous_id
        return chain

    async def keep_stored(self, row: StoredRow) -> None:
        self._stored[row.account_id, row.id] = row

    async def begin_stored(self, row: StoredRow) -> bool:
        return self._stored.setdefault((row.account_id, row.id), row) is row

    async def end_stored(self, row: StoredRow) -> bool:
        before = self._stored.get((row.account_id, row.id))
        if before is None or not before.is_running:
            return False
        self._stored[row.account_id, row.id] = replace(
            before,
            status=row.status,
            until_us=row.until_us,
            answer=row.answer,
            generation_id=row.generation_id,
            events=row.events,
        )
        return True

    async def go_on_stored(self, account_id: int, response_ids: Sequence[str], until_us: int) -> None:
        for name in response_ids:
            row = self._stored.get((account_id, name))
            if row is not None and row.until_us < until_us:
                self._stored[account_id, name] = replace(row, until_us=until_us)

    async def delete_stored(self, account_id: int, response_id: str, now_us: int) -> bool:
        if await self.stored(account_id, response_id, now_us) is None:
            return False
        del self._stored[account_id, response_id]
        return True

    async def measure_stored(self, account_id: int) -> int:
        return sum(row.size for row in self._stored.values() if row.account_id == account_id)

    async def sweep_stored(self, now_us: int) -> None:
        for name in [name for name, row in self._stored.items() if row.until_us <= now_us]:
            del self._stored[name]

    async def stored_orphans(self) -> list[StoredRow]:
        running = [row for row in self._stored.values() if row.is_running]
        return [row for row in running if row.worker is not None and self._is_gone(row.worker)]

    async def stored_running(self) -> list[tuple[int, str]]:
        return [name for name, row in self._stored.items() if row.is_running and row.worker == self._worker]

    async def standings(self) -> list[Standing]:
        return list(self._standings.values())

    async def put_standing(self, standing: Standing) -> None:
        name = (standing.upstream, standing.model)
        if name not in self._standings or self._standings[name].changed_us < standing.changed_us:
            self._standings[name] = standing

    async def forget_standings(self, before_us: int) -> None:
        self._standings = {name: each for name, each in self._standings.items() if each.changed_us >= before_us}

    async def wait_for_change(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def transfers(self, account_id: int, since_us: int = 0, until_us: int = LAST_US) -> list[Transfer]:
        own = [t for t in self._transfers.values() if account_id in (t.debit_account, t.credit_account)]
        own = [t for t in own if t.kind != "hold" or self._holds[t.id].ended_us is None]
        within = [transfer for transfer in own if since_us <= transfer.created_us < until_us]
        return sorted(within, key=lambda transfer: (transfer.created_us, transfer.id))

    async def orders(self, hold_ids: Sequence[str]) -> list[HoldRow]:
        return [self._holds[each] for each in hold_ids if each in self._holds]

    async def hold(self, hold_id: str) -> HoldRow | None:
        return self._holds.get(hold_id)

    async def transfers_of(self, ids: Sequence[str]) -> list[Transfer]:
        return [self._transfers[each] for each in sorted(ids) if each in self._transfers]

    async def holds(self, states: tuple[HoldState, ...]) -> list[HoldRow]:
        return sorted((hold for hold in self._holds.values() if hold.state in states), key=lambda hold: hold.id)

    async def not_ended(self) -> NotEnded:
        states = [hold.state for hold in self._holds.values()]
        unresolved = sum(hold.is_unresolved for hold in self._holds.values())
        jobs = sum(h.state == "open" and h.job_id is not None and not h.is_unresolved for h in self._holds.values())
        return NotEnded(states.count("pending"), states.count("open") - unresolved - jobs, unresolved, jobs)

    async def untold_since_us(self) -> int | None:
        untold = [self._transfers[fare.transfer_id].created_us for fare in self._charged if fare.charge_id is None]
        return min(untold, default=None)

    async def generation(self, account_id: int, generation_id: str) -> tuple[HoldRow, Transfer | None] | None:
        own = [h for h in self._holds.values() if (h.account_id, h.generation_id) == (account_id, generation_id)]
        hold = max(own, key=lambda hold: hold.id, default=None)
        return None if hold is None else (hold, self._transfers.get(settlement_id(hold.id)))

    async def job(self, account_id: int, job_id: str) -> tuple[HoldRow, Transfer | None] | None:
        own = [h for h in self._holds.values() if (h.account_id, h.job_id) == (account_id, job_id)]
        hold = max(own, key=lambda hold: hold.id, default=None)
        return None if hold is None else (hold, self._transfers.get(settlement_id(hold.id)))

    async def spent_nanos(self, account_id: int, key_id: int | None, first_day: int) -> int:
        wanted = TotalsFilter(first_day, LAST_US, key_id=key_id)
        return sum(total.fares_nanos for total in await self.totals(account_id, wanted, 1))

    async def spent_by_key(self, account_id: int, first_day: int) -> dict[int, tuple[int, int]]:
        by_key = await self.totals(account_id, TotalsFilter(first_day, LAST_US, ("key",)), LAST_US)
        return {total.key[2]: (total.fares_nanos, total.latest_us) for total in by_key}

    async def given_back_nanos(self, account_id: int) -> int:
        own = (each for each in self._transfers.values() if each.credit_account == account_id and each.is_correction)
        return sum(each.amount_nanos for each in own)

    async def activity(
        self, account_id: int | None, key_id: int | None, first_day: int, last_day: int
    ) -> list[Activity]:
        wanted = TotalsFilter(first_day, last_day, ("day", "model", "served_model"), key_id)
        return [activity_of(total) for total in await self.totals(account_id, wanted, LAST_US)]

    async def order_page(
        self, account_id: int | None, wanted: OrderFilter, after: OrderPlace, most: int
    ) -> tuple[list[BookedOrder], OrderPlace | None]:
        start = (not after.has_ended, after.ended_us, after.id)
        places: list[tuple[tuple[bool, int, str], BookedOrder]] = []
        for hold in self._holds.values():
            order = BookedOrder(hold, self._transfers.get(settlement_id(hold.id)))
            place = OrderPlace(after.as_of_us).behind(order)
            at_us = place.ended_us if place.has_ended else hold.created_us
            is_in_time = wanted.since_us <= at_us < wanted.until_us and hold.created_us < after.as_of_us
            at = (not place.has_ended, place.ended_us, place.id)
            if is_in_time and account_id in (None, hold.account_id) and wanted.takes(hold) and at < start:
                places.append((at, order))
        found = [order for _, order in sorted(places, key=lambda each: each[0], reverse=True)]
        more = len(found) > most
        return found[:most], OrderPlace(after.as_of_us).behind(found[most - 1]) if more else None

    async def movements(self, account_id: int, since_us: int, until_us: int, after: Movement, most: int) -> Movements:
        own = [t for t in await self.transfers(account_id) if t.kind != "hold"]
        opening = sum(moved_nanos(t, account_id) for t in own if t.created_us < since_us)
        within = [t for t in own if since_us <= t.created_us < until_us]
        sums = Sums()
        for transfer in within:
            if (fare := transfer.fare) is not None:
                sums.orders += 1
                sums.events += fare.events
                sums.fares_nanos += fare.nanos
                sums.cost = add_exact(sums.cost, fare.cost)
            else:
                sums.take(transfer, account_id)
        page = [t for t in within if (t.created_us, t.id) > (after.at_us, after.id)][:most]
        orders = {t.hold_id: self._holds[t.hold_id] for t in page if t.hold_id is not None}
        before = opening if after.balance_nanos is None else after.balance_nanos
        return Movements(page, orders, before, opening, sums)

    async def corrections(self, account_id: int, since_us: int, until_us: int) -> list[Transfer]:
        return [each for each in await self.transfers(account_id, since_us, until_us) if each.is_correction]

    async def totals(self, account_id: int | None, wanted: TotalsFilter, most: int) -> list[DayTotal]:
        groups: dict[DayKey, DayTotal] = {}
        for total in self._totals.values():
            if account_id in (None, total.key[0]) and wanted.takes(total):
                key = wanted.group_of(total)
                groups.setdefault(key, DayTotal(key)).add(total)
        return sorted(groups.values(), key=lambda total: (-total.key[1], *total.key))[:most]

    async def attributed_totals(self, account_id: int | None, wanted: TotalsFilter, most: int) -> list[Attributed]:
        groups: dict[AttributedKey, DayTotal] = {}
        for (key, end_user, tags), total in self._attributed.items():
            each = Attributed(end_user, tags, total)
            if account_id in (None, key[0]) and wanted.takes_attributed(each):
                name = wanted.attributed_group(each)
                groups.setdefault(name, DayTotal(name[0])).add(total)
        found = [Attributed(end_user, value, total) for (_, end_user, value), total in groups.items()]
        if wanted.end_user is None and wanted.tag is None:
            found = wanted.with_the_rest(found, await self.totals(account_id, wanted, LAST_US))
        return found[:most]

    async def days(self, account_id: int, wanted: TotalsFilter, most: int) -> Days:
        since_us, until_us = wanted.first_day * DAY_US, (wanted.last_day + 1) * DAY_US
        found = await self.movements(account_id, since_us, until_us, Movement(), len(self._transfers))
        moved = [t for t in found.transfers if not t.is_fare and moved_nanos(t, account_id)]
        orders = {t.hold_id: self._holds[t.hold_id] for t in moved if t.hold_id is not None}
        return Days(found.opening_nanos, moved, orders, await self.totals(account_id, wanted, most))

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        yield _Rows(self)


class _Rows:
    """All rows of a store in memory, as they are when this is made; those that have ids, by their ids."""

    def __init__(self, store: MemoryStore) -> None:
        self.transfers = _all([row for _, row in sorted(store._transfers.items())])
        self.holds = _all([row for _, row in sorted(store._holds.items())])
        self.balances = _all([row for _, row in sorted(store._balances.items())])
        self.charged_fares = _all(list(store._charged))
        self.charges = _all(list[Charge]())
        self.allowances = _all(list(store._allowances.values()))
        self.tariffs = _all(list(store._tariffs.values()))
        self.day_totals = _all(list(store._totals.values()))
        self.entries = _all(list(store._trail))
        self.trail_head = lambda: TrailHead(len(store._trail), 0)
        self.attributed_totals = _all([Attributed(name, tags, t) for (_, name, tags), t in store._attributed.items()])
        self.corrections = _all([row for _, row in sorted(store._transfers.items()) if row.is_correction])


def _all(rows: list[T]) -> Callable[[], Iterator[T]]:
    return lambda: iter(rows)
