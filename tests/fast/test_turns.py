"""Messages on a WebSocket, and what is said to them."""

import json
from typing import Any

import pytest
from msgspec import Raw

from farebox.core import turns
from farebox.core.errors import Refusal, broken, forbidden, too_many, unknown
from farebox.core.formats.envelope import refusal_body


def read(**message: Any) -> tuple[Any, turns.Turn]:
    turn = turns.read_turn(json.dumps({"type": "response.create", **message}).encode())
    return json.loads(turn.body), turn


def test_a_turn_is_an_order_that_is_streamed() -> None:
    body, turn = read(model="m", input="x", stream=False, stream_options={}, generate=True, previous_response_id="r")
    assert body == {"model": "m", "input": "x", "stream": True}
    assert (turn.previous, turn.generates) == ("r", True)
    body, turn = read(model="m", previous_response_id=None, background=None, stream_id=None, generate=False)
    assert body == {"model": "m", "stream": True, "background": None, "stream_id": None}
    assert (turn.previous, turn.generates) == ("", False)


@pytest.mark.parametrize(
    "message", [b"", b"nothing", b"[]", b'{"type": null}', b'{"type": ["response.create"]}', b"[" * 9_999]
)
def test_what_is_no_turn_is_refused(message: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        turns.read_turn(message)
    assert refused.value.status == 400


def items(*each: dict[str, Any]) -> list[Raw]:
    return [Raw(json.dumps(item).encode()) for item in each]


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call", "shell_call"])
def test_outputs_are_of_calls_before_them(kind: str) -> None:
    call, output = {"type": kind, "call_id": "c"}, {"type": f"{kind}_output", "call_id": "c", "output": "x"}
    turns.check_calls(items(call), items(output))
    turns.check_calls([], items(call, output))
    for earlier, own in ([], [output]), ([{**call, "call_id": "d"}], [output]), ([], [output, call]):
        with pytest.raises(Refusal):
            turns.check_calls(items(*earlier), items(*own))


@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    [
        (unknown("no"), "invalid_request_error", "not_found"),
        (forbidden("no"), "permission_error", "permission_denied"),
        (too_many("no", 7), "rate_limit_error", "rate_limit_exceeded"),
        (Refusal(502, "provider_unavailable", "no"), "server_error", "provider_unavailable"),
    ],
)
def test_a_refusal_is_told_alike_here_and_from_http(refusal: Refusal, kind: str, code: str) -> None:
    event = json.loads(turns.refused(refusal))
    assert (event["type"], event["status"]) == ("error", refusal.status)
    assert event["error"] == {
        "type": kind,
        "code": code,
        "message": "no",
        "param": None,
        "metadata": {"error_type": refusal.error_type},
    }
    assert event.get("headers", {}).get("retry-after") == refusal.headers.get("retry-after")
    assert turns.refused_as(refusal.status, refusal_body(refusal), refusal.headers) == turns.refused(refusal)


def test_an_answer_that_is_not_there_is_openais_400() -> None:
    refusal = turns.not_in_memory("r")
    for told in turns.refused(refusal), turns.refused_as(404, refusal_body(refusal), {}):
        event = json.loads(told)
        assert (event["status"], event["error"]["code"]) == (400, "previous_response_not_found")
        assert event["error"]["param"] == "previous_response_id"
    assert json.loads(turns.refused_as(503, b"<html>", {}))["status"] == 503


def test_how_a_turn_ended_is_read_from_its_last_event() -> None:
    said = {"type": "response.output_text.delta", "delta": '"response.completed" "error"'}
    assert turns.ended_by(json.dumps(said).encode()) is None
    for name in ("response.completed", "response.incomplete"):
        event = json.dumps({"type": name, "response": {"id": "r", "store": True}}).encode()
        ended = turns.ended_by(event)
        assert ended is not None
        assert (ended.response_id, ended.is_stored) == ("r", True)
        assert json.loads(turns.said_to_follow(event, "q"))["response"]["previous_response_id"] == "q"
    for failed in (
        {"type": "response.failed", "response": {"id": "r"}},
        {"type": "error"},
        {"type": "response.completed", "response": 5},
    ):
        assert turns.ended_by(json.dumps(failed).encode()) == turns.FAILED
    assert turns.message_of(refusal_body(broken("Broken"))) == "Broken"
