"""Answers in Responses that are kept for their account: with OpenAI's SDK, over the simulated upstream."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import openai
import pytest

from tests.gateway import Gateway, Response, eventually


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("stored")) as running:
        yield running
        running.audit()


_numbers = count()


@pytest.fixture
def account() -> str:
    """The name of an account of the test's own."""
    return f"account {next(_numbers)}"


@pytest.fixture
def sdk(gateway: Gateway, account: str) -> openai.OpenAI:
    return client(gateway, gateway.new_key(account, "--plan", "paying", "--prepaid", "5"))


def client(gateway: Gateway, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.base, api_key=key, max_retries=0)


def texts(sdk: openai.OpenAI, response_id: str) -> list[str]:
    page = sdk.responses.input_items.list(response_id, order="asc")
    return [part.text for item in page for part in item.content]  # type: ignore[union-attr]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_is_kept_found_continued_and_deleted(sdk: openai.OpenAI, streamed: bool) -> None:
    def turn(said: str, **more: Any) -> Any:
        if not streamed:
            return sdk.responses.create(model="sim/echo", input=said, **more)
        with sdk.responses.stream(model="sim/echo", input=said, **more) as events:
            return events.get_final_response()

    first = turn("one")
    assert first.store is True
    assert first.previous_response_id is None
    again = sdk.responses.retrieve(first.id)
    assert (again.id, again.output_text, again.usage) == (first.id, first.output_text, first.usage)

    second = turn("two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens
    assert texts(sdk, second.id) == ["one", first.output_text, "two"]
    assert texts(sdk, first.id) == ["one"]

    third = turn("three", previous_response_id=second.id, store=False)
    assert third.store is False
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(third.id)

    sdk.responses.delete(first.id)
    for gone in (lambda: sdk.responses.retrieve(first.id), lambda: sdk.responses.delete(first.id)):
        with pytest.raises(openai.NotFoundError):
            gone()
    with pytest.raises(openai.NotFoundError) as refused:
        turn("four", previous_response_id=second.id)
    assert refused.value.param == "previous_response_id"
    assert first.id in refused.value.message


def test_an_order_in_the_background_is_polled(gateway: Gateway, sdk: openai.OpenAI) -> None:
    begun = sdk.responses.create(model="sim/echo", input="later", background=True)
    assert (begun.status, begun.background, begun.output) == ("queued", True, [])
    ended = until_ended(sdk, begun.id)
    assert (ended.status, ended.output_text, ended.background) == ("completed", "You said: later", True)
    assert ended.id == begun.id
    assert sdk.responses.cancel(begun.id).status == "completed"
    after = sdk.responses.create(model="sim/echo", input="and", previous_response_id=begun.id)
    assert texts(sdk, after.id) == ["later", "You said: later", "and"]


def until_ended(sdk: openai.OpenAI, response_id: str) -> Any:
    found: list[Any] = []

    def has_ended() -> bool:
        found.append(sdk.responses.retrieve(response_id))
        return found[-1].status not in ("queued", "in_progress")

    eventually(has_ended)
    return found[-1]


SLOW = {"x-openrouter-simulate": "tokens=40,token-ms=25"}


def test_a_stream_in_the_background_is_taken_up_again(sdk: openai.OpenAI) -> None:
    order: dict[str, Any] = {"model": "sim/echo", "input": "a", "background": True, "stream": True}
    seen: list[Any] = []
    with sdk.responses.create(**order, extra_headers=SLOW) as events:
        for event in events:
            seen.append(event)
            if len(seen) == 6:
                break
    response_id = seen[0].response.id
    after = seen[-1].sequence_number

    rest = list(sdk.responses.retrieve(response_id, stream=True, starting_after=after))

    assert [event.sequence_number for event in (*seen, *rest)] == list(range(len(seen) + len(rest)))
    assert rest[-1].type == "response.completed"
    assert (rest[-1].response.id, rest[-1].response.background) == (response_id, True)
    again = list(sdk.responses.retrieve(response_id, stream=True))
    assert [event.type for event in again] == [event.type for event in (*seen, *rest)]
    assert until_ended(sdk, response_id).output_text == rest[-1].response.output_text


@pytest.mark.parametrize("ends_by", ["cancel", "delete"])
def test_an_order_in_the_background_is_stopped(
    gateway: Gateway, sdk: openai.OpenAI, account: str, ends_by: str
) -> None:
    order: dict[str, Any] = {"model": "sim/echo", "input": ends_by, "background": True}
    begun = sdk.responses.create(**order, extra_headers={"x-openrouter-simulate": "tokens=4000,token-ms=25"})
    if ends_by == "cancel":
        assert sdk.responses.cancel(begun.id).status == "cancelled"
        assert sdk.responses.retrieve(begun.id).status == "cancelled"
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.responses.create(model="sim/echo", input="b", previous_response_id=begun.id)
        assert refused.value.param == "previous_response_id"
    else:
        sdk.responses.delete(begun.id)
    eventually(lambda: [line["what"] for line in gateway.orders(account)] != ["pending"])
    if ends_by == "delete":
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(begun.id)


def test_what_is_no_answer_of_the_accounts_is_not_found(gateway: Gateway, sdk: openai.OpenAI) -> None:
    own = sdk.responses.create(model="sim/echo", input="mine")
    other = client(gateway, gateway.key)
    for ask in (
        lambda: other.responses.retrieve(own.id),
        lambda: other.responses.delete(own.id),
        lambda: other.responses.cancel(own.id),
        lambda: other.responses.input_items.list(own.id),
        lambda: other.responses.create(model="sim/echo", input="a", previous_response_id=own.id),
        lambda: sdk.responses.retrieve("resp_never"),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    assert client(gateway, "sk-fb-x").api_key
    with pytest.raises(openai.AuthenticationError):
        client(gateway, "sk-fb-x").responses.retrieve(own.id)
    assert sdk.responses.retrieve(own.id).output_text == own.output_text
    with pytest.raises(openai.BadRequestError, match="background"):
        sdk.responses.cancel(own.id)


def test_an_answer_that_failed_is_not_continued(sdk: openai.OpenAI) -> None:
    failed = sdk.responses.create(model="sim/echo", input="a", extra_headers={"x-openrouter-simulate": "failed"})
    assert failed.status == "failed"
    assert sdk.responses.retrieve(failed.id).status == "failed"
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(model="sim/echo", input="b", previous_response_id=failed.id)
    assert refused.value.param == "previous_response_id"


@pytest.mark.parametrize(("simulate", "said"), [("status=400", ""), ("cut-at-event=3", "upstream broke off")])
def test_an_order_in_the_background_that_gets_no_answer_says_why(sdk: openai.OpenAI, simulate: str, said: str) -> None:
    headers = {"x-openrouter-simulate": simulate}
    begun = sdk.responses.create(model="sim/echo", input="a", background=True, extra_headers=headers)
    ended = until_ended(sdk, begun.id)
    assert ended.status == "failed"
    assert ended.error.message
    assert said in ended.error.message


@pytest.mark.parametrize(
    ("order", "status", "member"),
    [
        ({"background": True, "store": False}, 400, "store"),
        ({"conversation": "conv_1"}, 400, "conversation"),
        ({"store": "yes"}, 400, "store"),
        ({"previous_response_id": 5}, 400, "previous_response_id"),
        ({"background": True, "model": "nobody/knows"}, 404, "nobody/knows"),
        ({"background": True, "input": []}, 400, "input"),
    ],
)
def test_what_cannot_be_kept_is_refused(gateway: Gateway, order: dict[str, Any], status: int, member: str) -> None:
    answer = post(gateway, gateway.key, **order)
    assert answer.status == status
    assert member in answer.error["message"]


def post(gateway: Gateway, key: str, **order: Any) -> Response:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    return gateway.request("POST", "/api/v1/responses", {"model": "sim/echo", "input": "Hi", **order}, headers)


def test_items_of_an_input_are_paged(sdk: openai.OpenAI) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    items: list[Any] = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        call,
        {"type": "function_call_output", "call_id": "c", "output": "3"},
    ]
    order = sdk.responses.create(model="sim/echo", input=items)
    latest = sdk.responses.input_items.list(order.id, limit=3)
    assert latest.has_more
    assert [item.type for item in latest.data] == ["function_call_output", "function_call", "message"]
    rest = sdk.responses.input_items.list(order.id, after=latest.last_id)
    assert (rest.has_more, [item.content[0].text for item in rest.data]) == (False, ["one"])
    for wrong in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "nobody"}):
        with pytest.raises(openai.BadRequestError, match=next(iter(wrong))):
            sdk.responses.input_items.list(order.id, **wrong)  # type: ignore[arg-type]


def test_the_same_background_order_under_one_key_runs_once(gateway: Gateway, sdk: openai.OpenAI) -> None:
    order: dict[str, Any] = {"model": "sim/echo", "input": "once", "background": True}
    headers = {"idempotency-key": "k"}
    begun = [sdk.responses.create(**order, extra_headers=headers).id for _ in range(2)]
    assert begun[0] == begun[1]
    until_ended(sdk, begun[0])
    with pytest.raises(openai.ConflictError):
        sdk.responses.create(**{**order, "input": "other"}, extra_headers=headers)
