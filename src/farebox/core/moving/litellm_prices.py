"""A deployment's prices, as LiteLLM writes them, as entries of a price file.

They are read from their digits. What LiteLLM would count at nothing because nobody wrote it, has no price here.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation

from msgspec import Struct

from farebox.core.moving.toml_text import Value, table

NAMES = {
    "input_cost_per_token": "prompt",
    "output_cost_per_token": "answer",
    "cache_read_input_token_cost": "cache_read",
    "input_cost_per_token_cache_hit": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_image_token": "picture_in",
    "output_cost_per_image_token": "picture_out",
    "input_cost_per_audio_token": "audio_in",
    "output_cost_per_audio_token": "audio_out",
    "input_cost_per_request": "request",
}
"""LiteLLM's members and the price file's; of two that mean the same the first counts."""

AS_PROMPT = ("cache_read", "cache_write")
"""What LiteLLM takes the prompt's price for where it has none."""

DIGITS_MAX = 20
"""Of a price, in all and after its point; the price file takes no longer ones."""

TOKEN_USD_MAX = Decimal("0.01")
"""The most that a price file takes a token to cost."""

REQUEST_USD_MAX = Decimal(100)
"""The most that it takes a request to cost."""

_NAME = re.compile(
    rf"({'|'.join(sorted(NAMES, key=len, reverse=True))})(?:_above_(\d+)(k?)_tokens)?(?:_(flex|priority))?"
)


class BadPrice(Exception):  # noqa: N818 - the word of the house
    """The message says what is wrong with a price."""


class Priced(Struct, frozen=True):
    """What a deployment costs: by `terms` and for prompts of more than so many tokens, its prices by the price file's
    names."""

    entries: Mapping[tuple[str, int], Mapping[str, Decimal]]

    @property
    def is_free(self) -> bool:
        """Whether all that has a price costs nothing."""
        return not any(price for prices in self.entries.values() for price in prices.values())

    def tables(self, upstream: str, model: str) -> Iterator[str]:
        if self.is_free:
            yield table("[[prices]]", {"upstream": upstream, "model": model, "free": True})
            return
        for (terms, above), prices in sorted(self.entries.items()):
            members: dict[str, Value] = {"upstream": upstream, "model": model}
            if terms:
                members["terms"] = terms
            if above:
                members["above_prompt_tokens"] = above
            yield table("[[prices]]", members | {name: f"{price:f}" for name, price in prices.items()})


def is_price(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


_OTHER_ORDERS = ("_batches", "_ultrafast", "_decisions")
_OF_TEXT = re.compile(r"(?!.*(_per_second|_per_character|_per_pixel|_uplift_)).*(_cost|_pricing)")


def others(given: Mapping[str, object]) -> list[str]:
    """The members that are prices of text or embeddings, too, and that no price file holds."""
    return [
        name
        for name, value in given.items()
        if value and not is_price(name) and _OF_TEXT.match(name) and not name.endswith(_OTHER_ORDERS)
    ]


def read_prices(
    given: Mapping[str, object], *, has_answers: bool = True, is_from_threshold: bool = False
) -> Priced | None:
    """The prices among a deployment's members; None where there are none. `is_from_threshold`: a price "above" so many
    tokens is that of a prompt of just so many, too.

    Raises:
        BadPrice: one is no price, or those that must be there are not.
    """
    found: dict[tuple[str, int], dict[str, Decimal]] = {}
    for name, value in sorted(given.items(), key=lambda each: list(NAMES).index(_base(each[0]))):
        named = _NAME.fullmatch(name)
        assert named is not None, name
        base, above, thousands, terms = named.groups()
        tokens = int(above or 0) * (1000 if thousands else 1)
        key = (terms or "", tokens - 1 if tokens and is_from_threshold else tokens)
        if value is not None:
            found.setdefault(key, {}).setdefault(NAMES[base], _price(name, value))
    if not found:
        return None
    usual = found.setdefault(("", 0), {})
    if "prompt" not in usual:
        raise BadPrice("it has no input_cost_per_token, and nothing is free by omission")
    if not has_answers:
        usual.setdefault("answer", Decimal(0))
    if "answer" not in usual:
        raise BadPrice("it has no output_cost_per_token, and nothing is free by omission")
    every_terms = {terms for terms, _ in found}
    tiers = {terms: {0, *(above for each, above in found if each in ("", terms))} for terms in every_terms}
    return Priced({(terms, above): _layered(found, terms, above) for terms in tiers for above in tiers[terms]})


def _layered(found: Mapping[tuple[str, int], Mapping[str, Decimal]], terms: str, above: int) -> Mapping[str, Decimal]:
    """All prices of an entry: those that it does not have itself are those of shorter prompts, and of the usual
    terms."""
    lower = sorted({each for _, each in found if 0 < each <= above})
    prices: dict[str, Decimal] = {}
    for key in (("", 0), (terms, 0), *((each, tier) for tier in lower for each in ("", terms))):
        prices |= found.get(key, {})
    for name in AS_PROMPT:
        prices.setdefault(name, prices["prompt"])
    prices.setdefault("cache_write_1h", prices["cache_write"])
    return {name: prices[name] for name in dict.fromkeys(NAMES.values()) if name in prices}


def _base(name: str) -> str:
    named = _NAME.fullmatch(name)
    assert named is not None, name
    return str(named[1])


def _price(name: str, value: object) -> Decimal:
    """Raises BadPrice."""
    try:
        price = Decimal(value) if isinstance(value, (int, str, Decimal)) and not isinstance(value, bool) else None
    except InvalidOperation:
        price = None
    if price is None or not price.is_finite():
        raise BadPrice(f"{name} is no number")
    if price < 0:
        raise BadPrice(f"{name} is below zero")
    if not price:
        return Decimal(0)
    _, digits, exponent = price.normalize().as_tuple()
    assert isinstance(exponent, int)
    if max(len(digits), -exponent) > DIGITS_MAX:
        raise BadPrice(f"{name} has more than {DIGITS_MAX} digits, as numbers have that were calculated; write it out")
    if NAMES[_base(name)] == "request":
        if price > REQUEST_USD_MAX:
            raise BadPrice(f"{name} comes to more than ${REQUEST_USD_MAX} for one request")
    elif price > TOKEN_USD_MAX:
        raise BadPrice(f"{name} comes to more than ${TOKEN_USD_MAX} for one token; is it for a million?")
    return price.normalize()
