"""Which upstreams are tried for an order, in what order, and when the next one is."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming as MessageParams
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as ChatParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming as ResponseParams

from farebox.core.attempts import Denied, MayBeCharged, NotReached, Refused, Went
from farebox.core.errors import Refusal
from farebox.core.formats import Format, chat, embeddings, messages, responses
from farebox.core.health import UNMEASURED, Measured
from farebox.core.pricing import Prices
from farebox.core.routing import (
    Candidate,
    Condition,
    Policy,
    Route,
    by_weight,
    choose,
    still_to_try,
    without_wishes,
)
from farebox.core.traits import SAYABLE, Traits
from farebox.core.wishes import NAMED, SOFT, Wishes, read_wishes

CHAT = "/chat/completions"
WIRES: Mapping[str, Format] = {CHAT: chat, "/messages": messages, "/responses": responses}
FORMATS = frozenset(WIRES)


def price(prompt: str, completion: str, **more: str) -> Prices:
    """In USD per million tokens."""
    return Prices(
        Decimal(prompt) / 10**6, Decimal(completion) / 10**6, **{name: Decimal(value) for name, value in more.items()}
    )


def at(upstream: str, model: str = "a/b", **declared: Any) -> Candidate:
    return Candidate(upstream, model, declared.pop("serves", FORMATS), **declared)


OPENROUTER = at("openrouter", order=9, routes=True)
NEAR = at("near", order=1, prices=price("1", "2"))
FAR = at("far", order=2, prices=price("2", "1"))
LOCAL = at("local", order=3, prices=price("0", "0"), traits=Traits(zdr=True))
ALL = (NEAR, FAR, LOCAL, OPENROUTER)


def body_of(path: str = CHAT, **members: Any) -> bytes:
    turn = [{"role": "user", "content": "hi"}]
    said: dict[str, Any] = {"input": "hi"} if path == "/responses" else {"messages": turn}
    return json.dumps({"model": "a/b", **said, **members}).encode()


def wishes(path: str = CHAT, **members: Any) -> Wishes:
    body = body_of(path, **members)
    return read_wishes(path, body, WIRES[path].read(body))


def chosen(
    candidates: tuple[Candidate, ...] = ALL,
    *,
    policy: Policy = "order",
    chance: float = 0.0,
    now: Mapping[str, Condition] | None = None,
    measured: Mapping[str, Measured] | None = None,
    **members: Any,
) -> list[str]:
    found = choose(
        wishes(**members),
        candidates,
        lambda each: (now or {}).get(each.upstream, Condition()),
        policy,
        chance,
        lambda each: (measured or {}).get(each.upstream, UNMEASURED),
    )
    return [each.upstream for each in found.candidates]


def refused(candidates: tuple[Candidate, ...] = ALL, **members: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        choose(wishes(**members), candidates)
    return caught.value


def test_without_wishes_they_are_tried_as_they_are_declared() -> None:
    assert chosen() == ["near", "far", "local", "openrouter"]


@given(
    st.lists(
        st.builds(
            replace,
            st.sampled_from(
                [
                    *ALL,
                    at("few", orders_max=2),
                    at("many", orders_max=3),
                    at("x", serves=frozenset()),
                    at("short", traits=Traits(answer_tokens_max=4)),
                    at("wordy", traits=Traits(output_modalities=("text",))),
                ]
            ),
            order=st.integers(0, 1),
            weight=st.integers(0, 2),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda each: each.upstream,
    ),
    st.lists(st.sampled_from([Condition(), Condition(orders=2), Condition(9), Condition(is_being_tried=True)])),
    st.sampled_from(["order", "weights", "cheapest"]),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(
        [
            {},
            {"max_tokens": 5},
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {"verbosity": "low"},
            {"modalities": ["image"]},
        ]
    ),
    st.sampled_from(["a/b", "a/b:nitro", "a/b:floor"]),
)
def test_an_order_that_wishes_nothing_goes_where_its_choice_would_send_it(
    candidates: list[Candidate],
    now: list[Condition],
    policy: Policy,
    chance: float,
    members: dict[str, Any],
    model: str,
) -> None:
    body = body_of(model=model, **members)
    asked, candidates = chat.read(body), [replace(each, model=model) for each in candidates]
    conditions = dict(zip(candidates, now, strict=False))

    def condition_of(candidate: Candidate) -> Condition:
        return conditions.get(candidate, Condition())

    def found(route: Callable[[], Route | None]) -> Any:
        try:
            taken = route()
        except Refusal as refusal:
            return refusal.status, refusal.message
        return None if taken is None else (taken.candidates, [taken.body_for(each, body) for each in taken.candidates])

    short = found(lambda: without_wishes(candidates, asked, CHAT, condition_of, policy, chance))
    if short is None:
        assert (
            any(CHAT not in each.serves or each.traits != Traits() for each in candidates)
            or policy == "cheapest"
            or members
            or ":" in model
        )
        return
    wishes = read_wishes(CHAT, body, asked)
    assert short == found(lambda: choose(wishes, candidates, condition_of, policy, chance))


@pytest.mark.parametrize("wire", [chat, messages, responses, embeddings])
def test_an_order_that_may_wish_something_says_so(wire: Format) -> None:
    order = {"model": "a/b", "messages": [{"role": "user", "content": "hi"}], "input": "hi", "max_tokens": 9}
    members: list[dict[str, Any]] = [{}, {"provider": {"only": ["x"]}}, {"provider": 7}, {"route": "sort"}]
    if wire is not messages:  # which has none of its own
        members.append({"models": ["c/d"]})
    wished = [wire.read(json.dumps({**order, **more}).encode()).has_wishes for more in members]
    assert wished == [False] + [True] * (len(members) - 1)


@pytest.mark.parametrize("wire", [chat, messages, responses])
@pytest.mark.parametrize("name", sorted(SOFT))
def test_an_order_with_a_parameter_that_decides_who_comes_first_says_so(wire: Format, name: str) -> None:
    order = {"model": "a/b", "messages": [{"role": "user", "content": "hi"}], "input": "hi", "max_tokens": 9}
    assert not wire.read(json.dumps(order).encode()).has_soft
    assert wire.read(json.dumps({**order, name: []}).encode()).has_soft
    within = {"text": {"format": {"type": "json_schema"}}, "output_config": {"format": {"type": "json_schema"}}}
    for member, value in within.items():
        assert wire.read(json.dumps({**order, member: value}).encode()).has_soft
    assert not wire.read(json.dumps({**order, "output_config": {"effort": "low"}}).encode()).has_soft


def test_the_cheapest_is_the_cheapest_for_this_order() -> None:
    short: dict[str, Any] = {"max_tokens": 1}
    long: dict[str, Any] = {"max_tokens": 100_000}
    assert chosen(policy="cheapest", **long)[:3] == ["local", "far", "near"]
    assert chosen((NEAR, FAR), policy="cheapest", messages=[{"role": "user", "content": "x" * 4000}], **short) == [
        "near",
        "far",
    ]
    # Whose price nobody knows is not the cheapest.
    assert chosen(policy="cheapest")[-1] == "openrouter"


def test_weights_are_how_often_one_comes_first() -> None:
    candidates = (replace(NEAR, weight=3), replace(FAR, weight=1), replace(LOCAL, weight=0))
    first = Counter(chosen(candidates, policy="weights", chance=each / 1000)[0] for each in range(1000))
    assert first == {"near": 750, "far": 250}
    assert chosen(candidates, policy="weights", chance=0.9) == ["far", "near", "local"]
    # By their order first, those of one order by their weights.
    some = (at("a", order=1), at("b", order=2), at("c", order=2, weight=9))
    assert chosen(some, chance=0.8) == ["a", "c", "b"]
    assert chosen(some, policy="weights", chance=0.8)[0] == "c"


@given(st.lists(st.integers(0, 5), max_size=5), st.floats(0, 1, exclude_max=True))
def test_every_candidate_is_drawn_once(weights: list[int], chance: float) -> None:
    candidates = [at(str(number), weight=weight) for number, weight in enumerate(weights)]
    drawn = by_weight(candidates, chance)
    assert sorted(each.upstream for each in drawn) == [each.upstream for each in candidates]
    positive = [each.weight > 0 for each in drawn]
    assert positive == sorted(positive, reverse=True)


def test_the_second_is_drawn_by_weight_too() -> None:
    candidates = [at("a", weight=2), at("b", weight=1), at("c", weight=1)]
    orders = Counter(tuple(each.upstream for each in by_weight(candidates, (n + 0.5) / 1200)) for n in range(1200))
    assert orders["a", "b", "c"] == orders["a", "c", "b"] == 300
    assert orders["b", "a", "c"] == 200
    assert orders["b", "c", "a"] == 100


@pytest.mark.parametrize(
    ("provider", "found"),
    [
        ({"order": ["far"]}, ["far", "near", "local", "openrouter"]),
        ({"order": ["Far/fast", "near"]}, ["far", "near", "local", "openrouter"]),
        ({"order": ["far"], "allow_fallbacks": False}, ["far"]),
        ({"allow_fallbacks": False}, ["near"]),
        ({"only": ["local", "far"]}, ["far", "local"]),
        ({"ignore": ["near", "local"]}, ["far", "openrouter"]),
        ({"sort": "price"}, ["local", "near", "far", "openrouter"]),
        ({"sort": {"by": "price"}, "order": ["far"]}, ["far", "local", "near", "openrouter"]),
        ({"zdr": True}, ["local", "openrouter"]),
        ({"data_collection": "deny"}, ["local", "openrouter"]),
        ({"max_price": {"prompt": "1"}}, ["near", "local", "openrouter"]),
        ({"max_price": {"prompt": 2, "completion": 1}}, ["far", "local", "openrouter"]),
        # Names that are not ours are for the one that routes itself.
        ({"order": ["deepinfra", "far"]}, ["openrouter", "far", "near", "local"]),
        ({"only": ["deepinfra"]}, ["openrouter"]),
        ({"ignore": ["deepinfra"]}, ["near", "far", "local", "openrouter"]),
        (None, ["near", "far", "local", "openrouter"]),
        ({"order": None, "only": None, "sort": None, "max_price": None}, ["near", "far", "local", "openrouter"]),
    ],
)
def test_what_an_order_wishes(provider: Any, found: list[str]) -> None:
    assert chosen(provider=provider, max_tokens=1) == found


def test_quantizations_and_parameters_leave_out_who_does_not_have_them() -> None:
    rich = at("rich", traits=Traits(frozenset({"tools", "max_completion_tokens", "stop", "min_p"}), "fp8"))
    poor = at("poor", traits=Traits(frozenset({"max_tokens"}), "int4"))
    some = (poor, rich, at("unsaid"))
    assert chosen(some, provider={"quantizations": ["fp8", "unknown"]}) == ["rich", "unsaid"]
    asked: Any = {"tools": [{"type": "function"}], "max_tokens": 5, "stop": ["x"]}
    # Of whom nothing is said, what the format can say is known.
    assert chosen(some, provider={"require_parameters": True}, **asked) == ["rich", "unsaid"]
    assert chosen(some, provider={"require_parameters": True}, min_p=0.1, **asked) == ["rich"]
    # Not required, but who has them comes first.
    assert chosen(some, **asked) == ["rich", "unsaid", "poor"]
    assert chosen(some) == ["poor", "rich", "unsaid"]


def test_what_is_not_declared_is_not_promised_and_the_refusal_says_what_to_declare() -> None:
    """OpenRouter's members `data_collection`, `zdr`, `enforce_distillable_text` and `quantizations`."""
    loose = at("loose", traits=Traits(collects_data=True, zdr=False, distillable=False, quantization="int4"))
    some = (at("unsaid"), loose)
    wished: dict[str, tuple[Any, str]] = {
        "data_collection": ("deny", "`collects_data = false`"),
        "zdr": (True, "`zdr = true`"),
        "enforce_distillable_text": (True, "`distillable = true`"),
    }
    for member, (value, declaration) in wished.items():
        refusal = refused(some, provider={member: value})
        assert refusal.status == 404
        assert declaration in refusal.metadata["excluded_by"]["unsaid"]  # type: ignore[index]
        assert declaration in refusal.metadata["excluded_by"]["loose"]  # type: ignore[index]
    told: Any = refused(some, provider={"quantizations": ["fp8"]}).metadata["excluded_by"]
    assert "declared without a `quantization`" in told["unsaid"]
    assert told["loose"] == "its quantization is int4, which is not in provider.quantizations"
    told = refused(some, provider={"require_parameters": True}, top_a=1, min_p=1).metadata["excluded_by"]
    assert told["unsaid"].endswith("it is not declared to support min_p, top_a (`supported_parameters`)")
    # What may be is no wish.
    assert chosen(some, provider={"data_collection": "allow", "zdr": False}) == ["unsaid", "loose"]


def test_an_order_that_needs_more_than_is_declared_goes_elsewhere() -> None:
    small = at("small", traits=Traits(context_tokens=8000, answer_tokens_max=100))
    blind = at("blind", order=1, traits=Traits(input_modalities=("text",), output_modalities=("text",)))
    some = (small, blind, at("unsaid", order=2))
    assert chosen(some, max_tokens=100) == ["small", "blind", "unsaid"]
    assert chosen(some, max_tokens=101) == ["blind", "unsaid"]
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    for part, modality in ((picture, "image"), ({"type": "file"}, "file"), ({"type": "input_audio"}, "audio")):
        seen: Any = [{"role": "user", "content": [part]}]
        assert chosen(some, messages=seen) == ["small", "unsaid"]
        told: Any = refused((blind,), messages=seen).metadata["excluded_by"]
        assert told["blind"] == f"it is not declared to take {modality} (`input_modalities`)"
    assert chosen(some, modalities=["text", "image"]) == ["small", "unsaid"]
    document = {"type": "document", "source": {"type": "url", "url": "u"}}
    assert chosen(some, path="/messages", messages=[{"role": "user", "content": [document]}]) == ["small", "unsaid"]
    for alone in ("embeddings", "rerank"):
        other = at("other", serves=FORMATS | {f"/{alone}"}, traits=Traits(output_modalities=(alone,)))
        assert chosen((other, at("unsaid"))) == ["unsaid"]
        told = refused((other,)).metadata["excluded_by"]
        assert told["other"] == f"it is declared to answer with {alone} alone (`output_modalities`)"


def test_a_translated_order_is_known_by_the_format_that_it_becomes() -> None:
    claude = at("claude", natives={CHAT: "/messages"})
    assert chosen((claude, at("gpt")), provider={"require_parameters": True}, seed=1) == ["gpt"]
    assert chosen((claude, at("gpt")), provider={"require_parameters": True}, stop=["x"]) == ["claude", "gpt"]


@pytest.mark.parametrize(
    ("path", "members", "names"),
    [
        ("/messages", {"max_tokens": 5, "stop_sequences": ["x"], "thinking": {"type": "enabled"}}, "stop reasoning"),
        ("/responses", {"max_output_tokens": 5, "top_p": 1, "temperature": None}, "top_p"),
        ("/responses", {"max_output_tokens": 5, "text": {"verbosity": "low"}}, "verbosity"),
        (
            "/responses",
            {"max_output_tokens": 5, "text": {"format": {"type": "json_schema"}}},
            "response_format structured_outputs",
        ),
        (
            "/messages",
            {"max_tokens": 5, "output_config": {"format": {"type": "json_schema"}, "effort": "low"}},
            "response_format structured_outputs reasoning_effort",
        ),
        (CHAT, {"max_tokens": 5, "response_format": {"type": "json_object"}}, "response_format"),
        (CHAT, {"max_tokens": 5, "response_format": {"type": "text"}}, ""),
    ],
)
def test_parameters_have_one_name_in_all_formats(path: str, members: dict[str, Any], names: str) -> None:
    assert wishes(path, **members).parameters == {"max_tokens", *names.split()}


@pytest.mark.parametrize(
    ("path", "sdks", "nested"),
    [
        (CHAT, ChatParams, "reasoning response_format structured_outputs"),
        (
            "/responses",
            ResponseParams,
            "logprobs max_completion_tokens reasoning_effort response_format structured_outputs verbosity",
        ),
        (
            "/messages",
            MessageParams,
            "max_completion_tokens parallel_tool_calls reasoning_effort response_format structured_outputs",
        ),
    ],
)
def test_what_an_order_can_say_in_a_format_is_what_its_sdk_can(path: str, sdks: type, nested: str) -> None:
    members = {name for base in sdks.__mro__ for name in getattr(base, "__annotations__", {})}
    assert SAYABLE[path] == {NAMED[name] for name in members if name in NAMED} | set(nested.split())


def test_measured_latency_and_throughput_sort() -> None:
    fast = Measured({"p50": 0.1, "p90": 9.0}, {"p50": 10.0})
    slow = Measured({"p50": 0.5, "p90": 0.6}, {"p50": 90.0})
    measured = {"far": fast, "near": slow}
    assert chosen(measured=measured, provider={"sort": "latency"}) == ["far", "near", "local", "openrouter"]
    assert chosen(measured=measured, provider={"sort": "throughput"}) == ["near", "far", "local", "openrouter"]
    assert chosen(measured=measured, provider={"preferred_max_latency": 0.2}) == ["far", "local", "openrouter", "near"]
    assert chosen(measured=measured, provider={"preferred_max_latency": {"p90": 1}}) == [
        "near",
        "local",
        "openrouter",
        "far",
    ]
    assert chosen(measured=measured, provider={"preferred_min_throughput": 50}) == [
        "near",
        "local",
        "openrouter",
        "far",
    ]


def test_variants_sort() -> None:
    nitro = tuple(replace(each, model="a/b:nitro") for each in (NEAR, FAR))
    measured = {"far": Measured(throughput={"p50": 9.0})}
    assert chosen(nitro, measured=measured, model="a/b:nitro") == ["far", "near"]
    floor = tuple(replace(each, model="a/b:floor") for each in (NEAR, LOCAL))
    assert chosen(floor, model="a/b:floor") == ["local", "near"]


def test_several_models_are_tried_one_after_the_other_unless_all_are_sorted_together() -> None:
    dear, cheap = at("far", "a/b", prices=price("9", "9")), at("near", "c/d", prices=price("1", "1"))
    members: Any = {"models": ["c/d"]}
    assert chosen((cheap, dear), **members) == ["far", "near"]
    together: Any = {"sort": {"by": "price", "partition": "none"}}
    assert chosen((cheap, dear), **members, provider=together) == ["near", "far"]
    assert chosen((cheap, dear), **members, provider={"sort": "price"}, route="sort") == ["near", "far"]
    # Without fallbacks each model has one upstream.
    more = (cheap, dear, at("local", "a/b", order=5))
    assert chosen(more, **members, provider={"allow_fallbacks": False}) == ["far", "near"]


def test_one_that_is_left_alone_is_passed_over_unless_nobody_else_is_left() -> None:
    alone = {"near": Condition(alone_until_us=7), "far": Condition(is_being_tried=True)}
    assert chosen(now=alone) == ["local", "openrouter"]
    assert chosen((NEAR, FAR), now={"near": Condition(9), "far": Condition(5)}) == ["far"]
    assert chosen((NEAR,), now=alone) == ["near"]


def test_one_that_is_full_is_passed_over_and_nobody_left_is_429() -> None:
    few = replace(NEAR, orders_max=2)
    assert chosen((few, FAR), now={"near": Condition(orders=2)}) == ["far"]
    with pytest.raises(Refusal) as caught:
        choose(wishes(), (few,), lambda _: Condition(orders=2))
    assert caught.value.status == 429
    assert caught.value.headers["retry-after"] == "1"


def test_nobody_who_serves_is_a_404_that_names_what_excluded_each() -> None:
    refusal = refused(
        provider={"only": ["near", "local", "x"], "max_price": {"completion": "1.5"}, "zdr": True, "ignore": ["far"]},
        candidates=(NEAR, FAR, replace(LOCAL, serves=frozenset()), at("plain")),
    )
    assert refusal.status == 404
    assert refusal.metadata["excluded_by"] == {
        "near": "provider.zdr is true, and it is not declared with `zdr = true`",
        "far": "not in provider.only",
        "local": "serves no chat/completions",
        "plain": "not in provider.only",
    }
    dear = refused((NEAR,), provider={"max_price": {"completion": "1.5"}})
    assert "it costs $2 a million tokens, and provider.max_price.completion is $1.5" in dear.message
    assert "its prices are not known" in refused((at("x"),), provider={"max_price": {"request": 0}}).message
    assert "`a/b`" in refused(()).message


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("near", "provider: expected `object`"),
        ({"order": "near"}, "provider.order"),
        ({"sort": "quality"}, "provider.sort"),
        ({"sort": {"by": 3}}, "provider.sort.by"),
        ({"quantizations": ["fp9"]}, "provider.quantizations"),
        ({"max_price": {"prompt": "-1"}}, "provider.max_price.prompt"),
        ({"max_price": {"prompt": "1E+999999"}}, "provider.max_price.prompt"),
        ({"max_price": {"request": "much"}}, "provider.max_price.request"),
        ({"preferred_max_latency": -1}, "provider.preferred_max_latency"),
        ({"allow_fallbacks": "no"}, "provider.allow_fallbacks"),
        ({"only": ["x"] * 201}, "provider.only: at most 200 names"),
    ],
)
def test_a_wish_that_is_none_is_a_400_that_names_its_member(provider: Any, said: str) -> None:
    with pytest.raises(Refusal, match="400") as caught:
        wishes(provider=provider)
    assert caught.value.message.startswith(said)


def sent(candidate: Candidate, members: dict[str, Any]) -> Any:
    body = body_of(**members)
    out = Route(ALL, frozenset(each.upstream for each in ALL)).body_for(candidate, body)
    return "the same bytes" if out == body else json.loads(out)


def test_an_order_goes_on_as_it_came_where_nothing_is_to_be_changed() -> None:
    assert sent(NEAR, {}) == "the same bytes"
    assert sent(OPENROUTER, {"provider": {"only": ["deepinfra"], "sort": "price"}}) == "the same bytes"
    assert sent(NEAR, {"metadata": {"provider": "x"}}) == "the same bytes"


def test_an_order_is_made_one_for_the_candidate() -> None:
    plain = json.loads(body_of())
    assert sent(NEAR, {"provider": {"order": ["near"]}, "models": ["c/d"], "route": "fallback"}) == plain
    ours = {"order": ["near", "deepinfra"], "only": ["openrouter"], "sort": "price"}
    assert sent(OPENROUTER, {"provider": ours})["provider"] == {"order": ["deepinfra"], "sort": "price"}
    assert "provider" not in sent(OPENROUTER, {"provider": {"only": ["openrouter"]}})
    second = replace(OPENROUTER, model="c/d")
    assert sent(second, {"models": ["c/d"]}) == {**plain, "model": "c/d"}
    # What else stands there stays byte for byte.
    body = rb'{"model":"a\/b","models":["a/b"],"messages":[{"role":"user","content":"\ud83d"}],"temperature": 1.10}'
    out = Route(ALL, frozenset()).body_for(LOCAL, body)
    assert out == body.replace(b'"models":["a/b"],', b"").replace(b": 1.10", b":1.10")


def test_one_that_routes_itself_gets_an_order_for_all_its_models_as_it_came() -> None:
    other = replace(OPENROUTER, model="c/d")
    body = body_of(models=["c/d"], provider={"sort": "price"})
    route = choose(read_wishes(CHAT, body, chat.read(body)), (OPENROUTER, other))
    assert route.candidates == (OPENROUTER,)
    assert route.body_for(OPENROUTER, body) == body


@pytest.mark.parametrize(
    ("went", "found"),
    [
        (NotReached(), "far other"),
        (NotReached(timed_out=True), "far other"),
        *((Refused(status), "far other") for status in (404, 429, 500, 502, 503, 529)),
        *((Denied(status), "far other") for status in (400, 401, 402, 403, 429)),
        # About what was ordered: another model may take it.
        *((Refused(status), "other") for status in (400, 403, 413, 422)),
        # Somebody may have been at work on it.
        *((went, "") for went in (MayBeCharged(), Refused(408), Refused(504), Refused(524))),
    ],
)
def test_the_next_is_tried_where_nothing_was_accepted(went: Went, found: str) -> None:
    other = at("other", "c/d")
    assert [each.upstream for each in still_to_try(went, NEAR, (FAR, other))] == found.split()
