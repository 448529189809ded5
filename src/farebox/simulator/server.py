"""Serving the simulator: on a port of its own, or inside a process that needs an upstream."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from farebox.simulator import As
from farebox.simulator.app import BASE_PATH, TRANSPORT, Simulator


class _BreakableHttp(HttpToolsProtocol):
    """Gives the app the connection's transport, for faults that break it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[TRANSPORT] = self.transport


class _QuietServer(uvicorn.Server):
    """A server that does not take over the process's signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: Simulator) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_BreakableHttp,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="critical",
        server_header=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,  # longer than a client keeps its own: an order lost to a closing connection is charged
    )


def serve(bound: socket.socket, as_: As = "openrouter") -> None:
    """Serve until the process is told to stop."""
    uvicorn.Server(_config(Simulator(as_))).run(sockets=[bound])


@contextmanager
def embedded() -> Iterator[str]:
    """A simulator on a free loopback port, in a thread of this process, for as long as the block runs: its base URL."""
    bound = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = _QuietServer(_config(Simulator()))
    # asyncio's own loop leaves Nagle's algorithm on where the socket was bound before (uvicorn's issue 3149): each body
    # would wait 40 ms for its head to be acknowledged.
    thread = threading.Thread(
        target=lambda: uvloop.run(server.serve(sockets=[bound])), name="farebox-simulator", daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}{BASE_PATH}"
    finally:
        server.should_exit = True
        thread.join(timeout=5)
