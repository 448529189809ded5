"""A conversation made short: what is ordered for that, and what comes back of it."""

import json
from typing import Any

import pytest

from farebox.core import compaction
from farebox.core.errors import Refusal
from farebox.core.formats import responses
from tests import hosts

CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": "é"}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "Nothing"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}
ASKED = {"role": "user", "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": "x"}]}


def ordered(**request: Any) -> Any:
    return json.loads(compaction.order_of(json.dumps({"model": "m", **request}).encode()))


def texts(order: Any) -> list[tuple[str, str]]:
    return [(item["role"], item["content"][0]["text"]) for item in order["input"]]


def test_calls_and_their_results_are_told_in_words_and_thoughts_are_left_out() -> None:
    order = ordered(input=[ASKED, THOUGHT, CALL, RESULT], tools=[{"type": "function"}], stream=True, instructions="Be")
    assert texts(order) == [
        ("user", "Look"),
        ("assistant", '[Call c1 of the tool look: {"at": "é"}]'),
        ("user", "[Result of the call c1: Nothing]"),
        ("user", compaction.TASK),
    ]
    assert order["input"][0] == ASKED
    assert {name: value for name, value in order.items() if name != "input"} == {
        "model": "m",
        "instructions": "Be",
        "store": False,
    }
    assert responses.read(json.dumps(order).encode()).images == 1


def test_a_text_is_a_conversation() -> None:
    assert texts(ordered(input="Hello"))[0] == ("user", "Hello")


@pytest.mark.parametrize(
    "given", [None, "", [], [{"type": "reasoning", "id": "r", "summary": []}], 5, {"role": "user"}]
)
def test_nothing_is_not_compacted(given: Any) -> None:
    with pytest.raises(Refusal) as refused:
        ordered(input=given)
    assert refused.value.status == 400
    assert refused.value.message.startswith("input: ")


def test_a_summary_comes_back_as_a_message() -> None:
    answer = hosts.responses_whole([hosts.Thought("Hm"), hosts.Words("The word is é \u2028.")])
    made = json.loads(compaction.compacted(answer))
    (item,) = made["output"]
    assert (made["object"], item["type"]) == ("response.compaction", "compaction")
    assert made["usage"] == json.loads(answer)["usage"]
    body = json.dumps({"model": "m", "input": [item, {"role": "user", "content": "On"}], "store": False}).encode()
    opened = json.loads(compaction.opened(body))
    assert opened["input"][1] == {"role": "user", "content": "On"}
    assert opened["input"][0]["content"][0]["text"].endswith("The word is é \u2028.")
    assert opened["input"][0]["role"] == "user"
    # Summed up once more, with what came after.
    again = ordered(input=opened["input"][:1])
    assert "The word is é" in texts(again)[0][1]


def test_what_is_not_ours_is_passed_on_as_it_is() -> None:
    sealed = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"}
    said = {"role": "user", "content": f"What does {compaction.MARK} mean?"}
    for body in (
        json.dumps({"input": [sealed, said]}).encode(),
        b'{"input": "farebox.summary.1."}',
        b"farebox.summary.1.",
    ):
        assert json_or_text(compaction.opened(body)) == json_or_text(body)
    assert ordered(input=[sealed])["input"][0] == sealed


def json_or_text(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


@pytest.mark.parametrize("content", ["?", "x", "\xff", "AAAA%", "_w=="])
def test_a_summary_that_was_changed_is_refused(content: str) -> None:
    item = {"type": "compaction", "encrypted_content": compaction.MARK + content}
    with pytest.raises(Refusal) as refused:
        compaction.opened(json.dumps({"input": [item]}).encode())
    assert refused.value.status == 400


@pytest.mark.parametrize("said", [[], [hosts.Words(" ")], [hosts.Thought("Hm")], [hosts.No("I will not")]])
def test_an_answer_without_a_summary_is_none(said: hosts.Said) -> None:
    with pytest.raises(Refusal) as refused:
        compaction.compacted(hosts.responses_whole(said))
    assert refused.value.status == 424
