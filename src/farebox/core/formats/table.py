"""The billable paths, and what is spoken at each. A further format is a module and a line here:
docs/extending.md shows how."""

from collections.abc import Mapping
from types import MappingProxyType

from farebox.core.formats import Format, chat, embeddings, messages, responses

BASES = ("/api/v1", "/v1")
"""OpenRouter's base, and the one OpenAI's and Anthropic's clients expect."""

Formats = Mapping[str, Format]
"""By their path under a base."""

FORMATS: Formats = MappingProxyType(
    {
        "/chat/completions": chat,
        "/messages": messages,
        "/responses": responses,
        "/embeddings": embeddings,
    }
)

ENVELOPE: Format = chat
"""What is not of one format speaks OpenRouter's envelope."""


def format_at(path: str, formats: Formats = FORMATS) -> Format:
    """What is spoken at a whole path, its base included."""
    below = (path.removeprefix(base) for base in BASES if path.startswith(f"{base}/"))
    return next((formats[each] for each in below if each in formats), ENVELOPE)
