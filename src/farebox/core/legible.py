"""Invalid JSON that common parsers accept and msgspec does not: what the caller's SDK can read is not refused here.

The JSON parsers of JavaScript or Python accept escapes of half a character (an unpaired surrogate: a host cut its
stream between the halves), bytes that are not UTF-8, a byte order mark, `NaN` and `Infinity`; some accept control
characters in strings. msgspec refuses the whole document for any of them.

Farebox then reads a *legible* copy of the same length, in which stand-ins replace them. The bytes that are sent on are
the original ones.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec
from msgspec import UNSET, DecodeError, Raw, UnsetType, ValidationError

from farebox.core.reading import BOM, UNREADABLE

T = TypeVar("T")

Fields = dict[str, Raw]
"""An object's members: each name, and its value as raw JSON."""

STRING = rb'"(?:[^"\\]++|\\.)*+"'
_STRING_OR_CONSTANT = re.compile(STRING + rb"?|-?Infinity|NaN", re.DOTALL)
"""A string that no quote closes ends with the text. Were it none, each escaped quote in it would be tried as the start
of one, up to the end each time."""

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(?P<half>u[dD][89a-fA-F][\da-fA-F]{2})|.)", re.DOTALL
)
_CONTROLS_AS_SPACES = bytes(max(byte, 0x20) for byte in range(256))

_SPACE = re.compile(rb"\s*+")
_NAME = re.compile(rb"(?P<name>" + STRING + rb")\s*+:\s*+", re.DOTALL)
_FLAT = re.compile(STRING + rb'|[^][{}",:\s]++', re.DOTALL)
_NESTING = re.compile(STRING + rb'|[][{}"]', re.DOTALL)

_decode_raw = msgspec.json.Decoder(Raw).decode
_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_each = msgspec.json.Decoder(list[Fields]).decode


def leniently(decode: Callable[[bytes], T], text: bytes) -> T:
    """Decode a text, or its legible copy if the text is not valid JSON.

    Raises:
        Those of UNREADABLE: not even the copy is valid JSON, or it has another shape than asked for.
    """
    try:
        return decode(text)
    except ValidationError:
        raise
    except UNREADABLE:
        return decode(legible(bytes(text)))


def decoded_or(decode: Callable[[bytes], T], text: bytes | UnsetType | None, otherwise: T) -> T:
    """Decode a text as `leniently` does; `otherwise` where it is absent, not JSON, or of another shape."""
    try:
        return otherwise if text is None or text is UNSET else leniently(decode, text)
    except UNREADABLE:
        return otherwise


def legible(text: bytes, *, with_halves: bool = False) -> bytes:
    """A copy that msgspec reads: of the same length, with stand-ins for what it refuses and common parsers accept.
    `with_halves` keeps escapes of half a character, which JSON's grammar allows.

    An empty list stands for `NaN`, so that whoever expects a number or a string there finds neither.
    """
    # Bytes that are not UTF-8 become surrogates, one each, and then question marks.
    utf_8 = text.decode("utf-8", "surrogateescape").encode("utf-8", "replace")
    if utf_8.startswith(BOM):
        utf_8 = utf_8.replace(BOM, b"   ", 1)
    return _STRING_OR_CONSTANT.sub(_half_legible if with_halves else _legible, utf_8)


def _half_legible(match: re.Match[bytes]) -> bytes:
    if not match[0].startswith(b'"'):
        return b"[]".ljust(len(match[0]))
    return match[0].translate(_CONTROLS_AS_SPACES)


def _legible(match: re.Match[bytes]) -> bytes:
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape["half"] else escape[0], _half_legible(match))


def legible_if_needed(text: bytes, *, with_halves: bool = False) -> bytes:
    """The text itself where it is valid JSON, its legible copy where it is not."""
    try:
        _decode_raw(text)
    except UNREADABLE:
        return legible(text, with_halves=with_halves)
    return legible(text, with_halves=with_halves) if not_utf_8(text) else text


def not_utf_8(text: bytes) -> int:
    """How many bytes of a text are not UTF-8. msgspec overlooks them in members that it does not decode."""
    if text.isascii():
        return 0
    try:
        text.decode()
    except UnicodeDecodeError:
        return sum("\udc80" <= each <= "\udcff" for each in text.decode("utf-8", "surrogateescape"))
    return 0


def decode_fields(text: bytes | Raw) -> Fields:
    """An object's members, their values as raw JSON. Raises those of UNREADABLE."""
    try:
        return _decode_fields(text)
    except ValidationError:
        raise
    except UNREADABLE:
        text = bytes(text)
        _decode_fields(legible(text))
        return legible_part(text)


def decode_list(text: bytes | Raw) -> list[Raw]:
    """A list's elements as raw JSON. Raises those of UNREADABLE."""
    try:
        return _decode_list(text)
    except ValidationError:
        raise
    except UNREADABLE:
        text = bytes(text)
        _decode_list(legible(text))
        return [value for _, value in _elements(text, is_object=False)]


def decode_each(text: bytes | Raw) -> list[Fields]:
    """The members of each object in a list. Raises those of UNREADABLE."""
    try:
        return _decode_each(text)
    except ValidationError:
        raise
    except UNREADABLE:
        return [decode_fields(each) for each in decode_list(text)]


def legible_part(text: bytes) -> Fields:
    """The members of an object that may break off or turn invalid: those before that point."""
    return {_name(name): value for name, value in _elements(text, is_object=True)}


def _elements(text: bytes, *, is_object: bool) -> Iterator[tuple[bytes, Raw]]:
    """The name and raw value of each member in order; a list's elements, with empty names."""
    at = _after_space(text, len(BOM) if text.startswith(BOM) else 0) + 1
    while True:
        at, name = _after_space(text, at), b""
        if is_object:
            named = _NAME.match(text, at)
            if named is None:
                return
            at, name = named.end(), named["name"]
        end = _end(text, at)
        if end is None:
            return
        yield name, Raw(text[at:end])
        at = _after_space(text, end)
        if text[at : at + 1] != b",":
            return
        at += 1


def _after_space(text: bytes, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


def _end(text: bytes, at: int) -> int | None:
    """Where the value that begins at `at` ends; None where it has no end."""
    if text[at : at + 1] not in (b"{", b"["):
        flat = _FLAT.match(text, at)
        return flat.end() if flat else None
    depth = 0
    for token in _NESTING.finditer(text, at):
        match text[token.start() : token.start() + 1]:
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
            case _ if token.end() - token.start() == 1:
                return None  # a quote that no quote closes
        if not depth:
            return token.end()
    return None


def _name(quoted: bytes) -> str:
    try:
        return text_of(quoted)
    except DecodeError:
        return ""


def text_of(quoted: bytes | Raw) -> str:
    """The value of a JSON string; halves of characters stay in it, as surrogates. Raises DecodeError."""
    try:
        text = json.loads(bytes(quoted).decode("utf-8", "replace"), strict=False)
    except ValueError as error:
        raise DecodeError(str(error)) from error
    if not isinstance(text, str):
        raise DecodeError("it is no text")
    return text


def written(value: Fields | list[Fields]) -> Raw:
    """An object of these members as JSON, the values byte for byte; or a list of such objects."""
    try:
        return Raw(msgspec.json.encode(value))
    except UnicodeEncodeError:
        if isinstance(value, list):
            return Raw(b"[" + b",".join(bytes(written(each)) for each in value) + b"]")
        members = [json.dumps(name).encode() + b":" + bytes(each) for name, each in value.items()]
        return Raw(b"{" + b",".join(members) + b"}")
