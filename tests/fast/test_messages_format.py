"""Messages: reading requests, capping them, reading and repairing answers."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.errors import Refusal, broken, unaffordable
from farebox.core.formats import PASS, Progress, messages
from farebox.core.formats.asking import TOOL_PROMPT_TOKENS
from farebox.core.meter import Meter
from farebox.core.usage import Cost, Unknown

USAGE: dict[str, Any] = {
    "input_tokens": 3,
    "output_tokens": 2,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 7,
    "cost": 0.0001,
}
STARTED: dict[str, Any] = {
    "id": "gen-1",
    "type": "message",
    "role": "assistant",
    "model": "a/b",
    "content": [],
    "stop_reason": None,
    "usage": {"input_tokens": 0, "output_tokens": 0},
}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 5000}}


def request(**members: Any) -> bytes:
    return json.dumps({"model": "a/b", "messages": [{"role": "user", "content": "hi"}], **members}).encode()


def event(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **members}).encode())


def data_only(named: bytes) -> bytes:
    return named.split(b"\n", 1)[1]


def progress() -> Progress:
    return Progress("gen-1", "a/b", 1)


def repaired(event: bytes) -> tuple[str, Any]:
    """The name and the data of the event that goes on in place of this one."""
    seen = messages.see_event(event, progress())
    assert seen.repaired is not None
    name, data, *ends = seen.repaired.decode().split("\n")
    assert ends == ["", ""]
    assert name.startswith("event: ")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


# Requests


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "the body: expected `object`"),
        (b'{"model":"a/b"}', "messages"),
        (request(messages=[]), "messages: the list is empty"),
        (request(messages=[{"role": "user", "content": 1}]), "content"),
        (request(messages=[{"role": "user"}]), "content"),
        (request(model=None), "model: name a model"),
        (request(model="a/b:" + "x" * 512), "model: a name has at most 512 characters; this one has 516"),
        (request(models=["c/d", "x" * 513]), "model: a name has at most 512 characters"),
        (request(max_tokens=0), "max_tokens: 0"),
        (request(max_tokens="9"), "max_tokens"),
        (request(models=["c/d"], fallbacks=[{"model": "e/f"}]), "fallbacks: give either"),
        (request(fallbacks=[{"model": "e/f"}] * 4), "fallbacks: at most 3"),
        (request(fallbacks=[{"model": "e/f", "max_tokens": 9}]), "fallbacks"),
        (request(thread={"type": "create"}), "thread: nothing is stored here"),
        (request(thread={"type": "continue", "previous_message_id": "msg_1"}), "thread: nothing is stored here"),
        (b'{"model":"a/b","messages":' + b"[" * 2000 + b"]" * 2000 + b"}", ""),
    ],
)
def test_what_is_no_request_is_refused_and_the_field_named(body: bytes, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        messages.read(body)
    assert refused.value.status == 400
    assert said in refused.value.message


def test_models_in_the_order_they_are_tried() -> None:
    assert messages.read(request(models=["c/d"])).models == ("a/b", "c/d")
    assert messages.read(request(fallbacks=[{"model": "c/d"}, {"model": "e/f"}])).models == ("a/b", "c/d", "e/f")


def test_what_bounds_the_prompt() -> None:
    plain = request(system="x" * 100)
    assert messages.read(plain).prompt_bytes == len(plain)
    body = request(messages=[{"role": "user", "content": [IMAGE, {"type": "text", "text": "what?"}]}])
    read = messages.read(body)
    assert read.images == 1
    assert len(body) - 5100 < read.prompt_bytes < len(body) - 5000
    result = {"type": "tool_result", "tool_use_id": "t", "content": [IMAGE, IMAGE]}
    assert messages.read(request(messages=[{"role": "user", "content": [result]}])).images == 2
    tooled = request(tools=[{"name": "f", "input_schema": {}}])
    assert messages.read(tooled).prompt_bytes == len(tooled) + TOOL_PROMPT_TOKENS


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "u"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]},
        {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
        {"tools": [{"type": "nobody_knows_20250910", "name": "n"}]},
        {"plugins": [{"id": "fusion"}]},
        {"mcp_servers": [{"type": "url", "url": "u", "name": "n"}]},
    ],
)
def test_what_may_fill_the_context_leaves_the_prompt_open(more: dict[str, Any]) -> None:
    assert messages.read(request(**more)).prompt_is_open
    assert not messages.read(request(tools=[{"type": "custom", "name": "f", "input_schema": {}}])).prompt_is_open


@pytest.mark.parametrize("more", [{"speed": "fast"}, {"service_tier": "priority"}, {"model": "a/b:nitro"}])
def test_what_is_dearer_than_listed(more: dict[str, Any]) -> None:
    assert messages.read(request(**more)).is_premium
    assert not messages.read(request()).is_premium


@given(cap=st.integers(1, 10**6), asked=st.none() | st.integers(1, 10**6), streamed=st.booleans())
def test_a_capped_request_asks_for_no_more_and_is_else_the_same(cap: int, asked: int | None, streamed: bool) -> None:
    body = request(stream=streamed, temperature=0.1, **({} if asked is None else {"max_tokens": asked}))
    after = json.loads(messages.capped(body, cap))
    assert after.pop("max_tokens") == min(cap, asked or cap)
    before = json.loads(body)
    before.pop("max_tokens", None)
    assert after == before


# Streams


def test_a_stream_as_it_should_be_passes_byte_for_byte_and_is_read() -> None:
    told = [
        event("message_start", message=STARTED),
        event("ping"),
        b": OPENROUTER PROCESSING\n\n",
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"}),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage=USAGE),
        event("message_stop"),
        b"data: [DONE]\n\n",
    ]
    meter = Meter(messages, Progress("", "x/y", 1))
    assert [meter.feed(each) for each in told] == told
    assert meter.verdict("") == Cost(Decimal("0.0001"))
    assert (meter.progress.generation_id, meter.served_model) == ("gen-1", "a/b")
    # Anthropic counts what came from a cache, or went to it, beside the input.
    assert (meter.prompt_tokens, meter.answer_tokens) == (15, 2)


def test_a_start_tells_no_cost() -> None:
    seen = messages.see_event(event("message_start", message={**STARTED, "usage": {**USAGE, "cost": 0}}), progress())
    assert seen.cost is None


@pytest.mark.parametrize(
    "named", [event("message_start", message=STARTED), event("message_stop"), event("message_delta", usage=USAGE)]
)
def test_an_event_without_its_name_gets_it(named: bytes) -> None:
    kind = json.loads(named.split(b"data: ")[1])["type"]
    assert repaired(data_only(named)) == (kind, json.loads(data_only(named)[6:]))
    assert repaired(b"event: data\n" + data_only(named))[0] == kind
    assert messages.see_event(named, progress()).repaired is None
    assert messages.see_event(named.replace(b"\n", b"\r\n"), progress()).repaired is None


def test_done_loses_the_name_under_which_it_would_be_parsed() -> None:
    assert messages.see_event(b"data: [DONE]\n\n", progress()) is PASS
    assert messages.see_event(b"event: data\ndata: [DONE]\n\n", progress()).repaired == b"data: [DONE]\n\n"


def test_what_the_helpers_read_without_asking_is_there() -> None:
    name, start = repaired(event("message_start", message={"id": "gen-1", "model": "a/b"}))
    assert (name, start["message"]["content"], start["message"]["usage"]["output_tokens"]) == ("message_start", [], 0)
    assert "is_unknown" not in start["message"]["usage"], "nothing was made yet"
    usages: list[dict[str, Any]] = [{}, {"usage": None}, {"usage": {}}]
    for usage in usages:
        name, delta = repaired(event("message_delta", delta={}, **usage))
        assert (name, delta["usage"]["output_tokens"]) == ("message_delta", 0)
        assert delta["usage"]["is_unknown"] is True, "nobody told that zero"


def test_a_missing_usage_is_no_cost_and_an_unreadable_one_unknown() -> None:
    assert messages.see_event(event("message_delta", delta={}), progress()).cost is None
    seen = messages.see_event(event("message_delta", delta={}, usage={"output_tokens": 1, "cost": None}), progress())
    assert isinstance(seen.cost, Unknown)


def test_a_bare_error_becomes_an_event() -> None:
    bare = b'data: {"error":{"code":404,"message":"no model","metadata":{"error_type":"not_found"}}}\n\n'
    name, body = repaired(bare)
    assert name == body["type"] == "error"
    assert body["error"] == {"type": "not_found_error", "message": "no model", "error_type": "not_found"}
    assert body["request_id"] == "gen-1"
    assert repaired(b"data: {nonsense\n\n")[0] == "error"


@pytest.mark.parametrize("said", [{"type": "authentication_error"}, {"type": "billing_error"}, {"code": 402}])
def test_an_error_about_the_operators_account_is_not_told_as_one_of_the_callers(said: Any) -> None:
    body = {"error": {"message": "no credits", **said}, "usage": USAGE}
    told = event("error", **body) if "type" in said else b"data: %b\n\n" % json.dumps(body).encode()
    name, body = repaired(told)
    assert name == body["type"] == "error"
    assert (body["error"]["type"], body["error"]["provider_type"]) == ("invalid_request_error", "api_error")
    assert "nothing is wrong with your key" in body["error"]["message"]
    assert messages.see_event(told, progress()).cost == Cost(Decimal("0.0001"))


def test_our_own_error_event_ends_a_stream_in_words() -> None:
    told = messages.error_event(broken("it broke"), progress())
    assert told.startswith(b"event: error\ndata: ")
    assert told.endswith(b"\n\n")
    error = json.loads(told.split(b"data: ")[1])["error"]
    assert (error["type"], error["error_type"]) == ("invalid_request_error", "provider_unavailable")


def test_a_name_that_is_no_utf_8_breaks_no_stream() -> None:
    named = b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":1,"cost":1e-4},"\xff":1}\n\n'
    seen = messages.see_event(named, progress())
    assert (seen.repaired, seen.cost) == (None, Cost(Decimal("0.0001")))
    assert messages.see_event(b'event: message_delta\ndata: {"type":"message_delta","\xff":1}\n\n', progress()).repaired


@pytest.mark.parametrize("kind", ["error", "message_stop", "ping"])
def test_an_event_that_also_tells_the_cost_is_charged_and_passes(kind: str) -> None:
    told = event(kind, error={"type": "not_found_error", "message": "boom"}, usage=USAGE)
    seen = messages.see_event(told, progress())
    assert (seen.cost, seen.repaired) == (Cost(Decimal("0.0001")), None)


@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "rate_limit_error", "timeout_error", "nobody_knows"])
def test_an_error_in_a_stream_says_no_type_that_readers_repeat(kind: str) -> None:
    """Claude Code orders again on `overloaded_error`, Vercel's AI SDK on the first three."""
    error = {"type": kind, "message": "boom", "details": {"visibility": "user"}}
    name, body = repaired(event("error", error=error, usage=USAGE, request_id="r"))
    assert name == body["type"] == "error"
    assert body["error"] == {**error, "type": "invalid_request_error", "provider_type": kind}
    assert (body["request_id"], body["usage"]) == ("r", USAGE)
    assert messages.see_event(event("error", error=error, usage=USAGE), progress()).cost == Cost(Decimal("0.0001"))
    bare = json.dumps({"error": {"code": 529, "message": "boom", "type": kind}}).encode()
    _, body = repaired(b"data: %b\n\n" % bare)
    assert body["error"] == {"type": "invalid_request_error", "message": "boom", "provider_type": kind}
    _, body = repaired(b'data: {"error":{"code":529,"message":"boom"}}\n\n')
    assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("error", [{"error": {"code": 502, "message": "boom"}}, {}])
def test_what_has_no_type_tells_its_cost(error: dict[str, Any]) -> None:
    seen = messages.see_event(b"data: %b\n\n" % json.dumps({**error, "usage": USAGE}).encode(), progress())
    assert seen.cost == Cost(Decimal("0.0001"))


def test_a_cost_written_as_text_becomes_its_number() -> None:
    usage = {**USAGE, "cost": "1.20E-4", "cost_details": {"upstream_inference_cost": "0.10"}}
    whole = {**STARTED, "stop_reason": "end_turn", "usage": usage}
    for seen in (
        messages.see_event(event("message_delta", delta={}, usage=usage), progress()),
        messages.see_answer(json.dumps(whole).encode()),
    ):
        assert seen.cost == Cost(Decimal("0.000120"))
        assert (seen.prompt_tokens, seen.answer_tokens) == (15, 2)
        assert seen.repaired is not None
        assert b'"cost":1.20E-4' in seen.repaired
        assert b'"upstream_inference_cost":0.10' in seen.repaired


# Whole answers and errors


def test_a_whole_answer_is_read_and_left_alone() -> None:
    body = json.dumps({**STARTED, "content": [{"type": "text", "text": "hi"}], "usage": USAGE}).encode()
    for text in (body, b"\n\n" + body):
        seen = messages.see_answer(text)
        assert seen.repaired is None
        assert (seen.generation_id, seen.cost, seen.answer_tokens) == ("gen-1", Cost(Decimal("0.0001")), 2)
    assert messages.see_answer(b": OPENROUTER PROCESSING\n\n" + body).repaired == body


def test_a_whole_answer_with_members_missing_is_completed() -> None:
    seen = messages.see_answer(json.dumps({"id": "gen-1", "model": "a/b", "content": []}).encode())
    assert seen.repaired is not None
    usage = json.loads(seen.repaired)["usage"]
    assert (usage["output_tokens"], usage["is_unknown"]) == (0, True)
    assert (seen.cost, seen.answer_tokens) == (None, None)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"type":"error","error":{"message":"boom"}}', b"{}"])
def test_what_is_no_answer_fails(body: bytes) -> None:
    failure = messages.see_answer(body).failure
    assert failure is not None
    assert failure.status == 424


def test_refusals_are_in_anthropics_shape() -> None:
    body = json.loads(messages.refusal_body(unaffordable("too dear", answer_tokens_covered=3)))
    assert body["type"] == "error"
    assert body["error"]["type"] == "billing_error"
    assert body["error"]["metadata"] == {"answer_tokens_covered": 3}


def test_a_threads_refusal_has_the_code_on_which_anthropics_sdk_goes_on_without_one() -> None:
    assert messages.read(request(thread=None)).models == ("a/b",)
    with pytest.raises(Refusal) as refused:
        messages.read(request(thread={"type": "create"}))
    error = json.loads(messages.refusal_body(refused.value))["error"]
    assert error["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    assert "metadata" not in error


def test_an_upstreams_refusal_is_put_in_anthropics_shape() -> None:
    typed = b'{"type":"error","error":{"type":"api_error","message":"m"},"request_id":null}'
    assert messages.typed_refusal(500, typed) is typed
    envelope = messages.typed_refusal(429, b'{"error":{"code":429,"message":"slow down"},"user_id":"u"}')
    assert envelope is not None
    assert json.loads(envelope)["error"] == {"type": "rate_limit_error", "message": "slow down"}
    assert messages.typed_refusal(502, b"<html>") is None
    assert messages.typed_refusal(502, b"{}") is None
