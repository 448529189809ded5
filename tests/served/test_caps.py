"""A lowered answer cap: what is bound to it is lowered with it, and who asked is told."""

import json
from typing import Any

import pytest
from anthropic import Anthropic
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.errors import Refusal
from farebox.core.formats import chat, messages, responses
from farebox.core.formats.table import FORMATS
from farebox.core.intake import read_order
from farebox.core.plans import BUILT_IN
from farebox.simulator.table import AT
from tests.gateway import Gateway, Response
from tests.served.test_formats import CAPS, ORDERS, STREAMED, order
from tests.served.test_mcp import call
from tests.served.test_runs import ACTOR, ask

PATHS: dict[Any, str] = {wire: path for path, wire in FORMATS.items() if wire.CAPS}
SIMULATED = {wire: AT[path] for wire, path in PATHS.items()}
CLEARING = {"type": "clear_thinking_20251015", "keep": "all"}
TOOLS_CLEARING = {"type": "clear_tool_uses_20250919"}


def body(wire: Any, **members: Any) -> bytes:
    return json.dumps({**ORDERS[PATHS[wire]], **members}).encode()


def thinking(budget: Any, **more: Any) -> dict[str, Any]:
    return {"thinking": {"type": "enabled", "budget_tokens": budget, **more}}


def reasoning(budget: Any, **more: Any) -> dict[str, Any]:
    return {"reasoning": {**more, "max_tokens": budget}}


def after(wire: Any, answer_tokens: int, asked: dict[str, Any]) -> dict[str, Any]:
    """What is left of the members asked."""
    sent = json.loads(wire.capped(body(wire, **asked), answer_tokens))
    return {name: sent[name] for name in asked if name in sent}


@pytest.mark.parametrize(
    ("wire", "asked", "at_2048", "at_2047"),
    [
        (messages, thinking(10_000), thinking(1024), {}),
        (messages, thinking(10_000.0, display="omitted"), thinking(1024, display="omitted"), {}),
        (messages, thinking(1024), thinking(1024), {}),
        (messages, {"thinking": {"type": "adaptive"}}, None, None),
        (messages, {"thinking": {"type": "disabled"}}, None, None),
        (messages, {"thinking": None}, None, None),
        (messages, thinking("many"), None, None),
        (messages, {"thinking": "deep"}, None, None),
        (
            messages,
            {**thinking(9000), "context_management": {"edits": [CLEARING]}},
            {**thinking(1024), "context_management": {"edits": [CLEARING]}},
            {},
        ),
        (
            messages,
            {**thinking(9000), "context_management": {"edits": [CLEARING, TOOLS_CLEARING]}},
            {**thinking(1024), "context_management": {"edits": [CLEARING, TOOLS_CLEARING]}},
            {"context_management": {"edits": [TOOLS_CLEARING]}},
        ),
        (
            messages,
            {**thinking(9000), "context_management": {"edits": [TOOLS_CLEARING]}},
            {**thinking(1024), "context_management": {"edits": [TOOLS_CLEARING]}},
            {"context_management": {"edits": [TOOLS_CLEARING]}},
        ),
        *(
            case
            for wire in (chat, responses)
            for case in [
                (wire, reasoning(10_000), reasoning(1024), {}),
                (wire, reasoning(1e4, exclude=True), reasoning(1024, exclude=True), {"reasoning": {"exclude": True}}),
                (wire, reasoning(10_000, enabled=True), reasoning(1024, enabled=True), {}),
                (wire, reasoning(500), reasoning(500), {}),
                (wire, {"reasoning": {"effort": "high"}}, None, None),
                (wire, {"reasoning": {"enabled": True}}, None, None),
                (wire, {"reasoning": None}, None, None),
                (wire, reasoning(None), None, None),
                (wire, {"reasoning": "much"}, None, None),
            ]
        ),
    ],
)
def test_thinking_is_lowered_with_the_cap(
    wire: Any, asked: dict[str, Any], at_2048: dict[str, Any] | None, at_2047: dict[str, Any] | None
) -> None:
    assert after(wire, 2048, asked) == (asked if at_2048 is None else at_2048)
    assert after(wire, 2047, asked) == (asked if at_2047 is None else at_2047)


@given(
    st.sampled_from(list(SIMULATED)),
    st.integers(1024, 200_000),
    st.integers(1, 200_000),
    st.integers(16, 250_000),
    st.booleans(),
)
def test_what_the_upstream_takes_it_takes_capped(
    wire: Any, budget: int, beyond: int, answer_tokens: int, is_clearing: bool
) -> None:
    asked = thinking(budget) if wire is messages else reasoning(budget)
    if wire is messages and is_clearing:
        asked["context_management"] = {"edits": [CLEARING]}
    given_body = body(wire, **asked, **{CAPS[PATHS[wire]]: budget + beyond})
    SIMULATED[wire].read(given_body)
    if answer_tokens < budget + beyond:
        talk = SIMULATED[wire].read(wire.capped(given_body, answer_tokens))
        assert talk.cap == answer_tokens


@pytest.mark.parametrize("wire", SIMULATED)
def test_an_order_that_keeps_its_cap_keeps_its_bytes(wire: Any) -> None:
    asked = {**thinking(10_000), **reasoning(10_000), CAPS[PATHS[wire]]: 2048}
    sent = body(wire, **asked)
    for plan in ("free", "paying"):
        order_read = read_order(sent, wire, BUILT_IN[plan])
        assert (order_read.body, order_read.answer_cap) == (sent, None)
    uncapped = body(wire, **thinking(10_000), **reasoning(10_000))
    assert read_order(uncapped, wire, BUILT_IN["paying"]).body == uncapped


def test_the_simulator_refuses_as_upstreams_do() -> None:
    for wire, asked, said in [
        (messages, {**thinking(2048), "max_tokens": 2048}, "must be greater than `thinking.budget_tokens`"),
        (messages, {**thinking(1023), "max_tokens": 2048}, "greater than or equal to 1024"),
        (messages, {"thinking": {"type": "enabled"}, "max_tokens": 2048}, "Field required"),
        (messages, {"context_management": {"edits": [CLEARING]}}, "requires `thinking`"),
        (chat, {**reasoning(2048), "max_tokens": 2048}, "must be greater than `reasoning.max_tokens`"),
        (chat, {**reasoning(1), "max_completion_tokens": 1024}, "must be greater than `reasoning.max_tokens`"),
        (responses, {**reasoning(9000), "max_output_tokens": 2048}, "must be greater than"),
    ]:
        with pytest.raises(Refusal, match=said) as refused:
            SIMULATED[wire].read(body(wire, **asked))
        assert refused.value.status == 400


# Through the server


def told(answer: Response) -> int | None:
    cap = answer.headers.get("x-farebox-answer-cap")
    return None if cap is None else int(cap)


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("streamed", [True, False])
def test_every_lowering_is_told(shared_gateway: Gateway, path: str, streamed: bool) -> None:
    name = f"lowered {path} {streamed}"
    key = shared_gateway.new_key(name, "--plan", "free", "--prepaid", "1")
    asked: dict[str, Any] = {**(thinking(10_000) if path == "/messages" else reasoning(10_000)), "stream": streamed}
    caps: list[dict[str, Any]] = [{CAPS[path]: 32_000}, {}, {CAPS[path]: 2049.0}]
    for cap in caps:
        answer = order(shared_gateway, path, key, **asked, **cap)
        assert (answer.status, told(answer)) == (200, 2048), answer.body
    less: dict[str, Any] = {CAPS[path]: 2000, "stream": streamed}
    own = order(shared_gateway, path, key, **less)
    assert (own.status, told(own)) == (200, None)
    # The caller's own mistake is the upstream's to tell, with the caller's own numbers.
    refused = order(shared_gateway, path, key, **{**asked, **less})
    assert (refused.status, told(refused)) == (400, None)


def test_a_vector_has_no_cap(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("vectors", "--plan", "free", "--prepaid", "1")
    answer = order(shared_gateway, "/embeddings", key)
    assert (answer.status, told(answer)) == (200, None)


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("usd", ["0.0005", "0.002"])
def test_thinking_fits_what_a_balance_covers(shared_gateway: Gateway, path: str, usd: str) -> None:
    key = shared_gateway.new_key(f"thinks {path} {usd}", "--plan", "paying", "--prepaid", usd)
    asked: dict[str, Any] = {CAPS[path]: 32_000, **(thinking if path == "/messages" else reasoning)(10_000)}
    answer = order(shared_gateway, path, key, **asked)
    cap = told(answer)
    assert answer.status == 200, answer.body
    assert cap is not None
    assert (cap < 2048) == (usd == "0.0005")


def test_thinking_fits_a_minutes_tokens(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("thinks by the minute", "--plan", "paying", "--prepaid", "1")
    shared_gateway.cli("account", "limit", "thinks by the minute", "tokens_per_minute=5000")
    answer = order(shared_gateway, "/messages", key, **thinking(10_000), max_tokens=32_000)
    cap = told(answer)
    assert answer.status == 200, answer.body
    assert cap is not None
    assert 4000 < cap < 5000


def test_anthropics_sdk_thinks_on_the_free_plan(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("a free thinker", "--plan", "free", "--prepaid", "1")
    with Anthropic(base_url=f"http://127.0.0.1:{shared_gateway.port}/api", auth_token=key, max_retries=0) as client:
        hello: Any = [{"role": "user", "content": "Hello"}]
        asked: Any = {
            "model": "sim/reasoner",
            "messages": hello,
            "max_tokens": 32_000,
            "thinking": {"type": "enabled", "budget_tokens": 10_000},
        }
        raw = client.messages.with_raw_response.create(**asked, stream=False, timeout=60)
        assert raw.headers["x-farebox-answer-cap"] == "2048"
        assert [block.type for block in raw.parse().content] == ["thinking", "text"]
        with client.messages.stream(**asked) as stream:
            assert [block.type for block in stream.get_final_message().content] == ["thinking", "text"]
            assert stream.response.headers["x-farebox-answer-cap"] == "2048"


def test_it_is_told_in_batches_and_to_agents(shared_gateway: Gateway) -> None:
    key = shared_gateway.new_key("capped in batches", "--plan", "free", "--prepaid", "1")
    long = {**ORDERS["/chat/completions"], **reasoning(10_000), "max_tokens": 32_000}
    short = {**ORDERS["/chat/completions"], "max_tokens": 20}
    items = ask(shared_gateway, key, f"{ACTOR}/run-sync-get-dataset-items", {"requests": [long, short]}).json
    assert [item["answer_cap"] for item in sorted(items, key=lambda item: item["number"])] == [2048, None]
    for max_tokens, cap in ((32_000, 2048), (20, None)):
        result = call(shared_gateway, key, "chat", model="sim/echo", prompt="Hello", max_tokens=max_tokens)
        assert (result.structured_content or {})["answer_cap"] == cap
