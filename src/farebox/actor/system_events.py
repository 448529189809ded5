"""The platform's system events, over a WebSocket: that a run is aborted, or moves to another machine.

Facts: frames are texts, `{"name", "data"}`; an idle Standby run gets `aborting` 15 s before its stop signal and 30 s
before it is killed; `migrating` comes a few seconds before its machine is stopped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import aiohttp
import msgspec
from msgspec import Struct

from farebox.background import Supervisor, Task
from farebox.connectors import connector, session_options
from farebox.core.reading import UNREADABLE
from farebox.from_settings import way_to
from farebox.outgoing import WayOut
from farebox.settings import Settings

log = logging.getLogger("farebox")

RETRY_SECONDS = 1.0
MESSAGE_BYTES_MAX = 1024 * 1024


class _Data(Struct, rename="camel"):
    time_remaining_secs: float | None = None


class SystemEvent(Struct, frozen=True):
    """One of the platform's system events."""

    name: str
    data: _Data | None = None

    @property
    def remaining_seconds(self) -> float | None:
        """Until this machine is stopped, where it says so."""
        return self.data.time_remaining_secs if self.data is not None else None


def _read(frame: str) -> SystemEvent | None:
    try:
        return msgspec.json.decode(frame, type=SystemEvent)
    except UNREADABLE:
        return None


def listening(
    url: str | None, settings: Settings, heard: Callable[[SystemEvent], Awaitable[None]], supervisor: Supervisor
) -> AbstractAsyncContextManager[None]:
    """Hand each system event to `heard`, for as long as the block runs; none where there is no URL."""
    if url is None:
        return nullcontext()
    return supervisor.running(Task("platform_events", partial(_listen, url, way_to(url, settings), heard)))


async def _listen(url: str, way: WayOut, heard: Callable[[SystemEvent], Awaitable[None]]) -> None:
    """Connects again whenever the connection ends; runs until cancelled."""
    async with aiohttp.ClientSession(connector=connector(way), **session_options(way)) as session:
        while True:
            try:
                async with session.ws_connect(url, max_msg_size=MESSAGE_BYTES_MAX, heartbeat=30) as socket:
                    async for message in socket:
                        event = _read(message.data) if message.type is aiohttp.WSMsgType.TEXT else None
                        if event is not None:
                            await heard(event)
            except (aiohttp.ClientError, OSError) as error:
                # A signal will say the same. The URL may hold a secret, so it is not logged.
                log.warning("the platform's events cannot be heard: %s", type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)
