"""A real model behind llama.cpp's own server, as an OpenAI-compatible upstream and as an Anthropic-compatible one. The
model is tiny, made of random weights, and says the same each time: nothing is left to chance."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.gateway import Gateway, eventually

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-llamacpp" / "bin" / "python"
HELLO: Any = [{"role": "user", "content": "Hello there"}]

DECLARED = """
[upstreams.llama]
kind = "openai"
base_url = "{url}/v1"
formats = ["chat"]
prices = "free"
at_hang_up = "drain"

[upstreams.llama-as-anthropic]
kind = "anthropic"
base_url = "{url}"
names = {{ "claude" = "tiny" }}
models = ["claude"]
prices = "free"
"""


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    """llama.cpp's server: its URL."""
    with subprocess.Popen(
        [PYTHON, "serve_llama.py"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield next(line.strip() for line in process.stdout if line.startswith("http://"))
        process.stdin.close()


@pytest.fixture(scope="module")
def gateway(llama: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "farebox.toml").write_text(DECLARED.format(url=llama))
    with Gateway(folder) as gateway:
        gateway.key = gateway.new_key("demo", "--plan", "paying", "--prepaid", "5")
        yield gateway
        gateway.audit()


@pytest.fixture
def gpt(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=gateway.base, api_key=gateway.key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture
def claude(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=gateway.base.removesuffix("/v1"),
        auth_token=gateway.key,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


def booked(gateway: Gateway, generation_id: str) -> tuple[int, int]:
    """What the books have of the last order, which must be this one."""
    eventually(lambda: gateway.orders()[-1]["what"] == "fare")
    line = gateway.orders()[-1]
    assert line["generation_id"] == generation_id
    return line["prompt_tokens"], line["answer_tokens"]


def test_chat_whole_and_streamed(gateway: Gateway, gpt: openai.OpenAI) -> None:
    whole = gpt.chat.completions.create(model="tiny", messages=HELLO, max_tokens=12)
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 12
    usage = whole.usage.prompt_tokens, 12
    assert booked(gateway, whole.id) == usage
    chunks = list(gpt.chat.completions.create(model="tiny", messages=HELLO, max_tokens=12, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert booked(gateway, chunks[0].id) == usage


def test_messages_whole_and_streamed(gateway: Gateway, claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(model="claude", messages=HELLO, max_tokens=12)
    assert whole.content[0].type == "text"
    assert whole.stop_reason == "max_tokens"
    tokens = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert booked(gateway, whole.id) == (tokens, 12)
    with claude.messages.stream(model="claude", messages=HELLO, max_tokens=12) as stream:
        text = stream.get_final_text()
        streamed = stream.get_final_message()
    assert text == whole.content[0].text
    assert booked(gateway, streamed.id)[1] == 12


def test_all_formats_are_charged_for_the_same_tokens(
    gateway: Gateway, gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    """The end of a streamed message tells the answer's alone."""
    before = len(gateway.orders())
    gpt.chat.completions.create(model="tiny", messages=HELLO, max_tokens=12)
    list(gpt.chat.completions.create(model="tiny", messages=HELLO, max_tokens=12, stream=True))
    claude.messages.create(model="claude", messages=HELLO, max_tokens=12)
    with claude.messages.stream(model="claude", messages=HELLO, max_tokens=12) as stream:
        stream.until_done()
    eventually(lambda: [line["what"] for line in gateway.orders()[before:]] == ["fare"] * 4)
    lines = gateway.orders()[before:]
    assert {line["answer_tokens"] for line in lines} == {12}
    assert len({line["prompt_tokens"] for line in lines} - {None}) == 1


def test_what_it_says_can_be_held_to_a_schema(gateway: Gateway, gpt: openai.OpenAI) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]}
    schema["additionalProperties"] = False
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    answer = gpt.chat.completions.create(model="tiny", messages=HELLO, response_format=wanted, max_tokens=200)
    assert isinstance(json.loads(answer.choices[0].message.content or "")["sure"], bool)
    assert booked(gateway, answer.id)[1] > 0


def test_after_a_hang_up_the_stream_is_read_to_its_end(gateway: Gateway, gpt: openai.OpenAI) -> None:
    whole = gpt.chat.completions.create(model="tiny", messages=HELLO, max_tokens=400)
    assert whole.usage is not None
    expected = booked(gateway, whole.id)
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 400, "stream": True}
    request = urllib.request.Request(f"{gateway.base}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        generation_id = answer.headers["x-generation-id"]
        answer.read1(100)
    assert booked(gateway, generation_id) == expected


def test_what_it_refuses_costs_nothing(gateway: Gateway, gpt: openai.OpenAI) -> None:
    too_long: Any = [{"role": "user", "content": "Hello " * 1000}]
    with pytest.raises(openai.BadRequestError, match="context"):
        gpt.chat.completions.create(model="tiny", messages=too_long)
    assert gateway.orders()[-1]["what"] == "not served"


def test_it_is_checked_like_any_other(gateway: Gateway) -> None:
    for name in ("llama", "llama-as-anthropic"):
        checks = gateway.cli("upstream", "check", name)["checks"]
        assert all(each["is_well"] for each in checks), checks
