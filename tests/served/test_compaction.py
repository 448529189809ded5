"""`/responses/compact`, over hosts that know nothing of it: one order each, and what it gives is carried on."""

import json
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from farebox.core import compaction
from farebox.core.formats import chat, messages, responses
from tests import hosts
from tests.gateway import Gateway
from tests.served.test_fallbacks import plain
from tests.served.test_sockets import talking, text_of
from tests.upstreams import HttpUpstream

FILE = """
[upstreams.host]
kind = "{kind}"
base_url = "{url}"
models = ["m"]
formats = ["{speaks}"]
prices = "file"
"""

PRICES = """
[[prices]]
upstream = "host"
model = "*"
prompt = "0.00002"
answer = "0.00007"
cache_read = "0.000002"
"""

ITEMS: list[dict[str, Any]] = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "The word is slate."}]},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "Nothing"},
]


@pytest.mark.parametrize(
    ("kind", "speaks", "native"),
    [("openai", "chat", chat), ("openai", "responses", responses), ("anthropic", "messages", messages)],
)
def test_over_each_kind_of_host(tmp_path: Path, kind: str, speaks: str, native: Any) -> None:
    upstream = HttpUpstream()
    said: hosts.Said = [hosts.Words("The word was slate.")]
    upstream.answer, upstream.content_type = [plain(hosts.whole(native, said))], "application/json"
    with upstream.serving() as host:
        (tmp_path / "farebox.toml").write_text(FILE.format(kind=kind, url=host.url, speaks=speaks))
        (tmp_path / "prices.toml").write_text(PRICES)
        with Gateway(tmp_path, FAREBOX_PRICES_FILE="prices.toml") as gateway:
            key = gateway.new_key("caller", "--plan", "paying", "--prepaid", "1")
            headers = {"authorization": f"Bearer {key}"}
            made = gateway.request("POST", "/v1/responses/compact", {"model": "m", "input": ITEMS}, headers)
            assert made.status == 200, made.body
            (item,) = made.json["output"]
            assert made.json["usage"]["output_tokens"] == hosts.ANSWER
            (order,) = gateway.orders("caller")
            assert order["what"] == "fare"
            assert made.headers["x-farebox-fare-events"] == str(order["events"])
            more = [item, {"type": "message", "role": "user", "content": "And now?"}]
            assert gateway.request("POST", "/v1/responses", {"model": "m", "input": more}, headers).status == 200
            first, second = (json.dumps(json.loads(each)) for each in host.orders)
            assert "The word is slate." in first
            assert "[Call c1 of the tool look: {}]" in first
            assert "tools" not in first.replace("results of tools", "")
            assert "The word was slate." in second
            assert compaction.MARK not in second
            gateway.audit()


def test_what_it_gives_begins_a_chain_on_a_websocket(shared_gateway: Gateway) -> None:
    client = OpenAI(base_url=shared_gateway.base, api_key=shared_gateway.key)
    made = client.responses.compact(model="sim/echo", input="The word is slate.")
    assert made.object == "response.compaction"
    (item,) = [each.model_dump(exclude_none=True) for each in made.output]
    with talking(shared_gateway) as talk:
        last = talk.turn(input=[item, {"type": "message", "role": "user", "content": "compacted"}])
        assert text_of(last) == "You said: compacted"
        on = talk.turn(input="On", previous_response_id=last["response"]["id"])
        assert on["response"]["usage"]["input_tokens"] > last["response"]["usage"]["input_tokens"]


def test_what_cannot_be_compacted_is_refused(shared_gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {shared_gateway.key}"}
    for body, status in (
        ({"model": "sim/echo"}, 400),
        ({"model": "sim/echo", "input": []}, 400),
        ({"input": "x"}, 400),
        ({"model": "sim/echo", "input": "x", "previous_response_id": 5}, 400),
        ({"model": "sim/echo", "input": "x", "previous_response_id": "resp_unknown"}, 404),
        ({"model": "no/such", "input": "x"}, 404),
    ):
        refused = shared_gateway.request("POST", "/api/v1/responses/compact", body, headers)
        assert refused.status == status
        assert refused.error
    # An answer that says nothing is told so, with what it cost.
    empty = {"model": "sim/echo:choices=empty", "input": "x"}
    assert shared_gateway.request("POST", "/v1/responses/compact", empty, headers).status == 424
