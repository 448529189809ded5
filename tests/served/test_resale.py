"""A plan that shows the fare alone: whatever its callers ask, nothing tells what the upstream charged, nor lets it be
worked out. Managers see both."""

import csv
import http.client
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from farebox.bookkeeping import FORMS as LEDGERS
from farebox.console.site import PLACES
from farebox.core.formats.table import FORMATS
from farebox.core.money import charged
from tests import sdks
from tests.gateway import Gateway, Response, eventually
from tests.programs import simulator
from tests.served.test_console import Browser, Live, hidden
from tests.served.test_sockets import talking

COST = "0.00123457"
"""Recognisable, and no whole events, neither as it is nor marked up."""

FARE = "0.0021"
"""COST times 1.7 in steps of $0.00001, rounded up."""

PLANS = """
[plans.reseller]
multiplier = "1.7"
shows = "fare"

[plans.open]
multiplier = "1.7"
"""
SECRETS = re.compile(r"123457|0\.00124\b|1\.7\b|0\.000017\b|\b17000\b|upstream_inference\w*\": ?[^n]|byok\": ?true")
_NUMBER = re.compile(r"(?<![\w.-])[0-9]+(?:\.[0-9]+)?(?:[eE]-?[0-9]+)?(?![\w.])")
SDKS = ("/chat/completions", "/messages", "/responses")
PATHS = {path: wire for path, wire in FORMATS.items() if not wire.DESCRIBED.gives_bytes}


class World:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.key = gateway.new_key("buyer", "--plan", "reseller", "--prepaid", "50")
        self.open_key = gateway.new_key("other", "--plan", "open", "--prepaid", "50")
        self.manager = str(gateway.cli("management-key", "create", "--label", "all")["key"])
        self.buyers_manager = str(
            gateway.cli("management-key", "create", "--label", "own", "--account", "buyer")["key"]
        )

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str) -> Response:
        sent = {"content-type": "application/json", **headers}
        if key != "":
            sent["authorization"] = f"Bearer {key or self.key}"
        return self.gateway.request(method, path, body, {k.replace("_", "-"): v for k, v in sent.items()})

    def order(self, path: str, body: Mapping[str, object], simulate: str = f"cost={COST}", **headers: str) -> Response:
        return self.ask("POST", f"/api/v1{path}", dict(body), x_openrouter_simulate=simulate, **headers)

    def read(self, path: str, key: str | None = None) -> Any:
        answer = self.ask("GET", path, key=key)
        assert answer.status == 200, (path, answer.body)
        return answer.json


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("resale")
    (folder / "farebox.toml").write_text(PLANS)
    with simulator() as port:
        at = {"OPENROUTER_API_KEY": "sk-or-x", "FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{port}/api/v1"}
        with Gateway(folder, FAREBOX_RECONCILE_SECONDS="600", **at) as gateway:
            yield World(gateway)
            gateway.audit()


def check(answer: Response, cost: str = COST) -> Response:
    """Nothing in an answer is the cost, what it comes to in events, or the multiplier; and no two numbers give it."""
    told = "\n".join([answer.body.decode("latin-1"), *(f"{name}: {value}" for name, value in answer.headers.items())])
    assert SECRETS.search(told) is None, told
    numbers = {Decimal(each) for each in _NUMBER.findall(told) if len(each) < 30}
    sought = {Decimal(cost), -(-Decimal(cost) * 100_000 // 1) / 100_000}
    for one, other in permutations({each for each in numbers if 0 < each < 10}, 2):
        for made in (one * other, one / other, one - other, one + other):
            assert made not in sought, (one, other, told)
    return answer


def numbers_called(name: str, value: Any) -> list[Any]:
    """The values of each member of this name, however deep."""
    if isinstance(value, list):
        return [found for each in value for found in numbers_called(name, each)]
    if not isinstance(value, dict):
        return []
    return [found for key, each in value.items() for found in ([each] if key == name else numbers_called(name, each))]


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_tells_the_fare_and_no_cost(world: World, path: str) -> None:
    described = FORMATS[path].DESCRIBED
    answer = check(world.order(path, described.example))
    assert answer.status in (200, 202), answer.body
    if not described.begins_job:
        assert answer.headers["x-farebox-fare-usd"] == FARE
        assert answer.headers["x-farebox-fare-events"] == "210"
        assert numbers_called("cost", json.loads(answer.body, parse_float=str)) == [FARE]
    if described.is_streamed:
        streamed = check(world.order(path, {**described.example, "stream": True}))
        told = [
            json.loads(each, parse_float=str) for each in re.findall(rb"^data: (\{.*)$", streamed.body, re.MULTILINE)
        ]
        costs = numbers_called("cost", told)
        assert set(map(str, costs)) == {FARE}, streamed.body
        if path in SDKS:
            made = json.dumps(sdks.streamed(FORMATS[path], streamed.body))
            assert f'"cost": {FARE}' in made or path == "/messages", "an SDK throws at this stream, or loses its usage"
        assert streamed.body.endswith(f": farebox fare_usd={FARE} fare_events=210\n\n".encode())


def test_what_is_asked_afterwards_tells_the_fare(world: World) -> None:
    order = world.order("/chat/completions", FORMATS["/chat/completions"].DESCRIBED.example)
    named = order.headers["x-generation-id"]
    eventually(lambda: world.ask("GET", f"/api/v1/generation?id={named}").status == 200)
    for path in (f"/generation?id={named}", "/key", "/credits", "/orders", f"/orders/{named}", "/statement", "/totals"):
        for ending in ("", ".csv") if path in ("/orders", "/statement", "/totals") else ("",):
            answer = check(world.ask("GET", f"/api/v1{path}{ending}"))
            assert answer.status == 200, answer.body
    generation = json.loads(world.ask("GET", f"/api/v1/generation?id={named}").body, parse_float=str)["data"]
    assert (generation["total_cost"], generation["usage"], generation["farebox_fare_usd"]) == (FARE, FARE, FARE)
    line = world.read(f"/api/v1/orders/{named}")["data"]
    assert (line["cost_usd"], line["events"], line["event_price_usd"], line["fare_usd"]) == (
        None, 210, "0.00001", FARE,
    )  # fmt: skip
    assert world.read("/api/v1/key")["data"]["is_free_tier"] is False

    for path in ("/admin/orders", "/admin/totals", f"/admin/orders/{line['id']}"):
        check(world.ask("GET", path, key=world.buyers_manager))
    booked = world.read(f"/admin/orders/{line['id']}", world.manager)["data"]
    assert (booked["cost_usd"], booked["events"], booked["fare_usd"]) == (COST, 210, FARE)
    movements = world.read("/admin/accounts/buyer/statement", world.manager)["data"]
    assert (COST, "-" + FARE) in [(each["cost_usd"], each["amount_usd"]) for each in movements]
    fares = [each for each in world.gateway.orders("buyer") if "fare" in each["what"]]
    assert fares[-1]["cost_usd"] == COST


def prices(value: Any) -> list[Decimal]:
    """All prices in a list, as they stand."""
    if isinstance(value, list):
        return [found for each in value for found in prices(each)]
    if not isinstance(value, dict):
        return []
    found = []
    for name, each in value.items():
        if name in ("pricing", "pricing_skus"):
            told = re.sub(r'"min_prompt_tokens": [0-9]+', "", json.dumps(each))
            found += [Decimal(each) for each in re.findall(r"-?[0-9][0-9.]*(?:e-?[0-9]+)?", told)]
        else:
            found += prices(each)
    return found


LISTS = (
    "/models",
    "/models/sim/echo/endpoints",
    "/model/sim/echo",
    "/models/user",
    "/embeddings/models",
    "/images/models",
    "/images/models/sim/painter/endpoints",
    "/videos/models",
    "/endpoints/zdr",
)


@pytest.mark.parametrize("path", LISTS)
def test_a_list_has_the_plans_prices_and_none_without_a_key(world: World, path: str) -> None:
    told = world.ask("GET", f"/api/v1{path}")
    assert told.status == 200, told.body
    assert (told.headers["cache-control"], told.headers["vary"]) == ("private", "authorization, x-api-key")
    cost = json.loads(world.ask("GET", f"/api/v1{path}", key=world.open_key).body, parse_float=str)
    fare = json.loads(told.body, parse_float=str)
    assert prices(fare) == [each if each < 0 else each * Decimal("1.7") for each in prices(cost)]
    if path != "/models/user":
        without = world.ask("GET", f"/api/v1{path}", key="")
        assert {each for each in prices(json.loads(without.body, parse_float=str)) if each} <= {Decimal(-1)}


def test_asking_by_price_tells_the_plans_prices_alone(world: World) -> None:
    """A filter that holds for the plan's price and not for the upstream's, and the other way round."""
    cost = {
        each["id"]: Decimal(each["pricing"]["prompt"]) for each in world.read("/api/v1/models", world.open_key)["data"]
    }
    dearest = max(cost.values()) * 1_000_000
    for most, is_listed in ((dearest * Decimal("1.7"), True), (dearest * Decimal("1.6"), False)):
        found = {each["id"] for each in world.read(f"/api/v1/models?max_price={most}")["data"]}
        assert (max(cost, key=lambda name: cost[name]) in found) is is_listed
    assert world.ask("GET", "/api/v1/models?max_price=1", key="").status == 400
    assert world.ask("GET", "/api/v1/models?max_price=NaN").status == 400
    asked = {**FORMATS["/chat/completions"].DESCRIBED.example, "provider": {"max_price": {"prompt": "NaN"}}}
    assert world.order("/chat/completions", asked).status == 400


def test_a_stream_tells_its_fare_where_that_is_asked_for(world: World) -> None:
    example = {**FORMATS["/chat/completions"].DESCRIBED.example, "stream": True}
    path = "/api/v1/chat/completions"
    plain = world.ask("POST", path, example, world.open_key, x_openrouter_simulate=f"cost={COST}")
    asked = world.ask(
        "POST", path, example, world.open_key, x_openrouter_simulate=f"cost={COST}", x_farebox_fare="comment"
    )
    events, fare = charged(Decimal(COST), 17_000, marked_up=False)
    assert plain.body.endswith(b"data: [DONE]\n\n")
    assert COST.encode() in plain.body
    assert asked.body.endswith(f"data: [DONE]\n\n: farebox fare_usd=0.002108 fare_events={events}\n\n".encode())
    assert fare == 2_108_000
    assert world.ask("POST", path, example, world.open_key, x_farebox_fare="yes").status == 400


def test_a_kept_answer_tells_no_cost(world: World) -> None:
    body = {**FORMATS["/chat/completions"].DESCRIBED.example, "seed": 3}
    first = check(world.order("/chat/completions", body, x_farebox_cache="600"))
    again = check(world.order("/chat/completions", body, x_farebox_cache="600"))
    assert (first.headers["x-farebox-cache"], again.headers["x-farebox-cache"]) == ("miss", "hit")
    key = {"idempotency_key": "once"}
    assert (
        check(world.order("/chat/completions", body, **key)).body
        == check(world.order("/chat/completions", body, **key)).body
    )
    mover = world.gateway.new_key("mover", "--plan", "open", "--prepaid", "1")
    asked = {"key": mover, "x_farebox_cache": "600", "x_openrouter_simulate": f"cost={COST}"}
    assert COST.encode() in world.ask("POST", "/api/v1/chat/completions", body, **asked).body
    world.ask("PATCH", "/admin/accounts/mover", {"plan": "reseller"}, world.manager)
    eventually(lambda: not world.read("/api/v1/orders", mover)["data"][0]["cost_usd"])
    assert check(world.ask("POST", "/api/v1/chat/completions", body, **asked)).headers["x-farebox-cache"] == "miss"
    begun = world.order("/responses", {"model": "sim/echo", "input": "Hello", "background": True})
    named = begun.json["id"]
    eventually(lambda: world.read(f"/api/v1/responses/{named}")["status"] == "completed")
    kept = check(world.ask("GET", f"/api/v1/responses/{named}"))
    assert numbers_called("cost", json.loads(kept.body, parse_float=str)) == [FARE]


def test_a_job_tells_the_fare(world: World) -> None:
    begun = world.order("/videos", {"model": "sim/filmer", "prompt": "Hello", "duration": 2})
    path = f"/api/v1/videos/{begun.json['id']}"
    eventually(lambda: world.read(path)["status"] == "completed")
    ended = check(world.ask("GET", path))
    assert numbers_called("cost", json.loads(ended.body, parse_float=str)) == [ended.headers["x-farebox-fare-usd"]]


def test_a_turn_on_a_websocket_tells_the_fare(world: World) -> None:
    with talking(world.gateway, world.key, headers={"x-openrouter-simulate": f"cost={COST}"}) as talk:
        last = talk.turn(input="Hello")
    assert last["response"]["usage"]["cost"] == float(FARE)
    assert SECRETS.search(json.dumps(last)) is None


def test_a_fare_that_is_found_out_later_is_the_same(world: World) -> None:
    """An answer that breaks off before its cost: the order's hold is settled by the upstream's record."""
    example = {**FORMATS["/chat/completions"].DESCRIBED.example, "stream": True}
    broken = check(world.order("/chat/completions", example, f"cost={COST},cut-at-event=2"))
    assert broken.body.endswith(b": farebox fare_usd=unknown\n\n")
    named = broken.headers["x-generation-id"]
    assert check(world.ask("GET", f"/api/v1/generation?id={named}")).status == 404
    eventually(lambda: world.ask("GET", f"/api/v1/generation?id={named}").status == 200, 20)
    told = json.loads(check(world.ask("GET", f"/api/v1/generation?id={named}")).body, parse_float=str)["data"]
    assert (told["total_cost"], told["farebox_fare_events"]) == (FARE, 210)
    line = world.read(f"/api/v1/orders/{named}")["data"]
    assert (line["state"], line["fare_usd"]) == ("posted", FARE)


CONSOLE_SECRETS = re.compile(r"123457|246914|0\.00124\b|0\.000017\b|\b1\.7\b(?! ?m?s\b)")
"""One cost, or two together; and what the plan makes of them."""

OPERATORS_ALONE = {
    "/accounts/new",
    "/accounts/{account}/change",
    "/accounts/{account}/top-up",
    "/reconcile/{order}",
}
"""Pages that a manager of one account is refused."""


class Swept:
    """An account of a plan that shows the fare alone, with whatever its pages tell of: an end user and a tag, two keys,
    a fare that was decided on, one that was corrected by its cost; and who may look."""

    def __init__(self, world: World) -> None:
        gateway = world.gateway
        self.key = gateway.new_key("swept", "--plan", "reseller", "--prepaid", "5")
        second = str(gateway.cli("key", "create", "swept", "--label", "second")["key"])
        example = FORMATS["/chat/completions"].DESCRIBED.example
        whose = {"x_farebox_end_user": "ann", "x_farebox_tags": "team=search"}
        first = world.order("/chat/completions", example, key=self.key, **whose)
        self.generation = first.headers["x-generation-id"]
        lost = world.order("/chat/completions", example, "usage=missing,generation-ms=60000", key=second)
        self.order = world.read(f"/api/v1/orders/{self.generation}", self.key)["data"]["id"]
        decided = world.read(f"/api/v1/orders/{lost.headers['x-generation-id']}", self.key)["data"]["id"]
        gateway.cli("reconcile", decided, "--cost", COST, "--reason", "told by phone")
        gateway.cli("correct", self.order, "--cost", "0.00246914", "--reason", "told again")
        self.end_user = world.read("/api/v1/totals?by=end_user", self.key)["data"][-1]["end_user"]
        self.manager = str(gateway.cli("management-key", "create", "--label", "m", "--account", "swept")["key"])
        self.operator = Browser(gateway, world.manager)
        (self.number,) = [row["id"] for row in self.operator.rows("/accounts.json") if row["account"] == "swept"]


@pytest.fixture(scope="module")
def swept(world: World) -> Swept:
    return Swept(world)


def test_no_page_of_the_console_tells_a_caller_the_cost(world: World, swept: Swept) -> None:
    """Each that there is, by the table of all of them, as a page and as a list."""
    (key, *_) = [row["id"] for row in swept.operator.rows("/keys.json") if row["account"] == "swept"]
    in_paths = {"key": key, "account": swept.number, "order": swept.order, "generation": swept.generation, "alert": 1}
    queries = {
        "/keys/new": "?label=x",
        "/keys/{key}/change": "?do=limit&usd_per_day=1",
        "/end-users/change": "?usd_per_day=1",
        "/spent": "?by=end_user",
        "/statement/books/{form}": "?by=order",
        "/invoice": f"?month={world.read('/api/v1/statement', swept.key)['as_of'][:7]}",
    }
    for signed_in in (swept.key, swept.manager):
        browser, refused = Browser(world.gateway, signed_in), set()
        for place in (each for each in PLACES if each.show is not None):
            for form in LEDGERS.values() if "{form}" in place.path else [""]:
                path = place.path.format(**in_paths, form=form)
                for ending in ("", ".json", ".csv"):
                    shown = browser.get(path + ending + queries.get(place.path, ""))
                    secrets = re.compile(r"0\.000017\b| 1\.7 times") if place.path == "/models" else CONSOLE_SECRETS
                    told = shown.body.decode() + str(shown.headers)
                    assert not secrets.search(told), (path, ending, told)
                    if not ending and shown.status not in (200, 303):
                        assert shown.status in (403, 404), (path, shown.body)
                        refused.add(place.path)
        if signed_in == swept.manager:
            assert refused == OPERATORS_ALONE
        for query in ("?by=tag:team", "?tag=team=search", "?end_user=ann"):
            for path in ("/spent.csv", "/statement", "/orders.csv"):
                assert not CONSOLE_SECRETS.search(browser.get(path + query).body.decode())
        with Live(browser) as live:
            assert not CONSOLE_SECRETS.search(live.until(FARE))
    assert f"${COST} \u00d7 1.7" in swept.operator.page(f"/orders/{swept.order}")
    assert COST in swept.operator.page("/trail")


def test_ledgers_totals_and_the_trail_tell_the_fare_alone(world: World, swept: Swept) -> None:
    admin = "/admin/accounts/swept"
    paths = [
        *(f"/statement{ending}?by={by}" for ending in LEDGERS for by in ("day", "order")),
        *(f"/totals{ending}?by={by}" for ending in ("", ".csv") for by in ("end_user", "tag:team", "key,model")),
        *(f"/{of}{ending}?{whose}" for of in ("totals", "statement", "orders") for ending in ("", ".csv")
          for whose in ("end_user=ann", "tag=team=search")),
    ]  # fmt: skip
    own = [(f"/api/v1{path}", swept.key) for path in paths]
    managed = [(f"{base}{path}", swept.manager) for base in (admin, "/admin") for path in paths if "stat" not in path]
    managed += [(f"{admin}{path}", swept.manager) for path in paths if "stat" in path]
    more = (f"{admin}/trail", f"{admin}/trail.csv", "/admin/trail", f"{admin}/end-users", admin, "/api/v1/keys")
    for path, key in [*own, *managed, *((each, swept.manager) for each in more)]:
        answer = world.ask("GET", path, key=key)
        assert answer.status == 200, (path, answer.body)
        told = answer.body.decode() + str(answer.headers)
        assert not CONSOLE_SECRETS.search(told), (path, told)
    assert world.ask("GET", "/api/v1/statement.journal?books=operator", key=swept.key).status == 400
    assert world.ask("GET", f"{admin}/statement.journal?books=operator", key=swept.manager).status == 400
    told = world.read(f"{admin}/trail?what=order.decided", world.manager)["data"]
    assert told[0]["changes"]["cost_usd"] == [None, COST]


def test_who_watches_is_told_no_cost_any_more_once_the_plan_shows_none(world: World) -> None:
    key = world.gateway.new_key("watcher", "--plan", "open", "--prepaid", "1")
    world.order("/chat/completions", FORMATS["/chat/completions"].DESCRIBED.example, key=key)
    with Live(Browser(world.gateway, key)) as live:
        live.until(COST)
        world.ask("PATCH", "/admin/accounts/watcher", {"plan": "reseller"}, world.manager)
        assert COST not in next(shown for name, shown in iter(live.event, None) if name == "orders")


def test_the_playground_shows_a_caller_the_fare_alone(world: World) -> None:
    player = Browser(world.gateway, world.key)
    model = f"sim/echo:cost={COST}"
    order = {"format": "chat", "model": model, "text": "Hello", "cap": "50"}
    for path, more in (("", {}), ("/answer", {}), ("/answer", {"streamed": "yes"})):
        page = player.page("/playground")
        form = {"form": hidden(page, "form"), "once": hidden(page, "once"), **order, **more}
        answer = player.ask("POST", f"/console/playground{path}", form)
        assert answer.status == 200, answer.body
        shown = [answer.body.decode()]
        if path:
            shown.append(player.page(f"/generations/{answer.headers['x-generation-id']}.json"))
        assert FARE in shown[-1]
        for each in shown:
            assert SECRETS.search(each.replace(model, "")) is None, each
            assert "<dt>Cost</dt>" not in each


def test_an_agents_tools_tell_the_fare(world: World) -> None:
    def call(key: str, name: str, **arguments: str) -> Any:
        asked = {"name": name, "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": asked}
        answer = world.ask("POST", "/mcp", body, key, accept="application/json, text/event-stream")
        found = re.search(rb"\{.*\}", answer.body)
        assert found is not None, answer.body
        return json.loads(found[0])["result"]["structuredContent"]

    (told, *_), (cost, *_) = [
        call(key, "list_models", search="sim/echo")["models"] for key in (world.key, world.open_key)
    ]
    for price in ("prompt_usd", "answer_usd"):
        assert Decimal(told[price]) == Decimal(cost[price]) * Decimal("1.7")
    answered = call(world.key, "chat", model="sim/echo", prompt="Hello")
    assert answered["cost_usd"] == answered["fare_usd"]
    assert Decimal(str(answered["usage"]["cost"])) == Decimal(answered["fare_usd"])


def come_to(rows: Iterable[Mapping[str, Any]], name: str) -> Decimal:
    return sum((Decimal(str(row[name] or 0)) for row in rows), Decimal(0))


def check_ledgers(world: World, charged_for: Decimal) -> None:
    for by in ("day", "order"):
        charges = world.ask("GET", f"/admin/accounts/sums/statement.focus.csv?by={by}", key=world.manager).body.decode()
        assert come_to(csv.DictReader(charges.splitlines()), "BilledCost") == charged_for
        for books, own in (("caller", "Assets:Farebox:Sums"), ("operator", "Liabilities:Farebox:Callers:Sums")):
            path = f"/admin/accounts/sums/statement.beancount?by={by}&books={books}"
            ledger = world.ask("GET", path, key=world.manager).body.decode()
            moved = re.findall(rf"^  {own}  (\S+) USD$", ledger, re.MULTILINE)
            assert sum(map(Decimal, moved)) == 0, ledger
            assert len(moved) > (4 if by == "day" else 7), ledger
            assert re.search(rf"balance {own} -?0(\.0+)? ~ 0 USD", ledger), ledger


def check_sums(world: World) -> Any:
    """What the account `sums` comes to is the same wherever it stands; its number."""
    admin, operator = "/admin/accounts/sums", Browser(world.gateway, world.manager)
    number = next(row["id"] for row in operator.rows("/accounts.json") if row["account"] == "sums")
    statement = world.read(f"{admin}/statement", world.manager)
    sums, lines = statement["totals"], statement["data"]
    fares, back = Decimal(sums["fares_usd"]), Decimal(sums["given_back_usd"])
    assert fares == -come_to([row for row in lines if row["what"] == "fare"], "amount_usd") > 0
    assert back == come_to([row for row in lines if row["what"] == "correction"], "amount_usd") != 0
    assert Decimal(sums["paid_in_usd"]) == fares - back + Decimal(sums["paid_out_usd"]) == 5
    assert statement["closing_balance_usd"] == "0"
    for by in ("day", "key", "model,kind", "end_user", "tag:team", "end_user,key"):
        told = world.read(f"{admin}/totals?by={by}", world.manager)
        for rows in (told["data"], [told["totals"]]):
            assert come_to(rows, "fares_usd") == fares, by
            assert (sum(row["orders"] for row in rows), come_to(rows, "cost_usd")) == (5, Decimal(sums["cost_usd"]))
    of_ann = world.read(f"{admin}/statement?end_user=ann", world.manager)["totals"]
    (totals,) = world.read(f"{admin}/totals?end_user=ann&by=account", world.manager)["data"]
    assert {name: of_ann[name] for name in ("fares_usd", "orders", "events", "cost_usd")} == {
        name: totals[name] for name in ("fares_usd", "orders", "events", "cost_usd")
    }
    check_ledgers(world, fares - back)
    month, asked = statement["as_of"][:7], f"account_id={number}"
    assert come_to(operator.rows(f"/invoice.json?month={month}&{asked}"), "fares_usd") == fares
    for query in (asked, f"{asked}&by=end_user", f"{asked}&by=tag:team"):
        assert come_to(operator.rows(f"/spent.json?{query}"), "fares_usd") == fares
    assert come_to(operator.rows(f"/end-users.json?{asked}"), "fares_this_month_usd") == fares
    rows = operator.rows(f"/statement.json?month={month}&{asked}")
    assert (come_to(rows, "amount_usd"), come_to(rows, "cost_usd")) == (Decimal(0), Decimal(sums["cost_usd"]))
    world.gateway.audit()
    return number


def test_all_sums_of_an_account_agree(world: World) -> None:
    """Two plans, one of them marked up, two keys, end users and tags, an order whose cost came later, a correction each
    way, and what was left paid out; and totals that somebody has touched are mended."""
    gateway = world.gateway
    keys = [gateway.new_key("sums", "--plan", "open", "--prepaid", "5")]
    keys.append(str(gateway.cli("key", "create", "sums", "--label", "second")["key"]))
    example = FORMATS["/chat/completions"].DESCRIBED.example
    named = [
        world.order(
            "/chat/completions", {**example, "stream": is_cut}, f"cost={cost}{',cut-at-event=2' if is_cut else ''}",
            key=keys[number % 2], x_farebox_end_user=who, x_farebox_tags="team=search" if who else "",
        ).headers["x-generation-id"]
        for number, (cost, who, is_cut) in enumerate(
            [(COST, "ann", False), ("0.0100001", "bob", False), (COST, "ann", True), ("0", "", False)]
        )
    ]  # fmt: skip
    world.ask("PATCH", "/admin/accounts/sums", {"plan": "reseller"}, world.manager)
    eventually(lambda: not world.read("/api/v1/orders", keys[0])["data"][-1]["cost_usd"])
    named.append(
        world.order("/chat/completions", example, key=keys[1], x_farebox_end_user="ann").headers["x-generation-id"]
    )
    eventually(lambda: all(row["state"] == "posted" for row in world.read("/api/v1/orders", keys[0])["data"]), 20)
    gateway.cli("refund", named[1], "0.003", "--reason", "late")
    gateway.cli("correct", named[0], "--cost", "0.02", "--reason", "the invoice")
    gateway.cli("account", "close", "sums")

    number = check_sums(world)
    for touched in ("day_total SET fares_nanos = fares_nanos + 1", "attributed_total SET orders = orders + 1"):
        with closing(sqlite3.connect(gateway.folder / "data" / "farebox.db", timeout=30)) as books, books:
            books.execute(f"UPDATE {touched} WHERE account_id = {number}")
    assert len(gateway.cli("audit", code=1)["differences"]) >= 2
    assert [bool(gateway.cli("db", "recount")["corrected"]) for _ in range(2)] == [True, False]
    check_sums(world)


def test_an_order_whose_process_was_killed_comes_to_the_same_fare(world: World) -> None:
    """The last of these tests: it kills the gateway."""
    gateway = world.gateway
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    body = {**FORMATS["/chat/completions"].DESCRIBED.example, "stream": True}
    headers = {"authorization": f"Bearer {world.key}", "x-openrouter-simulate": f"cost={COST},stall-at-event=2"}
    connection.request("POST", "/api/v1/chat/completions", json.dumps(body), headers)
    named = connection.getresponse().headers["x-generation-id"]
    gateway.kill()
    connection.close()
    gateway.start()
    eventually(lambda: world.read(f"/api/v1/orders/{named}")["data"]["state"] == "posted", 30)
    answer = check(world.ask("GET", f"/api/v1/orders/{named}"))
    assert (answer.json["data"]["fare_usd"], answer.json["data"]["cost_usd"]) == (FARE, None)
