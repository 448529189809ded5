"""How a server stops on a signal, or a worker when its parent has died: it takes no more orders, and running ones have
a grace period before they are broken off.

Meanwhile it goes on listening, so that `/readyz` says that it is leaving, and new orders get a 429. Only then is the
signal passed on to uvicorn, which closes the socket.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from time import monotonic

from farebox.admission import Admission

SIGNALS = (signal.SIGINT, signal.SIGTERM)

AGAIN_SECONDS = 1.0
"""A signal that follows another one sooner than this is the same: a terminal and systemd signal every process of a
group, and the parent of several workers signals each once more."""

LAST_WORDS_SECONDS = 5.0
"""How long orders that are broken off may take to tell their callers and to be booked."""

_POLL_SECONDS = 0.05


@contextmanager
def stopping_gracefully(admission: Admission, grace_seconds: float) -> Iterator[None]:
    """Take over SIGINT and SIGTERM from uvicorn for as long as the block runs: the first stops admission, a later one
    ends the grace period. On the main thread only."""
    servers = {each: signal.getsignal(each) for each in SIGNALS}
    stop = _Stop(admission, grace_seconds, lambda: _pass_on(servers[signal.SIGTERM]))
    try:
        with on_stop(stop.hear), _on_parents_death(stop.hear):
            yield
    finally:
        for each, server in servers.items():
            signal.signal(each, server)


@contextmanager
def on_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on each SIGINT and SIGTERM for as long as the block runs. On the main thread only."""
    loop = asyncio.get_running_loop()
    for each in SIGNALS:
        loop.add_signal_handler(each, stop)
    try:
        yield
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)


@contextmanager
def _on_parents_death(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` when this is a worker whose parent has died, however: nobody else would stop it, or begin a new one
    in its place, and as long as it listened no other server could."""
    parent = parent_process()
    if parent is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def hear() -> None:
        loop.remove_reader(parent.sentinel)
        stop()

    loop.add_reader(parent.sentinel, hear)
    try:
        yield
    finally:
        loop.remove_reader(parent.sentinel)


def _pass_on(handler: object) -> None:
    assert callable(handler), handler
    handler(signal.SIGTERM, None)


class _Stop:
    def __init__(self, admission: Admission, grace_seconds: float, stop_server: Callable[[], None]) -> None:
        self._admission = admission
        self._grace_seconds = grace_seconds
        self._stop_server = stop_server
        self._first_at: float | None = None
        self._is_hurried = False
        self._stopping: asyncio.Task[None] | None = None

    def hear(self) -> None:
        if self._first_at is None:
            self._first_at = monotonic()
            self._admission.close()
            self._stopping = asyncio.create_task(self._run())
        elif monotonic() - self._first_at > AGAIN_SECONDS:
            self._is_hurried = True

    async def _run(self) -> None:
        await self._wait(self._grace_seconds, lambda: self._is_hurried)
        self._admission.break_off()
        await self._wait(LAST_WORDS_SECONDS, lambda: False)
        self._stop_server()

    async def _wait(self, seconds: float, is_over: Callable[[], bool]) -> None:
        """Wait until no order is left, or `is_over`, or for so many seconds."""
        until = monotonic() + seconds
        while self._admission.orders and monotonic() < until and not is_over():  # noqa: ASYNC110 - three ways to end
            await asyncio.sleep(_POLL_SECONDS)
