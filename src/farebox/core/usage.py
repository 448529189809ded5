"""What an answer says about its cost.

OpenRouter reports `usage.cost`, the USD its account was charged. For a bring-your-own-key answer (`is_byok`) that is
only its fee, and the host's bill stands in `cost_details.upstream_inference_cost`; for every other answer that field
repeats the same amount, so adding it would charge twice.
"""

from decimal import Decimal

from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder

from farebox.core.legible import leniently
from farebox.core.money import add_exact, is_readable_cost
from farebox.core.reading import UNREADABLE


class Cost(Struct, frozen=True, tag="cost"):
    """The upstream's own word on what the exchange cost, in USD."""

    amount: Decimal


class Nothing(Struct, frozen=True, tag="nothing"):
    """The order was not accepted upstream: it cost nothing."""


class Unknown(Struct, frozen=True, tag="unknown"):
    """The order may have cost something and nobody has said what. Never a guess, never zero."""

    reason: str


Verdict = Cost | Nothing | Unknown
"""What a finished exchange says about its cost. The tags are what settlements on disk say: they stay."""


class _Usage(Struct):
    cost: Decimal | None | UnsetType = UNSET
    is_byok: bool | None | UnsetType = UNSET
    cost_details: Raw | UnsetType = UNSET


class _CostDetails(Struct):
    upstream_inference_cost: Decimal


_decode_usage = Decoder(_Usage).decode
_decode_details = Decoder(_CostDetails).decode


def read_cost(usage: bytes) -> Cost | Unknown:
    """The verdict of a `usage` object, from its raw bytes (numbers never pass through a float)."""
    try:
        seen = leniently(_decode_usage, usage)
    except UNREADABLE as error:
        return Unknown(f"usage could not be read: {error}")
    if not isinstance(seen.cost, Decimal):
        return Unknown("usage carries no cost")
    if not is_readable_cost(seen.cost):
        return Unknown(f"the reported cost is not an amount: {str(seen.cost)[:40]}")
    if seen.is_byok is not True:
        return Cost(seen.cost)
    try:
        bill = _decode_details(
            seen.cost_details if isinstance(seen.cost_details, Raw) else b"null"
        ).upstream_inference_cost
    except UNREADABLE:
        return Unknown("the answer ran on the operator's own key and does not say what the host charged")
    if not is_readable_cost(bill):
        return Unknown(f"the host's reported charge is not an amount: {str(bill)[:40]}")
    return Cost(add_exact(seen.cost, bill))
