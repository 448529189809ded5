"""For whom an order is: its end user, and the tags of its cost centres, as the books keep them.

Both are texts of strangers. An end user's name is kept as a digest, which nobody can guess from a list without the
secret, or plainly as far as it is a name; tags are few and short. Neither changes what the upstream gets.
"""

import hmac
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import invalid
from farebox.core.legible import decoded_or
from farebox.core.reading import UNREADABLE

EndUsers = Literal["digest", "plain", "off"]
"""How end users are kept: as digests, as they are named, or not at all."""

NAME_CHARS_MAX = 128
"""A longer name of an end user is kept as its digest."""

TAGS_MAX = 10
TAG_NAME = r"[A-Za-z][A-Za-z0-9_.-]{0,31}"
TAG_CHARS_MAX = 64
"""How long a tag's value is at most."""

TAGS_BYTES_MAX = 500
"""All tags of an order together, as they are kept: they are a part of a key in an index, which has a page's room."""

_TAG_NAME = re.compile(TAG_NAME)
_DIGEST = re.compile(r"eu_[0-9a-f]{32}")
_DIGEST_BYTES = 16

_decode_text = msgspec.json.Decoder(str).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


class Said(Struct, frozen=True):
    """What an order's body says of whom it is for: `end_user`, empty where it names none, and the texts of
    `metadata`."""

    end_user: str = ""
    metadata: Mapping[str, str] = {}


NOTHING_SAID = Said()


def read_name(value: Raw) -> str:
    """A member that names an end user, as text; empty where it is null. What is no text is taken as it is written:
    whether that is allowed is the upstream's to say."""
    written = bytes(value)
    return "" if written == b"null" else decoded_or(_decode_text, value, written.decode(errors="replace"))


def read_texts(value: Raw) -> dict[str, str]:
    """The texts in an object; nothing where it is none."""
    found: dict[str, str] = {}
    for name, each in decoded_or(_decode_object, value, dict[str, Raw]()).items():
        try:
            found[name] = _decode_text(each)
        except UNREADABLE:
            continue
    return found


class Attribution(Struct, frozen=True):
    """How the books keep for whom an order is. `secret` is the key of the digests; `from_metadata` are the names of the
    members of an order's `metadata` that are tags."""

    end_users: EndUsers = "off"
    secret: bytes = b""
    from_metadata: frozenset[str] = frozenset()

    def of(self, end_user: bytes, tags: bytes, said: Said | None) -> tuple[str | None, str | None]:
        """The end user and the tags of an order as they are kept, by its headers and what its body says. Raises Refusal
        400."""
        said = said or NOTHING_SAID
        named = header_text(end_user).strip() or said.end_user
        return self.end_user(named), self.tags(tags, said.metadata)

    def end_user(self, named: str) -> str | None:
        """An end user as it is kept; None where none is named, or none is kept."""
        if not named or self.end_users == "off":
            return None
        if self.end_users == "plain" and len(named) <= NAME_CHARS_MAX and named.isprintable():
            return named
        return "eu_" + hmac.digest(self.secret, named.encode(errors="surrogatepass"), sha256)[:_DIGEST_BYTES].hex()

    def sought(self, named: str) -> str:
        """The end user that is asked for, by its name or as it is kept."""
        return named if _DIGEST.fullmatch(named) else self.end_user(named) or named

    def tags(self, header: bytes, metadata: Mapping[str, str]) -> str | None:
        """An order's tags as they are kept, as JSON; None where there are none. Those of the header go before those of
        its metadata, of which what does not fit is left out.

        Raises:
            Refusal: 400, the header is not written as tags are.
        """
        tags = read_tags(header)
        if len(kept := _encode_sorted(tags)) > TAGS_BYTES_MAX:
            raise invalid(f"X-Farebox-Tags: at most {TAGS_BYTES_MAX} bytes in all; these are {len(kept)}")
        for name in sorted(self.from_metadata.intersection(metadata)):
            if name in tags or len(tags) == TAGS_MAX or not is_tag(name, metadata[name]):
                continue
            more = {**tags, name: metadata[name]}
            if len(longer := _encode_sorted(more)) <= TAGS_BYTES_MAX:
                tags, kept = more, longer
        return kept.decode() if tags else None


AS_NAMED = Attribution("plain")


def is_tag(name: str, value: str) -> bool:
    """Whether a tag may have this name and this value."""
    return bool(_TAG_NAME.fullmatch(name)) and 0 < len(value) <= TAG_CHARS_MAX and value.isprintable()


def read_tag(written: str) -> tuple[str, str] | None:
    """A tag, written like `team=search`; None where it is none."""
    name, separator, value = (part.strip() for part in written.partition("="))
    return (name, value) if separator and is_tag(name, value) else None


def read_tags(header: bytes) -> dict[str, str]:
    """The tags that a header names, such as `team=search, feature=chat`. Raises Refusal 400."""
    if not header:
        return {}
    tags: dict[str, str] = {}
    for each in header_text(header).split(","):
        if not each.strip():
            continue
        if (tag := read_tag(each)) is None:
            raise invalid(
                f"X-Farebox-Tags: {each.strip()[:80]!r} is no tag; write it like team=search, feature=chat: names of"
                f" up to 32 letters, digits, _ . -, a letter first; values of up to {TAG_CHARS_MAX} characters"
                " without commas"
            )
        name, value = tag
        if name in tags:
            raise invalid(f"X-Farebox-Tags: `{name}` stands there twice")
        tags[name] = value
    if len(tags) > TAGS_MAX:
        raise invalid(f"X-Farebox-Tags: at most {TAGS_MAX} tags; these are {len(tags)}")
    return tags


def header_text(value: bytes) -> str:
    """A header's value as text: UTF-8, or else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def kept_tags(kept: str | None) -> dict[str, str]:
    """Tags as they are kept, by name."""
    return {} if kept is None else msgspec.json.decode(kept, type=dict[str, str])


def tags_text(kept: str | None) -> str | None:
    """Tags as they are kept, written as in the header."""
    return None if kept is None else ", ".join(f"{name}={value}" for name, value in kept_tags(kept).items())
