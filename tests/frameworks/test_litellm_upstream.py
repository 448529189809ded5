"""LiteLLM's proxy as an upstream, once as an OpenAI-compatible host and once as an Anthropic-compatible one, with the
strict SDKs in front; and what its package says of its configuration, beside our table of it.

Some of its models answer from a text in its configuration, some ask the simulator behind it.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from farebox.core.money import events_ceil
from farebox.core.moving.litellm_members import SECTIONS, UNKNOWN, member_of
from farebox.core.moving.litellm_providers import PROVIDERS, Provider
from farebox.simulator.server import embedded
from tests.asking import Got, Responses, Said, Talk, asking
from tests.gateway import Gateway, eventually

ROOT = Path(__file__).parents[2]
LITELLM = ROOT / ".venv-litellm" / "bin"
VERSION = "1.108.7"
START_SECONDS = 180
KEY = "sk-litellms-own-key"
SAYS = "Hello from the mock, in some words."
HELLO: Any = [{"role": "user", "content": "Hello there"}]
SLOW = "tokens=30,token-ms=20"

CONFIG = """
model_list:
  - {{model_name: gpt-mock, litellm_params: {{model: openai/any, api_key: none, mock_response: "{says}"}}}}
  - {{model_name: claude-mock, litellm_params: {{model: anthropic/any, api_key: none, mock_response: "{says}"}}}}
  - {{model_name: gpt, litellm_params: {{model: openai/gpt-sim, api_key: none, api_base: "{root}/openai/v1"}}}}
  - model_name: gpt-slow
    litellm_params: {{model: "openai/gpt-sim:{slow}", api_key: none, api_base: "{root}/openai/v1"}}
  - model_name: gpt-busy
    litellm_params: {{model: "openai/gpt-sim:status=429", api_key: none, api_base: "{root}/openai/v1"}}
  - {{model_name: claude, litellm_params: {{model: anthropic/claude-sim, api_key: none, api_base: "{root}/anthropic"}}}}
  - model_name: claude-of-gpt
    litellm_params: {{model: openai/gpt-sim, api_key: none, api_base: "{root}/openai/v1"}}
  - model_name: claude-slow
    litellm_params: {{model: "anthropic/claude-sim:{slow}", api_key: none, api_base: "{root}/anthropic"}}
  - model_name: embedding
    litellm_params: {{model: openai/text-embedding-sim, api_key: none, api_base: "{root}/openai/v1"}}
litellm_settings: {{telemetry: false, num_retries: 0}}
general_settings: {{master_key: {key}}}
"""

DECLARED = """
[upstreams.litellm]
kind = "openai"
base_url = "{url}/v1"
key_variable = "LITELLM_KEY"
models = ["gpt*", "embedding"]
prices = "file"
at_hang_up = "drain"

[upstreams.litellm-as-anthropic]
kind = "anthropic"
base_url = "{url}"
key_variable = "LITELLM_KEY"
models = ["claude*"]
prices = "file"
at_hang_up = "drain"
"""

PROMPT, ANSWER = Decimal("0.0000012345"), Decimal("0.00000678901")
PRICES = "".join(
    f'[[prices]]\nupstream = "{upstream}"\nmodel = "*"\nprompt = "{PROMPT}"\nanswer = "{ANSWER}"\n'
    for upstream in ("litellm", "litellm-as-anthropic")
)


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    """The simulator that stands behind LiteLLM."""
    with embedded() as url:
        yield url.removesuffix("/api/v1")


@pytest.fixture(scope="module")
def litellm(root: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """LiteLLM's proxy: its URL."""
    folder = tmp_path_factory.mktemp("litellm")
    (folder / "config.yaml").write_text(CONFIG.format(root=root, key=KEY, says=SAYS, slow=SLOW))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [str(LITELLM / "litellm"), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    # Else it asks the internet for prices when it starts.
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"}
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + START_SECONDS
        while not is_up(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/liveliness", timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def gateway(litellm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "farebox.toml").write_text(DECLARED.format(url=litellm))
    (folder / "prices.toml").write_text(PRICES)
    with Gateway(folder, LITELLM_KEY=KEY, FAREBOX_PRICES_FILE="prices.toml") as gateway:
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


ABOVE = "fare above its hold"
"""So is an order at its mock for messages, which claims to have used 2,095 and 503 tokens whatever was asked."""


def usage_booked(gateway: Gateway, generation_id: str, what: str = "fare") -> tuple[int, int]:
    """What the books have of an order that was posted, at exactly the prices of the file."""
    eventually(lambda: gateway.orders()[-1]["what"] != "held")
    line = gateway.orders()[-1]
    assert (line["what"], line["generation_id"]) == (what, generation_id)
    usage: tuple[int, int] = line["prompt_tokens"], line["answer_tokens"]
    cost = usage[0] * PROMPT + usage[1] * ANSWER
    assert (Decimal(line["cost_usd"]), line["events"]) == (cost, events_ceil(cost))
    assert line["events"] > 0
    return usage


def told_by(litellm: str, path: str, body: dict[str, Any]) -> Any:
    """What LiteLLM itself answers: the whole answer, or the events of a stream."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}", "x-api-key": KEY}
    request = urllib.request.Request(f"{litellm}/v1{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
    if "text/event-stream" not in answer.headers["content-type"]:
        return json.loads(text)
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


MODELS = pytest.mark.parametrize(("model", "text"), [("gpt-mock", SAYS), ("gpt", "You said: Hello there")])


@MODELS
def test_a_whole_chat_completion(gateway: Gateway, litellm: str, gpt: openai.OpenAI, model: str, text: str) -> None:
    answer = gpt.chat.completions.create(model=model, messages=HELLO)
    assert answer.choices[0].message.content == text
    assert answer.usage is not None
    usage = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    native = told_by(litellm, "/chat/completions", {"model": model, "messages": HELLO})["usage"]
    assert usage == (native["prompt_tokens"], native["completion_tokens"])
    assert usage_booked(gateway, answer.id) == usage


@MODELS
@pytest.mark.parametrize("is_told", [True, False])
def test_a_streamed_chat_completion(
    gateway: Gateway, litellm: str, gpt: openai.OpenAI, model: str, text: str, is_told: bool
) -> None:
    """Its usage is booked, whether or not the caller asked for it."""
    options: Any = {"stream_options": {"include_usage": True}} if is_told else {}
    with gpt.chat.completions.stream(model=model, messages=HELLO, **options) as stream:
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == text
    body = {"model": model, "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    (native,) = [each["usage"] for each in told_by(litellm, "/chat/completions", body) if each.get("usage")]
    assert usage_booked(gateway, answer.id) == (native["prompt_tokens"], native["completion_tokens"])
    if is_told:
        assert answer.usage is not None
        assert answer.usage.completion_tokens == native["completion_tokens"]


def test_tools_are_called_through_it(gateway: Gateway, gpt: openai.OpenAI) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    with gpt.chat.completions.stream(model="gpt", messages=HELLO, tools=tools) as stream:
        answer = stream.get_final_completion()
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Hello there"}
    eventually(lambda: gateway.orders()[-1]["what"] == "fare")


def test_responses_whole_and_streamed(gateway: Gateway) -> None:
    """Read as the SDK reads without being told to be strict: LiteLLM leaves out `cache_write_tokens`."""
    with openai.OpenAI(base_url=gateway.base, api_key=gateway.key, max_retries=0) as gpt:
        order_responses(gateway, gpt)


def order_responses(gateway: Gateway, gpt: openai.OpenAI) -> None:
    answer = gpt.responses.create(model="gpt", input="Hello there")
    assert answer.output_text == "You said: Hello there"
    assert answer.usage is not None
    assert usage_booked(gateway, answer.id) == (answer.usage.input_tokens, answer.usage.output_tokens)
    with gpt.responses.stream(model="gpt", input="Hello there") as stream:
        final = stream.get_final_response()
    assert final.output_text == "You said: Hello there"
    assert final.usage is not None
    assert usage_booked(gateway, final.id) == (final.usage.input_tokens, final.usage.output_tokens)


def test_embeddings(gateway: Gateway, gpt: openai.OpenAI) -> None:
    answer = gpt.embeddings.create(model="embedding", input="Hello there", encoding_format="float")
    assert len(answer.data[0].embedding) == 8
    assert gateway.orders()[-1]["prompt_tokens"] == answer.usage.prompt_tokens > 0


# Through every format


def asked_by(gateway: Gateway, wire: str, model: str, *, streamed: bool) -> Got:
    """A talk in one format, by its strict SDK; but for responses that LiteLLM itself answers in: it leaves out a member
    that OpenAI's SDK demands."""
    is_its_own = wire == "responses" and model == "gpt"
    with (
        asking(gateway.base, gateway.key) as formats,
        openai.OpenAI(base_url=gateway.base, api_key=gateway.key, max_retries=0) as loose,
    ):
        ask = Responses(loose) if is_its_own else formats[wire]
        return (ask.streamed if streamed else ask.whole)(model, Talk((Said("Hello there"),)))


@pytest.mark.parametrize("model", ["gpt", "claude", "claude-of-gpt"])
def test_an_order_costs_the_same_through_every_format(gateway: Gateway, model: str) -> None:
    usages = set()
    for wire in ("chat", "messages", "responses"):
        for streamed in (False, True):
            got = asked_by(gateway, wire, model, streamed=streamed)
            assert got.text == "You said: Hello there"
            assert usage_booked(gateway, got.id) == got.tokens, (wire, streamed)
            usages.add(got.tokens)
    assert len(usages) == 1, usages


CLAUDES = ["claude", "claude-of-gpt"]
"""A model that speaks messages, and one that LiteLLM translates for."""


@pytest.mark.parametrize("model", [*CLAUDES, "claude-mock"])
def test_a_whole_message(gateway: Gateway, litellm: str, claude: anthropic.Anthropic, model: str) -> None:
    answer = claude.messages.create(model=model, messages=HELLO, max_tokens=99)
    assert answer.content[0].type == "text"
    assert answer.content[0].text == (SAYS if model == "claude-mock" else "You said: Hello there")
    usage = (answer.usage.input_tokens, answer.usage.output_tokens)
    native = told_by(litellm, "/messages", {"model": model, "messages": HELLO, "max_tokens": 99})["usage"]
    assert usage == (native["input_tokens"], native["output_tokens"])
    assert usage_booked(gateway, answer.id, ABOVE if model == "claude-mock" else "fare") == usage


@pytest.mark.parametrize("model", CLAUDES)
def test_a_streamed_message(gateway: Gateway, litellm: str, claude: anthropic.Anthropic, model: str) -> None:
    with claude.messages.stream(model=model, messages=HELLO, max_tokens=99) as stream:
        answer = stream.get_final_message()
    assert stream.get_final_text() == "You said: Hello there"
    body = {"model": model, "messages": HELLO, "max_tokens": 99, "stream": True}
    events = told_by(litellm, "/messages", body)
    (native,) = [each["usage"] for each in events if each["type"] == "message_delta"]
    assert (answer.usage.output_tokens, native["output_tokens"]) == (4, 4)
    assert usage_booked(gateway, answer.id) == (native["input_tokens"], native["output_tokens"])


def test_a_whole_answer_where_a_stream_was_asked_for_is_booked_as_it_came(gateway: Gateway, gpt: openai.OpenAI) -> None:
    """Its mock answers to messages are never streamed. In its own format that passes as it comes; a caller in another
    format has its stream."""
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    body = {"model": "claude-mock", "messages": HELLO, "max_tokens": 99, "stream": True}
    answer = gateway.request("POST", "/api/v1/messages", body, headers)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json["content"][0]["text"] == SAYS
    usage = (answer.json["usage"]["input_tokens"], answer.json["usage"]["output_tokens"])
    assert usage_booked(gateway, answer.json["id"], ABOVE) == usage
    with gpt.chat.completions.stream(model="claude-mock", messages=HELLO) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == SAYS
    assert usage_booked(gateway, final.id) == usage


@pytest.mark.parametrize(("path", "model"), [("/chat/completions", "gpt-slow"), ("/messages", "claude-slow")])
def test_after_a_hang_up_the_stream_is_read_to_its_end(gateway: Gateway, path: str, model: str) -> None:
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    body = {"model": model, "messages": HELLO, "max_tokens": 500, "stream": True}
    request = urllib.request.Request(gateway.base + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        generation_id = answer.headers["x-generation-id"]
        answer.read1(100)
    eventually(lambda: gateway.orders()[-1]["what"] == "fare", seconds=30)
    prompt_tokens, answer_tokens = usage_booked(gateway, generation_id)
    assert (prompt_tokens, answer_tokens) == (6, 30)


def test_what_it_refuses_costs_nothing(gateway: Gateway, gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError, match="Rate limit exceeded"):
        gpt.chat.completions.create(model="gpt-busy", messages=HELLO)
    assert gateway.orders()[-1]["what"] == "not served"
    with pytest.raises(openai.NotFoundError):
        gpt.chat.completions.create(model="gpt-nobody", messages=HELLO)


def test_it_is_checked_like_any_other(gateway: Gateway) -> None:
    for name, model in (("litellm", "gpt"), ("litellm-as-anthropic", "claude")):
        checks = gateway.cli("upstream", "check", name, "--model", model)["checks"]
        assert all(each["is_well"] for each in checks), checks


# What its package says of its configuration

MEMBERS = """
import inspect, json, re, sys
import litellm
from litellm.proxy import _types
from litellm.types import router
types = {
    "litellm_params": list(router.LiteLLM_Params.model_fields),
    "model_list": list(router.Deployment.model_fields),
    "model_info": list(router.ModelInfo.model_fields),
    "router_settings": [each for each in inspect.signature(litellm.Router.__init__).parameters if each != "self"],
    "general_settings": list(_types.ConfigGeneralSettings.model_fields),
}
print(json.dumps({"version": litellm._version.version, "members": types}))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [LITELLM / "python", "-c", MEMBERS], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_it_is_the_version_that_the_table_is_of(told: dict[str, Any]) -> None:
    assert told["version"] == VERSION


def test_every_member_of_its_configuration_is_in_the_table(told: dict[str, Any]) -> None:
    lost = [
        (section, name)
        for section, names in told["members"].items()
        for name in names
        if member_of(section, name) == UNKNOWN
    ]
    assert lost == []


def test_every_member_that_the_table_carries_over_is_one_of_its(told: dict[str, Any]) -> None:
    for section, names in told["members"].items():
        known = {*names, *NOT_DECLARED.get(section, ())}
        if section == "model_info":  # prices may stand in both
            known |= set(told["members"]["litellm_params"])
        carried = [each.name for each in SECTIONS[section] if each.is_carried and "*" not in each.name]
        assert [name for name in carried if name not in known] == [], section


NOT_DECLARED = {
    # It reads these, and no type of its declares them.
    "litellm_params": ("base_url", "order", "weight", "max_parallel_requests", "input_cost_per_request"),
    "model_info": ("mode", "order", "base_model", "input_cost_per_request"),
}
"""Members that it takes from dictionaries; a price by the request stands in its list alone."""


def provider_info(names: list[str]) -> dict[str, Any]:
    code = f"""
import json, os
import litellm
found = {{}}
for name in {names!r}:
    try:
        _, provider, key, base = litellm.get_llm_provider(model=f"{{name}}/x")
        found[name] = [provider, base]
    except Exception as error:
        found[name] = [type(error).__name__, None]
print(json.dumps(found))
"""
    kept = {name: value for name, value in os.environ.items() if not re.search("_API_(BASE|KEY)$", name)}
    done = subprocess.run(
        [LITELLM / "python", "-c", code],
        env={**kept, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_providers_are_where_it_has_them() -> None:
    info = provider_info(list(PROVIDERS))
    for name, provider in PROVIDERS.items():
        known, base = info[name]
        assert known == name, (name, known)
        if base is not None and provider.base_url is not None and not _is_elsewhere(name, provider):
            assert provider.base_url.rstrip("/") in (base.rstrip("/"), base.rstrip("/") + provider.tail), name


def _is_elsewhere(name: str, provider: Provider) -> bool:
    """Whether Farebox speaks to another of its addresses."""
    return name == "gemini"
