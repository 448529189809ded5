"""A caller may vanish at any byte of a stream: what is booked is what the upstream had said of the cost by then."""

import asyncio
import json
import socket
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from farebox.admission import Admission
from farebox.answers import Streaming
from farebox.catalog import Catalog
from farebox.core.books import TopUp
from farebox.core.formats.table import FORMATS
from farebox.core.headers import RequestHead
from farebox.core.keys import digest
from farebox.core.plans import BUILT_IN
from farebox.deadlines import Deadlines
from farebox.exchange import Exchange, Request
from farebox.identity.keys import KeyCallers, PlansInForce, new_key
from farebox.testing import MemoryStore, Script, ScriptedUpstream, Silence
from farebox.upstream.running import alone
from tests.fast.test_exchange import MODELS
from tests.gateway import Gateway, eventually
from tests.served.test_formats import ORDERS, STREAMED, told


async def _hang_up_after(path: str, bytes_sent: int) -> tuple[str, Decimal | None, str | None]:
    """How the hold stands, at what cost, and under which name, when the caller leaves after so many bytes."""
    stream = told(path, "lf")
    store = MemoryStore()
    account = await store.create_account("a", "paying", 0, 1)
    key = new_key()
    await store.create_key(account.id, "", digest(key), "hint", 1)
    await store.carry_out(TopUp("t", account.id, 10**9, 1))
    upstream = ScriptedUpstream(Script([stream[:bytes_sent], Silence()]), pages={"/models": MODELS})
    catalog = Catalog(upstream, 300, 3600)
    await catalog.refresh()
    exchange = Exchange(
        callers=KeyCallers(store, PlansInForce(BUILT_IN)),
        prices=catalog,
        ledger=store,
        upstreams=alone(upstream),
        streaming=Streaming(Deadlines()),
        admission=Admission(9, 9),
    )
    order = {**ORDERS[path], "model": "a/b", "stream": True, "max_tokens": 9, "max_output_tokens": 9}

    async def body() -> bytes:
        return msgspec.json.encode(order)

    got: list[bytes] = []
    async with exchange.open(Request(path, FORMATS[path], RequestHead((key,)), body)) as answer:
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, answer.hang_up)
        await answer.stream_to(got.append)
    (hold,) = await store.holds(("pending", "open", "posted", "voided"))
    posts = [transfer for transfer in await store.transfers(account.id) if transfer.kind == "post"]
    # Whole events only, and nothing of our own after a hang-up.
    assert stream.startswith(b"".join(got))
    return hold.state, posts[0].cost if posts else None, hold.generation_id


@pytest.mark.parametrize("path", STREAMED)
def test_at_every_byte(path: str) -> None:
    stream = told(path, "lf")
    # When the member that tells it is all there, the rest of its event or not.
    member = b'"response" : ' if path == "/responses" else b'"usage" : '
    begins = stream.rindex(member) + len(member)
    costs_from = json.JSONDecoder().raw_decode(stream.decode("latin-1"), begins)[1]
    assert begins < stream.index(b'"cost"') < costs_from

    async def every() -> None:
        for position in range(1, len(stream) + 1):
            state, cost, generation_id = await _hang_up_after(path, position)
            expected = ("posted", Decimal("0.0001")) if position >= costs_from else ("open", None)
            assert ((state, cost), generation_id) == (expected, "gen-1"), position

    asyncio.run(every())


def leave(gateway: Gateway, path: str, key: str, sent: float, simulate: str, **body: Any) -> None:
    """Send that part of an order, and hang up at once."""
    text = json.dumps({**ORDERS[path], **body}).encode()
    head = (
        f"POST /v1{path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\nx-openrouter-simulate: {simulate}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(head + text[: int(len(text) * sent)])
        if sent == 1:
            eventually(lambda: bool(gateway.cli("audit")["orders"]["pending"]))


@pytest.mark.parametrize("path", ORDERS)
def test_who_leaves_before_an_answer_that_is_not_streamed_pays_for_it(gateway: Gateway, path: str) -> None:
    leave(gateway, path, gateway.key, 1, "head-ms=2000")
    eventually(lambda: [line["what"] for line in gateway.orders()] == ["fare"])
    gateway.audit()


@pytest.mark.parametrize("path", STREAMED)
def test_who_leaves_before_a_streams_first_byte_stops_it(gateway: Gateway, path: str) -> None:
    leave(gateway, path, gateway.key, 1, "head-ms=2000,tokens=50,token-ms=100", stream=True)
    eventually(lambda: "open: the caller hung up" in gateway.orders()[0]["what"])
    assert gateway.orders()[0]["generation_id"]
    gateway.audit()


def test_who_leaves_while_it_sends_has_ordered_nothing(gateway: Gateway) -> None:
    for path in ORDERS:
        for part in (0, 0.5, 0.99):
            leave(gateway, path, gateway.key, part, "")
    assert gateway.chat().status == 200
    assert [line["what"] for line in gateway.orders()] == ["fare"]
    said = gateway.stop().replace(gateway.banner, "")
    assert '"level":"error"' not in said
    assert "Traceback" not in said
    assert said.count('"status":499') == len(ORDERS) * 3
