"""GET /metrics: where orders and holds stand, for Prometheus. For the operator alone."""

from hmac import compare_digest

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import Receive, Scope, Send

from farebox import clock
from farebox.core.errors import forbidden, unauthenticated
from farebox.core.headers import PROXIED, read_request_head
from farebox.http.asgi import Endpoint, send_whole
from farebox.ports import Books, BooksUnavailable
from farebox.telemetry.metrics import Metrics, exposition

_LOOPBACK = ("127.0.0.1", "::1")


def metrics(books: Books, counted: Metrics, token: str | None) -> Endpoint:
    """Metrics for whoever sends `token`; where that is None, for requests from this machine alone."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        _check(scope, token)
        counted.refresh()
        try:
            await books.answer()
            since_us = await books.untold_since_us()
            body = exposition(await books.not_ended(), 0 if since_us is None else (clock.now_us() - since_us) / 1e6)
        except BooksUnavailable:
            # While the books are away, what this process counts matters most.
            body = exposition(None)
        await send_whole(send, 200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], body)

    return endpoint


def _check(scope: Scope, token: str | None) -> None:
    if token is not None:
        sent = read_request_head(scope["headers"]).tokens
        if not any(compare_digest(each.encode(), token.encode()) for each in sent):
            raise unauthenticated("Send `Authorization: Bearer` with the token that FAREBOX_METRICS_TOKEN sets")
    # What a proxy on this machine passes on comes from elsewhere.
    elif (scope["client"] or ("",))[0] not in _LOOPBACK or any(name in PROXIED for name, _ in scope["headers"]):
        raise forbidden("Metrics are for this machine alone, unless FAREBOX_METRICS_TOKEN sets a token for them")
