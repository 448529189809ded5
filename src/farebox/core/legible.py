"""JSON as its readers take it, where msgspec does not: what the caller's SDK would read is not refused here.

JavaScript's or Python's own JSON reads half of a character as an escape (a host cuts its stream between the halves),
bytes that are no UTF-8, a byte order mark, `NaN` and `Infinity`; control characters within a text are read by some.
msgspec refuses a document for any of them, wherever it stands.

Farebox then reads a copy with stand-ins, of the same length. What goes on are the bytes as they came.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec
from msgspec import DecodeError, Raw, ValidationError

from farebox.core.reading import UNREADABLE

T = TypeVar("T")

Fields = dict[str, Raw]
"""An object's members, the value of each as it stands."""

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_STRING_OR_CONSTANT = re.compile(_STRING + rb"|-?Infinity|NaN", re.DOTALL)
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(?P<half>u[dD][89a-fA-F][\da-fA-F]{2})|.)", re.DOTALL
)
_CONTROLS_AS_SPACES = bytes(max(byte, 0x20) for byte in range(256))

_BOM = b"\xef\xbb\xbf"

_SPACE = re.compile(rb"\s*+")
_NAME = re.compile(rb"(?P<name>" + _STRING + rb")\s*+:\s*+", re.DOTALL)
_FLAT = re.compile(_STRING + rb'|[^][{}",:\s]++', re.DOTALL)
_NESTING = re.compile(_STRING + rb'|[][{}"]', re.DOTALL)

_decode_raw = msgspec.json.Decoder(Raw).decode
_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_each = msgspec.json.Decoder(list[Fields]).decode


def leniently(decode: Callable[[bytes], T], text: bytes) -> T:
    """What `decode` reads in a text; where it is not legible to it, in the legible copy.

    Raises:
        What UNREADABLE names: nobody reads it, or it is not of the shape asked for.
    """
    try:
        return decode(text)
    except ValidationError:
        raise
    except UNREADABLE:
        return decode(legible(bytes(text)))


def legible(text: bytes, *, with_halves: bool = False) -> bytes:
    """The text with stand-ins of the same length for what its readers take and msgspec does not; `with_halves` leaves
    the halves of characters, which JSON's own readers all take.

    An empty list stands for `NaN`: whatever asks for a number or a text there finds that it is none.
    """
    # What is no UTF-8 becomes surrogates, one a byte, and then question marks.
    utf_8 = text.decode("utf-8", "surrogateescape").encode("utf-8", "replace")
    if utf_8.startswith(_BOM):
        utf_8 = utf_8.replace(_BOM, b"   ", 1)
    return _STRING_OR_CONSTANT.sub(_half_legible if with_halves else _legible, utf_8)


def _half_legible(found: re.Match[bytes]) -> bytes:
    if not found[0].startswith(b'"'):
        return b"[]".ljust(len(found[0]))
    return found[0].translate(_CONTROLS_AS_SPACES)


def _legible(found: re.Match[bytes]) -> bytes:
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape["half"] else escape[0], _half_legible(found))


def plainly(text: bytes, *, with_halves: bool = False) -> bytes:
    """The text as it came where strict readers take it, and the legible copy where they do not."""
    try:
        _decode_raw(text)
    except UNREADABLE:
        return legible(text, with_halves=with_halves)
    return legible(text, with_halves=with_halves) if not_utf_8(text) else text


def not_utf_8(text: bytes) -> int:
    """How many bytes of a text are no UTF-8: msgspec does not look into members that nobody reads."""
    if text.isascii():
        return 0
    try:
        text.decode()
    except UnicodeDecodeError:
        return sum("\udc80" <= each <= "\udcff" for each in text.decode("utf-8", "surrogateescape"))
    return 0


def decode_fields(text: bytes | Raw) -> Fields:
    """An object's members, as they stand. Raises what UNREADABLE names."""
    try:
        return _decode_fields(text)
    except ValidationError:
        raise
    except UNREADABLE:
        text = bytes(text)
        _decode_fields(legible(text))
        return legible_part(text)


def decode_list(text: bytes | Raw) -> list[Raw]:
    """A list's elements, as they stand. Raises what UNREADABLE names."""
    try:
        return _decode_list(text)
    except ValidationError:
        raise
    except UNREADABLE:
        text = bytes(text)
        _decode_list(legible(text))
        return [value for _, value in _elements(text, is_object=False)]


def decode_each(text: bytes | Raw) -> list[Fields]:
    """The members of each object of a list. Raises what UNREADABLE names."""
    try:
        return _decode_each(text)
    except ValidationError:
        raise
    except UNREADABLE:
        return [decode_fields(each) for each in decode_list(text)]


def legible_part(text: bytes) -> Fields:
    """The members of what begins as an object, up to where it is none any more."""
    return {_name(name): value for name, value in _elements(text, is_object=True)}


def _elements(text: bytes, *, is_object: bool) -> Iterator[tuple[bytes, Raw]]:
    """Name and value of each, in the order in which they stand; of a list, values without names."""
    at = _after_space(text, len(_BOM) if text.startswith(_BOM) else 0) + 1
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
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _end(text: bytes, at: int) -> int | None:
    """Where the value that begins at `at` ends; None where it does not."""
    if text[at : at + 1] not in (b"{", b"["):
        flat = _FLAT.match(text, at)
        return flat.end() if flat else None
    depth = 0
    for found in _NESTING.finditer(text, at):
        match text[found.start() : found.start() + 1]:
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
            case _ if found.end() - found.start() == 1:
                return None  # a text without end: brackets in it are none
        if not depth:
            return found.end()
    return None


def _name(quoted: bytes) -> str:
    try:
        return text_of(quoted)
    except DecodeError:
        return ""


def text_of(quoted: bytes | Raw) -> str:
    """A text in quotes, halves of characters in it as they are. Raises DecodeError."""
    try:
        text = json.loads(bytes(quoted).decode("utf-8", "replace"), strict=False)
    except ValueError as error:
        raise DecodeError(str(error)) from error
    if not isinstance(text, str):
        raise DecodeError("it is no text")
    return text


def written(value: Fields | list[Fields]) -> Raw:
    """An object of these members, their values to the letter; or a list of such objects."""
    try:
        return Raw(msgspec.json.encode(value))
    except UnicodeEncodeError:
        if isinstance(value, list):
            return Raw(b"[" + b",".join(bytes(written(each)) for each in value) + b"]")
        members = [json.dumps(name).encode() + b":" + bytes(each) for name, each in value.items()]
        return Raw(b"{" + b",".join(members) + b"}")
