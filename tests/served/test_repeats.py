"""Repeats without a key: an order that says that it repeats one whose answer its caller did not get joins that one, and
pays nothing more."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.conftest import debian_install, missing
from tests.gateway import Gateway, Response, eventually
from tests.proxies import NGINX
from tests.served.test_formats import ORDERS, error_type, order
from tests.served.test_postgres import node
from tools.postgres import Cluster

CHAT = "/chat/completions"


def request(path: str, key: str, simulate: str = "", **body: Any) -> bytes:
    text = json.dumps({**ORDERS[path], **body}).encode()
    head = f"POST /v1{path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\nx-stainless-retry-count: 0\r\n"
    simulated = f"x-openrouter-simulate: {simulate}\r\n" if simulate else ""
    return f"{head}{simulated}content-length: {len(text)}\r\n\r\n".encode() + text


def leave(gateway: Gateway, name: str, key: str, path: str, simulate: str, **body: Any) -> None:
    """Place an order, and hang up while it is under way."""
    before = len(gateway.orders(name))
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(request(path, key, simulate, **body))
        eventually(lambda: len(gateway.orders(name)) > before)
        # When it answers this, it has sent on what is in the books: an order whose caller goes before that is not sent.
        assert gateway.request("GET", "/healthz").status == 200


def repeat(
    gateway: Gateway, key: str, path: str = CHAT, count: str = "1", headers: dict[str, str] | None = None, **body: Any
) -> Response:
    return order(gateway, path, key, {"x-stainless-retry-count": count, **(headers or {})}, **body)


def is_replayed(answer: Response) -> bool:
    assert answer.status == 200, answer.body
    return answer.headers.get("idempotency-replayed") == "true"


def states(gateway: Gateway, name: str) -> list[str]:
    return [line["what"] for line in gateway.orders(name)]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def key(shared_gateway: Gateway, name: str) -> str:
    return shared_gateway.new_key(name, "--plan", "paying", "--prepaid", "1")


@pytest.mark.parametrize("path", ORDERS)
def test_a_repeat_waits_for_the_first_or_is_handed_its_kept_answer(
    shared_gateway: Gateway, name: str, key: str, path: str
) -> None:
    leave(shared_gateway, name, key, path, "head-ms=600")
    waited = repeat(shared_gateway, key, path)
    handed = repeat(shared_gateway, key, path, "2")
    assert is_replayed(waited)
    assert is_replayed(handed)
    assert waited.body == handed.body
    assert waited.headers["x-generation-id"] == shared_gateway.orders(name)[0]["generation_id"]
    assert waited.headers["x-farebox-fare-events"] == handed.headers["x-farebox-fare-events"] == "0"
    assert states(shared_gateway, name) == ["fare"]


def test_what_is_not_the_same_order_or_no_repeat_is_an_order_of_its_own(
    shared_gateway: Gateway, name: str, key: str
) -> None:
    leave(shared_gateway, name, key, "/messages", "head-ms=100")
    eventually(lambda: states(shared_gateway, name) == ["fare"])
    other = str(shared_gateway.cli("key", "create", name)["key"])
    sent = [
        repeat(shared_gateway, key, "/messages", max_tokens=77),
        repeat(shared_gateway, key, CHAT),
        repeat(shared_gateway, other, "/messages"),
        order(shared_gateway, "/messages", key),
        repeat(shared_gateway, key, "/messages", headers={"idempotency-key": "k"}),
    ]
    sent += [
        repeat(shared_gateway, key, "/messages", count) for count in ("0", "-1", "one", "1e3", "12345", "\xb2", "")
    ]
    assert not any(map(is_replayed, sent))
    assert states(shared_gateway, name) == ["fare"] * (1 + len(sent))
    assert is_replayed(repeat(shared_gateway, key, "/messages", "999"))


def test_a_repeat_of_an_answer_that_was_taken_or_of_none_is_an_order(
    shared_gateway: Gateway, name: str, key: str
) -> None:
    assert not is_replayed(repeat(shared_gateway, key))
    assert not is_replayed(order(shared_gateway, CHAT, key))
    assert not is_replayed(repeat(shared_gateway, key))
    assert states(shared_gateway, name) == ["fare"] * 3


def test_streams_are_not_joined(shared_gateway: Gateway, name: str, key: str) -> None:
    leave(shared_gateway, name, key, CHAT, "head-ms=100,tokens=30,token-ms=50", stream=True)
    assert not is_replayed(repeat(shared_gateway, key, stream=True))
    assert len(states(shared_gateway, name)) == 2


def test_a_repeat_of_what_the_upstream_refuses_is_placed_anew(shared_gateway: Gateway, name: str, key: str) -> None:
    assert order(shared_gateway, CHAT, key, {"x-openrouter-simulate": "status=429"}).status == 429
    assert not is_replayed(repeat(shared_gateway, key))
    leave(shared_gateway, name, key, CHAT, "head-ms=600,status=429", max_tokens=5)
    assert not is_replayed(repeat(shared_gateway, key, max_tokens=5))
    assert sorted(states(shared_gateway, name)) == ["fare", "fare", "not served", "not served"]


def test_an_answer_without_its_cost_is_kept_too(shared_gateway: Gateway, name: str, key: str) -> None:
    leave(shared_gateway, name, key, CHAT, "head-ms=100,usage=missing")
    eventually(lambda: "open: the answer ended without" in states(shared_gateway, name)[0])
    assert is_replayed(repeat(shared_gateway, key))
    assert len(states(shared_gateway, name)) == 1


def test_an_answer_that_broke_off_with_nobody_there_is_waited_for_and_not_ordered_again(tmp_path: Path) -> None:
    with own(tmp_path, FAREBOX_RECONCILE_SECONDS="86400") as (gateway, key):
        leave(gateway, "x", key, CHAT, "head-ms=100,cut-at-byte=30,generation-ms=1500")
        lost = repeat(gateway, key)
        assert lost.status == 410
        assert lost.error["metadata"]["generation_id"] == gateway.orders("x")[0]["generation_id"]
        assert states(gateway, "x") == ["fare"]


def test_who_was_told_that_its_answer_broke_off_repeats_nothing(shared_gateway: Gateway, name: str, key: str) -> None:
    told = order(shared_gateway, CHAT, key, {"x-openrouter-simulate": "cut-at-byte=30"})
    assert told.status == 424
    assert not is_replayed(repeat(shared_gateway, key))
    assert len(states(shared_gateway, name)) == 2


@pytest.mark.parametrize("kept_open", [True, False])
def test_an_answer_that_was_sent_and_not_taken_is_kept(
    shared_gateway: Gateway, name: str, key: str, kept_open: bool
) -> None:
    sent = request(CHAT, key)
    with socket.create_connection(("127.0.0.1", shared_gateway.port), timeout=10) as connection:
        connection.sendall(sent if kept_open else sent.replace(b"count: 0", b"count: 0\r\nconnection: close"))
        eventually(lambda: states(shared_gateway, name) == ["fare"])
        assert connection.recv(1)
        # With what was not read, the connection is reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert is_replayed(repeat(shared_gateway, key))
    assert states(shared_gateway, name) == ["fare"]


def test_an_order_that_is_read_when_its_caller_has_left_is_not_sent(
    shared_gateway: Gateway, name: str, key: str
) -> None:
    """As of a server that was starting, or had too much to do: its repeat may have been served meanwhile."""
    assert not is_replayed(order(shared_gateway, CHAT, key))  # so that its key is known
    os.kill(shared_gateway.process.pid, signal.SIGSTOP)
    try:
        with socket.create_connection(("127.0.0.1", shared_gateway.port), timeout=10) as connection:
            connection.sendall(request(CHAT, key))
    finally:
        os.kill(shared_gateway.process.pid, signal.SIGCONT)
    eventually(lambda: f'"{name}"' in shared_gateway.log.read_text().rpartition("caller_gone")[0].rpartition("\n")[2])
    assert states(shared_gateway, name).count("fare") == 1
    # Who has only closed its own side is served.
    with socket.create_connection(("127.0.0.1", shared_gateway.port), timeout=10) as connection:
        connection.sendall(request(CHAT, key))
        connection.shutdown(socket.SHUT_WR)
        assert b" 200 OK" in connection.makefile("rb").read()


@contextmanager
def own(folder: Path, **environment: str) -> Iterator[tuple[Gateway, str]]:
    with Gateway(folder, **environment) as gateway:
        yield gateway, gateway.new_key("x", "--plan", "paying", "--prepaid", "9")
        gateway.audit()


@pytest.mark.parametrize("has_first", [True, False])
def test_many_repeats_at_once_are_one_order(tmp_path: Path, has_first: bool) -> None:
    # They only wait, and so are not counted where orders at once are.
    with own(tmp_path, FAREBOX_ACCOUNT_ORDERS_MAX="40") as (gateway, key):
        if has_first:
            leave(gateway, "x", key, CHAT, "head-ms=1500")
        sent = request(CHAT, key, "head-ms=1500").replace(b"count: 0", b"count: 1\r\nconnection: close")

        async def one() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(sent)
            answer = await reader.read()
            writer.close()
            return answer

        async def all_at_once() -> list[bytes]:
            return await asyncio.gather(*(one() for _ in range(200)))

        answers = asyncio.run(all_at_once())
        assert {answer.split(b"\r\n\r\n")[1] for answer in answers} == {answers[0].split(b"\r\n\r\n")[1]}
        assert sum(b"\r\nidempotency-replayed: true" in answer for answer in answers) == 200 - (not has_first)
        assert states(gateway, "x") == ["fare"]


def test_answers_outlive_a_kill_and_what_died_with_one_is_not_ordered_again(tmp_path: Path) -> None:
    with own(tmp_path) as (gateway, key):
        leave(gateway, "x", key, "/responses", "head-ms=100")
        eventually(lambda: states(gateway, "x") == ["fare"])

        def ask(path: str, simulate: str) -> None:
            with suppress(OSError, http.client.HTTPException):
                order(gateway, path, key, {"x-openrouter-simulate": simulate})

        asking = threading.Thread(target=ask, args=("/messages", "head-ms=9000"))
        asking.start()
        eventually(lambda: len(states(gateway, "x")) == 2)
        gateway.kill()
        asking.join()
        gateway.start()
        assert is_replayed(repeat(gateway, key, "/responses"))
        lost = repeat(gateway, key, "/messages")
        assert (lost.status, error_type("/messages", lost)) == (410, "precondition_failed")
        assert "was lost" in lost.json["error"]["message"]
        assert len(states(gateway, "x")) == 2


def test_a_setting_joins_what_does_not_say_that_it_is_a_repeat(tmp_path: Path) -> None:
    with own(tmp_path, FAREBOX_JOIN_REPEATS="unmarked") as (gateway, key):
        leave(gateway, "x", key, CHAT, "head-ms=1500")
        assert is_replayed(order(gateway, CHAT, key))
        # One whose caller is there is another order.
        asking = threading.Thread(
            target=order, args=(gateway, "/messages", key, {"x-openrouter-simulate": "head-ms=500"})
        )
        asking.start()
        eventually(lambda: len(states(gateway, "x")) == 2)
        assert not is_replayed(order(gateway, "/messages", key))
        asking.join()
        # It has been delivered now: who asks the same again orders again, unless it says that it got nothing.
        eventually(lambda: not is_replayed(order(gateway, CHAT, key)))
        assert is_replayed(repeat(gateway, key))


def test_a_setting_joins_nothing(tmp_path: Path) -> None:
    with own(tmp_path, FAREBOX_JOIN_REPEATS="off") as (gateway, key):
        leave(gateway, "x", key, CHAT, "head-ms=100")
        assert not is_replayed(repeat(gateway, key))


def test_a_repeat_finds_its_first_at_another_node(tmp_path: Path, postgres: Cluster) -> None:
    books = postgres.new_books()
    with node(tmp_path / "a", books) as first, node(tmp_path / "b", books, "--workers", "2") as second:
        key = first.new_key("x", "--plan", "paying", "--prepaid", "1")
        leave(first, "x", key, CHAT, "head-ms=1000")
        assert is_replayed(repeat(second, key))
        # Its caller stays, and gets it, too.
        asking = threading.Thread(
            target=order, args=(first, "/messages", key, {"x-openrouter-simulate": "head-ms=1000"})
        )
        asking.start()
        eventually(lambda: len(states(first, "x")) == 2)
        assert is_replayed(repeat(second, key, "/messages"))
        asking.join()
        # Its caller has not taken it, which a slow node notes after the repeat has come.
        with socket.create_connection(("127.0.0.1", first.port), timeout=10) as connection:
            connection.sendall(request("/responses", key))
            assert connection.recv(1)
            os.kill(first.process.pid, signal.SIGSTOP)
        with ThreadPoolExecutor() as pool:
            repeated = pool.submit(repeat, second, key, "/responses")
            futures.wait([repeated], timeout=0.5)
            os.kill(first.process.pid, signal.SIGCONT)
            assert is_replayed(repeated.result())
        leave(first, "x", key, "/embeddings", "head-ms=100")
        eventually(lambda: states(first, "x") == ["fare"] * 4)
        first.kill()
        assert is_replayed(repeat(second, key, "/embeddings"))
        assert states(second, "x") == ["fare"] * 4


IMPATIENT = (
    NGINX
    + """
  server {{ listen 127.0.0.1:{own}; location / {{ proxy_pass http://127.0.0.1:{port}; proxy_read_timeout 1s; }} }}
}}
"""
)
"""With its defaults, but for how long it waits: to a server it speaks HTTP/1.0."""


@contextmanager
def impatient_nginx(folder: Path, port: int) -> Iterator[int]:
    """nginx in front of a port; gives its own."""
    if not shutil.which("nginx"):
        debian_install("nginx-light")
    if not shutil.which("nginx"):
        missing("nginx is not installed, so nothing is repeated behind it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = int(free.getsockname()[1])
    folder.mkdir()
    (folder / "configuration").write_text(IMPATIENT.format(folder=folder, own=own, port=port))
    command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "configuration")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        eventually(lambda: _listens(own))
        yield own
    finally:
        process.terminate()
        process.wait(timeout=20)


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def test_an_sdk_behind_a_proxy_that_gives_up_pays_one_fare_and_gets_its_answer(
    shared_gateway: Gateway, name: str, key: str, tmp_path: Path
) -> None:
    simulate = {"x-openrouter-simulate": "head-ms=2500"}
    with impatient_nginx(tmp_path / "nginx", shared_gateway.port) as port:
        base = f"http://127.0.0.1:{port}"
        with OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=5, default_headers=simulate) as openai:
            said = openai.chat.completions.create(
                model="sim/echo", messages=[{"role": "user", "content": "Hello there"}]
            )
            assert said.choices[0].message.content == "You said: Hello there"
        with Anthropic(base_url=base, api_key=key, max_retries=5, default_headers=simulate) as anthropic:
            anthropic.messages.create(model="sim/echo", max_tokens=99, messages=[{"role": "user", "content": "Hello"}])
    assert states(shared_gateway, name) == ["fare", "fare"]
