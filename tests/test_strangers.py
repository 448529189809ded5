"""Who has no business here: requests that two parsers read in two ways, tokens that are none, secrets out of place."""

import json
import socket
from pathlib import Path

import pytest

from tests.gateway import Gateway
from tests.test_server import raw

BODY = b'{"model":"sim/echo","messages":[{"role":"user","content":"a very secret prompt"}]}'
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"content-length: %d\r\n" % len(BODY)
HOST = b"host: x\r\n"


def send(
    gateway: Gateway, headers: bytes, body: bytes = BODY, line: bytes = b"POST /v1/chat/completions HTTP/1.1"
) -> bytes:
    head = line + b"\r\nauthorization: Bearer " + gateway.key.encode() + b"\r\nconnection: close\r\n" + headers
    return raw(gateway.port, head + b"\r\n" + body)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (LENGTH, BODY),
        (HOST + HOST + LENGTH, BODY),
        (HOST + b"host: y\r\n" + LENGTH, BODY),
        (HOST + LENGTH + b"transfer-encoding: chunked\r\n", CHUNKED),
        (HOST + b"transfer-encoding: chunked\r\n" + LENGTH, CHUNKED),
        (HOST + LENGTH + LENGTH, BODY),
        (HOST + b"content-length: 5\r\n" + LENGTH, BODY),
        (HOST + b"content-length: +5\r\n", BODY),
        (HOST + b"content-length: -1\r\n", BODY),
        (HOST + b"content-length: 5, 5\r\n", BODY),
        (HOST + b"content-length : 5\r\n", BODY),
        (HOST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", CHUNKED),
        (HOST + b"transfer-encoding: gzip, chunked\r\n", CHUNKED),
        (HOST + b"transfer-encoding: identity\r\n" + LENGTH, BODY),
        (HOST + b"transfer-encoding: xchunked\r\n", CHUNKED),
        (HOST + b"x-a: 1\r\n  2\r\n" + LENGTH, BODY),
        (HOST + b"x-a: 1\x002\r\n" + LENGTH, BODY),
        (HOST + b"x-a: 1\n" + LENGTH, BODY),
    ],
)
def test_what_two_parsers_may_read_in_two_ways_is_refused(shared_gateway: Gateway, headers: bytes, body: bytes) -> None:
    before = len(shared_gateway.orders())
    answer = send(shared_gateway, headers, body)
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["metadata"]["error_type"] == "invalid_request"
    assert len(shared_gateway.orders()) == before


def test_what_is_right_is_served(shared_gateway: Gateway) -> None:
    for headers, body in ((HOST + LENGTH, BODY), (HOST + b"Transfer-Encoding: Chunked\r\n", CHUNKED)):
        assert send(shared_gateway, headers, body).startswith(b"HTTP/1.1 200 ")
    old = b"POST /v1/chat/completions HTTP/1.0"
    assert send(shared_gateway, LENGTH, line=old).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", [b"evil.example", b"127.0.0.1:1", b"[::1]", b"a b", b""])
def test_a_host_changes_nothing(shared_gateway: Gateway, host: bytes) -> None:
    line = b"POST http://evil.example/v1/chat/completions HTTP/1.1"
    answer = send(shared_gateway, b"host: " + host + b"\r\n" + LENGTH, line=line)
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
    assert b"evil" not in answer
    nobody = raw(shared_gateway.port, b"GET /v1/key HTTP/1.1\r\nconnection: close\r\nhost: " + host + b"\r\n\r\n")
    assert nobody.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize(
    "token", ["' OR '1'='1", "sk-fb-' OR '1'='1", "sk-fb-%", "sk-fb-" + "a" * 43, "sk-fb-\x00", "null"]
)
def test_no_token_is_read_as_more_than_a_token(shared_gateway: Gateway, token: str) -> None:
    for header in (b"authorization: Bearer ", b"x-api-key: "):
        head = b"GET /v1/credits HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        answer = raw(shared_gateway.port, head + header + token.encode() + b"\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 ")), answer


def test_keys_and_prompts_stand_in_no_log_and_no_error(gateway: Gateway) -> None:
    key, prompt = gateway.key, "a very secret prompt"
    hello = [{"role": "user", "content": prompt}]
    answers = [
        gateway.chat(simulate=fault, messages=hello, stream=streamed).body
        for fault in ("status=500", "cut-at-byte=10", "html", "usage=missing", "head-ms=1", "bare-error-at-event=0")
        for streamed in (False, True)
    ]
    answers.append(gateway.chat(key + "x", messages=hello).body)
    answers.append(gateway.chat(model=prompt, messages=[]).body)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as connection:
        connection.sendall(b"nonsense " + key.encode() + b"\r\n\r\n")
        answers.append(connection.recv(65536))
    told = b"".join(body for body in answers if b"You said" not in body)
    assert key.encode() not in told
    log = gateway.stop().replace(gateway.banner, "")
    books = b"".join(path.read_bytes() for path in Path(gateway.folder, "data").iterdir() if path.is_file())
    for secret in (key, prompt, "sk-or-simulated"):
        assert secret not in log
        assert secret.encode() not in books
