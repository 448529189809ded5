"""The price list, and the ceiling it puts on an order."""

import json
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from farebox.core.errors import Refusal
from farebox.core.formats import Asked, Searches, Units, chat
from farebox.core.intake import read_order
from farebox.core.plans import BUILT_IN, Plan
from farebox.core.pricing import (
    ASSUMED,
    AUDIO_TOKENS_PER_SECOND,
    EXTRAS_USD,
    IMAGE_TOKENS_MAX,
    LEAST_ANSWER_TOKENS,
    PICTURE_TOKENS_MAX,
    RESULT_USD,
    SEARCH_USD,
    SPEECH_TOKENS_PER_CHARACTER,
    TRANSCRIPT_TOKENS_PER_SECOND,
    Ceiling,
    PriceList,
    UnitPrices,
    ceiling,
    find_rates,
    listed_names,
)
from farebox.simulator import catalog, models
from farebox.upstream.openrouter_pages import read_price_list

PAYING, FREE = BUILT_IN["paying"], BUILT_IN["free"]


def prices(*entries: dict[str, Any]) -> PriceList:
    return read_price_list(json.dumps({"data": list(entries)}).encode())


def model(name: str = "a/b", context: int | None = 1000, longest: int | None = 500, **pricing: Any) -> dict[str, Any]:
    return {
        "id": name,
        "pricing": {"prompt": "0.001", "completion": "0.002", **pricing},
        "context_length": context,
        "top_provider": {"max_completion_tokens": longest},
    }


def asked(*names: str, prompt_bytes: int = 100, **more: Any) -> Asked:
    return Asked(models=names or ("a/b",), prompt_bytes=prompt_bytes, **more)


UNLISTED: dict[str, Any] = {"prompt": "0", "completion": "0"}


@pytest.mark.parametrize(
    ("units", "pricing", "cost"),
    [
        # What has no price is taken to have the assumed one: never nothing.
        (Units(pictures=2), UNLISTED, 2 * ASSUMED.picture),
        (Units(characters=2), UNLISTED, 2 * ASSUMED.character),
        (Units(audio_seconds=2), UNLISTED, 2 * ASSUMED.audio_second),
        (Units(video_seconds=2), {}, 2 * ASSUMED.video_second),
        (Units(search_units=2), UNLISTED, 2 * ASSUMED.search_unit),
        # The list's own price of a unit holds, however low.
        (Units(pictures=2), {"picture": "0.001"}, "0.002"),
        (Units(characters=2), {"character": "0.000001", **UNLISTED}, "0.000002"),
        (Units(audio_seconds=2), {"audio_second": "0.000001"}, "0.000002"),
        (Units(video_seconds=2), {"video_second": "0.1"}, "0.2"),
        (Units(search_units=2), {"search_unit": "0.001", **UNLISTED}, "0.002"),
        # Else that of the tokens that a unit becomes.
        (Units(pictures=2), {"image_output": "0.00001"}, Decimal("0.00002") * PICTURE_TOKENS_MAX),
        (Units(pictures=2), {"image_output": "0.04"}, "0.08"),
        (Units(pictures=1), {"completion": "0.01"}, Decimal("0.01") * PICTURE_TOKENS_MAX),
        (Units(characters=2), {"prompt": "0"}, Decimal("0.004") * SPEECH_TOKENS_PER_CHARACTER),
        (Units(characters=3000), {"completion": "0"}, "2"),
        (
            Units(audio_seconds=2),
            {"prompt": "0.00001", "completion": "0"},
            Decimal("0.00002") * AUDIO_TOKENS_PER_SECOND,
        ),
        (Units(audio_seconds=2), {"prompt": "0.0001", "completion": "0"}, "0.0002"),
        (Units(audio_seconds=2), {"prompt": "0"}, Decimal("0.004") * TRANSCRIPT_TOKENS_PER_SECOND),
        (Units(search_units=3), {"request": "0.002"}, "0.006"),
        (Units(search_units=3), {}, "0"),
    ],
)
def test_the_ceiling_of_what_is_not_counted_in_tokens(units: Units, pricing: dict[str, Any], cost: Decimal) -> None:
    listed = prices(model(**pricing))
    assert ceiling(asked(prompt_bytes=0, answers=0, units=units), None, listed).cost(0) == Decimal(cost)


def test_what_is_assumed_of_units_can_be_set() -> None:
    listed = replace(prices(model(**UNLISTED)), assumed=UnitPrices(picture=Decimal(1)))
    assert ceiling(asked(prompt_bytes=0, answers=0, units=Units(pictures=3)), None, listed).cost(0) == 3


@pytest.mark.parametrize(
    ("what", "cap", "cost"),
    [
        (asked(), 10, "0.12"),
        (asked(), None, "1.1"),
        (asked(), 9999, "1.1"),
        (asked(prompt_bytes=5000), 10, "1.02"),
        (asked(answers=3), 10, "0.16"),
        (asked(images=1, prompt_bytes=1), 10, "1.02"),
        (asked(prompt_is_open=True), 10, str(Decimal("1.02") + EXTRAS_USD)),
        (asked(is_premium=True), 10, "0.36"),
        (asked(searches=Searches(2, 10)), 10, str(Decimal("0.12") + 2 * SEARCH_USD + 10 * RESULT_USD)),
        (asked(searches=Searches(50, 250)), 10, str(Decimal("0.12") + 50 * SEARCH_USD + 250 * RESULT_USD)),
        (asked(searches=Searches(1, 5), is_premium=True), 10, str(Decimal("0.36") + SEARCH_USD + 5 * RESULT_USD)),
    ],
)
def test_a_ceiling_bounds_prompt_and_answer(what: Asked, cap: int | None, cost: str) -> None:
    most = ceiling(what, cap, prices(model()))
    assert most.cost(most.tokens) == Decimal(cost)


@pytest.mark.parametrize(
    ("pricing", "cost"),
    [
        ({"request": "0.5"}, "0.62"),
        ({"input_cache_write": "0.002"}, "0.22"),
        ({"internal_reasoning": "0.004"}, "0.14"),
        ({"image_output": "0.01"}, "0.2"),
        (
            {"overrides": [{"min_prompt_tokens": 200, "prompt": "0.003"}, {"utc_start": 100, "completion": "0.004"}]},
            "0.34",
        ),
        ({"discount": 0.5}, "0.12"),
    ],
)
def test_each_part_is_bounded_by_its_dearest_price(pricing: dict[str, Any], cost: str) -> None:
    most = ceiling(asked(), 10, prices(model(**pricing)))
    assert most.cost(most.tokens) == Decimal(cost)


def test_a_search_costs_its_listed_price_where_the_provider_searches_itself() -> None:
    listed = prices(model(web_search="0.01"), model("c/d"))
    most = ceiling(asked(searches=Searches(3, 15)), 10, listed)
    assert most.cost(10) == Decimal("0.15")
    by_engine = 3 * SEARCH_USD + 15 * RESULT_USD
    for searching in (
        asked(searches=Searches(3, 15, is_engine_named=True)),
        asked("a/b", "c/d", searches=Searches(3, 15)),
    ):
        assert ceiling(searching, 10, listed).cost(10) == Decimal("0.12") + by_engine


def test_the_dearest_of_several_models_counts() -> None:
    listed = prices(model(), model("c/d", prompt="0.01", completion="0.001"))
    for names in (("a/b", "c/d"), ("c/d", "a/b")):
        most = ceiling(asked(*names), 10, listed)
        assert (most.fixed, most.token) == (Decimal("1.00"), Decimal("0.002"))


def test_a_picture_costs_its_price_and_its_tokens() -> None:
    most = ceiling(asked(images=2, prompt_bytes=10), 1, prices(model(context=None, image="0.5", prompt="0.000001")))
    assert most.fixed == Decimal(1) + Decimal("0.000001") * (2 * IMAGE_TOKENS_MAX + 10)


@pytest.mark.parametrize("name", ["c/d", "a/b:free", "", "a"])
def test_a_model_that_is_not_listed_has_no_price_and_is_not_free(name: str) -> None:
    with pytest.raises(Refusal) as refused:
        find_rates(prices(model()), name)
    assert refused.value.status == 404


def test_a_variant_has_its_models_price_and_a_free_one_its_own() -> None:
    listed = prices(model(), model("a/b:free", prompt="0", completion="0"))
    assert find_rates(listed, "a/b:nitro") == find_rates(listed, "a/b")
    assert find_rates(listed, "a/b:free").prompt == 0


def test_a_routers_bound_is_the_dearest_model() -> None:
    listed = prices(model(), model("c/d", completion="0.5"), model("auto", prompt="-1", completion="-1"))
    assert find_rates(listed, "auto").answer == Decimal("0.5")


@pytest.mark.parametrize(
    "name", ["a/b:nitro:online", "a/b:online:nitro:floor", "a/b-2026-01-02", "a/b-2026-01-02:nitro"]
)
def test_names_that_the_upstream_takes_have_their_models_price(name: str) -> None:
    assert find_rates(prices({**model(), "canonical_slug": "a/b-2026-01-02"}), name).prompt == Decimal("0.001")


@pytest.mark.parametrize("name", ["a/b:free", "a/b:free:online", "a/b:online:free", "a/b:1:2:3:4"])
def test_names_that_it_does_not_take_have_none(name: str) -> None:
    with pytest.raises(Refusal) as refused:
        find_rates(prices(model()), name)
    assert refused.value.status == 404


def test_a_free_model_may_search() -> None:
    listed = prices(model(), model("a/b:free", prompt="0", completion="0"))
    assert find_rates(listed, "a/b:free:online").prompt == 0


def test_a_canonical_slug_is_never_the_free_variants() -> None:
    both = [
        {**model("a/b:free", prompt="0", completion="0"), "canonical_slug": "a/b-2026-01-02"},
        {**model(), "canonical_slug": "a/b-2026-01-02"},
    ]
    for entries in (both, both[::-1]):
        assert find_rates(prices(*entries), "a/b-2026-01-02").prompt == Decimal("0.001")
    with pytest.raises(Refusal):
        find_rates(prices(model("c/d"), both[0]), "a/b-2026-01-02")


def test_a_model_that_is_in_two_lists_keeps_its_slug() -> None:
    """As `/models` and `/embeddings/models` both list some."""
    twice = {**model(), "canonical_slug": "a/b-2026-01-02"}
    assert find_rates(prices(twice, twice), "a/b-2026-01-02").prompt == Decimal("0.001")


def test_a_slug_of_two_models_is_nobodys() -> None:
    shared = [{**model(name), "canonical_slug": "x/y-2026"} for name in ("x/y", "x/z")]
    with pytest.raises(Refusal):
        find_rates(prices(*shared), "x/y-2026")


SHOP = ("openai/gpt-5", "openai/gpt-5-mini", "openai/gpt-4o", "anthropic/claude-sonnet-4.5", "qwen/qwen3", "sim/echo")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("openai/gpt-5x", "openai/gpt-5"),
        ("opneai/gtp-5", "openai/gpt-5"),
        ("gpt-5", "openai/gpt-5"),
        ("OpenAI/GPT-4o", "openai/gpt-4o"),
        ("openai/gpt-5:free", "openai/gpt-5"),
        ("claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4.5"),
        ("anthropic/claude-sonnet-4-5", "anthropic/claude-sonnet-4.5"),
        ("sim/ecko", "sim/echo"),
        ("zzz/yyy", None),
        ("", None),
        ("/", None),
        ("é" * 100_000, None),
    ],
)
def test_a_misspelt_model_is_told_the_nearest(name: str, near: str | None) -> None:
    listed = prices(*map(model, SHOP))
    assert next(iter(listed.nearest(name, None)), None) == near
    with pytest.raises(Refusal) as refused:
        find_rates(listed, name)
    assert ("did you mean" in refused.value.message) == bool(near)


def test_only_models_that_the_plan_includes_are_near() -> None:
    listed = prices(*map(model, SHOP))
    small = Plan("small", 10_000, models=("*-mini", "sim/*"))
    with pytest.raises(Refusal, match="; did you mean `openai/gpt-5-mini`\\? GET /api/v1/models has") as refused:
        ceiling(asked("openai/gpt-5x"), 10, listed, small)
    assert refused.value.status == 404
    body = json.dumps({"model": "openai/gpt-5x", "messages": [{"content": "hi"}]}).encode()
    for order, status in ((body, 404), (body.replace(b"5x", b"5"), 403), (body.replace(b"openai/gpt", b"z"), 403)):
        with pytest.raises(Refusal) as refused:
            read_order(order, chat, small, partial(listed_names, listed))
        assert refused.value.status == status
    included = body.replace(b"5x", b"5-mini")
    assert read_order(included, chat, small, partial(listed_names, listed)).body == included


@pytest.mark.parametrize("name", ["openrouter/auto", "openrouter/auto:online"])
def test_openrouters_router_is_known_whether_listed_or_not(name: str) -> None:
    listed = prices(model(), model("c/d", completion="0.5"))
    assert find_rates(listed, name).answer == Decimal("0.5")
    with pytest.raises(Refusal):
        find_rates(listed, "openrouter/made-up")


def test_a_name_counts_as_its_model_where_plans_say_which_may_be_asked() -> None:
    latest = {**model("~a/b-latest"), "alias_target": {"slug": "a/b", "name": "B"}}
    listed = prices(
        {**model(), "canonical_slug": "a/b-2026"}, latest, model("a/b:free", prompt="0", completion="0"), model("c/d")
    )
    counted = {
        "a/b": ("a/b",),
        "a/b-2026": ("a/b",),
        "~a/b-latest": ("a/b",),
        "a/b:nitro": ("a/b", "a/b:nitro"),
        "a/b-2026:nitro:online": ("a/b", "a/b:nitro:online"),
        "a/b:free": ("a/b:free",),
        "a/b:free:online": ("a/b:free", "a/b:free:online"),
        "openrouter/auto": ("openrouter/auto",),
        "no/body": ("no/body",),
    }
    assert {name: listed.names(name) for name in counted} == counted


def test_no_alias_slips_past_a_plan() -> None:
    listed = prices({**model(), "canonical_slug": "a/b-mini-2026"}, model("a/b-mini"))
    mini = Plan("mini", 10_000, models=("a/b-mini*", "*:floor"))

    def order(name: str) -> bytes:
        body = json.dumps({"model": name, "messages": [{"content": "hi"}]}).encode()
        return read_order(body, chat, mini, partial(listed_names, listed)).body

    for name in ("a/b-mini", "a/b-mini:nitro", "a/b:floor", "a/b-mini-2026:floor"):
        assert order(name)
    for name in ("a/b", "a/b-mini-2026", "a/b:nitro", "a/b:floor:nitro", "openrouter/auto"):
        with pytest.raises(Refusal) as refused:
            order(name)
        assert refused.value.status == 403


@pytest.mark.parametrize("price", ["-0.1", "NaN", "free", "1e9", None, ""])
def test_an_entry_whose_price_is_none_is_not_served(price: Any) -> None:
    listed = prices(model(), model("c/d", completion=price))
    assert "c/d" not in listed.rates
    assert listed.left_out == {"c/d"}


def test_an_entry_without_its_price_is_not_free() -> None:
    absent = {**model("c/d"), "pricing": {"prompt": "0.001"}}
    assert prices(model(), absent, {**absent, "id": "e/f", "pricing": {}}).left_out == {"c/d", "e/f"}


def test_a_price_that_is_no_number_leaves_its_model_out() -> None:
    assert prices(model(), model("c/d", prompt="NaN"), model("e/f", image="NaN")).left_out == {"c/d", "e/f"}


@pytest.mark.parametrize("image", [None, ""])
def test_a_price_beside_those_two_that_is_null_or_empty_is_absent(image: Any) -> None:
    listed = prices(model(), {**model("c/d", image=image, request="0.5"), "context_length": 1000.0})
    assert listed.left_out == frozenset()
    assert find_rates(listed, "c/d") == find_rates(prices(model("c/d", request="0.5")), "c/d")


def test_a_number_of_tokens_may_have_a_fraction_of_zero() -> None:
    entry = {**model(), "context_length": 200000.0, "top_provider": {"max_completion_tokens": 4096.0}}
    rates = find_rates(prices(entry), "a/b")
    assert (rates.context_tokens, rates.answer_tokens_max) == (200_000, 4096)
    assert isinstance(rates.context_tokens, int)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data":[]}', b'{"data":[{"id":"a/b"}]}'])
def test_a_list_without_a_price_is_no_list(body: bytes) -> None:
    with pytest.raises(ValueError, match="model list"):
        read_price_list(body)


def test_every_simulated_model_has_a_price() -> None:
    assert set(read_price_list(catalog.page("/models", {"output_modalities": "all"})).rates) == set(models.MODELS)


amounts = st.decimals(min_value=0, max_value=1, places=9)


@given(amounts, amounts, st.integers(1, 10**6), st.integers(0, 10**13), st.sampled_from([PAYING, FREE]))
def test_what_a_balance_covers_is_never_more_than_the_balance(
    fixed: Decimal, token: Decimal, tokens: int, nanos: int, plan: Any
) -> None:
    most = Ceiling(fixed, token, tokens)
    if token and most.least_nanos(plan) <= nanos:
        covered = most.tokens_covered(plan, nanos)
        assert min(tokens, LEAST_ANSWER_TOKENS) <= covered <= tokens
        assert plan.fare_nanos(most.cost(covered)) <= nanos
        if covered < tokens:
            assert plan.fare_nanos(most.cost(covered + 1)) > nanos


def test_an_absurd_price_is_bounded() -> None:
    most = ceiling(asked(answers=128), None, prices(model(completion="1000", longest=10**9)))
    assert most.fare_nanos(FREE) == 10 * 10**6 * 10**9
