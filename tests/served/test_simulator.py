"""The simulated upstream: its bodies are OpenRouter's, and so is its awkwardness."""

import base64
import http.client
import json
import os
import socket
import struct
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farebox.simulator import models
from farebox.simulator.faults import BadFaults, Faults, parse
from farebox.simulator.server import embedded
from farebox.upstream.openrouter_pages import read_price_list
from tests.gateway import Response, events_of, eventually
from tests.schemas import assert_accepted, assert_documented

CHAT_MODELS = [name for name, model in models.MODELS.items() if "text" in model.outputs]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"what": {"type": "string"}}}},
    }
]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with embedded() as url:
        yield int(url.split(":")[2].split("/")[0])


def get(port: int, path: str, key: str = "sk-or-x") -> Response:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/api/v1{path}", headers={"authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        return Response(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def sockets_to(peer: tuple[str, int]) -> Iterator[socket.socket]:
    """Sockets of this process that are connected to an address."""
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(each.name))) as found:
            if found.getpeername() == peer:
                yield found


def test_no_part_of_an_answer_waits_for_the_one_before(port: int) -> None:
    """Nagle's algorithm would hold a body back until its head is acknowledged: for 40 ms, on Linux."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
        caller.sendall(b"GET /api/v1/models HTTP/1.1\r\nhost: simulator\r\n\r\n")
        assert caller.recv(9) == b"HTTP/1.1 "
        assert [
            each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets_to(caller.getsockname())
        ] == [1]


def books_of(port: int) -> dict[str, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/books", timeout=10) as answer:
        charged: dict[str, str] = json.load(answer)
        return charged


def order(port: int, path: str, body: dict[str, Any], simulate: str = "") -> Response:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"x-openrouter-simulate": simulate, "authorization": "Bearer sk-or-x"}
        connection.request("POST", f"/api/v1{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def ask(port: int, simulate: str = "", key: str = "sk-or-x", timeout: float = 10, **body: Any) -> Response:
    body = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello there"}], **body}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    headers = {"x-openrouter-simulate": simulate, **({"authorization": f"Bearer {key}"} if key else {})}
    try:
        connection.request("POST", "/api/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        read = b""
        try:
            read = answer.read()
        except http.client.IncompleteRead as cut:
            read = cut.partial + b"(cut)"
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, read)
    finally:
        connection.close()


VARIETY: list[dict[str, Any]] = [
    *({"model": name} for name in CHAT_MODELS),
    {"tools": TOOLS},
    {"model": "sim/painter", "modalities": ["image", "text"]},
    {"max_tokens": 2},
]


@pytest.mark.parametrize("body", VARIETY)
def test_whole_answers_are_as_documented_and_as_the_sdk_demands(port: int, body: dict[str, Any]) -> None:
    answer = ask(port, **body)
    assert answer.status == 200
    assert_documented("ChatResult", answer.json)
    assert_accepted("ChatResult", answer.json)
    assert answer.headers["x-generation-id"] == answer.json["id"]
    assert answer.json["id"].startswith("gen-")


@pytest.mark.parametrize("body", VARIETY)
@pytest.mark.parametrize("usage", ["separate", "delta", "merged"])
def test_streams_are_as_documented_and_carry_usage_once(port: int, body: dict[str, Any], usage: str) -> None:
    answer = ask(port, f"usage={usage}", stream=True, **body)
    *chunks, done = events_of(answer.body)
    assert done == "[DONE]"
    for chunk in chunks:
        assert_documented("ChatStreamChunk", chunk)
        assert_accepted("ChatStreamChunk", chunk)
    (reported,) = [chunk for chunk in chunks if "usage" in chunk]
    assert len(reported["choices"]) == (0 if usage == "separate" else 1)
    whole = ask(port, **body).json
    assert reported["usage"] == whole["usage"]
    assert {chunk["id"] for chunk in chunks} == {answer.headers["x-generation-id"]}


PARAMETERS = {"type": "object", "properties": {"what": {"type": "string"}}}
MESSAGES: list[dict[str, Any]] = [
    *({"model": name} for name in ("sim/echo", "sim/reasoner")),
    {"model": "sim/echo", "tools": [{"name": "look_up", "input_schema": PARAMETERS}]},
    {"model": "sim/echo", "max_tokens": 2},
]
RESPONSES: list[dict[str, Any]] = [
    *({"model": name} for name in ("sim/echo", "sim/reasoner")),
    {"model": "sim/echo", "tools": [{"type": "function", "name": "look_up", "parameters": PARAMETERS}]},
    {"model": "sim/painter", "modalities": ["image", "text"]},
    {"model": "sim/echo", "max_output_tokens": 2},
]


@pytest.mark.parametrize("body", MESSAGES)
def test_messages_are_as_documented(port: int, body: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "Hello there"}], **body}
    answer = order(port, "/messages", body).json
    assert_documented("MessagesResult", answer)
    assert answer["usage"]["cost"] > 0
    told = order(port, "/messages", {**body, "stream": True})
    *events, done = told.body.decode().split("\n\n")[:-1]
    assert done == "data: [DONE]"
    for event in events:
        name, data = event.split("\n")
        assert_documented("MessagesStreamEvents", json.loads(data.removeprefix("data: ")))
        assert json.loads(data.removeprefix("data: "))["type"] == name.removeprefix("event: ")
    costs = [json.loads(event.split("data: ")[1]).get("usage", {}).get("cost") for event in events]
    assert [cost for cost in costs if cost is not None] == [answer["usage"]["cost"]]
    assert json.loads(events[0].split("data: ")[1])["message"]["id"] == told.headers["x-generation-id"]


@pytest.mark.parametrize("body", RESPONSES)
def test_responses_are_as_documented_in_events_of_data_alone(port: int, body: dict[str, Any]) -> None:
    body = {"input": "Hello there", **body}
    answer = order(port, "/responses", body).json
    assert_documented("OpenResponsesResult", answer)
    assert_accepted("OpenResponsesResult", answer)
    told = order(port, "/responses", {**body, "stream": True}, "comments=1")
    assert told.body.startswith(b": \n\ndata: ")
    assert b"event:" not in told.body
    *events, done = events_of(told.body)
    assert done == "[DONE]"
    # Seen on the wire, though the document does not have it.
    assert [event["response"].pop("usage") for event in events[:2]] == [None, None]
    for event in events:
        assert_documented("StreamEvents", event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["usage"] == answer["usage"]
    assert events[0]["response"]["id"] == told.headers["x-generation-id"]


def test_embeddings_are_as_documented(port: int) -> None:
    body = {"model": "sim/embedder", "input": ["Hello", "there"], "dimensions": 3}
    plain = order(port, "/embeddings", body).json
    assert_accepted("CreateEmbeddingsResponse", plain)
    packed = order(port, "/embeddings", {**body, "encoding_format": "base64"}).json
    assert_accepted("CreateEmbeddingsResponse", packed)
    for numbers, text in zip(plain["data"], packed["data"], strict=True):
        assert list(struct.unpack("<3f", base64.b64decode(text["embedding"]))) == numbers["embedding"]
    assert "usage" not in order(port, "/embeddings", body, "usage=missing").json
    assert order(port, "/embeddings", {**body, "input": []}).status == 400
    assert order(port, "/embeddings", {**body, "model": "sim/echo"}).status == 400


def test_errors_are_in_the_shape_of_each_format(port: int) -> None:
    assert order(port, "/messages", {"model": "sim/echo"}).json["type"] == "error"
    # OpenRouter documents codes of text here, and its SDK cannot type them.
    assert order(port, "/responses", {"model": "sim/echo", "store": True}).json["error"]["code"] == "invalid_prompt"
    assert order(port, "/embeddings", {"model": "sim/embedder"}).json["error"]["code"] == 400


def test_a_generation_is_told_after_a_while_and_to_its_key_alone(port: int) -> None:
    generation_id = ask(port, "generation-ms=1500").json["id"]
    path = f"/generation?id={generation_id}"
    assert get(port, path).status == 404
    time.sleep(1.6)
    assert get(port, path, key="sk-or-y").status == 404
    assert get(port, path, key="").status == 401
    record = get(port, path).json
    assert_documented("GenerationResponse", record)
    assert_accepted("GenerationResponse", record)
    assert record["data"]["total_cost"] == 3.3e-06
    assert get(port, "/generation?id=gen-nobody").status == 404


def test_a_stream_that_was_broken_off_costs_what_was_sent(port: int) -> None:
    text = json.dumps({"model": "sim/echo", "messages": [{"role": "user", "content": "Hello"}], "stream": True})
    request = (
        "POST /api/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-or-x\r\n"
        "x-openrouter-simulate: tokens=100,token-ms=50,generation-ms=0\r\n"
        f"content-length: {len(text)}\r\n\r\n{text}"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request.encode())
        head = connection.recv(65536)
        while b"data: " not in connection.recv(65536):
            pass
    generation_id = head.decode().lower().split("x-generation-id: ")[1].split("\r")[0]
    eventually(lambda: get(port, f"/generation?id={generation_id}").status == 200)
    record = get(port, f"/generation?id={generation_id}").json["data"]
    assert record["cancelled"] is True
    assert record["tokens_completion"] < 20
    cost = models.MODELS["sim/echo"].cost(record["tokens_prompt"], record["tokens_completion"])
    assert Decimal(str(record["total_cost"])) == cost


def test_lists_are_as_documented_and_priced(port: int) -> None:
    for path in ("/models?output_modalities=all", "/models/user", "/embeddings/models"):
        body = get(port, path).json
        assert_documented("ModelsListResponse", body)
        assert_accepted("ModelsListResponse", body)
    assert len(read_price_list(get(port, "/models?output_modalities=all").body).rates) == len(models.MODELS)
    served = get(port, "/models/sim/echo/endpoints").json["data"]
    for endpoint in [*served["endpoints"], *get(port, "/endpoints/zdr").json["data"]]:
        assert_documented("PublicEndpoint", endpoint)
    assert_accepted("ListEndpointsZdrResponse", get(port, "/endpoints/zdr").json)
    assert_accepted("ListProvidersResponse", get(port, "/providers").json)
    assert_accepted("ModelsCountResponse", get(port, "/models/count").json)
    assert get(port, "/models/user", key="").status == 401
    assert get(port, "/models/nobody/nothing/endpoints").status == 404


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("output_modalities=embeddings", {"sim/embedder"}),
        ("output_modalities=image", {"sim/painter", "google/gemini-2.5-flash-image", "sim/illustrator", "sim/poster"}),
        ("q=PRO", {"sim/echo-pro"}),
        ("input_modalities=image", {"sim/painter", "sim/seer", "google/gemini-2.5-flash-image"}),
        ("context=1000000", {"sim/long"}),
        ("category=legal", {"sim/echo-pro"}),
        ("min_price=2", {"sim/echo-pro", "sim/fine"}),
        ("max_price=0.03&min_price=0.01", {"sim/tiny"}),
        ("min_output_price=11", {"sim/echo-pro"}),
        ("max_output_price=0.03&min_output_price=0.01", {"sim/tiny"}),
        ("min_intelligence_index=50", {"sim/echo-pro"}),
        ("max_coding_index=50", {"sim/echo"}),
        ("distillable=false", {"sim/reasoner"}),
        ("zdr=true", {"sim/echo"}),
        ("region=eu", {"sim/echo"}),
        ("providers=OpenAI", set()),
        ("model_authors=nobody", set()),
        ("arch=GPT", set()),
        ("supported_parameters=logprobs", set()),
        ("min_tool_success_rate=0.99", set()),
        ("min_age_days=0&max_age_days=1", set()),
    ],
)
def test_every_filter_filters(port: int, query: str, found: set[str]) -> None:
    body = get(port, f"/models?{query.replace(' ', '%20')}").json
    assert {model["id"] for model in body["data"]} == found
    assert body["total_count"] == len(found)


def test_lists_are_sorted_and_paged_as_asked(port: int) -> None:
    dear = get(port, "/models?sort=pricing-high-to-low&limit=1").json
    assert [model["id"] for model in dear["data"]] == ["sim/echo-pro"]
    assert dear["links"]["next"]
    assert get(port, "/models?sort=context-high-to-low").json["data"][0]["id"] == "sim/long"
    for query in ("sort=dearest", "limit=0", "limit=1001", "offset=-1", "region=mars", "min_price=x", "zdr=yes"):
        assert get(port, f"/models?{query}").status == 400, query


def test_the_cost_is_the_tokens_at_the_listed_price(port: int) -> None:
    for name in ("sim/echo", "sim/echo-pro", "sim/reasoner", "sim/penny"):
        usage = ask(port, model=name).json["usage"]
        model = models.MODELS[name]
        assert Decimal(str(usage["cost"])) == model.cost(usage["prompt_tokens"], usage["completion_tokens"])


def test_tiny_costs_are_written_with_exponents(port: int) -> None:
    ten_tokens = [{"role": "user", "content": "abcdefgh i"}]
    assert b'"cost":3E-7' in ask(port, model="sim/tiny", messages=ten_tokens).body
    assert b'"cost":7.1e-05' in ask(port, model="sim/fine", messages=ten_tokens).body


def test_an_answer_says_back_what_was_said_and_stops_at_its_cap(port: int) -> None:
    answer = ask(port).json
    assert answer["choices"][0]["message"]["content"] == "You said: Hello there"
    assert answer["choices"][0]["finish_reason"] == "stop"
    answer = ask(port, max_tokens=2).json
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 2)


def test_tools_reasoning_and_pictures(port: int) -> None:
    call = ask(port, tools=TOOLS).json["choices"][0]
    assert call["finish_reason"] == "tool_calls"
    assert json.loads(call["message"]["tool_calls"][0]["function"]["arguments"]) == {"what": "Hello there"}
    assert ask(port, model="sim/reasoner").json["choices"][0]["message"]["reasoning"]
    painted = ask(port, model="sim/painter", modalities=["image", "text"]).json
    assert painted["choices"][0]["message"]["images"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert painted["usage"]["cost"] > 1290 * 0.00003


def test_whoever_has_read_the_last_of_a_stream_finds_its_charge_in_the_books(port: int) -> None:
    length = len(ask(port, stream=True).body)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello there"}], "stream": True}
    headers = {"x-openrouter-simulate": f"cut-at-byte={length - 2}", "authorization": "Bearer sk-or-x"}
    connection.request("POST", "/api/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    read = b""
    while b"[DONE]" not in read:
        read += answer.read1(65536)
    assert answer.headers["x-generation-id"] in books_of(port)
    connection.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "sim/nobody"}, 400),
        ({"model": "sim/embedder"}, 400),
        ({"messages": []}, 400),
        ({"messages": "x"}, 400),
        ({"model": None}, 400),
        ({"model": "sim/echo:cut-at-nothing=1"}, 400),
    ],
)
def test_it_refuses_what_openrouter_refuses(port: int, body: dict[str, Any], status: int) -> None:
    answer = ask(port, **body)
    assert answer.status == status
    assert answer.error


def test_it_demands_credentials(port: int) -> None:
    assert ask(port, key="").status == 401


def test_a_fallback_serves_where_the_first_model_is_not_known(port: int) -> None:
    assert ask(port, model="sim/nobody", models=["sim/echo-pro"]).json["model"] == "sim/echo-pro"
    assert ask(port, model="sim/auto").json["model"] == "sim/echo"


@pytest.mark.parametrize("status", [402, 429, 503])
def test_refusals_on_request(port: int, status: int) -> None:
    answer = ask(port, f"status={status}")
    assert answer.error["code"] == status
    assert ("retry-after" in answer.headers) == (status != 402)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("usage=missing", lambda body: b'"usage"' not in body),
        ("usage=is-null", lambda body: b'"usage":null' in body),
        ("cut-at-event=2", lambda body: body.count(b"data:") == 2 and body.endswith(b"(cut)")),
        ("cut-at-byte=10", lambda body: len(body) == len(b"(cut)") + 10),
        ("error-at-event=1", lambda body: events_of(body)[-1]["error"]["code"] == 502),
        ("bare-error-at-event=0", lambda body: set(events_of(body)[0]) == {"error", "user_id"}),
        ("crlf", lambda body: b"\r\n\r\n" in body and b"\n\n" not in body),
        ("cr", lambda body: b"\r\r" in body and b"\n" not in body),
        ("split=7", lambda body: body.endswith(b"data: [DONE]\n\n")),
        ("comments=2", lambda body: body.startswith(b": OPENROUTER PROCESSING\n\n" * 2)),
        ("first-token-ms=150", lambda body: body.startswith(b": OPENROUTER PROCESSING\n\n")),
        ("first-token-ms=150,silent", lambda body: body.startswith(b"data: ")),
        ("no-done", lambda body: b"[DONE]" not in body),
        ("no-final-blank", lambda body: body.endswith(b"data: [DONE]")),
        ("defect=role-empty", lambda body: b'"role":""' in body),
        ("defect=fingerprint-null", lambda body: b'"system_fingerprint":null' in body),
        ("defect=no-finish", lambda body: "finish_reason" not in events_of(body)[0]["choices"][0]),
        ("defect=empty-data", lambda body: body.startswith(b"data:\n\n")),
        ("html", lambda body: body.startswith(b"<!DOCTYPE html>")),
        ("tokens=40", lambda body: body.count(b"data: ") > 40),
    ],
)
def test_faults_on_request(port: int, fault: str, check: Any) -> None:
    body = ask(port, fault, stream=True).body
    assert check(body), body
    assert check(ask(port, stream=True, model=f"sim/echo:{fault}").body)


def test_whole_answers_have_faults_too(port: int) -> None:
    assert ask(port, "blank-lines=3").body.startswith(b"\n\n\n{")
    assert ask(port, "comments=1").body.startswith(b": OPENROUTER PROCESSING\n")
    assert ask(port, "first-token-ms=250").body.startswith(b"\n\n\n{")
    assert ask(port, "first-token-ms=250,silent").body.startswith(b"{")
    assert ask(port, "choices=empty").json["choices"] == []
    assert "system_fingerprint" not in ask(port, "defect=no-fingerprint").json
    assert ask(port, "cut-at-byte=20").body.endswith(b"(cut)")
    assert "x-generation-id" not in ask(port, "no-generation-header").headers
    assert ask(port, "cost=0.5").json["usage"]["cost"] == 0.5
    assert ask(port, "cost=is-null").json["usage"]["cost"] is None
    byok = ask(port, "cost=0.0005,byok=0.01").json["usage"]
    assert byok["is_byok"]
    assert byok["cost_details"]["upstream_inference_cost"] == 0.01


@pytest.mark.parametrize("fault", ["stall-at-event=1", "head-ms=5000"])
def test_it_falls_silent_on_request(port: int, fault: str) -> None:
    with pytest.raises(socket.timeout):
        ask(port, fault, stream=True, timeout=0.4)


def test_a_fault_that_it_does_not_know_is_refused() -> None:
    assert parse("token-ms=5, crlf", "token-ms=7") == Faults(token_ms=7, crlf=True)
    for text in ("explode", "token-ms=fast", "usage=some"):
        with pytest.raises(BadFaults):
            parse(text)


def test_after_a_tools_call_responses_say_back_what_was_asked(port: int) -> None:
    items = [
        {"role": "user", "content": "Hello there"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "rain"},
    ]
    tools = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}]
    request = json.dumps({"model": "sim/echo", "input": items, "tools": tools})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/api/v1/responses", request, {"authorization": "Bearer sk-or-x"})
    (said,) = json.loads(connection.getresponse().read())["output"]
    connection.close()
    assert said["content"][0]["text"] == "You said: Hello there"
