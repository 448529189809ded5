"""The composition root: makes adapters from settings, use cases from adapters, and an ASGI app from use cases."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from farebox.accounts import Accounts
from farebox.admission import Admission
from farebox.alerting import LOOKS_UNSEEN, Alerting
from farebox.alerts import Alerts
from farebox.answer_cache import AnswerCache
from farebox.answers import Streaming, forget_old_answers
from farebox.background import Supervisor, Task
from farebox.background_responses import BackgroundResponses
from farebox.bills import Bills
from farebox.bookkeeping import Bookkeeping
from farebox.catalog import Catalog, SharedPrices
from farebox.console.entrance import Entrance
from farebox.core.attribution import Attribution
from farebox.core.declared import Declared, prices_source
from farebox.core.formats.table import FORMATS, Formats
from farebox.deadlines import Deadlines
from farebox.denials import Denials
from farebox.end_users import EndUsers
from farebox.exchange import Charges, Exchange
from farebox.from_settings import (
    attribution_of,
    check_price_file,
    check_ways_out,
    declared_upstreams,
    guards_of,
    openrouters_lists,
    upstream_of,
)
from farebox.generations import Generations
from farebox.guards.running import Guards
from farebox.http.asgi import Endpoint
from farebox.http.bodies import BodyReader
from farebox.http.calls import DIRECT, SOCKETS
from farebox.identity.keys import KeyCallers, Managers, PlansInForce
from farebox.jobs import Jobs
from farebox.joining import Joining
from farebox.late_settlements import LateSettlements
from farebox.own_endpoints import OwnEndpoints
from farebox.platform.calls import RunApi
from farebox.platform.priced_events import PricedEvents
from farebox.platform.runs import Runner
from farebox.platform.store import SqlRuns
from farebox.ports import Callers, Upstreams
from farebox.presets import Presets
from farebox.price_lists import PriceLists
from farebox.reconcile import Reconciler
from farebox.reloading import Reloading
from farebox.routing import Routing
from farebox.settings import OPENROUTER_URL, Settings, load
from farebox.stopping import stopping_gracefully
from farebox.store.books import SqlStore
from farebox.store.prepare import is_postgres, open_store
from farebox.store.spool import Spool
from farebox.store.threads import Worker
from farebox.store.wal import WalKeeper
from farebox.stored_responses import StoredResponses, StoringTerms
from farebox.telemetry.logs import start as start_log
from farebox.telemetry.metrics import count_alert, count_task_failures
from farebox.telemetry.watch import Watch
from farebox.token_counts import TokenCounts
from farebox.trail import Trails
from farebox.troubles import Troubles
from farebox.upstream.running import RunningUpstreams
from farebox.upstream_health import Health
from farebox.web import routes
from farebox.web.access import Access
from farebox.web.alerts import AlertPages
from farebox.web.bills import BillPages
from farebox.web.changes import Changes
from farebox.web.end_users import EndUserPages
from farebox.web.jobs import JobPages
from farebox.web.management import Management
from farebox.web.mcp.endpoint import ActorTools, Agents
from farebox.web.own_address import OwnAddress
from farebox.web.presets import PresetPages
from farebox.web.relay import Relay
from farebox.web.stored import StoredPages
from farebox.webhooks import SafeWebhooks
from farebox.whole_orders import WholeOrders

COLLECT_AFTER = 20_000
"""New objects after which the garbage collector looks for reference cycles. Orders leave hardly any, and at Python's
default of 700 it would run every few orders."""

NOT_TAKEN_UP = "what farebox.toml says of upstreams now is not what holds"

FIRST_PRICES_SECONDS = 3
"""How long a start waits for the price list. After that it serves, goes on asking, and `/readyz` says so."""


def create() -> ASGIApp:
    """The app for a worker process that uvicorn starts; its settings are in the environment."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it is heard
    start_log()
    return App(load())


@dataclass(frozen=True, slots=True)
class Hosted:
    """What depends on the host: how callers are identified, how fares are charged outside, what `background` tasks run
    meanwhile, and whether the run API is served."""

    callers: Callers
    charges: Charges | None = None
    background: tuple[Task, ...] = ()
    has_run_api: bool = True


Host = Callable[[SqlStore, Upstreams, PlansInForce], AbstractAsyncContextManager[Hosted]]
"""Opens what the place where the gateway runs needs. Its block ends after the last order, with the books still open."""


@asynccontextmanager
async def stand_alone(store: SqlStore, _: Upstreams, plans: PlansInForce) -> AsyncIterator[Hosted]:
    """The host of a stand-alone gateway: callers have Farebox's keys, and nobody charges them outside."""
    callers = KeyCallers(store, plans)
    harm = "orders may be charged by plans that no longer hold"
    yield Hosted(callers, background=(Task("callers", callers.watch, harm),))


@dataclass(frozen=True, slots=True)
class _Ground:
    """What all else stands on: the books, the upstreams with what their orders cost, who may order, and what is noted
    of it."""

    settings: Settings
    store: SqlStore
    deadlines: Deadlines
    upstreams: RunningUpstreams
    plans: PlansInForce
    catalog: Catalog
    price_lists: PriceLists
    hosted: Hosted
    watch: Watch
    attribution: Attribution


@dataclass(frozen=True, slots=True)
class _Orders:
    """What an order goes through, and what is still to be done when it has ended."""

    exchange: Exchange
    admission: Admission
    joining: Joining
    late: LateSettlements
    reconciler: Reconciler
    health: Health
    cache: AnswerCache
    guards: Guards
    wal: WalKeeper
    stored: StoredResponses
    background: BackgroundResponses


@dataclass(frozen=True, slots=True)
class _Telling:
    """What is told to people of what goes wrong."""

    alerts: Alerts
    alerting: Alerting
    troubles: Troubles


@asynccontextmanager
async def running(
    settings: Settings, host: Host = stand_alone, formats: Formats = FORMATS, supervisor: Supervisor | None = None
) -> AsyncIterator[routes.Services]:
    """Everything that serves, for as long as the block runs. Owns the background tasks."""
    supervisor = supervisor or Supervisor(count_task_failures)
    async with AsyncExitStack() as stack:
        ground = await _ground(settings, host, stack)
        await ground.store.open_orphans()
        await _get_first_prices(ground.catalog, ground.price_lists)
        orders = _orders(ground)
        stack.push_async_callback(orders.background.close)
        telling = _telling(ground, supervisor)
        await stack.enter_async_context(supervisor.running(*_tasks(ground, orders, telling)))
        yield _services(ground, orders, telling, formats, supervisor, stack)


async def _ground(settings: Settings, host: Host, stack: AsyncExitStack) -> _Ground:
    """`stack` closes what it opens."""
    store = await stack.enter_async_context(open_store(settings.database_url))
    deadlines = Deadlines()
    upstreams = RunningUpstreams(
        declared_upstreams(settings), lambda each: upstream_of(each, settings, deadlines), settings.routing
    )
    stack.push_async_callback(upstreams.close)
    plans = PlansInForce(settings.every_plan)
    catalog = Catalog(
        upstreams,
        settings.prices_refresh_seconds,
        settings.prices_max_age_seconds,
        shared=_shared_prices(settings, store),
        assumed=settings.assumed,
    )
    price_lists = _price_lists(settings, store, upstreams, catalog)
    hosted = await stack.enter_async_context(host(store, upstreams, plans))
    watch = Watch(is_logged=settings.order_log, ca_file=settings.ca_file)
    stack.callback(watch.close)
    store.watch_commits(watch.metrics.committed)
    attribution = await attribution_of(settings, store)
    return _Ground(settings, store, deadlines, upstreams, plans, catalog, price_lists, hosted, watch, attribution)


def _orders(ground: _Ground) -> _Orders:
    settings, store, metrics = ground.settings, ground.store, ground.watch.metrics
    admission = Admission(settings.orders_max, settings.account_orders_max)
    late = LateSettlements(store, Spool(Path(settings.spool), store.worker))
    joining = Joining(store, admission, settings.join_repeats, settings.first_byte_seconds)
    health = Health(store, is_shared=settings.workers > 1 or is_postgres(settings.database_url))
    cache = AnswerCache(store, settings.cache_bytes_max, settings.cache_seconds_max, metrics.looked_up)
    guards = Guards(guards_of(settings), metrics.guarded)
    wal = WalKeeper(store.engine, settings.wal_warn_bytes)
    stored = StoredResponses(store, _storing_terms(settings))
    metrics.watch(lambda: admission.orders, lambda: store.queued, lambda: late.waiting, lambda: wal.size_bytes)
    metrics.watch_upstreams(health.left_alone)
    metrics.watch_cache(lambda: cache.bytes)
    reconciler = Reconciler(
        store,
        ground.upstreams,
        settings.reconcile_seconds,
        settled=metrics.reconciled,
        catch_up=joining.write_down,
        job_seconds=settings.job_seconds,
    )
    exchange = Exchange(
        callers=ground.hosted.callers,
        prices=ground.catalog,
        ledger=store,
        upstreams=ground.upstreams,
        routing=Routing(
            ground.upstreams.candidates,
            health,
            settings.routing,
            metrics.attempted,
            denials=Denials(metrics.denied),
        ),
        streaming=Streaming(
            ground.deadlines,
            drains_max=settings.drains_max,
            drain_seconds=settings.drain_seconds,
            no_event_seconds=settings.no_event_seconds,
        ),
        admission=admission,
        tariffs=ground.price_lists,
        cache=cache if settings.cache_bytes_max else None,
        presets=Presets(store),
        guards=guards if settings.guards else None,
        charges=ground.hosted.charges,
        late=late,
        joining=joining,
        telemetry=ground.watch,
        stored=stored,
        attribution=ground.attribution,
    )
    background = BackgroundResponses(
        exchange, stored, store, settings.background_orders_max, store.engine.renewed_within_seconds
    )
    exchange.background = background
    return _Orders(exchange, admission, joining, late, reconciler, health, cache, guards, wal, stored, background)


def _storing_terms(settings: Settings) -> StoringTerms:
    return StoringTerms(
        settings.stored_seconds,
        settings.stored_by_default,
        settings.stored_answer_bytes_max,
        settings.stored_account_bytes_max,
        settings.body_bytes_max,
    )


def _telling(ground: _Ground, supervisor: Supervisor) -> _Telling:
    settings, store, catalog = ground.settings, ground.store, ground.catalog
    webhooks = SafeWebhooks(settings.ca_file, may_be_private=settings.alerts_private)
    own_us = int(LOOKS_UNSEEN * settings.alerts_seconds * 1_000_000)
    troubles = Troubles(store, lambda: supervisor.not_running, lambda: (catalog.is_stale, catalog.trouble), own_us)
    return _Telling(
        Alerts(store, webhooks, may_be_private=settings.alerts_private),
        Alerting(store, troubles, webhooks, settings.alerts_seconds, count_alert),
        troubles,
    )


def _tasks(ground: _Ground, orders: _Orders, telling: _Telling) -> tuple[Task, ...]:
    """What runs beside orders, for as long as the server does."""
    reloading = Reloading(ground.upstreams, ground.catalog, ground.price_lists, _declared_anew)
    return (
        Task("prices", ground.catalog.keep_fresh),
        Task("lists", ground.catalog.keep_pages_fresh),
        Task("price_file", ground.price_lists.keep_fresh),
        Task("kept_answers", partial(forget_old_answers, ground.store)),
        Task("reconcile", orders.reconciler.run),
        Task("late_settlements", orders.late.run),
        Task("repeats", orders.joining.run, "a call that is sent again may be charged again"),
        Task("metrics", ground.watch.metrics.keep_fresh),
        Task("wal", orders.wal.run),
        Task("upstreams", reloading.run, NOT_TAKEN_UP),
        Task("upstream_health", orders.health.run),
        Task("answer_cache", orders.cache.run),
        Task("guards", orders.guards.run),
        Task("stored_responses", orders.stored.run),
        Task("background", orders.background.run),
        Task("alerts", telling.alerting.watch),
        Task("alert_deliveries", telling.alerting.deliver),
        *ground.hosted.background,
    )


def _services(
    ground: _Ground,
    orders: _Orders,
    telling: _Telling,
    formats: Formats,
    supervisor: Supervisor,
    stack: AsyncExitStack,
) -> routes.Services:
    """What the HTTP face serves. `stack` closes what it opens."""
    settings, store, callers = ground.settings, ground.store, ground.hosted.callers
    accounts = Accounts(store, ground.plans)
    rows = Bills(store, ground.attribution)
    bookkeeping = Bookkeeping(store, rows, settings.seller_name)
    bills = BillPages(rows, bookkeeping, Trails(store))
    bodies = BodyReader(settings.body_bytes_max, settings.body_seconds, ground.deadlines)
    own_address = OwnAddress(settings.public_url)
    whole_orders = WholeOrders(orders.exchange, callers, ground.catalog, store, formats)
    run_api, actor = None, None
    if ground.hosted.has_run_api:
        runs = SqlRuns(store.engine, store.worker)
        stack.push_async_callback(runs.close)
        shaping = Worker("farebox-items")
        stack.push_async_callback(shaping.close)
        url = (settings.public_url or "").rstrip("/")
        runner = Runner(runs, whole_orders, orders.admission, ground.plans, store.worker, url, supervisor)
        run_api = RunApi(callers, runs, runner, PricedEvents(runs, store), bodies, shaping)
        actor = ActorTools(runner, runs)
    agents = Agents(whole_orders, ground.catalog, accounts, supervisor, actor)
    stack.push_async_callback(agents.close)
    relay = Relay(
        orders.exchange,
        bodies,
        ground.deadlines,
        settings.silence_seconds,
        settings.stream_silence_seconds,
        own_address,
    )
    console = None
    if _has_console(ground):
        console = _console(ground, orders, accounts, bookkeeping, relay, whole_orders, telling, stack)
    return routes.Services(
        relay=relay,
        jobs=JobPages(callers, Jobs(store, store, ground.upstreams), orders.admission, own_address),
        admission=orders.admission,
        callers=callers,
        catalog=ground.catalog,
        own_endpoints=OwnEndpoints(ground.upstreams, orders.health),
        accounts=accounts,
        generations=Generations(store, ground.upstreams),
        books=store,
        metrics=ground.watch.metrics,
        supervisor=supervisor,
        agents=agents,
        bills=bills,
        management=Management(
            Managers(store),
            accounts,
            bodies,
            bills,
            Changes(accounts, store),
            EndUserPages(EndUsers(store, ground.attribution)),
            AlertPages(telling.alerts, accounts),
        ),
        stored=StoredPages(
            callers, orders.stored, orders.background, ground.deadlines, settings.stream_silence_seconds
        ),
        run_api=run_api,
        access=_access(settings),
        formats=formats,
        sockets=routes.Sockets(
            settings.body_bytes_max, settings.body_seconds, settings.socket_seconds, settings.socket_memory_bytes
        ),
        bodies=bodies,
        token_counts=TokenCounts(orders.exchange),
        presets=PresetPages(callers, store, bodies),
        console=console,
    )


def _has_console(ground: _Ground) -> bool:
    return ground.settings.console and ground.hosted.has_run_api


def _console(
    ground: _Ground,
    orders: _Orders,
    accounts: Accounts,
    bookkeeping: Bookkeeping,
    relay: Relay,
    whole_orders: WholeOrders,
    telling: _Telling,
    stack: AsyncExitStack,
) -> Entrance:
    """The pages for people; `stack` closes what they open when somebody comes."""

    def make() -> Endpoint:
        # Only here: a server to which nobody comes carries no templates.
        from farebox.console.house import House, Seller
        from farebox.console.reading import SqlConsole
        from farebox.console.sessions import Sessions
        from farebox.console.site import Site
        from farebox.telemetry.counts import read_counts

        store, settings = ground.store, ground.settings
        reading = SqlConsole(store.engine)
        stack.push_async_callback(reading.close)
        house = House(
            accounts=accounts,
            end_users=EndUsers(store, ground.attribution),
            books=store,
            ledger=store,
            reading=reading,
            sessions=Sessions(reading, ground.hosted.callers, Managers(store)),
            catalog=ground.catalog,
            upstreams=ground.upstreams,
            plans=ground.plans,
            alerts=telling.alerts,
            troubles=telling.troubles,
            bookkeeping=bookkeeping,
            seller=Seller(settings.seller_name, settings.seller_address, settings.seller_tax),
            bodies=relay.bodies,
            public_url=settings.public_url,
            relay=relay,
            whole_orders=whole_orders,
            counts=lambda: read_counts(ground.watch.metrics),
            is_stopping=lambda: orders.admission.is_closed,
        )
        return Site(house)

    return Entrance(make)


def _access(settings: Settings) -> Access:
    return Access(
        hosts=frozenset(host.lower().encode() for host in settings.allowed_hosts),
        origins=tuple(settings.allowed_origins),
        metrics_token=settings.metrics_token.reveal() or None if settings.metrics_token else None,
        address=settings.host,
        public_host=urlsplit(settings.public_url).hostname if settings.public_url else None,
    )


def _price_lists(settings: Settings, store: SqlStore, upstreams: RunningUpstreams, catalog: Catalog) -> PriceLists:
    """What orders cost at upstreams that do not say it; `catalog` follows."""
    lists = PriceLists(
        None if settings.prices_file is None else Path(settings.prices_file),
        store,
        openrouters_lists(settings),
        settings.prices_refresh_seconds,
        settings.prices_max_age_seconds,
        declared=upstreams.price_entries,
        changed=catalog.read_again,
    )
    upstreams.price_by(lambda: lists.current)
    return lists


def _shared_prices(settings: Settings, store: SqlStore) -> SharedPrices | None:
    """Where several processes share the price list; None for one alone."""
    if settings.workers == 1 and not is_postgres(settings.database_url):
        return None
    if settings.upstreams:
        return SharedPrices(store, prices_source(settings.declared))
    return SharedPrices(store, settings.upstream_url or ("simulator" if settings.is_simulated else OPENROUTER_URL))


def _declared_anew() -> list[Declared]:
    """The upstreams that the settings name now. Raises BadSettings."""
    settings = load()
    check_ways_out(settings)
    return declared_upstreams(settings)


async def _get_first_prices(catalog: Catalog, price_lists: PriceLists) -> None:
    """Raises BadPrices, BooksUnavailable: the price file cannot be in force."""
    await price_lists.refresh()
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_PRICES_SECONDS):
            await catalog.refresh()
            # Once more, now that the upstreams have said which models they have.
            await price_lists.refresh()


Around = Callable[[ASGIApp], ASGIApp]
"""Wraps the routes in what a host adds to them."""


class App:
    """The ASGI app. Its lifespan opens everything that serves; requests go to the routes. Raises BadSettings."""

    def __init__(
        self,
        settings: Settings,
        host: Host = stand_alone,
        around: Around | None = None,
        formats: Formats = FORMATS,
        supervisor: Supervisor | None = None,
    ) -> None:
        check_ways_out(settings)
        check_price_file(settings)
        guards_of(settings)
        self._settings = settings
        self._formats = formats
        self._host = host
        self._around = around
        self._supervisor = supervisor
        self._serve: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert self._serve is not None, "the lifespan has not started"
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        async with running(self._settings, self._host, self._formats, self._supervisor) as services:
            app = routes.app(services)
            self._serve = app if self._around is None else self._around(app)
            if self._around is None and self._settings.http == "direct":
                scope.setdefault("state", {})[DIRECT] = routes.find_order(services)
            if self._around is None and self._settings.socket_seconds and routes.RESPONSES in self._formats:
                scope.setdefault("state", {})[SOCKETS] = routes.find_talks(services)
            # What exists now stays: the garbage collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(COLLECT_AFTER)
            async with services.run_api.runner.going() if services.run_api else nullcontext():
                with stopping_gracefully(services.admission, self._settings.grace_seconds):
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
        await send({"type": "lifespan.shutdown.complete"})
