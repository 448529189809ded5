"""Charges: the events that an outside biller is to charge, in calls that can be repeated and still count once.

The biller is Apify's platform, which was measured so: a call charges 1 to 10,000,000 events; repeated under the same
idempotency key it counts once for 180 s after the first try, and a second time after that.
"""

from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from farebox.core.books import HoldRow, settlement_id
from farebox.core.reading import UNREADABLE

CALL_EVENTS_MAX = 10_000_000

WINDOW_US = 170 * 1_000_000
"""How long a call is repeated: ten seconds less than its key holds, since a call may be on its way for a while."""

ASK_US = 210 * 1_000_000
"""How long after its first try the biller is asked whether a call counted: none can still be on its way by then."""

ChargeState = Literal["due", "charged", "refused", "unsure"]


class Charge(Struct, frozen=True):
    """A number of events, charged in as many calls as they take.

    `done` of `count` events are known to have been counted. `window_us` is when the present call was first tried, or
    later. `said` is why a charge was refused or is unsure. `charge_to` as in `Outside`.
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
        """The charge after the biller refused it, and would again."""
        return replace(self, state="refused", said=said, ended_us=now_us)

    def unsure(self, said: str, now_us: int) -> "Charge":
        """The charge when nobody can find out whether its call was counted: an operator must decide."""
        return replace(self, state="unsure", said=said, ended_us=now_us)

    def after_asking(self, counted: int, now_us: int) -> "Charge":
        """The charge after the biller said, ASK_US or more after its last call, how many of its events counted."""
        if counted == self.count:
            return replace(self, done=counted, state="charged", ended_us=now_us)
        if counted in (self.done, self.done + self.call[1]):
            return replace(self, done=counted, window_us=now_us)
        return self.unsure(f"{counted} of its events were counted, which is no number of its calls", now_us)


class CarriedOrder(Struct, frozen=True):
    """An order whose cost is not known yet (`cost` None), or whose fare is not charged yet. `charge_id` is the charge
    that its fare is part of."""

    account: str
    hold: HoldRow
    cost: str | None
    charge_id: str | None

    @property
    def transfer_id(self) -> str:
        return settlement_id(self.hold.id)


class Carried(Struct, frozen=True):
    """What a run takes along to another machine, since its books stay behind: the orders and charges that are not
    finished, and how many events the biller has counted so far."""

    counted: int
    orders: list[CarriedOrder]
    charges: list[Charge]


def write_carried(carried: Carried) -> bytes:
    """As JSON."""
    return msgspec.json.encode(carried)


_decode_carried = msgspec.json.Decoder(Carried).decode


def read_carried(record: bytes) -> Carried:
    """The reverse of `write_carried`. Raises ValueError: the record cannot be read."""
    try:
        return _decode_carried(record)
    except UNREADABLE as error:
        raise ValueError(f"what an earlier machine left for this run cannot be read: {error}") from error
