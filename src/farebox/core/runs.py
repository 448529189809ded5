"""Runs of this gateway as an Actor, and what they leave: a dataset, a key-value store and a log.

Shapes and words are those of Apify's OpenAPI document.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from farebox.core.legible import leniently
from farebox.core.reading import UNREADABLE

RunStatus = Literal["READY", "RUNNING", "TIMING-OUT", "ABORTING", "SUCCEEDED", "FAILED", "TIMED-OUT", "ABORTED"]
"""The statuses of Apify's platform."""


class Run(Struct, frozen=True, kw_only=True):
    """One run of the Actor that this gateway is. What it leaves stands in a dataset, a key-value store and a log.

    `worker` is the process that carries it through, `limit_nanos` what it may cost; the request queue is always empty.
    `input` says in digits how long the JSON is that it was begun with: that stands in its store. In the row of an older
    version `input` is that JSON.
    """

    id: str
    account_id: int
    key_id: int
    worker: str
    status: RunStatus
    status_message: str = ""
    origin: str
    input: bytes
    timeout_seconds: int
    memory_mbytes: int
    limit_nanos: int | None
    dataset_id: str
    store_id: str
    queue_id: str
    started_us: int
    finished_us: int | None = None
    exit_code: int | None = None

    @property
    def is_finished(self) -> bool:
        return self.finished_us is not None

    @property
    def input_bytes(self) -> int:
        return int(self.input) if self.input.isdigit() else len(self.input)


class RunFilter(Struct, frozen=True):
    """Which of an account's runs a list has: those that meet every condition; an empty condition is met by all."""

    statuses: tuple[str, ...] = ()
    origin: str = ""
    since_us: int | None = None
    until_us: int | None = None


ANY_RUN = RunFilter()


class BilledEvents(Struct, frozen=True):
    """A bill for priced events of a run, booked under a hold. `event` is the event's name."""

    hold_id: str
    run_id: str
    idempotency_key: str
    event: str
    created_us: int


class Record(Struct, frozen=True):
    """A value of a key-value store."""

    key: str
    content_type: str
    body: bytes


class LogLine(Struct, frozen=True):
    """A line of a run's log; `number` counts from 1."""

    number: int
    created_us: int
    text: str


class ItemOutcome(Struct, frozen=True):
    """What became of an order, as its item says. A `status` of 0: the item does not say."""

    number: int
    status: int = 0
    cost_usd: str | None = None
    fare_events: int | None = None
    fare_usd: str | None = None


_decode_outcome = msgspec.json.Decoder(ItemOutcome).decode


def read_outcome(item: bytes) -> ItemOutcome | None:
    """What became of the order whose item this is; None where it is not an order's item."""
    try:
        return leniently(_decode_outcome, item)
    except UNREADABLE:
        return None
