"""The real SDKs, as users call them, against the real server."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import openai
import pytest
from openrouter import OpenRouter
from openrouter import errors as openrouter_errors

from tests.gateway import Gateway

HELLO: Any = [{"role": "user", "content": "Hello"}]
TOOLS: Any = [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}
]


@pytest.fixture
def client(shared_gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=shared_gateway.base, api_key=shared_gateway.key, max_retries=0)


@pytest.fixture
def router(shared_gateway: Gateway) -> OpenRouter:
    return OpenRouter(server_url=shared_gateway.base, api_key=shared_gateway.key)


# openai, Python


def test_openai_whole(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="sim/echo", messages=HELLO)
    assert raw.headers["x-farebox-fare-usd"] == "0.00001"
    answer = raw.parse()
    assert answer.choices[0].message.content == "You said: Hello"
    assert answer.id == raw.headers["x-generation-id"]
    assert answer.usage
    assert answer.usage.model_extra
    assert answer.usage.model_extra["cost"] == 2.55e-06


@pytest.mark.parametrize("usage", ["separate", "delta", "merged"])
def test_openai_streamed(client: openai.OpenAI, usage: str) -> None:
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


def test_openai_streaming_helper_with_tools(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="sim/echo", messages=HELLO, tools=TOOLS) as stream:
        for _ in stream:
            pass
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls
    assert json.loads(calls[0].function.arguments) == {"a": "Hello"}


@pytest.mark.parametrize("defect", ["empty-data", "retry", "wrapped-comment", "role-empty", "no-choices", "usage-null"])
def test_openai_reads_to_the_end_of_streams_that_would_have_thrown(client: openai.OpenAI, defect: str) -> None:
    headers = {"X-OpenRouter-Simulate": f"defect={defect}"}
    chunks = list(client.chat.completions.create(model="sim/echo", messages=HELLO, stream=True, extra_headers=headers))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said: Hello"


@pytest.mark.parametrize("fault", ["error-at-event=1", "bare-error-at-event=1", "cut-at-event=1", "cut-at-byte=400"])
def test_openai_raises_on_a_stream_that_breaks(client: openai.OpenAI, fault: str) -> None:
    headers = {"X-OpenRouter-Simulate": fault}
    stream = client.chat.completions.create(model="sim/echo", messages=HELLO, stream=True, extra_headers=headers)
    with pytest.raises(openai.APIError, match=r"(?i)simulated|broke off"):
        list(stream)


def test_openai_raises_its_typed_errors(shared_gateway: Gateway, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody/nothing", messages=HELLO)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="sim/echo", messages=[])
    stranger = openai.OpenAI(base_url=shared_gateway.base, api_key="sk-fb-nobody", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="sim/echo", messages=HELLO)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(
            model="sim/echo", messages=HELLO, extra_headers={"X-OpenRouter-Simulate": "status=429"}
        )


def test_openai_does_not_repeat_what_may_have_been_paid_for(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("no retry", "--plan", "paying", "--prepaid", "1")
    client = openai.OpenAI(base_url=shared_gateway.base, api_key=key, max_retries=3)
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(
            model="sim/echo", messages=HELLO, extra_headers={"X-OpenRouter-Simulate": "cut-at-byte=30"}
        )
    assert refused.value.status_code == 424
    assert len(shared_gateway.orders("no retry")) == 1


def test_openai_lists_models(client: openai.OpenAI) -> None:
    assert "sim/echo" in [model.id for model in client.models.list()]


# openrouter, Python


def test_openrouter_python_whole(router: OpenRouter) -> None:
    answer = router.chat.send(model="sim/echo", messages=HELLO)
    assert answer.choices[0].message.content == "You said: Hello"
    assert answer.usage
    assert answer.usage.cost == 2.55e-06


@pytest.mark.parametrize(
    "fault", ["usage=separate", "usage=delta", "usage=merged", "defect=fingerprint-null", "no-final-blank,no-done"]
)
def test_openrouter_python_streamed(router: OpenRouter, fault: str) -> None:
    with router.chat.send(model=f"sim/echo:{fault}", messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said: Hello"
    assert [c.usage.cost for c in chunks if c.usage] == [2.55e-06]


def test_openrouter_python_raises_its_typed_errors(shared_gateway: Gateway, router: OpenRouter) -> None:
    with pytest.raises(openrouter_errors.NotFoundResponseError):
        router.chat.send(model="nobody/nothing", messages=HELLO)
    key = shared_gateway.new_key("poor", "--plan", "paying")
    with pytest.raises(openrouter_errors.PaymentRequiredResponseError):
        OpenRouter(server_url=shared_gateway.base, api_key=key).chat.send(model="sim/echo", messages=HELLO)
    with pytest.raises(openrouter_errors.UnauthorizedResponseError):
        OpenRouter(server_url=shared_gateway.base, api_key="sk-fb-nobody").chat.send(model="sim/echo", messages=HELLO)


@pytest.mark.filterwarnings("ignore:.*DEPRECATED:DeprecationWarning")
def test_openrouter_python_reads_the_account(router: OpenRouter) -> None:
    assert router.credits.get_credits().data.total_credits == 5
    assert router.api_keys.get_current_key_metadata().data.label == "made at the first start"
    listed: Any = router.models.list(limit=4)
    seen: list[str] = []
    while listed is not None:
        seen += [model.id for model in listed.result.data]
        listed = listed.next()
    assert len(seen) == len(set(seen)) >= 12


# TypeScript


def test_the_typescript_sdks(shared_gateway: Gateway, node: Path) -> None:
    """tests/node/sdks.mjs says what is tried; each of its lines is a check that held."""
    poor = shared_gateway.new_key("poor node", "--plan", "paying")
    done = subprocess.run(
        ["node", "sdks.mjs"],
        cwd=node,
        env={**os.environ, "BASE": shared_gateway.base, "KEY": shared_gateway.key, "POOR_KEY": poor},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") >= 20
