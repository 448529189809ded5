"""Model lists that both OpenRouter's and OpenAI's clients can read: the latter demand `object` and `owned_by` in every
entry, which OpenRouter's entries lack."""

from collections.abc import Iterable

import msgspec
from msgspec import Raw, Struct

from farebox.core.reading import UNREADABLE, is_null

NOBODY = "unknown"
"""The `owned_by` of a model whose id names no author."""

_NULL = Raw(b"null")


class Listed(Struct, frozen=True):
    """One entry of a model list as JSON, and its model's id."""

    id: str
    entry: Raw


_decode_id = msgspec.json.Decoder(str).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


def read_listed(entries: Iterable[Raw]) -> tuple[Listed, ...]:
    """The entries of a model list, completed with the members that OpenAI's clients demand.

    An entry without an id is left out: no order can name it.
    """
    return tuple(listed for entry in entries if (listed := _listed(entry)) is not None)


def _listed(entry: Raw) -> Listed | None:
    try:
        members = _decode_members(entry)
        model = _decode_id(members.get("id", _NULL))
    except UNREADABLE:
        return None
    owner = model.partition("/")[0].lstrip("~") if "/" in model else NOBODY
    wanted = {"object": "model", "created": 0, "owned_by": owner}
    lacking = {
        name: Raw(msgspec.json.encode(value)) for name, value in wanted.items() if is_null(members.get(name, _NULL))
    }
    whole = Raw(msgspec.json.encode({**members, **lacking})) if lacking else entry
    return Listed(model, whole)
