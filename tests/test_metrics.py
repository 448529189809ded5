"""What an operator watches, and nobody else."""

import threading
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.gateway import Gateway, eventually


def gauges(gateway: Gateway, **headers: str) -> dict[str, float]:
    answer = gateway.request("GET", "/metrics", headers=headers)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.body.decode())
    return {sample.labels.get("state", sample.name): sample.value for each in families for sample in each.samples}


def test_holds_and_orders_are_counted(gateway: Gateway) -> None:
    gateway.chat()
    for fault in ("usage=missing", "usage=missing,no-generation-header", "cut-at-byte=0,no-generation-header"):
        gateway.chat(simulate=fault)
    asking = threading.Thread(target=lambda: gateway.chat(simulate="first-token-ms=2000"))
    asking.start()
    expected = {"farebox_orders_in_progress": 1, "pending": 1, "open": 2, "unresolved": 1}
    eventually(lambda: gauges(gateway) == expected)
    asking.join()
    assert gauges(gateway) == {**expected, "farebox_orders_in_progress": 0, "pending": 0}
    assert gateway.audit()["unresolved"] == 1


def test_metrics_are_not_for_callers(gateway: Gateway, tmp_path: Path) -> None:
    for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"):
        assert gateway.request("GET", "/metrics", headers={name: "10.0.0.1"}).status == 403
    gateway.stop()
    with Gateway(tmp_path, FAREBOX_METRICS_TOKEN="a token") as another:
        for headers in ({}, {"authorization": f"Bearer {another.key}"}, {"authorization": "Bearer a toke"}):
            assert another.request("GET", "/metrics", headers=headers).status == 401
        assert gauges(another, authorization="Bearer a token", via="proxy")
