"""The composition root: makes adapters from settings, use cases from adapters, and an ASGI app from use cases."""

import asyncio
import gc
import os
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
from farebox.answers import Streaming, forget_old_answers
from farebox.background import Supervisor, Task
from farebox.catalog import Catalog, SharedPrices
from farebox.core.declared import Declared, Timeouts, prices_source
from farebox.core.formats.table import FORMATS, Formats
from farebox.core.price_files import BadPrices
from farebox.deadlines import Deadlines
from farebox.exchange import Charges, Exchange
from farebox.generations import Generations
from farebox.http.bodies import BodyReader
from farebox.http.calls import DIRECT
from farebox.identity.keys import KeyCallers, Managers, PlansInForce
from farebox.joining import Joining
from farebox.late_settlements import LateSettlements
from farebox.outgoing import BadWay, WayOut
from farebox.outgoing import way_to as find_way_to
from farebox.platform.calls import RunApi
from farebox.platform.priced_events import PricedEvents
from farebox.platform.runs import Runner
from farebox.platform.store import SqlRuns
from farebox.ports import Callers, Upstream, Upstreams
from farebox.price_lists import Ask, PriceLists, read_file
from farebox.reconcile import Reconciler
from farebox.reloading import Reloading
from farebox.settings import (
    OPENROUTER_KEY_VARIABLE,
    OPENROUTER_KIND,
    OPENROUTER_URL,
    BadSettings,
    Settings,
    config_file,
    load,
)
from farebox.stopping import stopping_gracefully
from farebox.store.books import SqlStore
from farebox.store.prepare import is_postgres, open_store
from farebox.store.spool import Spool
from farebox.store.wal import WalKeeper
from farebox.telemetry.logs import start as start_log
from farebox.telemetry.metrics import count_task_failures
from farebox.telemetry.traces import is_traced, traces_url
from farebox.telemetry.watch import Watch
from farebox.upstream import Kind
from farebox.upstream.running import RunningUpstreams
from farebox.upstream.table import KINDS
from farebox.web import routes
from farebox.web.access import Access
from farebox.web.management import Management
from farebox.web.mcp.endpoint import ActorTools, Agents
from farebox.web.relay import Relay
from farebox.whole_orders import WholeOrders

COLLECT_AFTER = 20_000
"""New objects after which the garbage collector looks for reference cycles. Orders leave hardly any, and at Python's
default of 700 it would run every few orders."""

FIRST_PRICES_SECONDS = 3
"""How long a start waits for the price list. After that it serves, goes on asking, and `/readyz` says so."""

SIMULATOR_URL_VARIABLE = "FAREBOX_SIMULATOR_URL"
"""Where `farebox serve` tells its workers the URL of the embedded simulator."""


def create() -> ASGIApp:
    """The app for a worker process that uvicorn starts; its settings are in the environment."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it is heard
    start_log()
    return App(load())


def kind_of(declared: Declared, setting: str) -> Kind:
    """The kind of upstream that a declaration names. Raises BadSettings: there is no such kind."""
    kind = KINDS.get(declared.kind)
    if kind is None:
        raise BadSettings(f"{setting}: there is no kind `{declared.kind}`, only {', '.join(map(repr, KINDS))}")
    return kind


def way_to(url: str, settings: Settings) -> WayOut:
    """How an address outside is reached, as the settings and the environment say. Raises BadSettings."""
    try:
        return find_way_to(url, settings.ca_file)
    except BadWay as error:
        raise BadSettings(str(error)) from error


def declared_upstreams(settings: Settings) -> list[Declared]:
    """The upstreams that the settings name: those under `[upstreams]`, or the one that there is without them.

    Raises:
        BadSettings: one cannot be made, or is this gateway itself.
    """
    if not settings.upstreams:
        return [_only_upstream(settings)]
    for declared in settings.declared:
        where = f"{config_file()}: upstreams.{declared.name}"
        kind_of(declared, f"{where}.kind")
        if not declared.base_url:
            raise BadSettings(f"{where}.base_url: not set, and the kind `{declared.kind}` has no URL of its own")
        if declared.key_variable is not None and not os.environ.get(declared.key_variable):
            raise BadSettings(f"{where}.key_variable: the environment variable {declared.key_variable} is not set")
        if _is_this_gateway(declared.base_url, settings):
            raise BadSettings(
                f"{where}.base_url: {declared.base_url} is this gateway itself; orders would go in circles"
            )
    return settings.declared


def _only_upstream(settings: Settings) -> Declared:
    url = settings.upstream_url or (os.environ.get(SIMULATOR_URL_VARIABLE) if settings.is_simulated else OPENROUTER_URL)
    timeouts = Timeouts(settings.connect_seconds, settings.first_byte_seconds, settings.no_data_seconds)
    name = "simulator" if settings.is_simulated else settings.upstream_kind
    declared = Declared(
        name, settings.upstream_kind, url or "", timeouts, OPENROUTER_KEY_VARIABLE, at_hang_up=settings.hang_up
    )
    kind_of(declared, "FAREBOX_UPSTREAM_KIND")
    if settings.upstream_kind != OPENROUTER_KIND and settings.upstream_url is None:
        raise BadSettings(
            f"FAREBOX_UPSTREAM_URL: not set, and the kind `{settings.upstream_kind}` has no URL of its own"
        )
    if not declared.tells_cost:
        raise BadSettings(
            f"FAREBOX_UPSTREAM_KIND: `{settings.upstream_kind}` tells no prices; declare it under [upstreams.NAME] in"
            f" {config_file()}, with `prices`"
        )
    if url is None:
        raise BadSettings(f"{OPENROUTER_KEY_VARIABLE}: not set, and only `farebox serve` brings a simulator along")
    return declared


def _is_this_gateway(url: str, settings: Settings) -> bool:
    """Whether a URL leads back here, as far as that is known before anything is asked."""
    there = _place(url)
    own = {(settings.host, settings.port), *([_place(settings.public_url)] if settings.public_url else [])}
    return there in {(_LOCAL if host in LOCAL_HOSTS else host, port) for host, port in own if port}


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return _LOCAL if host in LOCAL_HOSTS else host, parts.port or (443 if parts.scheme == "https" else 80)


LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104 - nothing is bound here
_LOCAL = "localhost"


def upstream_of(declared: Declared, settings: Settings, deadlines: Deadlines) -> Upstream:
    """An upstream that is declared. Raises BadSettings."""
    key = os.environ.get(declared.key_variable) if declared.key_variable is not None else None
    if settings.is_simulated and not key:
        key = "sk-or-simulated"
    way = way_to(declared.base_url, settings)
    return kind_of(declared, declared.name)(declared, key or None, deadlines, way)


def check_ways_out(settings: Settings) -> None:
    """Raises BadSettings: a proxy or certificates that an address outside needs are not named well."""
    urls = [each.base_url for each in declared_upstreams(settings)]
    for url in (*urls, *([traces_url()] if is_traced() else [])):
        way_to(url, settings)


def check_price_file(settings: Settings) -> None:
    """Raises BadSettings: the price file is wrong."""
    if settings.prices_file is not None:
        try:
            read_file(Path(settings.prices_file))
        except BadPrices as error:
            raise BadSettings(str(error)) from error


def openrouters_lists(settings: Settings) -> Ask:
    """Asks for the model lists that the price file takes prices from: of the upstream that the settings name where that
    is OpenRouter, else of OpenRouter's public address. Raises BadSettings."""
    timeouts = Timeouts(settings.connect_seconds, settings.first_byte_seconds, settings.no_data_seconds)
    public = Declared("openrouter", OPENROUTER_KIND, OPENROUTER_URL, timeouts, OPENROUTER_KEY_VARIABLE)
    declared = next((each for each in declared_upstreams(settings) if each.kind == OPENROUTER_KIND), public)
    way_to(declared.base_url, settings)

    async def ask() -> tuple[bytes, ...]:
        openrouter = upstream_of(declared, settings, Deadlines())
        try:
            return await openrouter.prices()
        finally:
            await openrouter.close()

    return ask


async def _price_lists(settings: Settings, store: SqlStore) -> PriceLists:
    """Raises BadPrices, BooksUnavailable."""
    lists = PriceLists(
        None if settings.prices_file is None else Path(settings.prices_file),
        store,
        openrouters_lists(settings),
        settings.prices_refresh_seconds,
        settings.prices_max_age_seconds,
    )
    await lists.refresh()
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


@asynccontextmanager
async def running(
    settings: Settings, host: Host = stand_alone, formats: Formats = FORMATS, supervisor: Supervisor | None = None
) -> AsyncIterator[routes.Services]:
    """Everything that serves, for as long as the block runs. Owns the background tasks."""
    supervisor = supervisor or Supervisor(count_task_failures)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings.database_url))
        deadlines = Deadlines()
        upstreams = RunningUpstreams(declared_upstreams(settings), lambda each: upstream_of(each, settings, deadlines))
        stack.push_async_callback(upstreams.close)
        plans = PlansInForce(settings.every_plan)
        shared = _shared_prices(settings, store)
        catalog = Catalog(upstreams, settings.prices_refresh_seconds, settings.prices_max_age_seconds, shared=shared)
        price_lists = await _price_lists(settings, store)
        hosted = await stack.enter_async_context(host(store, upstreams, plans))
        watch = Watch(is_logged=settings.order_log, ca_file=settings.ca_file)
        stack.callback(watch.close)
        store.watch_commits(watch.metrics.committed)
        await store.open_orphans()
        await _get_first_prices(catalog)
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
        exchange = Exchange(
            callers=hosted.callers,
            prices=catalog,
            ledger=store,
            upstreams=upstreams,
            streaming=Streaming(
                deadlines,
                drains_max=settings.drains_max,
                drain_seconds=settings.drain_seconds,
                no_event_seconds=settings.no_event_seconds,
            ),
            admission=admission,
            charges=hosted.charges,
            late=late,
            joining=joining,
            telemetry=watch,
        )
        reloading = Reloading(upstreams, catalog, _declared_anew)
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
                Task("upstreams", reloading.run, "what farebox.toml says of upstreams now is not what holds"),
                *hosted.background,
            )
        )
        accounts = Accounts(store, plans)
        orders = WholeOrders(exchange, hosted.callers, catalog, store, formats)
        bodies = BodyReader(settings.body_bytes_max, settings.body_seconds, deadlines)
        run_api: RunApi | None = None
        actor: ActorTools | None = None
        if hosted.has_run_api:
            runs = SqlRuns(store.engine, store.worker)
            stack.push_async_callback(runs.close)
            runner = Runner(
                runs, orders, admission, plans, store.worker, (settings.public_url or "").rstrip("/"), supervisor
            )
            run_api = RunApi(hosted.callers, runs, runner, PricedEvents(runs, store), bodies)
            actor = ActorTools(runner, runs)
        agents = Agents(orders, catalog, accounts, supervisor, actor)
        stack.push_async_callback(agents.close)
        yield routes.Services(
            relay=Relay(exchange, bodies, deadlines, settings.silence_seconds, settings.stream_silence_seconds),
            admission=admission,
            callers=hosted.callers,
            catalog=catalog,
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


async def _get_first_prices(catalog: Catalog) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_PRICES_SECONDS):
            await catalog.refresh()


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
