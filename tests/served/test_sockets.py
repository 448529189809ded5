"""WebSocket on `/responses`: turns over one connection, each an order like any other; what is wrong is told on it, and
it goes on."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from openai import OpenAI
from openai.types.responses import Response
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.gateway import Gateway, eventually

LAST = ("response.completed", "response.incomplete", "response.failed", "error")

HANDSHAKE = (
    b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nauthorization: Bearer %b\r\n\r\n"
)


class Talk:
    """A client's side of a WebSocket."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    def send(self, **turn: Any) -> Self:
        self.ws.send(json.dumps({"type": "response.create", "model": "sim/echo", "store": False, **turn}))
        return self

    def event(self) -> Any:
        return json.loads(self.ws.recv(timeout=20))

    def events(self) -> list[Any]:
        """Those of one turn."""
        got = [self.event()]
        while got[-1]["type"] not in LAST:
            got.append(self.event())
        return got

    def turn(self, **turn: Any) -> Any:
        """The last event of a turn."""
        return self.send(**turn).events()[-1]

    def close_code(self) -> int | None:
        with pytest.raises(ConnectionClosed):
            self.ws.recv(timeout=20)
        return self.ws.close_code


@contextmanager
def talking(gateway: Gateway, key: str | None = None, base: str = "/api/v1", **options: Any) -> Iterator[Talk]:
    headers = {"authorization": f"Bearer {key or gateway.key}", **options.pop("headers", {})}
    with connect(f"ws://127.0.0.1:{gateway.port}{base}/responses", additional_headers=headers, **options) as ws:
        yield Talk(ws)


def text_of(last: Any) -> str:
    assert last["type"] == "response.completed", last
    return str(last["response"]["output"][0]["content"][0]["text"])


def code_of(last: Any) -> tuple[int, str]:
    assert last["type"] == "error", last
    assert last["error"]["message"]
    return last["status"], last["error"]["code"]


NOT_FOUND = (400, "previous_response_not_found")


def test_turns_follow_one_another_and_each_is_an_order(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("turns", "--plan", "paying", "--prepaid", "1")
    with talking(shared_gateway, key, "/v1") as talk:
        events = talk.send(input="The word is cobalt").events()
        assert [each["sequence_number"] for each in events] == list(range(len(events)))
        assert events[0]["type"] == "response.created"
        first = events[-1]["response"]
        assert text_of(events[-1]) == "You said: The word is cobalt"
        last = talk.turn(input="And now?", previous_response_id=first["id"])
        second = last["response"]
        assert text_of(last) == "You said: And now?"
        assert second["previous_response_id"] == first["id"]
        # Three items were sent, and are paid for.
        assert second["usage"]["input_tokens"] > first["usage"]["total_tokens"]
        # Only the last one is remembered.
        assert code_of(talk.turn(input="x", previous_response_id=first["id"])) == NOT_FOUND
        last = talk.turn(input="On", previous_response_id=second["id"])
        third = last["response"]["id"]
        assert text_of(last) == "You said: On"
    with talking(shared_gateway, key) as talk:
        assert code_of(talk.turn(input="x", previous_response_id=third)) == NOT_FOUND
        assert text_of(talk.turn(input="Anew")) == "You said: Anew"
    eventually(lambda: [order["what"] for order in shared_gateway.orders("turns")] == ["fare"] * 4)
    assert shared_gateway.orders("turns")[0]["generation_id"] == first["id"]


def test_metrics_count_connections_and_what_they_remember(gateway: Gateway) -> None:
    def told() -> list[str]:
        lines = gateway.request("GET", "/metrics").body.decode().splitlines()
        return [line.removeprefix("farebox_sockets_") for line in lines if line.startswith("farebox_sockets_")]

    assert told() == ["open 0.0", "remembered_bytes 0.0"]
    with talking(gateway) as talk:
        assert told() == ["open 1.0", "remembered_bytes 0.0"]
        talk.turn(input="Hello")
        eventually(lambda: told()[1] > "remembered_bytes 1")
    eventually(lambda: told() == ["open 0.0", "remembered_bytes 0.0"])


def test_a_turn_that_fails_takes_with_it_what_it_continued(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("evicts", "--plan", "paying", "--prepaid", "1")
    with talking(shared_gateway, key) as talk:
        said = talk.turn(input="Hello")["response"]["id"]
        output = {"type": "function_call_output", "call_id": "call_missing", "output": "x"}
        assert code_of(talk.turn(input=[output], previous_response_id=said)) == (400, "invalid_request")
        assert code_of(talk.turn(input="On", previous_response_id=said)) == NOT_FOUND
        said = talk.turn(input="Hello")["response"]["id"]
        # One that is no continuation takes nothing with it.
        assert code_of(talk.turn(input="x", model="no/such")) == (404, "not_found")
        failed = talk.turn(input="On", previous_response_id=said, model="sim/echo:error-at-event=4")
        assert failed["type"] == "response.failed"
        assert code_of(talk.turn(input="On", previous_response_id=said)) == NOT_FOUND
        called = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
        said = talk.turn(input=[{"role": "user", "content": "Call"}, called])["response"]["id"]
        answered = talk.turn(input=[{**output, "call_id": "c"}], previous_response_id=said)
        assert answered["type"] == "response.completed"


def test_a_turn_that_generates_nothing_costs_nothing_and_is_continued(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("warm", "--plan", "paying", "--prepaid", "1")
    with talking(shared_gateway, key) as talk:
        created, completed = talk.send(generate=False, input=[], instructions="Be short").events()
        assert created["response"]["status"] == "in_progress"
        assert completed["response"]["output"] == []
        assert completed["response"]["usage"]["total_tokens"] == 0
        warm = talk.turn(generate=False, input="One", previous_response_id=completed["response"]["id"])
        assert text_of(talk.turn(input="Two", previous_response_id=warm["response"]["id"])) == "You said: Two"
        assert code_of(talk.turn(generate=False, input=[{"role": 5, "content": 7}], model="")) == (
            400,
            "invalid_request",
        )
    (order,) = shared_gateway.orders("warm")
    assert order["what"] == "fare"


def test_what_is_no_turn_is_told_so_and_the_connection_goes_on(shared_gateway: Gateway) -> None:
    with talking(shared_gateway) as talk:
        for message in (
            "no JSON",
            "[]",
            "{}",
            '{"type": "response.steer"}',
            '{"type": 5}',
            "\udcff".encode("utf-8", "replace"),
        ):
            talk.ws.send(message)
            assert code_of(talk.event()) == (400, "invalid_request"), message
        for more in ({"background": True}, {"stream_id": "a"}, {"previous_response_id": 7}, {"input": None}):
            assert code_of(talk.turn(**more)) == (400, "invalid_request"), more
        # In pieces, and as bytes.
        turn = json.dumps({"type": "response.create", "model": "sim/echo", "input": "Hello", "stream": True})
        talk.ws.send([turn[:9], "", turn[9:20], turn[20:]])
        assert text_of(talk.events()[-1]) == "You said: Hello"
        talk.ws.send(turn.encode())
        assert text_of(talk.events()[-1]) == "You said: Hello"


def test_turns_at_once_are_answered_one_after_another_and_not_without_end(shared_gateway: Gateway) -> None:
    with talking(shared_gateway) as talk:
        for number in range(12):
            talk.send(input=f"{number}", model="sim/echo:token-ms=40")
        got: list[Any] = []
        while sum(each["type"] in LAST for each in got) < 12:
            got.append(talk.event())
    last = [each for each in got if each["type"] in LAST]
    # One is answered, and eight wait for their turn.
    assert [code_of(each) for each in last if each["type"] == "error"] == [(429, "rate_limit_exceeded")] * 3
    assert [text_of(each) for each in last if each["type"] != "error"] == [f"You said: {number}" for number in range(9)]
    told = [each for each in got if each["type"] != "error"]
    begun = [each["type"] for each in told if each["type"] in ("response.created", "response.completed")]
    assert begun == ["response.created", "response.completed"] * 9


def handshake(gateway: Gateway, head: bytes) -> tuple[int, Any]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while part := connection.recv(65536):
            got += part
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)["error"]["code"]


def test_a_handshake_is_refused_over_http(shared_gateway: Gateway) -> None:
    for key, headers, status in (
        ("sk-fb-unknown", {}, 401),
        (None, {"origin": "https://elsewhere.example"}, 403),
    ):
        with pytest.raises(InvalidStatus) as refused, talking(shared_gateway, key, headers=headers):
            pass
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body)["error"]["code"] == status
    good = HANDSHAKE % shared_gateway.key.encode()
    assert handshake(shared_gateway, good.replace(b"version: 13", b"version: 8")) == (426, 426)
    assert handshake(shared_gateway, good.replace(b"key: AAAA", b"key: ")) == (400, 400)
    assert handshake(shared_gateway, good.replace(b"host: x", b"host: x y")) == (400, 400)
    assert handshake(shared_gateway, good.replace(b"/v1/responses", b"/v1/chat/completions")) == (405, 405)


def test_a_key_is_looked_at_for_every_turn(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("revoked in a talk", "--plan", "paying", "--prepaid", "1")
    with talking(shared_gateway, key) as talk:
        assert text_of(talk.turn(input="Hello")) == "You said: Hello"
        (found,) = shared_gateway.cli("key", "list", "revoked in a talk")
        shared_gateway.cli("key", "revoke", str(found["id"]))
        eventually(lambda: talk.turn(input="Hello")["type"] == "error")
        assert code_of(talk.turn(input="Hello")) == (401, "authentication")
        assert code_of(talk.turn(input="Hello", generate=False)) == (401, "authentication")


@pytest.mark.parametrize("by", ["close", "reset"])
def test_who_leaves_in_mid_turn_stops_it(shared_gateway: Gateway, by: str) -> None:
    key = shared_gateway.new_key(f"left-{by}", "--plan", "paying", "--prepaid", "1")
    with talking(shared_gateway, key) as talk:
        talk.send(input="Hello", model="sim/echo:tokens=200,token-ms=50")
        while talk.event()["type"] != "response.output_text.delta":
            pass
        if by == "close":
            talk.ws.close()
        else:
            talk.ws.socket.shutdown(socket.SHUT_RDWR)
    eventually(lambda: "open: the caller hung up" in shared_gateway.orders(f"left-{by}")[0]["what"])


def test_who_does_not_read_holds_up_only_itself(shared_gateway: Gateway) -> None:
    with talking(shared_gateway, max_size=None, max_queue=1) as slow, talking(shared_gateway) as quick:
        slow.send(input="x" * 3_000_000)
        for _ in range(3):
            assert text_of(quick.turn(input="Hello")) == "You said: Hello"
        assert text_of(slow.events()[-1]).endswith("xxx")


@pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")  # the SDK's own way to connect
def test_openais_sdk_talks(shared_gateway: Gateway) -> None:
    client = OpenAI(base_url=shared_gateway.base, api_key=shared_gateway.key)
    with client.responses.connect() as connection:

        def answered(**more: Any) -> Response:
            connection.response.create(model="sim/echo", store=False, **more)
            return next(event.response for event in connection if event.type == "response.completed")

        first = answered(input="Hello")
        assert first.output_text == "You said: Hello"
        assert answered(input="On", previous_response_id=first.id).output_text == "You said: On"


def test_bounds(tmp_path: Path) -> None:
    settings = {"FAREBOX_BODY_BYTES_MAX": "20000", "FAREBOX_BODY_SECONDS": "1", "FAREBOX_SOCKET_SECONDS": "4"}
    with Gateway(tmp_path, FAREBOX_SOCKET_MEMORY_BYTES="3000", **settings) as gateway:
        with talking(gateway) as old:
            with talking(gateway) as talk:
                # Two at once have no room for what they remember.
                a = old.turn(input="a" * 800)["response"]["id"]
                b = talk.turn(input="b" * 800)["response"]["id"]
                assert text_of(old.turn(input="On", previous_response_id=a)) == "You said: On"
                assert code_of(talk.turn(input="On", previous_response_id=b)) == NOT_FOUND
                assert talk.turn(input="c" * 8000)["type"] == "response.completed"
                talk.send(input="d" * 30_000)
                assert talk.close_code() == 1009
            with talking(gateway, compression="deflate") as talk:
                assert not talk.ws.protocol.extensions
                talk.ws.protocol.send_text(b'{"type":', fin=False)
                talk.ws.socket.sendall(b"".join(talk.ws.protocol.data_to_send()))
                assert code_of(talk.event()) == (408, "timeout")
                assert talk.close_code() == 1008
            assert code_of(old.event()) == (400, "websocket_connection_limit_reached")
            assert old.close_code() == 1000
        with talking(gateway) as talk:
            # What a turn that was under way before the end of its connection's time says is heard to its end.
            talk.send(input="Hello", model="sim/echo:first-token-ms=4500")
            assert text_of(talk.events()[-1]) == "You said: Hello"
            assert code_of(talk.event()) == (400, "websocket_connection_limit_reached")
        gateway.audit()


def test_a_stop_ends_turns_and_connections(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_GRACE_SECONDS="1") as gateway, talking(gateway) as idle, talking(gateway) as talk:
        talk.send(input="Hello", model="sim/echo:tokens=200,token-ms=100")
        while talk.event()["type"] != "response.output_text.delta":
            pass
        gateway.process.send_signal(signal.SIGTERM)
        failed = talk.events()[-1]
        assert failed["type"] == "response.failed"
        assert "the gateway is stopping" in failed["error"]["message"].lower()
        assert talk.close_code() == 1001
        assert idle.close_code() == 1001
        assert '"level":"error"' not in gateway.stop()


def test_kill_9_in_mid_turn_leaves_nothing_that_differs(tmp_path: Path, upstream: int) -> None:
    settings = {"FAREBOX_UPSTREAM_URL": f"http://127.0.0.1:{upstream}/api/v1", "OPENROUTER_API_KEY": "x"}
    gateway = Gateway(tmp_path, **settings, FAREBOX_RECONCILE_SECONDS="0.2")
    gateway.copy_books()
    key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "1")
    with gateway, talking(gateway, key) as talk:
        first = talk.turn(input="Hello")["response"]
        talk.send(input="On", model="sim/echo:tokens=40,token-ms=50", previous_response_id=first["id"])
        while (event := talk.event())["type"] != "response.output_text.delta":
            pass
        eventually(lambda: all(order["generation_id"] for order in gateway.orders()))
        gateway.kill()
        gateway.start()
        eventually(lambda: [order["what"] for order in gateway.orders()] == ["fare", "fare"], 20)
        for order in gateway.orders():
            path = f"/api/v1/generation?id={order['generation_id']}"
            record = gateway.request("GET", path, headers={"authorization": f"Bearer {key}"}).json["data"]
            assert record["farebox_fare_events"] == order["events"]
        gateway.audit()
    assert event
