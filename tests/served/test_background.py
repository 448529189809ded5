"""Background tasks of a real gateway that meet what nobody foresaw in its books: named, counted, and well again."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.gateway import Gateway, eventually
from tests.served.test_metrics import scraped


def change(gateway: Gateway, statement: str) -> None:
    """What another program may do to the books: triggers and rows that Farebox knows nothing of."""
    with closing(sqlite3.connect(gateway.folder / "data" / "farebox.db", isolation_level=None)) as books:
        books.execute(statement)


def failures(gateway: Gateway) -> dict[str, float]:
    found = scraped(gateway)
    return {name[1]: value for name, value in found.items() if name[0] == "task_failures_total" and value}


def test_reconciling_that_fails_begins_again_and_orders_go_on(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_RECONCILE_SECONDS="60") as gateway:
        assert failures(gateway) == {}
        change(
            gateway,
            "CREATE TRIGGER strange BEFORE UPDATE OF ask_us ON hold WHEN OLD.state = 'open' AND NEW.state = 'open'"
            " BEGIN SELECT RAISE(ABORT, 'strange, from postgresql://u:hunter2@db'); END",
        )
        assert gateway.chat(simulate="usage=missing").status == 200
        eventually(lambda: failures(gateway).get("reconcile", 0) >= 1)
        eventually(lambda: gateway.request("GET", "/readyz").json.get("tasks_not_running") == ["reconcile"])
        assert gateway.request("GET", "/readyz").status == 200
        assert gateway.chat().status == 200
        change(gateway, "DROP TRIGGER strange")
        eventually(lambda: [line["what"] for line in gateway.orders()] == ["fare", "fare"])
        assert gateway.request("GET", "/readyz").json["tasks_not_running"] == []
        assert list(failures(gateway)) == ["reconcile"]
        gateway.audit()
    told = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    (first, *_) = [line for line in told if "task reconcile" in line["message"]]
    assert "IntegrityError" in first["exception"]
    assert "claim_questions" in first["exception"]
    assert "hunter2" not in gateway.log.read_text()


def test_without_the_watch_over_callers_no_order_is_taken_by_a_balancer_and_no_key_is_remembered(
    gateway: Gateway,
) -> None:
    key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
    assert gateway.chat(key).status == 200
    published = "UPDATE published_plans SET plans = {}"
    change(gateway, "CREATE TABLE kept AS SELECT plans FROM published_plans")
    change(gateway, published.format("'strange'"))
    change(gateway, "UPDATE directory_revision SET value = value + 1")
    eventually(lambda: gateway.request("GET", "/readyz").status == 503)
    assert "callers does not run" in gateway.request("GET", "/readyz").error["message"]
    assert gateway.chat(key).status == 200
    change(
        gateway,
        "UPDATE api_key SET revoked_us = 1 WHERE label = 'a' OR account_id = (SELECT id FROM account WHERE name = 'a')",
    )
    assert gateway.chat(key).status == 401, "at once: it was not remembered"
    change(gateway, published.format("(SELECT plans FROM kept)"))
    eventually(lambda: gateway.request("GET", "/readyz").status == 200)
    assert list(failures(gateway)) == ["callers"]
    gateway.audit()


def test_a_run_that_cannot_be_ended_is_ended_once_it_can(gateway: Gateway) -> None:
    change(
        gateway,
        "CREATE TRIGGER strange BEFORE UPDATE OF finished_us ON run WHEN NEW.finished_us IS NOT NULL"
        " BEGIN SELECT RAISE(ABORT, 'strange'); END",
    )
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    order = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}
    run = gateway.request("POST", "/v2/acts/apify~openrouter/runs", order, headers).json["data"]
    path = f"/v2/actor-runs/{run['id']}"
    eventually(lambda: failures(gateway).get("runs", 0) >= 1)
    assert gateway.request("GET", path, headers=headers).json["data"]["status"] == "RUNNING"
    change(gateway, "DROP TRIGGER strange")
    eventually(lambda: gateway.request("GET", path, headers=headers).json["data"]["status"] != "RUNNING")
    assert list(failures(gateway)) == ["runs"]
    gateway.audit()
