"""Who is a caller no more when its request has come to its end is served nothing, however early it began."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from tests.gateway import Gateway, Response, eventually
from tests.served.test_runs import begin

CHAT = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
KEPT = {**CHAT, "max_tokens": 21}
"""Its answer is kept for the same order again."""

CHARGE = {"eventName": "openrouter-api-usage", "count": 7}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "chat", "arguments": CHAT}}
TOP_UP = {"account": "b", "amount_usd": "5", "idempotency_key": "k"}


class Begun:
    """A request of which all has come but the last bytes of its body."""

    def __init__(self, gateway: Gateway, key: str, path: str, order: Any) -> None:
        body = json.dumps(order).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
            f"content-type: application/json\r\nx-farebox-cache: 600\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
        self.connection.sendall(head.encode() + body[:-5])
        self._left = body[-5:]

    def end(self) -> int:
        """Send the rest; the answer's status."""
        with closing(self.connection):
            self.connection.sendall(self._left)
            with self.connection.makefile("rb") as answer:
                return int(answer.readline().split()[1])


def revoke(gateway: Gateway, key: str) -> None:
    gateway.cli("key", "revoke", key)
    asking = {"authorization": f"Bearer {key}"}
    eventually(lambda: gateway.request("GET", "/api/v1/key", None, asking).status == 401, 5)


@pytest.mark.parametrize("http", ["direct", "plain"])
def test_what_was_on_its_way_when_its_key_was_revoked_is_refused(tmp_path: Any, http: str) -> None:
    settings = {"FAREBOX_HTTP": "plain"} if http == "plain" else {}
    with Gateway(tmp_path, **settings) as gateway:
        key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
        gateway.new_key("b", "--plan", "paying", "--prepaid", "1")
        manager = str(gateway.cli("management-key", "create", "--label", "m")["key"])
        run = begin(gateway, key, {})
        begun = {
            "/api/v1/chat/completions": CHAT,
            "/api/v1/messages": {**CHAT, "stream": True},
            "/api/v1/responses": {"model": "sim/echo", "input": "Hello", "background": True, "max_output_tokens": 20},
            f"/v2/actor-runs/{run['id']}/charge": CHARGE,
            "/v2/acts/apify~openrouter/runs": {"requests": [CHAT]},
            "/api/v1/presets/mine/chat/completions": CHAT,
            "/v1/chat/completions": KEPT,
            "/mcp": CALL,
        }
        assert Begun(gateway, key, "/v1/chat/completions", KEPT).end() == 200
        before = gateway.orders("a")
        requests = {path: Begun(gateway, key, path, body) for path, body in begun.items()}
        managing = Begun(gateway, manager, "/admin/top-ups", TOP_UP)
        revoke(gateway, key)
        gateway.cli("management-key", "revoke", manager)
        assert {path: request.end() for path, request in requests.items()} == dict.fromkeys(requests, 401)
        assert managing.end() == 401
        assert gateway.orders("a") == before
        assert len(gateway.statement("b")["lines"]) == 1
        gateway.audit()


def test_what_was_on_its_way_when_its_account_was_closed_costs_nothing(gateway: Gateway) -> None:
    key = gateway.new_key("a", "--plan", "paying", "--postpaid")
    order = Begun(gateway, key, "/api/v1/chat/completions", CHAT)
    gateway.cli("account", "close", "a")
    assert order.end() == 403
    assert gateway.orders("a") == []


def test_a_repeat_whose_key_is_revoked_while_it_waits_gets_no_answer(gateway: Gateway) -> None:
    key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
    answers: dict[str, Response] = {}

    def send(count: str) -> None:
        headers = {
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "x-stainless-retry-count": count,
            "x-openrouter-simulate": "first-token-ms=6000",
        }
        body = json.dumps(CHAT).encode()
        answers[count] = gateway.request("POST", "/api/v1/chat/completions", body, headers)

    with sending(send, "0"):
        eventually(lambda: [line["what"] for line in gateway.orders("a")] == ["held"], 5)
        with sending(send, "1"):
            revoke(gateway, key)
    assert answers["0"].status == 200
    assert b"was revoked" in answers["1"].body
    assert len([line for line in gateway.orders("a") if line["what"] == "fare"]) == 1


@contextmanager
def sending(send: Any, count: str) -> Iterator[None]:
    thread = threading.Thread(target=send, args=(count,))
    thread.start()
    try:
        yield
    finally:
        thread.join()
