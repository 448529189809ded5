"""What the log is told of proxies in front that close a connection while its answer is still being made.

Their callers mostly get an error of the proxy's then, and order again what is being answered, and paid for.
"""

import logging
import socket
from collections.abc import Callable, Mapping
from struct import unpack_from
from time import monotonic
from typing import Any

from farebox.core.headers import PROXIED

log = logging.getLogger("farebox")

SILENT_SECONDS = 5.0
"""Whoever leaves before so long a silence has changed their mind; a proxy's patience is longer than that."""

TOLD_EVERY_SECONDS = 60.0

PAGE = "docs/proxies.md"

_TIMES_AT = 44
"""Where the kernel's `struct tcp_info` has `tcpi_last_data_sent`; `tcpi_last_data_recv` stands two words later."""

_TIMES_END = _TIMES_AT + 12


class EarlyCloses:
    """Those that one process has met. The log is told of the first, and then at most once a minute."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._count = 0
        self._tell_at = -TOLD_EVERY_SECONDS

    def saw(self, scope: Mapping[str, Any], silent_seconds: float) -> None:
        """The other side closed its connection before its request was answered, after such a silence."""
        if scope["method"] != "POST" or silent_seconds < SILENT_SECONDS or not _is_proxied(scope):
            return
        self._count += 1
        now = self._now()
        if now < self._tell_at:
            return
        log.warning(
            "a proxy closed its connection after %.1f s without a byte, while the answer to %.200s was being made: it"
            " waits too short, or its caller left (%d since this was last told); see %s",
            silent_seconds,
            scope["path"],
            self._count,
            PAGE,
        )
        self._count, self._tell_at = 0, now + TOLD_EVERY_SECONDS


def _is_proxied(scope: Mapping[str, Any]) -> bool:
    """nginx, left to its defaults, tells nothing of itself, but speaks HTTP/1.0 as no client of our day does."""
    return scope["http_version"] == "1.0" or any(name in PROXIED for name, _ in scope["headers"])


def silent_seconds(connection: socket.socket) -> float:
    """How long no byte has come or gone, as the kernel knows it, so that nothing need be noted as they go; 0 where it
    does not say."""
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TIMES_END)
    except (AttributeError, OSError):  # another system's; no TCP's, or closed
        return 0
    if len(told) < _TIMES_END:
        return 0
    times: tuple[int, int] = unpack_from("=I4xI", told, _TIMES_AT)
    return min(times) / 1000
