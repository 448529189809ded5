"""The tools for agents, through the official client: billed as any order, and only for who has a key."""

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent

from farebox.web.mcp.tools import ITEMS_BYTES_MAX
from tests.gateway import Gateway, eventually
from tests.served.test_formats import rss_kib


def with_client(gateway: Gateway, key: str, work: Callable[[ClientSession], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        url = f"http://127.0.0.1:{gateway.port}/mcp"
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=60) as http,
            streamable_http_client(url, http_client=http) as streams,
            ClientSession(streams[0], streams[1]) as session,
        ):
            await session.initialize()
            return await work(session)

    return asyncio.run(main())


def call(gateway: Gateway, key: str, tool: str, **arguments: Any) -> CallToolResult:
    async def work(session: ClientSession) -> CallToolResult:
        await session.list_tools()  # the client then checks what comes against the tools' schemas
        return await session.call_tool(tool, arguments)

    found = with_client(gateway, key, work)
    assert isinstance(found, CallToolResult)
    return found


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@pytest.fixture
def key(shared_gateway: Gateway, request: pytest.FixtureRequest) -> str:
    return shared_gateway.new_key(request.node.name, "--plan", "paying", "--prepaid", "1")


def test_the_tools_are_listed(shared_gateway: Gateway, key: str) -> None:
    tools = with_client(shared_gateway, key, lambda session: session.list_tools()).tools
    assert [tool.name for tool in tools] == [
        "chat",
        "embed",
        "list_models",
        "spending",
        "apify--openrouter",
        "get-dataset-items",
    ]
    for tool in tools:
        assert tool.description
        assert tool.input_schema["additionalProperties"] is False
        assert (tool.annotations.read_only_hint, "Free." in tool.description) in ((True, True), (False, False))


def test_the_actor_is_a_tool_as_on_the_platform(shared_gateway: Gateway, key: str) -> None:
    chat = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}]}
    other = shared_gateway.new_key("who may not read the items", "--plan", "paying", "--prepaid", "1")
    told = call(shared_gateway, key, "apify--openrouter").structured_content
    assert told["status"] == "SUCCEEDED"
    assert "This Actor is a server" in told["summary"]
    run = call(shared_gateway, key, "apify--openrouter", requests=[chat, {**chat, "model": "no/such"}], waitSecs=45)
    told = run.structured_content
    assert told["status"] == "SUCCEEDED"
    assert "1 orders served, 1 failed" in told["summary"]
    dataset = told["storages"]["defaultDatasetId"]
    assert dataset in told["nextStep"]
    found = call(shared_gateway, key, "get-dataset-items", datasetId=dataset).structured_content
    assert ([item["status"] for item in found["items"]], found["total"]) == ([200, 404], 2)
    page = call(shared_gateway, key, "get-dataset-items", datasetId=dataset, offset=1, limit=1).structured_content
    assert [item["number"] for item in page["items"]] == [2]
    for token, asked, said in (
        (other, {"datasetId": dataset}, "there is no dataset"),
        (key, {"datasetId": "nobody"}, "there is no dataset"),
        (key, {"datasetId": dataset, "limit": 0}, "limit: a whole number"),
    ):
        result = call(shared_gateway, token, "get-dataset-items", **asked)
        assert result.is_error
        assert said in text_of(result)
    for field, value in (("concurrency", 0), ("waitSecs", 99)):
        result = call(shared_gateway, key, "apify--openrouter", **{field: value})
        assert result.is_error
        assert field in text_of(result)


def test_items_are_given_whatever_their_texts_and_within_bounds(shared_gateway: Gateway, key: str) -> None:
    dataset = call(shared_gateway, key, "apify--openrouter").structured_content["storages"]["defaultDatasetId"]
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    long = json.dumps({"a": "x" * (ITEMS_BYTES_MAX // 2)}).encode()
    for item in (b'{"a":"\\ud800"}', long, long):
        assert shared_gateway.request("POST", f"/v2/datasets/{dataset}/items", item, headers).status == 201
    found = call(shared_gateway, key, "get-dataset-items", datasetId=dataset, limit=2).structured_content
    assert (found["items"][0], len(found["items"]), found["total"]) == ({"a": "\ufffd"}, 2, 3)
    result = call(shared_gateway, key, "get-dataset-items", datasetId=dataset)
    assert result.is_error
    assert "limit: ask for fewer items at once" in text_of(result)


def test_a_chat_is_answered_and_billed(shared_gateway: Gateway, key: str) -> None:
    result = call(shared_gateway, key, "chat", model="sim/echo", prompt="Hello", system="Be kind", max_tokens=20)
    told = result.structured_content
    assert not result.is_error
    assert text_of(result) == told["text"]
    assert told["text"].startswith("You said: Hello")
    assert (told["fare_usd"], told["finish_reason"]) == ("0.00001", "stop")
    (line,) = shared_gateway.orders("test_a_chat_is_answered_and_billed")
    assert (line["generation_id"], line["cost_usd"]) == (told["generation_id"], told["cost_usd"])
    assert Decimal(told["cost_usd"]) == Decimal(str(told["usage"]["cost"]))


def test_texts_are_embedded_and_billed(shared_gateway: Gateway, key: str) -> None:
    result = call(shared_gateway, key, "embed", model="sim/embedder", texts=["Hello", "there"])
    vectors = result.structured_content["vectors"]
    assert len(vectors) == 2
    assert text_of(result) == f"2 vectors of {len(vectors[0])} numbers"
    assert [line["what"] for line in shared_gateway.orders("test_texts_are_embedded_and_billed")] == ["fare"]


def test_models_are_listed_with_their_prices(shared_gateway: Gateway, key: str) -> None:
    told = call(shared_gateway, key, "list_models", search="ECHO", limit=2).structured_content
    assert told["total"] == 3
    assert [model["id"] for model in told["models"]] == ["sim/echo", "sim/echo:free"]
    assert told["models"][0]["prompt_usd"] == "0.00000015"
    assert call(shared_gateway, key, "list_models").structured_content["total"] > 10
    assert text_of(call(shared_gateway, key, "list_models", search="no such")) == "No model matches."


def test_models_that_the_plan_does_not_include_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "farebox.toml").write_text("[plans.small]\nmodels = ['sim/ti*']\n")
    with Gateway(tmp_path) as gateway:
        small = gateway.new_key("a", "--plan", "small", "--prepaid", "1")
        told = call(gateway, small, "list_models").structured_content
        assert [model["id"] for model in told["models"]] == ["sim/tiny"]
        assert call(gateway, small, "chat", model="sim/echo", prompt="Hi").is_error


def test_what_was_spent_is_told(shared_gateway: Gateway, key: str) -> None:
    call(shared_gateway, key, "chat", model="sim/echo", prompt="Hello")
    told = call(shared_gateway, key, "spending").structured_content
    assert told == {
        "account": "test_what_was_spent_is_told",
        "plan": "paying",
        "paid_in_usd": "1",
        "spent_usd": "0.00001",
        "spent_today_usd": "0.00001",
        "spent_this_month_usd": "0.00001",
        "available_usd": "0.99999",
    }


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("chat", {"model": "sim/nobody", "prompt": "Hi"}, "not in the upstream's list"),
        ("chat", {"model": "sim/echo:status=402", "prompt": "Hi"}, "nothing is wrong with your key"),
        ("chat", {"model": "sim/echo"}, "prompt"),
        ("chat", {"model": "sim/echo", "prompt": 5}, "prompt"),
        ("chat", {"model": "sim/echo", "prompt": "Hi", "max_tokens": "many"}, "max_tokens"),
        ("embed", {"model": "sim/embedder", "texts": []}, "texts"),
        ("embed", {"model": "sim/echo", "texts": ["a"]}, "sim/echo"),
        ("list_models", {"limit": 0}, "limit"),
        ("delete_everything", {}, "delete_everything"),
    ],
)
def test_what_is_wrong_is_the_tools_result(
    shared_gateway: Gateway, tool: str, arguments: dict[str, Any], said: str
) -> None:
    result = with_client(shared_gateway, shared_gateway.key, lambda session: session.call_tool(tool, arguments))
    assert result.is_error
    assert said in text_of(result)


def test_an_empty_account_is_told_what_it_lacks(shared_gateway: Gateway) -> None:
    poor = shared_gateway.new_key("an empty one", "--plan", "paying", "--prepaid", "0.000001")
    result = call(shared_gateway, poor, "chat", model="sim/echo-pro", prompt="Hello" * 50)
    assert result.is_error
    assert "is available" in text_of(result)


def test_who_has_no_key_gets_no_further(shared_gateway: Gateway) -> None:
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accepts = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    for credential in ({}, {"authorization": "Bearer sk-fb-nobody"}):
        refused = shared_gateway.request("POST", "/mcp", ask, {**accepts, **credential})
        assert (refused.status, refused.error["code"]) == (401, 401)
    good = {**accepts, "x-api-key": shared_gateway.key}
    assert len(shared_gateway.request("POST", "/mcp", ask, good).json["result"]["tools"]) == 6
    for method in ("GET", "DELETE"):
        assert shared_gateway.request(method, "/mcp", headers=good).status == 405


LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
BEGIN = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}},
}


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/"])
@pytest.mark.parametrize(
    "said",
    [
        {},
        {"accept": ""},
        {"accept": "*/*"},
        {"content-type": "application/json"},
        {"content-type": "", "accept": "application/json"},
        {"content-type": "Application/JSON; charset=utf-8", "mcp-protocol-version": ""},
    ],
)
def test_what_a_request_does_not_say_is_no_reason_to_refuse_it(
    shared_gateway: Gateway, path: str, said: dict[str, str]
) -> None:
    headers = {"x-api-key": shared_gateway.key, **said}
    for message, found in ((LIST, "tools"), (BEGIN, "serverInfo")):
        answer = shared_gateway.request("POST", path, json.dumps(message).encode(), headers)
        assert (answer.status, found in answer.json["result"]) == (200, True)


def test_what_a_request_says_is_heeded(shared_gateway: Gateway) -> None:
    for said, status, named in (
        ({"accept": "text/html"}, 406, "application/json"),
        ({"content-type": "text/plain"}, 415, "content-type: send application/json, not 'text/plain'"),
    ):
        headers = {"x-api-key": shared_gateway.key, **said}
        refused = shared_gateway.request("POST", "/mcp", json.dumps(LIST).encode(), headers)
        assert (refused.status, named in refused.json["error"]["message"]) == (status, True)


def listed(gateway: Gateway, **headers: str) -> int:
    """The status of a list of the tools."""
    sent = {"x-api-key": gateway.key, "content-type": "application/json", **headers}
    return gateway.request("POST", "/mcp", json.dumps(LIST).encode(), sent).status


def test_foreign_pages_and_names_are_refused_and_this_machines_are_not(shared_gateway: Gateway) -> None:
    for host in ("localhost", "127.0.0.1:1", "[::1]:8080", "gateway.localhost", "127.1.2.3"):
        assert listed(shared_gateway, host=host) == 200, host
    for origin in ("http://localhost:6274", "https://127.0.0.1", "http://[::1]:3000"):
        assert listed(shared_gateway, origin=origin) == 200, origin
    # With names of their own, pages elsewhere reach this machine's address: what they call it gives them away.
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "10.0.0.1"):
        assert listed(shared_gateway, host=host) == 403, host
    for origin in ("https://evil.example", "null", "", "http://[", "http://localhost@evil.example", "file://localhost"):
        assert listed(shared_gateway, origin=origin) == 403, origin
    rebound = {"host": "evil.example:8080", "origin": "http://evil.example:8080"}
    for path in ("/mcp", "/mcp/", "//mcp", "/", "/?tools=a"):
        refused = shared_gateway.request("POST", path, LIST, {"x-api-key": shared_gateway.key, **rebound})
        assert refused.status == 403
        assert "FAREBOX_ALLOWED_HOSTS" in refused.error["message"]


def test_settings_say_which_names_and_pages_are_not_foreign(tmp_path: Path) -> None:
    settings = {
        "FAREBOX_ALLOWED_HOSTS": "gateway.example",
        "FAREBOX_ALLOWED_ORIGINS": "https://app.example",
        "FAREBOX_PUBLIC_URL": "https://public.example/farebox",
    }
    with Gateway(tmp_path, **settings) as gateway:
        for origin in ("https://app.example", "https://gateway.example", "https://public.example:8443"):
            assert listed(gateway, host="gateway.example:80", origin=origin) == 200
        for host, origin in (
            ("127.0.0.1", "https://app.example"),
            ("gateway.example", "http://localhost:6274"),
            ("gateway.example", "https://app.example.evil.example"),
        ):
            assert listed(gateway, host=host, origin=origin) == 403
        del gateway.environment["FAREBOX_ALLOWED_HOSTS"]
        gateway.stop()
        gateway.start()
        assert listed(gateway, host="public.example") == 200
        gateway.stop()
        # Where it can be reached from elsewhere, it does not know under which names.
        gateway.cli("key", "revoke", gateway.key)
        gateway.key = gateway.new_key("another", "--plan", "paying", "--prepaid", "1")
        gateway.environment |= {"FAREBOX_HOST": "0.0.0.0", "FAREBOX_ALLOWED_ORIGINS": "*"}
        gateway.start()
        assert listed(gateway, host="any.example", origin="https://evil.example") == 200


@pytest.mark.parametrize("version", ["2099-01-01", "nonsense", "2025-06-1"])
def test_a_version_that_is_not_spoken_is_named_with_those_that_are(shared_gateway: Gateway, version: str) -> None:
    headers = {"x-api-key": shared_gateway.key, "mcp-protocol-version": version}
    for message in (LIST, BEGIN, {"jsonrpc": "2.0", "method": "notifications/initialized"}):
        refused = shared_gateway.request("POST", "/mcp", json.dumps(message).encode(), headers)
        error = refused.json["error"]
        assert (refused.status, error["code"]) == (400, -32022)
        assert error["message"].startswith(f"MCP-Protocol-Version: '{version}' is not spoken here; 2024-11-05, ")
        assert error["data"]["requested"] == version
    for spoken in error["data"]["supported"]:
        headers["mcp-protocol-version"] = spoken
        answer = shared_gateway.request("POST", "/mcp", json.dumps(LIST).encode(), headers)
        # The newest has no handshake, and wants in each body what that told.
        assert "tools" in answer.json["result"] if spoken < "2026" else "_meta" in answer.json["error"]["message"]


def test_the_tools_schemas_are_json_schemas(shared_gateway: Gateway, key: str) -> None:
    for tool in with_client(shared_gateway, key, lambda session: session.list_tools()).tools:
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        jsonschema.Draft202012Validator.check_schema(tool.output_schema)


@pytest.mark.parametrize(
    "body", [b"nonsense", b"[]", b"{}", b'{"jsonrpc":"2.0","id":1,"method":"no/such"}', b'{"jsonrpc":"1.0"}', b""]
)
def test_what_is_no_message_is_refused(shared_gateway: Gateway, body: bytes) -> None:
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "x-api-key": shared_gateway.key,
    }
    answer = shared_gateway.request("POST", "/mcp", body, headers)
    assert 400 <= answer.status < 500 or "error" in answer.json
    assert shared_gateway.request("GET", "/healthz").status == 200


def test_who_leaves_while_a_tool_works_has_ordered_and_pays(gateway: Gateway) -> None:
    arguments = {"model": "sim/echo:first-token-ms=3000", "prompt": "Hello"}
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "chat", "arguments": arguments}}
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "x-api-key": gateway.key,
    }
    gateway.request("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers)

    def leave() -> None:
        with pytest.raises(TimeoutError):
            gateway.request("POST", "/mcp", json.dumps(ask).encode(), headers, timeout=1)

    leaving = threading.Thread(target=leave)
    leaving.start()
    eventually(lambda: len(gateway.orders()) == 1)
    leaving.join()
    eventually(lambda: [line["what"] for line in gateway.orders()] == ["fare"])


def test_a_server_carries_neither_the_commands_nor_the_tools_that_nobody_asks_for(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.python = sys.executable
    with gateway:
        gateway.chat()
        before = rss_kib(gateway)
        maps = Path(f"/proc/{gateway.process.pid}/maps")
        loaded = maps.read_text()
        assert "msgspec" in loaded  # the test can see what is loaded
        assert not {name for name in ("cryptography", "pydantic_core") if name in loaded}
        call(gateway, gateway.key, "spending")
        assert "pydantic_core" in maps.read_text()
        assert rss_kib(gateway) > before + 10_000
