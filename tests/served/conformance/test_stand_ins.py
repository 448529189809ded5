"""The simulator as OpenAI and as Anthropic, asked by their own SDKs: what it says they take, what they send it takes,
and what the real ones refuse it refuses in their words."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from farebox.simulator.server import embedded
from tests.gateway import events_of

HELLO: Any = [{"role": "user", "content": "Hello there"}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"what": {"type": "string"}}}},
}
ANTHROPIC_TOOL: Any = {
    "name": "look_up",
    "input_schema": {"type": "object", "properties": {"what": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    with embedded() as url:
        yield url.removesuffix("/api/v1")


@pytest.fixture(scope="module")
def gpt(root: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{root}/openai/v1", api_key="sk-sim", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(root: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=f"{root}/anthropic", api_key="sk-ant-sim", max_retries=0) as client:
        yield client


def charged(root: str, generation_id: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{root}/books/usage", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)[generation_id]
        return found


# OpenAI


def test_a_chat_completion_has_openais_ids_names_and_usage_and_no_cost(gpt: openai.OpenAI, root: str) -> None:
    raw = gpt.chat.completions.with_raw_response.create(model="gpt-sim", messages=HELLO)
    answer = raw.parse()
    assert raw.headers["x-request-id"].startswith("req_")
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "gpt-sim-2026-01-01"
    assert answer.choices[0].message.content == "You said: Hello there"
    assert (answer.service_tier, answer.system_fingerprint) == ("default", "fp_5150000000")
    assert answer.usage
    assert not answer.usage.model_extra
    books = charged(root, answer.id)
    assert (books["prompt_tokens"], books["answer_tokens"]) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )


@pytest.mark.parametrize("asks", [True, False])
def test_a_stream_tells_its_usage_only_where_that_is_asked_for(gpt: openai.OpenAI, asks: bool) -> None:
    more: Any = {"stream_options": {"include_usage": True}} if asks else {}
    chunks = list(gpt.chat.completions.create(model="gpt-sim", messages=HELLO, stream=True, **more))
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert ("usage" in chunks[0].model_fields_set) is asks
    assert (chunks[-1].usage is not None, chunks[-1].choices == []) == (asks, asks)


def test_the_streaming_helper_takes_text_and_tools(gpt: openai.OpenAI) -> None:
    with gpt.chat.completions.stream(model="gpt-sim", messages=HELLO) as stream:
        assert stream.get_final_completion().choices[0].message.content == "You said: Hello there"
    with gpt.chat.completions.stream(model="gpt-sim", messages=HELLO, tools=[TOOL]) as stream:
        (call,) = stream.get_final_completion().choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments or "") == {"what": "Hello there"}


def test_responses_whole_and_streamed(gpt: openai.OpenAI, root: str) -> None:
    whole = gpt.responses.create(model="gpt-sim", input="Hello there")
    assert (whole.id[:5], whole.output_text, whole.status) == ("resp_", "You said: Hello there", "completed")
    with gpt.responses.stream(model="o-sim", input="Hello there") as stream:
        final = stream.get_final_response()
    assert final.output_text == "You said: Hello there"
    assert final.usage
    assert final.usage.output_tokens_details.reasoning_tokens == charged(root, final.id)["reasoning_tokens"] > 0
    assert not final.usage.model_extra


def test_embeddings_have_no_id(gpt: openai.OpenAI) -> None:
    answer = gpt.embeddings.create(model="text-embedding-sim", input=["a", "b"])
    assert [len(each.embedding) for each in answer.data] == [8, 8]
    assert not answer.model_extra
    assert not (answer.usage.model_extra)


def test_models_are_listed_in_openais_shape(gpt: openai.OpenAI) -> None:
    assert [model.id for model in gpt.models.list()] == ["gpt-sim", "o-sim", "gpt-sim-vision", "text-embedding-sim"]
    assert gpt.models.retrieve("o-sim").owned_by == "system"


@pytest.mark.parametrize(
    ("order", "status", "param", "code", "words"),
    [
        ({"provider": {}}, 400, None, None, "Unrecognized request argument supplied: provider"),
        ({"usage": {"include": True}}, 400, None, None, "Unrecognized request argument supplied: usage"),
        ({"model": "gpt-5150"}, 404, None, "model_not_found", "does not exist"),
        ({"model": "o-sim", "max_tokens": 9}, 400, "max_tokens", "unsupported_parameter", "max_completion_tokens"),
        ({"model": "o-sim", "temperature": 0.5}, 400, "temperature", "unsupported_value", "Only the default"),
        ({"stream_options": {}}, 400, "stream_options", None, "only allowed when 'stream' is enabled"),
        ({"messages": [{"role": "boss", "content": ""}]}, 400, "messages[0].role", "invalid_value", "'developer'"),
        ({"messages": []}, 400, "messages", "empty_array", "empty array"),
        ({"model": "gpt-sim:status=429"}, 429, None, "rate_limit_exceeded", "Rate limit"),
        ({"model": "gpt-sim:status=500"}, 500, None, None, "Internal"),
    ],
)
def test_what_openai_refuses_is_refused_in_its_words(
    gpt: openai.OpenAI, order: dict[str, Any], status: int, param: str | None, code: str | None, words: str
) -> None:
    body = {"model": "gpt-sim", "messages": HELLO, **order}
    with pytest.raises(openai.APIStatusError) as refused:
        gpt.post("/chat/completions", body=body, cast_to=object)
    error = refused.value
    assert (error.status_code, error.param, error.code) == (status, param, code)
    assert words in error.message


def test_developers_and_reasoning_models_caps_are_taken(gpt: openai.OpenAI) -> None:
    turns: Any = [{"role": "developer", "content": "Be brief"}, *HELLO]
    cut = gpt.chat.completions.create(model="o-sim", messages=turns, max_completion_tokens=14)
    assert cut.choices[0].finish_reason == "length"


def test_openai_wants_a_bearer_token(root: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{root}/openai/v1/models"), timeout=10)
    assert refused.value.code == 401
    assert "didn't provide an API key" in json.load(refused.value)["error"]["message"]


def raw_chat(root: str, simulate: str, **more: Any) -> tuple[str, list[Any]]:
    """A chat completion's media type, and its chunks."""
    body = {"model": "gpt-sim", "messages": HELLO, **more}
    headers = {"authorization": "Bearer k", "content-type": "application/json", "x-openrouter-simulate": simulate}
    request = urllib.request.Request(f"{root}/openai/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["content-type"], events_of(answer.read())


def test_it_goes_wrong_as_it_is_asked_to(root: str) -> None:
    asked: Any = {"stream": True, "stream_options": {"include_usage": True}}
    _, chunks = raw_chat(root, "usage=twice", **asked)
    assert [chunk["usage"]["total_tokens"] for chunk in chunks[-3:-1]] == [10, 10]
    _, chunks = raw_chat(root, "usage=negative,no-done", **asked)
    assert chunks[-1]["usage"]["total_tokens"] == -10
    _, chunks = raw_chat(root, "cached-tokens=4", **asked)
    assert chunks[-2]["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    _, chunks = raw_chat(root, "broken-arguments", stream=True, tools=[TOOL])
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    arguments = "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in deltas if "tool_calls" in delta)
    with pytest.raises(json.JSONDecodeError):
        json.loads(arguments)
    assert raw_chat(root, "streams")[0].startswith("text/event-stream")


# Anthropic


def test_a_message_has_anthropics_ids_and_usage_and_no_cost(claude: anthropic.Anthropic, root: str) -> None:
    raw = claude.messages.with_raw_response.create(model="claude-sim", max_tokens=99, messages=HELLO)
    answer = raw.parse()
    assert raw.headers["request-id"].startswith("req_01")
    assert answer.id.startswith("msg_01")
    (block,) = answer.content
    assert block.type == "text"
    assert block.text == "You said: Hello there"
    assert answer.stop_reason == "end_turn"
    assert not answer.usage.model_extra
    books = charged(root, answer.id)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (books["prompt_tokens"], books["answer_tokens"])


def test_a_stream_thinks_with_a_signature_and_counts_as_it_comes(claude: anthropic.Anthropic) -> None:
    asked: Any = {"model": "claude-sim", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    raw = list(claude.messages.create(messages=HELLO, stream=True, **asked))
    assert [event.type for event in raw if event.type in ("message_start", "message_delta")] == [
        "message_start",
        "message_delta",
    ]
    with claude.messages.stream(messages=HELLO, **asked) as stream:
        message = stream.get_final_message()
    thought, said = message.content
    assert thought.type == "thinking"
    assert said.type == "text"
    again: Any = [*HELLO, {"role": "assistant", "content": [thought.to_dict(), said.to_dict()]}, *HELLO]
    assert claude.messages.create(messages=again, **asked).stop_reason == "end_turn"
    again[1]["content"][0]["signature"] = "forged"
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`"):
        claude.messages.create(messages=again, **asked)


def test_pings_stand_in_streams(claude: anthropic.Anthropic, root: str) -> None:
    body = {"model": "claude-sim", "max_tokens": 99, "messages": HELLO, "stream": True}
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json"}
    request = urllib.request.Request(f"{root}/anthropic/v1/messages", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    assert 'event: ping\ndata: {"type":"ping"}\n\n' in text
    assert "[DONE]" not in text


def test_a_tool_is_called_and_its_result_must_follow(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="claude-sim", max_tokens=99, messages=HELLO, tools=[ANTHROPIC_TOOL]) as stream:
        message = stream.get_final_message()
    (call,) = message.content
    assert call.type == "tool_use"
    assert call.input == {"what": "Hello there"}
    turns: Any = [*HELLO, {"role": "assistant", "content": [call.to_dict()]}]
    with pytest.raises(anthropic.BadRequestError, match="`tool_use` ids were found without `tool_result`"):
        claude.messages.create(model="claude-sim", max_tokens=99, messages=[*turns, *HELLO])
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "found"}
    turns.append({"role": "user", "content": [result]})
    assert claude.messages.create(model="claude-sim", max_tokens=99, messages=turns).stop_reason == "end_turn"


def test_what_is_marked_for_the_cache_is_written_once_and_read_later(claude: anthropic.Anthropic, root: str) -> None:
    marked = {"type": "text", "text": "A long story. " * 9, "cache_control": {"type": "ephemeral"}}
    turns: Any = [{"role": "user", "content": [marked, {"type": "text", "text": "And then?"}]}]
    first, second = [claude.messages.create(model="claude-sim", max_tokens=99, messages=turns) for _ in range(2)]
    written, read = first.usage.cache_creation_input_tokens, second.usage.cache_read_input_tokens
    assert written == read == 32
    books = charged(root, second.id)
    assert books["prompt_tokens"] == second.usage.input_tokens + 32
    assert float(books["cost"]) < float(charged(root, first.id)["cost"])


@pytest.mark.parametrize(
    ("order", "status", "kind", "words"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens: Field required"),
        ({"provider": {}}, 400, "invalid_request_error", "provider: Extra inputs are not permitted"),
        ({"model": "claude-5150"}, 404, "not_found_error", "model: claude-5150"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "invalid_request_error", 'Unexpected role "system"'),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid_request_error", 'the "user" role'),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "invalid_request_error", "must be non-empty"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, 400, "invalid_request_error", "equal to 1024"),
        ({"model": "claude-sim:status=529"}, 529, "overloaded_error", "Overloaded"),
        ({"model": "claude-sim:status=429"}, 429, "rate_limit_error", "Rate limit"),
    ],
)
def test_what_anthropic_refuses_is_refused_in_its_words(
    claude: anthropic.Anthropic, order: dict[str, Any], status: int, kind: str, words: str
) -> None:
    body = {"model": "claude-sim", "max_tokens": 99, "messages": HELLO, **order}
    body = {name: value for name, value in body.items() if value is not None}
    with pytest.raises(anthropic.APIStatusError) as refused:
        claude.post("/v1/messages", body=body, cast_to=object)
    assert refused.value.status_code == status
    told: Any = refused.value.body
    assert told["error"]["type"] == kind
    assert words in told["error"]["message"]
    assert told["request_id"].startswith("req_01")


def test_anthropic_takes_instructions_that_come_later(claude: anthropic.Anthropic) -> None:
    turns: Any = [*HELLO, {"role": "system", "content": "Be brief."}, {"role": "user", "content": "And?"}]
    answer = claude.messages.create(model="claude-sim", max_tokens=99, messages=turns)
    assert answer.content[0].to_dict()["text"] == "You said: And?"


def test_anthropic_wants_a_key_and_a_version(root: str) -> None:
    def ask(headers: dict[str, str]) -> tuple[int, str]:
        request = urllib.request.Request(f"{root}/anthropic/v1/models", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        return refused.value.code, json.load(refused.value)["error"]["message"]

    assert ask({}) == (401, "x-api-key header is required")
    assert ask({"x-api-key": "k"}) == (400, "anthropic-version: header is required")


def test_models_come_in_pages(claude: anthropic.Anthropic) -> None:
    assert [model.id for model in claude.models.list(limit=1)] == ["claude-sim", "claude-sim-pro", "claude-sim-vision"]
