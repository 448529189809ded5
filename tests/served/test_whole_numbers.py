"""JSON has one type of number: `4096.0` and `4.096e3` are 4096 wherever a whole number is read; a fraction and a text
are none."""

import json
from typing import Any

import pytest

from farebox.batch.entries import read_entry
from farebox.batch.running import read_input
from farebox.core.errors import Refusal
from farebox.core.formats import Format, chat, embeddings
from farebox.core.formats.table import FORMATS
from farebox.core.intake import read_order
from farebox.core.plans import BUILT_IN
from farebox.platform.priced_events import PRICED_EVENT
from tests.gateway import Gateway
from tests.served.test_formats import ORDERS
from tests.served.test_management import Manager
from tests.served.test_mcp import call, text_of
from tests.served.test_run_events import charge
from tests.served.test_runs import CHAT, begin, state

HUGE = ["1e30", "1E+300", "1" + "0" * 300 + ".0"]
TOO_HUGE = ["1e400", "1e1000000000", "1" + "0" * 5000]
NONE = ["6000.5", '"1000"', '"1000.0"', "true", "[1]", "0.0", "-3.0", "0.5", "-1e30"]

COUNTS = [(wire, path, cap) for path, wire in FORMATS.items() for cap in wire.CAPS]


def body(path: str, field: str, number: str) -> bytes:
    return json.dumps(ORDERS[path]).encode()[:-1] + f', "{field}" : {number}}}'.encode()


@pytest.mark.parametrize(("wire", "path", "field"), COUNTS)
def test_a_float_without_a_fraction_is_its_integer(wire: Format, path: str, field: str) -> None:
    for written in ("4096", "4096.0", "4096.000", "4.096e3", "4096E0", "40960e-1"):
        given = body(path, field, written)
        order = read_order(given, wire, BUILT_IN["paying"])
        assert (order.answer_tokens, order.body) == (4096, given)
        assert isinstance(order.answer_tokens, int)
        # Where a cap is set, it is lowered however it was written.
        assert json.loads(read_order(given, wire, BUILT_IN["free"]).body)[field] == 2048
    under = body(path, field, "1e2")
    assert read_order(under, wire, BUILT_IN["free"]).body is under


@pytest.mark.parametrize(("wire", "path", "field"), COUNTS)
def test_a_huge_number_is_only_a_number(wire: Format, path: str, field: str) -> None:
    for written in HUGE:
        order = read_order(body(path, field, written), wire, BUILT_IN["free"])
        assert order.answer_tokens == 2048
        assert json.loads(order.body)[field] == 2048
    for written in (*TOO_HUGE, *NONE):
        with pytest.raises(Refusal) as refused:
            wire.read(body(path, field, written))
        assert refused.value.status == 400
        assert refused.value.message.startswith(f"{field}:")
        assert len(refused.value.message) < 500


def test_how_many_answers_and_tokens_of_a_prompt() -> None:
    assert chat.read(body("/chat/completions", "n", "3.0")).answers == 3
    for written in ("1.5", "128.5", "1e3", "0.0", '"1"', *HUGE):
        with pytest.raises(Refusal, match=" n: ") as refused:
            chat.read(body("/chat/completions", "n", written))
        assert len(refused.value.message) < 500
    for tokens, prompts in (("[1.0, 2e2]", 1), ("[[1.0, 2], [3]]", 2), ("[5, 6.0]", 1)):
        given = b'{"model":"a/b","input":' + tokens.encode() + b"}"
        assert embeddings.read(given).prompts == prompts
    for tokens in ("[1.5]", "[[1, 2.5]]", '["a", 2.5]', "[1e400]"):
        with pytest.raises(Refusal, match=" input"):
            embeddings.read(b'{"model":"a/b","input":' + tokens.encode() + b"}")


def test_a_lines_body_and_a_runs_input() -> None:
    entry = b'{"custom_id":"x","url":"/v1/messages","body":' + body("/messages", "max_tokens", "1e3") + b"}"
    assert read_entry(1, entry, FORMATS).refusal is None
    assert read_input(b'{"concurrency": 4.0}', FORMATS).concurrency == 4
    for written in ("4.5", '"4"', "1e400", "1e30", "0.0", "65.0"):
        with pytest.raises(Refusal, match="concurrency: "):
            read_input(f'{{"concurrency": {written}}}'.encode(), FORMATS)


@pytest.mark.parametrize("path", ORDERS)
def test_it_is_served_and_refused_in_every_format(shared_gateway: Gateway, path: str) -> None:
    field = next((field for _, of, field in COUNTS if of == path), "dimensions")
    headers = {"authorization": f"Bearer {shared_gateway.key}", "content-type": "application/json"}
    served = shared_gateway.request("POST", f"/v1{path}", body(path, field, "8.0"), headers)
    assert served.status == 200, served.body
    if path != "/embeddings":
        refused = shared_gateway.request("POST", f"/v1{path}", body(path, field, "8.5"), headers)
        assert refused.status == 400
        assert f"{field}: 8.5 is not a whole number" in refused.json["error"]["message"]


def test_it_is_one_to_agents_runs_and_managers(shared_gateway: Gateway, key: str) -> None:
    told = call(shared_gateway, key, "chat", model="sim/echo", prompt="Hello", max_tokens=2.0)
    assert (told.is_error, (told.structured_content or {}).get("finish_reason")) == (False, "length")
    for none in (2.5, "2", 1e300, True):
        refused = call(shared_gateway, key, "chat", model="sim/echo", prompt="Hello", max_tokens=none)
        assert refused.is_error
        assert "max_tokens: " in text_of(refused)
    few = call(shared_gateway, key, "list_models", limit=1.0).structured_content
    assert len((few or {})["models"]) == 1
    assert call(shared_gateway, key, "list_models", limit=1.5).is_error
    asked: dict[str, Any] = {"requests": [CHAT], "concurrency": 2.0, "waitSecs": 45.0}
    assert (call(shared_gateway, key, "apify--openrouter", **asked).structured_content or {})["status"] == "SUCCEEDED"
    run = begin(shared_gateway, key, asked)
    assert run["status"] == "SUCCEEDED"
    assert charge(shared_gateway, key, run, {"eventName": PRICED_EVENT, "count": 7.0}).status == 201
    assert state(shared_gateway, key, run)["chargedEventCounts"] == {PRICED_EVENT: 7}


def test_a_limit_is_one(shared_gateway: Gateway) -> None:
    manager = Manager(shared_gateway)
    account = manager.account()
    limits = {"requests_per_minute": 6e1, "tokens_per_minute": 5000.0, "orders_at_once": 2.0}
    made = manager.ask("POST", "/api/v1/keys", {"name": "a", "workspace_id": account["id"], "farebox_limits": limits})
    assert made.json["data"]["farebox_limits"] == limits
    for limit in (1.5, 1e19):
        answer = manager.ask("PATCH", f"/admin/accounts/{account['name']}", {"limits": {"requests_per_minute": limit}})
        assert answer.status == 400
        assert "requests_per_minute: " in answer.error["message"]
