"""A plan that shows the fare alone: whatever its callers ask, nothing tells what the upstream charged, nor lets it be
worked out. Managers see both."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from farebox.core.formats.table import FORMATS
from farebox.core.money import charged
from tests.gateway import Gateway, Response, events_of, eventually
from tests.served.test_console import Browser

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
SECRETS = re.compile(r"123457|0\.00124\b|1\.7\b|0\.000017\b|\b17000\b|upstream_inference|byok\": ?true")
_NUMBER = re.compile(r"(?<![\w.-])[0-9]+(?:\.[0-9]+)?(?:[eE]-?[0-9]+)?(?![\w.])")
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

    def order(self, path: str, body: dict[str, Any], simulate: str = f"cost={COST}", **headers: str) -> Response:
        return self.ask("POST", f"/api/v1{path}", body, x_openrouter_simulate=simulate, **headers)

    def read(self, path: str, key: str | None = None) -> Any:
        answer = self.ask("GET", path, key=key)
        assert answer.status == 200, (path, answer.body)
        return answer.json


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("resale")
    (folder / "farebox.toml").write_text(PLANS)
    with Gateway(folder) as gateway:
        yield World(gateway)
        gateway.audit()


def check(answer: Response, cost: str = COST) -> Response:
    """Nothing in an answer is the cost, what it comes to in events, or the multiplier; and no two numbers give it."""
    told = "\n".join([answer.body.decode("latin-1"), *(f"{name}: {value}" for name, value in answer.headers.items())])
    assert SECRETS.search(told) is None, told
    numbers = {Decimal(each) for each in _NUMBER.findall(told) if len(each) < 30}
    sought = {Decimal(cost), -(-Decimal(cost) * 100_000 // 1) / 100_000, Decimal("1.7")}
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
        costs = numbers_called("cost", [each for each in events_of(streamed.body) if isinstance(each, dict)])
        assert set(map(str, costs)) == {FARE}, streamed.body
        assert streamed.body.endswith(f": farebox fare_usd={FARE} fare_events=210\n\n".encode())
