"""Raw JSON as it stands in bytes: joining, quoting and cutting strings without reading them where that can be."""

from collections.abc import Iterable

import msgspec
from msgspec import DecodeError, Raw

from farebox.core.legible import text_of
from farebox.core.translate.neutral import EMPTY

NULL = Raw(b"null")
TRUE = Raw(b"true")
FALSE = Raw(b"false")

Rawish = Raw | bytes

_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


def quoted(text: str) -> Raw:
    """A text as a JSON string."""
    return Raw(msgspec.json.encode(text))


def joined(pieces: Iterable[Rawish]) -> bytes:
    """The JSON string of several, one after the other. What is no string adds nothing."""
    return b'"' + b"".join([told[1:-1] for each in pieces if (told := bytes(each)).startswith(b'"')]) + b'"'


def text_or_empty(raw: Raw) -> Raw:
    """A JSON string, empty where something else stands in its place."""
    return raw if bytes(raw).startswith(b'"') else EMPTY


NO_ARGUMENTS = Raw(b'"{}"')
"""What a call without arguments has in their place."""


BREAK = b'"\\n\\n"'
"""An empty line, as a text: what stands between the paragraphs of one thought."""


def in_paragraphs(pieces: Iterable[Rawish]) -> Raw | None:
    """The text of several paragraphs; None without any."""
    told: list[Rawish] = []
    for each in pieces:
        told += [BREAK, each] if told else [each]
    return Raw(joined(told)) if told else None


def is_text(raw: Rawish | None) -> bool:
    """Whether it is a JSON string that is not empty."""
    return raw is not None and raw is not NULL and (told := bytes(raw))[:1] == b'"' and len(told) > 2


def said(raw: Raw | None) -> Raw | None:
    """The value, or None where it is absent or null."""
    return None if raw is None or raw is NULL or bytes(raw) == b"null" else raw


def said_any(raw: Raw) -> bool:
    """Whether a list has anything in it."""
    return raw is not NULL and bytes(raw) not in (b"null", b"[]")


def arguments_of(raw: Raw) -> Raw | None:
    """A call's arguments as the text that they are to be, where some hosts send the object itself. None where there are
    none."""
    told = said(raw)
    if told is None or is_text(told):
        return told
    return None if bytes(told) == b'""' else quoted(bytes(told).decode("utf-8", "replace"))


_KNOWN = {
    f'"{each}"'.encode(): each
    for each in (
        "system developer user assistant tool text image image_url file document tool_use tool_result thinking function"
        " custom auto none required any message input_text output_text function_call function_call_output reasoning"
    ).split()
}
"""Words that nearly every order has, so that they need not be decoded."""


def word(raw: Raw | None) -> str:
    """The value of a JSON string, a question mark for half a character; empty for anything else."""
    if raw is None:
        return ""
    told = bytes(raw)
    if (known := _KNOWN.get(told)) is not None:
        return known
    if not told.startswith(b'"'):
        return ""
    if b"\\" not in told:
        return told[1:-1].decode("utf-8", "replace")
    try:
        return text_of(told).encode("utf-8", "replace").decode()
    except DecodeError:
        return ""


def object_in(text: Raw) -> Raw | None:
    """The object whose JSON stands in a string; an empty string means an empty one; None where it holds none."""
    inner = word(text).strip()
    if not inner:
        return Raw(b"{}")
    told = inner.encode("utf-8", "replace")
    try:
        _decode_object(told)
    except (DecodeError, RecursionError):
        return None
    return Raw(told)


def data_of(url: Raw) -> tuple[str, Raw] | None:
    """The media type and the base64 of a `data:` URL; None for any other. Pictures are long: it is cut, not read."""
    told = bytes(url)
    if told[:6].lower() != b'"data:':
        return None
    if b"\\" in told:
        told = bytes(quoted(word(url)))
    head, comma, data = told[6:].partition(b",")
    media, _, encoding = head.rpartition(b";")
    if not comma or encoding.strip().lower() != b"base64":
        return None
    return media.partition(b";")[0].decode("ascii", "replace"), Raw(b'"' + data)


def data_url(media: str, data: Raw) -> Raw:
    """A `data:` URL of a media type and base64."""
    return Raw(b'"data:' + bytes(quoted(media))[1:-1] + b";base64," + bytes(data)[1:])


def shown_as(detail: Raw | None) -> Raw | None:
    """In which detail a picture is to be seen; `auto` is the same as nothing."""
    return None if detail is None or bytes(detail) == b'"auto"' else said(detail)
