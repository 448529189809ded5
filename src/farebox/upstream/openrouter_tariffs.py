"""OpenRouter's public list as an offer of prices: what other upstreams' entries may take over from it.

It is read more strictly than for ceilings: a price that holds at certain hours, or less a discount, is none that
another upstream asks for the same model.
"""

from collections.abc import Callable
from decimal import Decimal

import msgspec
from msgspec import Raw, Struct

from farebox.core.legible import leniently
from farebox.core.reading import UNREADABLE
from farebox.core.tariffs import Offer, TokenPrices, canonical

_LONGEST = 40


class _Prices(Struct, omit_defaults=True):
    prompt: Decimal | None = None
    completion: Decimal | None = None
    request: Decimal | None = None
    image_token: Decimal | None = None
    image_output: Decimal | None = None
    audio: Decimal | None = None
    audio_output: Decimal | None = None
    web_search: Decimal | None = None
    internal_reasoning: Decimal | None = None
    input_cache_read: Decimal | None = None
    input_cache_write: Decimal | None = None
    input_cache_write_1h: Decimal | None = None


class _Override(_Prices):
    min_prompt_tokens: int | None = None
    utc_start: object = None
    utc_end: object = None
    utc_days: object = None

    @property
    def is_by_length(self) -> bool:
        """Whether it holds for longer prompts, and at all hours."""
        return bool(self.min_prompt_tokens) and self.utc_start is self.utc_end is self.utc_days is None


class _Pricing(_Prices):
    discount: Decimal | None = None
    overrides: list[_Override] = []


class _Entry(Struct):
    id: str
    pricing: _Pricing


class _Named(Struct):
    id: str


class _List(Struct):
    data: list[Raw]


_decode_list = msgspec.json.Decoder(_List).decode
_decode_entry = msgspec.json.Decoder(_Entry, strict=False).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def read_offers(*bodies: bytes) -> Callable[[str], Offer]:
    """What the model lists in `bodies` offer for a model, by its id there.

    Raises:
        ValueError: one of them is no model list.
    """
    try:
        listed = [raw for body in bodies for raw in leniently(_decode_list, body).data]
    except UNREADABLE as error:
        raise ValueError(f"the model list could not be read: {error}") from error
    entries: dict[str, Raw] = {}
    for raw in listed:
        try:
            entries.setdefault(_decode_named(raw).id, raw)
        except UNREADABLE:
            continue

    def offer(model: str) -> Offer:
        raw = entries.get(model)
        return Offer(reason=f"OpenRouter's list has no `{model}`") if raw is None else _offer(raw)

    return offer


def _offer(raw: Raw) -> Offer:
    try:
        pricing = _decode_entry(raw).pricing
    except UNREADABLE as error:
        return Offer(reason=f"its entry in OpenRouter's list cannot be read: {str(error)[:80]}")
    if pricing.discount:
        return Offer(reason="OpenRouter lists it with a discount of its own")
    if not all(each.is_by_length for each in pricing.overrides):
        return Offer(reason="OpenRouter lists prices of it that hold at certain hours")
    offered: list[tuple[int, TokenPrices]] = []
    for above in sorted({0, *(each.min_prompt_tokens or 0 for each in pricing.overrides)}):
        found = _token_prices(_overridden(pricing, above))
        if isinstance(found, str):
            return Offer(reason=found)
        offered.append((above, found))
    return Offer(tuple(offered))


def _overridden(pricing: _Pricing, tokens: int) -> _Pricing:
    """The prices of a prompt of more than `tokens`: of the overrides that fit, the later wins for each."""
    names = _Prices.__struct_fields__
    found = {name: getattr(pricing, name) for name in names}
    for override in pricing.overrides:
        if (override.min_prompt_tokens or 0) <= tokens:
            found.update({name: price for name in names if (price := getattr(override, name)) is not None})
    return _Pricing(**found)


def _token_prices(pricing: _Prices) -> TokenPrices | str:
    """What it says, or why that cannot be taken over. A zero beside those of prompt and answer means that there is no
    such price."""
    prompt, answer = pricing.prompt, pricing.completion
    if prompt is None or answer is None:
        return "OpenRouter lists no price of its prompt or its answer"
    every = [price for name in _Prices.__struct_fields__ if (price := getattr(pricing, name)) is not None]
    if not all(price.is_finite() and 0 <= price <= 1 and len(str(price)) <= _LONGEST for price in every):
        return "OpenRouter lists a price of it that is none"
    if not any(every):
        return "OpenRouter lists it as free, which says nothing of another upstream; write `free = true` if it is"

    def stated(price: Decimal | None) -> Decimal | None:
        return canonical(price) if price else None

    return TokenPrices(
        prompt=canonical(prompt),
        answer=canonical(answer),
        cache_read=stated(pricing.input_cache_read),
        cache_write=stated(pricing.input_cache_write),
        cache_write_1h=stated(pricing.input_cache_write_1h),
        reasoning=stated(pricing.internal_reasoning),
        picture_in=stated(pricing.image_token),
        picture_out=stated(pricing.image_output),
        audio_in=stated(pricing.audio),
        audio_out=stated(pricing.audio_output),
        search=stated(pricing.web_search),
        request=canonical(pricing.request or Decimal(0)),
    )
