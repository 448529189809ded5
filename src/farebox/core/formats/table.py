"""The billable paths, and the wire format of each. A new format is a module and a line here:
docs/extending.md shows how."""

from collections.abc import Mapping
from types import MappingProxyType

from farebox.core.formats import (
    Format,
    chat,
    embeddings,
    images,
    messages,
    rerank,
    responses,
    speech,
    transcriptions,
    videos,
)

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
        "/rerank": rerank,
        "/images": images,
        "/audio/speech": speech,
        "/audio/transcriptions": transcriptions,
        "/videos": videos,
    }
)

ALIASES: Mapping[str, str] = MappingProxyType({"/images/generations": "/images"})
"""Other names of paths in FORMATS: of the same orders in another API. They go upstream under their first name."""


def with_aliases(formats: Formats) -> list[tuple[str, str]]:
    """Every path of these formats under a base, and the one of its format."""
    return [*((path, path) for path in formats), *((name, path) for name, path in ALIASES.items() if path in formats)]


IN_FORMAT: Mapping[str, Format] = MappingProxyType({"/messages/count_tokens": messages})
"""Paths at which nothing is ordered, and whose errors are in a format all the same."""
KINDS: Mapping[str, str] = MappingProxyType(
    {path: "chat" if wire is chat else path.rpartition("/")[2] for path, wire in FORMATS.items()}
)
"""What orders at a path are called in statements: chat, messages, ..., speech. The books keep these names."""


ENVELOPE: Format = chat
"""For paths that have no format: errors are in OpenRouter's envelope."""


def accepted(path: str, *, streamed: bool) -> str:
    """What an order at a path of FORMATS accepts as its answer, as `Accept` says it."""
    if streamed:
        return "text/event-stream"
    return "*/*" if path in FORMATS and FORMATS[path].DESCRIBED.gives_bytes else "application/json"


def format_at(path: str, formats: Formats = FORMATS) -> Format:
    """The format of a whole path, its base included; ENVELOPE where it has none."""
    below = (path.removeprefix(base) for base in BASES if path.startswith(f"{base}/"))
    found = (ALIASES.get(each, each) for each in below)
    every = {**IN_FORMAT, **formats}
    return next((every[each] for each in found if each in every), ENVELOPE)
