"""Running a server in this process, or in several: what stands between an app and its socket."""

import errno
import os
import resource
import signal
import socket
import time
from tempfile import TemporaryDirectory

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from farebox.http.server import KEEP_ALIVE_MARGIN_SECONDS, BoundedHttp
from farebox.settings import Settings
from farebox.telemetry.logs import start as start_log
from farebox.telemetry.metrics import FOLDER_VARIABLE

OTHER_FILES = 500
"""Books, locks, logs, and connections that are told to come back."""

CLOSE_SECONDS = 5
"""How long requests may go on that are no orders, once those have had their grace."""

WORKER_SECONDS = 10
"""How long a worker may be deaf before its parent kills it, with all that it serves: a machine that swaps, or was
asleep, is not a dead one."""


class CannotListen(Exception):  # noqa: N818 - the word of the house
    """Which of address and port is wrong."""


def listen(host: str, port: int) -> socket.socket:
    """Raises CannotListen."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"--port: {port} on {host} is taken by another program; choose another, or 0 for any free one"
        else:
            message = f"--host: cannot listen on {host!r}, port {port}: {error.strerror or error}"
        raise CannotListen(message) from error


def run(settings: Settings, app: ASGIApp, bound: socket.socket) -> None:
    """Serve until told to stop. Several workers make their apps themselves, from the settings."""
    _allow_files(2 * settings.connections_max + OTHER_FILES)
    start_log()
    # Workers are new processes: they read the settings for themselves, so what the command line said goes along.
    for name in ("host", "port", "workers", "database_url", "upstream_url", "public_url"):
        if (value := getattr(settings, name)) is not None:
            os.environ[f"FAREBOX_{name.upper()}"] = str(value)
    config = uvicorn.Config(
        "farebox.app:create" if settings.workers > 1 else app,
        factory=settings.workers > 1,
        workers=settings.workers,
        http=BoundedHttp,
        ws="none",
        loop="uvloop",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.connections_max,
        timeout_keep_alive=settings.keep_alive_seconds + KEEP_ALIVE_MARGIN_SECONDS,
        timeout_worker_healthcheck=WORKER_SECONDS,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        backlog=2048,
    )
    stop_in_order()
    if settings.workers > 1:
        with TemporaryDirectory(prefix="farebox-metrics-") as folder:
            os.environ[FOLDER_VARIABLE] = folder
            _Workers(config, sockets=[bound]).run()
    else:
        uvicorn.Server(config).run(sockets=[bound])


def _allow_files(wanted: int) -> None:
    """A connection is a file to the system, which allows few unless it is asked; an order has two."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if now != resource.RLIM_INFINITY and granted > now:
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, most))


class _Workers(Multiprocess):
    """Told to stop a second time, it tells its workers again."""

    def join_all(self) -> None:
        self.signal_queue.clear()
        while any(each.process.is_alive() for each in self.processes):
            time.sleep(0.05)
            while self.signal_queue:
                self.signal_queue.pop()
                for each in self.processes:
                    if each.process.is_alive() and each.pid is not None:
                        os.kill(each.pid, signal.SIGTERM)
        super().join_all()


def stop_in_order() -> None:
    """uvicorn stops on these by itself, then raises them once more; to have stopped in order is no failure."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: None)
