"""The texts in an order's JSON: every string value, but for data that is no text (pictures, signatures). What is not
changed stays byte for byte.

What is data is seen by what it is, not by its name alone: a caller's text is one wherever it stands.
"""

import json
import re
import string
from collections.abc import Callable, Iterator

from msgspec import DecodeError

from farebox.core.legible import text_of

_TOKEN = re.compile(rb'(?P<string>"(?:[^"\\]++|\\.)*+"?)(?P<colon>\s*+:)?', re.DOTALL)

NO_TEXTS = frozenset({"data", "file_data", "signature", "thoughtSignature", "encrypted_content"})
"""Members whose values are data, where they are long and in base64."""

DATA_LENGTH_MIN = 64
"""What is shorter is looked at wherever it stands: it may be a word."""

_BASE64 = (string.ascii_letters + string.digits + "+/=_-").encode()
_SEALED = _BASE64 + b"|:."
"""With what Farebox puts between the parts of another host's seal."""

_DATA_URL = re.compile(rb"data:[\w.+/;=-]{0,100};base64,", re.ASCII)


def _is_data(name: str, quoted: bytes) -> bool:
    inner = quoted[1:-1]
    if url := _DATA_URL.match(inner):
        return not inner[url.end() :].translate(None, _BASE64)
    return name in NO_TEXTS and len(inner) >= DATA_LENGTH_MIN and not inner.translate(None, _SEALED)


def _values(body: bytes) -> Iterator[tuple[re.Match[bytes], str]]:
    name = ""
    for token in _TOKEN.finditer(body):
        if not token["colon"] and _is_data(name, token["string"]):
            continue
        try:
            text = text_of(token["string"])
        except DecodeError:
            continue
        if token["colon"]:
            name = text
        else:
            yield token, text


def texts_in(body: bytes) -> Iterator[str]:
    """Each text, as it reads: escapes are resolved."""
    return (text for _, text in _values(body))


def with_texts(body: bytes, change: Callable[[str], str]) -> bytes:
    """The body with each text as `change` returns it."""
    parts: list[bytes] = []
    end = 0
    for token, text in _values(body):
        if (changed := change(text)) != text:
            parts += [body[end : token.start("string")], json.dumps(changed).encode()]
            end = token.end("string")
    return b"".join([*parts, body[end:]]) if parts else body
