"""Upstreams, which serve the orders: one module for each kind, listed in `table.py`."""

from dataclasses import dataclass
from typing import Protocol

from farebox.deadlines import Deadlines
from farebox.outgoing import WayOut
from farebox.ports import Upstream


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds: for a connection; from the order sent to the answer's head (`first_byte`); between two pieces of its
    body (`no_data`)."""

    connect: float
    first_byte: float
    no_data: float


class Kind(Protocol):
    """Makes an upstream of its kind, within a running event loop. `way` is how its URL is reached."""

    def __call__(
        self, base_url: str, api_key: str | None, timeouts: Timeouts, deadlines: Deadlines, way: WayOut, /
    ) -> Upstream: ...
