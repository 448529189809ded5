"""A dataset's items as a client wants them: as JSON, lines of JSON, or a table, with the members it asks for."""

import csv
import io
from collections.abc import Iterator
from decimal import Decimal

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import Refusal

FORMATS = ("json", "jsonl", "csv")


class Wanted(Struct, frozen=True):
    """What is asked for, in the words of the platform, whose `clean` stands for both skips."""

    format: str = "json"
    fields: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    skip_empty: bool = False
    skip_hidden: bool = False
    bom: bool = True


_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_exactly = msgspec.json.Decoder(object, float_hook=Decimal).decode


def render(items: list[bytes], wanted: Wanted) -> tuple[bytes, bytes]:
    """The body and its content type. Members that are not asked about go on byte for byte. Raises Refusal 400."""
    if wanted.format not in FORMATS:
        raise Refusal(400, "invalid-value", f"format: one of {', '.join(FORMATS)}, not {wanted.format[:50]!r}")
    shown = list(_shown(items, wanted))
    match wanted.format:
        case "json":
            return b"[" + b",".join(shown) + b"]", b"application/json; charset=utf-8"
        case "jsonl":
            return b"".join(item + b"\n" for item in shown), b"application/jsonl; charset=utf-8"
        case _:
            return _table(shown, wanted), b"text/csv; charset=utf-8"


def _shown(items: list[bytes], wanted: Wanted) -> Iterator[bytes]:
    is_whole = not (wanted.fields or wanted.omit or wanted.skip_hidden)
    for item in items:
        if is_whole:
            if not (wanted.skip_empty and item in (b"{}", b"null")):
                yield item
            continue
        members = _decode_members(item)
        if wanted.fields:
            members = {name: members[name] for name in wanted.fields if name in members}
        for name in [name for name in members if name in wanted.omit or (wanted.skip_hidden and name[:1] == "#")]:
            del members[name]
        if members or not wanted.skip_empty:
            yield msgspec.json.encode(members)


def _table(items: list[bytes], wanted: Wanted) -> bytes:
    """Nested members become columns named by their path, `answer/id`, as the platform does it."""
    rows = [dict(_flat(_decode_exactly(item), "")) for item in items]
    columns = list(wanted.fields) or list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([[row.get(name, "") for name in columns] for row in rows])
    return (b"\xef\xbb\xbf" if wanted.bom else b"") + text.getvalue().encode()


def _flat(value: object, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for name, member in value.items():
                yield from _flat(member, f"{path}/{name}" if path else str(name))
        case list():
            for number, member in enumerate(value):
                yield from _flat(member, f"{path}/{number}" if path else str(number))
        case None:
            yield path, ""
        case bool():
            yield path, "true" if value else "false"
        case Decimal():
            yield path, f"{value:f}"
        case _:
            yield path, str(value)
