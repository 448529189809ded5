"""Every path Farebox answers, in one table. What is not here never reaches the upstream."""

import re
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from functools import cache

import msgspec
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from farebox.accounts import Accounts
from farebox.admission import Admission
from farebox.background import Supervisor
from farebox.catalog import Catalog
from farebox.core import compaction
from farebox.core.errors import Refusal, forbidden, invalid, wrong_method
from farebox.core.formats.table import BASES, Formats, format_at, with_aliases
from farebox.core.headers import HeaderList
from farebox.core.schemas import Schema
from farebox.generations import Generations
from farebox.http.asgi import Endpoint, send_json, through_asgi
from farebox.http.bodies import BodyReader
from farebox.http.calls import FindServe, FindTalks, Serve, Talks
from farebox.http.refusals import Refusing, guarded, refuse
from farebox.platform.calls import RunApi
from farebox.platform.documents import ERRORS
from farebox.platform.endpoints import routes as run_api_routes
from farebox.ports import Books, BooksUnavailable, Callers
from farebox.telemetry.metrics import Metrics
from farebox.token_counts import TokenCounts
from farebox.web import docs
from farebox.web.access import Access, host_in, host_of, of_no_foreign_host, of_no_foreign_page
from farebox.web.account import OwnPages
from farebox.web.anthropic_models import is_anthropics
from farebox.web.bills import BillPages
from farebox.web.catalog import Lists, OwnEndpoints
from farebox.web.compaction import Compacting
from farebox.web.counts import PATH as COUNT_PATH
from farebox.web.counts import count_tokens
from farebox.web.front import with_front_page
from farebox.web.jobs import JobPages
from farebox.web.lost_paths import LostPaths
from farebox.web.management import Management
from farebox.web.mcp.endpoint import Agents
from farebox.web.metrics import metrics
from farebox.web.origins import shared_with
from farebox.web.presets import PresetPages
from farebox.web.relay import Relay
from farebox.web.stored import StoredPages

RESPONSES = "/responses"


@dataclass(frozen=True, slots=True)
class Sockets:
    """The bounds of WebSockets: of a message, of a connection's time, and of what all of them remember together."""

    message_bytes_max: int
    message_seconds: float
    seconds: float
    memory_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the endpoints are made of. `run_api` is None where this gateway is an Actor itself,
    `console` where there are no pages for people."""

    relay: Relay
    jobs: JobPages
    admission: Admission
    callers: Callers
    catalog: Catalog
    own_endpoints: OwnEndpoints
    accounts: Accounts
    generations: Generations
    bills: BillPages
    books: Books
    metrics: Metrics
    supervisor: Supervisor
    agents: Agents
    management: Management
    stored: StoredPages
    run_api: RunApi | None
    access: Access
    formats: Formats
    sockets: Sockets
    bodies: BodyReader
    token_counts: TokenCounts
    presets: PresetPages
    console: Endpoint | None


def app(services: Services) -> ASGIApp:
    """Every path. Orders go straight to their endpoint: through the router each costs some 10 us more."""
    formats = services.formats
    orders = _orders(services)
    every = every_route(services)
    lost = LostPaths((route.path for route in every), formats)
    free_of_charge = _free_of_charge([*every, *_for_people(services)], lost)

    # `serve` and `dispatch` are plain functions: each step of an order would pass through one more coroutine.
    def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        order = orders.get(scope["path"]) if scope["method"] == "POST" else None
        return (order or free_of_charge)(scope, receive, send)

    callers_own = frozenset(path.split("/")[1] for path in (*formats, *_lists(services)))
    access = services.access
    shared = shared_with(access.origins, callers_own, serve) if access.origins else serve

    def dispatch(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        raw_path = scope["raw_path"]
        if b"%" in raw_path and b"%2f" in raw_path.lower() and not _MODEL.fullmatch(raw_path):
            # Only models have a slash within their names: elsewhere an encoded one would disguise the path.
            refusal, wire = lost.refusal(raw_path.decode("latin-1"), is_anthropics=is_anthropics(scope))
            return refuse(scope, receive, send, refusal, wire)
        if scope["path"] not in orders:
            scope["path"] = tidy(scope["path"])
        if access.hosts and scope["path"] not in _AT_ANY_HOST and host_of(scope).encode() not in access.hosts:
            refusal = (forbidden if scope["path"] in _AGENTS else invalid)(_NOT_ITS_NAME)
            return refuse(scope, receive, send, refusal, format_at(scope["path"], formats))
        return shared(scope, receive, send)

    return dispatch


def find_order(services: Services) -> FindServe:
    """What serves an order that needs nothing of what `app` does for others: it asks at a path as it stands in the
    table, under a name of this gateway's, and is not of a page."""
    relay, formats, hosts = services.relay, services.formats, services.access.hosts
    served = {name: relay.serving(path, formats[path]) for name, path in with_aliases(formats)}
    if RESPONSES in formats:
        served[compaction.PATH] = _compacting(services)
    orders = {(base + name).encode(): serve for name, serve in served.items() for base in BASES}
    has_pages = bool(services.access.origins)

    def find(path: bytes, headers: HeaderList) -> Serve | None:
        serve = orders.get(path)
        if serve is None or not (hosts or has_pages):
            return serve
        for name, value in headers:
            if name == b"origin" and has_pages:
                return None
            if name == b"host" and hosts and host_in(value.decode("latin-1")).encode("latin-1") not in hosts:
                return None
        return serve

    return find


def find_talks(services: Services) -> FindTalks:
    """Who talks on WebSockets: at the paths of responses. What that is made of is only loaded once one is asked for."""
    paths = frozenset((base + RESPONSES).encode() for base in BASES)

    @cache
    def talks() -> Talks:
        from farebox.web.turns import Memory, Turns

        relay, sockets, wire = services.relay, services.sockets, services.formats[RESPONSES]
        memory = Memory(sockets.memory_bytes_max)
        services.metrics.watch_sockets(lambda: memory.connections, lambda: memory.bytes)
        return Turns(
            relay.serving(RESPONSES, wire),
            wire,
            services.callers,
            services.access,
            relay.deadlines,
            message_bytes_max=sockets.message_bytes_max,
            message_seconds=sockets.message_seconds,
            seconds=sockets.seconds,
            memory=memory,
            keeps_answers=relay.exchange.stored is not None,
        )

    return lambda path: talks() if path in paths else None


def _orders(services: Services) -> dict[str, Endpoint]:
    """The billable endpoints, by their whole path."""
    relay, formats = services.relay, services.formats
    endpoints = {name: relay.endpoint(path, formats[path]) for name, path in with_aliases(formats)}
    if RESPONSES in formats:
        endpoints[compaction.PATH] = through_asgi(_compacting(services))
    return {base + name: endpoint for name, endpoint in endpoints.items() for base in BASES}


def _compacting(services: Services) -> Serve:
    kept = services.relay.exchange.stored
    return services.relay.serving(RESPONSES, services.formats[RESPONSES], Compacting(services.callers, kept))


def _lists(services: Services) -> dict[str, Endpoint]:
    """Lists and the caller's own pages, by their path under a base."""
    lists = Lists(services.callers, services.catalog, services.own_endpoints, lambda: services.accounts.hides_costs)
    own = OwnPages(services.callers, services.accounts, services.generations, services.bills)
    return {**lists.routes(), **own.routes()}


def every_route(services: Services) -> list[Route]:
    """Every path with its methods, as the OpenAPI document has them."""
    run_api = run_api_routes(services.run_api) if services.run_api is not None else []

    def document() -> Schema:
        from farebox.web import openapi  # which is not carried until somebody asks

        return openapi.document(services.formats, has_run_api=services.run_api is not None)

    pages: dict[str, Endpoint] = {
        **{base + path: page for path, page in _lists(services).items() for base in BASES},
        **{base + path: page for path, page in services.jobs.routes().items() for base in BASES},
        "/openapi.json": docs.for_machines(document),
        "/docs": docs.for_people(document),
        "/healthz": _healthz,
        "/readyz": _readyz(services),
        "/metrics": metrics(services.books, services.metrics, services.access.metrics_token),
    }
    agents = of_no_foreign_page(services.access, services.agents.endpoint)
    counting = count_tokens(services.callers, services.token_counts, services.bodies)
    own = [
        *((path, ["GET"], page) for path, page in pages.items()),
        *((base + COUNT_PATH, ["POST"], counting) for base in BASES),
        *((base + path, methods, page) for path, methods, page in services.stored.routes() for base in BASES),
        *services.presets.routes(),
        ("/mcp", ["POST"], agents),
        ("/", ["GET", "POST"], with_front_page(agents)),
        *services.management.routes(),
    ]
    return [
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in _orders(services).items()),
        *(Route(path, guarded(endpoint), methods=methods) for path, methods, endpoint in own),
        *(Route(path, endpoint, methods=methods) for path, methods, endpoint in run_api),
    ]


def _for_people(services: Services) -> list[Route]:
    """The console's pages, which are no part of the API."""
    if services.console is None:
        return []
    endpoint = guarded(of_no_foreign_host(services.access, services.console))
    return [Route(path, endpoint, methods=_CONSOLE_METHODS) for path in ("/console", "/console/{page:path}")]


_CONSOLE_METHODS = ["GET", "POST"]


def _free_of_charge(every: list[Route], lost: LostPaths) -> ASGIApp:
    """Every path that costs nothing, and the refusal of other methods than POST at the paths of orders."""
    router = Router(every, redirect_slashes=False)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = router  # has the router raise what it would else answer in words of its own
        try:
            await router(scope, receive, send)
        except HTTPException as error:
            await refuse(scope, receive, send, *_refusal_of(error, scope, lost))

    return serve


_SLASHES = re.compile(r"//+")
_BASE_TWICE = re.compile(r"^((?:/api)?/v1)(?:/v1)+(?=/)")


def tidy(path: str) -> str:
    """A path without the doubled slashes, or the doubled `/v1`, of a base URL that has what its client adds, too."""
    return _BASE_TWICE.sub(r"\1", _SLASHES.sub("/", path)).rstrip("/") or "/"


class _ModelName(PathConvertor):
    """A model's id in a path, with as many slashes as it has."""

    regex = "(?:(?!/endpoints$).)+"


register_url_convertor("model", _ModelName())

_MODEL = re.compile(rb"(?:/api)?/v1/models?/[^/]+(?<!%2fendpoints)", re.IGNORECASE)
"""The same in one piece, as OpenAI's and Anthropic's clients send it: `/models/openai%2Fgpt-5`."""

_AGENTS = ("/", "/mcp")
"""MCP. The root, too: the platform's own server is asked there, with `?tools=apify/openrouter`."""

_NOT_ITS_NAME = "host: this gateway is not known under that name"

_AT_ANY_HOST = ("/healthz", "/readyz", "/metrics")
"""Asked for by the machine's address, by whatever watches over the process: not held to the hosts."""


_PAGE_ERRORS = {404: "page-not-found", 405: "method-not-allowed"}


def _refusal_of(error: HTTPException, scope: Scope, lost: LostPaths) -> tuple[Refusal, Refusing]:
    """The refusal of a path or a method, and who words it."""
    path = scope["path"]
    refusal, wire = lost.refusal(path, is_anthropics=is_anthropics(scope))
    if error.status_code == 405:
        refusal = wrong_method(scope["method"], (error.headers or {}).get("Allow", ""))
    if path.startswith("/v2/"):
        return replace(refusal, error_type=_PAGE_ERRORS[refusal.status]), ERRORS
    return refusal, wire


async def _healthz(scope: Scope, receive: Receive, send: Send) -> None:
    """GET /healthz: the process answers."""
    await send_json(send, b'{"status":"ok"}')


def _readyz(services: Services) -> Endpoint:
    models = services.catalog

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        """GET /readyz: orders can be served: the books answer, there are prices, every background task that orders need
        runs, and no stop has begun. Else 503."""
        if services.admission.is_closed:
            raise Refusal(503, "provider_unavailable", "This gateway is stopping")
        stopped = services.supervisor.not_running
        if harmful := next((task for task in stopped if task.harm), None):
            raise Refusal(503, "provider_unavailable", f"The task {harmful.name} does not run: {harmful.harm}")
        try:
            models.current()
            await services.books.answer()
        except Refusal as refusal:
            raise Refusal(503, "provider_unavailable", refusal.message) from refusal
        except BooksUnavailable as error:
            raise Refusal(503, "provider_unavailable", str(error)) from error
        names = sorted({task.name for task in stopped})
        ready = {"status": "ready", "prices_are_stale": models.is_stale, "tasks_not_running": names}
        await send_json(send, msgspec.json.encode(ready))

    return endpoint
