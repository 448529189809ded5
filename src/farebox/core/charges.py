"""Charges: the events that an outside biller is to charge, in calls that may be repeated and count once.

Facts of Apify's platform, which is that biller: a call has 1 to 10,000,000 events; one that is repeated under its
idempotency key within 180 s of the first is counted once, later it is counted anew.
"""

from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from farebox.core.books import HoldRow, settlement_id
from farebox.core.reading import UNREADABLE

CALL_EVENTS_MAX = 10_000_000

WINDOW_US = 170 * 1_000_000
"""How long a call is repeated: ten seconds less than its key stands, for what is under way."""

ASK_US = 210 * 1_000_000
"""When the biller is asked instead: no call can still be under way, and what was counted is to be seen."""

ChargeState = Literal["due", "charged", "refused", "unsure"]


class Charge(Struct, frozen=True):
    """One sum of events, charged in as many calls as it takes.

    `done` of `count` events are known to have been counted. `window_us` is when the call that is being made now was
    first tried, or later. `said` is what the biller said where it refused.
    """

    id: str
    charge_to: str
    count: int
    window_us: int
    done: int = 0
    state: ChargeState = "due"
    said: str | None = None
    ended_us: int | None = None

    @property
    def call(self) -> tuple[str, int]:
        """The idempotency key and the events of the call to make now."""
        return f"{self.id}-{self.done // CALL_EVENTS_MAX}", min(CALL_EVENTS_MAX, self.count - self.done)

    def after_call(self, now_us: int) -> "Charge":
        """The charge after its present call was counted."""
        done = self.done + self.call[1]
        if done < self.count:
            return replace(self, done=done, window_us=now_us)
        return replace(self, done=done, state="charged", ended_us=now_us)

    def refused(self, said: str, now_us: int) -> "Charge":
        return replace(self, state="refused", said=said, ended_us=now_us)

    def unsure(self, said: str, now_us: int) -> "Charge":
        """Nobody will know whether its call was counted: an operator must look."""
        return replace(self, state="unsure", said=said, ended_us=now_us)

    def asked(self, counted: int, now_us: int) -> "Charge":
        """After the biller was asked, when no call could still be under way, how many events of it were counted."""
        if counted == self.count:
            return replace(self, done=counted, state="charged", ended_us=now_us)
        if counted in (self.done, self.done + self.call[1]):
            return replace(self, done=counted, window_us=now_us)
        return self.unsure(f"{counted} of its events were counted, which is no number of its calls", now_us)


class CarriedOrder(Struct, frozen=True):
    """An order that is not done with: its cost is not known (`cost` None), or its fare not told. `charge_id` is the
    charge it is part of."""

    account: str
    hold: HoldRow
    cost: str | None
    charge_id: str | None

    @property
    def transfer_id(self) -> str:
        return settlement_id(self.hold.id)


class Carried(Struct, frozen=True):
    """What another machine must know to go on with a run whose books stay behind: what is not done with, and how many
    events the biller has counted so far."""

    counted: int
    orders: list[CarriedOrder]
    charges: list[Charge]


def write_carried(carried: Carried) -> bytes:
    return msgspec.json.encode(carried)


_decode_carried = msgspec.json.Decoder(Carried).decode


def read_carried(record: bytes) -> Carried:
    """Raises ValueError: it is no such record."""
    try:
        return _decode_carried(record)
    except UNREADABLE as error:
        raise ValueError(f"what an earlier machine left for this run cannot be read: {error}") from error
