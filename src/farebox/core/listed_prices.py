"""A tariff's prices as OpenRouter writes them in its lists: texts, in USD for a token, a search or an order."""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

from farebox.core.tariffs import Tariff, TokenPrices, as_text

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "prompt": "prompt",
        "answer": "completion",
        "request": "request",
        "cache_read": "input_cache_read",
        "cache_write": "input_cache_write",
        "cache_write_1h": "input_cache_write_1h",
        "reasoning": "internal_reasoning",
        "picture_in": "image_token",
        "picture_out": "image_output",
        "audio_in": "audio",
        "audio_out": "audio_output",
        "search": "web_search",
    }
)
"""OpenRouter's names for the prices of a price list."""

NOT_KNOWN: Mapping[str, object] = MappingProxyType({"prompt": "-1", "completion": "-1"})
"""OpenRouter's way to say that a price is not one number: of its routers, for instance."""

_ALWAYS = ("prompt", "answer")


def pricing(tariff: Tariff | None) -> dict[str, object]:
    """The prices on the usual terms; those for longer prompts are OpenRouter's `overrides`."""
    usual = [each for each in (() if tariff is None else tariff.entries) if not each.terms and not each.reason]
    usual.sort(key=lambda each: each.above_prompt_tokens)
    if not usual:
        return dict(NOT_KNOWN)
    first, longer = usual[0], usual[1:]
    found: dict[str, object] = dict(_texts(first.prices))
    if longer:
        found["overrides"] = [{"min_prompt_tokens": e.above_prompt_tokens, **_texts(e.prices)} for e in longer]
    return found


def _texts(prices: TokenPrices) -> dict[str, str]:
    stated: dict[str, Decimal | None] = {name: getattr(prices, name) for name in NAMES}
    return {NAMES[name]: as_text(price or Decimal(0)) for name, price in stated.items() if price or name in _ALWAYS}
