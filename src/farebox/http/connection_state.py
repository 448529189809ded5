"""What a connection from a caller keeps, made small: thousands are open at once."""

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

OF_UVICORN = (
    "access_log",
    "access_logger",
    "app",
    "app_state",
    "asgi_version",
    "client",
    "config",
    "connections",
    "cycle",
    "expect_100_continue",
    "flow",
    "headers",
    "limit_concurrency",
    "logger",
    "loop",
    "parser",
    "pipeline",
    "root_path",
    "scheme",
    "scope",
    "server",
    "server_state",
    "tasks",
    "timeout_keep_alive",
    "timeout_keep_alive_task",
    "transport",
    "ws_protocol_class",
)
"""What uvicorn's protocol keeps of a connection. In slots: an object with more than 30 attributes gets a table of its
own for them, of 1.6 KB."""


UNREAD_SECONDS = 60.0
"""How long a caller may take nothing of what it was sent, as nginx's `send_timeout`. Its machine may answer for it for
ever, so nothing else would end such an answer."""


class Flow(FlowControl):
    """uvicorn's, with an event only while the caller does not read (one takes 0.9 KB), and with an end to that."""

    _look: asyncio.TimerHandle | None = None

    def __init__(self, transport: asyncio.Transport, unread_seconds: float = UNREAD_SECONDS) -> None:
        self._transport = transport
        self._unread_seconds = unread_seconds
        self.read_paused = False
        self.write_paused = False

    async def drain(self) -> None:
        if self.write_paused:
            await self._is_writable_event.wait()

    def pause_writing(self) -> None:
        if not self.write_paused:
            self._is_writable_event = asyncio.Event()
            self._look_later()
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        super().resume_writing()

    def _look_later(self) -> None:
        waiting = self._transport.get_write_buffer_size()
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(self._unread_seconds, self._look_whether_taken, waiting)

    def _look_whether_taken(self, before: int) -> None:
        """Nothing is written meanwhile but what an answer may not wait with, so less waits if some was taken."""
        if self._transport.get_write_buffer_size() < before:
            self._look_later()
        else:
            self._transport.abort()


class Pipeline(list[Any]):
    """The requests behind the one that is answered; a deque that is empty takes 0.7 KB."""

    __slots__ = ()

    def appendleft(self, request: Any) -> None:
        self.insert(0, request)
