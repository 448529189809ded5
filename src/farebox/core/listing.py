"""A model's entry in a list, with what every reader of one wants: OpenAI's clients demand members that OpenRouter's
entries have not (`object`, `owned_by`)."""

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Raw, Struct

from farebox.core.reading import UNREADABLE, is_null

NOBODY = "unknown"
"""Who owns a model whose id names no author."""

_NULL = Raw(b"null")


class Listed(Struct, frozen=True):
    """One entry: `id` and `slug` (its canonical one) are names that it answers to."""

    id: str
    slug: str | None
    entry: Raw


class _Named(Struct):
    id: str


_decode_named = msgspec.json.Decoder(_Named).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def read_listed(entries: Iterable[Raw]) -> tuple[Listed, ...]:
    """The entries of a model list, as they came but for members of OpenAI's that they lack.

    One without an id is left out: no order can name it.
    """
    return tuple(listed for entry in entries if (listed := _listed(entry)) is not None)


def _listed(entry: Raw) -> Listed | None:
    try:
        model = _decode_named(entry).id
        members = _decode_members(entry)
    except UNREADABLE:
        return None
    owner = model.partition("/")[0].lstrip("~") if "/" in model else NOBODY
    wanted = {"object": "model", "created": 0, "owned_by": owner}
    lacking = {
        name: Raw(msgspec.json.encode(value)) for name, value in wanted.items() if is_null(members.get(name, _NULL))
    }
    whole = Raw(msgspec.json.encode({**members, **lacking})) if lacking else entry
    return Listed(model, _text(members, "canonical_slug"), whole)


def _text(members: Mapping[str, Raw], name: str) -> str | None:
    try:
        return _decode_text(members.get(name, _NULL))
    except UNREADABLE:
        return None


def find_listed(models: Iterable[Listed], name: str) -> Listed | None:
    """The entry that a name means: its own, that of its canonical slug, or, for a variant that is not listed itself
    (`:nitro`, `:online`), its model's. `:free` is a model of its own."""
    listed = {model.slug: model for model in models if model.slug} | {model.id: model for model in models}
    found = listed.get(name)
    while found is None and ":" in name and not name.endswith(":free"):
        name = name.rpartition(":")[0]
        found = listed.get(name)
    return found
