"""What is told where a plan shows the fare alone: money is taken out by name, contents are left as they are, and no
number of fares tells the multiplier."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from farebox.core.formats import Progress
from farebox.core.formats.table import FORMATS
from farebox.core.money import EVENT_NANOS, NANOS_PER_USD, charged
from farebox.core.plans import Plan
from farebox.core.pricing import Ceiling
from farebox.core.resale import ResoldMeter, in_upstreams_prices, unpriced, with_plans_prices, without_prices
from farebox.core.sse import data_event, named_event
from tests.fast.test_tariffs import entry, prices, tariff

PLAN = Plan("reseller", 17_000, shows="fare")
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.00123457}


def meter(path: str = "/chat/completions", **more: Any) -> ResoldMeter:
    return ResoldMeter(FORMATS[path], Progress("", "m", 1), PLAN, **more)


def chunk(**members: Any) -> bytes:
    told = {"id": "gen-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], **members}
    return data_event(json.dumps(told).encode())


def data(event: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.partition(b"data: ")[2], parse_float=str)
    return found


@given(st.decimals(0, 100, places=9), st.integers(1, 10_000_000))
def test_a_fare_is_the_marked_up_cost_rounded_up_once_to_steps_that_tell_nothing(cost: Decimal, price: int) -> None:
    events, nanos = charged(cost, price, marked_up=True)
    assert nanos == events * EVENT_NANOS
    exact = cost * price * NANOS_PER_USD / EVENT_NANOS
    assert exact <= nanos < exact + EVENT_NANOS


@given(st.integers(0, 10**12), st.integers(1, 10_000_000), st.decimals("0.000000001", "0.01", places=9))
def test_an_answer_capped_to_what_is_there_costs_no_more(nanos: int, price: int, token: Decimal) -> None:
    plan = Plan("p", price, shows="fare")
    tokens = Ceiling(Decimal("0.00001"), token, tokens=10**6).tokens_covered(plan, nanos)
    assert tokens <= 0 or plan.fare_nanos(Decimal("0.00001") + token * tokens) <= nanos


def test_money_is_taken_out_by_name_however_deep_and_contents_stay() -> None:
    usage = {**USAGE, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.00123457}, "estimated_price": 1}
    usage["prompt_tokens_details"] = {"cached_tokens": 0, "cache_discount": 0.5}
    host = {"x_groq": {"usage": {"total_time": 0.1, "cost_usd": 0.5}}, "host_cost": 0.00123457}
    told = data(meter().feed(chunk(usage=usage, **host)))
    # 0.00246914, since the operator's own key pays its host beside.
    assert told["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 0},
        "cost": "0.0042",
    }
    assert told["x_groq"] == {"usage": {"total_time": "0.1"}}
    assert "host_cost" not in told
    said = chunk(choices=[{"index": 0, "finish_reason": None, "delta": {"content": 'What does it "cost"?'}}])
    assert meter().feed(said) == said


def test_a_call_may_have_an_argument_that_is_called_cost() -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "tool_use", "id": "t", "name": "pay", "input": {"cost": 5, "price_usd": 7}}],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1, "cost": 0.00123457},
    }
    whole, failure = meter("/messages").read_answer(json.dumps(message).encode())
    assert failure is None
    told = json.loads(whole, parse_float=str)
    assert (told["content"], told["usage"]["cost"]) == (message["content"], "0.0021")
    start = named_event(b"message_start", json.dumps({"type": "message_start", "message": message}).encode())
    event = meter("/messages").feed(start)
    assert event.startswith(b"event: message_start\ndata: ")
    assert data(event)["message"]["usage"]["cost"] == "0.0021"


@pytest.mark.parametrize(
    "event",
    [b": farebox fare_usd=0.00123457 fare_events=124\n\n", b'data: {"cost": 0.00123457, nonsense\n\n'],
)
def test_what_may_tell_money_and_cannot_be_read_is_left_out(event: bytes) -> None:
    assert b"123457" not in meter().feed(event)
    assert meter().feed(b": OPENROUTER PROCESSING\n\n") == b": OPENROUTER PROCESSING\n\n"


def test_where_the_cost_is_reckoned_with_the_fare_is_told_with_the_usage() -> None:
    """An upstream that tells usage and no cost; what it says of a cost all the same counts for nothing."""
    priced = tariff(entry(prices=prices(prompt="0.001", answer="0.0001")))
    read = meter(tariff=priced)
    read.feed(chunk(choices=[{"index": 0, "finish_reason": "stop", "delta": {"content": "Hi"}}]))
    assert data(read.feed(chunk(usage=USAGE)))["usage"]["cost"] == "0.00204"
    result = {"id": "gen-1", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": None}
    whole, failure = meter(tariff=priced).read_answer(json.dumps({**result, "choices": [], "usage": USAGE}).encode())
    assert failure is None
    assert json.loads(whole, parse_float=str)["usage"]["cost"] == "0.00204"


def test_a_cost_that_is_none_is_not_told() -> None:
    told = data(meter().feed(chunk(usage={**USAGE, "cost": "-0.00123457"})))
    assert "cost" not in told["usage"]


def test_prices_are_the_plans_to_the_last_digit() -> None:
    pricing = {
        "prompt": "0.00000015",
        "completion": "1e-7",
        "request": "0",
        "image": 0.001,
        "web_search": "-1",
        "discount": 0.25,
        "overrides": [{"min_prompt_tokens": 200000, "utc_start": "0800", "prompt": "0.0000003"}],
    }
    model = {"id": "a/b", "pricing": pricing, "endpoints": [{"pricing_skus": {"video_tokens": "0.2"}, "tag": "x"}]}
    listed = with_plans_prices(Raw(json.dumps({"data": [model]}).encode()), PLAN)
    told = json.loads(bytes(listed), parse_float=str)["data"][0]
    assert told["pricing"] == {
        "prompt": "0.000000255",
        "completion": "0.00000017",
        "request": "0",
        "image": "0.0017",
        "web_search": "-1",
        "overrides": [{"min_prompt_tokens": 200000, "utc_start": "0800", "prompt": "0.00000051"}],
    }
    assert told["endpoints"] == [{"pricing_skus": {"video_tokens": "0.34"}, "tag": "x"}]
    assert b"0.2" not in bytes(without_prices(Raw(json.dumps(model).encode())))


def test_the_highest_price_that_an_order_names_is_the_plans() -> None:
    body = b'{"model":"a/b","provider":{"max_price":{"prompt":"1.7","completion":0.255,"image":null},"zdr":true}}'
    told = json.loads(in_upstreams_prices(body, PLAN), parse_float=str)
    said = "it costs $2 a million tokens, and provider.max_price.prompt is $1.0588"
    assert unpriced(f"a: {said}") == "a: it costs more than provider.max_price.prompt"
    assert told["provider"] == {"max_price": {"prompt": 1, "completion": "0.15", "image": None}, "zdr": True}
