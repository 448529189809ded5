"""What an operator watches, and nobody else."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway import Gateway, eventually
from tests.served.test_formats import order


def scraped(gateway: Gateway, **headers: str) -> dict[tuple[str, ...], float]:
    """Each sample's value, by its name and its labels' values."""
    answer = gateway.request("GET", "/metrics", headers=headers)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.body.decode())
    samples = [sample for each in families for sample in each.samples]
    return {(sample.name.removeprefix("farebox_"), *sample.labels.values()): sample.value for sample in samples}


def counted(found: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """The orders by format, model and outcome."""
    return {name[1:]: value for name, value in found.items() if name[0] == "orders_total"}


def gauges(gateway: Gateway) -> dict[str, float]:
    found = scraped(gateway)
    holds = {name[1]: value for name, value in found.items() if name[0] == "holds"}
    return {**holds, "in progress": found["orders_in_progress",], "streams": found["streams_open",]}


def test_holds_and_orders_are_counted(gateway: Gateway) -> None:
    gateway.chat()
    for fault in ("usage=missing", "usage=missing,no-generation-header", "cut-at-byte=0,no-generation-header"):
        gateway.chat(simulate=fault)
    asking = threading.Thread(target=lambda: gateway.chat(simulate="token-ms=100,tokens=20", stream=True))
    asking.start()
    expected = {"in progress": 1, "pending": 1, "open": 2, "unresolved": 1, "jobs": 0, "streams": 1}
    eventually(lambda: gauges(gateway) == expected)
    asking.join()
    assert gauges(gateway) == {**expected, "in progress": 0, "pending": 0, "streams": 0}
    assert gateway.audit()["unresolved"] == 1


def test_metrics_are_not_for_callers(gateway: Gateway, tmp_path: Path) -> None:
    for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"):
        assert gateway.request("GET", "/metrics", headers={name: "10.0.0.1"}).status == 403
    gateway.stop()
    with Gateway(tmp_path, FAREBOX_METRICS_TOKEN="a token") as another:
        for headers in ({}, {"authorization": f"Bearer {another.key}"}, {"authorization": "Bearer a toke"}):
            assert another.request("GET", "/metrics", headers=headers).status == 401
        assert scraped(another, authorization="Bearer a token", via="proxy")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_became_of_orders_is_counted_over_all_workers(tmp_path: Path, workers: str) -> None:
    with Gateway(tmp_path, "--workers", workers, FAREBOX_RECONCILE_SECONDS="60") as gateway:
        for _ in range(6):
            assert gateway.chat().status == 200
        gateway.chat(stream=True)
        order(gateway, "/embeddings")
        gateway.chat(simulate="status=503", model="sim/echo:online:made-up")  # variants, which callers can make up
        gateway.chat(simulate="cut-at-event=2", stream=True)
        gateway.chat(model="made/up")
        gateway.chat(max_tokens=-1)
        gateway.chat("sk-fb-nobody")
        key = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json", "idempotency-key": "k"}
        body = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}
        for _ in range(2):
            gateway.request("POST", "/v1/chat/completions", body, key)
        chat = "chat/completions"
        eventually(lambda: scraped(gateway).get(("reconciled_total", "cost")) == 1)
        # What another worker served is counted a moment later.
        eventually(lambda: sum(counted(scraped(gateway)).values()) == 15)
        found = scraped(gateway)
        assert counted(found) == {
            (chat, "sim/echo", "posted"): 8,
            ("embeddings", "sim/embedder", "posted"): 1,
            (chat, "sim/echo", "voided"): 1,
            (chat, "sim/echo", "open"): 1,
            (chat, "sim/echo", "replayed"): 1,
            (chat, "", "refused"): 3,
        }
        errors = {(name[1], name[3]): value for name, value in found.items() if name[0] == "errors_total"}
        assert errors == {
            ("provider_unavailable", "503"): 1,
            ("not_found", "404"): 1,
            ("invalid_request", "400"): 1,
            ("authentication", "401"): 1,
        }
        events = sum(value for name, value in found.items() if name[0] == "fare_events_total")
        fares = sum(value for name, value in found.items() if name[0] == "fares_usd_total")
        assert events == 9, "and the tenth fare was asked for afterwards"
        assert round(fares * 1e5) == events
        assert found["first_byte_added_seconds_count", chat] == 10
        assert found["upstream_first_byte_seconds_count", chat] == 10
        assert found["commands_total",] >= 24
        assert found["commit_seconds_count",] > 0
        assert (found["writer_queue",], found["late_settlements",], found["outbox_lag_seconds",]) == (0, 0, 0)


def test_each_order_is_one_line_of_log(gateway: Gateway) -> None:
    gateway.chat(messages=[{"role": "user", "content": "A secret of nobody's business"}])
    gateway.chat(stream=True)
    gateway.chat(simulate="status=503")
    gateway.chat("sk-fb-nobody-at-all-knows-this-key")
    lines = [json.loads(line) for line in gateway.stop().splitlines() if line.startswith("{")]
    orders = [line for line in lines if line["logger"] == "farebox.orders"]
    assert [(line["outcome"], line["status"]) for line in orders] == [
        ("posted", 200),
        ("posted", 200),
        ("voided", 503),
        ("refused", 401),
    ]
    first = orders[0]
    assert (first["account"], first["model"], first["fare_events"], first["fare_usd"]) == (
        "demo",
        "sim/echo",
        1,
        "0.00001",
    )
    assert first["generation"].startswith("gen-")
    assert first["total_ms"] >= first["upstream_ms"] > 0
    assert orders[1]["streamed"]
    assert orders[3]["error"] == "authentication"
    assert "account" not in orders[3]


def test_no_order_is_logged_where_that_is_not_wanted(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_ORDER_LOG="false") as gateway:
        gateway.chat()
        assert "farebox.orders" not in gateway.stop()


# Spans


class Collector(BaseHTTPRequestHandler):
    """What an OpenTelemetry collector is, as far as spans are told to it."""

    spans: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["content-length"]))
        told = ExportTraceServiceRequest.FromString(
            gzip.decompress(body) if self.headers.get("content-encoding") else body
        )
        for resource in told.resource_spans:
            Collector.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


def test_an_orders_steps_are_told_to_a_collector(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever).start()
    url = f"http://127.0.0.1:{server.server_port}"
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    try:
        with Gateway(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=url) as gateway:
            headers = {"traceparent": f"00-{trace}-{parent}-01"}
            prompt = "nobody else must read this"
            answer = order(
                gateway, "/chat/completions", headers=headers, messages=[{"role": "user", "content": prompt}]
            )
            assert answer.status == 200
            order(gateway, "/messages", "sk-fb-nobody")
    finally:
        server.shutdown()
        server.server_close()
    by_name = {span.name: span for span in Collector.spans}
    assert set(by_name) == {"chat sim/echo", "chat", "hold", "forward", "name the generation", "meter", "settle"}
    whole = by_name["chat sim/echo"]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (trace, parent)
    steps = [by_name[name] for name in ("hold", "forward", "name the generation", "meter", "settle")]
    assert {step.parent_span_id for step in steps} == {whole.span_id}
    assert steps[0].start_time_unix_nano == whole.start_time_unix_nano
    for before, after in pairwise(steps):
        assert before.end_time_unix_nano == after.start_time_unix_nano
    assert steps[-1].end_time_unix_nano == whole.end_time_unix_nano
    told = {each.key: each.value for each in whole.attributes}
    assert told["gen_ai.operation.name"].string_value == "chat"
    assert told["gen_ai.request.model"].string_value == "sim/echo"
    assert told["gen_ai.response.id"].string_value == answer.headers["x-generation-id"]
    assert told["gen_ai.usage.input_tokens"].int_value > 0
    assert told["farebox.fare.events"].int_value == 1
    refused = {each.key: each.value.string_value for each in by_name["chat"].attributes}
    assert refused["error.type"] == "authentication"
    everything = "".join(map(str, Collector.spans))
    assert prompt not in everything
    assert "sk-fb" not in everything
