"""Who is making a change: said once, where a request or a command comes in, and read by what writes the trail.

Whatever changes something for somebody runs within `acting(...)`. Outside it Farebox itself acts: at a start, or for
callers whom its host knows.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from farebox.core.trail import By

_BY: ContextVar[By | None] = ContextVar("farebox_acting", default=None)


@contextmanager
def acting(by: By) -> Iterator[None]:
    """All that is changed within the block is changed by these."""
    token = _BY.set(by)
    try:
        yield
    finally:
        _BY.reset(token)


def by() -> By:
    """Who acts here. To be asked where the change is asked for: another thread does not know it."""
    return _BY.get() or _farebox()


@cache
def _farebox() -> By:
    return By("server", f"farebox on {socket.gethostname()}")
