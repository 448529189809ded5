"""How a server stops on a signal: it takes no more orders, and running ones get their grace before they are broken off.

It goes on listening meanwhile, so that whoever asks `/readyz` sees it leave, and who orders is told to come back. Only
then does the server underneath hear of the signal.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from farebox.admission import Admission

SIGNALS = (signal.SIGINT, signal.SIGTERM)

AGAIN_SECONDS = 1.0
"""A signal that comes sooner after another is the same: a terminal and systemd tell every process of a group, and the
parent of several workers tells each once more."""

LAST_WORDS_SECONDS = 5.0
"""How long answers that are broken off may take to say so and to be booked."""

_POLL_SECONDS = 0.05


@contextmanager
def stopping_in_order(admission: Admission, grace_seconds: float) -> Iterator[None]:
    """Take over SIGINT and SIGTERM from the server, for as long as the block runs. On the main thread only."""
    loop = asyncio.get_running_loop()
    servers = {each: signal.getsignal(each) for each in SIGNALS}
    stop = _Stop(admission, grace_seconds, lambda: _hear(servers[signal.SIGTERM]))
    for each in SIGNALS:
        loop.add_signal_handler(each, stop.hear)
    try:
        yield
    finally:
        for each, server in servers.items():
            loop.remove_signal_handler(each)
            signal.signal(each, server)


@contextmanager
def on_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGINT and SIGTERM, for as long as the block runs. On the main thread only."""
    loop = asyncio.get_running_loop()
    for each in SIGNALS:
        loop.add_signal_handler(each, stop)
    try:
        yield
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)


def _hear(server: object) -> None:
    assert callable(server), server
    server(signal.SIGTERM, None)


class _Stop:
    def __init__(self, admission: Admission, grace_seconds: float, tell_server: Callable[[], None]) -> None:
        self._admission = admission
        self._grace_seconds = grace_seconds
        self._tell_server = tell_server
        self._first_at: float | None = None
        self._is_hurried = False
        self._work: asyncio.Task[None] | None = None

    def hear(self) -> None:
        if self._first_at is None:
            self._first_at = monotonic()
            self._admission.close()
            self._work = asyncio.create_task(self._run())
        elif monotonic() - self._first_at > AGAIN_SECONDS:
            self._is_hurried = True

    async def _run(self) -> None:
        await self._wait(self._grace_seconds, lambda: self._is_hurried)
        self._admission.break_off()
        await self._wait(LAST_WORDS_SECONDS, lambda: False)
        self._tell_server()

    async def _wait(self, seconds: float, is_over: Callable[[], bool]) -> None:
        """Until no order is left, and no longer than that."""
        until = monotonic() + seconds
        while self._admission.orders and monotonic() < until and not is_over():  # noqa: ASYNC110 - three ways to end
            await asyncio.sleep(_POLL_SECONDS)
