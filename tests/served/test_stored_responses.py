"""Answers in Responses that are kept for their account: with OpenAI's SDK, over the simulated upstream."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest

from tests.gateway import Gateway, Response, events_of, eventually


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("stored")) as running:
        yield running
        running.audit()


@pytest.fixture
def sdk(gateway: Gateway, request: pytest.FixtureRequest) -> openai.OpenAI:
    """Of an account of the test's own."""
    return client(gateway, gateway.new_key(request.node.name[:60], "--plan", "paying", "--prepaid", "5"))


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


def test_a_stream_in_the_background_is_taken_up_again(sdk: openai.OpenAI) -> None:
    numbers = []
    with sdk.responses.create(model="sim/echo:words=30,token-ms=20", input="a", background=True, stream=True) as events:
        for event in events:
            numbers.append(event.sequence_number)
            if len(numbers) == 5:
                break
    assert event.type != "response.completed"
    first = numbers[0]
    response_id = sdk.responses.retrieve
