"""Lists of several upstreams as one, and prices as OpenRouter writes them in a list."""

import json
from decimal import Decimal
from typing import Any

from msgspec import Raw

from farebox.core.joined_lists import joined_endpoints, joined_models, joined_providers, with_endpoints
from farebox.core.listed_prices import NOT_KNOWN, pricing
from farebox.core.tariffs import Entry, Tariffs, TokenPrices
from farebox.core.upstream import Listing


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


def entries(*values: Any) -> Listing:
    return Listing(entries=tuple(map(raw, values)))


def read(listing: Listing) -> list[Any]:
    return [json.loads(bytes(each)) for each in listing.entries]


def test_a_model_that_several_list_stands_once_as_the_first_of_them_has_it() -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    def first(model: str, upstreams: Any) -> str:
        asked.append((model, tuple(upstreams)))
        return "v"

    lists = [
        ("u", entries({"id": "a/b", "at": "u"}, {"id": "c/d"}, {"no": "id"})),
        ("v", entries({"id": "a/b", "at": "v"}, {"id": "a/b", "at": "v, again"})),
    ]
    assert read(joined_models(lists, first)) == [{"id": "a/b", "at": "v"}, {"id": "c/d"}, {"no": "id"}]
    assert asked == [("a/b", ("u", "v"))]


def test_our_own_providers_come_first_and_hide_others_of_their_name() -> None:
    own = [raw({"slug": "mine", "of": "us"})]
    others = [entries({"slug": "mine", "of": "others"}, {"slug": "x"}), entries({"slug": "x", "of": "others"}, {}, 7)]
    assert read(joined_providers(own, others)) == [{"slug": "mine", "of": "us"}, {"slug": "x"}, {}, 7]


def test_endpoints_of_all_stand_under_what_the_first_says_of_the_model() -> None:
    one = Listing(data=raw({"id": "a/b", "name": "B", "endpoints": [{"tag": "x"}]}))
    other = Listing(data=raw({"id": "a/b", "name": "another", "endpoints": [{"tag": "y"}]}))
    assert joined_endpoints([one]) is one
    assert json.loads(bytes(joined_endpoints([one, other]).data)) == {
        "id": "a/b",
        "name": "B",
        "endpoints": [{"tag": "x"}, {"tag": "y"}],
    }


def test_our_own_endpoints_come_before_those_that_an_upstream_tells_of() -> None:
    listed = raw({"id": "a/b", "name": "B", "pricing": {}})
    told = raw({"id": "a/b", "name": "theirs", "endpoints": [{"tag": "y"}]})
    alone, beside = (json.loads(bytes(with_endpoints(listed, [{"tag": "x"}], each))) for each in (raw(None), told))
    assert alone == {"id": "a/b", "name": "B", "endpoints": [{"tag": "x"}]}
    assert beside == {"id": "a/b", "name": "theirs", "endpoints": [{"tag": "x"}, {"tag": "y"}]}


def priced(**more: Any) -> Entry:
    prices = more.pop("prices", {})
    stated = {name: Decimal(price) for name, price in {"prompt": "0", "answer": "0.000015", **prices}.items()}
    return Entry(upstream="u", model="m", since_us=0, prices=TokenPrices(**stated), **more)


def test_prices_are_texts_and_those_for_longer_prompts_stand_beside_the_usual_ones() -> None:
    usual = priced(prices={"cache_read": "0.0000003", "request": "0"})
    longer = priced(above_prompt_tokens=200_000, prices={"prompt": "0.000006"})
    found = Tariffs([longer, priced(terms="priority", prices={"prompt": "0.00001"}), usual]).find("u", "m", 1)
    assert pricing(found) == {
        "prompt": "0",
        "completion": "0.000015",
        "input_cache_read": "0.0000003",
        "overrides": [{"min_prompt_tokens": 200_000, "prompt": "0.000006", "completion": "0.000015"}],
    }
    assert pricing(None) == NOT_KNOWN
    assert pricing(Tariffs([priced(terms="priority")]).find("u", "m", 1)) == NOT_KNOWN
