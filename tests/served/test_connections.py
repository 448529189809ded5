"""Connections of callers: how long they are kept, how they end, and that nothing of them is left."""

import gc
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from farebox.http.asgi import send_json
from farebox.http.server import BoundedHttp
from farebox.simulator.server import _QuietServer
from tests.gateway import Gateway, events_of, eventually
from tests.served.test_formats import ORDERS, STREAMED

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def order(
    gateway: Gateway, path: str = "/chat/completions", simulate: str = "", version: str = "1.1", **body: object
) -> bytes:
    text = json.dumps({**ORDERS[path], **body}).encode()
    head = (
        f"POST /v1{path} HTTP/{version}\r\nhost: x\r\nx-api-key: {gateway.key}\r\nx-openrouter-simulate: {simulate}\r\n"
    )
    return head.encode() + b"content-length: %d\r\n\r\n" % len(text) + text


def read_all(connection: socket.socket) -> bytes:
    got = b""
    while part := connection.recv(65536):
        got += part
    return got


def asked(connection: socket.socket, request: bytes = GET) -> bytes:
    """Head and body of the answer to GET."""
    connection.sendall(request)
    got = b""
    while not got.endswith(b'{"status":"ok"}'):
        part = connection.recv(65536)
        assert part, got
        got += part
    return got


# How long they are kept


def test_an_idle_connection_is_kept_for_longer_than_pools_keep_theirs_and_says_how_long(
    shared_gateway: Gateway,
) -> None:
    with connect(shared_gateway.port) as connection:
        for pause in (6, 0):
            assert b"\r\nkeep-alive: timeout=75\r\n" in asked(connection)
            time.sleep(pause)


def test_how_long_is_a_setting_and_a_little_more_than_is_told(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_KEEP_ALIVE_SECONDS="1") as gateway, connect(gateway.port) as connection:
        for pause in (1.1, 0):
            assert b"\r\nkeep-alive: timeout=1\r\n" in asked(connection)
            time.sleep(pause)
        assert connection.recv(1) == b""


def test_a_connection_is_not_idle_while_an_order_is_served_whose_head_came_in_pieces(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_KEEP_ALIVE_SECONDS="1") as gateway, connect(gateway.port) as connection:
        slow = order(gateway, simulate="head-ms=7500")
        got = b""
        for answers, piece in ((1, order(gateway, simulate="head-ms=300") + slow[:20]), (2, slow[20:])):
            connection.sendall(piece)
            while got.count(b"HTTP/1.1 200 OK") < answers:
                part = connection.recv(65536)
                assert part, got
                got += part


def test_bytes_that_are_no_request_do_not_keep_a_connection_open(tmp_path: Path) -> None:
    """An empty line before a request is passed over (RFC 9112, 2.2); the body of a request that was answered, too."""
    long = GET.removesuffix(b"\r\n") + b"content-length: 100\r\n\r\n"
    with (
        Gateway(tmp_path, FAREBOX_KEEP_ALIVE_SECONDS="1") as gateway,
        connect(gateway.port) as idle,
        connect(gateway.port) as unfinished,
    ):
        assert asked(idle)
        assert asked(unfinished, long)
        time.sleep(0.2)
        idle.sendall(b"\r\n")
        unfinished.sendall(b"a")
        assert idle.recv(1) == unfinished.recv(1) == b""


def test_a_connection_that_is_closed_is_not_said_to_be_kept(shared_gateway: Gateway) -> None:
    with connect(shared_gateway.port) as connection:
        connection.sendall(GET.replace(b"host", b"connection: close\r\nhost"))
        assert b"keep-alive" not in read_all(connection)


def test_a_worker_that_is_deaf_for_a_while_is_not_killed(tmp_path: Path) -> None:
    with Gateway(tmp_path, "--workers", "2") as gateway:
        children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
        workers = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGSTOP)
        time.sleep(8)
        os.kill(workers[0], signal.SIGCONT)
        time.sleep(1)
        assert all("\nState:\tZ" not in Path(f"/proc/{worker}/status").read_text() for worker in workers)


# What is left of them


@contextmanager
def server() -> Iterator[int]:
    """Answers everything at once, in this process."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, b"{}")

    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=BoundedHttp, ws="none", lifespan="off", log_config=None, timeout_keep_alive=600)
    serving = _QuietServer(config)
    thread = threading.Thread(target=lambda: uvloop.run(serving.serve(sockets=[bound])))
    thread.start()
    try:
        yield bound.getsockname()[1]
    finally:
        serving.should_exit = True
        thread.join()


def resets(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


ENDS: dict[str, tuple[bytes, Callable[[socket.socket], None]]] = {
    "closed": (GET, lambda connection: None),
    "reset": (GET, resets),
    "half closed": (GET, lambda connection: connection.shutdown(socket.SHUT_WR)),
    "reset before its head's end": (b"GET", resets),
    "refused": (b"nonsense\r\n\r\n", lambda connection: None),
    "refused and reset": (b"nonsense\r\n\r\n", resets),
}


def connections_alive() -> list[BoundedHttp]:
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, BoundedHttp)]


@pytest.mark.parametrize("end", ENDS)
def test_nothing_of_a_connection_outlives_it(end: str) -> None:
    sent, finish = ENDS[end]
    others = connections_alive()
    with server() as port:
        for _ in range(20):
            with connect(port) as connection:
                connection.sendall(sent)
                if sent != b"GET":
                    connection.recv(65536)
                finish(connection)

        # Those of servers that other tests share are not this server's.
        eventually(lambda: not [each for each in connections_alive() if each not in others])


# Who has closed one side, and who has gone


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("path", ORDERS)
def test_who_has_only_ended_its_own_side_is_answered(shared_gateway: Gateway, path: str, version: str) -> None:
    with connect(shared_gateway.port) as connection:
        connection.sendall(order(shared_gateway, path, "head-ms=300,first-token-ms=300", version))
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    *interim, body = answer.split(b"\r\n\r\n")
    assert interim[-1].startswith(b"HTTP/1.1 200 ")
    assert all(each == b"HTTP/1.1 100 Continue" for each in interim[:-1])
    assert json.loads(body)["usage"]


@pytest.mark.parametrize("path", STREAMED)
def test_who_has_ended_its_own_side_reads_its_stream_to_the_end(shared_gateway: Gateway, path: str) -> None:
    with connect(shared_gateway.port) as connection:
        connection.sendall(order(shared_gateway, path, "token-ms=30,tokens=10", stream=True))
        got = connection.recv(65536)
        connection.shutdown(socket.SHUT_WR)
        got += read_all(connection)
    chunks = got.partition(b"\r\n\r\n")[2]
    body = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        body += chunks[: int(size, 16)]
        chunks = chunks[int(size, 16) + 2 :]
    with connect(shared_gateway.port) as connection:
        connection.sendall(order(shared_gateway, path, "tokens=10", "1.0", stream=True))
        plain = read_all(connection).partition(b"\r\n\r\n")[2]
    assert len(body.split(b"\n\n")) == len(plain.split(b"\n\n"))
    assert b'"cost"' in body
    assert chunks == b""


@pytest.mark.parametrize("length", [9, 300_000])
def test_who_has_gone_is_missed_in_a_stream_that_says_nothing(gateway: Gateway, length: int) -> None:
    messages = [{"role": "user", "content": "x" * length}]
    with connect(gateway.port) as connection:
        connection.sendall(order(gateway, simulate="stall-at-event=1", stream=True, messages=messages))
        while b"data: " not in connection.recv(65536):
            pass
    eventually(lambda: "open: the caller hung up" in gateway.orders()[0]["what"])


# Who speaks HTTP/1.0


@pytest.mark.parametrize("path", STREAMED)
def test_a_stream_for_http_1_0_has_no_chunks(shared_gateway: Gateway, path: str) -> None:
    with connect(shared_gateway.port) as connection:
        connection.sendall(order(shared_gateway, path, version="1.0", stream=True))
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"\r\nconnection: close" in head
    assert body.startswith((b"data: {", b"event: "))
    assert body.endswith(b"\n\n")
    if path == "/chat/completions":
        assert events_of(body)[-1] == "[DONE]"


# Orders through ASGI, as everything else


def test_orders_may_go_through_asgi_too(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_HTTP="plain") as gateway:
        assert gateway.chat().json["choices"][0]["message"]["content"] == "You said: Hello"
        assert events_of(gateway.chat(stream=True).body)[-1] == "[DONE]"
        with connect(gateway.port) as connection:
            connection.sendall(order(gateway, simulate="stall-at-event=2", stream=True))
            while b"data: " not in connection.recv(65536):
                pass
        eventually(lambda: "open: the caller hung up" in gateway.orders()[-1]["what"])
        with connect(gateway.port) as connection:
            connection.sendall(order(gateway, simulate="head-ms=300"))
            connection.shutdown(socket.SHUT_WR)
            assert b"HTTP/1.1 200 OK" in read_all(connection)
        assert [line["what"][:4] for line in gateway.orders()] == ["fare", "fare", "held", "fare"]
