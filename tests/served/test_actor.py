"""Farebox as a Standby Actor: the platform's probe, its callers, its charges, its end."""

import http.client
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.actor import Actor, run_environment
from tests.apify_platform import Fault, Platform
from tests.gateway import Gateway, events_of, eventually
from tests.served.test_crash_points import charged
from tests.served.test_runs import ask, begin, state

EVENT = "openrouter-api-usage"
CHAT = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
TIERED = {
    "pricingModel": "PAY_PER_EVENT",
    "pricingPerEvent": {
        "actorChargeEvents": {
            EVENT: {
                "eventTieredPricingUsd": {
                    "FREE": {"tieredEventPriceUsd": 0.0001},
                    "GOLD": {"tieredEventPriceUsd": 0.00001},
                }
            }
        }
    },
}
FLAT = {
    "pricingModel": "PAY_PER_EVENT",
    "pricingPerEvent": {"actorChargeEvents": {EVENT: {"eventPriceUsd": 1e-05, "eventTitle": "Usage"}}},
}


class Started:
    """An Actor in Standby, the run it is, and the token of the user whose run it is."""

    def __init__(self, actor: Actor, platform: Platform, gateway: Gateway, token: str, run: dict[str, Any]) -> None:
        self.actor = actor
        self.platform = platform
        self.token = token
        self.run = run
        self._gateway = gateway

    @property
    def counted(self) -> int:
        counts: dict[str, int] = state(self._gateway, self.token, self.run)["chargedEventCounts"]
        return counts.get(EVENT, 0)

    def audit(self) -> dict[str, Any]:
        return self.actor.audit()


@contextmanager
def standby(
    folder: Path, platform: Platform, gateway: Gateway, token: str, upstream: int, **environment: str
) -> Iterator[Started]:
    run = begin(gateway, token, {})
    url = f"http://127.0.0.1:{upstream}/api/v1"
    given = {"APIFY_META_ORIGIN": "STANDBY", "FAREBOX_UPSTREAM_URL": url, **environment}
    folder.mkdir(exist_ok=True)
    with Actor(folder, **run_environment(platform, run, token, **given)) as actor:
        platform.actor_port = actor.port
        yield Started(actor, platform, gateway, token, run)


def chat(actor: Actor, headers: dict[str, str], path: str = "/api/v1/chat/completions", **body: Any) -> Any:
    return actor.request("POST", path, {**CHAT, **body}, {"content-type": "application/json", **headers})


def test_the_probe_is_answered_before_all_else_and_the_root_says_how_to_use_it(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    probe = {"x-apify-container-server-readiness-probe": "1"}
    settings = {"FAREBOX_ALLOWED_HOSTS": "the-actor.example", "FAREBOX_CALLERS": "actors"}
    with standby(tmp_path, platform, shared_gateway, key, upstream, **settings) as started:
        actor = started.actor
        for path in ("/", "/nowhere", "/api/v1/chat/completions"):
            answer = actor.request("GET", path, headers=probe)
            assert (answer.status, answer.body) == (200, b"ok")
        page = actor.request("GET", "/")
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
        text = page.body.decode()
        assert f"{platform.standby_url}/api/v1/chat/completions" in text
        assert f'href="{platform.standby_url}/docs"' in text
        assert actor.request("HEAD", "/").status == 200


@pytest.mark.parametrize("way", ["bearer", "x-api-key", "query", "platform's own", "dummy beside it"])
def test_a_token_comes_in_each_way_that_clients_know(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int, way: str
) -> None:
    headers = {
        "bearer": {"authorization": f"Bearer {key}"},
        "x-api-key": {"x-api-key": key},
        "query": {},
        "platform's own": {"x-apify-authorization": f"Bearer {key}"},
        "dummy beside it": {"authorization": "Bearer dummy", "x-api-key": key},
    }[way]
    with standby(tmp_path, platform, shared_gateway, key, upstream) as started:
        path = "/v1/chat/completions" + (f"?token={key}&a=b" if way == "query" else "")
        answer = chat(started.actor, headers, path)
        assert answer.status == 200, answer.body
        eventually(lambda: started.counted == 1)
    assert key not in started.actor.log.read_text()
    assert started.audit()["charged_events"] == 1


def test_who_may_not_order_is_told_why(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    shared_gateway.cli("account", "create", "expired", "--plan", "paying")
    expired = shared_gateway.cli("key", "create", "expired")
    shared_gateway.cli("key", "revoke", str(expired["id"]))
    other = shared_gateway.new_key("foreign", "--plan", "paying", "--prepaid", "1")
    with standby(tmp_path, platform, shared_gateway, key, upstream) as started:
        known = charged(upstream)
        for token, status, said in (
            ("", 401, "No token was sent"),
            ("apify_api_nonsense", 401, "does not know this token"),
            (str(expired["key"]), 401, "does not know this token"),
            (other, 403, "another user's"),
        ):
            for path in ("/api/v1/chat/completions", "/api/v1/messages"):
                answer = chat(started.actor, {"authorization": f"Bearer {token}"} if token else {}, path)
                assert answer.status == status, (token, answer.body)
                assert said in json.loads(answer.body)["error"]["message"]
        assert charged(upstream) == known
        assert started.actor.request("GET", "/v2/actor-runs", headers={"authorization": f"Bearer {key}"}).status == 404


def test_whose_a_token_is_is_asked_once(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    def asked() -> int:
        return platform.calls.count(("GET", "/v2/users/me"))

    with standby(tmp_path, platform, shared_gateway, key, upstream) as started:
        before = asked()
        assert [chat(started.actor, {"authorization": f"Bearer {key}"}).status for _ in range(3)] == [200] * 3
        assert asked() == before + 1
        assert [chat(started.actor, {"authorization": "Bearer nobody's"}).status for _ in range(3)] == [401] * 3
        assert asked() == before + 2


def test_actors_only_by_a_header_that_the_platform_sets(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    settings = {"FAREBOX_CALLERS": "actors", "FAREBOX_CALLER_HEADER": "X-Caller-Type: APIFY_ACTOR"}
    with standby(tmp_path, platform, shared_gateway, key, upstream, **settings) as started:
        bearer = {"authorization": f"Bearer {key}"}
        assert chat(started.actor, {**bearer, "x-caller-type": "APIFY_ACTOR"}).status == 200
        for headers in (bearer, {**bearer, "x-caller-type": "USER"}):
            answer = chat(started.actor, headers)
            assert (answer.status, answer.error["metadata"]["error_type"]) == (403, "permission_denied")
            assert "x-caller-type: APIFY_ACTOR" in answer.error["message"]


def test_actors_only_by_the_token_of_a_run(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    name = shared_gateway.cli("account", "list")[-1]["name"]
    token_of_run = str(shared_gateway.cli("key", "create", name)["key"])
    platform.run_tokens.add(token_of_run)
    with standby(tmp_path, platform, shared_gateway, key, upstream, FAREBOX_CALLERS="actors") as started:
        assert chat(started.actor, {"authorization": f"Bearer {token_of_run}"}).status == 200
        answer = chat(started.actor, {"authorization": f"Bearer {key}"})
        assert answer.status == 403
        assert "the token of an Actor's run" in answer.error["message"]


@pytest.mark.parametrize(
    ("pricing", "is_paying", "count", "usd"),
    [(TIERED, "1", 10, "0.0001"), (TIERED, "", 10, "0.001"), (FLAT, "1", 10, "0.0001"), (FLAT, "", 100, "0.001")],
)
def test_a_free_caller_pays_ten_times_as_much_and_is_capped(
    tmp_path: Path,
    platform: Platform,
    shared_gateway: Gateway,
    key: str,
    upstream: int,
    pricing: dict[str, Any],
    is_paying: str,
    count: int,
    usd: str,
) -> None:
    environment = {"APIFY_ACTOR_PRICING_INFO": json.dumps(pricing), "APIFY_USER_IS_PAYING": is_paying}
    with standby(tmp_path, platform, shared_gateway, key, upstream, **environment) as started:
        answer = chat(
            started.actor,
            {"authorization": f"Bearer {key}", "x-openrouter-simulate": "cost=0.0001,tokens=3000"},
            max_tokens=3000,
        )
        assert answer.status == 200
        assert (answer.headers["x-farebox-fare-events"], answer.headers["x-farebox-fare-usd"]) == ("10", usd)
        assert (answer.json["usage"]["completion_tokens"] > 2048) == bool(is_paying)
        eventually(lambda: started.counted == count)
    assert started.audit()["charged_events"] == count


def test_the_platform_says_nothing_of_a_callers_token_for_a_while(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    """It routed the request to its owner's run: that is whose it is."""
    platform.fault = lambda method, path, number: "500" if path.endswith("/users/me") else None
    with standby(tmp_path, platform, shared_gateway, key, upstream) as started:
        assert chat(started.actor, {"authorization": f"Bearer {key}"}).status == 200
    assert started.counted == 1


@pytest.mark.parametrize(
    ("pricing", "is_paying", "limit_usd", "count"),
    [(TIERED, "1", "0.0025", 100), (TIERED, "", "0.025", 100), (FLAT, "", "0.0205", 1000)],
)
def test_what_the_run_may_charge_is_a_limit_before_the_upstream_hears(
    tmp_path: Path,
    platform: Platform,
    shared_gateway: Gateway,
    key: str,
    upstream: int,
    pricing: dict[str, Any],
    is_paying: str,
    limit_usd: str,
    count: int,
) -> None:
    """Two orders of $0.001 fit beside the 50 events that were charged before."""
    limit = {
        "ACTOR_MAX_TOTAL_CHARGE_USD": limit_usd,
        "APIFY_CHARGED_ACTOR_EVENT_COUNTS": json.dumps({EVENT: 50}),
        "APIFY_ACTOR_PRICING_INFO": json.dumps(pricing),
        "APIFY_USER_IS_PAYING": is_paying,
    }
    with standby(tmp_path, platform, shared_gateway, key, upstream, **limit) as started:
        known = charged(upstream)
        answers = [chat(started.actor, {"authorization": f"Bearer {key}"}, model="sim/penny") for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 402, 402]
        assert "is available" in answers[-1].error["message"]
        assert len(charged(upstream)) == len(known) + 2
    assert started.counted == 2 * count


def test_in_a_shared_run_each_request_is_charged_by_its_id_before_its_answer_ends(
    tmp_path: Path, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    free = shared_gateway.new_key(f"free {tmp_path}", "--plan", "free", "--prepaid", "5")
    other = shared_gateway.new_key(f"paying {tmp_path}", "--plan", "paying", "--prepaid", "5")
    with (
        Platform(shared_gateway.port, is_shared=True) as platform,
        standby(tmp_path, platform, shared_gateway, key, upstream, FAREBOX_TENANCY="multi") as started,
    ):
        assert chat(started.actor, {"authorization": f"Bearer {free}"}).status == 403
        for token, streamed in ((free, False), (other, True), (free, True), (other, False)):
            before = len(platform.charges)
            answer = routed(platform, token, "cost=0.0001", stream=streamed)
            assert answer[0] == 200
            assert len(platform.charges) == before + 1
            assert platform.charges[-1]["count"] == 10
            assert platform.charges[-1]["requestId"].startswith("request-")
        assert len({charge["requestId"] for charge in platform.charges}) == 4
    assert (started.audit()["charged_events"], started.audit()["uncharged_events"]) == (40, 0)
    accounts = {each["name"] for each in started.actor.cli("account", "list")}
    assert len([name for name in accounts if name.startswith("user account")]) == 2


def routed(platform: Platform, token: str, simulate: str = "", **body: Any) -> tuple[int, bytes]:
    """An order through the platform's own URL of the Actor."""
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    headers |= {"x-openrouter-simulate": simulate} if simulate else {}
    connection = http.client.HTTPConnection("127.0.0.1", platform.own_port, timeout=30)
    try:
        connection.request("POST", "/standby/api/v1/chat/completions", json.dumps({**CHAT, **body}), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_charge_that_hangs_holds_the_answer_up_for_seconds_only(
    tmp_path: Path, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    with (
        Platform(shared_gateway.port, is_shared=True, pause_seconds=20) as platform,
        standby(tmp_path, platform, shared_gateway, key, upstream, FAREBOX_TENANCY="multi") as started,
    ):
        began = time.monotonic()
        assert routed(platform, key)[0] == 200
        assert time.monotonic() - began < 15
        platform.pause_seconds = 0
        # The request is over, and the platform says so when it is asked again.
        eventually(lambda: started.audit()["uncharged_events"] == 1, 20)
        eventually(lambda: "request-id-invalid" in started.actor.log.read_text(), 20)
    assert started.audit()["charged_events"] == 0


def test_in_a_shared_run_nobody_is_guessed_at(tmp_path: Path, shared_gateway: Gateway, key: str, upstream: int) -> None:
    with (
        Platform(shared_gateway.port, is_shared=True) as platform,
        standby(tmp_path, platform, shared_gateway, key, upstream, FAREBOX_TENANCY="multi") as started,
    ):
        platform.fault = lambda method, path, number: "drop before" if path.endswith("/users/me") else None
        status, body = routed(platform, key)
        assert (status, json.loads(body)["error"]["metadata"]["error_type"]) == (429, "rate_limit_exceeded")
        platform.fault = lambda method, path, number: None
        assert routed(platform, key)[0] == 200
        # Known now: the platform's silence changes nothing.
        platform.fault = lambda method, path, number: "drop before" if path.endswith("/users/me") else None
        assert routed(platform, key)[0] == 200
    assert started.audit()["charged_events"] == 2


def streaming(actor: Actor, key: str, simulate: str) -> tuple[threading.Thread, list[Any]]:
    """A stream in another thread, and its events once it has ended."""
    events: list[Any] = []

    def read() -> None:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        headers["x-openrouter-simulate"] = simulate
        body = {**CHAT, "stream": True, "max_tokens": 500}
        with suppress(http.client.IncompleteRead):
            events.extend(events_of(actor.request("POST", "/api/v1/chat/completions", body, headers).body))

    thread = threading.Thread(target=read)
    thread.start()
    return thread, events


@pytest.mark.parametrize("way", ["aborting", "SIGTERM"])
def test_an_end_lets_answers_end_and_charges_them(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int, way: str
) -> None:
    with standby(tmp_path, platform, shared_gateway, key, upstream) as started:
        thread, events = streaming(started.actor, key, "token-ms=100,tokens=40,cost=0.0005")
        time.sleep(1)
        if way == "aborting":
            platform.tell("aborting")
        else:
            started.actor.signal(signal.SIGTERM)
        eventually(lambda: chat(started.actor, {"authorization": f"Bearer {key}"}).status == 429, 2)
        thread.join(20)
        assert events[-1] == "[DONE]"
        assert started.actor.finish() == 0
    assert started.counted == 50
    assert started.audit()["uncharged_events"] == 0


def test_a_charge_that_failed_until_the_end_is_told_at_the_end(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    with standby(tmp_path, platform, shared_gateway, key, upstream) as started:
        platform.fault = lambda method, path, number: "500" if path.endswith("/charge") else None
        assert chat(started.actor, {"authorization": f"Bearer {key}"}).status == 200
        eventually(lambda: ("POST", f"/v2/actor-runs/{started.run['id']}/charge") in platform.calls)
        platform.tell("aborting")
        platform.fault = lambda method, path, number: None
        assert started.actor.finish() == 0
    assert started.counted == 1


def test_an_answer_that_its_caller_left_is_charged_before_the_end(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    with standby(tmp_path, platform, shared_gateway, key, upstream) as started:
        connection = http.client.HTTPConnection("127.0.0.1", started.actor.port, timeout=20)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        headers["x-openrouter-simulate"] = "token-ms=50,tokens=40"
        connection.request("POST", "/v1/chat/completions", json.dumps({**CHAT, "stream": True}), headers)
        assert connection.getresponse().read(10)
        connection.sock.close()
        connection.close()
        platform.tell("aborting")
        assert started.actor.finish() == 0
        found = started.audit()
        assert found["orders"]["posted"] == 1
        assert started.counted == found["charged_events"] > 0


def test_what_is_not_charged_yet_is_left_at_the_platform_when_it_asks(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    def left(started: Started) -> Any:
        records = f"/v2/key-value-stores/{started.run['defaultKeyValueStoreId']}/records"
        answer = ask(shared_gateway, key, f"{records}/FAREBOX-CHARGES")
        return answer.json if answer.status == 200 else None

    with standby(tmp_path, platform, shared_gateway, key, upstream) as started:
        charge = ("POST", f"/v2/actor-runs/{started.run['id']}/charge")
        platform.tell("persistState", isMigrating=False)
        # An order that is charged at once: until then the platform has been heard.
        assert chat(started.actor, {"authorization": f"Bearer {key}"}).status == 200
        eventually(lambda: started.counted == 1)
        told = platform.calls.count(charge)
        platform.fault = lambda method, path, number: "500" if path.endswith("/charge") else None
        assert chat(started.actor, {"authorization": f"Bearer {key}"}).status == 200
        eventually(lambda: platform.calls.count(charge) > told)
        assert left(started) is None, "there was nothing to leave before"
        platform.tell("persistState", isMigrating=False)
        eventually(lambda: left(started) is not None)
        *_, order = started.actor.orders_of(started.run)
        assert [carried["cost"] for carried in left(started)["orders"]] == [order["cost_usd"]]
        assert key not in json.dumps(left(started))
        platform.fault = lambda method, path, number: None
        eventually(lambda: started.counted == 2, 20)
    assert left(started) == {"counted": 2, "orders": [], "charges": []}


@pytest.mark.parametrize("fault", ["429", "500", "drop before", "drop after"])
def test_a_move_to_another_machine_loses_no_charge(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int, fault: Fault
) -> None:
    """The first machine cannot tell its fares, and takes its books along when it goes."""
    run = begin(shared_gateway, key, {})
    given = {
        "APIFY_META_ORIGIN": "STANDBY",
        "FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1",
        "FAREBOX_GRACE_SECONDS": "100",  # a migration leaves less, whatever is set
    }
    bearer = {"authorization": f"Bearer {key}", "x-openrouter-simulate": "cost=0.0003"}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with Actor(tmp_path / "one", **run_environment(platform, run, key, **given)) as one:
        assert chat(one, bearer).status == 200
        eventually(lambda: len(platform.charges) == 1)
        platform.fault = lambda method, path, number: fault if path.endswith("/charge") else None
        assert chat(one, bearer).status == 200
        thread, _ = streaming(one, key, "token-ms=200,tokens=200")
        time.sleep(1)
        platform.tell("migrating", timeRemainingSecs=7)
        eventually(lambda: ("POST", f"/v2/actor-runs/{run['id']}/reboot") in platform.calls, 30)
        thread.join(10)
        one.kill()
    counted = state(shared_gateway, key, run)["chargedEventCounts"].get(EVENT, 0)
    assert counted == (60 if fault == "drop after" else 30)
    platform.fault = lambda method, path, number: None
    given["APIFY_CHARGED_ACTOR_EVENT_COUNTS"] = json.dumps({EVENT: counted})
    with Actor(tmp_path / "two", **run_environment(platform, run, key, **given)) as two:
        assert chat(two, bearer).status == 200
        eventually(lambda: two.audit()["orders"]["open"] == 0, 30)
    found = two.audit()
    assert found["uncharged_events"] == 0
    total = state(shared_gateway, key, run)["chargedEventCounts"][EVENT]
    ledgers = {
        line["hold_id"]: line["events"]
        for actor in (one, two)
        for line in actor.statement(f"run {run['id']}")["lines"]
        if line.get("events")
    }
    assert total == sum(ledgers.values())
    assert len(ledgers) == 4


def test_a_restart_on_the_same_machine_counts_nothing_twice(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    run = begin(shared_gateway, key, {})
    url = f"http://127.0.0.1:{upstream}/api/v1"
    given = {"APIFY_META_ORIGIN": "STANDBY", "FAREBOX_UPSTREAM_URL": url, "ACTOR_MAX_TOTAL_CHARGE_USD": "0.0035"}
    actor = Actor(tmp_path, **run_environment(platform, run, key, **given))
    bearer = {"authorization": f"Bearer {key}"}
    for round_number in range(3):
        with actor:
            assert chat(actor, bearer, model="sim/penny").status == 200
            if round_number == 1:
                actor.kill()
    with actor:
        assert chat(actor, bearer, model="sim/penny").status == 402
    assert state(shared_gateway, key, run)["chargedEventCounts"] == {EVENT: 300}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ACTOR_WEB_SERVER_PORT": "many"}, "ACTOR_WEB_SERVER_PORT: a port, not 'many'"),
        ({"ACTOR_MAX_TOTAL_CHARGE_USD": "much"}, "ACTOR_MAX_TOTAL_CHARGE_USD: an amount in USD, not 'much'"),
        ({"ACTOR_MAX_TOTAL_CHARGE_USD": "NaN"}, "ACTOR_MAX_TOTAL_CHARGE_USD: an amount"),
        ({"ACTOR_TEST_PAY_PER_EVENT": "1"}, "ACTOR_TEST_PAY_PER_EVENT: for runs on one's own machine"),
        ({"ACTOR_RUN_ID": ""}, "ACTOR_RUN_ID"),
        ({"APIFY_USER_ID": ""}, "APIFY_USER_ID"),
        ({"APIFY_ACTOR_PRICING_INFO": "{"}, "APIFY_ACTOR_PRICING_INFO"),
        (
            {"APIFY_ACTOR_PRICING_INFO": json.dumps(FLAT).replace(EVENT, "another-event")},
            "no event `openrouter-api-usage`; it has another-event",
        ),
        ({"APIFY_CHARGED_ACTOR_EVENT_COUNTS": "["}, "APIFY_CHARGED_ACTOR_EVENT_COUNTS"),
        ({"FAREBOX_CALLER_HEADER": "nothing"}, "FAREBOX_CALLER_HEADER: write a header's name and value"),
        ({"FAREBOX_TENANCY": "both"}, "FAREBOX_TENANCY"),
        ({"OPENROUTER_API_KEY": ""}, "OPENROUTER_API_KEY: not set"),
    ],
)
def test_an_environment_that_is_wrong_is_named(
    tmp_path: Path,
    platform: Platform,
    shared_gateway: Gateway,
    key: str,
    environment: dict[str, str],
    said: str,
) -> None:
    run = begin(shared_gateway, key, {})
    actor = Actor(tmp_path, **run_environment(platform, run, key, **environment))
    actor.begin()
    assert actor.finish() in (1, 2)
    told = actor.log.read_text()
    assert said in told
    assert "Traceback" not in told
    if "OPENROUTER_API_KEY" in environment:
        assert said in state(shared_gateway, key, run)["statusMessage"]


def test_a_platform_that_takes_no_charges_ends_the_serving(
    tmp_path: Path, platform: Platform, shared_gateway: Gateway, key: str, upstream: int
) -> None:
    run = begin(shared_gateway, key, {})
    other = shared_gateway.new_key("whose runs these are not", "--plan", "paying", "--prepaid", "1")
    environment = run_environment(
        platform,
        run,
        other,
        APIFY_META_ORIGIN="STANDBY",
        FAREBOX_UPSTREAM_URL=f"http://127.0.0.1:{upstream}/api/v1",
        APIFY_ACTOR_PRICING_INFO=json.dumps(FLAT),
    )
    with Actor(tmp_path, **environment) as actor:
        assert chat(actor, {"authorization": f"Bearer {key}"}).status == 200
        actor.finish()
    assert "takes no charges of this run" in actor.log.read_text()
    assert actor.audit()["uncharged_events"] == 1


def test_on_ones_own_machine_it_needs_nothing_and_writes_the_charging_log(tmp_path: Path) -> None:
    settings = {"ACTOR_TEST_PAY_PER_EVENT": "1", "APIFY_ACTOR_PRICING_INFO": json.dumps(FLAT), "APIFY_TOKEN": ""}
    actor = Actor(tmp_path, **settings)
    actor.makes_books = True
    with actor:
        assert chat(actor, {}).status == 200
        assert chat(actor, {"authorization": "Bearer anything"}, model="sim/penny").status == 200
    entries = [json.loads(path.read_bytes()) for path in sorted((tmp_path / "storage/datasets/charging-log").iterdir())]
    assert sum(entry["charged_count"] for entry in entries) == 101
    assert set(entries[0]) == {
        "event_name",
        "event_title",
        "event_price_usd",
        "charged_count",
        "idempotency_key",
        "timestamp",
    }
    assert (entries[0]["event_name"], entries[0]["event_price_usd"]) == (EVENT, 0.00001)
    assert min(path.name for path in (tmp_path / "storage/datasets/charging-log").iterdir()) == "000000001.json"
    with actor:
        assert chat(actor, {}).status == 200
    assert actor.audit()["charged_events"] == 102


def test_the_landing_page_tells_its_own_address_and_hides_nothing_harmful(tmp_path: Path) -> None:
    with Actor(tmp_path, ACTOR_STANDBY_URL='https://a.example/"><script>') as actor:
        text = actor.request("GET", "/").body.decode()
        assert "<script>" not in text
        assert re.search(r"https://a\.example/&quot;&gt;&lt;script&gt;", text)
