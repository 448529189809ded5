"""What the platform tells a run over a WebSocket: that it is aborted, or moves to another machine.

Facts: frames are texts, `{"name", "data"}`; an idle Standby run gets `aborting` 15 s before it is told to stop and 30 s
before it is killed; `migrating` comes a few seconds before.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
from msgspec import Struct

from farebox.core.reading import UNREADABLE

log = logging.getLogger("farebox")

RETRY_SECONDS = 1.0
MESSAGE_BYTES_MAX = 1024 * 1024


class Event(Struct, frozen=True):
    name: str
    remaining_seconds: float | None = None


class _Data(Struct, rename="camel"):
    time_remaining_secs: float | None = None


class _Frame(Struct):
    name: str
    data: _Data | None = None


def read_event(frame: str) -> Event | None:
    """None where it is no event."""
    try:
        read = msgspec.json.decode(frame, type=_Frame)
    except UNREADABLE:
        return None
    return Event(read.name, read.data.time_remaining_secs if read.data is not None else None)


async def listen(url: str, heard: Callable[[Event], Awaitable[None]]) -> None:
    """Hand on each event. Connects again whenever the connection ends; runs until cancelled."""
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.ws_connect(url, max_msg_size=MESSAGE_BYTES_MAX, heartbeat=30) as socket:
                    async for message in socket:
                        if message.type is aiohttp.WSMsgType.TEXT and (event := read_event(message.data)) is not None:
                            await heard(event)
            except (aiohttp.ClientError, OSError) as error:
                # A signal will say the same; the URL may hold a secret, so it is not told.
                log.warning("the platform's events cannot be heard: %s", type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)
