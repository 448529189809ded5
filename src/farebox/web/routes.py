"""Every path Farebox answers, in one table. What is not here never reaches the upstream."""

from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from farebox.accounts import Accounts
from farebox.catalog_cache import Catalog
from farebox.core.errors import Refusal, unknown, wrong_method
from farebox.core.formats import chat
from farebox.deadlines import Deadlines
from farebox.exchange import Exchange
from farebox.ports import Callers
from farebox.web import account, catalog
from farebox.web.asgi import Endpoint, send_json
from farebox.web.refusals import RefusalResponse, guarded
from farebox.web.relay import BodyBounds, relay

BASES = ("/api/v1", "/v1")
"""OpenRouter's base, and the one OpenAI's and Anthropic's clients expect."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the endpoints are made of."""

    exchange: Exchange
    catalog: Catalog
    accounts: Accounts
    callers: Callers
    bounds: BodyBounds
    deadlines: Deadlines


def app(services: Services) -> ASGIApp:
    """Every path. Orders go straight to their endpoint: through the router and its middleware each costs 17 us more."""
    chat_endpoint = relay(services.exchange, "/chat/completions", chat, services.bounds, services.deadlines)
    billable = {base + "/chat/completions": chat_endpoint for base in BASES}
    under_each_base = {
        "/models": catalog.models(services.catalog),
        "/key": account.key_endpoint(services.callers, services.accounts),
        "/credits": account.credits_endpoint(services.callers, services.accounts),
    }
    free = Starlette(
        routes=[
            *(Route(path, endpoint, methods=["POST"]) for path, endpoint in billable.items()),
            *(Route(base + path, each, methods=["GET"]) for path, each in under_each_base.items() for base in BASES),
            Route("/healthz", guarded(_healthz), methods=["GET"]),
            Route("/readyz", guarded(_readyz(services.catalog)), methods=["GET"]),
        ],
        exception_handlers={HTTPException: _refuse_path},
    )
    free.router.redirect_slashes = False

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        order = billable.get(scope["path"]) if scope["method"] == "POST" else None
        await (order or free)(scope, receive, send)

    return dispatch


async def _refuse_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal = wrong_method(request.method, (error.headers or {}).get("Allow", ""))
    else:
        refusal = unknown(f"There is nothing at {request.url.path[:200]!r} here")
    return RefusalResponse(refusal)


async def _healthz(scope: Scope, receive: Receive, send: Send) -> None:
    """The process answers."""
    await send_json(send, b'{"status":"ok"}')


def _readyz(models: Catalog) -> Endpoint:
    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        """Orders can be served: the books are open (or nothing would be listening) and there are prices."""
        try:
            models.current()
        except Refusal as refusal:
            raise Refusal(503, "provider_unavailable", refusal.message) from refusal
        await send_json(send, msgspec.json.encode({"status": "ready", "prices_are_stale": models.is_stale}))

    return endpoint
