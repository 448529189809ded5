"""A batch: many orders at once, in any of the formats. What each entry asks, and what is told of it in the end."""

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.core.errors import Refusal, invalid
from farebox.core.formats import Format
from farebox.core.formats.envelope import error_of
from farebox.core.ledger import Transfer
from farebox.core.money import format_usd
from farebox.core.reading import UNREADABLE

ORDERS_MAX = 50_000
"""Orders in one batch: as many as OpenAI's batches have."""

BASES = ("/api/v1", "/v1", "")


class BatchOrder(Struct, frozen=True):
    """One entry. `number` counts from 1; `refusal` is why it cannot be ordered."""

    number: int
    path: str = ""
    body: bytes = b""
    custom_id: str | None = None
    refusal: Refusal | None = None

    @property
    def url(self) -> str:
        return f"/v1{self.path}" if self.path else ""


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
    """OpenAI's form of an entry; or, where there is no `body`, the order itself."""

    custom_id: str | None = None
    method: str = "POST"
    url: str = ""
    body: Raw | UnsetType = UNSET
    messages: Raw | UnsetType = UNSET
    input: Raw | UnsetType = UNSET
    stream: bool | None = None


class _Body(Struct):
    stream: bool | None = None


_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_body = msgspec.json.Decoder(_Body).decode


def split_lines(text: bytes) -> Iterator[bytes]:
    """The entries of a JSONL text; empty lines are none."""
    return (line for line in text.splitlines() if line.strip())


def read_entry(number: int, entry: bytes, wires: Mapping[str, Format]) -> BatchOrder:
    """An entry in either form: `{"custom_id", "url", "body"}` as in OpenAI's batches, or an order's body alone, which
    is a chat completion's where it has `messages` and a response's where it has `input`."""
    try:
        read = _decode_entry(entry)
        if read.method.upper() != "POST":
            raise invalid(f"method: POST is the one there is, not {read.method!r}")
        path = _path(read, wires)
        body = entry if read.body is UNSET else bytes(read.body)
        if _decode_body(body).stream:
            raise invalid("stream: a batch has whole answers; leave it out")
        wires[path].read(body)
    except UNREADABLE as error:
        return BatchOrder(number, refusal=invalid(f"this is not an order: {error}"))
    except Refusal as refusal:
        return BatchOrder(number, refusal=refusal)
    return BatchOrder(number, path, body, read.custom_id)


def _path(read: _Entry, wires: Mapping[str, Format]) -> str:
    if not read.url:
        if read.body is not UNSET:
            raise invalid(f"url: say which of {_paths(wires)} the body is for")
        return "/chat/completions" if read.messages is not UNSET or read.input is UNSET else "/responses"
    for base in BASES:
        if (path := read.url.removeprefix(base)) in wires:
            return path
    raise invalid(f"url: there is nothing at {read.url[:100]!r}; there are {_paths(wires)}")


def _paths(wires: Mapping[str, Format]) -> str:
    return ", ".join(f"/v1{path}" for path in wires)


def _on_one_line(answer: bytes) -> bytes:
    """An answer as it came, unless it is laid out over several lines; numbers keep their digits either way."""
    text = answer.strip()
    return msgspec.json.format(text, indent=-1) if b"\n" in text or b"\r" in text else text


class _Usage(Struct):
    usage: Raw | UnsetType = UNSET


def usage_of(answer: bytes) -> Raw | None:
    """The `usage` of a whole answer, in any format."""
    try:
        usage = msgspec.json.decode(answer, type=_Usage).usage
    except UNREADABLE:
        return None
    return None if usage is UNSET else usage


def refused(order: BatchOrder, refusal: Refusal) -> BatchResult:
    """The result of an entry that has no answer."""
    named = refusal.metadata.get("generation_id")
    generation_id = named if isinstance(named, str) else None
    return BatchResult(order.number, order.custom_id, order.url, refusal.status, generation_id, error=error_of(refusal))


def answered(
    order: BatchOrder, generation_id: str | None, answer: bytes, end: Transfer | None, answer_cap: int | None = None
) -> BatchResult:
    """The result of an entry with its answer; `end` charges its fare, and is None while what it cost is not known."""
    return BatchResult(
        order.number,
        order.custom_id,
        order.url,
        200,
        generation_id,
        Raw(_on_one_line(answer)),
        usage_of(answer),
        None if end is None or end.cost is None else f"{end.cost:f}",
        None if end is None else end.events,
        None if end is None else format_usd(end.amount_nanos),
        answer_cap,
    )
