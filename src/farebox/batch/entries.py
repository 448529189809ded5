"""A batch: many orders at once, in any of the formats. How an entry is read, and how its result is written."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from farebox.core.books import Fare
from farebox.core.errors import Refusal, invalid
from farebox.core.formats import Asked
from farebox.core.formats.envelope import error_of
from farebox.core.formats.table import ALIASES, BASES, Formats
from farebox.core.intake import read_asked
from farebox.core.legible import decode_fields, legible_if_needed, leniently
from farebox.core.money import format_usd
from farebox.core.reading import UNREADABLE, without_bom

ORDERS_MAX = 50_000
"""Orders in one batch: as many as OpenAI's batches have."""


class BatchOrder(Struct, frozen=True):
    """One entry. `number` counts from 1; `asked` is what its body asks. `refusal` is why it cannot be ordered: then the
    rest is what could be read."""

    number: int
    path: str = ""
    body: bytes = b""
    asked: Asked | None = None
    custom_id: str | None = None
    url: str = ""
    refusal: Refusal | None = None


class BatchResult(Struct, frozen=True, omit_defaults=False):
    """What became of an entry. Amounts are exact decimals as text; `answer_cap` is there where the answer's cap was
    lowered; `error` is OpenRouter's error object."""

    number: int
    custom_id: str | None
    url: str
    status: int
    generation_id: str | None = None
    answer: Raw | None = None
    usage: Raw | None = None
    cost_usd: str | None = None
    fare_events: int | None = None
    fare_usd: str | None = None
    answer_cap: int | None = None
    error: dict[str, object] | None = None


class _Entry(Struct):
    """OpenAI's form of an entry, or Anthropic's; or, where there is neither `body` nor `params`, the order itself."""

    custom_id: str | None = None
    method: str = "POST"
    url: str = ""
    body: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    messages: Raw | UnsetType = UNSET
    input: Raw | UnsetType = UNSET
    stream: bool | None = None


class _Body(Struct):
    stream: bool | None = None


_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_body = msgspec.json.Decoder(_Body).decode


def split_lines(text: bytes) -> Iterator[bytes]:
    """The entries of a JSONL text; empty lines are none."""
    return (line for line in without_bom(text).splitlines() if line.strip())


def read_entry(number: int, entry: bytes, wires: Formats) -> BatchOrder:
    """An entry in any form: `{"custom_id", "url", "body"}` as in OpenAI's batches, `{"custom_id", "params"}` as in
    Anthropic's, or an order's body alone, which is a chat completion's where it has `messages` and a response's where
    it has `input`."""
    try:
        read = leniently(_decode_entry, entry)
    except UNREADABLE as error:
        return _unread(number, entry, error)
    order = BatchOrder(number, custom_id=read.custom_id, url=read.url)
    try:
        if read.method.upper() != "POST":
            raise invalid(f"method: POST is the one there is, not {read.method!r}")
        path = _path(read, wires)
        order = replace(order, path=path, url=f"/v1{path}")
        given = read.params if read.body is UNSET else read.body
        if given is UNSET:
            body, is_streamed = entry, read.stream
        else:
            body = _as_it_came(entry, bytes(given))
            is_streamed = leniently(_decode_body, body).stream
        if is_streamed:
            raise invalid("stream: a batch has whole answers; leave it out")
        asked = read_asked(body, wires[path])
    except UNREADABLE as error:
        return replace(order, refusal=_no_order(error))
    except Refusal as refusal:
        return replace(order, refusal=refusal)
    return replace(order, body=body, asked=asked)


def _no_order(error: Exception) -> Refusal:
    return invalid(f"this is not an order: {error}")


_MEMBER = re.compile(r'[\s{,]*("(?:[^"\\]|\\.)*")\s*:\s*')
_decode_member = json.JSONDecoder().raw_decode


def _unread(number: int, entry: bytes, error: Exception) -> BatchOrder:
    """An entry that cannot be read, under what of its `custom_id` and `url` can be read all the same."""
    text = entry.decode(errors="replace")
    found: dict[str, str] = {}
    at = 0
    with suppress(ValueError, RecursionError):
        while member := _MEMBER.match(text, at):
            value, at = _decode_member(text, member.end())
            if isinstance(value, str | int):
                found[member[1]] = str(value).encode(errors="replace").decode()
    return BatchOrder(number, custom_id=found.get('"custom_id"'), url=found.get('"url"', ""), refusal=_no_order(error))


def _path(read: _Entry, wires: Formats) -> str:
    if read.body is not UNSET and read.params is not UNSET:
        raise invalid("params: give either `body` or `params`, not both")
    if not read.url:
        if read.body is not UNSET:
            raise invalid(f"url: say which of {_paths(wires)} the body is for")
        if read.params is not UNSET:
            return "/messages"
        return "/chat/completions" if read.messages is not UNSET or read.input is UNSET else "/responses"
    for base in (*BASES, ""):
        if (path := ALIASES.get(name := read.url.removeprefix(base), name)) in wires:
            if wires[path].DESCRIBED.gives_bytes:
                raise invalid(f"url: what {path} answers is no JSON, so that no line of a batch can hold it")
            if wires[path].DESCRIBED.begins_job:
                raise invalid(f"url: an order at {path} begins a job, which a batch does not wait for")
            return path
    raise invalid(f"url: there is nothing at {read.url[:100]!r}; there are {_paths(wires)}")


def _paths(wires: Formats) -> str:
    return ", ".join(f"/v1{path}" for path in wires)


def _as_it_came(entry: bytes, body: bytes) -> bytes:
    """The order's own bytes in the entry: `body` may be of the legible copy that was read in their place."""
    if body in entry:
        return body
    members = decode_fields(entry)
    return bytes(members["body"] if "body" in members else members["params"])


def _on_one_line(answer: bytes) -> bytes:
    """An answer on one line, numbers digit by digit as they came. What some readers of JSON refuse is replaced by a
    stand-in: one such line would cost them the whole file."""
    text = answer.strip()
    plain = legible_if_needed(text, with_halves=True)
    if b"\n" not in plain and b"\r" not in plain:
        return plain
    try:
        return msgspec.json.format(plain, indent=-1)
    except UNREADABLE:
        return plain.replace(b"\r", b" ").replace(b"\n", b" ")


class _Usage(Struct):
    usage: Raw | UnsetType = UNSET


_decode_usage = msgspec.json.Decoder(_Usage).decode


def usage_of(answer: bytes) -> Raw | None:
    """The `usage` of a whole answer, in any format."""
    try:
        usage = leniently(_decode_usage, answer).usage
    except UNREADABLE:
        return None
    return None if usage is UNSET else usage


def refused(order: BatchOrder, refusal: Refusal) -> BatchResult:
    """The result of an entry that has no answer."""
    named = refusal.metadata.get("generation_id")
    generation_id = named if isinstance(named, str) else None
    return BatchResult(order.number, order.custom_id, order.url, refusal.status, generation_id, error=error_of(refusal))


def answered(
    order: BatchOrder, generation_id: str | None, answer: bytes, fare: Fare | None, answer_cap: int | None = None
) -> BatchResult:
    """The result of an entry with its answer; `fare` is None while what it cost is not known."""
    line = _on_one_line(answer)
    result = BatchResult(
        order.number, order.custom_id, order.url, 200, generation_id, Raw(line), usage_of(line), answer_cap=answer_cap
    )
    if fare is None:
        return result
    return replace(result, cost_usd=f"{fare.cost:f}", fare_events=fare.events, fare_usd=format_usd(fare.nanos))
