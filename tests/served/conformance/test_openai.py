"""`openai` (Python) against the real server; the streaming helpers are the strict ones."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from tests.gateway import Gateway, eventually

ClientOf = Callable[..., openai.OpenAI]

HUNG_UP = "held (open: the caller hung up before the answer's end)"
HELLO: Any = [{"role": "user", "content": "Hello"}]
SLOW = "sim/echo:tokens=500,token-ms=10"
PICTURE = "data:image/png;base64,iVBORw0KGgo="
TOOLS: Any = [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}
]


@pytest.fixture
def client_of(shared_gateway: Gateway) -> Iterator[ClientOf]:
    """A client for a key; all are closed at the end."""
    with ExitStack() as stack:

        def make(key: str, retries: int = 0) -> openai.OpenAI:
            client = openai.OpenAI(base_url=shared_gateway.base, api_key=key, max_retries=retries)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(shared_gateway: Gateway, client_of: ClientOf) -> openai.OpenAI:
    return client_of(shared_gateway.key)


def test_whole(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="sim/echo", messages=HELLO)
    assert raw.headers["x-farebox-fare-usd"] == "0.00001"
    answer = raw.parse()
    assert answer.choices[0].message.content == "You said: Hello"
    assert answer.id == raw.headers["x-generation-id"]
    assert answer.usage
    assert answer.usage.model_extra
    assert answer.usage.model_extra["cost"] == 2.55e-06


@pytest.mark.parametrize("streamed", [False, True])
def test_a_short_timeout_waits_for_a_slow_answer_as_it_would_upstream(shared_gateway: Gateway, streamed: bool) -> None:
    name = f"patient {streamed}"
    key = shared_gateway.new_key(name, "--plan", "paying", "--prepaid", "1")
    # Without an id in the head, so that a stream's comments come before it is known which generation it is.
    simulate = {"X-OpenRouter-Simulate": "first-token-ms=6000,no-generation-header"}
    with openai.OpenAI(base_url=shared_gateway.base, api_key=key, timeout=2, default_headers=simulate) as client:
        if streamed:
            stream = client.chat.completions.create(model="sim/echo", messages=HELLO, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        else:
            answer = client.chat.completions.create(model="sim/echo", messages=HELLO)
            text = answer.choices[0].message.content or ""
    assert text == "You said: Hello"
    # The SDK leaves a stream at its [DONE], which stands before its end.
    eventually(lambda: [line["what"] for line in shared_gateway.orders(name)] == ["fare"])


@pytest.mark.parametrize("usage", ["separate", "delta", "merged"])
def test_streamed(client: openai.OpenAI, usage: str) -> None:
    chunks = list(
        client.chat.completions.create(
            model="sim/echo",
            messages=HELLO,
            stream=True,
            extra_headers={"X-OpenRouter-Simulate": f"usage={usage},comments=2,first-token-ms=20"},
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said: Hello"
    assert [c.usage.total_tokens for c in chunks if c.usage] == [8]


def test_streaming_helper_with_tools(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="sim/echo", messages=HELLO, tools=TOOLS) as stream:
        for _ in stream:
            pass
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls
    assert json.loads(calls[0].function.arguments) == {"a": "Hello"}


@pytest.mark.parametrize("defect", ["empty-data", "retry", "wrapped-comment", "role-empty", "no-choices", "usage-null"])
def test_reads_to_the_end_of_streams_that_would_have_thrown(client: openai.OpenAI, defect: str) -> None:
    headers = {"X-OpenRouter-Simulate": f"defect={defect}"}
    chunks = list(client.chat.completions.create(model="sim/echo", messages=HELLO, stream=True, extra_headers=headers))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said: Hello"


@pytest.mark.parametrize("fault", ["error-at-event=1", "bare-error-at-event=1", "cut-at-event=1", "cut-at-byte=400"])
def test_raises_on_a_stream_that_breaks(client: openai.OpenAI, fault: str) -> None:
    headers = {"X-OpenRouter-Simulate": fault}
    stream = client.chat.completions.create(model="sim/echo", messages=HELLO, stream=True, extra_headers=headers)
    with pytest.raises(openai.APIError, match=r"(?i)simulated|broke off|own account"):
        list(stream)


def test_raises_its_typed_errors(client: openai.OpenAI, client_of: ClientOf) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody/nothing", messages=HELLO)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="sim/echo", messages=[])
    stranger = client_of("sk-fb-nobody")
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="sim/echo", messages=HELLO)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(
            model="sim/echo", messages=HELLO, extra_headers={"X-OpenRouter-Simulate": "status=429"}
        )


def test_does_not_repeat_what_may_have_been_paid_for(shared_gateway: Gateway, client_of: ClientOf) -> None:
    key = shared_gateway.new_key("no retry", "--plan", "paying", "--prepaid", "1")
    client = client_of(key, retries=3)
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(
            model="sim/echo", messages=HELLO, extra_headers={"X-OpenRouter-Simulate": "cut-at-byte=30"}
        )
    assert refused.value.status_code == 424
    assert len(shared_gateway.orders("no retry")) == 1


def test_lists_models(client: openai.OpenAI) -> None:
    assert "sim/echo" in [model.id for model in client.models.list()]


@pytest.mark.parametrize("name", ["sim/echo", "sim/echo:free", "sim/embedder"])
def test_models_are_what_the_strict_reader_demands(shared_gateway: Gateway, name: str) -> None:
    with openai.OpenAI(
        base_url=shared_gateway.base, api_key=shared_gateway.key, max_retries=0, _strict_response_validation=True
    ) as strict:
        assert len(list(strict.models.list())) > 10
        model = strict.models.retrieve(name)
        assert (model.id, model.object, model.owned_by) == (name, "model", "sim")
        with pytest.raises(openai.NotFoundError, match="`no/body` is not in the list"):
            strict.models.retrieve("no/body")


# Responses


def test_responses_whole(client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(model="sim/echo", input="Hello")
    assert raw.headers["x-farebox-fare-usd"] == "0.00001"
    answer = raw.parse()
    assert answer.output_text == "You said: Hello"
    assert answer.usage
    assert answer.usage.model_extra
    assert answer.usage.model_extra["cost"] == 2.55e-06


@pytest.mark.parametrize(
    "fault",
    [
        "",
        "defect=debug",
        "defect=fusion",
        "defect=no-sequence",
        "defect=no-nulls",
        "defect=no-logprobs",
        "defect=retry",
    ],
)
def test_responses_streaming_helper(client: openai.OpenAI, fault: str) -> None:
    with client.responses.stream(model=f"sim/reasoner:{fault}", input="Hello") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == "You said: Hello"


def test_responses_with_tools_and_pictures(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}]
    with client.responses.stream(model="sim/echo", input="Hello", tools=tools) as stream:
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"a": "Hello"}
    parts: Any = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": PICTURE}]
    seen = client.responses.create(model="sim/seer", input=[{"role": "user", "content": parts}])
    assert seen.output_text == "You said: What?"


@pytest.mark.parametrize("fault", ["bare-error-at-event=3", "error-at-event=3", "cut-at-event=3"])
def test_responses_that_break_raise_what_broke(client: openai.OpenAI, fault: str) -> None:
    with pytest.raises(openai.APIError, match=r"Simulated|broke off|own account"):
        list(client.responses.create(model=f"sim/echo:{fault}", input="Hello", stream=True))
    with (
        client.responses.stream(model=f"sim/echo:{fault}", input="Hello") as stream,
        pytest.raises(openai.APIError, match=r"Simulated|broke off|own account"),
    ):
        stream.get_final_response()


def test_responses_that_are_not_kept_cannot_be_continued(client: openai.OpenAI) -> None:
    for name in ("gen-1", client.responses.create(model="sim/echo", input="Hello", store=False).id):
        with pytest.raises(openai.NotFoundError, match="previous_response_id"):
            client.responses.create(model="sim/echo", input="Hello", previous_response_id=name)


# Embeddings


def test_embeddings_packed_and_plain_are_the_same(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="sim/embedder", input=["Hello", "there"])
    plain = client.embeddings.create(model="sim/embedder", input=["Hello", "there"], encoding_format="float")
    assert [vector.embedding for vector in packed.data] == [vector.embedding for vector in plain.data]
    assert plain.usage.prompt_tokens == 4


def test_embeddings_of_nothing_are_refused(client: openai.OpenAI) -> None:
    for nothing in ([], "", [""]):
        with pytest.raises(openai.BadRequestError, match="input"):
            client.embeddings.create(model="sim/embedder", input=nothing)


# Every format


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_each_status_is_its_typed_error(client: openai.OpenAI, status: int, error: type[openai.APIStatusError]) -> None:
    # A 403 of the operator's own account is another's business: this one is about what was said.
    fault = "flagged" if status == 403 else f"status={status}"
    for ask in (
        lambda: client.chat.completions.create(model=f"sim/echo:{fault}", messages=HELLO),
        lambda: client.responses.create(model=f"sim/echo:{fault}", input="Hello"),
        lambda: client.embeddings.create(model=f"sim/embedder:{fault}", input="Hello"),
    ):
        with pytest.raises(error) as raised:
            ask()
        assert raised.value.status_code == status


def test_a_stream_that_its_caller_leaves_is_an_open_question(shared_gateway: Gateway, client_of: ClientOf) -> None:
    key = shared_gateway.new_key("leaver", "--plan", "paying", "--prepaid", "1")
    client = client_of(key)
    for stream in (
        client.chat.completions.create(model=SLOW, messages=HELLO, stream=True),
        client.responses.create(model=SLOW, input="Hello", stream=True),
    ):
        next(iter(stream))
        stream.close()
    eventually(lambda: [line["what"] for line in shared_gateway.orders("leaver")] == [HUNG_UP] * 2)
