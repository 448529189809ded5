"""What an answer says about its cost.

OpenRouter reports `usage.cost`, the USD that it charged. For an answer on the account's own key at a host (`is_byok`,
"bring your own key") that is only its fee, and `cost_details.upstream_inference_cost` is the host's price; for all
others that field repeats `cost`, so adding it would charge twice.
"""

from decimal import Decimal
from typing import final

from msgspec import Raw, Struct
from msgspec.json import Decoder

from farebox.core.legible import leniently
from farebox.core.money import add_exact, is_readable_cost
from farebox.core.reading import UNREADABLE


@final
class Cost(Struct, frozen=True, tag="cost"):
    """What the upstream says that the order cost, in USD: an exact, readable decimal (see `is_readable_cost`)."""

    amount: Decimal


@final
class Nothing(Struct, frozen=True, tag="nothing"):
    """The upstream did not accept the order: it cost nothing."""


@final
class Unknown(Struct, frozen=True, tag="unknown"):
    """The order may have cost something, and nobody has said how much, for this reason. Never a guess, never zero."""

    reason: str


Verdict = Cost | Nothing | Unknown
"""What a finished exchange says about its cost. The tags stand in settlements on disk, so they must not change."""


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an answer used, where its upstream tells that and no cost: each token in one of these kinds and in no other.

    Of the prompt: fresh text (`prompt`), what was read from a cache or written to one (for five minutes, or whatever is
    usual; for an hour), pictures and audio. Of the answer: text (`answer`), `reasoning`, pictures and audio. `search`
    counts web searches. `is_mixed`: some pictures or audio of the prompt may have come from the cache, and how much is
    not told. `terms` are those that it was served on, where they are not the usual ones: `priority`, say.
    Names stand in the books, so they must not change.
    """

    prompt: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    picture_in: int = 0
    audio_in: int = 0
    answer: int = 0
    reasoning: int = 0
    picture_out: int = 0
    audio_out: int = 0
    search: int = 0
    is_mixed: bool = False
    terms: str = ""

    @property
    def prompt_tokens(self) -> int:
        """All tokens of the prompt."""
        of_text = self.prompt + self.cache_read + self.cache_write + self.cache_write_1h
        return of_text + self.picture_in + self.audio_in

    @property
    def answer_tokens(self) -> int:
        """All tokens of the answer."""
        return self.answer + self.reasoning + self.picture_out + self.audio_out


PROMPT_KINDS = ("prompt", "cache_read", "cache_write", "cache_write_1h", "picture_in", "audio_in")
ANSWER_KINDS = ("answer", "reasoning", "picture_out", "audio_out")
KINDS = (*PROMPT_KINDS, *ANSWER_KINDS, "search")
"""What can be counted in a Usage, and has a price of its own."""


class _Usage(Struct):
    cost: Decimal | None = None
    is_byok: bool | None = None
    cost_details: Raw = Raw(b"null")


class _CostDetails(Struct):
    upstream_inference_cost: Decimal


_decode_usage = Decoder(_Usage).decode
_decode_details = Decoder(_CostDetails).decode


def read_cost(usage: bytes) -> Cost | Unknown:
    """The cost that a `usage` object reports. Reads the raw bytes, so that no number passes through a float. What is
    missing or broken is Unknown, which leaves the hold open; it never takes the place of a cost that was seen
    (`Meter.verdict`)."""
    try:
        seen = leniently(_decode_usage, usage)
    except UNREADABLE as error:
        return Unknown(f"usage could not be read: {error}")
    if seen.cost is None:
        return Unknown("usage carries no cost")
    if not is_readable_cost(seen.cost):
        return Unknown(f"the reported cost is not an amount: {str(seen.cost)[:40]}")
    if not seen.is_byok:
        return Cost(seen.cost)
    try:
        bill = _decode_details(seen.cost_details).upstream_inference_cost
    except UNREADABLE:
        return Unknown("the answer ran on the operator's own key and does not say what the host charged")
    if not is_readable_cost(bill):
        return Unknown(f"the host's reported charge is not an amount: {str(bill)[:40]}")
    if not is_readable_cost(total := add_exact(seen.cost, bill)):
        return Unknown(f"the fee and the host's charge come to no amount: {str(total)[:40]}")
    return Cost(total)
