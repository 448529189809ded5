"""What Open Responses requires of a response and of its events, over upstreams that say less."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from farebox.core.errors import broken
from farebox.core.formats import Format, Progress, chat, messages, responses
from farebox.core.meter import Meter
from farebox.core.translate import translation
from tests import hosts, sdks
from tests.hosts import Called, No, Thought, Words
from tests.schemas import assert_accepted, assert_specified

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
ASKED: dict[str, Any] = {
    "model": "a/b",
    "input": "Hello",
    "instructions": "Be brief.",
    "temperature": 0.25,
    "top_p": 0.5,
    "presence_penalty": 0.1,
    "frequency_penalty": -0.1,
    "top_logprobs": 2,
    "truncation": "auto",
    "parallel_tool_calls": False,
    "tools": [TOOL],
    "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
    "reasoning": {"effort": "high"},
    "max_output_tokens": 99,
    "max_tool_calls": 3,
    "store": False,
    "service_tier": "flex",
    "metadata": {"trip": "7"},
    "safety_identifier": "s",
    "prompt_cache_key": "k",
}
ECHOED: dict[str, Any] = {
    **{name: value for name, value in ASKED.items() if name not in ("model", "input")},
    "tools": [{**TOOL, "description": None, "strict": None}],
    "tool_choice": {**ASKED["tool_choice"], "mode": "auto"},
    "text": {"format": {**ASKED["text"]["format"], "description": None, "strict": False}, "verbosity": "low"},
    "reasoning": {"effort": "high", "summary": None},
}
UNASKED: dict[str, Any] = {
    "previous_response_id": None,
    "instructions": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "top_logprobs": 0,
    "temperature": 1,
    "reasoning": {"effort": None, "summary": None},
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": False,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}
"""What is told where nobody said it."""

BARE: list[dict[str, Any]] = [
    {"type": "reasoning", "encrypted_content": None},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {
        "type": "message",
        "phase": None,
        "content": [
            {
                "type": "output_text",
                "text": "Hi",
                "annotations": [{"type": "url_citation", "url": "https://a.example"}],
            },
            {"type": "refusal", "refusal": "No."},
            {"type": "output_text", "text": "Yes"},
        ],
    },
]
PHASED = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "phase": "commentary"}


def asked(**members: Any) -> Progress:
    order = {"model": "a/b", "input": "Hello", **members}
    return Progress("gen-1", "a/b", 1, asked=json.dumps(order).encode())


def whole(body: dict[str, Any], during: Progress | None = None) -> dict[str, Any]:
    """A native answer, completed."""
    meter = Meter(responses, during or asked())
    told: dict[str, Any] = json.loads(meter.read_answer(json.dumps(body).encode())[0])
    assert_specified("ResponseResource", told)
    assert_accepted("OpenResponsesResult", told)
    return told


def stream(events: Iterable[dict[str, Any]], during: Progress | None = None) -> list[dict[str, Any]]:
    """A native stream, completed."""
    meter = Meter(responses, during or asked())
    told = b"".join(meter.feed(b"data: %b\n\n" % json.dumps(each).encode()) for each in events)
    return checked(told)


def checked(told: bytes) -> list[dict[str, Any]]:
    events = [json.loads(data) for data in sdks.datas(told)]
    for event in events:
        assert_specified("StreamingEvent", event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def test_an_answer_that_says_nothing_of_its_order_tells_what_was_asked() -> None:
    told = whole({"output": []}, asked(**ASKED))
    assert {name: told[name] for name in ECHOED} == ECHOED


def test_what_nobody_said_is_the_specifications_default() -> None:
    told = whole({"output": []})
    assert {name: told[name] for name in UNASKED} == UNASKED


@pytest.mark.parametrize("odd", ["x", {"a": 1}, [1], None])
def test_what_an_order_may_not_have_there_is_not_told(odd: Any) -> None:
    told = whole({"output": []}, asked(**dict.fromkeys(("temperature", "top_logprobs", "background", "store"), odd)))
    assert {name: told[name] for name in UNASKED} == UNASKED


def test_what_the_upstream_says_stays() -> None:
    said = {"temperature": 0, "metadata": {"a": "b"}, "tools": [], "service_tier": "scale", "store": True, "x": 1}
    told = whole({"output": [], **said}, asked(**ASKED))
    assert {name: told[name] for name in said} == said
    assert whole({"output": [PHASED | {"content": []}]})["output"][0]["phase"] == "commentary"


def test_items_and_their_parts_are_completed() -> None:
    told = whole({"output": BARE, "status": "incomplete", "incomplete_details": {}, "error": {"code": 500}})
    thought, call, message = told["output"]
    assert thought == {"type": "reasoning", "id": "rs_gen-1_0", "summary": []}
    assert (call["id"], call["status"]) == ("fc_gen-1_1", "completed")
    assert (message["id"], message["status"], message["role"]) == ("msg_gen-1_2", "incomplete", "assistant")
    assert told["error"]["code"] == "500"


STREAM: list[dict[str, Any]] = [
    {"type": "response.created", "response": {}},
    *(
        event
        for number, item in enumerate(BARE)
        for event in (
            {"type": "response.output_item.added", "output_index": number, "item": item},
            {"type": "response.output_item.done", "item": item},
        )
    ),
    {"type": "response.output_item.added", "item": {"type": "message"}},
    {"type": "response.content_part.added", "part": {"type": "output_text"}},
    {"type": "response.output_text.delta", "delta": "H", "logprobs": []},
    {
        "type": "response.output_text.annotation.added",
        "annotation": {"type": "url_citation", "url": "https://a.example"},
    },
    {"type": "response.output_text.done", "text": "H", "logprobs": []},
    {"type": "response.content_part.done", "part": {"type": "output_text", "text": "H"}},
    {"type": "response.refusal.delta", "delta": "N"},
    {"type": "response.refusal.done", "refusal": "N"},
    {"type": "response.reasoning.delta", "delta": "N"},
    {"type": "response.reasoning.done", "text": "N"},
    {"type": "response.reasoning_summary_part.added", "part": {"type": "summary_text", "text": ""}},
    {"type": "response.reasoning_summary_text.delta", "delta": "N"},
    {"type": "response.reasoning_summary_text.done", "text": "N"},
    {"type": "response.reasoning_summary_part.done", "part": {"type": "summary_text", "text": "N"}},
    {"type": "response.function_call_arguments.delta", "delta": "N"},
    {"type": "response.function_call_arguments.done", "arguments": "N"},
]
LASTS: list[dict[str, Any]] = [
    {"type": "response.completed", "response": {"output": BARE, "usage": {"input_tokens": 1}}},
    {"type": "response.incomplete", "response": {"output": BARE, "incomplete_details": None}},
    {"type": "response.failed", "response": None},
    {"type": "error", "code": None, "message": "boom"},
    {"error": {"message": "boom"}},
]


@pytest.mark.parametrize("last", LASTS, ids=str)
def test_every_event_of_a_bare_stream_is_completed(last: dict[str, Any]) -> None:
    numbered = [{**each, "sequence_number": number} for number, each in enumerate([*STREAM, last])]
    told = stream(numbered, asked(**ASKED))
    for response in (event["response"] for event in told if "response" in event):
        assert {name: response[name] for name in ECHOED} == ECHOED
    ids = {event["output_index"]: event["item"]["id"] for event in told if "item" in event}
    assert ids == {0: "rs_gen-1_0", 1: "fc_gen-1_1", 2: "msg_gen-1_2", 3: "msg_gen-1_3"}
    assert {event["item_id"] for event in told if "item_id" in event} == {"msg_gen-1_3"}
    for number, item in enumerate(told[-1]["response"]["output"]):
        assert item["id"] == ids[number]


def test_what_is_complete_passes_to_the_byte() -> None:
    complete = whole({"output": BARE, "usage": {"input_tokens": 1}}, asked(**ASKED))
    body = json.dumps(complete).encode()
    assert responses.see_answer(body).repaired is None
    meter = Meter(responses, asked())
    for event in stream([*STREAM, *LASTS[:1]]):
        data = b"data: %b\n\n" % json.dumps(event).encode()
        assert meter.feed(data) == data


@pytest.mark.parametrize("missing", sorted(UNASKED))
def test_each_member_is_missed(missing: str) -> None:
    complete = whole({"output": BARE})
    del complete[missing]
    assert responses.see_answer(json.dumps(complete).encode()).repaired is not None


def test_a_response_that_has_said_it_all_is_what_our_own_error_tells() -> None:
    """The order itself is kept no longer than that."""
    meter = Meter(responses, asked(temperature=0.5))
    created = {"type": "response.created", "sequence_number": 0, "response": whole({"output": [], "temperature": 0.75})}
    meter.feed(b"data: %b\n\n" % json.dumps(created).encode())
    (failed,) = (json.loads(data) for data in sdks.datas(meter.error_event(broken("it broke"))))
    assert_specified("StreamingEvent", failed)
    assert failed["response"]["temperature"] == 0.75


SAYINGS = [
    [Thought("So."), Words("Hello"), Called("call_1", "f", {"a": 1}), Called("call_2", "g", {})],
    [Thought("", "YWxs"), No("No.")],
    [Words("Hello")],
]


@pytest.mark.parametrize("said", SAYINGS, ids=["much", "a refusal", "a text"])
@pytest.mark.parametrize("native", [chat, messages], ids=["chat", "messages"])
def test_what_is_translated_is_complete(native: Format, said: hosts.Said) -> None:
    way = translation(responses, native)
    assert way is not None
    told = json.loads(way.answer(hosts.whole(native, said), created=1, during=asked(**ASKED)))
    assert_specified("ResponseResource", told)
    assert {name: told[name] for name in ECHOED if name != "service_tier"} == {
        name: value for name, value in ECHOED.items() if name != "service_tier"
    }
    events = list(hosts.stream(native, said))
    for cut in (events, events[: len(events) // 2]):
        translated = way.stream(asked(**ASKED))
        told_events = checked(b"".join(translated.feed(each) for each in cut) + translated.finish())
        for event in told_events:
            if "response" in event:
                assert event["response"]["temperature"] == 0.25
    during = asked(**ASKED)
    during.unheeded = ("metadata", "max_tool_calls", "text.verbosity", "top_p", "nothing.of", "input[message].phase")
    gathered = json.loads(way.gathered(b"".join(events), created=1, during=during))
    assert (gathered["metadata"], gathered["max_tool_calls"], gathered["top_p"]) == ({"trip": "7"}, None, 1)
    assert gathered["text"] == {"format": ECHOED["text"]["format"]}
