"""Mending JSON from upstreams: single members are changed, all others stay byte for byte. Whole answers of any format
are read as they came first, and mended if SDKs would reject them."""

import re
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Protocol

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, ValidationError
from msgspec.structs import replace

from farebox.core.errors import broken
from farebox.core.formats import PASS, Seen
from farebox.core.formats.envelope import failure
from farebox.core.legible import (
    Fields,
    decode_each,
    decode_fields,
    decoded_or,
    legible,
    legible_part,
    leniently,
    written,
)
from farebox.core.money import is_readable_cost
from farebox.core.reading import UNREADABLE, is_null, skip_to_json, starts_with
from farebox.core.sse import comment_event
from farebox.core.usage import Cost, Unknown, read_cost

NULL = Raw(b"null")

Amount = float
"""A number, as SDKs demand it. Only its type is checked here: amounts are read from their digits as Decimal."""


class CostDetails(Struct):
    """The parts of a usage's cost, by all the names that formats have for them."""

    upstream_inference_cost: Amount | None = None
    upstream_inference_prompt_cost: Amount | None = None
    upstream_inference_completions_cost: Amount | None = None
    upstream_inference_input_cost: Amount | None = None
    upstream_inference_output_cost: Amount | None = None


_DIGITS_MAX = 18

_NOT_A_NUMBER = Decimal("NaN")

_decode_int = msgspec.json.Decoder(int).decode
_decode_decimal = msgspec.json.Decoder(Decimal).decode


def encode(value: object) -> Raw:
    """A value as raw JSON."""
    return Raw(msgspec.json.encode(value))


def drop_nulls(fields: Fields, *names: str) -> None:
    """Remove members that may be absent but not null."""
    for name in names:
        if name in fields and is_null(fields[name]):
            del fields[name]


def fill(fields: Fields, **values: object) -> None:
    """Set members that are absent or null."""
    for name, value in values.items():
        if is_null(fields.get(name, NULL)):
            fields[name] = encode(value)


IS_UNKNOWN = "is_unknown"
"""A member of ours in a usage: counts in it that are zero were not told, and only stand there for strict SDKs."""

_MARKED = b'"is_unknown":true'


def fill_counts(usage: Fields, prompt: str, answer: str) -> None:
    """Set the counts that OpenAI's formats demand and nobody told: to zero, and mark the usage so; a total to the sum
    of its parts."""
    missing = [name for name in (prompt, answer) if is_null(usage.get(name, NULL))]
    if missing:
        fill(usage, **dict.fromkeys(missing, 0), **{IS_UNKNOWN: True})
    fill(usage, total_tokens=sum(decoded_or(_decode_int, usage[name], 0) for name in (prompt, answer)))


def add_nulls(fields: Fields, *names: str) -> None:
    """Set members that may be null but not absent."""
    for name in names:
        fields.setdefault(name, NULL)


def mend_each(raw: Raw, mend: Callable[[Fields, int], None]) -> Raw:
    """A list with each of its objects mended (`mend` gets the members and the position); anything else unchanged."""
    try:
        members = decode_each(raw)
    except UNREADABLE:
        return raw
    for position, fields in enumerate(members):
        mend(fields, position)
    return written(members)


def mend_object(raw: Raw, mend: Callable[[Fields], object]) -> Raw:
    """An object mended; anything else unchanged."""
    try:
        fields = decode_fields(raw)
    except UNREADABLE:
        return raw
    mend(fields)
    return written(fields)


def mend_member(fields: Fields, name: str, mend: Callable[[Fields], object]) -> None:
    """Mend a member that is an object."""
    if name in fields:
        fields[name] = mend_object(fields[name], mend)


def mend_whole_number(fields: Fields, name: str, otherwise: int) -> None:
    """Cut off the fraction of a number that SDKs want whole; `otherwise` where it is not a number."""
    number = decoded_or(_decode_decimal, fields.get(name), _NOT_A_NUMBER)
    # 1e999999999 is short, and as an integer it would fill the memory.
    is_sane = number.is_finite() and number.adjusted() < _DIGITS_MAX
    fields[name] = encode(int(number) if is_sane else otherwise)


def mend_amounts(usage: Fields) -> None:
    """Make costs that are written as text into the numbers that SDKs want, with the same digits."""
    _mend_amount(usage, "cost")
    mend_member(usage, "cost_details", _mend_details)


def _mend_details(details: Fields) -> None:
    for name in CostDetails.__struct_fields__:
        _mend_amount(details, name)


def _mend_amount(fields: Fields, name: str) -> None:
    if name not in fields or not starts_with(fields[name], b'"'):
        return
    amount = decoded_or(_decode_decimal, fields[name], _NOT_A_NUMBER)
    if is_readable_cost(amount):
        digits = bytes(fields[name]).strip(b'"')
        fields[name] = Raw(digits if _NUMBER.fullmatch(digits) else str(amount).encode())


_NUMBER = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?")
"""A number in JSON's grammar, unlike `.5` and `+1`."""


def cost_in(fields: Fields) -> Cost | Unknown | None:
    """The cost that the member `usage` reports; None without `usage`."""
    usage = fields.get("usage", NULL)
    return None if is_null(usage) else read_cost(usage)


def cost_before_the_break(text: bytes) -> Cost | Unknown | None:
    """The cost that the readable beginning of broken JSON reports; None where it reports none."""
    return cost_in(legible_part(text))


BRACE = ord("{")
"""The first byte of an object."""


def without_object(event: bytes, data: bytes | None) -> Seen | None:
    """What to send on for an event that is not meant to carry JSON; None where its data should be a JSON object."""
    if data is None:
        # Comments go on. A lone `retry:` or `id:` makes OpenAI's Python SDK parse an empty string.
        lines = event.replace(b"\r", b"\n").split(b"\n")
        if all(not line or line.startswith(b":") for line in lines):
            return PASS
        return Seen(repaired=comment_event(event))
    if data == b"[DONE]":
        return PASS
    stripped = data.strip()
    if not stripped or stripped.startswith(b":"):
        # Empty data, or a keep-alive comment that some relay wrapped as data: both break JSON parsers.
        return Seen(repaired=comment_event(data))
    return None


class Counted(Protocol):
    """A usage, by the tokens that it counts."""

    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def answer_tokens(self) -> int | None: ...


def seen(
    generation_id: str | UnsetType,
    model: str,
    usage: Raw | UnsetType | None,
    decode_usage: Callable[[Raw], Counted],
    repaired: bytes | None,
) -> Seen:
    """What an event or an answer says, with the `usage` that it has or lacks. Raises those of UNREADABLE: its usage is
    not as SDKs demand."""
    if usage is None or usage is UNSET:
        return Seen(generation_id or None, model or None, repaired=repaired)
    counted, cost = decode_usage(usage), read_cost(usage)
    if repaired is not None and _MARKED in bytes(usage):
        return Seen(generation_id or None, model or None, cost, repaired=repaired)
    return Seen(generation_id or None, model or None, cost, counted.prompt_tokens, counted.answer_tokens, repaired)


def see_whole(
    body: bytes, essential: str, read: Callable[[bytes, bytes | None], Seen], mend: Callable[[Fields], object]
) -> Seen:
    """Read a whole answer. Blank lines and comments before its JSON are skipped.

    `read` decodes what SDKs accept, raises those of UNREADABLE for all else, and puts its second argument into
    `Seen.repaired`. `mend` repairs the members in place. A body without its `essential` member is not a valid answer.
    """
    text, repaired = body, None
    if not body.startswith(b"{"):
        text = skip_to_json(body)
        repaired = None if body.endswith(text) and not body[: len(body) - len(text)].strip() else text
    try:
        return read(text, repaired)
    except ValidationError:
        pass
    except UNREADABLE:  # not valid JSON, perhaps, and legible all the same
        with suppress(*UNREADABLE):
            return read(legible(text), repaired)
    try:
        fields = decode_fields(text)
    except UNREADABLE:
        cost = cost_before_the_break(text)
        return Seen(cost=cost, failure=broken("the upstream answered with something that is not JSON"))
    cost = cost_in(fields)
    if essential not in fields:
        return Seen(cost=cost, failure=failure(fields.get("error"), f"the upstream's answer has no {essential}"))
    mend(fields)
    mended = bytes(written(fields))
    try:
        return replace(leniently(lambda each: read(each, mended), mended), cost=cost)
    except UNREADABLE:
        # An unknown defect: some client may still make sense of the answer.
        return Seen(cost=cost)
