"""What bounds an order: each part of a history by what it is, searches by their number, routes by who picks them."""

import json
from types import ModuleType
from typing import Any

import pytest

from farebox.core.errors import Refusal
from farebox.core.formats import Asked, Searches, chat, messages, responses
from farebox.core.formats.bounds import PLUGINS, RESULT_BYTES, tool_kind
from farebox.core.formats.table import FORMATS
from farebox.core.intake import MEMBERS_MAX, read_asked
from farebox.core.reading import LIST_MAX

PNG = "A" * 5000

# Types that OpenRouter's OpenAPI document of 2026-08-22 names, in requests and in answers that are sent back.
CHAT_PARTS = "file image_url input_audio input_video text video_url"
BLOCKS = (
    "advisor_tool_result bash_code_execution_tool_result code_execution_tool_result compaction container_upload"
    " document image openrouter_bash_tool_result openrouter_shell_tool_result redacted_thinking search_result"
    " server_tool_use text text_editor_code_execution_tool_result thinking tool_addition tool_reference tool_removal"
    " tool_result tool_search_tool_result tool_use web_fetch_tool_result web_search_tool_result"
)
ITEMS = (
    "additional_tools agent_message apply_patch_call apply_patch_call_output code_interpreter_call compaction"
    " computer_call context_compaction custom_tool_call custom_tool_call_output file_search_call function_call"
    " function_call_output image_generation_call item_reference local_shell_call local_shell_call_output"
    " mcp_approval_request mcp_approval_response mcp_call mcp_list_tools message openrouter:advisor"
    " openrouter:apply_patch openrouter:bash openrouter:browser_use openrouter:code_interpreter openrouter:datetime"
    " openrouter:experimental__search_models openrouter:file_search openrouter:files openrouter:fusion"
    " openrouter:image_generation openrouter:mcp openrouter:memory openrouter:shell openrouter:subagent"
    " openrouter:text_editor openrouter:tool_search openrouter:web_fetch openrouter:web_search reasoning shell_call"
    " shell_call_output web_search_call"
)
ITEM_PARTS = (
    "encrypted_content file image input_audio input_file input_image input_text input_video logs output_text"
    " reasoning_text refusal summary_text"
)
PLUGIN_IDS = (
    "auto-beta-router auto-router context-compression file-parser fusion moderation pareto-router response-healing"
    " web web-fetch"
)


def test_every_documented_type_is_decided() -> None:
    assert set(CHAT_PARTS.split()) <= chat.PARTS.keys()
    assert set(BLOCKS.split()) <= messages.BLOCKS.keys()
    assert set(ITEMS.split()) <= responses.ITEMS.keys()
    assert set(ITEM_PARTS.split()) <= responses.PARTS.keys()
    assert set(PLUGIN_IDS.split()) <= PLUGINS.keys()


def read(wire: ModuleType, **members: Any) -> tuple[bytes, Asked]:
    said = {"input": "hi"} if wire is responses else {"messages": [{"role": "user", "content": "hi"}]}
    body = json.dumps({"model": "a/b", **said, **members}).encode()
    asked: Asked = wire.read(body)
    return body, asked


def bounded_by_bytes(wire: ModuleType, **members: Any) -> bool:
    body, asked = read(wire, **members)
    return (asked.prompt_is_open, asked.images, asked.searches) == (False, 0, None) and asked.prompt_bytes >= len(body)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s",
            "content": [{"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "E" * 900}],
        },
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "f"}]},
        {"type": "mcp_tool_use", "id": "m", "name": "f", "server_name": "s", "input": {}},
        {"type": "mcp_tool_result", "tool_use_id": "m", "content": [{"type": "text", "text": "found"}]},
        {"type": "code_execution_tool_result", "tool_use_id": "s", "content": {"type": "code_execution_result"}},
        {"type": "tool_search_tool_result", "tool_use_id": "s", "content": {"type": "tool_search_tool_search_result"}},
        {"type": "redacted_thinking", "data": "E" * 900},
        {"type": "compaction", "content": None, "encrypted_content": "E" * 900},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "plain"}]}},
        {
            "type": "web_fetch_tool_result",
            "tool_use_id": "s",
            "content": {
                "type": "web_fetch_result",
                "url": "u",
                "content": {"type": "document", "source": {"type": "text", "data": "page"}},
            },
        },
    ],
    ids=lambda block: block["type"],
)
def test_a_block_of_an_earlier_turn_is_bounded_by_its_bytes(block: dict[str, Any]) -> None:
    assert bounded_by_bytes(messages, messages=[{"role": "assistant", "content": [block]}])


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "file_search_call", "id": "f", "status": "completed", "queries": ["q"], "results": [{"text": "t"}]},
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "E" * 900},
        {"type": "code_interpreter_call", "id": "c", "code": "1", "outputs": [{"type": "logs", "logs": "1"}]},
        {"type": "local_shell_call_output", "id": "l", "output": "done"},
        {"type": "shell_call_output", "call_id": "s", "output": [{"stdout": "done", "stderr": ""}]},
        {"type": "mcp_call", "id": "m", "name": "f", "server_label": "s", "arguments": "{}", "output": "o"},
        {"type": "compaction", "encrypted_content": "E" * 900},
        {"type": "openrouter:web_fetch", "status": "completed", "content": "page"},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "f"}]},
        {
            "type": "agent_message",
            "author": "a",
            "recipient": "b",
            "content": [{"type": "encrypted_content", "encrypted_content": "E" * 900}],
        },
    ],
    ids=lambda item: item["type"],
)
def test_an_item_of_an_earlier_turn_is_bounded_by_its_bytes(item: dict[str, Any]) -> None:
    assert bounded_by_bytes(responses, input=[item, {"role": "user", "content": "go on"}])


@pytest.mark.parametrize(
    "item",
    [
        {"type": "image_generation_call", "id": "i", "status": "completed", "result": PNG},
        {"type": "openrouter:image_generation", "status": "completed", "imageB64": PNG},
        {"type": "openrouter:browser_use", "status": "completed", "screenshotB64": PNG},
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "image_url": PNG}},
        {"type": "code_interpreter_call", "id": "c", "outputs": [{"type": "image", "url": PNG}]},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": PNG}]},
    ],
    ids=lambda item: item["type"],
)
def test_a_picture_of_an_earlier_turn_counts_as_one_wherever_it_stands(item: dict[str, Any]) -> None:
    body, asked = read(responses, input=[item])
    assert (asked.images, asked.prompt_is_open) == (1, False)
    assert asked.prompt_bytes < len(body) - len(PNG)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
        {"type": "document", "source": {"type": "file", "file_id": "f", "content": "looks short"}},
        {"type": "document"},
        {"type": "tool_result", "content": [{"type": "document", "source": {"type": "url", "url": "u"}}]},
        {"type": "web_fetch_tool_result", "content": {"type": "web_fetch_result", "content": {"type": "document"}}},
    ],
)
def test_a_file_is_open_however_deep_it_stands(block: dict[str, Any]) -> None:
    assert read(messages, messages=[{"role": "user", "content": [block]}])[1].prompt_is_open


def test_parts_within_parts_have_an_end() -> None:
    block: dict[str, Any] = {"type": "text", "text": "deep"}
    for _ in range(200):
        block = {"type": "tool_result", "content": block}
    assert read(messages, messages=[{"role": "user", "content": [block]}])[1].prompt_is_open


# Tools and plugins


@pytest.mark.parametrize(
    ("wire", "tool"),
    [
        (chat, {"type": "function", "function": {"name": "f"}}),
        (chat, {"type": "openrouter:datetime"}),
        (messages, {"type": "bash_20250124", "name": "bash"}),
        (messages, {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}),
        (messages, {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}),
        (responses, {"type": "custom", "name": "apply_patch"}),
        (responses, {"type": "local_shell"}),
        (responses, {"type": "namespace", "name": "n", "description": "d", "tools": []}),
        (responses, {"type": "openrouter:tool_search"}),
    ],
)
def test_tools_that_the_caller_runs_or_that_cost_nothing_open_nothing(wire: ModuleType, tool: dict[str, Any]) -> None:
    assert bounded_by_bytes(wire, tools=[tool])


@pytest.mark.parametrize("wire", [chat, messages, responses])
@pytest.mark.parametrize(
    "plugin",
    [
        {"id": "response-healing"},
        {"id": "context-compression", "engine": "middle-out"},
        {"id": "moderation"},
        {"id": "file-parser", "pdf": {"engine": "mistral-ocr"}},
        {"id": "auto-router", "allowed_models": ["a/*"]},
        {"id": "web", "enabled": False, "max_results": 100},
        {"id": "fusion", "enabled": False},
    ],
    ids=lambda plugin: plugin["id"],
)
def test_plugins_that_cost_nothing_open_nothing(wire: ModuleType, plugin: dict[str, Any]) -> None:
    assert bounded_by_bytes(wire, plugins=[plugin])


def test_a_plugin_that_cannot_be_turned_off_is_not() -> None:
    assert read(chat, plugins=[{"id": "web-fetch", "enabled": False}])[1].prompt_is_open
    assert read(chat, plugins=["web"])[1].prompt_is_open


@pytest.mark.parametrize(
    ("wire", "members", "searches", "result_bytes"),
    [
        (chat, {"model": "a/b:online"}, Searches(1, 5), 5 * RESULT_BYTES),
        (chat, {"model": "a/b:online:nitro"}, Searches(1, 5), 5 * RESULT_BYTES),
        (chat, {"web_search_options": {}}, Searches(1, 5), 5 * RESULT_BYTES),
        (chat, {"web_search_options": {"search_context_size": "high"}}, Searches(1, 5), 150_000),
        (chat, {"plugins": [{"id": "web"}]}, Searches(1, 5), 5 * RESULT_BYTES),
        (chat, {"plugins": [{"id": "web", "max_results": 100}]}, Searches(1, 100), 100 * RESULT_BYTES),
        (chat, {"plugins": [{"id": "web", "engine": "exa"}]}, Searches(1, 5, is_engine_named=True), 20_000),
        (
            chat,
            {"tools": [{"type": "openrouter:web_search", "parameters": {"max_uses": 3, "max_total_results": 7}}]},
            Searches(3, 7),
            7 * RESULT_BYTES,
        ),
        (chat, {"tools": [{"type": "web_search", "max_characters": 100}]}, Searches(1, 5), 500),
        (messages, {"tools": [{"type": "web_search_20250305", "name": "w", "max_uses": 50}]}, Searches(50, 250), 10**6),
        (messages, {"tools": [{"type": "web_search_20260209", "name": "w", "max_uses": 0}]}, None, 0),
        (responses, {"tools": [{"type": "web_search", "external_web_access": False}]}, Searches(1, 5), 20_000),
        (responses, {"tools": [{"type": "web_search_preview", "max_uses": 2.0}]}, Searches(2, 10), 40_000),
        (responses, {"tools": [{"type": "web_search", "max_uses": "many"}]}, Searches(1, 5), 20_000),
        (responses, {"tools": [{"type": "web_search", "max_uses": -1, "engine": "native"}]}, Searches(1, 5), 20_000),
        (
            responses,
            {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]},
            Searches(1, 5),
            20_000,
        ),
        (responses, {"tools": [{"type": "web_search"}], "plugins": [{"id": "web"}]}, Searches(2, 10), 40_000),
    ],
)
def test_searches_are_held_for_by_their_number(
    wire: ModuleType, members: dict[str, Any], searches: Searches | None, result_bytes: int
) -> None:
    body, asked = read(wire, **members)
    assert (asked.searches, asked.prompt_is_open) == (searches, False)
    assert result_bytes <= asked.prompt_bytes - len(body) <= result_bytes + 1000


def test_a_search_option_that_is_null_is_none() -> None:
    assert bounded_by_bytes(chat, web_search_options=None)


@pytest.mark.parametrize("name", ["code_execution_20250825", "openrouter:bash", "mcp", "web_fetch_20250910", "", "x_1"])
def test_tools_that_the_upstream_runs_are_open(name: str) -> None:
    assert tool_kind(name) == "open"


def test_one_tool_that_is_open_opens_a_request_that_also_searches() -> None:
    tools = [{"type": "web_search"}, {"type": "mcp", "server_label": "s"}]
    assert read(responses, tools=tools)[1].prompt_is_open


# Routes


@pytest.mark.parametrize("wire", [chat, messages, responses])
@pytest.mark.parametrize(
    ("members", "is_premium"),
    [
        ({"provider": {"sort": "throughput"}}, True),
        ({"provider": {"sort": "latency"}}, True),
        ({"provider": {"sort": {"by": "throughput", "partition": "none"}}}, True),
        ({"model": "a/b:nitro"}, True),
        ({"model": "a/b:nitro:online"}, True),
        ({"model": "a/b:exacto"}, True),
        ({"provider": {"sort": "price"}}, False),
        ({"provider": {"sort": {"by": "price"}}}, False),
        ({"provider": {"sort": None}}, False),
        ({"provider": {"order": ["x"], "zdr": True}}, False),
        ({"provider": None}, False),
        ({"provider": "x"}, False),
        ({"model": "a/b:floor"}, False),
    ],
)
def test_a_provider_that_is_not_picked_by_its_price_may_be_dearer(
    wire: ModuleType, members: dict[str, Any], is_premium: bool
) -> None:
    assert read(wire, **members)[1].is_premium is is_premium


def repeated(text: str, times: int) -> str:
    return "[" + ",".join([text] * times) + "]"


TWO_HALVES = repeated('{"role":"user","content":' + repeated('{"type":"text","text":""}', LIST_MAX // 2 + 1) + "}", 2)


@pytest.mark.parametrize(
    ("path", "said", "problem"),
    [
        ("/chat/completions", '"messages":' + repeated("{}", LIST_MAX + 1), "messages: "),
        ("/chat/completions", '"messages":[{}],"tools":' + repeated("{}", LIST_MAX + 1), "tools: "),
        ("/chat/completions", '"messages":[{}],"models":' + repeated('"a/b"', LIST_MAX + 1), "models: "),
        ("/chat/completions", f'"messages":{TWO_HALVES}', "parts"),
        ("/messages", '"messages":' + repeated('{"content":""}', LIST_MAX + 1), "messages: "),
        ("/messages", f'"messages":{TWO_HALVES}', "parts"),
        ("/responses", '"input":' + repeated("{}", LIST_MAX + 1), "input: "),
        ("/responses", f'"input":{TWO_HALVES}', "parts"),
        ("/embeddings", '"input":' + repeated('"a"', LIST_MAX + 1), "input: "),
        ("/rerank", '"query":"a","documents":' + repeated('"a"', LIST_MAX + 1), "documents: "),
        ("/audio/speech", '"input":' + repeated('{"text":"a"}', LIST_MAX + 1), "input: "),
        ("/chat/completions", '"messages":[{}],"else":' + repeated("0", MEMBERS_MAX), "members and items"),
    ],
)
def test_what_an_order_is_made_of_is_bounded_in_number(path: str, said: str, problem: str) -> None:
    with pytest.raises(Refusal, match=problem) as refused:
        read_asked(f'{{"model":"a/b",{said}}}'.encode(), FORMATS[path])
    assert refused.value.status == 400


def test_commas_in_a_text_are_no_members() -> None:
    text = json.dumps('1,"' * (MEMBERS_MAX + 1))
    body = f'{{"model":"a/b","messages":[{{"role":"user","content":{text}}}]}}'.encode()
    assert read_asked(body, FORMATS["/chat/completions"]).prompt_bytes == len(body)
    with pytest.raises(Refusal, match="JSON"):
        read_asked(body[:-10], FORMATS["/chat/completions"])


def test_what_is_wrong_with_a_nested_part_is_said() -> None:
    for wire, members in (
        (messages, {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [1]}]}]}),
        (responses, {"input": [{"type": "additional_tools", "tools": [1]}]}),
        (responses, {"input": [{"type": "function_call_output", "output": [1]}]}),
    ):
        with pytest.raises(Refusal) as refused:
            read(wire, **members)
        assert refused.value.status == 400
