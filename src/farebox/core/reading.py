"""Reading JSON whose shape is somebody else's."""

import re

from msgspec import DecodeError, Raw, ValidationError

UNREADABLE = (DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises: wrong JSON, wrong types, a name that is no UTF-8, or a nesting so deep that only an attacker
writes it."""

_AT_PATH = re.compile(r"^(?P<what>.*) - at `\$?\.?(?P<path>.*)`$")


def is_null(value: Raw) -> bool:
    return bytes(value) == b"null"


def starts_with(value: Raw, start: bytes) -> bool:
    return bytes(memoryview(value)[: len(start)]) == start


Number = int | float
"""A number where a whole one is wanted: JSON has one type for both (RFC 8259, 6), and clients write `4096.0`."""


def as_whole(number: Number) -> int | None:
    """The whole number that it is, `4096` for `4096.0`; None for one with a fraction."""
    return None if number % 1 else int(number)


_DIGITS_MAX = 20


def read_whole(text: str, least: int, most: int) -> int | None:
    """The whole number from `least` to `most` that a text of ASCII digits is; None for any other text."""
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS_MAX:
        return None
    number = int(text)
    return number if least <= number <= most else None


_BOM = b"\xef\xbb\xbf"


def without_bom(text: bytes) -> bytes:
    """A text without the mark that some editors put before it: it is none of JSON's (RFC 8259, 8.1)."""
    return text.removeprefix(_BOM)


def json_path_error(error: Exception) -> str:
    """A decoding error as its reader would word it: the field first, then what is wrong with it."""
    if isinstance(error, RecursionError):
        return "the body is nested too deeply"
    text = str(error)
    if found := _AT_PATH.match(text):
        return f"{found['path']}: {found['what'][0].lower()}{found['what'][1:]}"
    if isinstance(error, ValidationError):
        return f"the body: {text[0].lower()}{text[1:]}"
    return f"the body is not JSON: {text.removeprefix('JSON is malformed: ')}"


def skip_to_json(body: bytes) -> bytes:
    """The body from its JSON on: OpenRouter sends blank lines, and relays its comments, before a slow answer."""
    text = body.lstrip()
    while text.startswith(b":"):
        _, _, text = text.partition(b"\n")
        text = text.lstrip()
    return text


def before_json(text: bytes) -> tuple[bytes, bytes]:
    """What has come of an answer, in two: the blank lines before its JSON, where comments have become blank lines, too;
    and the rest, which is JSON, or `:` where a comment has not come to its line's end."""
    rest = skip_to_json(text)
    before = text[: len(text) - len(rest)]
    if not before:
        return b"", rest
    is_cut = not rest and before.rpartition(b"\n")[2].lstrip().startswith(b":")
    return _COMMENT.sub(b"", before), b":" if is_cut else rest


_COMMENT = re.compile(rb":[^\n]*")
