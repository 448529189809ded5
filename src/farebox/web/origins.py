"""Pages in a browser: they may read an answer only where it names their origin (the Fetch standard's CORS protocol)."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

TOLD_TO_PAGES = (
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
"""Headers of ours that a page may read beside the usual ones."""

PREFLIGHT_SECONDS = 7200
"""How long a browser may remember that it may ask: Chromium's own bound."""


def shared_with(origins: tuple[str, ...], names: frozenset[str], app: ASGIApp) -> ASGIApp:
    """The app, what stands under these names of a base shared with pages of these origins (`*` for all), whatever
    headers their SDKs send. Never with a browser's cookies: a key is in the page's hands or nowhere."""
    shared = CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=TOLD_TO_PAGES,
        max_age=PREFLIGHT_SECONDS,
    )

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        base, _, rest = scope["path"].partition("/v1/")
        is_shared = base in ("", "/api") and rest.partition("/")[0] in names
        await (shared if is_shared else app)(scope, receive, send)

    return serve
