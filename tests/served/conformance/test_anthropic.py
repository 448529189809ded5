"""`anthropic` (Python) against the real server: messages, and the streaming helper, the strict one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import pytest

from tests.gateway import Gateway, eventually

ClientOf = Callable[..., anthropic.Anthropic]

HUNG_UP = "held (open: the caller hung up before the answer's end)"
HELLO: Any = [{"role": "user", "content": "Hello"}]
TOOLS: Any = [{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
STREAMED = [
    "",
    "defect=data-only",
    "defect=named-done",
    "defect=no-start-usage",
    "defect=empty-data",
    "crlf",
    "split=3",
]


def root(gateway: Gateway) -> str:
    return gateway.base.removesuffix("/v1")


@pytest.fixture
def client_of(shared_gateway: Gateway) -> Iterator[ClientOf]:
    """A client for a key; all are closed at the end."""
    with ExitStack() as stack:

        def make(key: str, retries: int = 0) -> anthropic.Anthropic:
            client = anthropic.Anthropic(base_url=root(shared_gateway), auth_token=key, max_retries=retries)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(shared_gateway: Gateway, client_of: ClientOf) -> anthropic.Anthropic:
    return client_of(shared_gateway.key)


def ask(client: anthropic.Anthropic, model: str = "sim/echo", **more: Any) -> Any:
    return client.messages.create(**{"model": model, "max_tokens": 100, "messages": HELLO, **more})


def test_whole(client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.create(model="sim/echo", max_tokens=100, messages=HELLO, system="Be brief.")
    assert raw.headers["x-farebox-fare-usd"] == "0.00001"
    answer = raw.parse()
    assert answer.content[0].text == "You said: Hello"  # type: ignore[union-attr]
    assert answer.id == raw.headers["x-generation-id"]


def test_by_x_api_key(shared_gateway: Gateway) -> None:
    with anthropic.Anthropic(base_url=root(shared_gateway), api_key=shared_gateway.key, max_retries=0) as client:
        assert ask(client).content[0].text == "You said: Hello"


@pytest.mark.parametrize("fault", STREAMED)
def test_streamed(client: anthropic.Anthropic, fault: str) -> None:
    events = list(ask(client, f"sim/echo:{fault}", stream=True))
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert text == "You said: Hello"
    (last,) = [event for event in events if event.type == "message_delta"]
    assert last.usage.model_extra["cost"] == 2.55e-06


@pytest.mark.parametrize("fault", [*STREAMED, "usage=missing"])
def test_streaming_helper(client: anthropic.Anthropic, fault: str) -> None:
    with client.messages.stream(model=f"sim/reasoner:{fault}", max_tokens=100, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "You said: Hello"
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.usage.output_tokens == (0 if "missing" in fault else 14)


def test_tools_whole_and_streamed(client: anthropic.Anthropic) -> None:
    (call,) = ask(client, tools=TOOLS).content
    assert (call.type, call.input) == ("tool_use", {"city": "Hello"})
    stream: Any
    with client.messages.stream(model="sim/echo", max_tokens=100, messages=HELLO, tools=TOOLS) as stream:
        (call,) = stream.get_final_message().content
    assert call.input == {"city": "Hello"}
    result = [
        *HELLO,
        {"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]},
    ]
    assert ask(client, messages=result, tools=TOOLS).content[0].type == "text"


@anthropic.beta_tool
def weather(city: str) -> str:
    """What the weather is like.

    Args:
        city: Where.
    """
    return f"It rains in {city}."


@pytest.mark.parametrize("streamed", [False, True])
def test_the_tool_runner_goes_on_without_the_thread_that_it_asks_for(
    shared_gateway: Gateway, client: anthropic.Anthropic, streamed: bool
) -> None:
    before = len(shared_gateway.orders())
    run: Any = client.beta.messages.tool_runner(
        model="sim/echo", max_tokens=100, messages=HELLO, tools=[weather], stream=streamed
    )
    said = [turn.get_final_message() if streamed else turn for turn in run]
    assert [message.stop_reason for message in said] == ["tool_use", "end_turn"]
    assert said[-1].content[0].text == "You said: Hello"
    assert len(shared_gateway.orders()) == before + 2


def test_pictures(client: anthropic.Anthropic) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What?"}]
    assert ask(client, "sim/seer", messages=[{"role": "user", "content": content}]).content[0].text == "You said: What?"


@pytest.mark.parametrize("fault", ["error-at-event=2", "bare-error-at-event=2", "cut-at-event=2"])
def test_a_stream_that_breaks_raises(client: anthropic.Anthropic, fault: str) -> None:
    with pytest.raises(anthropic.APIStatusError, match=r"(?i)simulated|broke off|own account"):
        list(ask(client, f"sim/echo:{fault}", stream=True))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (422, anthropic.UnprocessableEntityError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (503, anthropic.InternalServerError),
    ],
)
def test_each_status_is_its_typed_error(
    client: anthropic.Anthropic, status: int, error: type[anthropic.APIStatusError]
) -> None:
    # A 403 of the operator's own account is another's business: this one is about what was said.
    fault = "flagged" if status == 403 else f"status={status}"
    with pytest.raises(error) as raised:
        ask(client, f"sim/echo:{fault}")
    assert raised.value.status_code == status


def test_fareboxs_own_errors_have_anthropics_types(shared_gateway: Gateway, client_of: ClientOf) -> None:
    poor = shared_gateway.new_key("poor reader", "--plan", "paying")
    for key, model, messages, kind in (
        (shared_gateway.key, "sim/echo", [], "invalid_request_error"),
        (shared_gateway.key, "nobody/nothing", HELLO, "not_found_error"),
        ("sk-fb-nobody", "sim/echo", HELLO, "authentication_error"),
        (poor, "sim/echo", HELLO, "billing_error"),
    ):
        caller = client_of(key)
        with pytest.raises(anthropic.APIStatusError) as raised:
            ask(caller, model, messages=messages)
        body: Any = raised.value.body
        assert (body["type"], body["error"]["type"]) == ("error", kind)


def test_what_may_have_been_paid_for_is_not_repeated(shared_gateway: Gateway, client_of: ClientOf) -> None:
    key = shared_gateway.new_key("no repeat", "--plan", "paying", "--prepaid", "1")
    with pytest.raises(anthropic.APIStatusError) as refused:
        ask(client_of(key, retries=3), "sim/echo:cut-at-byte=30")
    assert refused.value.status_code == 424
    assert len(shared_gateway.orders("no repeat")) == 1


def test_a_stream_that_its_caller_leaves_is_an_open_question(shared_gateway: Gateway, client_of: ClientOf) -> None:
    key = shared_gateway.new_key("leaving reader", "--plan", "paying", "--prepaid", "1")
    stream = ask(client_of(key), "sim/echo:tokens=500,token-ms=10", stream=True)
    next(iter(stream))
    stream.close()
    eventually(lambda: [line["what"] for line in shared_gateway.orders("leaving reader")] == [HUNG_UP])


def test_models_are_listed_page_by_page_and_one_by_one(shared_gateway: Gateway) -> None:
    with anthropic.Anthropic(
        base_url=root(shared_gateway), auth_token=shared_gateway.key, max_retries=0, _strict_response_validation=True
    ) as strict:
        everything = [model.id for model in strict.models.list(limit=5)]
        assert everything == [model.id for model in strict.models.list()] == [m.id for m in strict.beta.models.list()]
        assert len(everything) == len(set(everything)) > 10
        assert [model.id for model in strict.models.list(limit=5, after_id=everything[6])] == everything[7:]
        before = [model.id for model in strict.models.list(limit=2, before_id=everything[5])]
        assert sorted(before) == sorted(everything[:5])
        for name in ("sim/echo", "sim/echo:free", "sim/embedder"):
            model = strict.models.retrieve(name)
            assert (model.id, model.type, model.created_at.year, model.lifecycle) == (name, "model", 2026, "active")
        assert strict.models.retrieve("sim/echo-pro").max_input_tokens == 200_000
        with pytest.raises(anthropic.NotFoundError, match="`no/body` is not in the list"):
            strict.models.retrieve("no/body")
