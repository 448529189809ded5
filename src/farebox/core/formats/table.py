"""The billable paths, and what is spoken at each. A further format is a module and a line here."""

from collections.abc import Mapping
from types import MappingProxyType

from farebox.core.formats import Format, chat, embeddings, messages, responses

BASES = ("/api/v1", "/v1")
"""OpenRouter's base, and the one OpenAI's and Anthropic's clients expect."""

FORMATS: Mapping[str, Format] = MappingProxyType(
    {"/chat/completions": chat, "/messages": messages, "/responses": responses, "/embeddings": embeddings}
)
"""By their path under a base."""

ENVELOPE: Format = chat
"""What is not of one format speaks OpenRouter's envelope."""

_BY_PATH = {base + path: wire for path, wire in FORMATS.items() for base in BASES}


def format_at(path: str) -> Format:
    """What is spoken at a whole path, its base included."""
    return _BY_PATH.get(path, ENVELOPE)
