"""The texts in an order's JSON: every string value, but for data that is no text (pictures, signatures). What is not
changed stays byte for byte."""

import json
import re
from collections.abc import Callable, Iterator

from msgspec import DecodeError

from farebox.core.legible import text_of

_TOKEN = re.compile(rb'(?P<string>"(?:[^"\\]++|\\.)*+")(?P<colon>\s*+:)?', re.DOTALL)

NO_TEXTS = frozenset({"data", "file_data", "signature", "thoughtSignature", "encrypted_content"})
"""Members whose values are data."""


def _values(body: bytes) -> Iterator[tuple[re.Match[bytes], str]]:
    name = ""
    for token in _TOKEN.finditer(body):
        try:
            text = text_of(token["string"])
        except DecodeError:
            continue
        if token["colon"]:
            name = text
        elif name not in NO_TEXTS and not text.startswith("data:"):
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
