"""GET /metrics: where orders and holds stand, for Prometheus. For the operator alone."""

from collections.abc import Iterable, Iterator
from hmac import compare_digest

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from farebox.admission import Admission
from farebox.core.errors import forbidden, unauthenticated
from farebox.core.headers import read_request_head
from farebox.ports import Books, NotEnded
from farebox.web.asgi import Endpoint, send_whole
from farebox.web.refusals import guarded

_LOOPBACK = ("127.0.0.1", "::1")

_PROXIED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
"""On a request that a proxy on this machine passes on: it does not come from this machine."""


def metrics(books: Books, admission: Admission, token: str | None) -> Endpoint:
    """The exposition: to who has the token; where there is none, to this machine alone."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        _check(scope, token)
        body = _exposition(_gauges(await books.not_ended(), admission.orders))
        await send_whole(send, 200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], body)

    return guarded(endpoint)


def _check(scope: Scope, token: str | None) -> None:
    if token is not None:
        if not any(
            compare_digest(sent.encode(), token.encode()) for sent in read_request_head(scope["headers"]).tokens
        ):
            raise unauthenticated("Send `Authorization: Bearer` with the token that FAREBOX_METRICS_TOKEN sets")
    elif (scope["client"] or ("",))[0] not in _LOOPBACK or any(name in _PROXIED for name, _ in scope["headers"]):
        raise forbidden("Metrics are for this machine alone, unless FAREBOX_METRICS_TOKEN sets a token for them")


def _gauges(holds: NotEnded, orders: int) -> Iterator[Metric]:
    serving = GaugeMetricFamily("farebox_orders_in_progress", "Orders that this process serves now.")
    serving.add_metric([], orders)
    yield serving
    family = GaugeMetricFamily(
        "farebox_holds",
        "Holds in the books that have not ended: of orders being served (pending), whose cost is asked for (open), and"
        " whose cost an operator must decide (unresolved). The same from every process.",
        labels=["state"],
    )
    for state in NotEnded.__struct_fields__:
        family.add_metric([state], getattr(holds, state))
    yield family


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _exposition(families: Iterable[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(list(families)))
    return generate_latest(registry)
