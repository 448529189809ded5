"""Model lists for Anthropic's clients: their members beside OpenRouter's, and their cursors.

These clients send the header `anthropic-version`, which Anthropic's API demands. Shapes: `ModelInfo` and `SyncPage` of
anthropic 2.13 (PyPI).
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TypeVar

import msgspec
from msgspec import Raw
from starlette.types import Scope

from farebox import clock
from farebox.core.listing import Listed
from farebox.core.reading import UNREADABLE, as_whole

LAST_SECOND = 253_402_300_799
"""The last of the year 9999, in seconds since 1970: `datetime` knows none later."""

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode

Value = TypeVar("Value")


def is_anthropics(scope: Scope) -> bool:
    """Whether a client of Anthropic's API asks."""
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


def described(model: Listed) -> dict[str, object]:
    """A model's entry with the members that Anthropic's clients read."""
    members = _decode_members(model.entry)
    top = _member(members, "top_provider", dict[str, Raw], {})
    retires = _day(_member(members, "expiration_date", str, ""))
    created = _whole(members, "created") or 0
    return {
        **members,
        "type": "model",
        "display_name": _member(members, "name", str, model.id),
        "created_at": clock.iso(created * 1_000_000 if 0 <= created <= LAST_SECOND else 0, "seconds"),
        "lifecycle": "deprecated" if retires else "active",
        "retires_at": retires,
        **dict.fromkeys(("deprecated_at", "line", "capabilities")),
        "max_input_tokens": _whole(members, "context_length"),
        "max_tokens": _whole(top, "max_completion_tokens"),
    }


def page_of(shown: Sequence[Listed], *, has_more: bool) -> dict[str, object]:
    """A page's members beside its `data`."""
    return {
        "has_more": has_more,
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
    }


def _member(members: Mapping[str, Raw], name: str, kind: type[Value], otherwise: Value) -> Value:
    """A member, or `otherwise` where it is absent or of another kind: an upstream's entry may hold anything."""
    try:
        return msgspec.json.decode(members[name], type=kind)
    except (KeyError, *UNREADABLE):
        return otherwise


def _whole(members: Mapping[str, Raw], name: str) -> int | None:
    return as_whole(_member(members, name, float, 0.5))


def _day(text: str) -> str | None:
    try:
        return f"{date.fromisoformat(text)}T00:00:00Z"
    except ValueError:
        return None
