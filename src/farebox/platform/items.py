"""A dataset's items as a client asks for them: as JSON, JSON lines or a table, with the members that it names."""

import csv
import io
from collections.abc import Iterator
from decimal import Decimal

import msgspec
from msgspec import Raw, Struct

from farebox.core.legible import decode_fields, decode_list, leniently, written
from farebox.core.reading import UNREADABLE, starts_with
from farebox.platform.calls import UNLIMITED, Call
from farebox.platform.documents import wrong

FORMATS = ("json", "jsonl", "csv")

RECORDS_MAX = 100_000
"""The most records that one page of items may unwind into: each element of a list repeats the item's other members."""

CELLS_MAX = 10_000_000
"""The most cells of a table: each row has one for every member that any item has."""

VALUES_MAX = 2_000_000
"""The most values that one page of items may be flattened or put into a table: some seconds' work."""

MADE_BYTES_MAX = 256 * 1024 * 1024
"""How long one page of items, 64 MiB at most, may become when it is flattened: the name of an outer member is repeated
before each inner one."""


class Wanted(Struct, frozen=True):
    """What a request asks for, in the words of Apify's platform, whose `clean` means both `skip_empty` and
    `skip_hidden`. A `bom` of None means as the format has it: with one in CSV, else without."""

    format: str = "json"
    fields: tuple[str, ...] = ()
    output_fields: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    unwind: tuple[str, ...] = ()
    flatten: tuple[str, ...] = ()
    skip_empty: bool = False
    skip_hidden: bool = False
    bom: bool | None = None
    delimiter: str = ","
    skip_header_row: bool = False
    offset: int = 0
    limit: int = UNLIMITED
    desc: bool = False
    attachment: bool = False

    @property
    def shown_as(self) -> dict[str, str]:
        """The answer's names of fields, by their own names."""
        return dict(zip(self.fields, self.output_fields, strict=False))


def wanted(call: Call) -> Wanted:
    """What a request asks for. Raises Refusal 400, naming the parameter that is wrong."""
    found = Wanted(
        call.query.get("format") or "json",
        call.names("fields"),
        call.names("outputFields"),
        call.names("omit"),
        call.names("unwind"),
        call.names("flatten"),
        skip_empty=call.flag("clean") or call.flag("skipEmpty"),
        skip_hidden=call.flag("clean") or call.flag("skipHidden"),
        bom=call.flag("bom") if call.query.get("bom") else None,
        delimiter=call.query.get("delimiter") or ",",
        skip_header_row=call.flag("skipHeaderRow"),
        offset=call.number("offset", 0),
        limit=call.limit(),
        desc=call.flag("desc"),
        attachment=call.flag("attachment"),
    )
    if found.format not in FORMATS:
        raise wrong("format", f"one of {', '.join(FORMATS)}, not {found.format[:50]!r}")
    if found.output_fields and len(found.output_fields) != len(found.fields):
        raise wrong("outputFields", f"as many names as `fields` has, which are {len(found.fields)}")
    if len(found.delimiter) != 1 or found.delimiter in '"\r\n':
        raise wrong("delimiter", f"one character, and no quote or end of a line, not {found.delimiter[:50]!r}")
    return found


_decode_exactly = msgspec.json.Decoder(object, float_hook=Decimal).decode

_BOM = b"\xef\xbb\xbf"


class _Room:
    """How many bytes an answer may still grow by, and of how many values."""

    def __init__(self) -> None:
        self._left = MADE_BYTES_MAX
        self._values_left = VALUES_MAX

    def take(self, size: int) -> None:
        self._left -= size
        self._values_left -= 1
        if self._left < 0 or self._values_left < 0:
            raise wrong("limit", "ask for fewer items at once: these would become too long")


def render(items: list[bytes], wanted: Wanted) -> tuple[bytes, bytes]:
    """An answer's body, and its content type. Values go on byte for byte, but in tables. Raises Refusal 400."""
    room = _Room()
    try:
        shown = list(_shown(items, wanted, room))
        match wanted.format:
            case "json":
                body, content_type = b"[" + b",".join(shown) + b"]", b"application/json; charset=utf-8"
            case "jsonl":
                body, content_type = b"".join(item + b"\n" for item in shown), b"application/jsonl; charset=utf-8"
            case _:
                body, content_type = _table(shown, wanted, room), b"text/csv; charset=utf-8"
    except UNREADABLE as error:
        raise wrong("flatten" if wanted.flatten else "format", "an item is nested too deeply for this") from error
    has_bom = wanted.format == "csv" if wanted.bom is None else wanted.bom
    return (_BOM if has_bom else b"") + body, content_type


def _shown(items: list[bytes], wanted: Wanted, room: _Room) -> Iterator[bytes]:
    if not (wanted.fields or wanted.omit or wanted.unwind or wanted.flatten or wanted.skip_hidden):
        yield from (item for item in items if not (wanted.skip_empty and item in (b"{}", b"null")))
        return
    count = 0
    for item in items:
        for record in _records(decode_fields(item), wanted, room):
            if wanted.skip_empty and not record:
                continue
            count += 1
            if wanted.unwind and count > RECORDS_MAX:
                raise wrong("unwind", f"more than {RECORDS_MAX} records; ask for fewer items at once")
            shown = bytes(written(record))
            room.take(len(shown))
            yield shown


def _records(members: dict[str, Raw], wanted: Wanted, room: _Room) -> Iterator[dict[str, Raw]]:
    """The records that one item becomes: flattened first, so that `fields` may name nested members; then with the
    chosen fields; then unwound."""
    for name in wanted.flatten:
        members = _flattened(members, name, room)
    if wanted.fields:
        members = {name: members[name] for name in wanted.fields if name in members}
    shown_as = wanted.shown_as
    for record in _unwound(members, wanted.unwind):
        yield {
            shown_as.get(name, name): value
            for name, value in record.items()
            if name not in wanted.omit and not (wanted.skip_hidden and name[:1] == "#")
        }


def _flattened(members: dict[str, Raw], name: str, room: _Room) -> dict[str, Raw]:
    """`{"foo": {"bar": 1}}` as `{"foo.bar": 1}`, in the member's place."""
    return {
        path: leaf
        for each, value in members.items()
        for path, leaf in (_leaves(value, name, room) if each == name else [(each, value)])
    }


def _leaves(value: Raw, path: str, room: _Room) -> Iterator[tuple[str, Raw]]:
    members = decode_fields(value) if starts_with(value, b"{") else {}
    if not members:
        room.take(len(path))
        yield path, value
    for name, member in members.items():
        yield from _leaves(member, f"{path}.{name}", room)


def _unwound(members: dict[str, Raw], names: tuple[str, ...]) -> Iterator[dict[str, Raw]]:
    """A record for each element of a list, and an object's members beside those of its parent; one name after the
    other. What is neither list nor object stays as it is."""
    if not names or names[0] not in members:
        yield from _unwound(members, names[1:]) if names else (members,)
        return
    name, *left = names
    value = members[name]
    others = {each: of for each, of in members.items() if each != name}
    for part in decode_list(value) if starts_with(value, b"[") else [value]:
        merged = {**others, **decode_fields(part)} if starts_with(part, b"{") else {**members, name: part}
        yield from _unwound(merged, tuple(left))


def _table(items: list[bytes], wanted: Wanted, room: _Room) -> bytes:
    """Nested members become columns named by their path, `answer/id`, as the platform does it."""
    rows = [dict(_cells(leniently(_decode_exactly, item), "", room)) for item in items]
    columns = _columns(rows, wanted)
    if len(columns) * len(rows) > CELLS_MAX:
        raise wrong("limit", f"ask for fewer items at once, or for some `fields`: {CELLS_MAX} cells at most")
    text = io.StringIO()
    writer = csv.writer(text, delimiter=wanted.delimiter, lineterminator="\r\n")
    if not wanted.skip_header_row:
        writer.writerow(columns)
    writer.writerows([[row.get(name, "") for name in columns] for row in rows])
    return text.getvalue().encode()


def _columns(rows: list[dict[str, str]], wanted: Wanted) -> list[str]:
    """First the columns of `fields`, in that order and even where no item has them; then the rest as they come."""
    met = list(dict.fromkeys(name for row in rows for name in row))
    shown_as = wanted.shown_as
    columns: list[str] = []
    for field in wanted.fields:
        name = shown_as.get(field, field)
        of_field = [column for column in met if column == name or column.startswith(f"{name}/")]
        is_shown = field not in wanted.unwind and field not in wanted.omit
        columns += of_field or ([name] if is_shown else [])
    return list(dict.fromkeys([*columns, *met]))


def _cells(value: object, path: str, room: _Room) -> Iterator[tuple[str, str]]:
    match value:
        case dict() | list():
            for name, member in value.items() if isinstance(value, dict) else enumerate(value):
                yield from _cells(member, f"{path}/{name}" if path else str(name), room)
            return
        case None:
            text = ""
        case bool():
            text = "true" if value else "false"
        case Decimal():
            text = f"{value:f}"
        case _:
            text = str(value)
    room.take(len(path) + len(text))
    yield path, text
