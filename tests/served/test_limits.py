"""Everything has a bound, and who meets one is told so in its own format."""

import asyncio
import json
import re
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from farebox.core.books import Command, Done, Outcome, PlaceHold, Settle
from farebox.core.usage import Nothing
from farebox.http.asgi import send_json
from farebox.http.server import BoundedHttp
from farebox.ports import BooksUnavailable
from farebox.simulator.server import _QuietServer
from farebox.store.writer import QUEUED_MAX, GroupWriter
from tests.gateway import Gateway, eventually
from tests.programs import simulator
from tests.served.test_formats import ORDERS, error_type, order, rss_kib

LONG = {"role": "user", "content": "x" * 300_000}

CROWD = 10_000
IDLE_KIB_MAX = 9
"""How much memory an idle connection may cost; it costs 7."""


def slowly(gateway: Gateway, key: str, orders: int) -> list[threading.Thread]:
    """So many orders that take a second each."""

    def ask() -> None:
        assert order(gateway, "/messages", key, {"x-openrouter-simulate": "first-token-ms=1000"}).status == 200

    asking = [threading.Thread(target=ask) for _ in range(orders)]
    for each in asking:
        each.start()
    return asking


@pytest.mark.parametrize("limit", ["FAREBOX_ACCOUNT_ORDERS_MAX", "FAREBOX_ORDERS_MAX"])
def test_more_orders_than_are_served_at_once_are_told_to_come_back(tmp_path: Path, limit: str) -> None:
    with Gateway(tmp_path, **{limit: "3"}) as gateway:
        key = gateway.new_key("busy", "--plan", "paying", "--prepaid", "1")
        asking = slowly(gateway, key, 3)
        eventually(lambda: len(gateway.orders("busy")) == 3)
        for path in ORDERS:
            shed = order(gateway, path, key)
            assert (shed.status, shed.headers["retry-after"]) == (429, "1")
            assert error_type(path, shed) == "rate_limit_exceeded"
        # Another account is shut out only where all is full.
        assert order(gateway, "/responses").status == (200 if "ACCOUNT" in limit else 429)
        for each in asking:
            each.join()
        assert order(gateway, "/responses", key).status == 200
        assert [line["what"] for line in gateway.orders("busy")] == ["fare"] * 4


def test_a_stream_that_its_caller_leaves_gives_its_place_back(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_ACCOUNT_ORDERS_MAX="1") as gateway:
        text = json.dumps({**ORDERS["/messages"], "stream": True})
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {gateway.key}\r\n"
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
                simulate = "x-openrouter-simulate: tokens=500,token-ms=20\r\n"
                connection.sendall(f"{head}{simulate}content-length: {len(text)}\r\n\r\n{text}".encode())
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            eventually(lambda: order(gateway, "/messages").status == 200)


def test_a_caller_who_does_not_read_does_not_fill_the_memory(tmp_path: Path) -> None:
    with simulator() as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        with Gateway(tmp_path, "--upstream", url, OPENROUTER_API_KEY="sk-or-x") as gateway:
            key = gateway.new_key("a", "--plan", "paying", "--prepaid", "5")
            text = json.dumps({**ORDERS["/messages"], "model": "sim/long", "stream": True})
            head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n"
            simulate = "x-openrouter-simulate: tokens=60000\r\n"
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
                connection.sendall(f"{head}{simulate}content-length: {len(text)}\r\n\r\n{text}".encode())
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
                before = rss_kib(gateway)
                time.sleep(3)
                assert rss_kib(gateway) - before < 5_000
            eventually(lambda: "hung up" in gateway.orders("a")[0]["what"])


def test_an_open_stream_keeps_nothing_of_its_order(tmp_path: Path) -> None:
    with simulator() as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        with Gateway(tmp_path, "--upstream", url, OPENROUTER_API_KEY="sk-or-x") as gateway, ExitStack() as stack:
            key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1000")
            text = json.dumps({"model": "sim/echo", "stream": True, "max_tokens": 9, "messages": [LONG]})
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n"
            simulate = "x-openrouter-simulate: stall-at-event=1\r\n"

            def open_streams(number: int) -> None:
                for _ in range(number):
                    connection = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=10))
                    connection.sendall(f"{head}{simulate}content-length: {len(text)}\r\n\r\n{text}".encode())
                    assert connection.recv(65536).startswith(b"HTTP/1.1 200")

            open_streams(5)
            before = rss_kib(gateway)
            open_streams(24)
            assert rss_kib(gateway) - before < 4_000


def test_ten_thousand_connections_are_held_and_served_by_one_process(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted, hard = CROWD + 1_000, before[1]
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"NOT TESTED: {CROWD} connections. {wanted} open files are needed, and {hard} allowed (ulimit -Hn)")
    with Gateway(tmp_path, FAREBOX_CONNECTIONS_MAX=str(CROWD + 10)) as gateway, ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        gateway.chat()
        rss_before = rss_kib(gateway)
        crowd: list[socket.socket] = []
        while len(crowd) < CROWD:
            several = [stack.enter_context(_connection_without_trace(gateway.port)) for _ in range(500)]
            _asked_at_once(several)
            crowd += several
        assert (rss_kib(gateway) - rss_before) / CROWD < IDLE_KIB_MAX
        assert gateway.chat().status == 200
        assert gateway.chat(stream=True).body.endswith(b"data: [DONE]\n\n")
        for first in range(0, CROWD, 500):
            _asked_at_once(crowd[first : first + 500])


def _connection_without_trace(port: int) -> socket.socket:
    """Closed by a reset: ten thousand ports that wait for stragglers would be missed by other tests."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return connection


def _asked_at_once(connections: list[socket.socket]) -> None:
    for each in connections:
        each.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    for each in connections:
        answer = each.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        while not answer.endswith(b'{"status":"ok"}'):
            answer += (more := each.recv(65536))
            assert more, answer


def test_more_connections_than_are_open_at_once_are_told_to_come_back(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_CONNECTIONS_MAX="3") as gateway, ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port))) for _ in range(3)]
        for path in ORDERS:
            shed = order(gateway, path)
            assert (shed.status, shed.headers["retry-after"]) == (429, "1")
            assert error_type(path, shed) == "rate_limit_exceeded"
        idle.pop().close()
        eventually(lambda: order(gateway, "/messages").status == 200)  # as many as may be
        idle.append(stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port))))
        # Beyond some that are told so, connections are closed without a word.
        more = [stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port))) for _ in range(400)]
        more[-1].settimeout(10)
        with suppress(ConnectionResetError):
            assert more[-1].recv(1) == b""
        for each in (*idle, *more):
            each.close()
        eventually(lambda: order(gateway, "/messages").status == 200)


def test_a_server_may_open_as_many_files_as_its_connections_need(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 1_000 if hard == resource.RLIM_INFINITY else min(1_000, hard)
    gateway = Gateway(tmp_path, FAREBOX_CONNECTIONS_MAX="250")
    gateway.python = sys.executable
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        gateway.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    limits = Path(f"/proc/{gateway.process.pid}/limits").read_text()
    gateway.stop()
    assert int(re.findall(r"Max open files\s+(\d+)", limits)[0]) == wanted


def test_a_writer_with_too_much_to_do_takes_no_new_hold_and_ends_what_began() -> None:
    async def main() -> None:
        go = threading.Event()

        def commit(batch: list[Command]) -> list[Outcome | Exception]:
            go.wait(10)
            return [Done() for _ in batch]

        place = PlaceHold(
            id="h",
            account_id=2,
            key_id=1,
            wanted_nanos=1,
            least_nanos=1,
            plan="paying",
            event_price_nanos=10_000,
            model="a/b",
            streamed=False,
            created_us=1,
        )
        writer = GroupWriter(commit, "slow")
        waiting = [writer.submit(place)]
        await asyncio.sleep(0.2)  # taken, and now in its transaction
        waiting += [writer.submit(place) for _ in range(QUEUED_MAX)]
        with pytest.raises(BooksUnavailable, match="wait for the books"):
            writer.submit(place)
        waiting.append(writer.submit(Settle(hold_id="h", verdict=Nothing(), created_us=1)))
        go.set()
        await asyncio.gather(*waiting)
        await writer.submit(place)
        await writer.close()

    asyncio.run(main())


def test_what_queues_during_a_transaction_is_the_next_one() -> None:
    async def main() -> None:
        go = threading.Event()
        batches: list[int] = []

        def commit(batch: list[Command]) -> list[Outcome | Exception]:
            go.wait(10)
            batches.append(len(batch))
            return [Done() for _ in batch]

        writer = GroupWriter(commit, "slow")
        settle = Settle(hold_id="h", verdict=Nothing(), created_us=1)
        waiting = [writer.submit(settle) for _ in range(6)]
        go.set()
        await asyncio.gather(*waiting)
        # After many the next ones are waited for; these come in turns of the loop of their own.
        waiting = []
        for _ in range(3):
            waiting.append(writer.submit(settle))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        assert batches == [1, 5, 3]
        # None is left behind by an end that comes while they are waited for.
        waiting = [writer.submit(settle) for _ in range(5)]
        assert await writer.close()
        assert [await each for each in waiting] == [Done()] * 5

    asyncio.run(main())


# What stands before ASGI


@pytest.fixture
def impatient() -> Iterator[int]:
    """A server that waits 0.3 s for a head."""

    class Impatient(BoundedHttp):
        head_seconds = 0.3

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, b"{}")

    bound = socket.create_server(("127.0.0.1", 0))
    server = _QuietServer(uvicorn.Config(app, http=Impatient, ws="none", lifespan="off", log_config=None))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
    thread.start()
    try:
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_comes_too_slowly_is_refused(impatient: int, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient), timeout=5) as connection:
        connection.sendall(begun)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == 408


def test_a_head_in_pieces_and_the_next_one_later_are_served(impatient: int) -> None:
    with socket.create_connection(("127.0.0.1", impatient), timeout=5) as connection:
        for _ in range(2):
            for piece in (b"GET / HT", b"TP/1.1\r\nhost: x\r\n\r\n"):
                connection.sendall(piece)
                time.sleep(0.05)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.4)  # between requests the server waits longer
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
