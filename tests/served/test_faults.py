"""docs/explain/faults.md, row by row: what a caller sees when the upstream breaks, and what is booked."""

import asyncio
import contextlib
import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farebox.admission import Admission
from farebox.answers import Streaming
from farebox.catalog import Catalog
from farebox.core.books import TopUp
from farebox.core.errors import Refusal
from farebox.core.formats import chat
from farebox.core.headers import RequestHead
from farebox.core.keys import digest
from farebox.core.plans import BUILT_IN
from farebox.deadlines import Deadlines
from farebox.exchange import Exchange, Request
from farebox.identity.keys import KeyCallers, PlansInForce, new_key
from farebox.testing import MemoryStore, ScriptedUpstream
from farebox.upstream import Timeouts
from farebox.upstream.openrouter import OpenRouter
from farebox.upstream.running import alone
from tests.fast.test_exchange import ANSWER
from tests.gateway import Gateway
from tests.served.test_formats import STREAMED, error_type, order, told
from tests.served.test_server import HELLO
from tests.upstreams import ENTRIES, declared

PAGE = (Path(__file__).parents[2] / "docs" / "explain" / "faults.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """A table's cells, without the backquotes."""
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


SIMULATED = [
    (fault, streamed, cell)
    for _, fault, whole, stream in rows("Faults that the simulator plays")
    for streamed, cell in ((False, whole), (True, stream))
    if cell != "-"
]


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    # The last is longer than the head of a slow whole answer is kept back.
    deadlines = {"FIRST_BYTE": "1", "NO_DATA": "1", "NO_EVENT": "2"}
    limits = {f"FAREBOX_{name}_SECONDS": seconds for name, seconds in deadlines.items()}
    with Gateway(tmp_path_factory.mktemp("hasty"), **limits) as gateway:
        yield gateway
        gateway.audit()


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize(("fault", "streamed", "cell"), SIMULATED)
def test_a_simulated_fault(hasty: Gateway, path: str, fault: str, streamed: bool, cell: str) -> None:
    name = f"{path} {fault} {streamed}"
    key = hasty.new_key(name, "--plan", "paying", "--prepaid", "1")
    answer = order(hasty, path, key, {"x-openrouter-simulate": fault}, stream=streamed)
    assert (f"{answer.status}", state_of(hasty, name)) == (cell.split(", ")[0], cell.split(", ")[-1])
    if answer.status != 200:
        error_type(path, answer)
    elif "error" in cell and not streamed:
        assert "error" in answer.json
        assert "x-farebox-fare-usd" not in answer.headers
    elif "error" in cell:
        last = [event for event in answer.body.split(b"\n\n") if event.strip() and not event.startswith(b":")][-1]
        assert _is_error(path, json.loads(last.split(b"data: ")[-1]))
    elif streamed:
        assert b'"error"' not in answer.body.replace(b'"error":null', b"")


def state_of(gateway: Gateway, name: str) -> str:
    (line,) = gateway.orders(name)
    what = line["what"]
    return "posted" if what.startswith("fare") else "voided" if what == "not served" else what.split("(")[1][:4]


def _is_error(path: str, event: dict[str, object]) -> bool:
    if path == "/chat/completions":
        return "error" in event
    return event["type"] == ("error" if path == "/messages" else "response.failed")


# Faults of the connection

MODELS = json.dumps({"data": ENTRIES}).encode()
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.0001}
BODY = json.dumps({**ANSWER, "usage": USAGE}).encode()
STREAM = told("/chat/completions", "lf")
OK = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
JSON = b"application/json"


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _send(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer)


def _with_header(size: int, media: bytes, body: bytes) -> bytes:
    header = b"x-policy: " + b"a" * size + b"\r\ncontent-type"
    return (OK % (media, len(body))).replace(b"content-type", header) + body


def _in_chunks(media: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % media
    return head + b"%x\r\n%b\r\n" % (len(body), body)


def _plays(body: bytes, media: bytes) -> dict[str, Callable[[socket.socket], None]]:
    """What an upstream does with an order whose answer would be this."""
    packed = gzip.compress(body)
    is_packed = (OK % (media, len(packed))).replace(b"content-type", b"content-encoding: gzip\r\ncontent-type")
    return {
        "hangs-up": lambda _: None,
        "resets": _reset,
        "redirects": _send(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"),
        "short": _send(OK % (media, len(body) + 9) + body),
        "gzip": _send(is_packed + packed),
        "long-header": _send(_with_header(64 * 1024, media, body)),
        "longer-header": _send(_with_header(64 * 1024 + 1, media, body)),
        "odd-header": _send(_with_header(9, media, body).replace(b"x-policy: ", b"x-ratelimit-limit: \x01")),
        "odd-status": _send((OK % (media, len(body))).replace(b"200 OK", b"600 Odd") + body),
        "endless-trailer": _send(_in_chunks(media, body) + b"0\r\nx-policy: " + b"a" * 2**20),
        "mistyped": _send(OK % (b"text/plain", len(body)) + body),
        "gibberish": _send(b"hello?\r\n\r\n"),
    }


PLAYED = {False: _plays(BODY, JSON), True: _plays(STREAM, b"text/event-stream")}


@contextmanager
def misbehaving(orders: Callable[[socket.socket], None]) -> Iterator[int]:
    """An upstream that gives its prices, and treats orders as told."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                head = connection.recv(65536)
                if head.startswith(b"GET /api/v1/models?"):
                    connection.sendall(OK % (JSON, len(MODELS)) + MODELS)
                elif head.startswith(b"GET"):
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}")
                else:
                    orders(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


UNREACHABLE = {
    "refused": "http://127.0.0.1:{}",
    "nameless": "http://nobody.invalid:{}",
    "no-tls": "https://127.0.0.1:{}",
}


async def _order_at(url: str, *, streamed: bool) -> tuple[int, str]:
    """What a caller of an upstream at `url` is told, and how its hold stands. The prices are from elsewhere."""
    store, key = MemoryStore(), new_key()
    account = await store.create_account("a", "paying", 0, 1)
    await store.create_key(account.id, "", digest(key), "hint", 1)
    await store.carry_out(TopUp("t", account.id, 10**9, 1))
    catalog = Catalog(ScriptedUpstream(pages={"/models": MODELS}), 300, 3600)
    await catalog.refresh()
    deadlines = Deadlines()
    upstream = OpenRouter(declared(f"{url}/api/v1", Timeouts(3, 3, 3)), "sk-or-x", deadlines)
    exchange = Exchange(
        callers=KeyCallers(store, PlansInForce(BUILT_IN)),
        prices=catalog,
        ledger=store,
        upstreams=alone(upstream),
        streaming=Streaming(deadlines),
        admission=Admission(9, 9),
    )

    async def body() -> bytes:
        return json.dumps({"model": "a/b", "messages": HELLO, "stream": streamed}).encode()

    try:
        with pytest.raises(Refusal) as refused:
            async with exchange.open(Request("/chat/completions", chat, RequestHead((key,)), body)):
                raise AssertionError("it was served")
    finally:
        await upstream.close()
    (hold,) = await store.holds(("pending", "open", "posted", "voided"))
    return refused.value.status, hold.state


CONNECTION = [
    (played, streamed, cell)
    for _, played, whole, stream in rows("Faults of the connection")
    for streamed, cell in ((False, whole), (True, stream))
]


@pytest.mark.parametrize(("played", "streamed", "cell"), CONNECTION)
def test_a_fault_of_the_connection(tmp_path: Path, played: str, streamed: bool, cell: str) -> None:
    status, *words = cell.split(", ")
    state = words[-1]
    plays = PLAYED[streamed]
    with misbehaving(plays.get(played, plays["gibberish"])) as port:
        if played in UNREACHABLE:
            with socket.create_server(("127.0.0.1", 0)) as gone:
                closed = gone.getsockname()[1]
            url = UNREACHABLE[played].format(closed if played == "refused" else port)
            assert asyncio.run(_order_at(url, streamed=streamed)) == (int(status), state)
            return
        url = f"http://127.0.0.1:{port}/api/v1"
        with Gateway(tmp_path, "--upstream", url, OPENROUTER_API_KEY="sk-or-x") as gateway:
            key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
            answer = gateway.chat(key, model="a/b", stream=streamed)
            assert (f"{answer.status}", state_of(gateway, "a")) == (status, state)
            assert (b'"error":{' in answer.body) is (status != "200" or "error" in words)
            assert (b"not known yet" in answer.body) is (state == "open")
