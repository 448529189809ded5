"""Texts that JSON's own readers take and strict ones do not: they pass to the letter, both ways, and cost as any."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from farebox.batch.entries import answered, read_entry
from farebox.batch.running import read_input
from farebox.core.formats import Format
from farebox.core.formats.table import FORMATS
from farebox.core.intake import read_order
from farebox.core.plans import BUILT_IN
from tests.fast.test_embeddings_format import ANSWER as VECTORS
from tests.fast.test_exchange import ANSWER
from tests.fast.test_messages_format import STARTED
from tests.fast.test_messages_format import USAGE as MESSAGES_USAGE
from tests.fast.test_responses_format import RESPONSE
from tests.gateway import Gateway, Response, eventually
from tests.served.test_batch import begin, ended, write
from tests.served.test_formats import AS_IT_CAME, CAPS, EVENTS, ORDERS, STREAMED, USAGE, fixed
from tests.served.test_formats import order as order_any
from tests.served.test_mcp import call, text_of
from tests.upstreams import HttpUpstream

__all__ = ["fixed"]

ODD = {
    "a character cut between its halves": rb'"\ud83d"',
    "its other half": rb'"\ude00 bye"',
    "bytes that are no UTF-8": b'"\xff\xfe caf\xe9"',
    "control characters": b'"a\tb\x00c"',
    "no number": b"NaN",
    "no end": b"-Infinity",
}
odd_texts = pytest.mark.parametrize("text", ODD.values(), ids=ODD)

MARK = "an odd text"
SAID = {"type": "output_text", "text": MARK, "annotations": [], "logprobs": []}
MESSAGE = {"id": "msg_1", "role": "assistant", "status": "completed"}
WHOLE: dict[str, dict[str, Any]] = {
    "/chat/completions": {**ANSWER, "usage": USAGE, "note": MARK},
    "/messages": {**STARTED, "content": [{"type": "text", "text": MARK}], "usage": MESSAGES_USAGE},
    "/responses": {**RESPONSE, "output": [{"type": "message", "content": [SAID], **MESSAGE}]},
    "/embeddings": {**VECTORS, "note": MARK},
    "/rerank": {
        "model": "a/b",
        "results": [{"index": 0, "relevance_score": 1, "document": {"text": MARK}}],
        "usage": {"cost": 0.0001},
    },
    "/images": {"created": 1, "data": [], "usage": USAGE, "note": MARK},
    "/audio/transcriptions": {"text": "hi", "usage": {"cost": 0.0001}, "note": MARK},
}


def order(gateway: Gateway, path: str, **body: Any) -> Response:
    """An order whose answer is to pass as it came."""
    return order_any(gateway, path, **{**AS_IT_CAME.get(path, {}), **body})


def odd(value: Any, text: bytes) -> bytes:
    """JSON with this text, as it stands, in the place of MARK."""
    told = json.dumps(value).encode()
    assert b'"%b"' % MARK.encode() in told
    return told.replace(b'"%b"' % MARK.encode(), text)


def stream(path: str, text: bytes) -> bytes:
    """The format's usual stream, with the text in the place of what it says, and beside every event's members."""
    parts = []
    for event in EVENTS[path]:
        name = b"event: " + event["type"].encode() + b"\n" if path == "/messages" else b""
        told = odd({"said": MARK, **event}, text).replace(rb'"h\u00e9"', text)
        parts.append(name + b"data: " + told + b"\n\n")
    return b"".join([*parts, b"data: [DONE]\n\n"])


def play(upstream: HttpUpstream, told: bytes, *, streamed: bool) -> None:
    """Answer the next orders so."""
    upstream.answer, upstream.waits = [told], None
    upstream.content_type = "text/event-stream" if streamed else "application/json"


@odd_texts
@pytest.mark.parametrize("path", STREAMED)
def test_a_stream_passes_byte_for_byte_and_its_cost_is_read(
    fixed: tuple[HttpUpstream, Gateway], path: str, text: bytes
) -> None:
    upstream, gateway = fixed
    play(upstream, stream(path, text), streamed=True)
    answer = order(gateway, path, model="a/b", stream=True)
    assert answer.body == stream(path, text)
    last = gateway.orders("a")[-1]
    assert (last["what"], last["cost_usd"], last["generation_id"]) == ("fare", "0.0001", "gen-1")
    assert last["answer_tokens"] == 2


@odd_texts
@pytest.mark.parametrize("path", WHOLE)
def test_a_whole_answer_passes_byte_for_byte_and_its_cost_is_read(
    fixed: tuple[HttpUpstream, Gateway], path: str, text: bytes
) -> None:
    upstream, gateway = fixed
    body = odd(WHOLE[path], text)
    play(upstream, body, streamed=False)
    answer = order(gateway, path, model="a/b")
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["x-farebox-fare-events"] == ("1" if path == "/embeddings" else "10")


@pytest.mark.parametrize("path", STREAMED)
def test_a_byte_order_mark_before_an_answer_passes(fixed: tuple[HttpUpstream, Gateway], path: str) -> None:
    upstream, gateway = fixed
    for streamed, told in ((True, stream(path, b'"x"')), (False, odd(WHOLE[path], b'"x"'))):
        play(upstream, b"\xef\xbb\xbf" + told, streamed=streamed)
        assert order(gateway, path, model="a/b", stream=streamed).body == b"\xef\xbb\xbf" + told
        eventually(lambda: gateway.orders("a")[-1]["cost_usd"] == "0.0001")


@odd_texts
@pytest.mark.parametrize("path", STREAMED)
def test_an_event_that_also_needs_mending_keeps_its_text(
    fixed: tuple[HttpUpstream, Gateway], path: str, text: bytes
) -> None:
    upstream, gateway = fixed
    told = stream(path, text)
    for right, wrong in ((b'"cost": 0.0001', b'"cost": "0.0001"'), (b'"finish_reason": null', b'"x": 1')):
        told = told.replace(right, wrong)
    play(upstream, told, streamed=True)
    body = order(gateway, path, model="a/b", stream=True).body
    assert body.count(text) == told.count(text)
    assert b'"cost":0.0001' in body
    eventually(lambda: gateway.orders("a")[-1]["cost_usd"] == "0.0001")


def test_an_event_that_nobody_reads_is_an_error_and_the_stream_goes_on(fixed: tuple[HttpUpstream, Gateway]) -> None:
    upstream, gateway = fixed
    for path in STREAMED:
        told = stream(path, b'"x"')
        play(upstream, b'data: {"content":"\\q"}\n\n' + told, streamed=True)
        body = order(gateway, path, model="a/b", stream=True).body
        assert b"not JSON" in body
        assert body.endswith(told)
        eventually(lambda: gateway.orders("a")[-1]["cost_usd"] == "0.0001")


# Orders


def odd_order(path: str, text: bytes, **more: Any) -> bytes:
    """An order that says the text: as what it asks where that can be any text, else beside."""
    said = {"input": MARK} if "input" in ORDERS[path] else {"messages": [{"role": "user", "content": MARK}]}
    beside = not text.startswith(b'"')
    plain = {**ORDERS[path], **AS_IT_CAME.get(path, {}), "model": "a/b"}
    return odd({**plain, **({"note": MARK} if beside else said), **more}, text)


@odd_texts
@pytest.mark.parametrize("path", ORDERS)
def test_an_order_passes_as_it_came(fixed: tuple[HttpUpstream, Gateway], path: str, text: bytes) -> None:
    upstream, gateway = fixed
    body = odd_order(path, text)
    play(upstream, odd(WHOLE[path], b'"x"'), streamed=False)
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    answer = gateway.request("POST", f"/v1{path}", body, headers)
    assert answer.status == 200
    assert upstream.orders[-1] == body


@odd_texts
@pytest.mark.parametrize("path", CAPS)
def test_an_order_that_gets_a_cap_keeps_all_else(path: str, text: bytes) -> None:
    body = odd_order(path, text, temperature=0.10)
    capped = read_order(body, FORMATS[path], BUILT_IN["free"]).body
    assert text in capped
    assert b'"%b":2048' % CAPS[path].encode() in capped
    known = [json.loads(each.replace(text, b'""').decode()) for each in (body, capped)]
    assert known[1] == {**known[0], CAPS[path]: 2048}


@pytest.mark.parametrize("path", ORDERS)
def test_what_is_wrong_is_named_all_the_same(path: str) -> None:
    wire: Format = FORMATS[path]
    body = odd({**ORDERS[path], "service_tier": 1, "note": MARK}, rb'"\ud83d"')
    with pytest.raises(Exception, match="service_tier: expected"):
        wire.read(body)
    body = odd({**ORDERS[path], "note": MARK}, rb'"\ud83d"')
    for cut in (body[:-1], body.replace(b'"note"', b"note")):
        with pytest.raises(Exception, match="the body is not JSON"):
            wire.read(cut)


def test_bytes_that_are_no_utf_8_are_held_for_what_takes_their_place() -> None:
    path = "/chat/completions"
    plain = read_order(odd_order(path, b'"aa"'), FORMATS[path], BUILT_IN["paying"]).asked
    bad = read_order(odd_order(path, b'"\xff\xfe"'), FORMATS[path], BUILT_IN["paying"]).asked
    assert bad.prompt_bytes == plain.prompt_bytes + 4


# Batches, runs and tools

HALF = rb'"bad \ud800 x"'


def test_an_entry_of_a_batch_passes_as_it_came() -> None:
    body = odd_order("/chat/completions", HALF)
    for text in (HALF, b'"\xff"', b'"\t"'):
        entry = odd(
            {"custom_id": "a", "url": "/v1/chat/completions", "body": {**ORDERS["/chat/completions"], "x": MARK}}, text
        )
        read = read_entry(1, entry, FORMATS)
        assert (read.refusal, read.custom_id) == (None, "a")
        assert read.body in entry
        assert text in read.body
    assert read_entry(1, body, FORMATS).body == body
    asked = read_input(b'{"requests":[' + body + b"]}", FORMATS)
    assert asked.orders[0].body == body
    asked = read_input(b'{"requests":' + json.dumps(body.decode()).encode() + b"}", FORMATS)
    assert asked.orders[0].body == body
    asked = read_input(
        b'{"requests":' + json.dumps(json.dumps(json.loads(body), ensure_ascii=False)).encode() + b"}", FORMATS
    )
    assert json.loads(asked.orders[0].body) == json.loads(body)


@odd_texts
def test_a_result_is_a_line_that_every_reader_takes(text: bytes) -> None:
    entry = read_entry(1, odd_order("/chat/completions", b'"x"'), FORMATS)
    body = odd({**ANSWER, "usage": USAGE, "note": MARK}, text).replace(b", ", b",\r\n ")
    result = answered(entry, "gen-1", body, None)
    assert result.answer is not None
    line = bytes(result.answer)
    assert json.loads(line, parse_constant=pytest.fail)["usage"] == USAGE
    assert b"\n" not in line
    assert (text in line) == text.startswith(rb'"\u')
    assert json.loads(bytes(result.usage or b"")) == USAGE


def test_a_batch_takes_odd_texts_and_pays_for_them_once(tmp_path: Path) -> None:
    with HttpUpstream().serving() as upstream:
        upstream.content_type = "application/json"
        upstream.answer = [odd(WHOLE["/chat/completions"], HALF)]
        shell = Gateway(tmp_path, OPENROUTER_API_KEY="sk-or-x", FAREBOX_UPSTREAM_URL=upstream.url)
        shell.copy_books()
        shell.key = shell.new_key("a", "--plan", "paying", "--prepaid", "1")
        body = odd_order("/chat/completions", HALF)
        write(tmp_path, [body.decode(), json.dumps({**ORDERS["/chat/completions"], "model": "nobody/nothing"})])
        for before in (0, 2):  # begun again it has what was told
            assert ended(begin(shell), code=1)["before"] == before
        assert upstream.orders == [body]
        (line,) = [each for each in (tmp_path / "orders.results.jsonl").read_bytes().splitlines() if HALF in each]
        assert json.loads(line)["fare_events"] == 10
        shell.audit()


def test_an_error_that_tells_its_cost_is_charged_and_says_so(tmp_path: Path) -> None:
    with HttpUpstream().serving() as upstream:
        upstream.content_type = "application/json"
        with Gateway(tmp_path, "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x") as gateway:
            key = gateway.new_key("a", "--plan", "paying", "--prepaid", "1")
            for path, order in ORDERS.items():
                bearer = {"authorization": f"Bearer {key}"}
                upstream.answer = [json.dumps({"error": {"message": "boom"}, "usage": USAGE}).encode()]
                told = gateway.request("POST", f"/v1{path}", {**order, "model": "a/b"}, headers=bearer)
                assert told.status == 424, told.body
                assert told.headers["x-generation-id"] == "gen-1"
                assert (told.headers["x-farebox-fare-events"], told.headers["x-farebox-fare-usd"]) == ("10", "0.0001")
                assert told.json["error"]["message"].endswith("boom. It told what that cost, and $0.0001 is charged")
                upstream.answer = [b'{"error":{"message":"boom"}}']
                told = gateway.request("POST", f"/v1{path}", {**order, "model": "a/b"}, headers=bearer)
                assert told.status == 424, told.body
                assert told.headers["x-generation-id"] == "gen-1"
                assert "x-farebox-fare-usd" not in told.headers
                assert "not known yet" in told.json["error"]["message"]


def test_a_tool_takes_odd_texts_and_gives_them(tmp_path: Path) -> None:
    with HttpUpstream().serving() as upstream:
        upstream.content_type = "application/json"
        message = {"role": "assistant", "content": MARK}
        told = {**ANSWER, "choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": USAGE}
        with Gateway(tmp_path, "--upstream", upstream.url, OPENROUTER_API_KEY="sk-or-x") as gateway:
            key = gateway.new_key("agent", "--plan", "paying", "--prepaid", "1")
            for text in (rb'"half \ud83d"', b'"half \xff"'):
                upstream.answer = [odd(told, text)]
                result = call(gateway, key, "chat", model="a/b", prompt="Hello")
                assert not result.is_error
                assert text_of(result).startswith("half ")
                assert result.structured_content is not None
                assert result.structured_content["fare_usd"] == "0.0001"
            gateway.audit()


@pytest.mark.parametrize("text", [rb'"half \ud83d"', b'"half \xff"', b'"half\t"'])
def test_a_tool_is_asked_with_odd_texts(shared_gateway: Gateway, text: bytes) -> None:
    arguments = {"model": "sim/echo", "prompt": MARK}
    params = {"name": "chat", "arguments": arguments}
    asked = odd({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, text)
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "x-api-key": shared_gateway.key,
    }
    answer = shared_gateway.request("POST", "/mcp", asked, headers)
    assert answer.status == 200
    assert answer.json["result"]["structuredContent"]["text"].startswith("You said: half")


# The SDKs themselves


def _openai(url: str, key: str) -> list[str]:
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        streamed = client.chat.completions.create(model="a/b", messages=[{"role": "user", "content": "x"}], stream=True)
        return [repr(chunk) for chunk in streamed]


def _openai_responses(url: str, key: str) -> list[str]:
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        return [repr(event) for event in client.responses.create(model="a/b", input="x", stream=True, store=False)]


def _anthropic(url: str, key: str) -> list[str]:
    messages: Any = [{"role": "user", "content": "x"}]
    with anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key=key, max_retries=0) as client:
        return [
            repr(event) for event in client.messages.create(model="a/b", max_tokens=9, messages=messages, stream=True)
        ]


@pytest.mark.parametrize("text", [rb'"\ud83d"', rb'"\ude00 bye"', rb'"\ud83d\ude00"', b"NaN"])
@pytest.mark.parametrize(
    ("path", "read"), [("/chat/completions", _openai), ("/responses", _openai_responses), ("/messages", _anthropic)]
)
def test_what_an_sdk_reads_when_asked_directly_it_reads_here(
    fixed: tuple[HttpUpstream, Gateway], path: str, read: Callable[[str, str], list[str]], text: bytes
) -> None:
    upstream, gateway = fixed
    play(upstream, stream(path, text), streamed=True)
    directly, through = read(upstream.url, "x"), read(gateway.base, gateway.key)
    assert through == directly
    assert len(through) == len(EVENTS[path])
    eventually(lambda: gateway.orders("a")[-1]["cost_usd"] == "0.0001")


UNCLOSED = r"""
from farebox.core.errors import Refusal
from farebox.core.formats.table import FORMATS
from farebox.core.intake import read_asked
from farebox.guards.texts import texts_in

body = b'{"model":"a/b","messages":[{"role":"user","content":"' + b'\\"' * 2_000_000
assert list(texts_in(body))[-1] == "user"
try:
    read_asked(body, FORMATS["/chat/completions"])
except Refusal as refusal:
    print(refusal.status)
"""


def test_a_string_that_no_quote_closes_is_read_to_its_end_once() -> None:
    """In a process of its own, which can be ended: it would go on for days, and no other thread with it."""
    done = subprocess.run([sys.executable, "-c", UNCLOSED], timeout=60, check=True, capture_output=True, text=True)
    assert done.stdout == "400\n"
