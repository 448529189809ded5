"""Mending JSON whose shape is somebody else's, member by member, all else byte for byte."""

from collections.abc import Callable
from decimal import Decimal

import msgspec
from msgspec import Raw

from farebox.core.formats import PASS, Seen
from farebox.core.reading import UNREADABLE, is_null
from farebox.core.sse import comment_event
from farebox.core.usage import Cost, Unknown, read_cost

Fields = dict[str, Raw]

NULL = Raw(b"null")

_DIGITS_MAX = 18

decode_fields = msgspec.json.Decoder(Fields).decode
_decode_list = msgspec.json.Decoder(list[Fields]).decode


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
        members = _decode_list(raw)
    except UNREADABLE:
        return raw
    for position, fields in enumerate(members):
        mend(fields, position)
    return encode(members)


def mend_object(raw: Raw, mend: Callable[[Fields], None]) -> Raw:
    try:
        fields = decode_fields(raw)
    except UNREADABLE:
        return raw
    mend(fields)
    return encode(fields)


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


def cost_in(fields: Fields) -> Cost | Unknown | None:
    """What the member `usage` says about the cost; None where there is none."""
    usage = fields.get("usage", NULL)
    return None if is_null(usage) else read_cost(usage)


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
