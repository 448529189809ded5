"""Upstreams, which serve the orders: one module for each kind, listed in `table.py`."""

from typing import Protocol

from farebox.core.declared import Declared, Timeouts
from farebox.deadlines import Deadlines
from farebox.outgoing import WayOut
from farebox.ports import Upstream

__all__ = ["Kind", "Timeouts"]


class Kind(Protocol):
    """Makes an upstream of its kind, within a running event loop. `api_key` is the value of its `key_variable`, `way`
    how its URL is reached."""

    def __call__(self, declared: Declared, api_key: str | None, deadlines: Deadlines, way: WayOut, /) -> Upstream: ...
