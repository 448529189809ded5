"""Who has no business here: requests that two parsers read in two ways, tokens that are none, secrets out of place."""

import asyncio
import json
import socket
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from farebox.core.callers import Account, Key
from farebox.core.errors import Refusal
from farebox.core.headers import RequestHead
from farebox.core.keys import MANAGEMENT_PREFIX, PREFIX, digest
from farebox.core.plans import BUILT_IN
from farebox.identity.guesses import DELAY_SECONDS, FREE_MAX, WAITING_MAX
from farebox.identity.keys import KeyCallers, Managers, PlansInForce, new_key
from farebox.testing import MemoryStore
from tests.gateway import Gateway
from tests.served.test_server import raw
from tests.upstreams import HttpUpstream

BODY = b'{"model":"sim/echo","messages":[{"role":"user","content":"a very secret prompt"}]}'
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"content-length: %d\r\n" % len(BODY)
HOST = b"host: x\r\n"


TWO_WAYS = (
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
)
"""Headers and body of an order that two parsers may read in two ways."""


def send(
    gateway: Gateway, headers: bytes, body: bytes = BODY, line: bytes = b"POST /v1/chat/completions HTTP/1.1"
) -> bytes:
    head = line + b"\r\nauthorization: Bearer " + gateway.key.encode() + b"\r\nconnection: close\r\n" + headers
    return raw(gateway.port, head + b"\r\n" + body)


@pytest.mark.parametrize(("headers", "body"), TWO_WAYS)
def test_what_two_parsers_may_read_in_two_ways_is_refused(shared_gateway: Gateway, headers: bytes, body: bytes) -> None:
    before = len(shared_gateway.orders())
    answer = send(shared_gateway, headers, body)
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["metadata"]["error_type"] == "invalid_request"
    assert len(shared_gateway.orders()) == before


def test_nobody_fills_the_log_with_what_is_refused(gateway: Gateway) -> None:
    before = gateway.log.read_text()
    for headers, body in TWO_WAYS:
        assert send(gateway, headers, body).startswith(b"HTTP/1.1 400 ")
    assert gateway.log.read_text() == before


def test_what_is_right_is_served(shared_gateway: Gateway) -> None:
    for headers, body in ((HOST + LENGTH, BODY), (HOST + b"Transfer-Encoding: Chunked\r\n", CHUNKED)):
        assert send(shared_gateway, headers, body).startswith(b"HTTP/1.1 200 ")
    old = b"POST /v1/chat/completions HTTP/1.0"
    assert send(shared_gateway, LENGTH, line=old).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", [b"a b", b"", b"a/b", b"a:b", b"a:1:2", b"a@b", b"<a>", b"[::1", b"a?", b"a:123456"])
def test_a_host_that_is_none_is_refused(shared_gateway: Gateway, host: bytes) -> None:
    answer = raw(shared_gateway.port, b"GET /healthz HTTP/1.1\r\nconnection: close\r\nhost: " + host + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"host: it is not the name" in answer


def test_only_the_names_that_were_given_are_answered(tmp_path: Path) -> None:
    with Gateway(tmp_path, FAREBOX_ALLOWED_HOSTS="gateway.example, [::1]") as gateway:
        for host in (b"gateway.example", b"Gateway.Example:8080", b"[::1]", b"[::1]:80"):
            assert send(gateway, b"host: " + host + b"\r\n" + LENGTH).startswith(b"HTTP/1.1 200 "), host
        for host in (b"evil.example", b"127.0.0.1", b"gateway.example.evil.example", b"a.gateway.example"):
            answer = send(gateway, b"host: " + host + b"\r\n" + LENGTH)
            assert answer.startswith(b"HTTP/1.1 400 "), host
            assert b"not known under that name" in answer
        # The address of a request line does not stand in for it.
        line = b"POST http://gateway.example/v1/chat/completions HTTP/1.1"
        assert send(gateway, b"host: evil.example\r\n" + LENGTH, line=line).startswith(b"HTTP/1.1 400 ")
        assert gateway.request("GET", "/readyz").status == 200  # by its address
        assert len(gateway.orders()) == 4


def test_what_cannot_be_read_after_a_good_order_does_not_come_between_its_answer(shared_gateway: Gateway) -> None:
    text = json.dumps({"model": "sim/echo", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + shared_gateway.key.encode()
    slow = b"\r\nx-openrouter-simulate: token-ms=50,tokens=5\r\ncontent-length: %d\r\n\r\n" % len(text)
    for bad in (
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\na: " + b"b" * 70_000,
    ):
        answer = raw(shared_gateway.port, head + slow + text + bad)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_who_tries_keys_is_slowed_down_and_who_has_one_is_not(gateway: Gateway) -> None:
    def tried(number: int) -> float:
        began = time.monotonic()
        answer = gateway.request("GET", "/v1/key", headers={"authorization": f"Bearer sk-fb-{number:043}"})
        assert answer.status == 401
        return time.monotonic() - began

    assert gateway.chat().status == 200
    took = [tried(number) for number in range(FREE_MAX + 3)]
    assert min(took[-2:]) >= DELAY_SECONDS
    assert gateway.chat(gateway.new_key("late", "--plan", "paying", "--prepaid", "1")).status == 200


async def _is_known(callers: KeyCallers, token: str) -> bool:
    try:
        await callers.identify(RequestHead((token,)))
    except Refusal as refusal:
        if refusal.status != 401:
            raise
        return False
    return True


def test_so_many_who_try_keys_at_once_wait_no_more_are_looked_up() -> None:
    class Nobody(MemoryStore):
        looked_up = 0

        async def find_key(self, digest: bytes) -> tuple[Account, Key] | None:
            self.looked_up += 1
            return await super().find_key(digest)

    async def main() -> None:
        store = Nobody()
        account = await store.create_account("a", "paying", 0, 1)
        mine, others = new_key(), new_key()
        for key in (mine, others):
            await store.create_key(account.id, "", digest(key), "hint", 1)
        callers = KeyCallers(store, PlansInForce(BUILT_IN))
        assert await _is_known(callers, mine)
        trying = [asyncio.create_task(_is_known(callers, new_key())) for _ in range(FREE_MAX + WAITING_MAX)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        before = store.looked_up
        with pytest.raises(Refusal) as refused:
            await callers.identify(RequestHead((new_key(),)))
        assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "1")
        assert store.looked_up == before
        assert await _is_known(callers, mine)
        assert not any(await asyncio.gather(*trying))
        assert await _is_known(callers, others)

    asyncio.run(main())


Identify = Callable[[RequestHead], Awaitable[object]]


def test_whoever_tries_keys_keeps_nobody_out_whose_key_was_good() -> None:
    """A manager's, of which none is remembered; and a caller's that a change of the directory had forgotten."""

    async def tried(identify: Identify, head: RequestHead) -> object:
        return await identify(head)

    async def tried_by_many(identify: Identify, prefix: str) -> list[asyncio.Task[object]]:
        heads = [RequestHead((new_key(prefix),)) for _ in range(FREE_MAX + WAITING_MAX)]
        trying: list[asyncio.Task[object]] = [asyncio.create_task(tried(identify, head)) for head in heads]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await identify(RequestHead((new_key(prefix),)))
        assert refused.value.status == 429
        return trying

    async def main() -> None:
        store = MemoryStore()
        account = await store.create_account("a", "paying", 0, 1)
        mine, manages = new_key(), new_key(MANAGEMENT_PREFIX)
        await store.create_key(account.id, "", digest(mine), "hint", 1)
        made = await store.create_management_key("", digest(manages), "hint", None, 1)
        managers, callers = Managers(store), KeyCallers(store, PlansInForce(BUILT_IN))
        manager = RequestHead((manages,))
        watching = asyncio.create_task(callers.watch())
        assert await _is_known(callers, mine)
        assert (await managers.identify(manager)).id == made.id
        trying = await tried_by_many(managers.identify, MANAGEMENT_PREFIX)
        trying += await tried_by_many(callers.identify, PREFIX)
        assert (await managers.identify(manager)).id == made.id
        watching.cancel()
        await asyncio.wait({watching})  # all are forgotten
        assert await _is_known(callers, mine)
        await asyncio.gather(*trying, return_exceptions=True)
        await store.revoke_management_key(made.id, 2)
        with pytest.raises(Refusal) as refused:
            await managers.identify(manager)
        assert refused.value.status == 401

    asyncio.run(main())


def test_who_tries_management_keys_waits_as_well() -> None:
    async def main() -> None:
        managers = Managers(MemoryStore())
        unknown = [RequestHead((new_key(prefix),)) for prefix in (MANAGEMENT_PREFIX, PREFIX)]
        trying = [
            asyncio.create_task(managers.identify(unknown[number % 2])) for number in range(FREE_MAX + WAITING_MAX)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await managers.identify(unknown[0])
        assert refused.value.status == 429
        outcomes = await asyncio.gather(*trying, return_exceptions=True)
        assert {outcome.status for outcome in outcomes if isinstance(outcome, Refusal)} == {401}

    asyncio.run(main())


@pytest.mark.parametrize("host", [b"evil.example", b"127.0.0.1:1", b"[::1]"])
def test_a_host_changes_nothing(shared_gateway: Gateway, host: bytes) -> None:
    line = b"POST http://evil.example/v1/chat/completions HTTP/1.1"
    answer = send(shared_gateway, b"host: " + host + b"\r\n" + LENGTH, line=line)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"evil" not in answer
    nobody = raw(shared_gateway.port, b"GET /v1/key HTTP/1.1\r\nconnection: close\r\nhost: " + host + b"\r\n\r\n")
    assert nobody.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "token", ["' OR '1'='1", "sk-fb-' OR '1'='1", "sk-fb-%", "sk-fb-" + "a" * 43, "sk-fb-\x00", "null"]
)
def test_no_token_is_read_as_more_than_a_token(shared_gateway: Gateway, token: str) -> None:
    for header in (b"authorization: Bearer ", b"x-api-key: "):
        head = b"GET /v1/credits HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        answer = raw(shared_gateway.port, head + header + token.encode() + b"\r\n\r\n")
        assert answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 ")), answer


def test_a_key_is_its_every_character_and_not_what_is_kept_of_it(shared_gateway: Gateway) -> None:
    key = shared_gateway.key
    last = "A" if key[-1] != "A" else "B"
    kept = digest(key)
    for token in (
        key[:-1],
        key[:-1] + last,
        key + "A",
        key[:20],
        key.upper(),
        key.removeprefix("sk-fb-"),
        kept.hex(),
        f"sk-fb-{kept.hex()}",
        f"sk-fb-{urlsafe_b64encode(kept).decode().rstrip('=')}",
    ):
        assert shared_gateway.request("GET", "/v1/key", headers={"x-api-key": token}).status == 401, token
    assert shared_gateway.request("GET", "/v1/key", headers={"x-api-key": key}).status == 200


ELSEWHERE = (
    "/v1/models/../keys/endpoints",
    "/v1/models/%2e%2e/keys/endpoints",
    "/v1/models/sim/echo%2F..%2Fkeys/endpoints",
    "/v1/models/sim/echo%23/endpoints",
    "/v1/models/sim/echo%3Fa=b/endpoints",
    "/v1/models/@evil.example/x/endpoints",
    "/v1/models/http:/evil.example/endpoints",
    "/v1//evil.example/providers",
    "/v1/providers/../keys",
    "/v1/keys",
    "/v1/credits/coinbase",
    "/v1/activity",
    "/api/v1/auth/keys",
)


def test_no_path_leads_where_it_should_not(tmp_path: Path) -> None:
    with HttpUpstream().serving() as upstream:
        with Gateway(tmp_path, "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x") as gateway:
            before = len(upstream.asked)
            key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
            for path in ELSEWHERE:
                for method in ("GET", "POST"):
                    assert gateway.request(method, path, headers={"x-api-key": key}).status in (403, 404, 405), path
        assert [each for each in upstream.asked[before:] if not each.startswith("/models?")] == []
        assert upstream.orders == []


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
    answers.append(gateway.request("GET", "/metrics").body)
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
