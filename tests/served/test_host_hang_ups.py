"""Callers who hang up on upstreams of each kind, and what is known of their orders afterwards: drained where nobody can
be asked, cancelled where somebody can or where it is free; repeats, kept answers and stops with translated answers."""

import http.client
import json
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farebox.simulator.server import embedded
from tests.gateway import Gateway, Response, eventually

FILE = """
[upstreams.router]
kind = "openrouter"
base_url = "{root}/api/v1"
key_variable = "KEY"
models = ["router"]
names = {{ "router" = "sim/echo" }}

[upstreams.gpt]
kind = "openai"
base_url = "{root}/openai/v1"
key_variable = "KEY"
models = ["gpt"]
names = {{ "gpt" = "gpt-sim" }}
prices = "file"

[upstreams.claude]
kind = "anthropic"
base_url = "{root}/anthropic"
key_variable = "KEY"
models = ["claude"]
names = {{ "claude" = "claude-sim" }}
prices = "file"

[upstreams.local]
kind = "openai"
base_url = "{root}/openai/v1"
key_variable = "KEY"
models = ["local"]
names = {{ "local" = "gpt-sim" }}
prices = "free"
"""

PRICES = """
[[prices]]
upstream = "{}"
model = "*"
prompt = "0.00002"
answer = "0.00007"
"""

SLOW = "tokens=20,token-ms=20"

BODIES: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": [{"role": "user", "content": "Hello there"}]},
    "/messages": {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 99},
    "/responses": {"input": "Hello there"},
}


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    with embedded() as url:
        yield url.removesuffix("/api/v1")


def made(folder: Path, root: str, **environment: str) -> Gateway:
    (folder / "farebox.toml").write_text(FILE.format(root=root))
    (folder / "prices.toml").write_text(PRICES.format("gpt") + PRICES.format("claude"))
    return Gateway(folder, KEY="sk-x", FAREBOX_PRICES_FILE="prices.toml", **environment)


@pytest.fixture(scope="module")
def gateway(root: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with made(tmp_path_factory.mktemp("hang-ups"), root, FAREBOX_RECONCILE_SECONDS="86400") as running:
        running.key = running.new_key("demo", "--plan", "paying", "--prepaid", "1000")
        yield running
        running.audit()


def headers_of(gateway: Gateway, simulate: str, **more: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    base = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    return {**base, "x-openrouter-simulate": simulate, **named}


def order(gateway: Gateway, path: str, model: str, simulate: str = "", headers: Any = None, **body: Any) -> Response:
    sent = headers_of(gateway, simulate, **(headers or {}))
    return gateway.request("POST", f"/api/v1{path}", {**BODIES[path], "model": model, **body}, sent)


def holds(gateway: Gateway) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(gateway.folder / "data" / "farebox.db")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM hold ORDER BY id")]


def hang_up(gateway: Gateway, path: str, model: str, simulate: str, **body: Any) -> None:
    """Order, and go when the order has reached its upstream; with a stream, after its first piece."""
    before = len(holds(gateway))
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    text = json.dumps({**BODIES[path], "model": model, **body})
    connection.request("POST", f"/api/v1{path}", text, headers_of(gateway, simulate))
    if body.get("stream"):
        connection.getresponse().read1(10)
    else:
        eventually(lambda: len(holds(gateway)) > before)
        time.sleep(0.1)
    connection.close()


def in_books_of_upstream(root: str, generation_id: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{root}/books/usage", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer).get(generation_id, {})
        return found


PATHS = {"router": "/responses", "gpt": "/messages", "claude": "/chat/completions", "local": "/messages"}
"""All but OpenRouter's are translated."""

LISTED = {"gpt": (Decimal("0.00002"), Decimal("0.00007")), "local": (Decimal(0), Decimal(0))}
LISTED["claude"] = LISTED["gpt"]


def cost_of(model: str, told: dict[str, Any]) -> Decimal:
    """What the upstream's books say that it cost, by the price list where that counts."""
    if model == "router":
        return Decimal(told["cost"])
    prompt, answer = LISTED[model]
    prompts, answers = int(told["prompt_tokens"]), int(told["answer_tokens"])
    return prompt * prompts + answer * answers


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("model", PATHS)
def test_who_hangs_up_pays_what_the_upstream_charged(gateway: Gateway, root: str, model: str, streamed: bool) -> None:
    hang_up(gateway, PATHS[model], model, SLOW, **({"stream": True} if streamed else {}))
    eventually(lambda: holds(gateway)[-1]["state"] == "posted", seconds=20)
    hold = holds(gateway)[-1]
    # An upstream that is only hung up on may note that after the fare is posted.
    eventually(lambda: bool(in_books_of_upstream(root, hold["generation_id"])))
    told = in_books_of_upstream(root, hold["generation_id"])
    assert told["is_cancelled"] is (streamed and model in ("router", "local"))
    (line,) = [each for each in gateway.orders() if each["hold_id"] == hold["id"]]
    assert Decimal(line["cost_usd"]) == cost_of(model, told)
    assert hold["upstream"] == model
    found = gateway.request("GET", f"/api/v1/generation?id={hold['generation_id']}", headers=headers_of(gateway, ""))
    assert Decimal(str(found.json["data"]["total_cost"])) == cost_of(model, told)


@pytest.mark.parametrize("model", ["gpt", "claude"])
def test_what_nobody_can_be_asked_is_asked_once_and_told(gateway: Gateway, model: str) -> None:
    answer = order(gateway, PATHS[model], model, "cut-at-event=3", stream=True)
    assert b"broke off" in answer.body
    eventually(lambda: holds(gateway)[-1]["state"] == "open" and holds(gateway)[-1]["ask_us"] is None)
    hold = holds(gateway)[-1]
    assert hold["asks"] <= 1
    found = gateway.request("GET", f"/api/v1/generation?id={hold['generation_id']}", headers=headers_of(gateway, ""))
    assert found.status == 404
    assert "what it cost is not known yet" in found.error["message"]
    (listed,) = [each for each in gateway.cli("reconcile", "--list") if each["hold_id"] == hold["id"]]
    assert "broke" in listed["reason"]
    gateway.cli("reconcile", hold["id"], "--cost", "0.001", "--reason", "by the invoice")
    assert holds(gateway)[-1]["state"] == "posted"


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("model", ["gpt", "claude"])
def test_a_kept_answer_is_the_translated_one(gateway: Gateway, model: str, streamed: bool) -> None:
    key = {"idempotency_key": f"{model} {streamed}"}
    first = order(gateway, PATHS[model], model, headers=key, stream=streamed)
    assert first.status == 200, first.body
    before = len(holds(gateway))
    again = order(gateway, PATHS[model], model, headers=key, stream=streamed)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.body == first.body
    assert len(holds(gateway)) == before


@pytest.mark.parametrize("model", ["gpt", "claude"])
def test_a_repeat_joins_an_order_whose_answer_is_translated(gateway: Gateway, root: str, model: str) -> None:
    before = len(holds(gateway))
    answers: list[Response] = []

    def call(retries: str) -> None:
        answers.append(
            order(gateway, PATHS[model], model, "head-ms=1000", {"x_stainless_retry_count": retries}, temperature=0.5)
        )

    first = threading.Thread(target=call, args=("0",))
    first.start()
    eventually(lambda: len(holds(gateway)) > before)
    call("1")
    first.join()
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json == answers[1].json
    assert sorted(answer.headers.get("idempotency-replayed", "") for answer in answers) == ["", "true"]
    assert len(holds(gateway)) == before + 1


def test_a_stop_waits_for_streams_that_are_drained(root: str, tmp_path: Path) -> None:
    with made(tmp_path, root) as gateway:
        gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "1000")
        for model in ("gpt", "claude"):
            hang_up(gateway, PATHS[model], model, "tokens=60,token-ms=20", stream=True)
        gateway.stop()
        assert [(hold["upstream"], hold["state"]) for hold in holds(gateway)] == [
            ("gpt", "posted"),
            ("claude", "posted"),
        ]
        assert [hold["answer_tokens"] for hold in holds(gateway)] == [60, 60]
        gateway.audit()


def test_a_stop_ends_drained_streams_that_do_not_end_in_time(root: str, tmp_path: Path) -> None:
    with made(tmp_path, root, FAREBOX_GRACE_SECONDS="1") as gateway:
        gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "1000")
        for model in ("gpt", "claude"):
            hang_up(gateway, PATHS[model], model, "tokens=9999,token-ms=100", stream=True)
        gateway.stop()
        assert [(hold["upstream"], hold["state"]) for hold in holds(gateway)] == [("gpt", "open"), ("claude", "open")]
        gateway.audit()
