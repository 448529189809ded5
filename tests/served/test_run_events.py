"""What an Actor that runs elsewhere asks of this gateway as its platform: charges, items, records, its message."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from apify_client import ApifyClientAsync

from farebox.core.allowances import Limits
from farebox.core.books import TopUp
from farebox.core.callers import Caller
from farebox.core.errors import Refusal
from farebox.core.plans import BUILT_IN
from farebox.platform.priced_events import KEY_SECONDS, PRICED_EVENT, PricedEvents
from farebox.platform.storages import PUSHED_BYTES_MAX, PUSHED_MAX
from farebox.platform.store import SqlRuns
from farebox.store.books import SqlStore
from farebox.store.sqlite import Sqlite
from tests.books import new_books
from tests.gateway import Gateway, Response
from tests.served.test_runs import ACTOR, ask, begin, begun_run, error_of, state
from tests.served.test_store import set_limits
from tools.postgres import Cluster


@pytest.fixture
def key(shared_gateway: Gateway, request: pytest.FixtureRequest) -> str:
    return shared_gateway.new_key(request.node.name, "--plan", "paying", "--prepaid", "1")


def charge(gateway: Gateway, key: str, run: dict[str, Any], body: Any, idempotency_key: str = "k") -> Response:
    return ask(gateway, key, f"/v2/actor-runs/{run['id']}/charge", body, idempotency_key=idempotency_key)


@pytest.mark.parametrize(("plan", "usd"), [("paying", "0.00007"), ("free", "0.0007")])
def test_events_are_a_fare_of_the_runs_account(shared_gateway: Gateway, plan: str, usd: str) -> None:
    name = f"events of a {plan} one"
    key = shared_gateway.new_key(name, "--plan", plan, "--prepaid", "1")
    run = begin(shared_gateway, key, {})
    for _ in range(2):
        answer = charge(shared_gateway, key, run, {"eventName": PRICED_EVENT, "count": 7})
        assert (answer.status, answer.json) == (201, {})
    assert state(shared_gateway, key, run)["chargedEventCounts"] == {PRICED_EVENT: 7}
    (line,) = shared_gateway.orders(name)
    assert (line["events"], line["amount_usd"], line["model"]) == (7, f"-{usd}", PRICED_EVENT)
    assert charge(shared_gateway, key, run, {"eventName": PRICED_EVENT, "count": 3}, "another").status == 201
    assert charge(shared_gateway, key, run, {"eventName": PRICED_EVENT, "count": 1, "requestId": "r"}, "").status == 201
    assert state(shared_gateway, key, run)["chargedEventCounts"] == {PRICED_EVENT: 11}
    shared_gateway.audit()


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"eventName": "another", "count": 1}, (404, "record-not-found")),
        ({"eventName": "apify-actor-start", "count": 1}, (405, "cannot-charge-apify-event")),
        ({"eventName": PRICED_EVENT}, (400, "invalid-request")),
        ({"eventName": PRICED_EVENT, "count": 0}, (400, "invalid-request")),
        ({"eventName": PRICED_EVENT, "count": -5}, (400, "invalid-request")),
        ({"eventName": PRICED_EVENT, "count": 1.5}, (400, "invalid-request")),
        ({"eventName": PRICED_EVENT, "count": "7"}, (400, "invalid-request")),
        ({"eventName": PRICED_EVENT, "count": 10_000_001}, (400, "invalid-request")),
        ({"eventName": 5, "count": 1}, (400, "invalid-request")),
        (b"nonsense", (400, "invalid-request")),
    ],
)
def test_a_charge_that_is_wrong_says_how(
    shared_gateway: Gateway, key: str, body: Any, refusal: tuple[int, str]
) -> None:
    run = begin(shared_gateway, key, {})
    assert error_of(charge(shared_gateway, key, run, body)) == refusal
    assert state(shared_gateway, key, run)["chargedEventCounts"] == {}


def test_an_idempotency_key_that_is_wrong_is_named(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {})
    good = {"eventName": PRICED_EVENT, "count": 1}
    assert error_of(charge(shared_gateway, key, run, good, "k" * 257)) == (400, "invalid-idempotency-key")
    assert error_of(charge(shared_gateway, key, run, good, "a\tb")) == (400, "invalid-idempotency-key")
    assert charge(shared_gateway, key, run, good, "k" * 256).status == 201


def test_nobody_else_charges_a_run_or_leaves_things_in_it(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {})
    other = shared_gateway.new_key("a stranger to the run", "--plan", "paying", "--prepaid", "1")
    store = f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}/records/OUTPUT"
    for method, path in (
        ("POST", f"/v2/actor-runs/{run['id']}/charge"),
        ("POST", "/v2/actor-runs/nobody/charge"),
        ("POST", f"/v2/actor-runs/{run['id']}/reboot"),
        ("PUT", f"/v2/actor-runs/{run['id']}"),
        ("POST", f"/v2/datasets/{run['defaultDatasetId']}/items"),
        ("PUT", store),
    ):
        body = json.dumps({"eventName": PRICED_EVENT, "count": 1, "statusMessage": "mine"}).encode()
        headers = {"authorization": f"Bearer {other}", "content-type": "application/json"}
        assert error_of(shared_gateway.request(method, path, body, headers)) == (404, "record-not-found"), path
    assert state(shared_gateway, key, run)["statusMessage"] != "mine"


def test_calls_for_one_run_are_counted_by_the_second(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {})
    answers = [charge(shared_gateway, key, run, {"eventName": "another", "count": 1}) for _ in range(400)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert error_of(refused[0]) == (429, "rate-limit-exceeded")
    assert refused[0].headers["x-ratelimit-limit"] == "60"


def test_items_records_and_a_message_are_left(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {})
    items = f"/v2/datasets/{run['defaultDatasetId']}/items"
    assert ask(shared_gateway, key, items, {"a": 1}).status == 201
    assert ask(shared_gateway, key, items, b' [{"a": 0.10}, {"a": 3}]').status == 201
    assert ask(shared_gateway, key, items).body == b'[{"a": 1},{"a": 0.10},{"a": 3}]'
    for wrong in (b"5", b"[5]", b"", b'{"a":', b'[{"a": 1}, "b"]'):
        assert error_of(ask(shared_gateway, key, items, wrong)) == (400, "invalid-value")
    assert len(ask(shared_gateway, key, items).json) == 3
    many = ask(shared_gateway, key, items, b"[" + b",".join([b"{}"] * (PUSHED_MAX + 1)) + b"]")
    assert error_of(many) == (400, "invalid-value")
    long = ask(shared_gateway, key, items, {"a": "x" * PUSHED_BYTES_MAX})
    assert error_of(long) == (413, "request-too-large")
    assert len(ask(shared_gateway, key, items).json) == 3
    headers = {"authorization": f"Bearer {key}", "content-type": "text/plain; charset=utf-8"}
    records = f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}/records"
    assert shared_gateway.request("PUT", f"{records}/STATE", b"so far", headers).status == 201
    read = ask(shared_gateway, key, f"{records}/STATE")
    assert (read.body, read.headers["content-type"]) == (b"so far", "text/plain; charset=utf-8")
    assert error_of(shared_gateway.request("PUT", f"{records}/a%20b", b"", headers)) == (400, "invalid-record-key")
    json_headers = {**headers, "content-type": "application/json"}
    told = shared_gateway.request("PUT", f"/v2/actor-runs/{run['id']}", b'{"statusMessage": "half"}', json_headers)
    assert told.json["data"]["statusMessage"] == "half"
    assert error_of(ask(shared_gateway, key, f"/v2/actor-runs/{run['id']}/reboot", {})) == (403, "job-finished")


def test_the_platforms_client_charges(shared_gateway: Gateway, key: str) -> None:
    async def main() -> None:
        client = ApifyClientAsync(key, api_url=f"http://127.0.0.1:{shared_gateway.port}")
        run = await client.actor("apify/openrouter").start(run_input={})
        await client.run(run.id).charge(PRICED_EVENT, count=5, idempotency_key="a key")
        await client.run(run.id).charge(PRICED_EVENT, count=5, idempotency_key="a key")
        found = await client.run(run.id).get()
        assert found is not None
        assert found.charged_event_counts == {PRICED_EVENT: 5}
        assert found.pricing_info is not None
        await client.dataset(run.default_dataset_id).push_items([{"a": 1}])
        await client.key_value_store(run.default_key_value_store_id).set_record("STATE", {"so": "far"})
        record = await client.key_value_store(run.default_key_value_store_id).get_record("STATE")
        assert record is not None
        assert record["value"] == {"so": "far"}
        updated = await client.run(run.id).update(status_message="half")
        assert updated.status_message == "half"

    asyncio.run(main())


def test_after_its_time_a_key_stands_for_another_charge(tmp_path: Path) -> None:
    """As on the platform: a biller that repeats too late is charged twice there."""
    now_us = 10**15

    async def main() -> None:
        nonlocal now_us
        new_books(tmp_path / "books.db")
        async with AsyncExitStack() as stack:
            store = await SqlStore.open(Sqlite(tmp_path / "books.db"), "worker")
            stack.push_async_callback(store.close)
            runs = SqlRuns(store.engine, "worker")
            stack.push_async_callback(runs.close)
            account = await store.create_account("a", "paying", 0, 1)
            await store.carry_out(TopUp("t", account.id, 10**9, 1))
            key = await store.create_key(account.id, "", b"d", "h", 1)
            # A limit of orders is none of charges.
            await set_limits(store, account.id, key.id, Limits(requests_per_minute=1, orders_at_once=1), now_us)
            caller = Caller(account, key, BUILT_IN["paying"])
            run = begun_run(key, worker="worker", started_us=now_us)
            await runs.create_run(run)
            events = PricedEvents(runs, store, now_us=lambda: now_us)
            for seconds, counted in ((0, 4), (KEY_SECONDS - 1, 4), (KEY_SECONDS + 1, 8)):
                now_us = 10**15 + seconds * 1_000_000
                await events.bill(caller, run, PRICED_EVENT, 4, "k")
                assert await runs.billed_events("r") == {PRICED_EVENT: counted}
            # A fare above what is there is booked all the same; what comes after it is not.
            await events.bill(caller, run, PRICED_EVENT, 10_000_000, "dear")
            with pytest.raises(Refusal) as refused:
                await events.bill(caller, run, PRICED_EVENT, 1, "one more")
            assert refused.value.status == 402

    asyncio.run(main())


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_multiplier_changes_what_events_cost_and_not_how_many_there_are(
    tmp_path: Path, postgres: Cluster, engine: str
) -> None:
    (tmp_path / "farebox.toml").write_text('[plans.resale]\nmultiplier = 2.5\nshows = "fare"\n')
    books = {} if engine == "sqlite" else {"FAREBOX_DATABASE_URL": postgres.new_database()}
    with Gateway(tmp_path, **books) as gateway:
        key = gateway.new_key("a", "--plan", "resale", "--prepaid", "1")
        run = begin(gateway, key, {})
        for count, name in ((101, "one"), (101, "another"), (1, "a third")):
            assert charge(gateway, key, run, {"eventName": PRICED_EVENT, "count": count}, name).status == 201
        assert state(gateway, key, run)["chargedEventCounts"] == {PRICED_EVENT: 203}
        assert [line["amount_usd"] for line in gateway.orders("a")] == ["-0.00253", "-0.00253", "-0.00003"]
        gateway.audit()


def test_a_run_shows_what_its_event_costs(shared_gateway: Gateway, key: str) -> None:
    run = begin(shared_gateway, key, {})
    actor = ask(shared_gateway, key, ACTOR).json["data"]
    for pricing in (run["pricingInfo"], actor["pricingInfos"][-1]):
        prices = pricing["pricingPerEvent"]["actorChargeEvents"][PRICED_EVENT]["eventTieredPricingUsd"]
        assert (prices["FREE"]["tieredEventPriceUsd"], prices["GOLD"]["tieredEventPriceUsd"]) == (0.0001, 0.00001)
