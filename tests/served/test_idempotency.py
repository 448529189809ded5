"""Idempotency keys: the same order under the same key is answered again, and charged once."""

import http.client
import json
import socket
import threading
from typing import Any

import pytest

from tests.gateway import Gateway, Response, eventually
from tests.served.test_formats import ORDERS, STREAMED, error_type, order


def under(
    gateway: Gateway, idempotency_key: str, path: str, key: str = "", simulate: str = "", **body: Any
) -> Response:
    headers = {"idempotency-key": idempotency_key}
    if simulate:
        headers["x-openrouter-simulate"] = simulate
    return order(gateway, path, key, headers, **body)


def posts(gateway: Gateway, name: str) -> list[str]:
    return [line["what"] for line in gateway.orders(name)]


@pytest.mark.parametrize(
    ("path", "streamed"), [*((path, False) for path in ORDERS), *((path, True) for path in STREAMED)]
)
def test_a_repeat_gets_the_same_answer_and_costs_nothing(shared_gateway: Gateway, path: str, streamed: bool) -> None:
    name = f"again {path} {streamed}"
    key = shared_gateway.new_key(name, "--plan", "paying", "--prepaid", "1")
    body: dict[str, Any] = {"stream": True} if streamed else {}
    first = under(shared_gateway, "k", path, key, **body)
    again = under(shared_gateway, "k", path, key, **body)
    assert first.status == again.status == 200
    assert again.body == first.body
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-generation-id"] == first.headers["x-generation-id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    if not streamed:
        assert (first.headers["x-farebox-fare-events"], again.headers["x-farebox-fare-events"]) == ("1", "0")
    assert posts(shared_gateway, name) == ["fare"]


def test_another_order_under_the_key_is_refused(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("another", "--plan", "paying", "--prepaid", "1")
    under(shared_gateway, "k", "/responses", key)
    for path, body in (("/responses", {"input": "Other"}), ("/messages", {})):
        refused = under(shared_gateway, "k", path, key, **body)
        assert (refused.status, error_type(path, refused)) == (409, "precondition_failed")
        assert "retry-after" not in refused.headers
    assert under(shared_gateway, "l", "/responses", key, input="Other").status == 200
    # The same bytes on another path are another order.
    assert ORDERS["/chat/completions"] == ORDERS["/messages"]
    assert under(shared_gateway, "m", "/chat/completions", key).status == 200
    assert under(shared_gateway, "m", "/messages", key).status == 409


def test_a_key_is_its_accounts_own(shared_gateway: Gateway) -> None:
    for name in ("mine", "yours"):
        key = shared_gateway.new_key(name, "--plan", "paying", "--prepaid", "1")
        assert "idempotency-replayed" not in under(shared_gateway, "shared", "/chat/completions", key).headers
        assert posts(shared_gateway, name) == ["fare"]


def test_a_repeat_while_the_first_is_running_is_told_to_come_back(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("impatient", "--plan", "paying", "--prepaid", "1")
    first: list[Response] = []

    def ask() -> None:
        first.append(under(shared_gateway, "k", "/chat/completions", key, "first-token-ms=800"))

    asking = threading.Thread(target=ask)
    asking.start()
    eventually(lambda: len(shared_gateway.orders("impatient")) == 1)
    early = under(shared_gateway, "k", "/chat/completions", key, "first-token-ms=800")
    assert (early.status, early.headers["retry-after"]) == (409, "1")
    asking.join()
    assert under(shared_gateway, "k", "/chat/completions", key).body == first[0].body
    assert posts(shared_gateway, "impatient") == ["fare"]


def test_what_the_upstream_refused_may_be_tried_again(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("undaunted", "--plan", "paying", "--prepaid", "1")
    assert under(shared_gateway, "k", "/messages", key, "status=429").status == 429
    assert under(shared_gateway, "k", "/messages", key).status == 200
    assert posts(shared_gateway, "undaunted").count("fare") == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_too_long_to_keep_is_named_as_such(shared_gateway: Gateway, streamed: bool) -> None:
    name = f"long {streamed}"
    key = shared_gateway.new_key(name, "--plan", "paying", "--prepaid", "5")
    body: dict[str, Any] = (
        {"input": ["x"] * 64, "dimensions": 4096} if not streamed else {"model": "sim/long", "stream": True}
    )
    path = "/chat/completions" if streamed else "/embeddings"
    first = under(shared_gateway, "k", path, key, "tokens=9000", **body)
    assert len(first.body) > 1024 * 1024
    refused = under(shared_gateway, "k", path, key, "tokens=9000", **body)
    assert refused.status == 410
    assert "over 1048576 bytes" in refused.error["message"]
    assert refused.error["metadata"]["generation_id"] == first.headers["x-generation-id"]
    assert posts(shared_gateway, name) == ["fare"]


@pytest.mark.parametrize("fault", ["cut-at-byte=30", "cut-at-event=2"])
def test_an_answer_that_was_cut_off_is_not_ordered_anew(shared_gateway: Gateway, fault: str) -> None:
    name = f"cut {fault}"
    key = shared_gateway.new_key(name, "--plan", "paying", "--prepaid", "1")
    body: dict[str, Any] = {"stream": True} if "event" in fault else {}
    under(shared_gateway, "k", "/chat/completions", key, fault, **body)
    refused = under(shared_gateway, "k", "/chat/completions", key, **body)
    assert refused.status == 410
    assert "cut off" in refused.error["message"]
    assert len(posts(shared_gateway, name)) == 1


def test_a_caller_who_hung_up_on_a_whole_answer_gets_it_when_it_asks_again(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("returner", "--plan", "paying", "--prepaid", "1")
    text = json.dumps(ORDERS["/messages"])
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\nidempotency-key: k\r\n"
    simulate = "x-openrouter-simulate: first-token-ms=500\r\n"
    with socket.create_connection(("127.0.0.1", shared_gateway.port), timeout=10) as connection:
        connection.sendall(f"{head}{simulate}content-length: {len(text)}\r\n\r\n{text}".encode())
        eventually(lambda: len(shared_gateway.orders("returner")) == 1)
    eventually(lambda: posts(shared_gateway, "returner") == ["fare"])
    again = under(shared_gateway, "k", "/messages", key)
    assert again.json["content"][0]["text"] == "You said: Hello"
    assert posts(shared_gateway, "returner") == ["fare"]


def test_keys_and_answers_outlive_a_kill(gateway: Gateway) -> None:
    first = under(gateway, "k", "/chat/completions")

    def ask() -> None:
        with pytest.raises((OSError, http.client.HTTPException)):
            under(gateway, "cut", "/chat/completions", simulate="first-token-ms=5000")

    asking = threading.Thread(target=ask)
    asking.start()
    eventually(lambda: len(gateway.orders()) == 2)
    key = gateway.key
    gateway.kill()
    asking.join()
    gateway.start()
    assert under(gateway, "k", "/chat/completions", key).body == first.body
    # What the other one cost is not known: it is not ordered a second time.
    assert under(gateway, "cut", "/chat/completions", key).status == 410
    assert len(gateway.orders()) == 2
