"""Mending JSON whose shape is somebody else's, member by member, all else byte for byte."""

import re
from collections.abc import Callable
from decimal import Decimal

import msgspec
from msgspec import Raw, Struct

from farebox.core.formats import PASS, Seen
from farebox.core.legible import Fields, decode_each, decode_fields, legible_part, written
from farebox.core.money import is_readable_cost
from farebox.core.reading import UNREADABLE, is_null, starts_with
from farebox.core.sse import comment_event
from farebox.core.usage import Cost, Unknown, read_cost

NULL = Raw(b"null")

Amount = float
"""What SDKs take for a number. A demand on its shape only: amounts are read from their digits."""


class CostDetails(Struct):
    """A usage's further costs, by the names that each format has for them."""

    upstream_inference_cost: Amount | None = None
    upstream_inference_prompt_cost: Amount | None = None
    upstream_inference_completions_cost: Amount | None = None
    upstream_inference_input_cost: Amount | None = None
    upstream_inference_output_cost: Amount | None = None


_DIGITS_MAX = 18


def encode(value: object) -> Raw:
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


def add_nulls(fields: Fields, *names: str) -> None:
    """Set members that may be null but not absent."""
    for name in names:
        fields.setdefault(name, NULL)


def mend_each(raw: Raw, mend: Callable[[Fields, int], None]) -> Raw:
    """A list of objects with each mended; whatever else it is, as it came."""
    try:
        members = decode_each(raw)
    except UNREADABLE:
        return raw
    for position, fields in enumerate(members):
        mend(fields, position)
    return written(members)


def mend_object(raw: Raw, mend: Callable[[Fields], None]) -> Raw:
    try:
        fields = decode_fields(raw)
    except UNREADABLE:
        return raw
    mend(fields)
    return written(fields)


def mend_member(fields: Fields, name: str, mend: Callable[[Fields], None]) -> None:
    if name in fields:
        fields[name] = mend_object(fields[name], mend)


def mend_whole_number(fields: Fields, name: str, otherwise: int) -> None:
    """A number that SDKs want whole, without its fraction."""
    try:
        number = msgspec.json.decode(fields.get(name, NULL), type=Decimal)
    except UNREADABLE:
        number = Decimal("NaN")
    # An exponent of a few digits makes an integer that fills the memory.
    is_sane = number.is_finite() and number.adjusted() < _DIGITS_MAX
    fields[name] = encode(int(number) if is_sane else otherwise)


def mend_amounts(usage: Fields) -> None:
    """A usage's costs that are written as text become the numbers that SDKs want, with the same digits."""
    _mend_amount(usage, "cost")
    mend_member(usage, "cost_details", _mend_details)


def _mend_details(details: Fields) -> None:
    for name in CostDetails.__struct_fields__:
        _mend_amount(details, name)


def _mend_amount(fields: Fields, name: str) -> None:
    if name not in fields or not starts_with(fields[name], b'"'):
        return
    try:
        amount = msgspec.json.decode(fields[name], type=Decimal)
    except UNREADABLE:
        return
    if is_readable_cost(amount):
        digits = bytes(fields[name]).strip(b'"')
        fields[name] = Raw(digits if _NUMBER.fullmatch(digits) else str(amount).encode())


_NUMBER = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?")
"""A number as JSON writes it; `.5` and `+1` are none."""


def cost_in(fields: Fields) -> Cost | Unknown | None:
    """What the member `usage` says about the cost; None where there is none."""
    usage = fields.get("usage", NULL)
    return None if is_null(usage) else read_cost(usage)


def cost_before_the_break(text: bytes) -> Cost | Unknown | None:
    """What a text that nobody reads as JSON says about the cost, as far as it is some."""
    return cost_in(legible_part(text))


def without_object(event: bytes, data: bytes | None) -> Seen | None:
    """An event that carries no JSON object, as it may go on; None where it should be one."""
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
