"""Many slow streams at once: memory a stream, CPU an event. Few streams bring as many events a second as many, so that
only their number differs."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import cast

import uvloop

from bench.load import Target
from bench.processes import cpu_seconds, rss_mb
from bench.servers import Farebox, Server, Start, bare, nginx, slow_upstream, standing

FEW = 100
EVENTS_PER_SECOND = 2_000
AT_ONCE = 50
"""How many are opened together."""

WARM_UP, WARM_UPS = 10, 5
"""How many streams are opened and closed before, how often: what a server loads and allocates once is no stream's."""

OPEN_SECONDS = 60


class _Stream(asyncio.Protocol):
    """Reads a stream and counts its events."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.events = 0
        self.has_begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.events += data.count(b"data: ")
        if self.events and not self.has_begun.done():
            self.has_begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.has_begun.done():
            self.has_begun.set_exception(ConnectionError("a stream was refused"))


async def _open(target: Target, number: int) -> list[_Stream]:
    """So many streams, each of which has begun."""
    found: list[_Stream] = []
    made = partial(_Stream, target.request(0, streamed=True))
    loop = asyncio.get_running_loop()
    while len(found) < number:
        several = range(min(AT_ONCE, number - len(found)))
        new = [(await loop.create_connection(made, "127.0.0.1", target.port))[1] for _ in several]
        async with asyncio.timeout(OPEN_SECONDS):
            await asyncio.gather(*(each.has_begun for each in new))
        found += new
    return found


async def _close(streams: list[_Stream]) -> None:
    for each in streams:
        each.transport.abort()
    await asyncio.sleep(1)


async def _measure(server: Server, number: int, seconds: float) -> str:
    for _ in range(WARM_UPS):
        await _close(await _open(server.target, WARM_UP))
    before_mb = rss_mb(server.pid)
    streams = await _open(server.target, number)
    await asyncio.sleep(1)
    events, cpu, began = sum(each.events for each in streams), cpu_seconds(server.pid), time.monotonic()
    await asyncio.sleep(seconds)
    cpu, took = cpu_seconds(server.pid) - cpu, time.monotonic() - began
    events = sum(each.events for each in streams) - events
    grown_kb = (rss_mb(server.pid) - before_mb) * 1000 / number
    assert not any(each.transport.is_closing() for each in streams), f"{server.name}: a stream ended"
    await _close(streams)
    return f"| {server.name} | {number:,} | {events / took:,.0f} | {cpu / events * 1e6:.1f} | {grown_kb:.1f} |"


def tables(folder: Path, many: int, seconds: float) -> None:
    """Few streams and many, on servers that are new for each."""
    settings = {
        "FAREBOX_ORDERS_MAX": str(2 * many),
        "FAREBOX_ACCOUNT_ORDERS_MAX": str(2 * many),
        # What the streams of the warm-up came to is not asked for while others are measured.
        "FAREBOX_RECONCILE_SECONDS": "0",
    }
    starts: tuple[Start, ...] = (bare, Farebox(settings=settings).start, nginx)
    print("\nslow streams, as many events a second for few as for many\n", flush=True)
    print("| server | open streams | events/s | CPU us/event | RSS KB/stream |\n|---|---|---|---|---|", flush=True)
    for number in (FEW, many):
        with slow_upstream(folder, number / EVENTS_PER_SECOND) as upstream:
            for start in starts:
                with standing(folder, upstream, (start,)) as found:
                    for server in found:
                        print(uvloop.run(_measure(server, number, seconds)), flush=True)
