"""Answers in another format than their upstream speaks, whole and streamed: the strict SDKs take them, each event as it
comes, and both ways say the same."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise, permutations
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from farebox.core.errors import Refusal, broken
from farebox.core.fitting import may_have_others_thoughts
from farebox.core.formats import Format, Progress, chat, messages, responses
from farebox.core.meter import Meter
from farebox.core.translate import Stream, Translation, translation
from farebox.core.translate.thoughts import without_others
from farebox.core.translate.usage import read_usage, usage_in_messages
from tests import hosts, sdks
from tests.hosts import CREATED, Called, No, Said, Thought, Words
from tests.schemas import assert_documented

WAYS = list(permutations(sdks.FORMATS, 2))
"""The caller's format, and its upstream's."""


def name(way: Any) -> str:
    formats = way if isinstance(way, tuple) else (way,)
    return "-".join(getattr(each, "__name__", str(each)).rpartition(".")[2] for each in formats)


def between(way: tuple[Format, Format]) -> Translation:
    found = translation(*way)
    assert found is not None
    return found


def stream_of(way: tuple[Format, Format]) -> Stream:
    return between(way).stream(Progress("", "asked/model", CREATED))


def translated(way: tuple[Format, Format], events: Iterable[bytes]) -> bytes:
    """A stream as the exchange sends it on: through the native format's meter, then in the caller's format."""
    meter, stream = Meter(way[1], Progress("", "asked/model", CREATED)), stream_of(way)
    told = b"".join([stream.feed(meter.feed(event)) for event in events])
    return told + stream.feed(meter.finish()) + stream.finish()


def plain(told: Any) -> Any:
    """What an SDK read, without what is null or empty, and what only streams or only whole answers have."""
    if isinstance(told, dict):
        kept = {key: plain(value) for key, value in told.items() if key not in ("service_tier", "system_fingerprint")}
        return {key: value for key, value in kept.items() if value not in (None, [], "", {}) and key != "index"}
    return [plain(each) for each in told] if isinstance(told, list) else told


def told_in(wire: Format, answer: Any) -> Said:
    """What an answer says, as the caller's SDK has it."""
    said: Said = []
    if wire is chat:
        message = answer["choices"][0]["message"]
        said += [Thought(message["reasoning"])] if message.get("reasoning") else []
        said += [Words(message["content"])] if message.get("content") else []
        said += [No(message["refusal"])] if message.get("refusal") else []
        for call in message.get("tool_calls") or ():
            arguments = json.loads(call["function"]["arguments"])
            said.append(Called(call["id"], call["function"]["name"], arguments))
    elif wire is messages:
        for block in answer["content"]:
            match block:
                case {"type": "thinking", "thinking": text}:
                    said.append(Thought(text))
                case {"type": "text", "text": text}:
                    said.append(Words(text))
                case {"type": "tool_use", "id": id_, "name": called, "input": given_}:
                    said.append(Called(id_, called, given_))
                case _:
                    assert block["type"] == "redacted_thinking"
    else:
        for item in answer["output"]:
            match item:
                case {"type": "reasoning", "summary": [{"text": text}]}:
                    said.append(Thought(text))
                case {"type": "message", "content": parts}:
                    said += [No(each["refusal"]) if "refusal" in each else Words(each["text"]) for each in parts]
                case {"type": "function_call", "call_id": id_, "name": called, "arguments": arguments}:
                    said.append(Called(id_, called, json.loads(arguments)))
                case _:
                    assert item["type"] == "reasoning"
    return said


SAID: dict[str, Said] = {
    "text": [Words("Hello, you there.")],
    "odd text": [Words('a "b" \\ \n\r\t \x00 é 漢 \U0001f600 </data>')],
    "tools": [Words("Wait."), Called("call_1", "f", {"a": [1, 2.5]}), Called("call_2", "g", {})],
    "thinking": [Thought("I think so, and so."), Words("Hello")],
    "thinking and tools": [Thought("First."), Called("call_1", "f", {"city": "Praha"})],
    "refusal": [No("I will not do that.")],
    "nothing": [],
}


@pytest.mark.parametrize("way", WAYS, ids=name)
@pytest.mark.parametrize("kind", SAID)
def test_the_callers_sdk_takes_it_whole_and_streamed_and_both_are_the_same(
    way: tuple[Format, Format], kind: str
) -> None:
    source, native = way
    said = SAID[kind]
    whole = sdks.whole(source, between(way).answer(hosts.whole(native, said), created=CREATED))
    events = translated(way, hosts.stream(native, said))
    streamed = sdks.streamed(source, events)
    expected = [Words(each.text) if isinstance(each, No) and source is messages else each for each in said]
    assert told_in(source, whole) == [Thought(e.text) if isinstance(e, Thought) else e for e in expected]
    usage, streamed_usage = whole.pop("usage"), streamed.pop("usage")
    assert plain(streamed) == plain(whole)
    assert usage["cost"] == float(hosts.COST)
    assert b'"cost":' + hosts.COST.encode() in events
    if source is not messages:
        # Anthropic's helper keeps of a usage what it knows itself.
        assert streamed_usage == usage
        assert (usage["total_tokens"], usage.get("prompt_tokens", usage.get("input_tokens"))) == (60, 40)
    else:
        counts = [streamed_usage[f"{each}_tokens"] for each in ("input", "cache_creation_input", "cache_read_input")]
        assert counts == [25, 5, 10]
        assert streamed_usage["output_tokens_details"]["thinking_tokens"] == hosts.REASONING


@pytest.mark.parametrize("way", WAYS, ids=name)
def test_a_stream_where_none_was_asked_for_and_the_other_way_say_the_same(way: tuple[Format, Format]) -> None:
    source, native = way
    for said in SAID.values():
        body, events = hosts.whole(native, said), b"".join(hosts.stream(native, said))
        whole = sdks.whole(source, between(way).answer(body, created=CREATED))
        gathered = sdks.whole(source, between(way).gathered(events, created=CREATED))
        assert plain(gathered) == plain(whole)
        retold = sdks.streamed(source, between(way).retold(body, Progress("", "asked/model", CREATED)))
        for told in (whole, retold) if source is messages else ():
            del told["usage"]  # Anthropic's helper keeps of it what it knows itself
        assert plain(retold) == plain(whole)


@pytest.mark.parametrize("way", WAYS, ids=name)
def test_a_stream_where_none_was_asked_for_that_fails_is_no_answer(way: tuple[Format, Format]) -> None:
    events = list(hosts.stream(way[1], [Words("Hello, you there.")]))
    half = events[: len(events) // 2]
    for told, words_ in ((half, "ended before its answer did"), ([*half, ERRORS[id(way[1])]], "boom")):
        with pytest.raises(Refusal, match=words_) as refused:
            between(way).gathered(b"".join(told), created=1)
        assert refused.value.status in (424, 502)


class Weather(BaseModel):
    city: str
    degrees: float


@pytest.mark.parametrize("way", WAYS, ids=name)
def test_a_structured_answer_is_parsed_by_the_callers_helper(way: tuple[Format, Format]) -> None:
    source, native = way
    told = translated(way, hosts.stream(native, [Words('{"city": "Praha", "degrees": 21.50}')]))
    assert sdks.parsed(source, told, Weather) == Weather(city="Praha", degrees=21.5)


words = st.text(min_size=1, max_size=40)
calls = st.builds(
    Called,
    st.uuids().map(lambda each: f"call_{each.hex}"),
    st.sampled_from(["f", "weather"]),
    st.dictionaries(st.text(max_size=5), st.none() | st.integers(-9, 9) | st.text(max_size=9), max_size=3),
)
saids = st.builds(
    lambda thought, text, called: [*thought, *text, *called],
    st.lists(st.builds(Thought, words), max_size=1),
    st.lists(st.builds(Words, words), max_size=1),
    st.lists(calls, max_size=3),
)
"""What each format can say: thoughts, then words, then calls."""


@settings(max_examples=30)
@given(way=st.sampled_from(WAYS), said=saids, data=st.data())
def test_any_split_of_a_stream_gives_the_same_events(way: tuple[Format, Format], said: Said, data: Any) -> None:
    events = list(hosts.stream(way[1], said))
    whole = stream_of(way)
    at_once = [whole.feed(event) for event in events]
    assert whole.finish() == b""
    told = b"".join(events)
    for event, written in zip(events, at_once, strict=True):
        assert event.count(b"\n\n") == 1
        assert written == b"" or written.endswith(b"\n\n")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(told)), max_size=12)) | {0, len(told)})
    cut = stream_of(way)
    assert b"".join([cut.feed(told[a:b]) for a, b in pairwise(cuts)]) == b"".join(at_once)
    again = stream_of(way)
    assert again.feed(told.replace(b"\n", b"\r\n")) == b"".join(at_once)


@settings(max_examples=30)
@given(way=st.sampled_from(WAYS), said=saids)
def test_whatever_is_said_is_said_in_the_callers_format(way: tuple[Format, Format], said: Said) -> None:
    source, native = way
    whole = json.loads(between(way).answer(hosts.whole(native, said), created=CREATED))
    streamed = sdks.streamed(source, translated(way, hosts.stream(native, said)))
    expected = [Thought(each.text) if isinstance(each, Thought) else each for each in said]
    assert told_in(source, whole) == told_in(source, streamed) == expected


@settings(max_examples=30)
@given(way=st.sampled_from(WAYS), said=saids)
def test_an_answer_there_and_back_says_the_same(way: tuple[Format, Format], said: Said) -> None:
    """A stream translated twice is, to its reader, what it was."""
    source, native = way
    back = between((native, source)).stream(Progress("", "m", CREATED))
    once = translated(way, hosts.stream(native, said))
    twice = sdks.streamed(native, back.feed(once) + back.finish())
    direct = sdks.streamed(native, b"".join(hosts.stream(native, said)))
    assert told_in(native, twice) == [Thought(e.text) if isinstance(e, Thought) else e for e in said]
    if native is not messages:
        assert twice["usage"]["total_tokens"] == direct["usage"]["total_tokens"]


# Thoughts on the next turn


def next_turn(source: Format, answer: Any) -> bytes:
    """The order that follows an answer, as a caller writes it: what was said, and a further question."""
    more: dict[str, Any] = {"role": "user", "content": "And then?"}
    if source is chat:
        body: dict[str, Any] = {"messages": [*sdks.HELLO, answer["choices"][0]["message"], more]}
    elif source is messages:
        said = {"role": "assistant", "content": answer["content"]}
        body = {"max_tokens": 9, "messages": [*sdks.HELLO, said, more]}
    else:
        body = {"input": [*sdks.HELLO, *answer["output"], more]}
    return json.dumps({"model": "m", **body}).encode()


SEALED: dict[str, Said] = {"thought": [Thought("So."), Words("Yes")], "all sealed": [Thought("", "YWxs"), Words("Yes")]}
"""A plain chat completion seals nothing."""


@pytest.mark.parametrize(
    ("way", "kind"),
    [(way, kind) for way in WAYS for kind in SEALED if kind == "thought" or way[1] is not chat],
    ids=name,
)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_host_gets_its_thoughts_back_under_its_own_seal(
    way: tuple[Format, Format], kind: str, is_streamed: bool
) -> None:
    source, native = way
    said = SEALED[kind]
    if is_streamed:
        answer = sdks.streamed(source, translated(way, hosts.stream(native, said)))
    else:
        answer = json.loads(between(way).answer(hosts.whole(native, said), created=CREATED))
    body, left_out = between(way).order(next_turn(source, answer))
    order = json.loads(body)
    assert "reason" not in " ".join(left_out)
    if native is messages:
        thought = order["messages"][1]["content"][0]
        direct = next(iter(hosts.messages_blocks(said)))
        assert thought == direct
    elif native is responses:
        thought = order["input"][1]
        direct = next(iter(hosts.responses_items(said)))
        assert thought == direct
    else:
        assert order["messages"][1]["reasoning_content"] == "So."


@pytest.mark.parametrize("source", [chat, responses], ids=name)
def test_a_thought_that_anthropic_does_not_show_comes_back_as_one(source: Format) -> None:
    """By `display: omitted`: no text, and a signature. A redacted one is something else to its host."""
    block = {"type": "thinking", "thinking": "", "signature": "c2VhbA=="}
    whole = json.loads(hosts.messages_whole([Thought("So."), Words("Yes")]))
    whole["content"][0] = block
    events = [each for each in hosts.messages_stream([Thought("So."), Words("Yes")]) if b"thinking_delta" not in each]
    way = (source, messages)
    for answer in (
        json.loads(between(way).answer(json.dumps(whole).encode(), created=CREATED)),
        sdks.streamed(source, translated(way, events)),
    ):
        body, _ = between(way).order(next_turn(source, answer))
        assert json.loads(body)["messages"][1]["content"] == [block, {"type": "text", "text": "Yes"}]


@pytest.mark.parametrize(("source", "other", "native"), list(permutations(sdks.FORMATS)), ids=name)
def test_another_hosts_thoughts_are_left_out_and_named(source: Format, other: Format, native: Format) -> None:
    """Anthropic refuses a signature that is not its own, OpenAI content that it did not encrypt."""
    answer = json.loads(between((source, other)).answer(hosts.whole(other, SEALED["thought"]), created=1))
    body, left_out = between((source, native)).order(next_turn(source, answer))
    assert b"So." not in body
    assert any("reasoning" in each or "thinking" in each for each in left_out)


@pytest.mark.parametrize(("wire", "path"), [(messages, "/messages"), (responses, "/responses")], ids=name)
def test_another_hosts_thoughts_do_not_reach_one_that_speaks_the_callers_format(wire: Format, path: str) -> None:
    """The conversation was served by another upstream before, in another format."""
    own = hosts.whole(wire, SEALED["thought"])
    body = next_turn(wire, json.loads(own))
    assert not may_have_others_thoughts(body)
    assert without_others(path, body) == (body, ())
    for other in sdks.FORMATS:
        if other is not wire:
            answer = json.loads(between((wire, other)).answer(hosts.whole(other, SEALED["thought"]), created=1))
            told = next_turn(wire, answer)
            assert may_have_others_thoughts(told)
            kept, left_out = without_others(path, told)
            assert b"So." not in kept
            assert (b"Yes" in kept, b"And then?" in kept, len(left_out)) == (True, True, 1)
    nothing_else = json.loads(between((wire, chat)).answer(hosts.whole(chat, SEALED["thought"][:1]), created=1))
    kept, _ = without_others(path, next_turn(wire, nothing_else))
    turns = json.loads(kept)["messages" if wire is messages else "input"]
    assert [turn["content"] for turn in turns] == [sdks.HELLO[0]["content"], "And then?"]


# Ends


STOPS = [("stop", "end_turn", "completed"), ("length", "max_tokens", "incomplete")]


@pytest.mark.parametrize(("finish", "reason", "status"), STOPS)
@pytest.mark.parametrize("way", WAYS, ids=name)
def test_why_an_answer_ended(way: tuple[Format, Format], finish: str, reason: str, status: str) -> None:
    source, native = way
    told = {
        id(chat): hosts.chat_whole([Words("x")]).replace(b'"stop"', f'"{finish}"'.encode()),
        id(messages): hosts.messages_whole([Words("x")]).replace(b'"end_turn"', f'"{reason}"'.encode()),
        id(responses): hosts.whole_bytes(
            {
                **hosts.response(status, list(hosts.responses_items([Words("x")])), hosts.RESPONSES_USAGE),
                "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            }
        ),
    }[id(native)]
    answer = json.loads(between(way).answer(told, created=1))
    if source is chat:
        assert answer["choices"][0]["finish_reason"] == finish
    elif source is messages:
        assert answer["stop_reason"] == reason
    else:
        assert answer["status"] == status
        assert (answer["incomplete_details"] or {}).get("reason") == (
            "max_output_tokens" if status == "incomplete" else None
        )


def test_a_stop_sequence_is_an_end_and_a_call_is_one_whatever_its_host_says() -> None:
    body = json.loads(hosts.messages_whole([Words("x")]))
    body |= {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    assert b'"finish_reason":"stop"' in between((chat, messages)).answer(json.dumps(body).encode(), created=1)
    called = hosts.chat_whole([Called("c", "f", {})]).replace(
        b'"finish_reason": "tool_calls"', b'"finish_reason":"stop"'
    )
    assert json.loads(between((messages, chat)).answer(called, created=1))["stop_reason"] == "tool_use"
    said: Said = [Called("c", "f", {})]
    called = hosts.messages_whole(said).replace(b'"tool_use", "stop_sequence"', b'"end_turn", "stop_sequence"')
    events = [
        each.replace(b'"stop_reason": "tool_use"', b'"stop_reason": "end_turn"') for each in hosts.messages_stream(said)
    ]
    for answer in (
        sdks.whole(chat, between((chat, messages)).answer(called, created=1)),
        sdks.streamed(chat, translated((chat, messages), events)),
    ):
        assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_a_filter_is_a_refusal_to_anthropics_clients_and_an_incomplete_response() -> None:
    body = hosts.chat_whole([Words("x")]).replace(b'"stop"', b'"content_filter"')
    assert json.loads(between((messages, chat)).answer(body, created=1))["stop_reason"] == "refusal"
    answer = json.loads(between((responses, chat)).answer(body, created=1))
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})


@pytest.mark.parametrize("way", WAYS, ids=name)
def test_a_stream_that_is_cut_off_ends_in_an_error(way: tuple[Format, Format]) -> None:
    source, native = way
    events = list(hosts.stream(native, [Words("Hello, you there.")]))
    half = stream_of(way)
    told = b"".join([half.feed(event) for event in events[: len(events) // 2]]) + half.finish()
    assert_ends_in(source, told, "ended before its answer did")
    assert half.feed(events[-1]) == half.finish() == half.error(broken("x")) == b""


def assert_ends_in(source: Format, told: bytes, words_: str) -> None:
    """The helper of the caller's SDK gets what came before, and then raises these words."""
    raised = (openai.APIError, anthropic.APIError, RuntimeError)
    with pytest.raises(raised) as error:
        sdks.streamed(source, told)
    assert words_ in str(error.value) or words_.encode() in told
    assert told.count(words_.encode()) >= 1


ERRORS = {
    id(chat): hosts.data({"error": {"message": "boom", "type": "server_error", "code": "overloaded"}}),
    id(messages): hosts.data({"type": "error", "error": {"type": "overloaded_error", "message": "boom"}}, "error"),
    id(responses): hosts.data(
        {"type": "error", "code": "server_error", "message": "boom", "param": None, "sequence_number": 9}, "error"
    ),
}


@pytest.mark.parametrize("way", WAYS, ids=name)
@pytest.mark.parametrize("through_meter", [True, False])
def test_an_error_in_a_stream_is_one_in_the_callers_format(way: tuple[Format, Format], through_meter: bool) -> None:
    source, native = way
    events = [*list(hosts.stream(native, [Words("Hello, you there.")]))[:5], ERRORS[id(native)]]
    if through_meter:
        told = translated(way, events)
    else:
        stream = stream_of(way)
        told = b"".join([stream.feed(event) for event in events]) + stream.finish()
    assert_ends_in(source, told, "boom")
    assert b'invalid_request"' not in told, "what the upstream failed at is not the order's fault"


@pytest.mark.parametrize("way", WAYS, ids=name)
def test_what_is_no_event_of_the_upstreams_format_is_an_error(way: tuple[Format, Format]) -> None:
    stream = stream_of(way)
    told = stream.feed(b"data: {nonsense\n\n")
    assert b"the upstream sent an event that is not" in told
    assert stream.feed(b"data: {}\n\n") == b""


@pytest.mark.parametrize("way", WAYS, ids=name)
def test_our_own_error_ends_the_stream_in_the_callers_format(way: tuple[Format, Format]) -> None:
    source, native = way
    stream = stream_of(way)
    told = b"".join([stream.feed(event) for event in list(hosts.stream(native, [Words("Hello")]))[:4]])
    assert_ends_in(source, told + stream.error(broken("it broke")), "it broke")
    assert stream.finish() == b""


@pytest.mark.parametrize("way", WAYS, ids=name)
def test_a_keep_alive_is_the_callers_own(way: tuple[Format, Format]) -> None:
    source, native = way
    beat = b'event: ping\ndata: {"type": "ping"}\n\n' if native is messages else b": OPENROUTER PROCESSING\n\n"
    assert stream_of(way).feed(beat) == source.KEEP_ALIVE
    assert stream_of(way).feed(b"data: \n\n") == b""


# Whole answers that are none


@pytest.mark.parametrize("way", WAYS, ids=name)
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error":{"message":"boom"}}', b'{"id":"x","model":"m"}'])
def test_what_is_no_answer_is_an_error_that_nobody_repeats(way: tuple[Format, Format], body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        between(way).answer(body, created=1)
    assert refused.value.status == 424
    assert "boom" in refused.value.message or b"boom" not in body


def test_an_answer_that_failed_after_all_is_an_error() -> None:
    failed = json.loads(hosts.chat_whole([Words("x")]))
    failed["choices"][0] |= {"finish_reason": "error", "error": {"code": 502, "message": "boom"}}
    no_choices = {**failed, "choices": []}
    response = json.dumps({**hosts.response("failed", [], None), "error": {"code": "server_error", "message": "boom"}})
    for native, body in ((chat, json.dumps(failed)), (chat, json.dumps(no_choices)), (responses, response)):
        with pytest.raises(Refusal) as refused:
            between((messages, native)).answer(body.encode(), created=1)
        assert refused.value.status == 424


def test_blank_lines_and_comments_before_an_answer_are_skipped() -> None:
    body = b"\n\n: PROCESSING\n" + hosts.chat_whole([Words("x")])
    assert json.loads(between((messages, chat)).answer(body, created=1))["content"][0]["text"] == "x"


# Refusals of the upstream


NATIVE_ERRORS = {
    id(chat): {"error": {"message": "too many", "type": "requests", "param": None, "code": "rate_limit_exceeded"}},
    id(messages): {"type": "error", "error": {"type": "rate_limit_error", "message": "too many"}, "request_id": "r"},
    id(responses): {"error": {"message": "too many", "type": "requests", "code": "rate_limit_exceeded"}},
}


@pytest.mark.parametrize("way", WAYS, ids=name)
def test_a_refusal_of_the_upstreams_is_worded_in_the_callers_format(way: tuple[Format, Format]) -> None:
    source, native = way
    told = json.loads(between(way).refusal(429, json.dumps(NATIVE_ERRORS[id(native)]).encode()))
    assert told["error"]["message"] == "too many"
    if source is messages:
        assert (told["type"], told["error"]["type"]) == ("error", "rate_limit_error")
    else:
        assert told["error"]["code"] == 429
        assert told["error"]["metadata"]["error_type"] == "rate_limit_exceeded"
    assert b"refused the order" in between(way).refusal(502, b"<html>")


def test_an_upstreams_own_code_is_kept() -> None:
    body = b'{"error":{"message":"no","type":"invalid_request_error","code":"unknown_model"}}'
    told = json.loads(between((responses, chat)).refusal(404, body))
    assert told["error"]["metadata"] == {"error_type": "not_found", "provider_code": "unknown_model"}
    long = json.loads(
        between((messages, chat)).refusal(400, body.replace(b"unknown_model", b"context_length_exceeded"))
    )
    assert long["error"]["error_type"] == "context_length_exceeded"


# Hosts that are odd


def chat_chunks(*deltas: dict[str, Any], finish: str = "tool_calls") -> list[bytes]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": CREATED, "model": "m"}
    told = [hosts.data({**head, "choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    return [*told, hosts.data({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}), hosts.DONE]


def call(index: int, arguments: str, id_: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": f"f{index}"} if id_ else {})}
    return {"tool_calls": [{"index": index, "function": function, **({"id": id_} if id_ else {})}]}


@pytest.mark.parametrize("source", [messages, responses])
def test_calls_that_come_in_turns_are_brought_into_a_row(source: Format) -> None:
    told = chat_chunks(
        call(0, "", "a"), call(1, '{"x"', "b"), call(0, '{"y":'), call(1, ":1}"), call(0, "2}"), call(2, "", "c")
    )
    answer = sdks.streamed(source, translated((source, chat), told))
    assert told_in(source, answer) == [Called("a", "f0", {"y": 2}), Called("b", "f1", {"x": 1}), Called("c", "f2", {})]


@pytest.mark.parametrize("source", [messages, responses])
def test_another_id_at_the_same_index_is_another_call(source: Format) -> None:
    """As Ollama tells calls that it makes at once."""
    first, second = call(0, '{"x":1}', "a"), call(0, '{"y"', "b")
    told = chat_chunks(first, second, call(0, ":2}"), call(0, "", "c"))
    answer = sdks.streamed(source, translated((source, chat), told))
    assert told_in(source, answer) == [Called("a", "f0", {"x": 1}), Called("b", "f0", {"y": 2}), Called("c", "f0", {})]


@pytest.mark.parametrize("source", [messages, responses])
def test_an_id_that_is_told_with_every_piece_is_one_call(source: Format) -> None:
    told = chat_chunks(call(0, '{"x"', "a"), call(0, ":1}", "a"), call(0, "", "a"))
    answer = sdks.streamed(source, translated((source, chat), told))
    assert told_in(source, answer) == [Called("a", "f0", {"x": 1})]


def test_a_call_goes_on_at_once_where_calls_come_one_after_the_other() -> None:
    stream = stream_of((messages, chat))
    told = [stream.feed(each) for each in chat_chunks(call(0, '{"a":1}', "a"), call(1, '{"b":', "b"), call(1, "2}"))]
    assert b'"partial_json":"{\\"b\\":"' in told[1]
    assert b'"partial_json":"2}"' in told[2]


def test_long_calls_that_come_in_turns_are_not_read_again_with_each_piece() -> None:
    """Nor is one whose arguments never become an object. It took minutes of CPU, in which nobody else was served."""
    begun = [call(0, "{", "a"), call(1, "{", "b")]
    told = chat_chunks(*begun, *[call(number % 2, "word ") for number in range(2_000)])
    stream, looks = stream_of((messages, chat)), Counter[str]()
    sys.setprofile(lambda frame, event, _: looks.update([frame.f_code.co_name]) if event == "call" else None)
    try:
        for each in told:
            stream.feed(each)
    finally:
        sys.setprofile(None)
    assert looks["see"] >= 2_000
    assert looks["object_in"] < 20


@pytest.mark.parametrize("other", [{"content": "x"}, {"refusal": "x"}, {"reasoning": "x"}])
def test_a_call_that_goes_on_after_its_end_is_an_error(other: dict[str, str]) -> None:
    told = chat_chunks(call(0, "{", "a"), other, call(0, "}"))
    assert b"went back to a call" in translated((messages, chat), told)


TWO_CALLS: Said = [Words("Both."), Called("a", "f", {"x": 1}), Called("b", "g", {"y": 2})]


def in_turns(events: Iterable[bytes]) -> list[bytes]:
    """A stream of responses whose calls all begin before the first one goes on, and all end at the end."""
    *told, last = events
    begun, ended = (
        [each for each in told if f'"response.output_item.{step}"'.encode() in each and b'"function_call"' in each]
        for step in ("added", "done")
    )
    within = [each for each in told if b"arguments" in each and each not in begun + ended]
    before = [each for each in told if each not in begun + ended + within]
    return [*before, *begun, *within, *ended, last]


@pytest.mark.parametrize("source", [chat, messages])
@pytest.mark.parametrize("has_deltas", [True, False])
def test_calls_of_a_response_that_are_open_at_once_keep_their_own_arguments(source: Format, has_deltas: bool) -> None:
    told = in_turns(hosts.responses_stream(TWO_CALLS))
    kept = [each for each in told if has_deltas or b"arguments.delta" not in each]
    assert told_in(source, sdks.streamed(source, translated((source, responses), kept))) == TWO_CALLS


@pytest.mark.parametrize("source", [chat, messages])
@pytest.mark.parametrize("last", ["response.output_item.done", "response.completed"])
def test_what_a_response_tells_in_no_deltas_is_told_all_the_same(source: Format, last: str) -> None:
    """Once an item is whole, or the response, as hosts do that only look as if they streamed."""
    said = [Thought("Hm."), Words("Hello"), *TWO_CALLS[1:]]
    told = [each for each in hosts.responses_stream(said) if b".delta" not in each]
    if last == "response.completed":
        told = [each for each in told if b'"response": {' in each]
    answer = sdks.streamed(source, translated((source, responses), told))
    assert told_in(source, answer) == told_in(source, sdks.whole(source, whole_of(source, said)))
    refused = [each for each in hosts.responses_stream([No("I will not.")]) if b".delta" not in each]
    assert b"I will not." in translated((source, responses), refused)


def whole_of(source: Format, said: Said) -> bytes:
    return between((source, responses)).answer(hosts.responses_whole(said), created=1)


def test_arguments_that_are_no_json_reach_the_caller() -> None:
    body = hosts.chat_whole([Called("c", "f", {})]).replace(b'"{}"', b'"{nonsense"')
    answer = json.loads(between((messages, chat)).answer(body, created=1))
    assert answer["content"][0]["input"] == {"INVALID_JSON": "{nonsense"}
    assert b'"arguments":"{nonsense"' in between((responses, chat)).answer(body, created=1)


@pytest.mark.parametrize("source", [messages, responses])
def test_arguments_that_are_an_object_are_its_text(source: Format) -> None:
    """Ollama's own API has them so, and some that call themselves compatible."""
    body = hosts.chat_whole([Called("c", "f", {"a": 1})]).replace(json.dumps('{"a": 1}').encode(), b'{"a": 1}')
    chunk = call(0, "", "c")
    chunk["tool_calls"][0]["function"] |= {"name": "f", "arguments": {"a": 1}}
    for answer in (
        sdks.whole(source, between((source, chat)).answer(body, created=1)),
        sdks.streamed(source, translated((source, chat), chat_chunks(chunk))),
    ):
        assert told_in(source, answer) == [Called("c", "f", {"a": 1})]


@pytest.mark.parametrize("source", [messages, responses])
def test_a_content_that_is_a_list_is_read(source: Format) -> None:
    """So answer Mistral's models that reason, whole and streamed."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "I "}, {"type": "text", "text": "see"}]}
    body = json.loads(hosts.chat_whole([Words("x")]))
    body["choices"][0]["message"]["content"] = [thought, {"type": "text", "text": "Yes"}]
    chunks = chat_chunks(
        {"content": [thought]}, {"content": [{"type": "text", "text": "Y"}]}, {"content": "es"}, finish="stop"
    )
    for answer in (
        sdks.whole(source, between((source, chat)).answer(json.dumps(body).encode(), created=1)),
        sdks.streamed(source, translated((source, chat), chunks)),
    ):
        assert told_in(source, answer) == [Thought("I see"), Words("Yes")]
        _, left_out = between((source, chat)).order(next_turn(source, answer))
        assert "messages[assistant].reasoning" in left_out


@pytest.mark.parametrize("source", [messages, responses])
@pytest.mark.parametrize("member", ["reasoning", "reasoning_content"])
def test_thoughts_by_either_name_that_hosts_have_for_them(source: Format, member: str) -> None:
    told = chat_chunks({member: "I "}, {member: "see", "content": ""}, {"content": "Yes"}, finish="stop")
    answer = sdks.streamed(source, translated((source, chat), told))
    assert told_in(source, answer) == [Thought("I see"), Words("Yes")]
    body, _ = between((source, chat)).order(next_turn(source, answer))
    assert json.loads(body)["messages"][1][member] == "I see"


def test_details_of_a_chat_completions_reasoning_come_back_as_they_were() -> None:
    details = [
        {"type": "reasoning.text", "text": "I see", "signature": "c2ln", "format": "google-gemini-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "ZW5j", "format": "google-gemini-v1", "index": 1},
    ]
    told = chat_chunks(
        {"reasoning": "I ", "reasoning_details": [{**details[0], "text": "I ", "signature": None}]},
        {"reasoning": "see", "reasoning_details": [{**details[0], "text": "see"}]},
        {"reasoning_details": [details[1]]},
        {"content": "Yes"},
        finish="stop",
    )
    answer = sdks.streamed(messages, translated((messages, chat), told))
    body, _ = between((messages, chat)).order(next_turn(messages, answer))
    assert json.loads(body)["messages"][1]["reasoning_details"] == details


def test_a_page_that_is_cited() -> None:
    page = {"url": "https://a.test", "title": "A", "start_index": 0, "end_index": 5}
    annotations = [{"type": "url_citation", "url_citation": page}]
    body = json.loads(hosts.chat_whole([Words("Hello you")]))
    body["choices"][0]["message"]["annotations"] = annotations
    chunks = chat_chunks({"content": "Hello you"}, {"annotations": annotations}, finish="stop")
    for source in (messages, responses):
        whole = sdks.whole(source, between((source, chat)).answer(json.dumps(body).encode(), created=1))
        streamed = sdks.streamed(source, translated((source, chat), chunks))
        for answer in (whole, streamed):
            if source is messages:
                (cited,) = answer["content"][0]["citations"]
                assert (cited["url"], cited["cited_text"]) == ("https://a.test", "Hello")
            else:
                assert answer["output"][0]["content"][0]["annotations"] == [{"type": "url_citation", **page}]


@pytest.mark.parametrize("title", ["A", None])
def test_what_a_message_cites_is_its_whole_text_block(title: str | None) -> None:
    """A page without a title has an empty one in OpenAI's formats, whose readers demand a text."""
    location = {
        "type": "web_search_result_location",
        "url": "https://a.test",
        "title": title,
        "cited_text": "q",
        "encrypted_index": "e",
    }
    document = {"type": "char_location", "cited_text": "q", "document_index": 0, "document_title": None}
    blocks = [{"type": "text", "text": "é1 "}, {"type": "text", "text": "two", "citations": [location, document]}]
    body = {**json.loads(hosts.messages_whole([])), "content": blocks}
    answer = sdks.whole(chat, between((chat, messages)).answer(json.dumps(body).encode(), created=1))
    expected = {"url": "https://a.test", "title": title or "", "start_index": 3, "end_index": 6}
    assert answer["choices"][0]["message"]["content"] == "é1 two"
    assert answer["choices"][0]["message"]["annotations"] == [{"type": "url_citation", "url_citation": expected}]
    events = list(hosts.messages_stream([Words("é1 "), Words("two")]))
    at = next(at for at, event in enumerate(events) if b'"two"' in event)
    delta = {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": location}}
    events.insert(at + 1, hosts.data(delta, "content_block_delta"))
    streamed = sdks.streamed(responses, translated((responses, messages), events))
    (part,) = streamed["output"][0]["content"]
    assert (part["text"], part["annotations"]) == ("é1 two", [{"type": "url_citation", **expected}])


def test_the_odds_of_tokens_between_chat_completions_and_responses() -> None:
    odds = [{"token": "x", "bytes": [120], "logprob": -0.10, "top_logprobs": []}]
    body = json.loads(hosts.chat_whole([Words("x")]))
    body["choices"][0]["logprobs"] = {"content": odds, "refusal": None}
    told = between((responses, chat)).answer(json.dumps(body).encode(), created=1)
    assert sdks.whole(responses, told)["output"][0]["content"][0]["logprobs"] == odds
    back = between((chat, responses)).answer(told, created=1)
    assert sdks.whole(chat, back)["choices"][0]["logprobs"]["content"] == odds
    head = {"id": "c", "object": "chat.completion.chunk", "created": CREATED, "model": "m"}
    choice = {"index": 0, "delta": {"content": "x"}, "logprobs": {"content": odds}, "finish_reason": None}
    events = [hosts.data({**head, "choices": [choice]}), *chat_chunks(finish="stop")]
    once = translated((responses, chat), events)
    assert sdks.streamed(responses, once)["output"][0]["content"][0]["logprobs"] == odds
    twice = sdks.streamed(chat, translated((chat, responses), [once]))
    assert twice["choices"][0]["logprobs"]["content"] == odds


def test_what_the_operators_own_key_cost_is_told_by_each_formats_names() -> None:
    usage = {
        **hosts.CHAT_USAGE,
        "cost": 0.10,
        "is_byok": True,
        "cost_details": {
            "upstream_inference_cost": 1e-05,
            "upstream_inference_prompt_cost": 4e-06,
            "upstream_inference_completions_cost": 6e-06,
        },
    }
    body = {**json.loads(hosts.chat_whole([Words("x")])), "usage": usage}
    told = between((responses, chat)).answer(json.dumps(body).encode(), created=1)
    assert b'"cost":0.1,"is_byok":true' in told
    assert json.loads(told)["usage"]["cost_details"] == {
        "upstream_inference_cost": 1e-05,
        "upstream_inference_input_cost": 4e-06,
        "upstream_inference_output_cost": 6e-06,
    }
    assert b"1e-05" in told
    assert (
        json.loads(between((chat, responses)).answer(told, created=1))["usage"]["cost_details"] == usage["cost_details"]
    )


# Usage


LEAST = {
    id(chat): {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60},
    id(messages): {"input_tokens": 40, "output_tokens": 20},
    id(responses): {"input_tokens": 40, "output_tokens": 20, "total_tokens": 60},
}
"""What every host tells, and many no more."""

WRONG: list[dict[str, Any]] = [
    {},
    {"prompt_tokens": 40, "input_tokens": 40},
    {"completion_tokens": 20, "output_tokens": 20},
    {"prompt_tokens": -1, "input_tokens": -1, "completion_tokens": 20, "output_tokens": 20},
    {"prompt_tokens": "40", "input_tokens": "40", "completion_tokens": 20, "output_tokens": 20},
    {"prompt_tokens": 40, "input_tokens": 40, "completion_tokens": 20.5, "output_tokens": 20.5},
]
"""None of these says what was used, by the names of any format."""


def told_with(native: Format, usage: Any) -> tuple[bytes, list[bytes]]:
    """What a host says that tells this usage, whole and streamed; with None it tells none."""
    whole = {**json.loads(hosts.whole(native, [Words("Hello")])), "usage": usage}
    events = []
    for event in hosts.stream(native, [Words("Hello")]):
        body = None if event == hosts.DONE else json.loads(event.partition(b"data: ")[2])
        if native is chat and body and body["usage"]:
            if usage is None:
                continue
            body["usage"] = usage
        elif native is messages and body and body["type"] == "message_start":
            body["message"]["usage"] = {"output_tokens": 1}
        elif native is messages and body and body["type"] == "message_delta":
            body["usage"] = usage
        elif native is responses and body and body["type"] == "response.completed":
            body["response"]["usage"] = usage
        events.append(event if body is None else hosts.data(body, body.get("type", "")))
    return json.dumps(whole).encode(), events


def at_its_end(way: tuple[Format, Format], events: Iterable[bytes], *, is_metered: bool) -> bytes:
    """A whole stream, also as it comes where no meter has mended it."""
    if is_metered:
        return translated(way, events)
    stream = stream_of(way)
    return b"".join([stream.feed(event) for event in events]) + stream.finish()


@pytest.mark.parametrize("way", WAYS, ids=name)
def test_the_callers_strict_sdk_takes_a_usage_that_tells_the_least(way: tuple[Format, Format]) -> None:
    """OpenAI's demands `cache_write_tokens`, which nearly no host tells."""
    source, native = way
    whole, events = told_with(native, LEAST[id(native)])
    answers = sdks.whole(source, between(way).answer(whole, created=1)), sdks.streamed(source, translated(way, events))
    for usage in (answer["usage"] for answer in answers):
        assert usage.get("prompt_tokens", usage.get("input_tokens")) == 40
        assert usage.get("completion_tokens", usage.get("output_tokens")) == 20
        if source is responses:
            assert usage["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
            assert usage["output_tokens_details"] == {"reasoning_tokens": 0}


@pytest.mark.parametrize("is_metered", [True, False])
@pytest.mark.parametrize("way", WAYS, ids=name)
def test_a_usage_that_is_missing_or_wrong_is_not_made_up(way: tuple[Format, Format], is_metered: bool) -> None:
    """Where the format has room for that it is left out; messages must have two numbers, and say that they are none."""
    source, native = way
    for usage in (None, *WRONG):
        whole, events = told_with(native, usage)
        if is_metered:
            repaired, failure = Meter(native, Progress("", "m", 1)).read_answer(whole)
            assert failure is None
            whole = repaired
        written = between(way).answer(whole, created=1)
        sdks.whole(source, written)
        told = at_its_end(way, events, is_metered=is_metered)
        streamed = sdks.streamed(source, told)
        assert told_in(source, streamed) == [Words("Hello")]
        if source is messages:
            deltas = [each for each in map(json.loads, sdks.datas(told)) if each["type"] == "message_delta"]
            assert [each["usage"] for each in deltas] == [NOT_KNOWN]
            assert json.loads(written)["usage"] == {**NOT_KNOWN, "inference_geo": None, "service_tier": "standard"}
            assert "is_unknown" not in streamed["usage"], "that of the start would stay where an end tells more"
        else:
            assert b'"prompt_tokens"' not in written + told, usage
            assert b'"input_tokens"' not in written + told, usage


NOT_KNOWN = {
    "input_tokens": 0,
    "output_tokens": 0,
    "is_unknown": True,
    "output_tokens_details": None,
    "cache_creation_input_tokens": None,
    "cache_read_input_tokens": None,
    "cache_creation": None,
    "server_tool_use": None,
}


def test_parts_that_are_larger_than_their_whole_are_no_usage() -> None:
    usage = {**hosts.CHAT_USAGE, "prompt_tokens_details": {"cached_tokens": 41}}
    whole, _ = told_with(chat, usage)
    assert json.loads(between((messages, chat)).answer(whole, created=1))["usage"]["is_unknown"] is True


def test_what_a_message_counts_at_its_start_is_no_usage_of_its_own() -> None:
    """It begins with the prompt's, and a token or so of the answer's, long before there is any."""
    events = list(hosts.messages_stream([Words("x")]))
    told = sdks.streamed(chat, translated((chat, messages), events))["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == (40, 20)
    untold = [each.replace(b'"usage": {"output_tokens": 20', b'"x": {"y": 1') for each in events]
    assert b'"usage"' not in translated((chat, messages), untold)


@pytest.mark.parametrize("source", [chat, responses])
def test_a_message_whose_blocks_do_not_say_that_they_end_says_the_same(source: Format) -> None:
    said = [Thought("Hm."), Words("Hello"), *TWO_CALLS[1:]]
    without = [each for each in hosts.messages_stream(said) if b"content_block_stop" not in each]
    told = [
        sdks.streamed(source, translated((source, messages), each)) for each in (hosts.messages_stream(said), without)
    ]
    assert told[0] == told[1]


def test_a_message_says_why_it_stopped_in_any_of_its_deltas() -> None:
    """Some hosts tell the counts so far before, or the last ones once more."""
    *events, delta, stop = hosts.messages_stream([Called("a", "f", {})])
    counts = hosts.data({"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 1}})
    for told in ([*events, counts, delta, stop], [*events, delta, counts.replace(b"1}", b"20}"), stop]):
        answer = sdks.streamed(chat, translated((chat, messages), told))
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert b"ended before its answer did" in translated((chat, messages), [*events, counts])
    assert b"ended before its answer did" not in translated((chat, messages), [*events, counts, stop])


def test_the_counts_so_far_of_a_stream_that_is_cut_off_are_not_told_as_the_last() -> None:
    """Some hosts tell them in every chunk. Without a reason for its end, or the last usage, it has none."""
    chunk = json.loads(chat_chunks({"content": "x"})[0].removeprefix(b"data: "))
    so_far = hosts.data({**chunk, "usage": LEAST[id(chat)]})
    told = translated((responses, chat), [so_far])
    assert b"ended before its answer did" in told
    assert b"input_tokens" not in told
    last = hosts.data({**chunk, "choices": [], "usage": LEAST[id(chat)]})
    assert sdks.streamed(responses, translated((responses, chat), [so_far, last]))["usage"]["total_tokens"] == 60
    assert sdks.streamed(responses, translated((responses, chat), [so_far, hosts.DONE]))["usage"]["total_tokens"] == 60


# What is published of each format


PUBLISHED = {
    id(chat): ("ChatResult", "ChatStreamChunk"),
    id(messages): ("MessagesResult", "MessagesStreamEvents"),
    id(responses): ("OpenResponsesResult", "StreamEvents"),
}
RICH: Said = [Thought("So."), Words("Hello"), Called("call_1", "f", {"a": 1}), Called("call_2", "g", {})]


@pytest.mark.parametrize("way", WAYS, ids=name)
@pytest.mark.parametrize("said", [RICH, [Thought("", "YWxs"), No("No.")]], ids=["much", "a refusal"])
def test_what_is_translated_has_every_member_that_openrouter_publishes(way: tuple[Format, Format], said: Said) -> None:
    source, native = way
    whole, event = PUBLISHED[id(source)]
    assert_documented(whole, json.loads(between(way).answer(hosts.whole(native, said), created=CREATED)))
    events = list(hosts.stream(native, said))
    cut = [*events[: len(events) // 2], ERRORS[id(native)]]
    for data in [*sdks.datas(translated(way, events)), *sdks.datas(translated(way, cut))]:
        assert_documented(event, without_null_usage(json.loads(data)))
    untold, untold_events = told_with(native, None)
    assert_documented(whole, without_null_usage(json.loads(between(way).answer(untold, created=CREATED))))
    assert_documented(event, without_null_usage(json.loads(list(sdks.datas(translated(way, untold_events)))[-1])))


def without_null_usage(told: Any) -> Any:
    """The usage of a response that has none yet is null: by Open Responses, by what OpenRouter sends and by what its
    SDK takes. Its document alone does not say so."""
    for response in (told, told.get("response", {})):
        if response.get("object") == "response" and response["usage"] is None:
            del response["usage"]
    return told


def test_there_is_no_translation_within_a_format() -> None:
    assert all(translation(each, each) is None for each in sdks.FORMATS)


def test_hosts_that_leave_members_out_or_say_null_are_read_all_the_same() -> None:
    bare = b'{"choices":[{"message":{"content":null,"tool_calls":[{"id":null,"function":{"name":"f"}}]}}],"usage":null}'
    told = json.loads(between((messages, chat)).answer(bare, created=7, generation_id="gen-1"))
    (block,) = told["content"]
    assert block == {"type": "tool_use", "id": "call_0", "name": "f", "input": {}, "caller": {"type": "direct"}}
    assert (told["id"], told["stop_reason"], told["usage"]["output_tokens"]) == ("gen-1", "tool_use", 0)
    events = [
        b'data: {"choices":[{"index":null,"delta":{"content":"Hi","tool_calls":null},"finish_reason":null}]}\n\n',
        b'data: {"choices":[{"delta":null,"finish_reason":"stop"}],"created":null,"id":null}\n\n',
    ]
    for source in (messages, responses):
        stream = between((source, chat)).stream(Progress("gen-1", "a/b", 7))
        answer = sdks.streamed(source, b"".join([stream.feed(each) for each in events]) + stream.finish())
        assert (told_in(source, answer), answer["id"], answer["model"]) == ([Words("Hi")], "gen-1", "a/b")


@pytest.mark.parametrize("odd", [None, {"a": 1}])
def test_what_is_no_text_where_one_should_be_says_nothing(odd: Any) -> None:
    """It is no part of a text, be it `null`, cut as if it were one."""
    blocks = [{"type": "thinking", "thinking": odd}, {"type": "text", "text": odd}, {"type": "text", "text": "Hi"}]
    message = {**json.loads(hosts.messages_whole([])), "content": blocks}
    parts = [{"type": "output_text", "text": odd}, {"type": "refusal", "refusal": odd}]
    items = [{"type": "message", "content": parts}, {"type": "reasoning", "summary": [{"text": odd}]}]
    response = hosts.response("completed", [*items, *hosts.responses_items([Words("Hi")])], hosts.RESPONSES_USAGE)
    for native, answer in ((messages, message), (responses, response)):
        for source in sdks.FORMATS:
            if source is not native:
                told = json.loads(between((source, native)).answer(json.dumps(answer).encode(), created=1))
                assert [each for each in told_in(source, told) if each not in (Words(""), Thought(""), No(""))] == [
                    Words("Hi")
                ]


@pytest.mark.parametrize(
    ("native", "missing"),
    [(messages, ("message_start",)), (responses, ("response.created", "response.in_progress"))],
    ids=name,
)
def test_a_stream_without_its_first_event_is_begun_all_the_same(native: Format, missing: tuple[str, ...]) -> None:
    told = [
        each
        for each in hosts.stream(native, [Words("Hello")])
        if not any(f'"type": "{first}"'.encode() in each for first in missing)
    ]
    for source in sdks.FORMATS:
        if source is not native:
            assert told_in(source, sdks.streamed(source, translated((source, native), told))) == [Words("Hello")]


def test_a_chat_completion_without_a_reason_for_its_end_has_ended_where_it_tells_its_usage() -> None:
    told = chat_chunks({"content": "Hi"})
    usage = hosts.data({"choices": [], "usage": hosts.CHAT_USAGE})
    answer = sdks.streamed(messages, translated((messages, chat), [told[0], usage, hosts.DONE]))
    assert (told_in(messages, answer), answer["stop_reason"]) == ([Words("Hi")], "end_turn")
    assert b"ended before its answer did" in translated((messages, chat), [usage, hosts.DONE])
    called = translated((messages, chat), chat_chunks(call(0, "{}", "a"), finish="stop"))
    assert sdks.streamed(messages, called)["stop_reason"] == "tool_use"


@pytest.mark.parametrize("source", [messages, responses])
def test_an_answer_has_the_id_of_the_first_chunk_that_has_one(source: Format) -> None:
    """Azure's first tells of its filters, and has none."""
    filters = hosts.data(
        {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []}
    )
    told = [filters, *chat_chunks({"content": "Hi"}, finish="stop")]
    answer = sdks.streamed(source, translated((source, chat), told))
    expected = sdks.streamed(source, translated((source, chat), told[1:]))
    assert (answer["id"], answer["model"]) == (expected["id"], expected["model"])
    assert answer["id"]


def test_only_the_first_of_several_choices_is_told() -> None:
    other = hosts.data({"choices": [{"index": 1, "delta": {"content": "No"}}]})
    told = chat_chunks({"content": "Yes"}, finish="stop")
    answer = sdks.streamed(messages, translated((messages, chat), [told[0], other, *told[1:]]))
    assert told_in(messages, answer) == [Words("Yes")]


def test_a_thought_of_several_parts_has_empty_lines_between_them() -> None:
    parts = [{"type": "summary_text", "text": text} for text in ("First.", "Then.")]
    item = {"id": "rs_1", "type": "reasoning", "summary": parts, "encrypted_content": "c2VhbA=="}
    whole = hosts.response("completed", [item], hosts.RESPONSES_USAGE)
    added = {"output_index": 0, "item": {**item, "summary": []}}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": hosts.response("in_progress", [], None)},
        {"type": "response.output_item.added", **added},
    ]
    for index, part in enumerate(parts):
        place = {"item_id": "rs_1", "output_index": 0, "summary_index": index}
        events.append({"type": "response.reasoning_summary_part.added", **place, "part": {**part, "text": ""}})
        events.append({"type": "response.reasoning_summary_text.delta", **place, "delta": part["text"]})
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events.append({"type": "response.completed", "response": whole})
    told = [hosts.data({**each, "sequence_number": number}) for number, each in enumerate(events)]
    for source in (chat, messages):
        way = (source, responses)
        for answer in (
            json.loads(between(way).answer(hosts.whole_bytes(whole), created=1)),
            sdks.streamed(source, translated(way, told)),
        ):
            assert told_in(source, answer) == [Thought("First.\n\nThen.")]


def test_details_of_one_id_are_one_thought() -> None:
    """OpenAI's summaries and what is sealed of them, as OpenRouter tells them in a chat completion."""
    common = {"format": "openai-responses-v1", "id": "rs_1|odd"}
    details = [
        {"type": "reasoning.summary", "summary": "First.", **common, "index": 0},
        {"type": "reasoning.summary", "summary": "Then.", **common, "index": 1},
        {"type": "reasoning.encrypted", "data": "c2VhbA==", **common, "index": 2},
    ]
    body = json.loads(hosts.chat_whole([Words("Yes")]))
    body["choices"][0]["message"]["reasoning_details"] = details
    answer = json.loads(between((messages, chat)).answer(json.dumps(body).encode(), created=1))
    assert told_in(messages, answer) == [Thought("First.\n\nThen."), Words("Yes")]
    order = json.loads(between((messages, chat)).order(next_turn(messages, answer))[0])
    first, sealed = order["messages"][1]["reasoning_details"]
    assert (first["summary"], sealed["data"], sealed["id"]) == ("First.\n\nThen.", "c2VhbA==", "rs_1_odd")


def test_what_was_cut_short_is_an_incomplete_item_of_a_response() -> None:
    body = hosts.chat_whole([Words("Hel")]).replace(b'"stop"', b'"length"')
    streamed = translated((responses, chat), chat_chunks({"content": "Hel"}, finish="length"))
    *_, last = sdks.datas(streamed)
    for answer in (json.loads(between((responses, chat)).answer(body, created=1)), json.loads(last)["response"]):
        assert (answer["status"], answer["output"][-1]["status"]) == ("incomplete", "incomplete")


def test_what_was_written_to_a_cache_for_an_hour_is_told_apart() -> None:
    creation = {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}
    told = {**hosts.MESSAGES_USAGE, "cost": 0, "cache_creation": creation}
    usage = read_usage(json.dumps(told).encode(), is_messages=True)
    assert usage is not None
    assert usage_in_messages(usage)["cache_creation"] == creation


def test_what_the_hosts_own_tools_did_is_dropped() -> None:
    blocks = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "Found."},
    ]
    body = {**json.loads(hosts.messages_whole([])), "content": blocks, "stop_reason": "pause_turn"}
    answer = sdks.whole(chat, between((chat, messages)).answer(json.dumps(body).encode(), created=1))
    assert (told_in(chat, answer), answer["choices"][0]["finish_reason"]) == ([Words("Found.")], "stop")
    item = {"type": "web_search_call", "id": "ws", "status": "completed", "content": "odd", "summary": 1}
    response = hosts.response("completed", [item, *hosts.responses_items([Words("Found.")])], hosts.RESPONSES_USAGE)
    answer = sdks.whole(messages, between((messages, responses)).answer(json.dumps(response).encode(), created=1))
    assert told_in(messages, answer) == [Words("Found.")]


def test_a_chat_completion_that_failed_within_its_stream_is_an_error() -> None:
    told = chat_chunks({"content": "x"}, finish="error")
    stream = stream_of((messages, chat))
    assert b"then failed" in b"".join([stream.feed(each) for each in told])
