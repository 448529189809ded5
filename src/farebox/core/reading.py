"""Reading JSON from callers and upstreams."""

import re
from typing import Annotated, TypeVar

from msgspec import DecodeError, Meta, Raw, ValidationError

T = TypeVar("T")

UNREADABLE = (DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises: for invalid JSON, wrong types, a name that is not UTF-8, or nesting so deep that only an
attacker writes it."""

LIST_MAX = 100_000
"""The longest list of an order that is gone through item by item, seconds of work for millions, in which nobody else is
answered. Anthropic's API takes as many messages."""

Many = Annotated[list[T], Meta(max_length=LIST_MAX)]

_AT_PATH = re.compile(r"^(?P<what>.*) - at `\$?\.?(?P<path>.*)`$")


def is_null(value: Raw) -> bool:
    return bytes(value) == b"null"


def starts_with(value: Raw, start: bytes) -> bool:
    return bytes(memoryview(value)[: len(start)]) == start


Number = int | float
"""What is decoded where a whole number is expected: JSON has one type of number (RFC 8259, 6), and clients write
`4096.0`."""


def as_whole(number: Number) -> int | None:
    """The same as an integer, `4096` for `4096.0`; None where it has a fraction."""
    return None if number % 1 else int(number)


_DIGITS_MAX = 20


def read_whole(text: str, least: int, most: int) -> int | None:
    """A whole number from `least` to `most`, written in ASCII digits; None for any other text."""
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS_MAX:
        return None
    number = int(text)
    return number if least <= number <= most else None


def as_kept(text: str) -> str:
    """A stranger's text as every database can keep it: PostgreSQL's texts have no NUL."""
    return text.replace("\0", "\ufffd")


BOM = b"\xef\xbb\xbf"


def without_bom(text: bytes) -> bytes:
    """A text without the byte order mark that some editors put before it: JSON has none (RFC 8259, 8.1)."""
    return text.removeprefix(BOM)


def json_path_error(error: Exception) -> str:
    """A decoding error in words for the caller: the field first, then what is wrong with it."""
    if isinstance(error, RecursionError):
        return "the body is nested too deeply"
    text = str(error)
    if found := _AT_PATH.match(text):
        return f"{found['path']}: {found['what'][0].lower()}{found['what'][1:]}"
    if isinstance(error, ValidationError):
        return f"the body: {text[0].lower()}{text[1:]}"
    return f"the body is not JSON: {text.removeprefix('JSON is malformed: ')}"


def skip_to_json(body: bytes) -> bytes:
    """The body from where its JSON begins: before a slow answer, OpenRouter sends blank lines and comments."""
    text = body.lstrip()
    while text.startswith(b":"):
        _, _, text = text.partition(b"\n")
        text = text.lstrip()
    return text


def before_json(text: bytes) -> tuple[bytes, bytes]:
    """Split what has come of an answer: the blank lines before its JSON (comments made blank, too), and the JSON. The
    second is `:` where a comment's line has not ended yet."""
    rest = skip_to_json(text)
    before = text[: len(text) - len(rest)]
    if not before:
        return b"", rest
    is_cut = not rest and before.rpartition(b"\n")[2].lstrip().startswith(b":")
    return _COMMENT.sub(b"", before), b":" if is_cut else rest


_COMMENT = re.compile(rb":[^\n]*")
