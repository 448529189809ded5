"""Prices and usage become a cost: exactly, or not at all."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.core.formats import Asked
from farebox.core.pricing import PricedModel, ceiling, price_list
from farebox.core.tariffs import (
    FREE,
    Borrowed,
    Entry,
    KeptTariffs,
    Offer,
    Priced,
    Tariff,
    Tariffs,
    TokenPrices,
    canonical,
    read_kept,
)
from farebox.core.usage import ANSWER_KINDS, KINDS, PROMPT_KINDS, Cost, Unknown, Usage

YEAR_US = 365 * 86_400 * 1_000_000


def prices(**given: str) -> TokenPrices:
    return TokenPrices(
        **{name: Decimal(price) for name, price in {"prompt": "3E-6", "answer": "15E-6", **given}.items()}
    )


def entry(model: str = "m", since_us: int = 0, upstream: str = "u", **more: object) -> Entry:
    return Entry(**{"upstream": upstream, "model": model, "since_us": since_us, "prices": prices(), **more})  # type: ignore[arg-type]


def usage(used: dict[str, int]) -> Usage:
    """Of kinds that are counted."""
    return Usage(**used)  # type: ignore[arg-type]


def tariff(*entries: Entry, model: str = "m", at_us: int = YEAR_US) -> Tariff:
    found = Tariffs(entries).find("u", model, at_us)
    assert found is not None
    return found


amounts = st.decimals(min_value=0, max_value=Decimal("0.01"), places=12)
counts = st.integers(0, 10**9)


@given(
    st.fixed_dictionaries(dict.fromkeys(KINDS, amounts)), st.fixed_dictionaries(dict.fromkeys(KINDS, counts)), amounts
)
def test_a_cost_is_the_sum_of_its_parts_to_the_last_digit(
    each: dict[str, Decimal], used: dict[str, int], request: Decimal
) -> None:
    due = sum((Fraction(each[kind]) * used[kind] for kind in KINDS), Fraction(request))
    cost = tariff(entry(prices=TokenPrices(**each, request=request))).cost(usage(used))
    if due <= 1_000_000:
        assert isinstance(cost, Cost)
        assert Fraction(cost.amount) == due
    else:
        assert isinstance(cost, Unknown)


@given(st.fixed_dictionaries({kind: st.integers(0, 2) for kind in KINDS}), st.sets(st.sampled_from(KINDS)))
def test_what_has_no_price_is_never_charged_and_never_free(used: dict[str, int], priced: set[str]) -> None:
    cost = tariff(entry(prices=TokenPrices(**dict.fromkeys(priced, Decimal(1))))).cost(usage(used))
    wanted = {kind for kind in KINDS if used[kind]}
    if wanted <= priced | ({"reasoning"} if "answer" in priced else set()):
        assert cost == Cost(Decimal(sum(used.values())))
    else:
        assert isinstance(cost, Unknown)
        assert any(f"`{kind}`" in cost.reason for kind in wanted - priced)


def test_reasoning_costs_what_the_answer_does_unless_it_is_priced_apart() -> None:
    used = Usage(answer=1, reasoning=2)
    assert tariff(entry()).cost(used) == Cost(Decimal("0.000045"))
    assert tariff(entry(prices=prices(reasoning="1E-6"))).cost(used) == Cost(Decimal("0.000017"))
    assert tariff(entry(prices=prices(reasoning="0"))).cost(used) == Cost(Decimal("0.000015"))


def test_a_request_has_a_price_of_its_own() -> None:
    assert tariff(entry(prices=prices(request="0.01"))).cost(Usage()) == Cost(Decimal("0.01"))


def test_pictures_that_may_be_cached_are_charged_only_where_that_changes_nothing() -> None:
    used = Usage(prompt=10, cache_read=5, picture_in=3, is_mixed=True)
    told = tariff(entry(prices=prices(cache_read="3E-7", picture_in="5E-6"))).cost(used)
    assert isinstance(told, Unknown)
    assert "3 of `picture_in` came from the cache" in told.reason
    same = tariff(entry(prices=prices(cache_read="3E-7", picture_in="3E-6"))).cost(used)
    assert same == Cost(Decimal("0.0000405"))


def test_the_entry_in_force_when_the_order_was_placed_counts() -> None:
    first, second = entry(), entry(since_us=YEAR_US, prices=prices(prompt="1E-6"))
    for listed in ([first, second], [second, first]):
        for at_us, price in ((0, "3E-6"), (YEAR_US - 1, "3E-6"), (YEAR_US, "1E-6"), (YEAR_US + 1, "1E-6")):
            assert tariff(*listed, at_us=at_us).cost(Usage(prompt=1)) == Cost(Decimal(price))
    assert Tariffs([second]).find("u", "m", YEAR_US - 1) is None


@given(st.lists(st.integers(-9, 9), max_size=5), st.lists(st.integers(-9, 9)))
def test_a_list_that_is_asked_again_says_the_same(since: list[int], moments: list[int]) -> None:
    names, terms = ("m", "*", "m?"), ("", "priority")
    entries = [entry(names[at % 3], each, terms=terms[each % 2]) for at, each in enumerate(since)]
    listed = Tariffs(entries)
    for at_us in moments:
        assert listed.find("u", "m", at_us) == Tariffs(entries).find("u", "m", at_us)


def test_an_exact_name_comes_before_patterns_and_of_patterns_the_first() -> None:
    listed = Tariffs(
        [
            entry("claude-*", prices=prices(prompt="1")),
            entry("claude-opus*", prices=prices(prompt="2")),
            entry("claude-opus-4", prices=prices(prompt="3")),
            entry("*", prices=prices(prompt="4"), upstream="other"),
        ]
    )
    for model, price in (("claude-x", 1), ("claude-opus-5", 1), ("claude-opus-4", 3)):
        found = listed.find("u", model, 0)
        assert found is not None
        assert found.cost(Usage(prompt=1)) == Cost(Decimal(price))
    assert listed.find("u", "gpt", 0) is None
    assert listed.find("other", "gpt", 0) is not None
    assert listed.find("nobody", "gpt", 0) is None


def test_longer_prompts_have_prices_of_their_own_until_the_next_change() -> None:
    long = prices(prompt="6E-6", cache_read="6E-7")
    listed = [
        entry(),
        entry(above_prompt_tokens=200, prices=long),
        entry(since_us=YEAR_US, prices=prices(prompt="1E-6")),
    ]
    assert tariff(*listed, at_us=0).cost(Usage(prompt=200)) == Cost(Decimal("0.0006"))
    assert tariff(*listed, at_us=0).cost(Usage(prompt=201)) == Cost(Decimal("0.001206"))
    assert tariff(*listed, at_us=0).cost(Usage(prompt=1, cache_read=200)) == Cost(Decimal("0.000126"))
    # What is listed from one moment on holds together: the next has no price of long prompts of its own.
    assert tariff(*listed).cost(Usage(prompt=201)) == Cost(Decimal("0.000201"))


def test_terms_that_have_no_price_make_the_cost_unknown() -> None:
    listed = tariff(entry(), entry(terms="priority", prices=prices(prompt="6E-6")))
    assert listed.cost(Usage(prompt=1, terms="priority")) == Cost(Decimal("6E-6"))
    told = listed.cost(Usage(prompt=1, terms="flex"))
    assert isinstance(told, Unknown)
    assert "on the terms `flex`" in told.reason


def test_what_is_free_costs_nothing_whatever_is_told() -> None:
    free = tariff(entry(prices=FREE, is_free=True))
    assert free.cost(Unknown("nothing was told")) == free.cost(Usage(prompt=5, audio_out=3)) == Cost(Decimal(0))
    assert tariff(entry()).cost(Unknown("nothing was told")) == Unknown("nothing was told")
    assert tariff(entry(prices=prices(prompt="0", answer="0"))).cost(Unknown("why")) == Unknown("why")


def test_the_same_prices_have_one_version_however_they_are_written() -> None:
    def listed(*names: str, prompt: str, answer: str) -> list[Entry]:
        same = TokenPrices(prompt=canonical(Decimal(prompt)), answer=canonical(Decimal(answer)))
        return [entry(name, prices=same) for name in names]

    one = listed("a", "b", "x*", "*", prompt="3E-6", answer="0.000015")
    other = listed("b", "x*", "a", "*", prompt="0.0000030", answer="1.5E-5")
    assert Tariffs(one).version == Tariffs(other).version
    assert Tariffs(one).version != Tariffs(one[:3]).version
    # Of patterns the order says which counts.
    assert Tariffs(one).version != Tariffs([one[0], one[1], one[3], one[2]]).version


def test_a_list_in_the_books_is_the_one_that_was_used() -> None:
    listed = Tariffs([entry(), entry("x*", terms="flex", above_prompt_tokens=7), entry("y", prices=FREE, is_free=True)])
    kept = KeptTariffs(listed.version, listed.content, 1)
    read = read_kept(kept)
    assert read is not None
    assert (read.version, read.entries) == (listed.version, listed.entries)
    assert read_kept(KeptTariffs(listed.version, listed.content.replace("0.000003", "0.000004"), 1)) is None
    assert read_kept(KeptTariffs(Tariffs().version, listed.content, 1)) is None


def test_what_is_borrowed_has_the_other_lists_prices_or_none() -> None:
    borrowed = Borrowed(upstream="u", model="m", listed="a/m", since_us=5)
    tiers = borrowed.entries(Offer(((0, prices()), (200, prices(prompt="6E-6")))))
    assert [(each.above_prompt_tokens, each.since_us) for each in tiers] == [(0, 5), (200, 5)]
    none = tariff(*borrowed.entries(Offer(reason="it is not listed")))
    told = none.cost(Usage(prompt=1))
    assert isinstance(told, Unknown)
    assert "it is not listed" in told.reason
    assert none.bounds() == ()


@given(
    st.fixed_dictionaries(dict.fromkeys(KINDS, st.decimals(min_value=0, max_value=Decimal("0.001"), places=9))),
    st.fixed_dictionaries(dict.fromkeys(KINDS, st.integers(0, 50))),
)
def test_a_ceiling_covers_every_usage_within_its_tokens(each: dict[str, Decimal], used: dict[str, int]) -> None:
    told = usage({**used, "search": 0})
    both = tariff(entry(prices=TokenPrices(**each, request=Decimal("0.5"))), entry(above_prompt_tokens=100))
    listed = price_list([PricedModel("a/m", both.bounds(), 1000, 1000)])
    most = ceiling(
        Asked(("a/m",), prompt_bytes=sum(used[k] for k in PROMPT_KINDS)),
        sum(used[k] for k in ANSWER_KINDS) or 1,
        listed,
    )
    cost = both.cost(told)
    if isinstance(cost, Cost):
        assert cost.amount <= most.cost(most.tokens)


@pytest.mark.parametrize("kind", [*PROMPT_KINDS, *ANSWER_KINDS])
def test_a_ceiling_counts_the_dearest_kind(kind: str) -> None:
    dear = tariff(entry(prices=prices(**{kind: "0.005"})))
    most = ceiling(Asked(("a/m",), prompt_bytes=10), 10, price_list([PricedModel("a/m", dear.bounds(), 1000, 1000)]))
    assert most.cost(10) >= 10 * Decimal("0.005")


def test_what_is_kept_of_an_order_says_by_which_prices() -> None:
    found = tariff(entry())
    assert found.priced() == Priced(version=found.version, model="m", at_us=YEAR_US)
    assert found.priced(Usage(prompt=1)).usage == Usage(prompt=1)


@pytest.mark.parametrize("model", ["[", "a[b", "x" * 10_000, "", "\x00"])
def test_odd_names_find_nothing_and_break_nothing(model: str) -> None:
    assert Tariffs([entry(), entry("m[*"), entry("[!a]b")]).find("u", model, 0) is None
