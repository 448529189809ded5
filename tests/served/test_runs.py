"""The run API of the Apify platform: runs, what they leave, who may see it, and what is wrong said in its own words."""

import asyncio
import gzip
import json
import re
import sqlite3
import threading
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import brotli
import pytest

from farebox.batch.entries import ORDERS_MAX
from farebox.core.callers import Account, Key
from farebox.core.headers import RequestHead
from farebox.core.plans import BUILT_IN
from farebox.core.runs import ItemOutcome, Record, Run
from farebox.platform.items import Wanted, render
from farebox.platform.runs import ACCOUNT_RUNS_MAX, TAKE_UP_SECONDS, Runner
from farebox.platform.store import SqlRuns
from farebox.ports import BooksUnavailable
from farebox.store.books import SqlStore
from farebox.store.sqlite import Sqlite
from farebox.web.routes import app
from tests import in_process
from tests.books import new_books
from tests.gateway import Gateway, Response, eventually
from tests.in_process import services
from tests.programs import simulator
from tests.served.test_batch import assert_paid_once
from tests.served.test_crash_points import charged

CHAT = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
SLOW = {**CHAT, "model": "sim/echo:token-ms=60"}
ACTOR = "/v2/acts/apify~openrouter"
PAGING = ("offset", "limit", "count", "total", "desc")


@pytest.fixture
def key(shared_gateway: Gateway, request: pytest.FixtureRequest) -> str:
    return shared_gateway.new_key(request.node.name, "--plan", "paying", "--prepaid", "1")


def ask(gateway: Gateway, key: str, path: str, body: Any = None, **headers: str) -> Response:
    method = "GET" if body is None else "POST"
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    sent = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    return gateway.request(method, path, data, {**sent, **{name.replace("_", "-"): v for name, v in headers.items()}})


def run_of(answer: Response, status: int = 201) -> dict[str, Any]:
    assert answer.status == status, answer.body
    data: dict[str, Any] = answer.json["data"]
    return data


def begin(gateway: Gateway, key: str, body: Any, query: str = "?waitForFinish=60") -> dict[str, Any]:
    return run_of(ask(gateway, key, f"{ACTOR}/runs{query}", body))


def error_of(answer: Response) -> tuple[int, str]:
    error = answer.json["error"]
    assert set(error) == {"type", "message"}
    assert error["message"]
    return answer.status, error["type"]


def items_of(gateway: Gateway, key: str, run: dict[str, Any], query: str = "") -> Any:
    return ask(gateway, key, f"/v2/datasets/{run['defaultDatasetId']}/items{query}").json


def state(gateway: Gateway, key: str, run: dict[str, Any]) -> dict[str, Any]:
    return run_of(ask(gateway, key, f"/v2/actor-runs/{run['id']}"), 200)


def output(gateway: Gateway, key: str, run: dict[str, Any]) -> Any:
    return ask(gateway, key, f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}/records/OUTPUT").json


def test_a_run_without_input_says_how_to_use_the_server(shared_gateway: Gateway, key: str) -> None:
    answer = ask(shared_gateway, key, f"{ACTOR}/runs?waitForFinish=999999", {})
    run = run_of(answer)
    assert answer.headers["location"] == f"/v2/actor-runs/{run['id']}"
    assert (run["status"], run["exitCode"], run["isStatusMessageTerminal"]) == ("SUCCEEDED", 0, True)
    assert items_of(shared_gateway, key, run) == []
    told = output(shared_gateway, key, run)
    assert told["endpoint"] == f"http://127.0.0.1:{shared_gateway.port}/api/v1"
    assert told["endpoint"] in told["example"]
    log = ask(shared_gateway, key, f"/v2/actor-runs/{run['id']}/log").body.decode()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S", line) for line in log.splitlines())
    assert shared_gateway.orders(shared_gateway.cli("account", "list")[-1]["name"]) == []


@pytest.mark.parametrize("kind", ["list", "lines"])
def test_a_run_serves_its_orders_and_leaves_an_item_for_each(shared_gateway: Gateway, key: str, kind: str) -> None:
    orders = [CHAT, {"custom_id": "m", "url": "/v1/messages", "body": CHAT}, {**CHAT, "model": "sim/nobody"}, "none"]
    lines = "\n".join(order if isinstance(order, str) else json.dumps(order) for order in orders)
    given = {"requests": orders if kind == "list" else lines, "concurrency": 2}
    run = begin(shared_gateway, key, given)
    assert run["status"] == "SUCCEEDED"
    assert "2 orders served, 2 failed" in run["statusMessage"]
    found = items_of(shared_gateway, key, run)
    assert [item["number"] for item in found] == [1, 2, 3, 4]
    assert [item["status"] for item in found] == [200, 200, 404, 400]
    assert [bool(item["error"]) for item in found] == [False, False, True, True]
    assert found[1]["answer"]["type"] == "message"
    totals = output(shared_gateway, key, run)
    assert (totals["served"], totals["failed"], totals["fareUsd"], totals["fareEvents"]) == (2, 2, "0.00002", 2)
    assert Decimal(totals["costUsd"]) == sum(Decimal(item["cost_usd"]) for item in found[:2])
    store = f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}"
    assert ask(shared_gateway, key, f"{store}/records/INPUT").json == given
    assert [each["key"] for each in ask(shared_gateway, key, f"{store}/keys").json["data"]["items"]] == ["OUTPUT"]
    dataset = ask(shared_gateway, key, f"/v2/datasets/{run['defaultDatasetId']}").json["data"]
    assert (dataset["itemCount"], dataset["actRunId"]) == (4, run["id"])
    log = ask(shared_gateway, key, f"/v2/logs/{run['id']}").body.decode()
    assert "order 3: 404 the model `sim/nobody`" in log


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"nonsense", "JSON"),
        (b"[]", "object"),
        ({"requests": 5}, "requests"),
        ({"requests": {"a": 1}}, "requests"),
        ({"requests": [], "concurrency": 0}, "concurrency"),
        ({"requests": [], "concurrency": 65}, "concurrency"),
        ({"requests": [], "concurrency": "many"}, "concurrency"),
        ({"requests": [], "maxTotalChargeUsd": "much"}, "maxTotalChargeUsd"),
        ({"requests": [], "maxTotalChargeUsd": -1}, "maxTotalChargeUsd"),
        ({"requests": [], "maxTotalChargeUsd": 1e-12}, "maxTotalChargeUsd"),
    ],
)
def test_an_input_that_is_wrong_names_its_field(shared_gateway: Gateway, key: str, body: Any, field: str) -> None:
    answer = ask(shared_gateway, key, f"{ACTOR}/runs", body)
    assert error_of(answer) == (400, "invalid-input")
    assert field in answer.json["error"]["message"]
    assert ask(shared_gateway, key, "/v2/actor-runs").json["data"]["total"] == 0


@pytest.mark.parametrize(
    "query", ["timeout=x", "memory=1", "memory=99999", "maxTotalChargeUsd=x", "waitForFinish=-1", "timeout=99999999999"]
)
def test_an_option_that_is_wrong_is_named(shared_gateway: Gateway, key: str, query: str) -> None:
    answer = ask(shared_gateway, key, f"{ACTOR}/runs?{query}", {})
    assert error_of(answer) == (400, "invalid-value")
    assert query.partition("=")[0] in answer.json["error"]["message"]


def test_a_token_may_come_in_the_query_and_must_be_somebodys(shared_gateway: Gateway, key: str) -> None:
    assert shared_gateway.request("GET", f"/v2/users/me?token={key}").json["data"]["isPaying"] is True
    assert error_of(shared_gateway.request("GET", "/v2/users/me")) == (401, "token-not-provided")
    for token in ("sk-fb-nobody", "apify_api_x", "' OR '1'='1"):
        refused = shared_gateway.request("GET", "/v2/users/me", headers={"authorization": f"Bearer {token}"})
        assert error_of(refused) == (401, "user-or-token-not-found")
    assert shared_gateway.request("GET", f"/v1/key?token={key}").status == 401  # nowhere else


def test_what_a_run_left_is_its_accounts_alone(shared_gateway: Gateway, key: str) -> None:
    stranger = shared_gateway.new_key("a stranger to runs", "--plan", "free", "--prepaid", "1")
    run = begin(shared_gateway, key, {"requests": [CHAT]})
    ids = (run["id"], run["defaultDatasetId"], run["defaultKeyValueStoreId"], run["defaultRequestQueueId"])
    run_id, dataset, store, queue = ids
    for path in (
        f"/v2/actor-runs/{run_id}",
        f"/v2/actor-runs/{run_id}/log",
        f"/v2/actor-runs/{run_id}/dataset/items",
        f"/v2/logs/{run_id}",
        f"/v2/datasets/{dataset}",
        f"/v2/datasets/{dataset}/items",
        f"/v2/key-value-stores/{store}",
        f"/v2/key-value-stores/{store}/keys",
        f"/v2/key-value-stores/{store}/records/OUTPUT",
        f"/v2/request-queues/{queue}",
        f"/v2/users/{run['userId']}",
    ):
        assert ask(shared_gateway, key, path).status == 200, path
        assert error_of(ask(shared_gateway, stranger, path)) == (404, "record-not-found"), path
        unknown = path
        for known in (*ids, run["userId"]):
            unknown = unknown.replace(known, "nobody")
        assert error_of(ask(shared_gateway, key, unknown)) == (404, "record-not-found"), unknown
    assert error_of(ask(shared_gateway, stranger, f"/v2/actor-runs/{run_id}/abort", b"")) == (404, "record-not-found")
    assert ask(shared_gateway, stranger, "/v2/actor-runs").json["data"]["items"] == []
    assert ask(shared_gateway, stranger, "/v2/users/me").json["data"]["isPaying"] is False


def test_items_come_as_they_are_asked_for(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {"requests": [{**CHAT, "#": n} for n in range(3)] + ["none"]})
    path = f"/v2/datasets/{run['defaultDatasetId']}/items"
    page = ask(shared_gateway, key, f"{path}?offset=1&limit=2&desc=1&fields=number,status")
    assert page.json == [{"number": 3, "status": 200}, {"number": 2, "status": 200}]
    assert [page.headers[f"x-apify-pagination-{name}"] for name in PAGING] == ["1", "2", "2", "4", "true"]
    whole = ask(shared_gateway, key, path)
    assert [whole.headers[f"x-apify-pagination-{name}"] for name in PAGING] == ["0", "999999999999", "4", "4", "false"]
    assert b'"cost":2.55e-06' in whole.body  # as it came
    lines = ask(shared_gateway, key, f"{path}?format=jsonl&omit=answer,usage,error").body.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2, 3, 4]
    assert "answer" not in json.loads(lines[0])
    table = ask(shared_gateway, key, f"{path}?format=csv&fields=number,status,fare_usd")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert table.body.decode("utf-8-sig").splitlines() == [
        "number,status,fare_usd",
        *(f"{number},200,0.00001" for number in (1, 2, 3)),
        "4,400,",
    ]
    wide = ask(shared_gateway, key, f"{path}?format=csv&bom=0").body.decode()
    assert "answer/choices/0/message/content" in wide.splitlines()[0]
    assert "0.00000255" in wide
    for query, name in (("format=xlsx", "format"), ("offset=-1", "offset"), ("limit=x", "limit")):
        refused = ask(shared_gateway, key, f"{path}?{query}")
        assert error_of(refused) == (400, "invalid-value")
        assert name in refused.json["error"]["message"]
    aliases = (f"/v2/actor-runs/{run['id']}/dataset/items", f"{ACTOR}/runs/last/dataset/items")
    assert [ask(shared_gateway, key, alias).body for alias in aliases] == [whole.body] * 2


def test_more_items_than_fit_into_memory_are_asked_for_page_by_page(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {})

    async def fill() -> None:
        other = SqlRuns(Sqlite(shared_gateway.folder / "data" / "farebox.db"), "another")
        for number in (1, 2, 3):
            await other.push(run["defaultDatasetId"], number, b'{"number":%d,"a":"%b"}' % (number, b"x" * 30_000_000))
        await other.close()

    asyncio.run(fill())
    path = f"/v2/datasets/{run['defaultDatasetId']}/items"
    refused = ask(shared_gateway, key, path)
    assert error_of(refused) == (400, "invalid-value")
    assert "limit: ask for fewer" in refused.json["error"]["message"]
    pages = [ask(shared_gateway, key, f"{path}?limit=1&offset={offset}&fields=number").json for offset in range(3)]
    assert pages == [[{"number": number}] for number in (1, 2, 3)]


def test_clean_items_have_no_hidden_members_and_none_is_empty() -> None:
    items = [b'{"#a":1,"b":1.50}', b'{"#a":1}', b"{}"]
    assert render(items, Wanted(skip_empty=True, skip_hidden=True))[0] == b'[{"b":1.50}]'
    assert render(items, Wanted(skip_hidden=True))[0] == b'[{"b":1.50},{},{}]'
    assert render(items, Wanted())[0] == b'[{"#a":1,"b":1.50},{"#a":1},{}]'


@pytest.mark.parametrize("actors", ["acts", "actors"])
def test_a_run_is_waited_for_and_its_output_is_the_answer(shared_gateway: Gateway, key: str, actors: str) -> None:
    path = f"/v2/{actors}/apify~openrouter"
    sync = ask(shared_gateway, key, f"{path}/run-sync", {"requests": [CHAT]})
    assert (sync.status, sync.json["served"]) == (201, 1)
    items = ask(shared_gateway, key, f"{path}/run-sync-get-dataset-items?fields=status", {"requests": [CHAT]})
    assert (items.status, items.json) == (201, [{"status": 200}])
    assert items.headers["x-apify-pagination-total"] == "1"
    assert "endpoint" in ask(shared_gateway, key, f"{path}/run-sync").json
    record = ask(shared_gateway, key, f"{path}/run-sync?outputRecordKey=NONE", {})
    assert (record.status, record.body) == (201, b"")
    assert ask(shared_gateway, key, f"{path}/runs/last").json["data"]["status"] == "SUCCEEDED"
    listed = ask(shared_gateway, key, f"{path}/runs?limit=2&desc=1").json["data"]
    assert (listed["total"], listed["count"], len(listed["items"])) == (4, 2, 2)
    assert listed["items"][0]["startedAt"] >= listed["items"][1]["startedAt"]


def test_what_is_not_here_is_said_in_the_platforms_words(shared_gateway: Gateway, key: str) -> None:
    assert error_of(ask(shared_gateway, key, "/v2/acts/apify~web-scraper/runs", {})) == (404, "record-not-found")
    assert error_of(ask(shared_gateway, key, "/v2/nothing")) == (404, "page-not-found")
    assert error_of(ask(shared_gateway, key, "/v2/users/me", {})) == (405, "method-not-allowed")
    assert error_of(ask(shared_gateway, key, "/v2/actor-builds/nobody")) == (404, "record-not-found")
    assert error_of(ask(shared_gateway, key, f"{ACTOR}/runs", b"{}", content_encoding="zstd")) == (
        415,
        "unsupported-content-encoding",
    )


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", brotli.compress)]
)
def test_a_packed_input_is_unpacked_within_bounds(shared_gateway: Gateway, key: str, encoding: str, pack: Any) -> None:
    given = {"requests": [{**CHAT, "messages": [{"role": "user", "content": "Hello " * 5000}]}]}
    packed = pack(json.dumps(given).encode())
    run = run_of(ask(shared_gateway, key, f"{ACTOR}/runs?waitForFinish=60", packed, content_encoding=encoding))
    assert items_of(shared_gateway, key, run)[0]["status"] == 200
    for wrong in (packed[:-10], b"nonsense", packed + b"more"):
        refused = ask(shared_gateway, key, f"{ACTOR}/runs", wrong, content_encoding=encoding)
        assert error_of(refused) == (400, "invalid-request"), wrong[-20:]
    before = peak_kib(shared_gateway)
    bomb = brotli.compress(b" " * 400_000_000, quality=1) if encoding == "br" else pack(b" " * 400_000_000)
    assert error_of(ask(shared_gateway, key, f"{ACTOR}/runs", bomb, content_encoding=encoding)) == (
        413,
        "request-too-large",
    )
    assert peak_kib(shared_gateway) - before < 200_000


def peak_kib(gateway: Gateway) -> int:
    """The most memory that the process ever had."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def test_a_run_may_not_cost_more_than_it_may(shared_gateway: Gateway, key: str) -> None:
    body = {"requests": [CHAT] * 12, "concurrency": 1}
    for given, query in (
        (0.0001, ""),
        ("0.0001", ""),
        (None, "&maxTotalChargeUsd=0.0001"),
        (5, "&maxTotalChargeUsd=0.0001"),
    ):
        limit = {} if given is None else {"maxTotalChargeUsd": given}
        run = begin(shared_gateway, key, {**body, **limit}, f"?waitForFinish=60{query}")
        statuses = [item["status"] for item in items_of(shared_gateway, key, run)]
        assert 0 < statuses.count(402) < 12, (given, query)
        assert Decimal(output(shared_gateway, key, run)["fareUsd"]) <= Decimal("0.0001")


def test_an_aborted_run_ends_what_it_began(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {"requests": [SLOW] * 60, "concurrency": 4}, "")
    assert (run["status"], run["finishedAt"]) == ("RUNNING", None)
    assert state(shared_gateway, key, run)["status"] == "RUNNING"
    eventually(lambda: len(items_of(shared_gateway, key, run)) >= 2)
    aborted = run_of(ask(shared_gateway, key, f"/v2/actor-runs/{run['id']}/abort", b""), 200)
    assert aborted["status"] in ("ABORTING", "ABORTED")
    ended = run_of(ask(shared_gateway, key, f"/v2/actor-runs/{run['id']}?waitForFinish=60"), 200)
    assert ended["status"] == "ABORTED"
    found = items_of(shared_gateway, key, run)
    assert 2 <= len(found) < 60
    assert all(item["status"] == 200 for item in found)
    assert output(shared_gateway, key, run)["served"] == len(found)
    again = run_of(ask(shared_gateway, key, f"/v2/actor-runs/{run['id']}/abort", b""), 200)
    assert again["status"] == "ABORTED"


def test_a_run_that_takes_too_long_is_timed_out(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {"requests": [SLOW] * 60, "concurrency": 2}, "?timeout=1&waitForFinish=60")
    assert (run["status"], run["options"]["timeoutSecs"]) == ("TIMED-OUT", 1)
    assert {item["status"] for item in items_of(shared_gateway, key, run)} == {200}
    refused = ask(shared_gateway, key, f"{ACTOR}/run-sync?timeout=1", {"requests": [SLOW] * 60, "concurrency": 1})
    assert error_of(refused) == (400, "run-failed")
    eventually(lambda: shared_gateway.audit()["orders"]["pending"] == 0)


def test_a_run_whose_key_is_revoked_stops_there(gateway: Gateway) -> None:
    key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
    other = gateway.cli("key", "create", "a")["key"]
    run = begin(gateway, key, {"requests": [SLOW] * 60, "concurrency": 2}, "")
    eventually(lambda: len(items_of(gateway, other, run)) >= 1)
    gateway.cli("key", "revoke", key)
    ended = run_of(ask(gateway, other, f"/v2/actor-runs/{run['id']}?waitForFinish=60"), 200)
    assert (ended["status"], ended["exitCode"]) == ("FAILED", 1)
    assert "was revoked" in ended["statusMessage"]
    statuses = [item["status"] for item in items_of(gateway, other, run)]
    assert statuses.count(200) < 60
    assert len(gateway.orders("a")) == statuses.count(200)


def test_a_run_whose_key_expires_or_whose_account_is_closed_stops_there(gateway: Gateway) -> None:
    other = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
    soon = datetime.now(UTC) + timedelta(seconds=5)
    for key, said in (
        (gateway.cli("key", "create", "a", "--expires", soon.isoformat())["key"], "has expired"),
        (gateway.cli("key", "create", "a")["key"], "account is closed"),
    ):
        run = begin(gateway, key, {"requests": [SLOW] * 60, "concurrency": 1}, "")
        eventually(lambda run=run: len(items_of(gateway, other, run)) >= 1)  # type: ignore[misc]
        if "closed" in said:
            gateway.cli("account", "close", "a")
            gateway.cli("account", "reopen", "a")
            gateway.cli("account", "top-up", "a", "1")
        ended = run_of(ask(gateway, other, f"/v2/actor-runs/{run['id']}?waitForFinish=60"), 200)
        assert (ended["status"], ended["exitCode"]) == ("FAILED", 1)
        assert said in ended["statusMessage"]
        items = items_of(gateway, other, run)
        assert 0 < [item["status"] for item in items].count(200) < 60
        assert len(items) < 60


def test_a_log_is_streamed_until_the_run_ends(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {"requests": [SLOW] * 22, "concurrency": 8}, "")
    log = ask(shared_gateway, key, f"/v2/actor-runs/{run['id']}/log?stream=1&raw=1").body.decode()
    assert "20 of 22 orders" in log
    assert log.rstrip().endswith("22 orders served, 0 failed; fares $0.00022")
    assert state(shared_gateway, key, run)["status"] == "SUCCEEDED"


@pytest.fixture
def upstream() -> Iterator[int]:
    with simulator() as port:
        yield port


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_run_outlives_the_process_and_pays_for_nothing_twice(tmp_path: Path, upstream: int, workers: str) -> None:
    url = f"http://127.0.0.1:{upstream}/api/v1"
    settings = {"OPENROUTER_API_KEY": "sk-or-x", "FAREBOX_WORKERS": workers, "FAREBOX_RECONCILE_SECONDS": "600"}
    gateway = Gateway(tmp_path, "--upstream", url, **settings)
    with gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        run = begin(gateway, key, {"requests": [SLOW] * 24, "concurrency": 4}, "")
        eventually(lambda: len(items_of(gateway, key, run)) >= 4)
        gateway.kill()
    with gateway:
        answers: list[Response] = []
        waiting = threading.Thread(
            target=lambda: answers.append(ask(gateway, key, f"/v2/actor-runs/{run['id']}?waitForFinish=60"))
        )
        waiting.start()
        waiting.join()
        assert run_of(answers[0], 200)["status"] == "SUCCEEDED"
        found = items_of(gateway, key, run)
        assert [item["number"] for item in found] == list(range(1, 25))
        # 410: the answer was lost with the process; what it cost is asked of the upstream, and charged once.
        assert {item["status"] for item in found} <= {200, 410}
        assert sum(item["status"] == 410 for item in found) <= 4
        totals = output(gateway, key, run)
        assert (totals["orders"], totals["served"]) == (24, sum(item["status"] == 200 for item in found))
        assert_paid_once([item["generation_id"] for item in found], charged(upstream))
        eventually(lambda: gateway.audit()["orders"]["pending"] == 0, seconds=30)


def test_a_run_that_is_gone_on_with_counts_orders_of_unknown_cost_as_their_ceilings(
    tmp_path: Path, upstream: int
) -> None:
    url = f"http://127.0.0.1:{upstream}/api/v1"
    gateway = Gateway(tmp_path, "--upstream", url, OPENROUTER_API_KEY="sk-or-x")
    order = {**CHAT, "model": "sim/echo:usage=missing,token-ms=60"}
    with gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        refused = begin(gateway, key, {"requests": [order], "maxTotalChargeUsd": 0})
        (item,) = items_of(gateway, key, refused)
        limit = 4 * Decimal(item["error"]["metadata"]["ceiling_usd"])
        given = {"requests": [order] * 12, "concurrency": 1, "maxTotalChargeUsd": f"{limit:f}"}
        run = begin(gateway, key, given, "")
        eventually(lambda: len(items_of(gateway, key, run)) >= 2)
        gateway.kill()
    with gateway:
        run_of(ask(gateway, key, f"/v2/actor-runs/{run['id']}?waitForFinish=60"), 200)
        assert [item["status"] for item in items_of(gateway, key, run)][4:] == [402] * 8
        assert len(charged(upstream)) <= 4


def test_runs_of_several_workers_are_one_list_and_each_is_carried_through_once(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_WORKERS="2") as gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        begun = [begin(gateway, key, {"requests": [SLOW] * 80, "concurrency": 1}, "") for _ in range(4)]
        time.sleep(TAKE_UP_SECONDS + 1)
        for run in begun:  # whichever process hears of it
            ask(gateway, key, f"/v2/actor-runs/{run['id']}/abort", b"")
        for run in begun:
            ended = run_of(ask(gateway, key, f"/v2/actor-runs/{run['id']}?waitForFinish=60"), 200)
            assert ended["status"] == "ABORTED"
            assert ask(gateway, key, f"/v2/logs/{run['id']}").body.count(b" begins: ") == 1
        assert ask(gateway, key, "/v2/actor-runs").json["data"]["total"] == 4
        gateway.audit()


def test_an_abort_that_another_process_was_told_of_is_heeded(gateway: Gateway) -> None:
    run = begin(gateway, gateway.key, {"requests": [SLOW] * 80, "concurrency": 1}, "")

    async def tell() -> None:
        other = SqlRuns(Sqlite(gateway.folder / "data" / "farebox.db"), "another")
        assert await other.change_run(run["id"], "ABORTING", "")
        await other.close()

    asyncio.run(tell())
    ended = run_of(ask(gateway, gateway.key, f"/v2/actor-runs/{run['id']}?waitForFinish=60"), 200)
    assert ended["status"] == "ABORTED"


def test_a_run_is_left_at_a_stop_and_gone_on_with_at_the_next_start(tmp_path: Path, upstream: int) -> None:
    url = f"http://127.0.0.1:{upstream}/api/v1"
    gateway = Gateway(tmp_path, "--upstream", url, OPENROUTER_API_KEY="sk-or-x")
    with gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        run = begin(gateway, key, {"requests": [{**CHAT, "model": "sim/echo:token-ms=400"}] * 16, "concurrency": 4}, "")
        eventually(lambda: len(items_of(gateway, key, run)) >= 4)
        # The stop lasts: an order that was refused again and again meanwhile would be given up.
        lasting = threading.Thread(target=lambda: gateway.chat(key, "first-token-ms=9000"))
        lasting.start()
        eventually(lambda: "held" in [line["what"] for line in gateway.orders("a")[4:]])
        gateway.stop()
        lasting.join()
        assert gateway.process.returncode == 0
    with gateway:
        ended = run_of(ask(gateway, key, f"/v2/actor-runs/{run['id']}?waitForFinish=60"), 200)
        assert ended["status"] == "SUCCEEDED"
        assert [item["status"] for item in items_of(gateway, key, run)] == [200] * 16
        assert len(charged(upstream)) == 17
        log = ask(gateway, key, f"/v2/logs/{run['id']}").body.decode()
        assert log.count("begins: 16 orders") == 2
        gateway.audit()


def begun_run(key: Key, name: str = "r", worker: str = "w", started_us: int = 1) -> Run:
    """A row as a run that was begun has it; its dataset and its store are called after it."""
    return Run(
        id=name,
        account_id=key.account_id,
        key_id=key.id,
        worker=worker,
        status="RUNNING",
        origin="API",
        input=b"",
        timeout_seconds=0,
        memory_mbytes=128,
        limit_nanos=None,
        dataset_id=f"d-{name}",
        store_id=f"s-{name}",
        queue_id="q",
        started_us=started_us,
    )


def test_who_has_much_to_be_read_or_shaped_holds_up_nobody(tmp_path: Path, upstream: int) -> None:
    async def main() -> None:
        async with services(tmp_path, f"http://127.0.0.1:{upstream}/api/v1") as found:
            await found.accounts.create("a", "paying", 0, 10**9)
            key, _, _ = await found.accounts.create_key("a", "")
            pages = app(found)
            run = run_of(await in_process.ask(pages, "POST", f"{ACTOR}/runs", key, {}))
            items = f"/v2/datasets/{run['defaultDatasetId']}/items"
            left = await in_process.ask(pages, "POST", items, key, {"a": [0] * 300_000})
            assert left.status == 201
            # All of it is read before the last member is found to be wrong, so no order is placed.
            many = {"requests": [CHAT] * ORDERS_MAX, "maxTotalChargeUsd": "much"}
            for method, path, query, body, status in (
                ("GET", items, "format=csv", None, 200),
                ("POST", f"{ACTOR}/runs", "", many, 400),
            ):
                asked = asyncio.create_task(in_process.ask(pages, method, path, key, body, query))
                answered = 0
                while not asked.done():
                    await asyncio.sleep(0.02)
                    assert (await in_process.ask(pages, "GET", "/healthz")).status == 200
                    answered += 1
                assert (await asked).status == status
                assert answered > 10, path

    asyncio.run(main())


def test_no_account_takes_every_place_there_is(tmp_path: Path, upstream: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of runs, and of orders in the background."""
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-test")
    monkeypatch.setenv("FAREBOX_BACKGROUND_ORDERS_MAX", "3")
    slow = {**CHAT, "model": "sim/echo:first-token-ms=8000"}
    aside = {"model": slow["model"], "input": "Hello", "background": True}

    async def main() -> None:
        async with services(tmp_path, f"http://127.0.0.1:{upstream}/api/v1") as found:
            keys = []
            for name in ("many", "few"):
                await found.accounts.create(name, "paying", 0, 10**9)
                keys.append((await found.accounts.create_key(name, ""))[0])
            pages, (many, few) = app(found), keys
            for path, body, most, status in (
                (f"{ACTOR}/runs", {"requests": [slow]}, ACCOUNT_RUNS_MAX, 201),
                ("/api/v1/responses", aside, 2, 200),
            ):
                asked = [in_process.ask(pages, "POST", path, many, body) for _ in range(most)]
                assert {each.status for each in await asyncio.gather(*asked)} == {status}
                one_more = await in_process.ask(pages, "POST", path, many, body)
                assert (one_more.status, one_more.headers["retry-after"]) == (429, "5")
                assert "of this account" in one_more.json["error"]["message"]
                assert (await in_process.ask(pages, "POST", path, few, body)).status == status

    asyncio.run(main())


def test_what_is_put_into_a_going_runs_dataset_takes_no_orders_place(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {"requests": [SLOW] * 3, "concurrency": 1}, "")
    items = f"/v2/datasets/{run['defaultDatasetId']}/items"
    assert ask(shared_gateway, key, items, {"mine": 1}).status == 201
    ended = run_of(ask(shared_gateway, key, f"/v2/actor-runs/{run['id']}?waitForFinish=60"), 200)
    assert ended["status"] == "SUCCEEDED"
    found = ask(shared_gateway, key, items).json
    assert [item.get("number") for item in found] == [1, 2, 3, None]
    assert found[3] == {"mine": 1}


class Stumbling(SqlRuns):
    """Runs in books that are busy when one of these is read for the first time."""

    def __init__(self, path: Path) -> None:
        super().__init__(Sqlite(path), "w")
        self.left = {"run", "outcomes", "key_of_id"}

    def _stumble(self, name: str) -> None:
        if name in self.left:
            self.left.remove(name)
            raise BooksUnavailable("the books did not answer within 10 s", is_in_doubt=True)

    async def run(self, account_id: int, run_id: str) -> Run | None:
        self._stumble("run")
        return await super().run(account_id, run_id)

    async def outcomes(self, dataset_id: str) -> list[ItemOutcome]:
        self._stumble("outcomes")
        return await super().outcomes(dataset_id)

    async def key_of_id(self, key_id: int) -> tuple[Account, Key] | None:
        self._stumble("key_of_id")
        return await super().key_of_id(key_id)


def test_a_run_waits_for_books_that_are_busy(tmp_path: Path, upstream: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-test")

    async def main() -> None:
        async with services(tmp_path, f"http://127.0.0.1:{upstream}/api/v1") as found:
            await found.accounts.create("a", "paying", 0, 10**9)
            key, _, _ = await found.accounts.create_key("a", "")
            runs = Stumbling(tmp_path / "books.db")
            runner = Runner(runs, found.agents.orders, found.admission, BUILT_IN, "w", "", found.supervisor)
            caller = await found.callers.identify(RequestHead(tokens=(key,)))
            run = await runner.begin(caller, json.dumps({"requests": [CHAT] * 2}).encode(), origin="API")
            while not run.is_finished:
                await asyncio.sleep(0.1)
                run = await SqlRuns.run(runs, run.account_id, run.id) or run
            assert runs.left == set()
            assert (run.status, run.status_message[:15]) == ("SUCCEEDED", "2 orders served")
            await runs.close()

    asyncio.run(main())


def test_long_inputs_are_read_with_nothing_that_does_not_ask_for_them(tmp_path: Path, upstream: int) -> None:
    asked = {"padding": "x" * 2**22}

    async def main() -> None:
        async with services(tmp_path, f"http://127.0.0.1:{upstream}/api/v1") as found:
            await found.accounts.create("a", "paying", 0, 10**9)
            key, _, _ = await found.accounts.create_key("a", "")
            pages = app(found)
            for _ in range(3):
                run = run_of(await in_process.ask(pages, "POST", f"{ACTOR}/runs", key, asked))
            store = f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}"
            put = await in_process.ask(pages, "PUT", f"{store}/records/LONG", key, asked)
            assert put.status == 201
            tracemalloc.start()
            for path in ("/v2/actor-runs", f"/v2/actor-runs/{run['id']}", f"{store}/keys"):
                assert (await in_process.ask(pages, "GET", path, key)).status == 200
            told = await in_process.ask(pages, "PUT", f"/v2/actor-runs/{run['id']}", key, {"statusMessage": "so far"})
            assert told.status == 200
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 2**21
            shown = await in_process.ask(pages, "GET", f"/v2/actor-runs/{run['id']}", key)
            assert run_of(shown, 200)["stats"]["inputBodyLen"] == len(json.dumps(asked))
            given = await in_process.ask(pages, "GET", f"{store}/records/INPUT", key)
            assert given.json == asked
            listed = await in_process.ask(pages, "GET", f"{store}/keys", key)
            assert [each["key"] for each in listed.json["data"]["items"]] == ["LONG", "OUTPUT"]
            queue = await in_process.ask(pages, "GET", f"/v2/request-queues/{run['defaultRequestQueueId']}", key)
            assert run_of(queue, 200)["actRunId"] == run["id"]

    asyncio.run(main())


def test_a_run_is_found_without_a_look_at_the_accounts_others(tmp_path: Path) -> None:
    new_books(tmp_path / "books.db")
    with closing(sqlite3.connect(tmp_path / "books.db")) as db:
        asked = db.execute(f"EXPLAIN QUERY PLAN {Sqlite.sql.run_named}", {"account": 1, "id": "r"})
        plan = [row[3] for row in asked]
    assert not [step for step in plan if step.startswith("SCAN run") or "run_of_account" in step], plan


@asynccontextmanager
async def runs_in(path: Path) -> AsyncIterator[tuple[SqlRuns, Key]]:
    """Runs in new books, and a key of an account there."""
    new_books(path)
    async with AsyncExitStack() as stack:
        store = await SqlStore.open(Sqlite(path), "w")
        stack.push_async_callback(store.close)
        account = await store.create_account("a", "paying", 0, 1)
        runs = SqlRuns(Sqlite(path), "w")
        stack.push_async_callback(runs.close)
        yield runs, await store.create_key(account.id, "", b"k", "hint", 1)


def test_a_run_of_an_older_version_is_shown_its_input(tmp_path: Path) -> None:
    """Its input stands in its own row."""
    path = tmp_path / "books.db"

    async def main() -> None:
        async with runs_in(path) as (runs, key):
            await runs.create_run(begun_run(key))
            with closing(sqlite3.connect(path)) as db:
                db.execute("UPDATE run SET input = ?", (b'{"requests": []}',))
                db.execute("DELETE FROM run_record")
                db.commit()
            assert await runs.input_of("r") == b'{"requests": []}'
            found = await runs.run(key.account_id, "r")
            assert found is not None
            assert found.input_bytes == 16

    asyncio.run(main())


def test_old_runs_are_forgotten_with_what_they_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with runs_in(tmp_path / "books.db") as (runs, key):
            for name in ("old", "new", "going"):
                await runs.create_run(begun_run(key, name))
                await runs.push(f"d-{name}", 1, b"{}")
                await runs.put_record(f"s-{name}", Record("OUTPUT", "text/plain", b"x"))
                await runs.add_line(name, 1, "line")
            assert await runs.change_run("old", "SUCCEEDED", "", 100, 0)
            assert await runs.change_run("new", "FAILED", "", 300, 1)
            assert not await runs.change_run("new", "SUCCEEDED", "", 400, 0)  # it has finished
            await runs.forget_runs(200)
            left, total = await runs.runs(key.account_id, 0, 10, desc=False)
            assert ([run.id for run in left], total) == (["going", "new"], 2)
            for name, count in (("old", 0), ("new", 1), ("going", 1)):
                assert (await runs.items(f"d-{name}", 0, 10, desc=False))[1] == count
                assert len(await runs.records(f"s-{name}")) == count
                assert len(await runs.lines(name, 0)) == count

    asyncio.run(main())
