"""Where a request ends: nothing after its head is a request before its body's end, whatever the head offers."""

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import debian_install, missing
from tests.framed import WEBSOCKET, chunked, counted
from tests.gateway import Gateway
from tests.proxies import PROGRAMS, proxy
from tests.served.test_server import raw
from tests.served.test_strangers import TWO_WAYS

BODY = b'{"model":"sim/echo","messages":[{"role":"user","content":"Hello"}]}'
REQUEST = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
"""A request where a body should be: harmless, and easily told by its answer."""

H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
OFFERS = (H2C, WEBSOCKET, b"Upgrade: TLS/1.0, h2c\r\nConnection: upgrade\r\n")


Frame = Callable[[bytes], bytes]
"""A body with the headers that say where it ends."""


def order(gateway: Gateway, headers: bytes, framed: bytes) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + gateway.key.encode()
    return head + b"\r\n" + headers + framed


LAST = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
"""After it the server closes: what has been answered by then is all."""


def answers(gateway: Gateway, *pieces: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer on one connection, until the server closes it. Pieces come apart."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.02)
        got = b""
        while part := connection.recv(65536):
            got += part
    found = []
    while got:
        head, _, got = got.partition(b"\r\n\r\n")
        (length,) = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        found.append((int(head[9:12]), got[:length]))
        got = got[length:]
    return found


@pytest.mark.parametrize("frame", [counted, chunked])
@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_of_another_protocol_is_ignored_and_the_order_served(
    shared_gateway: Gateway, offer: bytes, frame: Frame
) -> None:
    whole = order(shared_gateway, offer, frame(BODY))
    body_at = whole.index(b"\r\n\r\n") + 4
    for pieces in (
        [whole + LAST],
        [whole[:body_at], whole[body_at:], LAST],
        [whole[:30], whole[30 : body_at - 1], whole[body_at - 1 : body_at + 9], whole[body_at + 9 :] + whole + LAST],
    ):
        *served, (last, _) = answers(shared_gateway, *pieces)
        assert [status for status, _ in served] == [200] * b"".join(pieces).count(b"POST ")
        for _, body in served:
            assert json.loads(body)["choices"][0]["message"]["content"] == "You said: Hello"
        assert last == 200


@pytest.mark.parametrize("frame", [counted, chunked])
@pytest.mark.parametrize("offer", [b"", *OFFERS])
def test_a_body_that_looks_like_a_request_is_a_body(shared_gateway: Gateway, offer: bytes, frame: Frame) -> None:
    whole = order(shared_gateway, offer, frame(REQUEST))
    body_at = whole.index(b"\r\n\r\n") + 4
    for pieces in ([whole + LAST], [whole[:body_at], whole[body_at:], LAST]):
        (refused, body), (last, _) = answers(shared_gateway, *pieces)
        assert (refused, last) == (400, 200)
        assert b"not JSON" in body


def test_a_request_for_a_tunnel_is_refused_and_nothing_in_it_is_read(shared_gateway: Gateway) -> None:
    tunnel = b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n"
    for pieces in ([tunnel + REQUEST + LAST], [tunnel, REQUEST + LAST]):
        ((status, body),) = answers(shared_gateway, *pieces)
        assert status == 405
        assert json.loads(body)["error"]["code"] == 405


def test_nothing_behind_a_refused_head_is_served(gateway: Gateway) -> None:
    good = order(gateway, b"", counted(BODY))
    for bad in (
        b"host: a b\r\n\r\n",
        b"host: x\r\nhost: x\r\n\r\n",
        b"host: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    ):
        for offer in (b"", H2C):
            pieces = b"GET /healthz HTTP/1.1\r\n" + offer + bad + good + LAST
            ((status, _),) = answers(gateway, pieces)
            assert status == 400
    assert gateway.chat().status == 200
    assert len(gateway.orders()) == 1


def test_what_follows_a_body_in_chunks_is_no_part_of_its_head(shared_gateway: Gateway) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    key = b"authorization: Bearer " + shared_gateway.key.encode()
    chunks = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    ((status, _),) = answers(shared_gateway, head + chunks + key + b"\r\n\r\n" + LAST)
    assert status == 401


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        (b"POST /v1/chat/completions HTTP/1.0", b"transfer-encoding: chunked\r\n"),
        (b"POST /v1/chat/completions HTTP/2.0", b"content-length: 0\r\n"),
        (b"POST /v1/chat/completions", b""),
    ],
)
def test_no_other_version_is_guessed_at(shared_gateway: Gateway, line: bytes, headers: bytes) -> None:
    answer = raw(shared_gateway.port, line + b"\r\nhost: x\r\n" + headers + b"\r\n0\r\n\r\n" + REQUEST)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


QUIET_SECONDS = 0.1


def exchanged(port: int, request: bytes) -> bytes:
    """What is answered to bytes, until nothing more comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        got = connection.recv(65536)
        connection.settimeout(QUIET_SECONDS)
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                got += part
    return got


def own_answer(port: int, key: str, said: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    order = json.dumps({"model": "sim/echo", "messages": [{"role": "user", "content": said}]})
    connection.request("POST", "/v1/chat/completions", order, {"authorization": f"Bearer {key}", "host": "x"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("program", PROGRAMS)
def test_behind_a_proxy_that_shares_connections_everybody_gets_their_own_answer(
    gateway: Gateway, tmp_path: Path, program: str
) -> None:
    offered = [(offer, frame(body)) for offer in OFFERS for frame in (counted, chunked) for body in (BODY, REQUEST)]
    unclear = [(headers, b"\r\n" + body) for headers, body in TWO_WAYS]
    with proxy(program, tmp_path / "proxy", gateway.port) as port:
        for number, (headers, framed) in enumerate([*offered, *unclear]):
            is_offer = (headers, framed) in offered
            host = b"host: x\r\n" if is_offer else b""
            head = b"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer " + gateway.key.encode() + b"\r\n"
            got = exchanged(port, head + host + headers + framed)
            # A proxy may take what is unclear for less than it is, and refuse the rest by itself.
            assert got.count(b"HTTP/1.1 ") == 1 or not is_offer, (headers, framed, got)
            assert got.count(b"HTTP/1.1 200 ") <= 1, (headers, framed, got)
            for turn in range(2):
                mine = f"mine {number} {turn}"
                assert own_answer(port, gateway.key, mine) == f"You said: {mine}"


def test_a_websocket_where_none_is_spoken_is_one_line_in_the_log(gateway: Gateway) -> None:
    call = b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + WEBSOCKET + b"\r\n"
    (status, _), (last, _) = answers(gateway, call + LAST)
    assert (status, last) == (405, 200)
    (line,) = gateway.stop().replace(gateway.banner, "").strip().splitlines()
    assert "a WebSocket was asked for at '/v1/chat/completions'" in json.loads(line)["message"]


def test_curl_offers_http_2_and_is_served(shared_gateway: Gateway) -> None:
    command = ["curl", "-sS", "--http2", f"{shared_gateway.base}/chat/completions", "-d", BODY.decode()]
    headers = ["-H", f"Authorization: Bearer {shared_gateway.key}", "-H", "Content-Type: application/json"]
    done = subprocess.run([*command, *headers], capture_output=True, text=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "You said: Hello", done.stderr


def test_javas_own_client_is_served(shared_gateway: Gateway) -> None:
    if not shutil.which("javac"):
        debian_install("default-jdk-headless")
    if not shutil.which("javac"):
        missing("Java is not installed, so its client is not tried")
    program = Path(__file__).parents[1] / "java" / "Order.java"
    command = ["java", str(program), shared_gateway.base, shared_gateway.key, BODY.decode()]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        status, version, body = line.split(" ", 2)
        assert (status, version) == ("200", "HTTP_1_1")
        assert json.loads(body)["choices"][0]["message"]["content"] == "You said: Hello"
