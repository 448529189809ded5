"""What an answer says of being kept, and what is kept of it."""

import json
from typing import Any

import msgspec
import pytest

from farebox.core.sse import data_event, named_event
from farebox.core.stored import Keeping, Wanted, for_upstream, read_wanted
from tests.schemas import assert_specified

ANSWER = {"id": "gen-1", "object": "response", "status": "completed", "output": [], "store": False, "cost": 0.10}


def keeping(*, is_kept: bool = True, bytes_max: int = 1000, earlier: int = 0, **wanted: Any) -> Keeping:
    body = msgspec.json.encode({"input": "hi", **wanted})
    asked = read_wanted(body)
    assert asked is not None
    return Keeping(2, asked, is_kept=is_kept, bytes_max=bytes_max, earlier=earlier)


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"model":"m","input":"hi"}', b'{"store":false,"model":"m","input":"hi"}'),
        (b'{"model":"m","store":true}', b'{"model":"m","store":false}'),
        (b'{"store":null,"n":1.50}', b'{"store":false,"n":1.50}'),
        (b'{ "store" : false , "n" : 1.50 }', b'{ "store" : false , "n" : 1.50 }'),
        (b'{"background":true,"background_options":{}}', b'{"store":false}'),
        (b'{"store":false,"background":false}', b'{"store":false}'),
        (b"{}", b'{"store":false}'),
        (b'{"input":"say \\"store\\""}', b'{"store":false,"input":"say \\"store\\""}'),
    ],
)
def test_no_upstream_is_to_keep_anything(body: bytes, sent: bytes) -> None:
    wanted = read_wanted(body)
    assert wanted is not None
    assert for_upstream(body, wanted) == sent


def test_a_whole_answer_says_that_it_is_kept_and_is() -> None:
    kept = keeping(previous_response_id="gen-0")
    told = kept.tell(json.dumps(ANSWER).encode())
    assert json.loads(told) == {**ANSWER, "store": True, "previous_response_id": "gen-0", "background": False}
    assert b'"cost":0.1' in told
    row = kept.row(5, 6)
    assert row is not None
    assert (row.id, row.previous_id, row.status, row.input, row.answer) == (
        "gen-1",
        "gen-0",
        "completed",
        b'"hi"',
        told,
    )


@pytest.mark.parametrize(
    ("kept", "answer"),
    [
        (keeping(is_kept=False), ANSWER),
        (keeping(bytes_max=20), ANSWER),
        (keeping(), {**ANSWER, "id": ""}),
        (keeping(), {**ANSWER, "id": "x" * 201}),
        (keeping(), {**ANSWER, "status": None}),
    ],
)
def test_what_is_not_kept_says_so(kept: Keeping, answer: dict[str, Any]) -> None:
    assert json.loads(kept.tell(json.dumps(answer).encode()))["store"] is False
    assert kept.row(5, 6) is None


def event(kind: str, *, named: bool = False, **response: Any) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": 1, "response": {**ANSWER, **response}}).encode()
    return named_event(kind.encode(), data) if named else data_event(data)


DELTA = b'data: {"type":"response.output_text.delta","delta":"the \\"response\\""}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("last", ["completed", "incomplete", "failed"])
def test_the_end_of_a_kept_stream_is_held_back(last: str, named: bool) -> None:
    kept = keeping()
    first = kept.take(event("response.created", named=named, status="in_progress"))
    assert b'"store":true' in first
    assert first.startswith(b"event: ") == named
    assert kept.row(5, 6) is None, "a stream that has not ended"
    assert kept.take(DELTA) is DELTA
    assert kept.take(DELTA + event(f"response.{last}", named=named, status=last) + DONE) == DELTA
    assert kept.take(b": late\n\n") == b""
    assert kept.held_back.endswith(DONE + b": late\n\n")
    assert b'"store":true' in kept.held_back
    row = kept.row(5, 6)
    assert row is not None
    assert (row.status, json.loads(row.answer)["store"]) == (last, True)


def test_what_is_no_event_of_the_formats_passes() -> None:
    kept = keeping()
    for odd in (
        b': "response"\n\n',
        b'data: "response"\n\n',
        b'data: {"response": {}}\n\n',
        b'data: {"type":"response"',
    ):
        assert kept.take(odd) == odd


def test_what_guards_let_through_is_kept_in_the_place_of_what_was_sent() -> None:
    kept = keeping(earlier=1, previous_response_id="gen-0")
    kept.changed(b'{"input":[{"content":"before"},{"content":"[gone]"}]}')
    kept.tell(json.dumps(ANSWER).encode())
    row = kept.row(5, 6)
    assert row is not None
    assert (row.input, row.previous_id) == (b'[{"content":"[gone]"}]', "gen-0")
    kept.changed(b'{"input":[{"content":"all in one"}]}')
    row = kept.row(5, 6)
    assert row is not None
    assert (row.input, row.previous_id) == (b'[{"content":"all in one"}]', None)


def test_an_answer_in_the_background_has_the_id_that_its_caller_was_told() -> None:
    kept = keeping(background=True, stream=True)
    kept.run_as("resp_1")
    begun = kept.begun("m", 5_000_000, 6, "worker", b'{"model":"m","temperature":0.5}')
    assert (begun.status, begun.worker, json.loads(begun.answer)["id"]) == ("queued", "worker", "resp_1")
    assert_specified("ResponseResource", json.loads(begun.answer))
    assert json.loads(begun.answer)["temperature"] == 0.5
    sent = kept.take(event("response.created", status="in_progress"))
    sent += kept.take(event("response.completed"))
    row = kept.row(5, 6)
    assert row is not None
    assert (row.id, row.generation_id, row.events) == ("resp_1", "gen-1", sent + kept.held_back)
    assert sent.count(b'"resp_1"') == kept.held_back.count(b'"resp_1"') == 1


def test_events_that_are_too_long_to_be_told_again_are_not_kept() -> None:
    kept = keeping(background=True, stream=True, bytes_max=600)
    kept.run_as("resp_1")
    for _ in range(10):
        kept.take(DELTA)
    kept.take(event("response.completed"))
    row = kept.row(5, 6)
    assert row is not None
    assert row.events is None


def test_what_cannot_be_read_is_somebody_elses_to_refuse() -> None:
    assert read_wanted(b"[]") is None
    assert read_wanted(b'{"store":"yes"}') is None
    assert read_wanted(b'{"conversation":null}') == Wanted(conversation=msgspec.Raw(b"null"))
    assert keeping().tell(b"not JSON") == b"not JSON"
