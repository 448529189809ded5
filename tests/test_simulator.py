"""The simulated upstream: its bodies are OpenRouter's, and so is its awkwardness."""

import http.client
import json
import socket
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from farebox.core.pricing import read_price_list
from farebox.upstream.simulator import models
from farebox.upstream.simulator.faults import BadFaults, Faults, parse
from farebox.upstream.simulator.server import embedded
from tests.gateway import Response, events_of
from tests.schemas import assert_accepted, assert_documented

CHAT_MODELS = [name for name, model in models.MODELS.items() if "embeddings" not in model.outputs]
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


def test_the_catalogue_is_as_documented_and_priced(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/api/v1/models")
    body = connection.getresponse().read()
    connection.close()
    assert_documented("ModelsListResponse", json.loads(body))
    assert_accepted("ModelsListResponse", json.loads(body))
    assert len(read_price_list(body).rates) >= 12


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
