"""`openrouter` (Python) against the real server: every endpoint that it has."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from openrouter import OpenRouter, errors
from openrouter.utils import RetryConfig

from tests.gateway import Gateway, eventually

HELLO: Any = [{"role": "user", "content": "Hello"}]
RouterOf = Callable[[str], OpenRouter]

SLOW = "sim/echo:tokens=500,token-ms=10"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture
def router_of(shared_gateway: Gateway) -> Iterator[RouterOf]:
    """A client for a key; all are closed at the end."""
    with ExitStack() as stack:
        yield lambda key: stack.enter_context(OpenRouter(server_url=shared_gateway.base, api_key=key))


@pytest.fixture
def router(shared_gateway: Gateway, router_of: RouterOf) -> OpenRouter:
    return router_of(shared_gateway.key)


def test_chat_whole(router: OpenRouter) -> None:
    answer = router.chat.send(model="sim/echo", messages=HELLO)
    assert answer.choices[0].message.content == "You said: Hello"
    assert answer.usage
    assert answer.usage.cost == 2.55e-06


@pytest.mark.parametrize(
    "fault", ["usage=separate", "usage=delta", "usage=merged", "defect=fingerprint-null", "no-final-blank,no-done"]
)
def test_chat_streamed(router: OpenRouter, fault: str) -> None:
    with router.chat.send(model=f"sim/echo:{fault}", messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said: Hello"
    assert [c.usage.cost for c in chunks if c.usage] == [2.55e-06]


def test_chat_raises_its_typed_errors(shared_gateway: Gateway, router: OpenRouter, router_of: RouterOf) -> None:
    with pytest.raises(errors.NotFoundResponseError):
        router.chat.send(model="nobody/nothing", messages=HELLO)
    key = shared_gateway.new_key("poor", "--plan", "paying")
    with pytest.raises(errors.PaymentRequiredResponseError):
        router_of(key).chat.send(model="sim/echo", messages=HELLO)
    with pytest.raises(errors.UnauthorizedResponseError):
        router_of("sk-fb-nobody").chat.send(model="sim/echo", messages=HELLO)


@pytest.mark.filterwarnings("ignore:.*DEPRECATED:DeprecationWarning")
def test_the_account_and_the_models_page_by_page(router: OpenRouter) -> None:
    assert router.credits.get_credits().data.total_credits == 5
    assert router.api_keys.get_current_key_metadata().data.label == "made at the first start"
    listed: Any = router.models.list(limit=4)
    seen: list[str] = []
    while listed is not None:
        seen += [model.id for model in listed.result.data]
        listed = listed.next()
    assert len(seen) == len(set(seen)) >= 12


# Responses, embeddings


def test_responses_whole(router: OpenRouter) -> None:
    answer: Any = router.responses.send(model="sim/echo", input="Hello")
    assert answer.output[0].content[0].text == "You said: Hello"
    assert answer.usage.cost == 2.55e-06


@pytest.mark.parametrize(
    "fault", ["crlf", "defect=no-sequence", "defect=no-nulls", "defect=chat-costs", "defect=debug"]
)
def test_responses_streamed(router: OpenRouter, fault: str) -> None:
    stream: Any
    with router.responses.send(model=f"sim/echo:{fault}", input="Hello", stream=True) as stream:
        events = list(stream)
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "You said: Hello"
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.cost == 2.55e-06


@pytest.mark.parametrize("fault", ["bare-error-at-event=3", "error-at-event=3", "cut-at-event=3"])
def test_responses_that_break_say_so(router: OpenRouter, fault: str) -> None:
    stream: Any
    with router.responses.send(model=f"sim/echo:{fault}", input="Hello", stream=True) as stream:
        *_, end = stream
    assert end.type == "response.failed"
    assert re.search(r"Simulated|broke off|own account", end.response.error.message)


def test_responses_with_tools(router: OpenRouter) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": PARAMETERS}]
    answer: Any = router.responses.send(model="sim/echo", input="Hello", tools=tools)
    assert answer.output[0].arguments == '{"city":"Hello"}'


def test_embeddings(router: OpenRouter) -> None:
    answer: Any = router.embeddings.generate(model="sim/embedder", input=["Hello", "there"])
    assert [len(each.embedding) for each in answer.data] == [8, 8]
    assert answer.usage.cost == 8e-08
    for fault in ("usage=missing", "cost=is-null"):
        answer = router.embeddings.generate(model=f"sim/embedder:{fault}", input="Hello")
        assert len(answer.data) == 1


# Every format


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.BadRequestResponseError),
        (403, errors.ForbiddenResponseError),
        (408, errors.RequestTimeoutResponseError),
        (413, errors.PayloadTooLargeResponseError),
        (422, errors.UnprocessableEntityResponseError),
        (429, errors.TooManyRequestsResponseError),
        (500, errors.InternalServerResponseError),
        (502, errors.BadGatewayResponseError),
        (503, errors.ServiceUnavailableResponseError),
        (524, errors.EdgeNetworkTimeoutResponseError),
        (529, errors.ProviderOverloadedResponseError),
    ],
)
def test_each_status_is_its_typed_error(router: OpenRouter, status: int, error: type[Exception]) -> None:
    # A 403 of the operator's own account is another's business: this one is about what was said.
    fault = "flagged" if status == 403 else f"status={status}"
    once = RetryConfig("none", None, False)  # type: ignore[arg-type]
    for ask in (
        lambda: router.chat.send(model=f"sim/echo:{fault}", messages=HELLO, retries=once),
        lambda: router.responses.send(model=f"sim/echo:{fault}", input="Hello", retries=once),
    ):
        with pytest.raises(error):
            ask()


def test_a_stream_that_its_caller_leaves_is_an_open_question(shared_gateway: Gateway, router_of: RouterOf) -> None:
    key = shared_gateway.new_key("router leaver", "--plan", "paying", "--prepaid", "1")
    router = router_of(key)
    for stream in (
        router.chat.send(model=SLOW, messages=HELLO, stream=True),
        router.responses.send(model=SLOW, input="Hello", stream=True),
    ):
        with stream as events:
            next(iter(events))
    hung_up = "held (open: the caller hung up before the answer's end)"
    eventually(lambda: [line["what"] for line in shared_gateway.orders("router leaver")] == [hung_up] * 2)


# Lists and records


def test_lists(router: OpenRouter) -> None:
    (model,) = router.models.list(q="pro").result.data  # type: ignore[union-attr]
    assert model.id == "sim/echo-pro"
    assert router.models.count(output_modalities="embeddings").data.count == 1
    assert router.embeddings.list_models().result.data[0].id == "sim/embedder"  # type: ignore[union-attr]
    assert router.endpoints.list(author="sim", slug="echo").data.endpoints[0].model_id == "sim/echo"
    assert router.endpoints.list_zdr_endpoints().data[0].model_id == "sim/echo"
    assert router.providers.list().data[0].slug == "fakeprovider"
    with pytest.raises(errors.NotFoundResponseError):
        router.endpoints.list(author="nobody", slug="nothing")


def test_one_model(router: OpenRouter) -> None:
    for slug in ("echo", "echo:free", "embedder"):
        assert router.models.get(author="sim", slug=slug).data.id == f"sim/{slug}"
    with pytest.raises(errors.NotFoundResponseError, match="`no/body` is not in the list"):
        router.models.get(author="no", slug="body")


def test_models_of_the_caller(shared_gateway: Gateway, router: OpenRouter) -> None:
    listed: Any = router.models.list_for_user(security={"bearer": shared_gateway.key}, limit=5)
    assert len(listed.result.data) == 5
    assert listed.result.total_count > 5


def test_a_generation_is_there_at_once(router: OpenRouter) -> None:
    answer = router.chat.send(model="sim/echo:generation-ms=3000", messages=HELLO)
    at_once = router.generations.get_generation(id=answer.id).data
    assert (at_once.total_cost, at_once.tokens_completion, at_once.provider_name) == (2.55e-06, 3, None)
    with router.chat.send(model="sim/echo:generation-ms=3000", messages=HELLO, stream=True) as stream:
        (streamed,) = {chunk.id for chunk in stream}
    told = router.generations.get_generation(id=streamed).data
    assert (told.total_cost, told.streamed) == (2.55e-06, True)
    time.sleep(3.1)
    later = router.generations.get_generation(id=answer.id).data
    assert (later.total_cost, later.provider_name) == (2.55e-06, "FakeProvider")
