"""The composition root: makes adapters from settings, use cases from adapters, and an ASGI app from use cases."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from farebox.accounts import Accounts
from farebox.admission import Admission
from farebox.answer_cache import AnswerCache
from farebox.answers import Streaming, forget_old_answers
from farebox.background import Supervisor, Task
from farebox.catalog import Catalog, SharedPrices
from farebox.core.declared import Declared, prices_source
from farebox.core.formats.table import FORMATS, Formats
from farebox.deadlines import Deadlines
from farebox.exchange import Charges, Exchange
from farebox.from_settings import (
    check_price_file,
    check_ways_out,
    declared_upstreams,
    guards_of,
    openrouters_lists,
    upstream_of,
)
from farebox.generations import Generations
from farebox.guards.running import Guards
from farebox.http.bodies import BodyReader
from farebox.http.calls import DIRECT
from farebox.identity.keys import KeyCallers, Managers, PlansInForce
from farebox.joining import Joining
from farebox.late_settlements import LateSettlements
from farebox.own_endpoints import OwnEndpoints
from farebox.platform.calls import RunApi
from farebox.platform.priced_events import PricedEvents
from farebox.platform.runs import Runner
from farebox.platform.store import SqlRuns
from farebox.ports import Callers, Upstreams
from farebox.price_lists import PriceLists
from farebox.reconcile import Reconciler
from farebox.reloading import Reloading
from farebox.routing import Routing
from farebox.settings import OPENROUTER_URL, Settings, load
from farebox.stopping import stopping_gracefully
from farebox.store.books import SqlStore
from farebox.store.prepare import is_postgres, open_store
from farebox.store.spool import Spool
from farebox.store.wal import WalKeeper
from farebox.telemetry.logs import start as start_log
from farebox.telemetry.metrics import count_task_failures
from farebox.telemetry.watch import Watch
from farebox.upstream.running import RunningUpstreams
from farebox.upstream_health import Health
from farebox.web import routes
from farebox.web.access import Access
from farebox.web.management import Management
from farebox.web.mcp.endpoint import ActorTools, Agents
from farebox.web.relay import Relay
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


class _Beside(NamedTuple):
    """What an order may meet on its way."""

    health: Health
    cache: AnswerCache
    guards: Guards


def _beside(settings: Settings, store: SqlStore, watch: Watch) -> _Beside:
    health = Health(store, is_shared=settings.workers > 1 or is_postgres(settings.database_url))
    cache = AnswerCache(store, settings.cache_bytes_max, settings.cache_seconds_max, watch.metrics.looked_up)
    watch.metrics.watch_upstreams(health.left_alone)
    watch.metrics.watch_cache(lambda: cache.bytes)
    return _Beside(health, cache, Guards(guards_of(settings), watch.metrics.guarded))


@asynccontextmanager
async def running(
    settings: Settings, host: Host = stand_alone, formats: Formats = FORMATS, supervisor: Supervisor | None = None
) -> AsyncIterator[routes.Services]:
    """Everything that serves, for as long as the block runs. Owns the background tasks."""
    supervisor = supervisor or Supervisor(count_task_failures)
    async with AsyncExitStack() as stack:
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
        await store.open_orphans()
        await _get_first_prices(catalog, price_lists)
        admission = Admission(settings.orders_max, settings.account_orders_max)
        late = LateSettlements(store, Spool(Path(settings.spool), store.worker))
        joining = Joining(store, admission, settings.join_repeats, settings.first_byte_seconds)
        reconciler = Reconciler(
            store,
            upstreams,
            settings.reconcile_seconds,
            settled=watch.metrics.reconciled,
            catch_up=joining.write_down,
        )
        beside = _beside(settings, store, watch)
        exchange = Exchange(
            callers=hosted.callers,
            prices=catalog,
            ledger=store,
            upstreams=upstreams,
            routing=Routing(upstreams.candidates, beside.health, settings.routing, watch.metrics.attempted),
            streaming=Streaming(
                deadlines,
                drains_max=settings.drains_max,
                drain_seconds=settings.drain_seconds,
                no_event_seconds=settings.no_event_seconds,
            ),
            admission=admission,
            tariffs=price_lists,
            cache=beside.cache if settings.cache_bytes_max else None,
            guards=beside.guards if settings.guards else None,
            charges=hosted.charges,
            late=late,
            joining=joining,
            telemetry=watch,
        )
        wal = WalKeeper(store.engine, settings.wal_warn_bytes)
        watch.metrics.watch(
            lambda: admission.orders, lambda: store.queued, lambda: late.waiting, lambda: wal.size_bytes
        )
        await stack.enter_async_context(
            supervisor.running(
                Task("prices", catalog.keep_fresh),
                Task("lists", catalog.keep_pages_fresh),
                Task("price_file", price_lists.keep_fresh),
                Task("kept_answers", partial(forget_old_answers, store)),
                Task("reconcile", reconciler.run),
                Task("late_settlements", late.run),
                Task("repeats", joining.run, "a call that is sent again may be charged again"),
                Task("metrics", watch.metrics.keep_fresh),
                Task("wal", wal.run),
                Task("upstreams", Reloading(upstreams, catalog, price_lists, _declared_anew).run, NOT_TAKEN_UP),
                Task("upstream_health", beside.health.run),
                Task("answer_cache", beside.cache.run),
                Task("guards", beside.guards.run),
                *hosted.background,
            )
        )
        accounts = Accounts(store, plans)
        orders = WholeOrders(exchange, hosted.callers, catalog, store, formats)
        bodies = BodyReader(settings.body_bytes_max, settings.body_seconds, deadlines)
        run_api, actor = None, None
        if hosted.has_run_api:
            runs = SqlRuns(store.engine, store.worker)
            stack.push_async_callback(runs.close)
            url = (settings.public_url or "").rstrip("/")
            runner = Runner(runs, orders, admission, plans, store.worker, url, supervisor)
            run_api = RunApi(hosted.callers, runs, runner, PricedEvents(runs, store), bodies)
            actor = ActorTools(runner, runs)
        agents = Agents(orders, catalog, accounts, supervisor, actor)
        stack.push_async_callback(agents.close)
        yield routes.Services(
            relay=Relay(exchange, bodies, deadlines, settings.silence_seconds, settings.stream_silence_seconds),
            admission=admission,
            callers=hosted.callers,
            catalog=catalog,
            own_endpoints=OwnEndpoints(upstreams, beside.health),
            accounts=accounts,
            generations=Generations(store, upstreams),
            books=store,
            metrics=watch.metrics,
            supervisor=supervisor,
            agents=agents,
            management=Management(Managers(store), accounts, bodies),
            run_api=run_api,
            access=Access(
                hosts=frozenset(host.lower().encode() for host in settings.allowed_hosts),
                origins=tuple(settings.allowed_origins),
                metrics_token=settings.metrics_token.get_secret_value() if settings.metrics_token else None,
                address=settings.host,
                public_host=urlsplit(settings.public_url).hostname if settings.public_url else None,
            ),
            formats=formats,
        )


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
            # What exists now stays: the garbage collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(COLLECT_AFTER)
            async with services.run_api.runner.going() if services.run_api else nullcontext():
                with stopping_gracefully(services.admission, self._settings.grace_seconds):
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
        await send({"type": "lifespan.shutdown.complete"})
