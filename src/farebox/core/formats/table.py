"""The billable paths, and the wire format of each. A new format is a module and a line here:
docs/extending.md shows how."""

from collections.abc import Mapping
from types import MappingProxyType

from farebox.core.formats import Format, chat, embeddings, messages, responses

BASES = ("/api/v1", "/v1")
"""OpenRouter's base, and the one OpenAI's and Anthropic's clients expect."""

Formats = Mapping[str, Format]
"""Formats by their path under a base."""

FORMATS: Formats = MappingProxyType(
    {
        "/chat/completions": chat,
        "/messages": messages,
        "/responses": responses,
        "/embeddings": embeddings,
    }
)

ENVELOPE: Format = chat
"""For paths that have no format: errors are in OpenRouter's envelope."""


def format_at(path: str, formats: Formats = FORMATS) -> Format:
    """The format of a whole path, its base included; ENVELOPE where it has none."""
    below = (path.removeprefix(base) for base in BASES if path.startswith(f"{base}/"))
    return next((formats[each] for each in below if each in formats), ENVELOPE)
