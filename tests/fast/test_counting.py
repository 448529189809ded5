"""What answers of each format used, read strictly, and what the meter makes of it with a tariff."""

import json
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.formats import Format, Progress, chat, embeddings, messages, responses
from farebox.core.formats.counting import Wrong, strictly
from farebox.core.meter import Meter
from farebox.core.tariffs import FREE, Entry, Tariff, Tariffs, TokenPrices
from farebox.core.usage import ANSWER_KINDS, KINDS, PROMPT_KINDS, Cost, Unknown, Usage

PRICES = TokenPrices(**{kind: Decimal(place + 1).scaleb(-6) for place, kind in enumerate(KINDS)})


def tariff(prices: TokenPrices = PRICES, **more: Any) -> Tariff:
    found = Tariffs([Entry(upstream="u", model="m", prices=prices, **more)]).find("u", "m", 7)
    assert found is not None
    return found


TARIFF = tariff()


def meter(wire: Format = chat, priced: Tariff | None = TARIFF) -> Meter:
    return Meter(wire, Progress("", "m", 1), priced)


class Pairs(list[tuple[str, Any]]):
    """An object whose names may stand in it twice."""


def written(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}: {written(each)}" for name, each in value) + "}"
    return "[" + ",".join(map(written, value)) + "]" if isinstance(value, list) else json.dumps(value)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and repr(found[name]) != repr(value):
            raise ValueError(name)
        found[name] = value
    return found


def event(data: object, name: str = "") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def whole(wire: Format, usage: object, **more: Any) -> Usage | Unknown | None:
    """What a whole answer with this usage used."""
    return counted_body(wire, json.dumps({**BODIES[wire.counting], "usage": usage, **more}).encode())


def counted_body(wire: Format, body: bytes) -> Usage | Unknown | None:
    counting = wire.counting()
    counting.see_answer(body)
    return counting.usage()


def reason(told: Usage | Unknown | None) -> str:
    assert isinstance(told, Unknown), told
    return told.reason


CHAT_BODY = {
    "id": "gen-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "system_fingerprint": None,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '"usage": 9'}}],
}
MESSAGE = {
    "id": "msg-1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": "end_turn",
}
RESPONSE = {"id": "resp-1", "object": "response", "model": "m", "output": [{"type": "message", "content": []}]}
VECTORS = {"object": "list", "model": "m", "data": [{"object": "embedding", "embedding": [0.5], "index": 0}]}
BODIES: dict[object, Any] = {
    chat.counting: CHAT_BODY,
    messages.counting: MESSAGE,
    responses.counting: RESPONSE,
    embeddings.counting: VECTORS,
}


@pytest.mark.parametrize(
    ("wire", "usage", "used"),
    [
        (chat, {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}, Usage(prompt=9, answer=4)),
        (
            chat,
            {
                "prompt_tokens": 90,
                "completion_tokens": 40,
                "prompt_tokens_details": {"cached_tokens": 50, "audio_tokens": 0, "cache_write_tokens": 10},
                "completion_tokens_details": {
                    "reasoning_tokens": 30,
                    "audio_tokens": 4,
                    "accepted_prediction_tokens": 2,
                    "rejected_prediction_tokens": 3,
                },
            },
            Usage(prompt=30, cache_read=50, cache_write=10, answer=6, reasoning=30, audio_out=4),
        ),
        (
            chat,
            {
                "prompt_tokens": 90,
                "completion_tokens": 4,
                "prompt_tokens_details": {"audio_tokens": 60, "text_tokens": 30, "cached_tokens": 5},
            },
            Usage(prompt=25, cache_read=5, audio_in=60, answer=4, is_mixed=True),
        ),
        # DeepSeek; and what others add that is no count of tokens.
        (
            chat,
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "prompt_cache_hit_tokens": 8,
                "prompt_cache_miss_tokens": 1,
                "prompt_tokens_details": None,
                "cost": 5,
                "total_time": 0.3,
            },
            Usage(prompt=1, cache_read=8, answer=4),
        ),
        (embeddings, {"prompt_tokens": 9, "total_tokens": 9}, Usage(prompt=9)),
        (
            messages,
            {
                "input_tokens": 9,
                "output_tokens": 4,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
                "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
                "output_tokens_details": {"thinking_tokens": 3},
                "service_tier": "standard",
                "inference_geo": "not_available",
                "iterations": [{"type": "message", "input_tokens": 9}],
            },
            Usage(prompt=9, cache_read=100, cache_write=10, cache_write_1h=20, answer=4, search=2),
        ),
        (
            responses,
            {
                "input_tokens": 90,
                "input_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 0},
                "output_tokens": 40,
                "output_tokens_details": {"reasoning_tokens": 30},
                "total_tokens": 130,
            },
            Usage(prompt=10, cache_read=80, answer=10, reasoning=30),
        ),
    ],
)
def test_each_token_is_counted_once(wire: Format, usage: Any, used: Usage) -> None:
    assert whole(wire, usage) == used


@pytest.mark.parametrize(
    ("wire", "more", "terms"),
    [
        (chat, {"service_tier": "flex"}, "flex"),
        (chat, {"service_tier": "default"}, ""),
        (responses, {"service_tier": "priority"}, "priority"),
    ],
)
def test_terms_other_than_the_usual_are_told(wire: Format, more: Any, terms: str) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "input_tokens": 1, "output_tokens": 1}
    kept = {name: n for name, n in usage.items() if (name[0] in "io") == (wire is responses)}
    used = whole(wire, kept, **more)
    assert isinstance(used, Usage)
    assert used.terms == terms


def test_a_messages_terms_stand_in_its_usage() -> None:
    fast = {"input_tokens": 1, "output_tokens": 1, "service_tier": "priority", "speed": "fast", "inference_geo": "us"}
    used = whole(messages, fast)
    assert isinstance(used, Usage)
    assert used.terms == "priority+fast+us"


P, A = "prompt_tokens", "completion_tokens"


@pytest.mark.parametrize(
    ("wire", "usage", "said"),
    [
        (chat, {P: 9}, "`completion_tokens` is missing"),
        (chat, {P: None, A: 1}, "`prompt_tokens` is missing"),
        (chat, {P: -1, A: 1}, "`prompt_tokens` is negative"),
        (chat, {P: 1.0, A: 1}, "`prompt_tokens` is no whole number"),
        (chat, {P: "1", A: 1}, "`prompt_tokens` is no whole number"),
        (chat, {P: True, A: 1}, "`prompt_tokens` is no whole number"),
        (chat, {P: 10**10, A: 1}, "`prompt_tokens` is more than any answer uses"),
        (chat, {P: 1, A: 1, "total_tokens": 5}, "`total_tokens` is 5, prompt and answer are 1 and 1"),
        (chat, {P: 1, A: 1, "prompt_tokens_details": {"cached_tokens": 2}}, "the parts of `prompt_tokens` are larger"),
        (chat, {P: 1, A: 1, "completion_tokens_details": {"reasoning_tokens": 2}}, "the parts of `completion_tokens`"),
        (chat, {P: 1, A: 1, "completion_tokens_details": {"text_tokens": 2}}, "the parts of `completion_tokens`"),
        (chat, {P: 1, A: 1, "prompt_tokens_details": []}, "`prompt_tokens_details` is no object"),
        (chat, {P: 1, A: 1, "prompt_tokens_details": {"video_tokens": 1}}, "`prompt_tokens_details.video_tokens`"),
        (chat, {P: 1, A: 1, "thoughts_tokens": 1}, "it counts `thoughts_tokens`, which is not known here"),
        (chat, {P: 9, A: 1, "prompt_cache_hit_tokens": 3, "cached_tokens": 4}, "it says 3 and 4 of the same tokens"),
        (chat, {P: 9, A: 1, "prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 4}, "`prompt_cache_miss_tokens`"),
        (chat, [], "`usage` is no object"),
        (chat, "none", "`usage` is no object"),
        (embeddings, {P: 9, "total_tokens": 10}, "`total_tokens` is 10"),
        (embeddings, {"total_tokens": 10}, "`prompt_tokens` is missing"),
        (messages, {"input_tokens": 1}, "`output_tokens` is missing"),
        (
            messages,
            {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 5},
            "does not say for how long",
        ),
        (
            messages,
            {
                "input_tokens": 1,
                "output_tokens": 1,
                "cache_creation_input_tokens": 5,
                "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
            },
            "`cache_creation_input_tokens` is 5, its parts are 1 and 2",
        ),
        (
            messages,
            {"input_tokens": 1, "output_tokens": 1, "cache_creation": {"ephemeral_2h_input_tokens": 2}},
            "`cache_creation.ephemeral_2h_input_tokens`",
        ),
        (
            messages,
            {"input_tokens": 1, "output_tokens": 1, "server_tool_use": {"code_execution_requests": 1}},
            "`server_tool_use.code_execution_requests`",
        ),
        (messages, {"input_tokens": 1, "output_tokens": 1, "iterations": [{"type": "compaction"}]}, "a `compaction`"),
        (messages, {"input_tokens": 1, "output_tokens": 1, "fallback_credit": {}}, "`fallback_credit`"),
        (messages, {"input_tokens": 1, "output_tokens": 1, "speed": 7}, "terms that are not readable"),
        (messages, {"input_tokens": 1, "output_tokens": 1, "output_tokens_details": {"thinking_tokens": 2}}, "larger"),
        (responses, {"input_tokens": 1}, "`output_tokens` is missing"),
        (responses, {"input_tokens": 1, "output_tokens": 1, "total_tokens": 9}, "`total_tokens` is 9"),
        (
            responses,
            {
                "input_tokens": 1,
                "output_tokens": 1,
                "input_tokens_details": {"cache_write_tokens_details": {"ttl_12h_tokens": 1}},
            },
            "for 12 hours",
        ),
    ],
)
def test_what_cannot_be_right_is_unknown_with_a_reason(wire: Format, usage: Any, said: str) -> None:
    assert said in reason(whole(wire, usage))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"usage":{"prompt_tokens":1,"prompt_tokens":2,"completion_tokens":1}}', "`prompt_tokens` stands in it twice"),
        (
            '{"usage":{"prompt_tokens":1,"completion_tokens":1},"usage":{"prompt_tokens":2}}',
            "`usage` stands in it twice",
        ),
        ('{"usage":{"prompt_tokens":1' + "0" * 5000 + ',"completion_tokens":1}}', "is no whole number"),
        ('{"usage":{"prompt_tokens":NaN,"completion_tokens":1}}', "is no whole number"),
        ('{"usage":{"prompt_tokens":1e3,"completion_tokens":1}}', "is no whole number"),
        ('{"usage":{"prompt_tokens":1,"completion', "no JSON object"),
        ("<html>", "no JSON object"),
        ('{"usage":' + "[" * 100_000 + "]" * 100_000 + "}", "cannot be charged"),
    ],
)
def test_what_is_told_twice_or_is_no_json_is_unknown(text: str, said: str) -> None:
    assert said in reason(counted_body(chat, text.encode()))


_PLAIN = st.none() | st.booleans() | st.integers(-3, 10**18) | st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.recursive(
    _PLAIN | st.text('":,a', max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(st.sampled_from("ab:"), inner), max_size=3).map(Pairs)
    ),
    max_leaves=6,
)


@given(_VALUES)
def test_a_name_that_stands_twice_is_seen_wherever_it_stands(value: Any) -> None:
    text = written(value)
    try:
        expected = json.loads(text, object_pairs_hook=once)
    except ValueError:
        with pytest.raises(Wrong, match="stands in it twice"):
            strictly(text.encode())
    else:
        assert repr(strictly(text.encode())) == repr(expected)


def test_what_is_told_twice_and_the_same_is_told() -> None:
    usage = '{"prompt_tokens":1,"completion_tokens":2,"completion_tokens":2}'
    assert counted_body(chat, f' \n{{"usage":{usage},"usage":{usage}}}'.encode()) == Usage(prompt=1, answer=2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_token_of_the_prompt_or_of_the_answer(kind: str) -> None:
    used = Usage(**{kind: 5})  # type: ignore[arg-type]
    assert (used.prompt_tokens, used.answer_tokens) == (5 * (kind in PROMPT_KINDS), 5 * (kind in ANSWER_KINDS))


@pytest.mark.parametrize("wire", [chat, messages, responses, embeddings])
def test_without_a_usage_nothing_is_told(wire: Format) -> None:
    assert whole(wire, None) is None
    body = json.dumps(BODIES[wire.counting]).encode()
    assert counted_body(wire, body) is None


@pytest.mark.parametrize(
    ("kind", "searches"),
    [("web_search_call", 1), ("function_call", 0), ("reasoning", 0), ("image_generation_call", None)],
)
def test_tools_that_the_upstream_runs_are_searches_or_unknown(kind: str, searches: int | None) -> None:
    used = whole(responses, {"input_tokens": 1, "output_tokens": 1}, output=[{"type": kind}, {"type": "message"}])
    if searches is None:
        assert f"a `{kind}`, which is billed apart" in reason(used)
    else:
        assert used == Usage(prompt=1, answer=1, search=searches)


# Streams

TOKEN = {
    **CHAT_BODY,
    "object": "chat.completion.chunk",
    "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}],
}
CHAT_USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
DONE = b"data: [DONE]\n\n"
SO_FAR = {**CHAT_USAGE, "completion_tokens": 2, "total_tokens": 11}
CHAT_COST = TARIFF.cost(Usage(prompt=9, answer=4))


def chunk(usage: Any = None, choices: Any = None, **more: Any) -> bytes:
    shown = {**TOKEN, "usage": usage, **more}
    return event(shown if choices is None else {**shown, "choices": choices})


LAST = chunk(CHAT_USAGE, [])
START = {"type": "message_start", "message": {**MESSAGE, "stop_reason": None}}
START_USAGE = {
    "input_tokens": 9,
    "output_tokens": 1,
    "cache_creation_input_tokens": 3,
    "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
    "service_tier": "standard",
}


def start(usage: Any = START_USAGE) -> bytes:
    return event({**START, "message": {**MESSAGE, "usage": usage}}, "message_start")


def delta(usage: Any, stop: str | None = "end_turn") -> bytes:
    return event({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage}, "message_delta")


SAID = event(
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": '"message_stop"'}},
    "content_block_delta",
)
STOP = event({"type": "message_stop"}, "message_stop")
RESPONSE_USAGE = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}


def ended(usage: Any = RESPONSE_USAGE, name: str = "response.completed") -> bytes:
    return event({"type": name, "sequence_number": 9, "response": {**RESPONSE, "usage": usage}}, name)


BEGUN = event(
    {"type": "response.created", "sequence_number": 0, "response": {**RESPONSE, "usage": SO_FAR}}, "response.created"
)


@pytest.mark.parametrize(
    ("wire", "events", "used"),
    [
        (chat, [chunk(), LAST, DONE], Usage(prompt=9, answer=4)),
        (chat, [chunk(), LAST], Usage(prompt=9, answer=4)),
        # Counts so far in every chunk, and the usage where others have their last choice.
        (chat, [chunk(SO_FAR), chunk(CHAT_USAGE), LAST, DONE], Usage(prompt=9, answer=4)),
        (chat, [chunk(), chunk(CHAT_USAGE), DONE], Usage(prompt=9, answer=4)),
        (chat, [chunk(), LAST, LAST, DONE], Usage(prompt=9, answer=4)),
        (chat, [chunk(), chunk(CHAT_USAGE, [], service_tier="flex"), DONE], Usage(prompt=9, answer=4, terms="flex")),
        # Broken off, or without an end.
        (chat, [chunk()], None),
        (chat, [chunk(), DONE], None),
        (chat, [chunk(SO_FAR), chunk(CHAT_USAGE)], None),
        (chat, [], None),
        (
            messages,
            [start(), SAID, delta({"output_tokens": 4}), STOP],
            Usage(prompt=9, cache_write=1, cache_write_1h=2, answer=4),
        ),
        (
            messages,
            [start(), delta({"output_tokens": 2}, None), delta({"output_tokens": 4, "input_tokens": 12})],
            Usage(prompt=12, cache_write=1, cache_write_1h=2, answer=4),
        ),
        (messages, [start(None), delta({"output_tokens": 4, "input_tokens": 9}), STOP], Usage(prompt=9, answer=4)),
        (messages, [start(), SAID], None),
        (messages, [start(), delta({"output_tokens": 4}, None), SAID], None),
        (messages, [start(None), STOP], None),
        (responses, [BEGUN, ended()], Usage(prompt=9, answer=4)),
        (responses, [BEGUN, ended(name="response.incomplete")], Usage(prompt=9, answer=4)),
        (responses, [BEGUN, ended(), ended()], Usage(prompt=9, answer=4)),
        (responses, [BEGUN], None),
        (responses, [BEGUN.replace(b'"resp-1"', b'"response.completed"')], None),
        (responses, [BEGUN, ended(None)], None),
    ],
)
def test_a_stream_is_counted_once_its_end_has_come(wire: Format, events: list[bytes], used: Usage | None) -> None:
    seen = meter(wire)
    seen.feed(b"".join(events))
    if used is None:
        assert seen.verdict("it broke off") == Unknown("it broke off")
        assert seen.priced == TARIFF.priced()
    elif used.terms:
        assert reason(seen.verdict("it broke off")).endswith("on the terms `flex`")  # type: ignore[arg-type]
    else:
        assert seen.verdict("it broke off") == TARIFF.cost(used)
        assert (seen.prompt_tokens, seen.answer_tokens) == (used.prompt_tokens, used.answer_tokens)
    if used is not None:
        assert seen.priced == TARIFF.priced(used)


@pytest.mark.parametrize(
    ("wire", "events", "said"),
    [
        (
            chat,
            [LAST, chunk({**CHAT_USAGE, "prompt_tokens": 8, "total_tokens": 12}, []), DONE],
            "it was told twice, and differs",
        ),
        (chat, [LAST, DONE, chunk({**CHAT_USAGE, "completion_tokens": 5, "total_tokens": 14}, [])], "told twice"),
        (chat, [chunk(CHAT_USAGE), chunk(SO_FAR), DONE], "its counts went back while the answer came"),
        (chat, [chunk(CHAT_USAGE, error={"message": "x"}), DONE], "an error came in the stream"),
        (chat, [chunk(), event({"error": {"message": "x"}}), LAST, DONE], "an error came in the stream"),
        (chat, [chunk({"prompt_tokens": -1, "completion_tokens": 2}, []), LAST, DONE], "`prompt_tokens` is negative"),
        (chat, [event('{"choices":[],"usage":{"prompt_tokens":1'), DONE], "no JSON object"),
        (messages, [start(), delta({"output_tokens": 0}), STOP], "`output_tokens` was 1, and then 0"),
        (messages, [start(), delta({"output_tokens": 4}), delta({"output_tokens": 5}), STOP], "was 4, and then 5"),
        (messages, [start(), SAID, delta(None), STOP], "`output_tokens` was told at the start only"),
        (messages, [start(), SAID, STOP], "`output_tokens` was told at the start only"),
        (messages, [start(), event({"type": "error", "error": {}}, "error"), STOP], "an error came in the stream"),
        (
            messages,
            [start(), delta({"output_tokens": 4, "cache_creation_input_tokens": 5}), STOP],
            "its parts are 1 and 2",
        ),
        (messages, [start(), delta({"output_tokens": "4"}), STOP], "`output_tokens` is no whole number"),
        (messages, [start([]), STOP], "`usage` is no object"),
        (responses, [ended(), ended({**RESPONSE_USAGE, "output_tokens": 5, "total_tokens": 14})], "it was told twice"),
        (responses, [ended({"input_tokens": 1, "output_tokens": -4})], "`output_tokens` is negative"),
    ],
)
def test_a_stream_that_contradicts_itself_is_unknown(wire: Format, events: list[bytes], said: str) -> None:
    seen = meter(wire)
    seen.feed(b"".join(events))
    told = seen.verdict("it broke off")
    assert isinstance(told, Unknown)
    assert said in told.reason
    assert seen.priced == TARIFF.priced()


STREAMS = [
    (chat, chunk() + chunk(SO_FAR) + LAST + DONE),
    (messages, start() + SAID + delta({"output_tokens": 4}) + STOP),
    (responses, BEGUN + ended()),
]


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 3000), max_size=6))
def test_any_split_of_a_stream_costs_the_same_and_passes_the_same(
    stream: tuple[Format, bytes], cuts: list[int]
) -> None:
    wire, body = stream
    one, other, plain = meter(wire), meter(wire), meter(wire, None)
    passed = one.feed(body) + one.finish()
    at = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    assert b"".join(other.feed(body[a:b]) for a, b in pairwise(at)) + other.finish() == passed
    assert other.verdict("") == one.verdict("")
    assert isinstance(one.verdict(""), Cost)
    # What goes on to the caller does not depend on who prices it.
    assert plain.feed(body) + plain.finish() == passed
    assert plain.priced is None
    assert isinstance(plain.verdict(""), Unknown)


def test_with_a_tariff_what_the_upstream_says_of_the_cost_is_not_charged() -> None:
    seen = meter()
    seen.feed(chunk({**CHAT_USAGE, "cost": 5}, []) + DONE)
    assert seen.verdict("") == CHAT_COST
    body = json.dumps({**CHAT_BODY, "usage": {**CHAT_USAGE, "cost": 5}}).encode()
    seen = meter()
    assert seen.read_answer(body) == (body, None)
    assert seen.verdict("") == CHAT_COST
    seen = meter(priced=None)
    seen.read_answer(body)
    assert seen.verdict("") == Cost(Decimal(5))


def test_a_broken_answer_is_unknown_and_a_free_one_costs_nothing() -> None:
    for body in (b"", b"<html>", b'{"choices": [], "usage": {"prompt_tokens": 1'):
        seen, free = meter(), meter(priced=tariff(FREE, is_free=True))
        seen.read_answer(body)
        free.read_answer(body)
        assert isinstance(seen.verdict("it ended"), Unknown)
        assert free.verdict("it ended") == Cost(Decimal(0))
        assert free.priced == tariff(FREE, is_free=True).priced()
