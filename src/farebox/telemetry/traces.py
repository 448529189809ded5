"""Spans of an order's steps, sent to an OpenTelemetry collector (extra `farebox[otel]`).

They are made when the order is over, from the moments that were noted on its way: no order waits for them. Attributes
are those of the GenAI semantic conventions, without prompts, answers and keys.
"""

import os
from typing import TYPE_CHECKING, Any

from farebox import __version__
from farebox.core.formats.table import FORMATS
from farebox.core.passage import Passage
from farebox.outgoing import WayOut, way_to
from farebox.telemetry.metrics import outcome_of

if TYPE_CHECKING:
    from requests import Session

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own settings: spans are sent to the collector that one of them names."""


def is_traced() -> bool:
    return any(os.environ.get(name) for name in ENDPOINT_VARIABLES)


def traces_url() -> str:
    """The address that spans are sent to, perhaps without its path."""
    return next(value for name in reversed(ENDPOINT_VARIABLES) if (value := os.environ.get(name)))


def _session(way: WayOut) -> "Session":
    """A session of the exporter's client that goes our way, and no other that the environment names."""
    import requests
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *given: Any, **options: Any) -> Any:
            return super().init_poolmanager(*given, **{**options, **tls})

        def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
            return super().proxy_manager_for(proxy, **{**options, **tls})

    tls: dict[str, Any] = {} if way.tls is None else {"ssl_context": way.tls}
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", Adapter())
    if way.proxy is not None:
        session.proxies = dict.fromkeys(("http", "https"), str(way.proxy.secret_url))
    return session


class Traces:
    """Sends spans of this process's orders; `ca_file` has authorities to believe beside the others. Raises ImportError
    where the extra is not installed."""

    def __init__(self, ca_file: str | None = None) -> None:
        # Imported only here: a gateway without tracing does not carry the tracer.
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        resource = Resource.create({"service.name": "farebox", "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        way = way_to(traces_url(), ca_file)
        exporter = OTLPSpanExporter(session=_session(way))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("farebox", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send the spans that are still queued."""
        self._provider.shutdown()

    def saw(self, passage: Passage) -> None:
        sent = {name: passage.head.first(name.encode()).decode("latin-1") for name in ("traceparent", "tracestate")}
        operation = FORMATS[passage.path].DESCRIBED.operation if passage.path in FORMATS else "chat"
        span = self._tracer.start_span(
            f"{operation} {passage.model}".strip(),
            context=self._propagator.extract(sent),
            kind=self._trace.SpanKind.SERVER,
            start_time=passage.began_ns,
            attributes=_attributes(passage, operation),
        )
        if passage.status >= 400:
            span.set_status(self._trace.StatusCode.ERROR, passage.error_type)
        around = self._trace.set_span_in_context(span)
        for name, since_ns, until_ns in _steps(passage):
            step = self._tracer.start_span(name, context=around, start_time=since_ns)
            step.end(until_ns)
        span.end(passage.ended_ns)


def _steps(passage: Passage) -> list[tuple[str, int, int]]:
    """The steps that the exchange came to: name, start and end in nanoseconds since 1970."""
    steps = [
        ("hold", passage.began_ns, passage.held_ns),
        ("forward", passage.held_ns, passage.head_ns),
        ("name the generation", passage.head_ns, passage.given_ns),
        ("meter", passage.given_ns, passage.read_ns),
        ("settle", passage.read_ns, passage.ended_ns),
    ]
    return [(name, since_ns, until_ns) for name, since_ns, until_ns in steps if since_ns and until_ns]


def _attributes(passage: Passage, operation: str) -> dict[str, str | int | bool]:
    named: dict[str, str | int | bool | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": passage.upstream or "openrouter",
        "gen_ai.request.model": passage.model or None,
        "gen_ai.response.model": passage.served_model,
        "gen_ai.response.id": passage.generation_id or None,
        "gen_ai.usage.input_tokens": passage.prompt_tokens,
        "gen_ai.usage.output_tokens": passage.answer_tokens,
        "http.request.method": "POST",
        "http.response.status_code": passage.status,
        "url.path": passage.path,
        "error.type": passage.error_type or None,
        "farebox.outcome": outcome_of(passage),
        "farebox.attempts": len(passage.attempts) or None,
        "farebox.streamed": passage.streamed,
        "farebox.fare.events": passage.events,
        "farebox.account": passage.caller.account.name if passage.caller is not None else None,
    }
    return {name: value for name, value in named.items() if value is not None}
