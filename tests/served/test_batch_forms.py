"""Batches in the forms of others: what can be read of a line is kept, and results are written as their readers want."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from anthropic.types.messages import MessageBatchIndividualResponse
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from pydantic import TypeAdapter

from farebox.batch.entries import answered, read_entry, refused, split_lines
from farebox.batch.result_forms import ResultForm, fitted, written
from farebox.batch.running import read_input
from farebox.core.errors import invalid
from farebox.core.formats.table import FORMATS
from tests.gateway import Gateway
from tests.served.test_batch import CHAT, HELLO, begin, books, ended, write
from tests.served.test_crash_points import charged
from tests.served.test_formats import ORDERS
from tests.served.test_management import Manager
from tests.served.test_runs import ACTOR, ask, error_of

__all__ = ["books"]

BOM = b"\xef\xbb\xbf"
C, M = "/v1/chat/completions", "/v1/messages"
PARAMS = {"model": "sim/echo", "max_tokens": 20, "messages": HELLO}


def entry(**members: Any) -> bytes:
    return json.dumps(members).encode()


@pytest.mark.parametrize(
    ("line", "custom_id", "url", "said"),
    [
        (entry(custom_id="f", url=C, body={**CHAT, "max_tokens": 20.5}), "f", C, "max_tokens"),
        (entry(custom_id="f", url="/chat/completions", body={**CHAT, "stream": True}), "f", C, "stream"),
        (entry(custom_id="f", url="/api/v1/messages", body={**CHAT, "stream": "yes"}), "f", M, "stream"),
        (entry(custom_id="f", url="/v1/keys", body=CHAT), "f", "/v1/keys", "url"),
        (entry(custom_id="f", body=CHAT), "f", "", "url"),
        (entry(custom_id="f", url=M), "f", M, "messages"),
        (entry(custom_id="f", url=M, body=None), "f", M, "object"),
        (entry(custom_id="f", url=M, body=CHAT, params=CHAT), "f", M, "params"),
        (entry(custom_id="f", url=M, method="PUT", body=CHAT), "f", M, "method"),
        (entry(custom_id="f", url=M, method=5, body=CHAT), "f", M, "method"),
        (entry(custom_id="f", url=["/v1/messages"], body=CHAT), "f", "", "url"),
        (entry(custom_id=42, url=M, body=CHAT), "42", M, "custom_id"),
        (entry(custom_id=["f"], url=M, body=CHAT), None, M, "custom_id"),
        (entry(custom_id="f", params={**PARAMS, "max_tokens": 0}), "f", M, "max_tokens"),
        (entry(custom_id="f", params={**PARAMS, "stream": True}), "f", M, "stream"),
        (entry(custom_id="f", params="x"), "f", M, "object"),
        # Not JSON: what stands before the fault.
        (b'{"custom_id": "f\\u00e9", "url": "/v1/messages", "body": {"model": NaN, "mess', "f\u00e9", M, "truncated"),
        (b'{"url":"/v1/messages","custom_id":"f","body":{"max_tokens":01}}', "f", M, "JSON"),
        (b'{"custom_id":"f"', "f", "", "truncated"),
        (b'{"custom_id":"f', None, "", "truncated"),
        (b"nonsense", None, "", "JSON"),
        (b'"f"', None, "", ""),
        (b"[]", None, "", ""),
        (b'{"custom_id":"f","deep":' + b"[" * 100_000, "f", "", ""),
    ],
)  # fmt: skip
def test_a_refused_line_keeps_its_names(line: bytes, custom_id: str | None, url: str, said: str) -> None:
    order = read_entry(7, line, FORMATS)
    assert order.refusal is not None
    assert order.refusal.status == 400
    assert said in order.refusal.message
    assert (order.number, order.custom_id, order.url) == (7, custom_id, url)
    for form in ResultForm:
        told = json.loads(written(refused(order, order.refusal), form))
        assert told["custom_id"] == (custom_id if form is ResultForm.FAREBOX or custom_id else "order-7")


@given(st.binary(max_size=60), st.integers(0, 200))
def test_no_line_breaks_a_batch(junk: bytes, at: int) -> None:
    line = entry(custom_id="f", url="/v1/messages", body=CHAT)
    order = read_entry(1, line[:at] + junk + line[at:], FORMATS)
    for form in ResultForm:
        json.loads(written(refused(order, order.refusal or invalid("no")), form))


def test_anthropics_form_is_a_message() -> None:
    order = read_entry(1, entry(custom_id="a", params=PARAMS), FORMATS)
    assert order.refusal is None
    assert (order.path, order.url, order.custom_id, json.loads(order.body)) == (
        "/messages",
        "/v1/messages",
        "a",
        PARAMS,
    )
    elsewhere = read_entry(1, entry(custom_id="a", url="/v1/chat/completions", params=PARAMS), FORMATS)
    assert (elsewhere.path, elsewhere.refusal) == ("/chat/completions", None)


def test_one_mark_before_a_text_is_none_of_it() -> None:
    line = entry(custom_id="a", params=PARAMS)
    assert list(split_lines(BOM + line + b"\n" + line)) == [line, line]
    assert list(split_lines(line)) == [line]
    for given_input in (
        BOM + json.dumps({"requests": [PARAMS]}).encode(),
        json.dumps({"requests": "\ufeff" + json.dumps(PARAMS)}).encode(),
    ):
        (order,) = read_input(given_input, FORMATS).orders
        assert order.refusal is None
    assert read_input(BOM, FORMATS).orders == ()


@pytest.mark.parametrize("path", ORDERS)
def test_one_mark_before_a_body_is_none_of_it(shared_gateway: Gateway, path: str) -> None:
    sent = json.dumps(ORDERS[path]).encode()
    headers = {"authorization": f"Bearer {shared_gateway.key}", "content-type": "application/json"}

    def status(body: bytes, **more: str) -> int:
        return shared_gateway.request("POST", f"/v1{path}", body, {**headers, **more}).status

    assert status(BOM + sent) == 200
    assert status(gzip.compress(BOM + sent), **{"content-encoding": "gzip"}) == 200
    assert status(BOM) == 400


def test_one_mark_before_a_managers_body(shared_gateway: Gateway) -> None:
    manager = Manager(shared_gateway)
    headers = {"authorization": f"Bearer {manager.key}", "content-type": "application/json"}
    body = BOM + b'{"name": "with a mark", "plan": "paying"}'
    assert shared_gateway.request("POST", "/admin/accounts", body, headers).status == 201


def test_what_is_no_json_keeps_its_mark(shared_gateway: Gateway, key: str) -> None:
    run = ask(shared_gateway, key, f"{ACTOR}/runs?waitForFinish=60", BOM + b"{}").json["data"]
    assert run["status"] == "SUCCEEDED"
    path = f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}/records/NOTE"
    headers = {"authorization": f"Bearer {key}", "content-type": "text/plain"}
    assert shared_gateway.request("PUT", path, BOM + b"text", headers).status == 201
    assert ask(shared_gateway, key, path).body == BOM + b"text"


# Results


DOCUMENT = {"type": "document", "source": {"type": "file", "file_id": "f"}}
UNAFFORDABLE = [{"role": "user", "content": [DOCUMENT]}]
"""What may fill the whole context: of a dear model, more than the account has."""

LINES = [
    {"custom_id": "m", "params": PARAMS},
    {"custom_id": "c", "url": "/v1/chat/completions", "body": CHAT},
    {"url": "/v1/messages", "body": PARAMS},
    {"custom_id": "n", "params": {**PARAMS, "model": "sim/nobody"}},
    {"custom_id": "r", "params": {**PARAMS, "model": "sim/echo-pro:nitro", "messages": UNAFFORDABLE}},
    {"custom_id": "z", "params": {**PARAMS, "max_tokens": 20.5}},
]


def anthropics(line: bytes) -> MessageBatchIndividualResponse:
    """A line as Anthropic's SDK types it, every member checked."""
    return TypeAdapter(MessageBatchIndividualResponse).validate_json(line)


def results(folder: Path) -> list[bytes]:
    lines = (folder / "orders.results.jsonl").read_bytes().splitlines()
    return sorted(lines, key=lambda line: json.loads(line)["number"])


def test_results_as_anthropics_sdk_reads_them(books: tuple[Gateway, int]) -> None:
    shell, port = books
    path = write(shell.folder, LINES)
    path.write_bytes(BOM + path.read_bytes())
    totals = ended(begin(shell, "--results", "anthropic"), code=1)
    assert (totals["served"], totals["failed"]) == (2, 4)
    lines = results(shell.folder)
    told = [anthropics(line) for line in lines]
    assert [each.custom_id for each in told] == ["m", "c", "order-3", "n", "r", "z"]
    assert [each.result.type for each in told] == ["succeeded", "errored", "succeeded", "errored", "errored", "errored"]
    for each, line in zip(told, lines, strict=True):
        own = json.loads(line)
        if each.result.type == "succeeded":
            assert each.result.message.content[0].to_dict()["text"] == "You said: Hello"
            assert Decimal(own["cost_usd"]) == Decimal(charged(port)[own["generation_id"]])
            assert (own["status"], own["fare_usd"]) == (200, "0.00001")
    kinds = [each.result.error.error.type for each in told if each.result.type == "errored"]
    assert kinds == ["invalid_request_error", "not_found_error", "billing_error", "invalid_request_error"]
    refusal = told[1].result
    assert refusal.type == "errored"
    assert "Anthropic's form holds messages alone" in refusal.error.error.message
    # Begun again it asks once more for what was refused for want of money, and for nothing else.
    again = ended(begin(shell, "--results", "anthropic"), code=1)
    assert (again["before"], again["served"], again["fare_usd"]) == (5, 2, totals["fare_usd"])
    assert len(charged(port)) == 2


def test_results_as_openais_batches_have_them(books: tuple[Gateway, int]) -> None:
    shell, port = books
    write(shell.folder, LINES)
    totals = ended(begin(shell, "--results", "openai"), code=1)
    assert (totals["served"], totals["failed"]) == (3, 3)
    told = [json.loads(line) for line in results(shell.folder)]
    assert [each["custom_id"] for each in told] == ["m", "c", "order-3", "n", "r", "z"]
    assert [each["response"]["status_code"] for each in told] == [200, 200, 200, 404, 402, 400]
    assert [each["error"] for each in told] == [None] * 6
    assert len({each["id"] for each in told}) == 6
    for each in told:
        assert set(each) >= {"id", "custom_id", "response", "error"}
        assert set(each["response"]) == {"status_code", "request_id", "body"}
        assert each["response"]["request_id"] == (each["generation_id"] or "")
    completion = TypeAdapter(ChatCompletion).validate_python(told[1]["response"]["body"])
    assert completion.choices[0].message.content == "You said: Hello"
    assert told[0]["response"]["body"]["type"] == "message"
    assert told[4]["response"]["body"]["error"]["type"] == "billing_error"
    again = ended(begin(shell, "--results", "openai"), code=1)
    assert (again["before"], again["served"]) == (5, 3)
    assert len(charged(port)) == 3


def test_an_error_is_told_in_its_endpoints_shape() -> None:
    order = read_entry(1, entry(custom_id="c", url="/v1/chat/completions", body={}), FORMATS)
    assert order.refusal is not None
    body = json.loads(written(refused(order, order.refusal), ResultForm.OPENAI))["response"]["body"]
    assert body["error"]["code"] == 400
    assert body["error"]["metadata"]["error_type"] == "invalid_request"


def test_an_answer_stays_as_it_came_in_every_form() -> None:
    order = read_entry(1, entry(params=PARAMS), FORMATS)
    result = answered(order, "gen-1", b'{"usage": {"cost": 7.10e-05}, "text": "\\u00e9"}', None)
    for form in ResultForm:
        assert b'{"usage": {"cost": 7.10e-05}, "text": "\\u00e9"}' in written(result, form)
        assert fitted(order, form) is order


def test_a_runs_items_in_their_forms(shared_gateway: Gateway, key: str) -> None:
    asked = {"requests": LINES[:2], "results": "anthropic"}
    path = f"{ACTOR}/run-sync-get-dataset-items"
    items = sorted(ask(shared_gateway, key, path, asked).json, key=lambda item: item["number"])
    told = [anthropics(json.dumps(item).encode()) for item in items]
    assert [(each.custom_id, each.result.type) for each in told] == [("m", "succeeded"), ("c", "errored")]
    items = ask(shared_gateway, key, path, {**asked, "results": "openai"}).json
    assert {(item["custom_id"], item["response"]["status_code"]) for item in items} == {("m", 200), ("c", 200)}
    assert error_of(ask(shared_gateway, key, path, {**asked, "results": "csv"})) == (400, "invalid-input")
