"""A turn that continues those before it."""

import json

import pytest

from farebox.core.continuation import continued, input_items, not_ended_well, not_found, output_items
from farebox.core.formats.envelope import refusal_body

THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
SAID = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}


def items(raw: object) -> list[object]:
    return [json.loads(bytes(each)) for each in raw]  # type: ignore[attr-defined]


def test_a_text_is_one_message_of_its_user() -> None:
    assert items(input_items(b'{"input": "Caf\\u00e9 \\"x\\""}')) == [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": 'Café "x"'}]}
    ]
    assert input_items(b'{"prompt": {"id": "pmpt_1"}}') == []


def test_thoughts_of_which_only_a_summary_was_given_are_not_taken_up() -> None:
    sealed = {**THOUGHT, "encrypted_content": "abc"}
    told = {**THOUGHT, "content": [{"type": "reasoning_text", "text": "hm"}]}
    answer = json.dumps({"output": [THOUGHT, {**THOUGHT, "content": []}, sealed, told, SAID]}).encode()

    assert items(output_items(answer)) == [sealed, told, SAID]
    assert output_items(b'{"output": null}') == []


def test_a_continued_turn_has_the_earlier_items_before_its_own() -> None:
    earlier = input_items(json.dumps({"input": [{"role": "user", "content": "Hello"}]}).encode())
    earlier += output_items(json.dumps({"output": [SAID]}).encode())
    body = json.dumps(
        {"model": "m", "input": "And now?", "previous_response_id": "resp_1", "temperature": 0.10}
    ).encode()

    turn = json.loads(continued(body, earlier))

    assert turn == {
        "model": "m",
        "temperature": 0.1,
        "input": [
            {"role": "user", "content": "Hello"},
            SAID,
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And now?"}]},
        ],
    }


def test_a_number_in_an_item_stays_as_it_was_written() -> None:
    assert b'{"n": 0.10}' in continued(b'{"input": [{"n": 0.10}]}', [])


@pytest.mark.parametrize(("refusal", "status"), [(not_found("resp_1"), 404), (not_ended_well("resp_1", "failed"), 400)])
def test_what_cannot_be_continued_names_the_member(refusal: Exception, status: int) -> None:
    error = json.loads(refusal_body(refusal))["error"]  # type: ignore[arg-type]

    assert (error["code"], error["param"]) == (status, "previous_response_id")
    assert "resp_1" in error["message"]
