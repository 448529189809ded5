"""What holds in every format: streams pass unharmed and at once, the same order costs the same, bad input is told in
the caller's own shape."""

import gzip
import hashlib
import json
import socket
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from farebox.core.formats.envelope import ERROR
from farebox.core.formats.table import FORMATS
from tests.fast.test_messages_format import STARTED
from tests.fast.test_messages_format import USAGE as MESSAGES_USAGE
from tests.fast.test_responses_format import PLACE, RESPONSE
from tests.gateway import Gateway, Response
from tests.upstreams import HttpUpstream

EVERY: dict[str, dict[str, Any]] = {path: dict(wire.DESCRIBED.example) for path, wire in FORMATS.items()}
IN_UNITS = [path for path, body in EVERY.items() if FORMATS[path].read(json.dumps(body).encode()).units is not None]
"""Formats whose orders are not counted in tokens: tests/served/test_units.py has what is theirs."""

ORDERS = {path: body for path, body in EVERY.items() if path not in IN_UNITS}
STREAMED = [path for path in ORDERS if FORMATS[path].DESCRIBED.is_streamed]
STREAMS = [path for path in EVERY if FORMATS[path].DESCRIBED.is_streamed]
CAPS = {path: wire.CAPS[0] for path, wire in FORMATS.items() if wire.CAPS}


AS_IT_CAME: dict[str, dict[str, Any]] = {"/responses": {"store": False}}
"""What an order says whose answer is to pass as it came: one that is kept says so in its answer."""


def order(gateway: Gateway, path: str, key: str = "", headers: dict[str, str] | None = None, **body: Any) -> Response:
    sent = {"authorization": f"Bearer {key or gateway.key}", "content-type": "application/json", **(headers or {})}
    return gateway.request("POST", f"/api/v1{path}", {**EVERY[path], **body}, sent)


def error_type(path: str, answer: Response) -> str:
    """The OpenRouter type of an error, which must stand in the format's own shape."""
    if FORMATS[path].DESCRIBED.refusal is ERROR:
        return str(answer.error["metadata"]["error_type"])
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"]
    return str(answer.json["error"]["error_type"])


# Streams as they came


def _chat(**members: Any) -> dict[str, Any]:
    delta = {"index": 0, "delta": {"role": "assistant", "content": "hé"}, "finish_reason": None}
    head = {"id": "gen-1", "object": "chat.completion.chunk", "created": 1, "model": "a/b"}
    return {**head, "choices": [delta], **members}


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.0001}


def _number(event: dict[str, Any], number: int) -> dict[str, Any]:
    return {**event, "sequence_number": number}


EVENTS: dict[str, list[dict[str, Any]]] = {
    "/chat/completions": [_chat(), _chat(), _chat(choices=[], usage=USAGE)],
    "/messages": [
        {"type": "message_start", "message": STARTED},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hé"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": MESSAGES_USAGE},
    ],
    "/responses": [
        _number({"type": "response.created", "response": {**RESPONSE, "usage": None}}, 0),
        _number({"type": "response.output_text.delta", "delta": "hé", "logprobs": [], **PLACE}, 1),
        _number({"type": "response.completed", "response": RESPONSE}, 2),
    ],
    "/images": [
        {"type": "image_generation.partial_image", "b64_json": "aGk=", "partial_image_index": 0},
        {"type": "image_generation.text_chunk", "text": "hé", "phase": "content"},
        {"type": "image_generation.completed", "b64_json": "aGk=", "created": 1, "usage": USAGE},
    ],
}


def told(path: str, framing: str) -> bytes:
    """A stream as an upstream may send it: white space, escapes, comments and line ends of its own."""
    parts = [b": OPENROUTER PROCESSING\n\n"]
    for number, event in enumerate(EVENTS[path]):
        name = b"event: " + event["type"].encode() + b"\n" if path == "/messages" else b""
        text = json.dumps(event, indent=None, ensure_ascii=number % 2 == 0, separators=(" ,  ", " : "))
        parts.append(name + b"data: " + text.encode() + b"\n\n")
    parts.append(b": \n\ndata: [DONE]\n\n")
    return b"".join(parts).replace(b"\n", b"\r\n" if framing == "crlf" else b"\n")


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HttpUpstream, Gateway]]:
    with (
        HttpUpstream().serving() as upstream,
        Gateway(tmp_path_factory.mktemp("fixed"), "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x") as gateway,
    ):
        gateway.key = gateway.new_key("a", "--plan", "paying", "--prepaid", "5")
        yield upstream, gateway
        gateway.audit()


@pytest.mark.parametrize("framing", ["lf", "crlf", "one byte at a time"])
@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_passes_byte_for_byte(fixed: tuple[HttpUpstream, Gateway], path: str, framing: str) -> None:
    upstream, gateway = fixed
    stream = told(path, framing)
    size = 1 if framing.startswith("one") else len(stream)
    upstream.answer = [stream[start : start + size] for start in range(0, len(stream), size)]
    upstream.waits = None
    answer = order(gateway, path, model="a/b", stream=True, **AS_IT_CAME.get(path, {}))
    assert hashlib.sha256(answer.body).hexdigest() == hashlib.sha256(stream).hexdigest()
    last = gateway.orders("a")[-1]
    assert (last["what"], last["cost_usd"], last["generation_id"]) == ("fare", "0.0001", "gen-1")


@pytest.mark.parametrize("path", STREAMS)
def test_the_first_event_is_not_held_back(fixed: tuple[HttpUpstream, Gateway], path: str) -> None:
    upstream, gateway = fixed
    stream = told(path, "lf")
    first = stream[: stream.index(b"\n\n", stream.index(b"data: ")) + 2]
    upstream.answer, upstream.waits = [first, stream[len(first) :]], Event()
    text = json.dumps({**EVERY[path], **AS_IT_CAME.get(path, {}), "model": "a/b", "stream": True})
    head = f"POST /v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\nconnection: close\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as connection:
        connection.sendall(f"{head}content-length: {len(text)}\r\n\r\n{text}".encode())
        got = b""
        while first not in got:  # the upstream sends no more until it is here
            got += connection.recv(65536)
        upstream.waits.set()
        while part := connection.recv(65536):
            got += part
    assert b"data: [DONE]" in got


@pytest.mark.parametrize("path", STREAMED)
def test_a_generation_that_only_the_stream_names_is_in_its_books(
    fixed: tuple[HttpUpstream, Gateway], path: str
) -> None:
    upstream, gateway = fixed
    upstream.answer, upstream.waits, upstream.generation_id = [told(path, "lf")], None, None
    answer = order(gateway, path, model="a/b", stream=True, **AS_IT_CAME.get(path, {}))
    upstream.generation_id = "gen-1"
    assert answer.headers["x-generation-id"] == "gen-1"
    assert answer.body == told(path, "lf")
    assert gateway.orders("a")[-1]["generation_id"] == "gen-1"


# The same order


def test_each_streamed_format_has_its_stream_here() -> None:
    assert list(EVENTS) == STREAMS


def test_the_same_order_costs_the_same_and_leaves_one_post_in_each_format(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("polyglot", "--plan", "paying", "--prepaid", "5")
    for path in STREAMED:
        for streamed in (False, True):
            assert order(shared_gateway, path, key, stream=streamed).status == 200
    lines = shared_gateway.orders("polyglot")
    assert len(lines) == 6
    assert {(line["what"], line["cost_usd"], line["amount_usd"]) for line in lines} == {
        ("fare", "0.00000255", "-0.00001")
    }
    assert {(line["prompt_tokens"], line["answer_tokens"]) for line in lines} == {(5, 3)}


def test_embeddings_are_billed_as_reported(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("embedder", "--plan", "paying", "--prepaid", "5")
    answer = order(shared_gateway, "/embeddings", key)
    assert answer.headers["x-farebox-fare-events"] == "1"
    order(shared_gateway, "/embeddings", key, headers={"x-openrouter-simulate": "usage=missing"})
    posted, question = shared_gateway.orders("embedder")
    assert Decimal(posted["cost_usd"]) == Decimal("4E-8")
    assert "open" in question["what"]
    assert question["generation_id"]


@pytest.mark.parametrize("path", STREAMED)
def test_a_free_caller_is_capped_and_pays_ten_times(shared_gateway: Gateway, path: str) -> None:
    key = shared_gateway.new_key(f"free {path}", "--plan", "free", "--prepaid", "1")
    simulate = {"x-openrouter-simulate": "tokens=5000,cost=0.0001"}
    answer = order(shared_gateway, path, key, simulate)
    assert answer.headers["x-farebox-fare-usd"] == "0.001"
    assert shared_gateway.orders(f"free {path}")[-1]["answer_tokens"] == 2048
    order(shared_gateway, path, key, simulate, **{CAPS[path]: 7})
    assert shared_gateway.orders(f"free {path}")[-1]["answer_tokens"] == 7


@pytest.mark.parametrize("path", STREAMED)
def test_a_small_balance_lowers_the_cap_and_says_so(shared_gateway: Gateway, path: str) -> None:
    key = shared_gateway.new_key(f"thin {path}", "--plan", "paying", "--prepaid", "0.0005")
    answer = order(shared_gateway, path, key, {"x-openrouter-simulate": "tokens=5000"})
    assert answer.status == 200
    told_tokens = shared_gateway.orders(f"thin {path}")[0]["answer_tokens"]
    assert told_tokens == int(answer.headers["x-farebox-answer-cap"]) < 1000


# Bad input


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"authorization": "Bearer sk-fb-nobody"}, 401, "authentication"),
        ({"content-type": "text/plain"}, 415, "invalid_request"),
        ({"content-type": "application/x-www-form-urlencoded"}, 415, "invalid_request"),
        ({"content-encoding": "zstd"}, 415, "invalid_request"),
        ({"content-encoding": "gzip"}, 400, "invalid_request"),
        ({"idempotency-key": "x" * 256}, 400, "invalid_request"),
    ],
)
def test_bad_headers_are_refused_in_the_formats_shape(
    shared_gateway: Gateway, path: str, headers: dict[str, str], status: int, kind: str
) -> None:
    answer = order(shared_gateway, path, headers=headers)
    assert (answer.status, error_type(path, answer)) == (status, kind)


@pytest.mark.parametrize("path", EVERY)
def test_bad_orders_are_refused_in_the_formats_shape(shared_gateway: Gateway, path: str) -> None:
    poor = shared_gateway.new_key(f"poor {path}", "--plan", "paying")
    for body, key, status, kind in (
        ({"model": 1}, "", 400, "invalid_request"),
        ({"model": "nobody/nothing"}, "", 404, "not_found"),
        ({}, poor, 402, "payment_required"),
    ):
        answer = order(shared_gateway, path, key, **body)
        assert (answer.status, error_type(path, answer)) == (status, kind)
    wrong = shared_gateway.request("GET", f"/v1{path}")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    error_type(path, wrong)


@pytest.mark.parametrize("path", ORDERS)
def test_a_model_that_is_not_in_the_plan_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "farebox.toml").write_text('[plans.narrow]\nmodels = ["sim/tiny", "other/*"]\n')
    with Gateway(tmp_path) as gateway:
        key = gateway.new_key("narrow", "--plan", "narrow", "--prepaid", "1")
        bodies: list[dict[str, Any]] = [{}, {"model": "sim/tiny", "models": ["sim/echo"]}]
        for body in bodies if path in STREAMED else bodies[:1]:
            answer = order(gateway, path, key, **body)
            assert (answer.status, error_type(path, answer)) == (403, "permission_denied")


@pytest.mark.parametrize("path", ORDERS)
def test_packed_bodies_are_unpacked(shared_gateway: Gateway, path: str) -> None:
    text = json.dumps(ORDERS[path]).encode()
    bare = zlib.compressobj(wbits=-15)
    packed = [
        ("gzip", gzip.compress(text)),
        ("GZIP", gzip.compress(text)),
        ("deflate", zlib.compress(text)),
        ("deflate", bare.compress(text) + bare.flush()),
        ("identity", text),
    ]
    for encoding, body in packed:
        headers = {"authorization": f"Bearer {shared_gateway.key}", "content-encoding": encoding}
        assert shared_gateway.request("POST", f"/v1{path}", body, headers).status == 200, encoding
    whole = gzip.compress(text)
    for broken in (whole[:-9], whole + b"more", b"not packed", b""):
        headers = {"authorization": f"Bearer {shared_gateway.key}", "content-encoding": "gzip"}
        answer = shared_gateway.request("POST", f"/v1{path}", broken, headers)
        assert (answer.status, error_type(path, answer)) == (400, "invalid_request")


def test_a_bomb_is_refused_before_it_goes_off(shared_gateway: Gateway) -> None:
    bomb = gzip.compress(b" " * 200_000_000, compresslevel=9)
    assert len(bomb) < 250_000
    before = rss_kib(shared_gateway)
    headers = {"authorization": f"Bearer {shared_gateway.key}", "content-encoding": "gzip"}
    for encoding, body in (("gzip", bomb), ("deflate", zlib.compress(b" " * 200_000_000, 9))):
        answer = shared_gateway.request("POST", "/v1/responses", body, {**headers, "content-encoding": encoding})
        assert (answer.status, error_type("/responses", answer)) == (413, "payload_too_large")
    assert rss_kib(shared_gateway) - before < 100_000


def rss_kib(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/keys",
        "/api/v1/auth/keys",
        "/api/v1/../keys",
        "/api/v1/%2e%2e/keys",
        "/api/v1%2Fkeys",
        "/api/v1/chat%2Fcompletions",
        "/api/v1%2fmessages",
        "/api/v1/models/sim%2Fecho/endpoints",
        "/api/v1/models/sim/..%2f..%2fkeys/endpoints",
        "/api/v1/models/../../keys/endpoints",
        "/api/v1/activity",
        "/v3/models",
    ],
)
def test_unknown_paths_are_refused_in_the_envelope_and_reach_nobody(
    fixed: tuple[HttpUpstream, Gateway], path: str
) -> None:
    upstream, gateway = fixed
    asked, ordered = len(upstream.asked), len(upstream.orders)
    headers = {"authorization": f"Bearer {gateway.key}"}
    for method, body in (("GET", None), ("POST", json.dumps(ORDERS["/messages"]).encode())):
        answer = gateway.request(method, path, body, headers)
        # Two of them are this gateway's own, for who manages it.
        own = {"/api/v1/keys": (403,), "/api/v1/activity": (403, 405)}
        assert answer.status in own.get(path, (404,))
        assert answer.error
    assert not [each for each in upstream.asked[asked:] if "keys" in each or "activity" in each]
    assert len(upstream.orders) == ordered
