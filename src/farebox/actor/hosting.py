"""What an Actor's run puts around the gateway: its callers, its charging, and what must be saved before a move."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from secrets import token_hex

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from farebox.actor.callers import ApifyCallers, Policy, Terms
from farebox.actor.charging import ChargesRefused, Charging, take_over
from farebox.actor.client import ApifyApi
from farebox.actor.environment import ActorEnvironment
from farebox.actor.event_prices import OWN_PRICES
from farebox.actor.local_storage import ChargingLog, LocalStorage
from farebox.actor.outbox import SqlOutbox
from farebox.app import Hosted
from farebox.background import Task
from farebox.core.callers import User
from farebox.core.charges import Carried, read_carried, write_carried
from farebox.core.money import format_usd
from farebox.core.runs import Record
from farebox.from_settings import way_to
from farebox.identity.keys import PlansInForce
from farebox.ports import ApifyUnreachable, Biller, Upstreams
from farebox.reconcile import Reconciler
from farebox.settings import Settings
from farebox.store.books import SqlStore
from farebox.store.prepare import sqlite_path

log = logging.getLogger("farebox")

CARRIED_KEY = "FAREBOX-CHARGES"
"""The record of the run's key-value store with what another machine needs to go on charging."""

LAST_ASKS_SECONDS = 3.0
"""How long, at the end, the upstream is asked for the costs of orders whose answers did not say them."""

NAME_KEY = "FAREBOX-RUN"
"""The record with the name of a run on one's own machine."""

FLUSH_SECONDS = 6.0
"""How long fares are still charged at the end. Together with the grace of answers this stays within the 30 s that the
platform gives an idle run."""

_POLL_SECONDS = 0.1


class _Books(Struct):
    """A file beside the books: the run that they are of, and how many events were counted for it before they began."""

    run: str
    counted_before: int


class Hosting:
    """One run of the Actor. `apify` is None on one's own machine, `callers` until `host` has begun."""

    def __init__(self, environment: ActorEnvironment, settings: Settings) -> None:
        self.environment = environment
        self._settings = settings
        self._prices = environment.prices or OWN_PRICES
        self.apify = apify_of(environment, settings)
        self.storage: ApifyApi | LocalStorage = self.apify or LocalStorage(environment.storage)
        self.callers: ApifyCallers | None = None
        self.has_new_books = False
        """Whether this run's books begin here: it is new, or another machine had it before."""
        self.run_name = environment.run_id or ""
        """The platform's id of the run; on one's own machine a name that is kept with its storages."""
        self._outbox: SqlOutbox | None = None
        self._has_carried = False
        self._counted_before = 0

    async def aclose(self) -> None:
        if self.apify is not None:
            await self.apify.aclose()

    @asynccontextmanager
    async def host(self, store: SqlStore, upstreams: Upstreams, _: PlansInForce) -> AsyncIterator[Hosted]:
        """What serves with the gateway, for as long as the block runs. Raises ApifyUnreachable: what another machine
        left cannot be read."""
        await self._name_run()
        biller = self._biller()
        outbox = self._outbox = SqlOutbox(store.engine)
        try:
            carried = await self._left_behind()
            counted_before = self._counted_before = await self._find_counted(outbox, carried)
            counted = counted_before + await outbox.counted()
            terms = self._terms(counted, is_charged=biller is not None)
            self.callers = ApifyCallers(store, self.apify, terms)
            if not terms.is_shared:
                await self.callers.owner()
            await take_over(carried, store, outbox)
            if biller is None:
                log.warning("this run is not paid per event: nobody is charged for it")
                yield Hosted(self.callers, has_run_api=False)
                return
            charging = Charging(outbox, biller, counted_before)
            try:
                harm = "fares are not charged, and answers wait for that"
                task = Task("charging", charging.run, harm, fatal=(ChargesRefused,))
                yield Hosted(self.callers, charging, (task,), has_run_api=False)
            finally:
                try:
                    await self._ask_once_more(store, upstreams)
                    if not await charging.flush(FLUSH_SECONDS):
                        log.error("not all fares were charged before the end")
                except ChargesRefused as error:
                    log.critical("%s", error)
                finally:
                    await self.save()
        finally:
            self._outbox = None
            await outbox.close()

    async def save(self) -> None:
        """Leave at the platform what another machine needs to go on with."""
        if self._outbox is None or self.apify is None:
            return
        carried = await self._outbox.unfinished()
        carried = replace(carried, counted=carried.counted + self._counted_before)
        if not (carried.orders or carried.charges or self._has_carried):
            return
        try:
            await self.apify.put_record(Record(CARRIED_KEY, "application/json", write_carried(carried)))
        except ApifyUnreachable as error:
            log.error("what is not charged yet could not be left at the platform: %s", error)
        self._has_carried = True

    async def _name_run(self) -> None:
        """Name a run on one's own machine: it is the same run for as long as its storages are there."""
        if self.run_name:
            return
        name = await self.storage.record(NAME_KEY)
        if name is None:
            name = f"here-{token_hex(6)}".encode()
            await self.storage.put_record(Record(NAME_KEY, "text/plain", name))
        self.run_name = name.decode()

    def _biller(self) -> Biller | None:
        if self.apify is not None:
            return self.apify if self.environment.prices is not None else None
        if not self.environment.is_test:
            return None
        return ChargingLog(self.environment.storage, format_usd(self._prices.paying_nanos))

    def _terms(self, counted: int, *, is_charged: bool) -> Terms:
        """The run's terms. `counted` are the events charged for it so far: its limit is less by their price."""
        environment, prices = self.environment, self._prices
        paying, free = prices.plans
        is_paying = environment.user_is_paying or not environment.is_at_home
        # The price is of the platform's events, and ten of those may stand for one of ours.
        price_nanos = prices.paying_nanos if is_paying else prices.free_nanos // prices.free_times
        limit_nanos = environment.limit_nanos
        if limit_nanos is not None:
            limit_nanos = max(0, limit_nanos - counted * price_nanos)
        name, _, value = (self._settings.caller_header or "").partition(":")
        return Terms(
            account=f"run {self.run_name}",
            owner=User(environment.user_id, is_paying, is_of_run=True) if environment.user_id else None,
            owner_is_paying=is_paying,
            paying=paying,
            free=free,
            is_shared=self._settings.tenancy == "multi" and environment.is_standby,
            policy=Policy(self._settings.callers == "actors", name.strip().lower().encode(), value.strip().encode()),
            limit_nanos=limit_nanos,
            is_charged=is_charged,
            free_times=prices.free_times,
        )

    async def _left_behind(self) -> Carried:
        """What an earlier machine of this run left for this one."""
        record = await self.apify.record(CARRIED_KEY) if self.apify is not None else None
        if record is not None:
            self._has_carried = True
            try:
                return read_carried(record)
            except ValueError as error:
                log.error("%s", error)
        return Carried(0, [], [])

    async def _find_counted(self, outbox: SqlOutbox, carried: Carried) -> int:
        """How many events of this run the platform had counted when these books began."""
        books = sqlite_path(self._settings.database_url)
        beside = books.with_name(books.name + "-run")
        run = self.run_name
        if beside.exists():
            known = msgspec.json.decode(beside.read_bytes(), type=_Books)
            if known.run == run:
                return known.counted_before
        self.has_new_books = True
        # While a charge is in doubt, the count from when it was left behind is the right one to compare with.
        counted = carried.counted if carried.charges else max(carried.counted, self.environment.counted)
        known = _Books(run, counted - await outbox.counted())
        beside.write_bytes(msgspec.json.encode(known))
        return known.counted_before

    async def _ask_once_more(self, store: SqlStore, upstreams: Upstreams) -> None:
        """Ask for open holds' costs once more: the upstream knows most of them within a second of an answer's end."""
        reconciler = Reconciler(
            store, upstreams, self._settings.reconcile_seconds, job_seconds=self._settings.job_seconds
        )
        until = time.monotonic() + LAST_ASKS_SECONDS
        while time.monotonic() < until and (await store.not_ended()).open:
            await reconciler.round()
            await asyncio.sleep(_POLL_SECONDS)

    async def move(self) -> None:
        """Have the platform start this run on the other machine now, then wait to be stopped: a process that ends by
        itself would end the run."""
        assert self.apify is not None
        with suppress(ApifyUnreachable):  # it stops this machine in any case
            await self.apify.reboot()
        await asyncio.Event().wait()


def apify_of(environment: ActorEnvironment, settings: Settings) -> ApifyApi | None:
    """The platform's API. Raises BadSettings: the way to it is not named well."""
    if not environment.is_at_home:
        return None
    assert environment.token is not None
    assert environment.run_id is not None
    return ApifyApi(
        environment.api_url,
        environment.token,
        environment.run_id,
        environment.dataset_id,
        environment.store_id,
        way_to(environment.api_url, settings),
    )
