"""What an Actor run is asked to do: its input, read and checked."""

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from farebox.batch.entries import ORDERS_MAX, BatchOrder, read_entry, split_lines
from farebox.batch.result_forms import ResultForm, fitted
from farebox.core.errors import Refusal
from farebox.core.formats.table import Formats
from farebox.core.legible import decode_fields, decode_list, leniently, text_of
from farebox.core.money import parse_usd
from farebox.core.reading import UNREADABLE, Number, as_whole, json_path_error, starts_with, without_bom

CONCURRENCY = 8
CONCURRENCY_MAX = 64


class RunInput(Struct, frozen=True):
    """What a run is to do. Without `orders` it only leaves a note on how to use the server. `results` is the form of
    its items."""

    orders: tuple[BatchOrder, ...] = ()
    concurrency: int = CONCURRENCY
    limit_nanos: int | None = None
    results: ResultForm = ResultForm.FAREBOX


class _Input(Struct, rename="camel"):
    """Unknown members are ignored, as on the platform."""

    requests: Raw | UnsetType = UNSET
    concurrency: Number | None = None
    max_total_charge_usd: Raw | UnsetType = UNSET
    results: ResultForm | None = None


_decode_input = msgspec.json.Decoder(_Input).decode


def read_input(body: bytes, wires: Formats) -> RunInput:
    """A run's input: `requests` (a list of orders, or a text with one a line), `concurrency`, `maxTotalChargeUsd`,
    `results`; all optional, and `{}` where there is none.

    Raises:
        Refusal: 400, naming the field that is wrong. An order that is wrong is its own item's error.
    """
    body = without_bom(body).strip() or b"{}"
    try:
        read = leniently(_decode_input, body)
    except UNREADABLE as error:
        raise _wrong(json_path_error(error)) from error
    concurrency = CONCURRENCY if read.concurrency is None else as_whole(read.concurrency)
    if concurrency is None or not 1 <= concurrency <= CONCURRENCY_MAX:
        raise _wrong(f"concurrency: a whole number from 1 to {CONCURRENCY_MAX}, not {read.concurrency}")
    entries = [] if read.requests is UNSET else _entries(decode_fields(body)["requests"])
    if len(entries) > ORDERS_MAX:
        raise _wrong(f"requests: {len(entries)} orders; a run has {ORDERS_MAX} at most")
    form = read.results or ResultForm.FAREBOX
    orders = tuple(fitted(read_entry(number, entry, wires), form) for number, entry in enumerate(entries, 1))
    return RunInput(orders, concurrency, _limit(read.max_total_charge_usd), form)


def _entries(requests: Raw) -> list[bytes]:
    try:
        if starts_with(requests, b'"'):
            # Half of a character in the text is an escape in its line.
            return list(split_lines(text_of(requests).encode(errors="backslashreplace")))
        if starts_with(requests, b"null"):
            return []
        return [bytes(entry) for entry in decode_list(requests)]
    except UNREADABLE as error:
        raise _wrong("requests: a list of orders, or a text with one order a line") from error


def _limit(given: Raw | UnsetType) -> int | None:
    """A number or a text: JSON numbers are read by their digits, never as floats."""
    if given is UNSET or bytes(given) == b"null":
        return None
    try:
        return parse_usd(bytes(given).decode().strip('"'))
    except ValueError as error:
        raise _wrong(f"maxTotalChargeUsd: {error}") from error


def _wrong(message: str) -> Refusal:
    return Refusal(400, "invalid-input", f"Input is not valid: {message}")
