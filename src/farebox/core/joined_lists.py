"""The lists of several upstreams as one: each model and each provider once, all endpoints of a model together."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec import Raw, Struct

from farebox.core.legible import Fields, decode_fields, decoded_or, written
from farebox.core.upstream import Listing

ABOUT = ("id", "name", "created", "description", "architecture")
"""What is told of a model beside its endpoints."""


class _Model(Struct):
    id: str = ""


class _Provider(Struct):
    slug: str = ""


class _Served(Struct):
    endpoints: list[Raw] = []


_decode_model = msgspec.json.Decoder(_Model).decode
_decode_provider = msgspec.json.Decoder(_Provider).decode
_decode_served = msgspec.json.Decoder(_Served).decode


def joined_models(lists: Sequence[tuple[str, Listing]], first: Callable[[str, Sequence[str]], str]) -> Listing:
    """Lists of models, each beside its upstream's name, as one. Of a model that several list, the entry counts of that
    one which is the `first` of them."""
    every: dict[str, dict[str, Raw]] = {}
    nameless: list[Raw] = []
    for name, listing in lists:
        for model, entry in by_id(listing.entries):
            if model:
                every.setdefault(model, {}).setdefault(name, entry)
            else:
                nameless.append(entry)
    found = [next(iter(at.values())) if len(at) == 1 else at[first(model, tuple(at))] for model, at in every.items()]
    return Listing(entries=(*found, *nameless))


def by_id(entries: Iterable[Raw]) -> Iterator[tuple[str, Raw]]:
    """Entries of a list of models with their models' ids, which are empty where none can be read."""
    for entry in entries:
        yield decoded_or(_decode_model, entry, _Model()).id, entry


def joined_providers(own: Iterable[Raw], lists: Sequence[Listing]) -> Listing:
    """Our own entries, then the others whose slug is none of theirs."""
    found: dict[str, Raw] = {}
    for entry in (*own, *(entry for each in lists for entry in each.entries)):
        slug = decoded_or(_decode_provider, entry, _Provider()).slug
        found.setdefault(slug or str(len(found)), entry)
    return Listing(entries=tuple(found.values()))


def joined_endpoints(lists: Sequence[Listing]) -> Listing:
    """What the first says of the model, with the endpoints of all."""
    served = [decoded_or(_decode_served, each.data, _Served()).endpoints for each in lists]
    if len(served) == 1:
        return lists[0]
    model = decoded_or(decode_fields, lists[0].data, Fields())
    every = [endpoint for each in served for endpoint in each]
    return Listing(data=written({**model, "endpoints": Raw(msgspec.json.encode(every))}))


def with_endpoints(listed: Raw, own: Sequence[object], others: Raw) -> Raw:
    """What `GET /models/.../endpoints` tells of a `listed` model: our own endpoints, then those in `others`, which is
    what an upstream says of it, or null."""
    about = decoded_or(decode_fields, others, Fields())
    if not about:
        members = decoded_or(decode_fields, listed, Fields())
        about = {name: members[name] for name in ABOUT if name in members}
    every = [*own, *decoded_or(_decode_served, others, _Served()).endpoints]
    return written({**about, "endpoints": Raw(msgspec.json.encode(every))})
