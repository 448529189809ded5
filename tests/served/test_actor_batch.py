"""Farebox as an Actor run with an end: an item for each order, totals in OUTPUT; through moves and deaths."""

import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.actor import Actor, run_environment
from tests.apify_platform import Platform
from tests.gateway import Gateway, eventually
from tests.served.test_actor import CHAT, EVENT, FLAT
from tests.served.test_crash_points import charged
from tests.served.test_runs import ask, begin, items_of, output, state

SLOW = {**CHAT, "model": "sim/echo:token-ms=40,tokens=10"}


class Machine:
    """One run of the Actor, on as many machines as it takes; the gateway is its platform."""

    def __init__(self, folder: Path, platform: Platform, gateway: Gateway, token: str, upstream: int) -> None:
        self.platform = platform
        self.gateway = gateway
        self.token = token
        self.run = begin(gateway, token, {})
        self._folder = folder
        self._upstream = upstream
        self.machines: list[Actor] = []

    def give(self, given: Any) -> None:
        """The run's input, as the platform keeps it."""
        body = given if isinstance(given, bytes) else json.dumps(given).encode()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        records = f"/v2/key-value-stores/{self.run['defaultKeyValueStoreId']}/records"
        assert self.gateway.request("PUT", f"{records}/INPUT", body, headers).status == 201

    def begin(self, **environment: str) -> Actor:
        """The run's process on a new machine."""
        folder = self._folder / f"machine-{len(self.machines) + 1}"
        folder.mkdir()
        url = f"http://127.0.0.1:{self._upstream}/api/v1"
        counted = {"APIFY_CHARGED_ACTOR_EVENT_COUNTS": json.dumps(self.state["chargedEventCounts"])}
        given = {"APIFY_META_ORIGIN": "API", "FAREBOX_UPSTREAM_URL": url, **counted, **environment}
        actor = Actor(folder, **run_environment(self.platform, self.run, self.token, **given))
        self.machines.append(actor)
        actor.begin()
        return actor

    @property
    def state(self) -> dict[str, Any]:
        return state(self.gateway, self.token, self.run)

    @property
    def items(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = items_of(self.gateway, self.token, self.run)
        return found

    @property
    def output(self) -> Any:
        return output(self.gateway, self.token, self.run)

    @property
    def counted(self) -> int:
        counts: dict[str, int] = self.state["chargedEventCounts"]
        return counts.get(EVENT, 0)

    @property
    def fares(self) -> dict[str, int]:
        """Events by order, over the books of all machines; one that went along counts once."""
        found: dict[str, int] = {}
        for actor in self.machines:
            actor.audit()
            for line in actor.statement(f"run {self.run['id']}")["lines"]:
                if line.get("events"):
                    found[line["hold_id"]] = line["events"]
        return found


@pytest.fixture
def machine(tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int) -> Machine:
    return Machine(tmp_path, platform, shared_gateway, key, upstream)


@pytest.mark.parametrize("given", [b"{}", b"", {"requests": []}])
def test_a_run_without_orders_says_how_to_use_the_server(machine: Machine, given: Any) -> None:
    machine.give(given)
    assert machine.begin().finish() == 0
    assert machine.items == []
    assert machine.output["endpoint"] == f"{machine.platform.standby_url}/api/v1"
    assert machine.output["endpoint"] in machine.output["example"]
    assert "This Actor is a server" in machine.state["statusMessage"]
    assert machine.counted == 0


def test_each_order_leaves_an_item_and_is_charged(machine: Machine) -> None:
    orders = [
        {**CHAT, "model": "sim/penny"},
        {"custom_id": "m", "url": "/v1/messages", "body": CHAT},
        {**CHAT, "model": "sim/nobody"},
        {"url": "/v1/embeddings", "body": {"model": "sim/embedder", "input": "Hello"}},
    ]
    machine.give({"requests": "\n".join(map(json.dumps, orders)) + "\nnonsense", "concurrency": 2})
    assert machine.begin().finish() == 0
    items = sorted(machine.items, key=lambda item: item["number"])
    assert [item["number"] for item in items] == [1, 2, 3, 4, 5]
    assert [item["status"] for item in items] == [200, 200, 404, 200, 400]
    assert [bool(item["error"]) for item in items] == [False, False, True, False, True]
    assert items[1]["answer"]["type"] == "message"
    assert items[1]["usage"]
    assert (machine.output["served"], machine.output["failed"]) == (3, 2)
    assert machine.counted == machine.output["fareEvents"] == sum(item["fare_events"] or 0 for item in items) == 102
    assert "3 orders served, 2 failed" in machine.state["statusMessage"]


@pytest.mark.parametrize(
    ("given", "field"),
    [(b"nonsense", "JSON"), ({"requests": 5}, "requests"), ({"requests": [], "concurrency": 0}, "concurrency")],
)
def test_an_input_that_is_wrong_fails_the_run_and_names_its_field(machine: Machine, given: Any, field: str) -> None:
    machine.give(given)
    assert machine.begin().finish() == 1
    assert field in machine.state["statusMessage"]


def test_a_run_stays_within_what_it_may_charge(machine: Machine) -> None:
    machine.give({"requests": [{**CHAT, "model": "sim/penny"}] * 5, "maxTotalChargeUsd": 0.0025})
    assert machine.begin(ACTOR_MAX_TOTAL_CHARGE_USD="0.0045").finish() == 0
    assert Counter(item["status"] for item in machine.items) == {200: 2, 402: 3}
    assert machine.counted == 200


def test_the_users_own_limit_counts_too(machine: Machine) -> None:
    machine.give({"requests": [{**CHAT, "model": "sim/penny"}] * 5})
    assert machine.begin(ACTOR_MAX_TOTAL_CHARGE_USD="0.0035").finish() == 0
    assert Counter(item["status"] for item in machine.items) == {200: 3, 402: 2}


def begun(machine: Machine) -> list[int]:
    """The orders that the platform knows to be under way."""
    answer = ask(
        machine.gateway,
        machine.token,
        f"/v2/key-value-stores/{machine.run['defaultKeyValueStoreId']}/records/FAREBOX-BEGUN",
    )
    return list(answer.json["orders"]) if answer.status == 200 else []


def test_a_move_goes_on_and_pays_for_nothing_twice(machine: Machine, upstream: int) -> None:
    known = charged(upstream)
    machine.give({"requests": [SLOW] * 30, "concurrency": 4})
    first = machine.begin()
    eventually(lambda: len(machine.items) > 5, 30)
    machine.platform.tell("migrating", timeRemainingSecs=8)
    eventually(lambda: ("POST", f"/v2/actor-runs/{machine.run['id']}/reboot") in machine.platform.calls, 20)
    assert first.process.poll() is None, "to end by itself would end the run"
    assert "Moving to another machine" in machine.state["statusMessage"]
    first.kill()
    done = len(machine.items)
    assert done < 30
    assert machine.begin().finish() == 0
    items = machine.items
    assert sorted(item["number"] for item in items) == list(range(1, 31))
    assert {item["status"] for item in items} == {200}
    assert "20 of 30 orders" in "".join(actor.log.read_text() for actor in machine.machines)
    assert ("PUT", f"/v2/actor-runs/{machine.run['id']}") in machine.platform.calls
    assert len(charged(upstream)) == len(known) + 30
    assert machine.output["served"] == 30
    assert machine.counted == sum(machine.fares.values()) == machine.output["fareEvents"]


def test_a_death_without_a_word_places_nothing_twice(machine: Machine, upstream: int) -> None:
    """The machine dies with its books: orders that were under way are told as cut off, and not placed again."""
    known = charged(upstream)
    machine.give({"requests": [SLOW] * 20, "concurrency": 4})
    first = machine.begin()
    eventually(lambda: len(machine.items) > 4, 30)
    first.kill()
    time.sleep(1)
    lost = set(begun(machine)) - {item["number"] for item in machine.items}
    assert machine.begin().finish() == 0
    items = machine.items
    assert sorted(item["number"] for item in items) == list(range(1, 21))
    cut_off = {item["number"] for item in items if item["status"] == 410}
    assert cut_off == lost != set()
    assert "moved to another machine" in next(item for item in items if item["status"] == 410)["error"]["message"]
    assert len(charged(upstream)) <= len(known) + 20


def test_a_death_on_the_same_machine_gives_what_was_paid_for(machine: Machine, upstream: int) -> None:
    known = charged(upstream)
    machine.give({"requests": [SLOW] * 20, "concurrency": 4})
    actor = machine.begin()
    eventually(lambda: len(machine.items) > 4, 30)
    actor.kill()
    actor.begin()
    assert actor.finish() == 0
    items = machine.items
    assert sorted(item["number"] for item in items) == list(range(1, 21))
    assert {item["status"] for item in items} <= {200, 410}
    # The kill may have come before an order was sent: that one is cut off, and cost nothing.
    answered = sum(item["status"] == 200 for item in items)
    assert 16 <= answered <= len(charged(upstream)) - len(known) <= 20


def test_an_item_that_may_have_been_pushed_is_not_pushed_twice(machine: Machine) -> None:
    count = 0

    def fault(method: str, path: str, number: int) -> Any:
        nonlocal count
        if method != "POST" or not path.endswith("/items"):
            return None
        count += 1
        return ("drop after", "drop before", "500", None)[count % 4]

    machine.platform.fault = fault
    machine.give({"requests": [CHAT] * 12, "concurrency": 3})
    assert machine.begin().finish(120) == 0
    assert sorted(item["number"] for item in machine.items) == list(range(1, 13))


@pytest.mark.parametrize("way", ["aborting", "SIGTERM"])
def test_an_end_before_the_last_order_leaves_what_was_served(machine: Machine, way: str) -> None:
    machine.give({"requests": [SLOW] * 60, "concurrency": 4})
    actor = machine.begin()
    eventually(lambda: len(machine.items) > 3, 30)
    if way == "aborting":
        machine.platform.tell("aborting")
    else:
        actor.signal(signal.SIGTERM)
    assert actor.finish(25) == 1
    assert 3 < len(machine.items) < 60
    assert machine.counted == sum(machine.fares.values()) == len(machine.items)
    assert f"{len(machine.items)} of 60 orders" in machine.state["statusMessage"]


def test_on_ones_own_machine_it_reads_and_writes_the_folder_of_the_tools(tmp_path: Path) -> None:
    inputs = tmp_path / "storage" / "key_value_stores" / "default"
    inputs.mkdir(parents=True)
    (inputs / "INPUT.json").write_text(json.dumps({"requests": [CHAT, {**CHAT, "model": "sim/nobody"}]}))
    actor = Actor(
        tmp_path, APIFY_META_ORIGIN="", ACTOR_TEST_PAY_PER_EVENT="1", APIFY_ACTOR_PRICING_INFO=json.dumps(FLAT)
    )
    actor.begin()
    assert actor.finish() == 0, actor.log.read_text()
    items = [json.loads(path.read_bytes()) for path in sorted((tmp_path / "storage/datasets/default").iterdir())]
    assert sorted(item["status"] for item in items) == [200, 404]
    told = json.loads((inputs / "OUTPUT.json").read_bytes())
    assert (told["served"], told["failed"], told["fareEvents"]) == (1, 1, 1)
    (entry,) = (tmp_path / "storage/datasets/charging-log").iterdir()
    assert json.loads(entry.read_bytes())["charged_count"] == 1
    actor.begin()
    assert actor.finish() == 0
    assert len(list((tmp_path / "storage/datasets/default").iterdir())) == 2
    # Its storages purged, it is another run, whose orders are others.
    for path in [*(tmp_path / "storage/datasets/default").iterdir(), *inputs.iterdir()]:
        path.unlink()
    (inputs / "INPUT.json").write_text(json.dumps({"requests": [{**CHAT, "model": "sim/penny"}]}))
    actor.begin()
    assert actor.finish() == 0
    (item,) = [json.loads(path.read_bytes()) for path in (tmp_path / "storage/datasets/default").iterdir()]
    assert (item["status"], item["fare_events"]) == (200, 100)
