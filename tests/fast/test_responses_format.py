"""Responses: reading requests, capping them, reading and repairing answers."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.errors import Refusal, broken
from farebox.core.formats import PASS, Progress, responses
from farebox.core.formats.asking import TOOL_PROMPT_TOKENS
from farebox.core.meter import Meter
from farebox.core.usage import Cost, Unknown
from tests.schemas import assert_accepted

USAGE: dict[str, Any] = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 5,
    "cost": 0.0001,
    "cost_details": {"upstream_inference_input_cost": 0, "upstream_inference_output_cost": 0},
}
RESPONSE: dict[str, Any] = {
    "id": "gen-1",
    "object": "response",
    "created_at": 1,
    "completed_at": None,
    "model": "a/b",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "previous_response_id": None,
    "metadata": None,
    "temperature": 1.0,
    "top_p": 0.9,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "top_logprobs": 0,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "truncation": "auto",
    "text": {"format": {"type": "text"}},
    "reasoning": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": False,
    "background": False,
    "service_tier": "flex",
    "safety_identifier": None,
    "prompt_cache_key": None,
    "output": [],
    "usage": USAGE,
}
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
PLACE: dict[str, Any] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 5000}


def request(**members: Any) -> bytes:
    return json.dumps({"model": "a/b", "input": "hi", **members}).encode()


def event(kind: str, number: int | None = 0, **members: Any) -> bytes:
    numbered = {} if number is None else {"sequence_number": number}
    return b"data: %b\n\n" % json.dumps({"type": kind, **numbered, **members}).encode()


def progress(client: str = "") -> Progress:
    return Progress("gen-1", "a/b", 1, client)


def repaired(told: bytes, during: Progress | None = None) -> Any:
    seen = responses.see_event(told, during or progress())
    assert seen.repaired is not None
    assert seen.repaired.startswith(b"data: ")
    assert seen.repaired.endswith(b"\n\n")
    return json.loads(seen.repaired[6:])


# Requests


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "the body: expected `object`"),
        (b'{"model":"a/b"}', "input"),
        (b'{"input":"hi"}', "model: name a model"),
        (request(input=[]), "input: the list is empty"),
        (request(input=1), "input"),
        (request(input=[1]), "input"),
        (request(input=[{"role": "user", "content": [1]}]), "input[...].content"),
        (request(max_output_tokens=0), "max_output_tokens: 0"),
        (request(store=True), "store: nothing is stored of such an order"),
        (request(previous_response_id="gen-0"), "previous_response_id"),
        (request(conversation="c"), "conversation"),
        (request(background=True), "background"),
    ],
)
def test_what_is_no_request_is_refused_and_the_field_named(body: bytes, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        responses.read(body)
    assert refused.value.status == 400
    assert said in refused.value.message


def test_what_asks_for_nothing_to_be_stored_is_served() -> None:
    stateless = request(store=False, previous_response_id=None, conversation=None, background=False)
    assert responses.read(stateless).models == ("a/b",)


def test_what_bounds_the_prompt() -> None:
    plain = request(instructions="x" * 100)
    assert responses.read(plain).prompt_bytes == len(plain)
    parts = [{"type": "input_text", "text": "what?"}, PICTURE]
    body = request(input=[{"role": "user", "content": parts}])
    read = responses.read(body)
    assert read.images == 1
    assert len(body) - 5100 < read.prompt_bytes < len(body) - 5000
    shown = {"type": "function_call_output", "call_id": "c", "output": [PICTURE, PICTURE]}
    assert responses.read(request(input=[shown])).images == 2
    tooled = request(tools=[{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}])
    assert responses.read(tooled).prompt_bytes == len(tooled) + TOOL_PROMPT_TOKENS
    assert not responses.read(tooled).prompt_is_open


@pytest.mark.parametrize(
    "more",
    [
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        {"input": [{"type": "item_reference", "id": "i"}]},
        {"input": [{"type": "additional_tools", "role": "user", "tools": [{"type": "mcp", "server_label": "s"}]}]},
        {"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]},
        {"plugins": [{"id": "nobody-knows"}]},
        {"prompt": {"id": "p"}},
    ],
)
def test_what_may_fill_the_context_leaves_the_prompt_open(more: dict[str, Any]) -> None:
    assert responses.read(request(**more)).prompt_is_open


@given(cap=st.integers(1, 10**6), asked=st.none() | st.integers(1, 10**6))
def test_a_capped_request_asks_for_no_more_and_is_else_the_same(cap: int, asked: int | None) -> None:
    body = request(temperature=0.1, **({} if asked is None else {"max_output_tokens": asked}))
    after = json.loads(responses.capped(body, cap))
    assert after.pop("max_output_tokens") == min(cap, asked or cap)
    before = json.loads(body)
    before.pop("max_output_tokens", None)
    assert after == before


# Streams


def test_a_stream_as_it_should_be_passes_byte_for_byte_and_is_read() -> None:
    begun = {**RESPONSE, "status": "in_progress", "usage": None}
    told = [
        event("response.created", 0, response=begun),
        b": \n\n",
        event("response.output_item.added", 1, output_index=0, item=MESSAGE),
        event("response.output_text.delta", 2, delta="hi", logprobs=[], **PLACE),
        event("response.completed", 3, response=RESPONSE),
        b"data: [DONE]\n\n",
    ]
    meter = Meter(responses, Progress("", "x/y", 1))
    assert [meter.feed(each) for each in told] == told
    assert meter.verdict("") == Cost(Decimal("0.0001"))
    assert (meter.progress.generation_id, meter.served_model) == ("gen-1", "a/b")
    assert (meter.prompt_tokens, meter.answer_tokens) == (3, 2)


def test_only_the_last_event_tells_the_cost() -> None:
    assert responses.see_event(event("response.created", response=RESPONSE), progress()).cost is None
    for kind in ("response.completed", "response.incomplete", "response.failed"):
        assert responses.see_event(event(kind, response=RESPONSE), progress()).cost == Cost(Decimal("0.0001"))


def test_events_without_their_number_are_numbered_on() -> None:
    during = progress()
    assert responses.see_event(event("response.queued", 7, response=RESPONSE), during).repaired is None
    assert repaired(event("response.in_progress", None, response=RESPONSE), during)["sequence_number"] == 8
    assert repaired(event("response.output_item.done", None, item=MESSAGE), during)["sequence_number"] == 9


def test_text_gets_its_logprobs_and_a_calls_end_its_name() -> None:
    for kind in ("response.output_text.delta", "response.output_text.done"):
        assert repaired(event(kind, delta="hi", **PLACE))["logprobs"] == []
        assert repaired(event(kind, delta="hi", logprobs=None, **PLACE))["logprobs"] == []
    during = progress()
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "weather", "arguments": "", "status": "x"}
    assert responses.see_event(event("response.output_item.added", output_index=0, item=call), during) is PASS
    done = event("response.function_call_arguments.done", arguments="{}", item_id="fc_1", output_index=0)
    assert repaired(done, during)["name"] == "weather"


@pytest.mark.parametrize("missing", ["metadata", "error", "top_p", "completed_at", "tools", "object", "status"])
def test_a_response_without_a_required_member_is_completed_and_its_cost_read(missing: str) -> None:
    response = {name: value for name, value in RESPONSE.items() if name != missing}
    seen = responses.see_event(event("response.completed", response=response), progress())
    assert seen.cost == Cost(Decimal("0.0001"))
    assert seen.repaired is not None
    mended = json.loads(seen.repaired[6:])["response"]
    assert_accepted("OpenResponsesResult", mended)
    assert mended["status"] == "completed"
    whole = responses.see_answer(json.dumps(response).encode())
    assert whole.repaired is not None
    assert_accepted("OpenResponsesResult", json.loads(whole.repaired))
    assert whole.cost == Cost(Decimal("0.0001"))


def test_costs_under_chats_names_get_their_own() -> None:
    details = {"upstream_inference_prompt_cost": 1e-7, "upstream_inference_completions_cost": 2e-7}
    response = {**RESPONSE, "usage": {**USAGE, "cost_details": details}}
    told = repaired(event("response.completed", response=response))["response"]["usage"]["cost_details"]
    assert told == {"upstream_inference_input_cost": 1e-7, "upstream_inference_output_cost": 2e-7}


def test_events_that_openais_helpers_throw_on_reach_only_others() -> None:
    for kind in ("response.debug", "response.fusion_call.in_progress", "response.apply_patch_call_operation.delta"):
        for client in ("OpenAI/JS 7.57.0", "OpenAI/Python 3.54.0", "AsyncOpenAI/Python 3.54.0"):
            dropped = responses.see_event(event(kind), progress(client)).repaired
            assert dropped is not None
            assert dropped.startswith(b": ")
        assert responses.see_event(event(kind), progress("speakeasy-sdk/typescript")).repaired is None
    assert (
        responses.see_event(event("response.debug", None), progress("OpenAI/JS 7")).repaired == b": response.debug\n\n"
    )


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (b'data: {"error":{"code":429,"message":"boom"},"user_id":"u"}\n\n', 429),
        (event("error", 4, error={"code": "server_error", "message": "boom"}), 502),
        (event("response.error", 4, error={"message": "boom"}), 502),
        (event("response.output_text.delta", 4, error={"message": "boom"}), 502),
    ],
)
def test_errors_in_other_shapes_become_the_end_that_readers_know(told: bytes, code: int) -> None:
    during = progress()
    during.next_number = 4
    end = repaired(told, during)
    assert_failed(end, "boom")
    assert (end["sequence_number"], during.next_number) == (4, 5)
    assert end["error"]["code"] == code


def assert_failed(end: Any, message: str) -> None:
    """What Codex shows once, what OpenAI's SDKs raise on, and what OpenRouter's SDKs know."""
    assert end["type"] == "response.failed"
    assert end["response"]["status"] == "failed"
    assert end["response"]["error"] == {"code": "invalid_prompt", "message": message}
    assert (end["error"]["message"], type(end["error"]["code"])) == (message, int)
    assert end["error"]["metadata"]["error_type"]
    assert_accepted("OpenResponsesResult", end["response"])


def test_our_error_is_a_response_that_failed_under_the_streams_own_id() -> None:
    during = progress()
    responses.see_event(event("response.created", 8, response={**RESPONSE, "id": "resp_1", "usage": None}), during)
    ours = json.loads(responses.error_event(broken("it broke"), during)[6:])
    assert_failed(ours, "it broke")
    assert (ours["sequence_number"], ours["response"]["id"], ours["error"]["code"]) == (9, "resp_1", 502)
    nonsense = responses.see_event(b"data: {nonsense\n\n", progress()).repaired
    assert nonsense is not None
    assert_failed(json.loads(nonsense[6:]), "the upstream sent an event that is not JSON")


def test_an_error_event_as_documented_becomes_the_end_that_no_reader_repeats() -> None:
    """Vercel's AI SDK orders three times where the first event with an error says `server_error` or `rate_limit...`."""
    for code in ("server_error", "rate_limit_exceeded", None):
        flat = event("error", 4, code=code, message="boom", param=None, usage=USAGE)
        meter = Meter(responses, progress())
        told = meter.feed(flat + b"data: [DONE]\n\n") + meter.finish()
        failed, done = told.removesuffix(b"\n\n").split(b"\n\n")
        end = json.loads(failed[6:])
        assert_failed(end, "boom")
        assert (end["sequence_number"], end["error"]["metadata"].get("provider_code")) == (4, code)
        assert done == b"data: [DONE]"
        assert meter.verdict("") == Cost(Decimal("0.0001"))


@pytest.mark.parametrize("code", ["server_error", "rate_limit_exceeded", "vector_store_timeout", None])
def test_a_response_that_failed_says_no_code_that_readers_repeat(code: str | None) -> None:
    """Codex repeats most codes, Vercel's AI SDK all that are no refusal, and a failed response without an error."""
    response = {**RESPONSE, "status": "failed", "error": {"code": code, "message": "boom"} if code else None}
    seen = responses.see_event(event("response.failed", 7, response=response, error=BESIDE), progress())
    assert seen.repaired is not None
    after = json.loads(seen.repaired[6:])
    error = after["response"]["error"]
    assert (error["code"], error["message"]) == ("invalid_prompt", "boom" if code else "it is beside")
    assert error["metadata"] == {"provider_code": code or BESIDE["code"]}
    assert_accepted("OpenResponsesResult", after["response"])
    assert (after["error"], seen.cost) == (BESIDE, Cost(Decimal("0.0001")))


BESIDE = {"code": 502, "message": "it is beside"}


@pytest.mark.parametrize("code", ["invalid_prompt", "context_length_exceeded"])
def test_a_response_that_failed_with_a_code_that_nobody_repeats_passes_as_it_came(code: str) -> None:
    response = {**RESPONSE, "status": "failed", "error": {"code": code, "message": "boom"}}
    assert responses.see_event(event("response.failed", response=response), progress()).repaired is None


@pytest.mark.parametrize("code", [401, 402, "insufficient_quota"])
def test_an_error_about_the_operators_account_is_not_told_as_one_of_the_callers(code: str | int) -> None:
    error = {"code": code, "message": "boom"}
    failed = event("response.failed", response={**RESPONSE, "status": "failed", "error": error})
    for told in (failed, event("error", 1, error=error)):
        end = repaired(told)
        assert end["response"]["error"]["code"] == "invalid_prompt"
        assert "nothing is wrong with your key" in end["response"]["error"]["message"]
        assert "boom" not in json.dumps(end)


def test_a_mended_event_keeps_its_name() -> None:
    named = b"event: response.in_progress\n" + event("response.in_progress", None, response=RESPONSE)
    during = progress()
    mended = responses.see_event(named, during).repaired
    assert mended is not None
    assert mended.startswith(b"event: response.in_progress\ndata: {")
    flat = b"event: error\n" + event("error", 1, code=None, message="boom")
    for end in (responses.see_event(flat, during).repaired, responses.error_event(broken("it broke"), during)):
        assert end is not None
        assert end.startswith(b"event: response.failed\ndata: {")


FAILED = {"id": "gen-1", "usage": {"cost": 0.0001234}, "error": None}


@pytest.mark.parametrize("response", [FAILED, {**RESPONSE, "usage": {**USAGE, "cost": 0.0001234}}])
@pytest.mark.parametrize("kind", ["response.failed", "response.completed", "response.incomplete"])
def test_an_error_beside_the_last_response_hides_nothing(kind: str, response: dict[str, Any]) -> None:
    error = {"code": 502, "message": "boom"}
    told = event(kind, 7, response=response, error=error)
    during = progress()
    seen = responses.see_event(told, during)
    assert seen.cost == Cost(Decimal("0.0001234"))
    after = json.loads((seen.repaired or told)[6:])
    assert (after["type"], after["sequence_number"], after["error"]) == (kind, 7, error)
    assert during.next_number == 8


def test_a_cost_beside_the_last_response_counts_where_it_tells_none() -> None:
    other = {**USAGE, "cost": 0.5}
    for within, cost in ((USAGE, "0.0001"), (None, "0.5")):
        for response in ({**RESPONSE, "usage": within}, {"usage": within}):
            told = event("response.completed", usage=other, response=response)
            assert responses.see_event(told, progress()).cost == Cost(Decimal(cost))
    partial = b'data: {"type":"response.created","response":{"usage":{"cost":0}},\n\n'
    assert responses.see_event(partial, progress()).cost is None


@pytest.mark.parametrize(
    "members",
    [
        {"usage": USAGE, "message": "boom", "code": None, "param": None},
        {"usage": USAGE, "error": {"message": "boom"}},
        {"response": {"usage": USAGE}, "error": {"message": "boom"}},
        {"response": {"usage": USAGE}, "message": "boom", "code": None, "param": None},
    ],
)
def test_an_error_tells_the_cost_beside_it(members: dict[str, Any]) -> None:
    for number in (4, None):
        assert responses.see_event(event("error", number, **members), progress()).cost == Cost(Decimal("0.0001"))


def test_a_cost_written_as_text_becomes_its_number() -> None:
    usage = {**USAGE, "cost": "1.20E-4", "cost_details": {**USAGE["cost_details"], "upstream_inference_cost": "0.10"}}
    told = event("response.completed", response={**RESPONSE, "usage": usage})
    for seen in (
        responses.see_event(told, progress()),
        responses.see_answer(json.dumps({**RESPONSE, "usage": usage}).encode()),
    ):
        assert seen.cost == Cost(Decimal("0.000120"))
        assert (seen.prompt_tokens, seen.answer_tokens) == (3, 2)
        assert seen.repaired is not None
        assert b'"cost":1.20E-4' in seen.repaired
        assert b'"upstream_inference_cost":0.10' in seen.repaired


# Whole answers and errors


def test_a_whole_answer_is_read_and_left_alone() -> None:
    body = json.dumps(RESPONSE).encode()
    seen = responses.see_answer(body)
    assert seen.repaired is None
    assert (seen.generation_id, seen.cost, seen.answer_tokens) == ("gen-1", Cost(Decimal("0.0001")), 2)
    assert responses.see_answer(b": OPENROUTER PROCESSING\n" + body).repaired == body
    unpriced = responses.see_answer(json.dumps({**RESPONSE, "usage": {**USAGE, "cost": None}}).encode())
    assert isinstance(unpriced.cost, Unknown)
    assert responses.see_answer(json.dumps({**RESPONSE, "usage": None}).encode()).cost is None


def test_counts_that_only_sdks_want_are_marked_as_not_known() -> None:
    response = {**RESPONSE, "usage": {"input_tokens": 3}}
    whole = responses.see_answer(json.dumps(response).encode())
    usage = repaired(event("response.completed", response=response))["response"]["usage"]
    assert json.loads(whole.repaired or b"")["usage"] == usage
    assert (usage["output_tokens"], usage["total_tokens"], usage["is_unknown"]) == (0, 3, True)
    assert (whole.prompt_tokens, whole.answer_tokens) == (None, None)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"error":{"message":"boom"}}', b"{}"])
def test_what_is_no_answer_fails(body: bytes) -> None:
    failure = responses.see_answer(body).failure
    assert failure is not None
    assert failure.status == 424


def test_an_upstreams_refusal_gets_the_integer_code_that_sdks_type() -> None:
    documented = b'{"error":{"code":"rate_limit_exceeded","message":"slow down"},"metadata":null}'
    typed = responses.typed_refusal(429, documented)
    assert typed is not None
    assert json.loads(typed)["error"] == {
        "code": 429,
        "message": "slow down",
        "metadata": {"provider_code": "rate_limit_exceeded", "error_type": "rate_limit_exceeded"},
    }
    right = b'{"error":{"code":429,"message":"m","metadata":{"error_type":"timeout"}}}'
    assert responses.typed_refusal(429, right) is right
    assert responses.typed_refusal(502, b'{"detail":"x"}') is None
