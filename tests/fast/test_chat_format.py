"""Chat completions: reading requests, capping them, reading and repairing answers."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.errors import Refusal, broken
from farebox.core.formats import PASS, Progress, chat
from farebox.core.formats.asking import TOOL_PROMPT_TOKENS
from farebox.core.intake import Order, read_order
from farebox.core.meter import Meter
from farebox.core.plans import BUILT_IN, Plan
from farebox.core.usage import Cost, Unknown
from tests.schemas import assert_accepted

PROGRESS = Progress("gen-1", "a/b", 1_767_225_600)

CHUNK: dict[str, Any] = {
    "id": "gen-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "a/b",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}],
}
USAGE: dict[str, Any] = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.0001}


def request(**members: Any) -> bytes:
    return json.dumps({"model": "a/b", "messages": [{"role": "user", "content": "hi"}], **members}).encode()


def event(chunk: object) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def data(repaired: bytes | None) -> Any:
    assert repaired is not None
    assert repaired.startswith(b"data: ")
    assert repaired.endswith(b"\n\n")
    return json.loads(repaired[6:])


# Requests


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "the body: expected `object`"),
        (b'{"model":"a/b"}', "messages"),
        (request(model=1), "model: expected `str | null`"),
        (request(model=""), "model: name a model"),
        (b'{"messages":[{"content":"x"}]}', "model: name a model"),
        (request(models="a/b"), "models"),
        (request(messages=[]), "messages: the list is empty"),
        (request(messages="hi"), "messages"),
        (request(messages=["hi"]), "messages"),
        (request(messages=[{"content": 1}]), "content"),
        (request(messages=[{"content": ["hi"]}]), "content"),
        (request(stream="yes"), "stream"),
        (request(max_tokens="10"), "max_tokens"),
        (request(max_tokens=0), "max_tokens"),
        (request(max_completion_tokens=-1), "max_completion_tokens"),
        (request(n=0), "n:"),
        (request(n=1000), "n:"),
    ],
)
def test_a_wrong_request_is_told_which_field_is_wrong(body: bytes, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        chat.read(body)
    assert refused.value.status == 400
    assert said in refused.value.message


def test_what_farebox_does_not_need_passes_untouched() -> None:
    body = b'{ "zebra":1e400,"model":"a/b", "messages":[{"content":"\\u00e9"}],"provider":{"order":["x"]},"x":[ ]}'
    assert read_order(body, chat, BUILT_IN["paying"]).body == body


def test_a_legacy_prompt_stands_for_messages() -> None:
    assert chat.read(b'{"model":"a/b","prompt":"hi"}').models == ("a/b",)


def test_every_model_that_may_serve_is_read() -> None:
    assert chat.read(request(models=["c/d", "e/f"])).models == ("a/b", "c/d", "e/f")


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {"max_tokens": 2048}),
        ({"max_tokens": None}, {"max_tokens": 2048}),
        ({"max_tokens": 9000}, {"max_tokens": 2048}),
        ({"max_tokens": 100}, {"max_tokens": 100}),
        ({"max_completion_tokens": 9000}, {"max_completion_tokens": 2048}),
        ({"max_completion_tokens": 100}, {"max_completion_tokens": 100}),
        ({"max_tokens": 100, "max_completion_tokens": 9000}, {"max_tokens": 100, "max_completion_tokens": 2048}),
    ],
)
def test_a_free_callers_answer_is_capped(asked: dict[str, Any], sent: dict[str, int]) -> None:
    order = read_order(request(**asked), chat, BUILT_IN["free"])
    assert order.asked.answer_tokens == order.answer_tokens, "what is asked of an upstream is what it gets"
    body = json.loads(order.body)
    assert {name: body[name] for name in chat.CAPS if name in body} == sent


def test_capping_changes_the_cap_alone() -> None:
    body = b'{"model":"a/b","temperature":0.10000,"max_tokens":9000,"messages":[{"role":"user","content":"\\u00e9 "}]}'
    assert chat.capped(body, 5) == body.replace(b"9000", b"5")


def test_a_body_under_its_cap_is_forwarded_byte_for_byte() -> None:
    body = b'{"model": "a/b",  "max_tokens": 10, "messages": [{"content": "x"}]}'
    assert read_order(body, chat, BUILT_IN["free"]).body is body


def test_tools_bring_instructions_along() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = request(tools=tools)
    assert chat.read(body).prompt_bytes == len(body) + TOOL_PROMPT_TOKENS
    assert chat.read(request()).prompt_bytes == len(request())


def test_a_model_outside_the_plan_is_refused() -> None:
    plan = Plan("small", 10_000, models=("a/*",))
    with pytest.raises(Refusal) as refused:
        read_order(request(models=["c/d"]), chat, plan)
    assert refused.value.status == 403


def test_pictures_are_bounded_by_number_and_not_by_their_bytes() -> None:
    url = "data:image/png;base64," + "A" * 100_000
    parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]
    asked = chat.read(request(messages=[{"role": "user", "content": parts}]))
    assert asked.images == 1
    assert asked.prompt_bytes < 300
    assert not asked.prompt_is_open
    painted = {"role": "assistant", "content": "here", "images": [{"type": "image_url", "image_url": {"url": url}}] * 2}
    asked = chat.read(request(messages=[painted, {"role": "user", "content": "another"}]))
    assert (asked.images, asked.prompt_bytes < 500, asked.prompt_is_open) == (2, True, False)


@pytest.mark.parametrize(
    "members",
    [
        {"messages": [{"content": [{"type": "file", "file": {"file_data": "https://x"}}]}]},
        {"messages": [{"content": [{"type": "nobody knows"}]}]},
        {"messages": [{"role": "assistant", "content": None, "audio": {"id": "audio_1"}}]},
        {"plugins": [{"id": "web-fetch"}]},
        {"tools": [{"type": "openrouter:web_fetch"}]},
    ],
)
def test_what_may_fill_the_context_leaves_the_prompt_open(members: dict[str, Any]) -> None:
    assert chat.read(request(**members)).prompt_is_open


# Answers


def test_a_chunk_that_needs_nothing_is_left_alone() -> None:
    assert chat.see_event(event(CHUNK), PROGRESS) is PASS


@pytest.mark.parametrize("text", [b": OPENROUTER PROCESSING\n\n", b"data: [DONE]\n\n", b"\n", b": a\r\n: b\r\n\r\n"])
def test_comments_and_the_end_are_left_alone(text: bytes) -> None:
    assert chat.see_event(text, PROGRESS) is PASS


@pytest.mark.parametrize(
    "where", [{"choices": []}, {"choices": [{"index": 0, "delta": {}, "finish_reason": None}]}, {}]
)
def test_usage_is_read_from_whichever_event_carries_it(where: dict[str, Any]) -> None:
    seen = chat.see_event(event({**CHUNK, **where, "usage": USAGE}), PROGRESS)
    assert seen.cost == Cost(Decimal("0.0001"))
    assert (seen.prompt_tokens, seen.answer_tokens) == (1, 2)
    assert seen.repaired is None


def with_choice(**members: Any) -> dict[str, Any]:
    return {**CHUNK, "choices": [{**CHUNK["choices"][0], **members}]}


def without(name: str, chunk: dict[str, Any] = CHUNK) -> dict[str, Any]:
    return {key: value for key, value in chunk.items() if key != name}


@pytest.mark.parametrize(
    "chunk",
    [
        {**CHUNK, "system_fingerprint": None},
        with_choice(delta={"role": "", "content": "x"}),
        with_choice(delta={"role": None, "content": "x"}),
        with_choice(delta={"content": "x", "tool_calls": None}),
        with_choice(delta={"content": "x", "reasoning_details": None}),
        with_choice(delta={"tool_calls": [{"function": {"name": "f"}}]}),
        {**CHUNK, "usage": None},
        {**CHUNK, "choices": [without("finish_reason", CHUNK["choices"][0])]},
        {**CHUNK, "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},
        {**CHUNK, "choices": [without("index", CHUNK["choices"][0])]},
        {**CHUNK, "choices": [without("delta", CHUNK["choices"][0])]},
        {**without("choices"), "usage": USAGE},
        {**CHUNK, "choices": None, "usage": USAGE},
        without("object"),
        without("id"),
        {**CHUNK, "created": 1.5},
        {**CHUNK, "usage": {**USAGE, "is_byok": None}},
        {**CHUNK, "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": None}}},
        {**CHUNK, "usage": {**USAGE, "cost_details": {"upstream_inference_cost": 0.1}}},
        {**CHUNK, "error": {"code": "server_error", "message": "m"}},
        {**CHUNK, "error": {"code": 502, "message": "m", "metadata": {"raw": "x"}}},
        {"error": {"code": 402, "message": "m", "metadata": {}}, "user_id": "u"},
        {"error": "went wrong"},
    ],
)
def test_a_chunk_that_strict_sdks_choke_on_is_repaired(chunk: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        assert_accepted("ChatStreamChunk", chunk)
    repaired = data(chat.see_event(event(chunk), PROGRESS).repaired)
    assert_accepted("ChatStreamChunk", repaired)
    assert ("error" in repaired) == ("error" in chunk)


def test_a_repair_keeps_every_number_to_the_letter() -> None:
    text = json.dumps({**CHUNK, "system_fingerprint": None, "usage": USAGE}).replace("0.0001", "7.10e-05")
    seen = chat.see_event(b"data: " + text.encode() + b"\n\n", PROGRESS)
    assert seen.cost == Cost(Decimal("0.000071"))
    assert seen.repaired
    assert b"7.10e-05" in seen.repaired


def test_a_bare_error_keeps_its_code_and_message() -> None:
    seen = chat.see_event(event({"error": {"code": 429, "message": "too many"}}), PROGRESS)
    repaired = data(seen.repaired)
    assert (repaired["id"], repaired["error"]["code"], repaired["error"]["message"]) == ("gen-1", 429, "too many")
    assert repaired["choices"][0]["finish_reason"] == "error"


TYPED = {"code": 402, "message": "no credits", "metadata": {"error_type": "payment_required"}}
FLAGGED = {"code": 403, "message": "flagged", "metadata": {"error_type": "permission_denied", "reasons": ["violence"]}}


def test_an_error_about_the_operators_account_is_not_told_as_one_of_the_callers() -> None:
    for error in (TYPED, {"code": "insufficient_quota", "message": "no credits"}):
        for told in ({"error": error}, {**CHUNK, "error": error}):
            repaired = data(chat.see_event(event(told), PROGRESS).repaired)
            assert_accepted("ChatStreamChunk", repaired)
            assert repaired["error"]["code"] == 502
            assert "nothing is wrong with your key" in repaired["error"]["message"]
            assert b"credits" not in json.dumps(repaired).encode()
    # What is about the order is the caller's to mend.
    assert chat.see_event(event({**CHUNK, "error": FLAGGED}), PROGRESS).repaired is None
    failure = chat.see_answer(json.dumps({"error": TYPED}).encode()).failure
    assert failure is not None
    assert "credits" not in failure.message


@pytest.mark.parametrize("text", [b"data:\n\n", b"data: : OPENROUTER PROCESSING\n\n", b"retry: 3000\n\n", b"id: 7\n\n"])
def test_what_is_no_chunk_becomes_a_comment(text: bytes) -> None:
    repaired = chat.see_event(text, PROGRESS).repaired
    assert repaired
    assert repaired.startswith(b":")
    assert repaired.count(b"\n") == 2


def call(call_id: str | None = None, **members: Any) -> dict[str, Any]:
    return {**({} if call_id is None else {"id": call_id}), "function": {"name": "f", "arguments": ""}, **members}


NULL: dict[str, Any] = {"index": None}


@pytest.mark.parametrize("absent", [{}, NULL])
@pytest.mark.parametrize(
    ("calls", "numbers"),
    [
        # One call a chunk, in parallel.
        ([[call("a")], [call("b")], [call("a")], [call("b")]], [[0], [1], [0], [1]]),
        # Only a call's first chunk names it.
        ([[call("a")], [call()], [call("b")], [call()], [call()]], [[0], [0], [1], [1], [1]]),
        ([[call("a")], [call("")], [call("b")], [call("")]], [[0], [0], [1], [1]]),
        # Only a call's first chunk numbers it.
        ([[call("a", index=0)], [call("b", index=1)], [call()], [call("a")]], [[0], [1], [1], [0]]),
        ([[call("a", index=3)], [call("b")]], [[3], [4]]),
        # Several in a chunk, with ids and without.
        ([[call("a"), call("b")], [call("b"), call("a")]], [[0, 1], [1, 0]]),
        ([[call(), call()], [call(), call()]], [[0, 1], [0, 1]]),
    ],
)
def test_a_tool_calls_number_is_the_streams(
    absent: dict[str, Any], calls: list[list[dict[str, Any]]], numbers: list[list[int]]
) -> None:
    meter = Meter(chat, Progress("gen-1", "a/b", 1))
    for told, expected in zip(calls, numbers, strict=True):
        for choice in (0, 1):  # each counts for itself
            named = [{**each, **({"id": f"{choice}{each['id']}"} if each.get("id") else {})} for each in told]
            chunk = with_choice(index=choice, delta={"tool_calls": [{**absent, **each} for each in named]})
            after = data(meter.feed(event(chunk)))
            assert [each["index"] for each in after["choices"][0]["delta"]["tool_calls"]] == expected
            assert_accepted("ChatStreamChunk", after)


def test_a_choice_without_its_number_gets_its_place() -> None:
    for absent in ({}, NULL):
        choices = [{**without("index", CHUNK["choices"][0]), **absent} for _ in range(2)]
        repaired = data(chat.see_event(event({**CHUNK, "choices": choices}), PROGRESS).repaired)
        assert [choice["index"] for choice in repaired["choices"]] == [0, 1]
        whole = [{**without("index", ANSWER["choices"][0]), **absent}]
        answered = chat.see_answer(json.dumps({**ANSWER, "choices": whole}).encode()).repaired
        assert answered
        assert json.loads(answered)["choices"][0]["index"] == 0


@pytest.mark.parametrize("cost", ["0.0001", "1.20E-4", "0"])
def test_a_cost_written_as_text_becomes_its_number(cost: str) -> None:
    usage = {**USAGE, "cost": cost, "is_byok": False, "cost_details": {"upstream_inference_cost": "7.0e-5"}}
    chunk = event({**CHUNK, "usage": usage})
    for seen in (
        chat.see_event(chunk, PROGRESS),
        chat.see_answer(json.dumps({**ANSWER, "usage": usage}).encode()),
    ):
        assert seen.cost == Cost(Decimal(cost))
        assert seen.repaired
        assert b'"cost":%b,' % cost.encode() in seen.repaired
        assert b'"upstream_inference_cost":7.0e-5' in seen.repaired
    assert_accepted("ChatStreamChunk", data(chat.see_event(chunk, PROGRESS).repaired))


@pytest.mark.parametrize(("cost", "number"), [(".5", b"0.5"), ("+1", b"1")])
def test_a_text_that_json_would_not_write_is_the_same_amount(cost: str, number: bytes) -> None:
    seen = chat.see_event(event({**CHUNK, "usage": {**USAGE, "cost": cost}}), PROGRESS)
    assert seen.repaired
    assert b'"cost":%b}' % number in seen.repaired


@pytest.mark.parametrize("cost", ["free", "NaN", "-1", "1e999"])
def test_a_text_that_is_no_amount_is_left_and_unknown(cost: str) -> None:
    told = event({**CHUNK, "usage": {**USAGE, "cost": cost}})
    seen = chat.see_event(told, PROGRESS)
    assert isinstance(seen.cost, Unknown)
    assert json.dumps(cost).encode() in (seen.repaired or told)


@pytest.mark.parametrize("error", [{"code": 502, "message": "m"}, "boom", {"code": "server_error", "message": "m"}])
@pytest.mark.parametrize("head", [CHUNK, {}])
def test_an_error_hides_no_cost(error: Any, head: dict[str, Any]) -> None:
    seen = chat.see_event(event({**head, "error": error, "usage": USAGE}), PROGRESS)
    assert seen.cost == Cost(Decimal("0.0001"))
    assert json.loads((seen.repaired or event({**head, "error": error}))[6:])["error"]
    whole = chat.see_answer(json.dumps({**(ANSWER if head else {}), "error": error, "usage": USAGE}).encode())
    assert whole.cost == Cost(Decimal("0.0001"))
    assert (whole.failure is None) == bool(head)


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        (b'{"usage":{"cost":0.0001},"choices":[{"delta":{"content":"\\q"}}]}', "0.0001"),
        (b'{"choices":[{"delta":{"content":"\\q"}}],"usage":{"cost":0.0001}}', "0.0001"),
        (b'{"usage":{"cost":0.0001},"choices":[', "0.0001"),
        (b'{"choices":[{"message":{"content":"x","usage":{"cost":0}', None),
        (b'{"choices":[],"usage":{"cost":0.000', None),
    ],
)
def test_what_nobody_reads_is_an_error_and_its_cost_is_read_where_it_stands(text: bytes, cost: str | None) -> None:
    expected = None if cost is None else Cost(Decimal(cost))
    seen = chat.see_event(b"data: " + text + b"\n\n", PROGRESS)
    assert data(seen.repaired)["error"]["code"] == 502
    assert seen.cost == expected
    whole = chat.see_answer(text)
    assert whole.failure is not None
    assert whole.cost == expected


def test_an_event_that_is_not_json_becomes_an_error() -> None:
    repaired = data(chat.see_event(b"data: <html>\n\n", PROGRESS).repaired)
    assert_accepted("ChatStreamChunk", repaired)
    assert repaired["error"]["code"] == 502


def test_an_error_of_ours_reads_as_part_of_the_stream() -> None:
    assert_accepted("ChatStreamChunk", data(chat.error_event(broken("it broke"), PROGRESS)))


ANSWER: dict[str, Any] = {
    "id": "gen-1",
    "object": "chat.completion",
    "created": 1,
    "model": "a/b",
    "system_fingerprint": None,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": USAGE,
}


@pytest.mark.parametrize(
    "before", [b"", b"\n\n\n", b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n", b" \r\n: c\r\n"]
)
def test_a_whole_answer_is_read_behind_blank_lines_and_comments(before: bytes) -> None:
    body = before + json.dumps(ANSWER).encode()
    seen = chat.see_answer(body)
    assert seen.cost == Cost(Decimal("0.0001"))
    assert json.loads(body if seen.repaired is None else seen.repaired) == ANSWER
    assert (seen.repaired is None) == (b":" not in before)


@pytest.mark.parametrize("usage", [None, {}, {"cost": None}])
def test_a_whole_answer_without_a_cost_is_unknown(usage: Any) -> None:
    cost = chat.see_answer(json.dumps({**ANSWER, "usage": usage}).encode()).cost
    assert cost is None or isinstance(cost, Unknown)


@pytest.mark.parametrize(
    ("usage", "mended"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2}, {"total_tokens": 3}),
        ({"prompt_tokens": 1}, {"completion_tokens": 0, "is_unknown": True, "total_tokens": 1}),
        ({"cost": 0.0001}, {"prompt_tokens": 0, "completion_tokens": 0, "is_unknown": True, "total_tokens": 0}),
    ],
)
def test_counts_that_only_sdks_want_are_marked_as_not_known(usage: Any, mended: Any) -> None:
    """Nor do the books take them for counts."""
    whole = chat.see_answer(json.dumps({**ANSWER, "usage": usage}).encode())
    streamed = chat.see_event(event({**CHUNK, "usage": usage}), PROGRESS)
    assert json.loads(whole.repaired or b"")["usage"] == data(streamed.repaired)["usage"] == {**usage, **mended}
    told = (None, None) if "is_unknown" in mended else (1, 2)
    assert (whole.prompt_tokens, whole.answer_tokens) == (streamed.prompt_tokens, streamed.answer_tokens) == told


def test_a_whole_answer_without_a_message_gets_an_empty_one() -> None:
    repaired = chat.see_answer(json.dumps({**ANSWER, "choices": [{"index": 0, "message": None}]}).encode()).repaired
    assert repaired
    assert_accepted("ChatResult", json.loads(repaired))


@pytest.mark.parametrize("name", ["system_fingerprint", "object", "usage"])
def test_a_whole_answer_gets_the_keys_that_sdks_demand(name: str) -> None:
    answer = without(name, ANSWER) if name != "usage" else {**ANSWER, "usage": None}
    repaired = chat.see_answer(json.dumps(answer).encode()).repaired
    assert repaired
    assert_accepted("ChatResult", json.loads(repaired))


@pytest.mark.parametrize("body", [b"<!DOCTYPE html>", b"", b"null", b"[]", b'{"error":{"message":"late"}}'])
def test_what_is_no_answer_is_a_failure_that_nobody_retries(body: bytes) -> None:
    failure = chat.see_answer(body).failure
    assert failure is not None
    assert failure.status == 424


# The meter


def play(stream: bytes, cuts: list[int]) -> tuple[bytes, Meter]:
    meter = Meter(chat, PROGRESS)
    at = sorted({cut % (len(stream) + 1) for cut in cuts})
    sent = b"".join(meter.feed(stream[a:b]) for a, b in zip([0, *at], [*at, len(stream)], strict=True))
    return sent + meter.finish(), meter


STREAM = (
    b": OPENROUTER PROCESSING\n\n"
    + event(CHUNK)
    + event({**CHUNK, "choices": [{"index": 0, "delta": {"content": "\u2028\n\n"}, "finish_reason": "stop"}]})
    + event({**CHUNK, "choices": [], "usage": USAGE})
    + b"data: [DONE]\n\n"
)


@given(st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(min_value=0), max_size=20))
def test_any_split_gives_the_same_bytes_and_the_same_verdict(end: bytes, cuts: list[int]) -> None:
    stream = STREAM.replace(b"\n", end)
    sent, meter = play(stream, cuts)
    assert sent == stream
    assert meter.verdict("") == Cost(Decimal("0.0001"))


@pytest.mark.parametrize("cut", range(1, 3))
def test_a_last_event_without_its_empty_line_is_metered_and_completed(cut: int) -> None:
    stream = STREAM.removesuffix(b"data: [DONE]\n\n")
    sent, meter = play(stream[:-cut], [])
    assert sent == stream
    assert meter.verdict("") == Cost(Decimal("0.0001"))


def test_reading_goes_on_after_the_finish_and_the_last_cost_counts() -> None:
    more = {**USAGE, "cost": 0.0002}
    _, meter = play(STREAM + event({**CHUNK, "choices": [], "usage": more}), [])
    assert meter.verdict("") == Cost(Decimal("0.0002"))


def test_a_stream_without_usage_is_unknown() -> None:
    _, meter = play(event(CHUNK) + b"data: [DONE]\n\n", [])
    assert meter.verdict("it did not say") == Unknown("it did not say")


# Anything at all

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CHUNK, "usage", "error", "cost"]), inner)
    ),
    max_leaves=12,
)
near_chunks = st.dictionaries(st.sampled_from([*CHUNK, "usage", "error"]), json_values).map(
    lambda some: {**CHUNK, **some}
)
near_requests = st.dictionaries(
    st.sampled_from(["model", "models", "messages", "max_tokens", "n", "stream", "tools", "plugins"]), json_values
).map(lambda some: {"model": "a/b", "messages": [{"content": "x"}], **some})
texts = st.one_of(
    st.binary(max_size=200), st.one_of(near_chunks, near_requests, json_values).map(lambda v: json.dumps(v).encode())
)


def order_of(body: bytes) -> Order | Refusal:
    try:
        return read_order(body, chat, BUILT_IN["free"])
    except Refusal as refusal:
        return refusal


@given(texts)
def test_no_request_does_worse_than_be_refused(body: bytes) -> None:
    match order_of(body):
        case Refusal() as refusal:
            assert refusal.status == 400
        case order:
            assert order.answer_tokens is not None
            assert order.answer_tokens <= 2048
            assert chat.read(order.body).answer_tokens == order.answer_tokens


@given(texts)
def test_no_answer_does_worse_than_be_a_failure(body: bytes) -> None:
    seen = chat.see_answer(body)
    assert seen.failure is None or seen.failure.status == 424


@given(st.one_of(texts, texts.map(lambda text: b"data: " + text.replace(b"\n", b" ") + b"\n\n")))
def test_no_event_breaks_the_meter_and_what_is_repaired_is_accepted(text: bytes) -> None:
    seen = chat.see_event(text, PROGRESS)
    if seen.repaired is not None and seen.repaired.startswith(b"data: "):
        assert_accepted("ChatStreamChunk", data(seen.repaired))


@pytest.mark.parametrize("created", ["1e999999999", "1e400", "-1E+99999", "NaN", '"1"', "null", "1.5"])
def test_a_number_that_would_fill_the_memory_is_not_made_whole(created: str) -> None:
    told = event({**CHUNK, "system_fingerprint": None}).replace(b'"created": 1', b'"created": ' + created.encode())
    seen = chat.see_event(told, PROGRESS)
    assert data(seen.repaired)["created"] in (1, PROGRESS.created)


def test_a_name_that_is_no_utf_8_breaks_nothing() -> None:
    body = request()[:-1] + b',"\xff":1}'
    assert chat.read(body).models == chat.read(request()).models
    assert chat.see_event(b'data: {"\xff":1}\n\n', PROGRESS).repaired is not None
    assert chat.see_answer(b'{"\xff":1}').failure is not None
