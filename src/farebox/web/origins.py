"""Access for pages in a browser, which may read an answer only if it names their origin (CORS, in the Fetch
standard)."""

import re

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

EXPOSED_HEADERS = (
    "idempotency-replayed",
    "retry-after",
    "retry-after-ms",
    "x-farebox-answer-cap",
    "x-farebox-fare-events",
    "x-farebox-fare-usd",
    "x-farebox-stale",
    "x-generation-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
)
"""Response headers that a page may read beside those that browsers always show it."""

PREFLIGHT_SECONDS = 7200
"""How long a browser may remember a preflight's answer: Chromium's own upper bound."""


_BELOW = re.compile(r"(?:/api)?(?:/v1)?/([^/]*)")
"""The name under a base. A page that leaves the base out is to read the refusal that says so."""


def shared_with(origins: tuple[str, ...], names: frozenset[str], app: ASGIApp) -> ASGIApp:
    """The app, with the paths under these names of a base (`/api/v1/NAME`) shared with pages of these origins (`*` for
    all), whatever headers their SDKs send. Never with cookies: a page has a key of its own, or none."""
    shared = CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        # Chromium before 142 asks so before a public page's request to a gateway on this machine.
        allow_private_network=True,
        expose_headers=EXPOSED_HEADERS,
        max_age=PREFLIGHT_SECONDS,
    )

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        found = _BELOW.match(scope["path"])
        is_shared = found is not None and found[1] in names
        await (shared if is_shared else app)(scope, receive, send)

    return serve
