"""What the readers of requests share."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.errors import invalid
from farebox.core.formats.thinking import Lower
from farebox.core.legible import decode_fields, leniently, written
from farebox.core.names import variants
from farebox.core.reading import UNREADABLE, Number, as_whole, is_null, json_path_error

T = TypeVar("T")

TOOL_PROMPT_TOKENS = 1_000
"""Set aside for instructions that a host may put before a prompt with tools: an assumption, no list says it."""

_PREMIUM_TIERS = frozenset({"priority", "fast", "scale"})

_NOT_BY_PRICE = frozenset({"nitro", "exacto"})
"""Variants that pick the provider by its speed or its quality; `:nitro` lets priority tiers serve, too."""


class _SortedBy(Struct):
    by: str | None = None


class _Provider(Struct):
    sort: str | _SortedBy | None = None


_decode_provider = msgspec.json.Decoder(_Provider).decode


def decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """A request body as `decode` reads it. Raises Refusal 400, naming the field that is wrong."""
    try:
        return leniently(decode, body)
    except UNREADABLE as error:
        raise invalid(json_path_error(error)) from error


def named_models(model: str | None, models: Iterable[str] | None) -> tuple[str, ...]:
    """The models asked, in the order they are tried. Raises Refusal 400 where there is none."""
    named = (*([model] if model else []), *(models or []))
    if not named or not all(named):
        raise invalid("model: name a model such as `openai/gpt-4o-mini`, or give a list of them in `models`")
    return named


def count(name: str, number: Number | None) -> int | None:
    """A count that a request may give. Raises Refusal 400 for one below 1, or with a fraction."""
    if number is None:
        return None
    value = as_whole(number)
    if value is None or value < 1:
        raise invalid(f"{name}: {number} is not a whole number above zero")
    return value


def is_premium(models: Iterable[str], tier: str | None, provider: Raw | UnsetType = UNSET) -> bool:
    """Whether something dearer than the listed price may serve: a tier, or a provider that is not picked by its price.

    OpenRouter's pages: `provider.sort` disables its balancing by price; `:nitro` is `sort: "throughput"` and admits
    priority tiers; `:floor` is `sort: "price"`.
    """
    return (
        tier in _PREMIUM_TIERS
        or any(":" in model and not _NOT_BY_PRICE.isdisjoint(variants(model)) for model in models)
        or (provider is not UNSET and _is_sorted_past_price(provider))
    )


def _is_sorted_past_price(provider: Raw) -> bool:
    try:
        sort = _decode_provider(provider).sort if not is_null(provider) else None
    except UNREADABLE:
        return False  # the upstream's to refuse
    by = sort.by if isinstance(sort, _SortedBy) else sort
    return by not in (None, "price")


def with_caps(body: bytes, names: tuple[str, ...], answer_tokens: int, lower: Lower) -> bytes:
    """The body with each of its caps lowered to `answer_tokens`, or the first set where it has none; `lower` fits what
    is bound to them.

    Raises:
        Refusal: 400, the body cannot be taken apart.
    """
    fields = decoded(decode_fields, body)
    cap = Raw(b"%d" % answer_tokens)
    present = [name for name in names if name in fields and not is_null(fields[name])]
    for name in present:
        if float(bytes(fields[name])) > answer_tokens:
            fields[name] = cap
    if not present:
        fields[names[0]] = cap
    lower(fields, answer_tokens)
    return bytes(written(fields))
