"""Running the app on a socket, with uvicorn: in this process, or in several."""

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

from farebox import clock
from farebox.http.server import KEEP_ALIVE_MARGIN_SECONDS, BoundedHttp
from farebox.settings import Settings
from farebox.telemetry.logs import start as start_log
from farebox.telemetry.metrics import FOLDER_VARIABLE, SINCE_VARIABLE

OTHER_FILES = 500
"""Open files besides those of connections: books, locks, logs, and connections over the limit, which get a 429."""

CLOSE_SECONDS = 5
"""How long requests that are not orders may go on, after the grace period of orders."""

WORKER_SECONDS = 10
"""How long a worker may not respond before its parent kills it with all its orders. Long, since a machine may swap, or
have been asleep."""


PORT_MAX = 65535


class CannotListen(Exception):  # noqa: N818 - the word of the house
    """The message says whether the address or the port is wrong."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises CannotListen."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = (
                f"--port: {port} on {host} is taken by another program; choose another by FAREBOX_PORT or --port"
                f" (FAREBOX_PORT={port + 1 if port < PORT_MAX else PORT_MAX - 1}), or 0 for any free one"
            )
        else:
            message = f"--host: cannot listen on {host!r}, port {port}: {error.strerror or error}"
        raise CannotListen(message) from error


def run(settings: Settings, app: ASGIApp, bound: socket.socket) -> None:
    """Serve until a signal. With several workers `app` is not used: each makes its own from the settings."""
    # Until it is heard: on it the file of settings is read again (reloading.py).
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _allow_files(2 * settings.connections_max + OTHER_FILES)
    start_log()
    # Workers are new processes that read the settings themselves: the command line's go along in the environment.
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
    exit_cleanly_on_signals()
    if settings.workers > 1:
        with TemporaryDirectory(prefix="farebox-metrics-") as folder:
            os.environ[FOLDER_VARIABLE] = folder
            os.environ[SINCE_VARIABLE] = str(clock.now_us())
            _Workers(config, sockets=[bound]).run()
    else:
        uvicorn.Server(config).run(sockets=[bound])


def _allow_files(wanted: int) -> None:
    """Raise the limit of open files, which is low by default: every connection is one, and an order has two."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if now != resource.RLIM_INFINITY and granted > now:
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, most))


class _Workers(Multiprocess):
    """Passes a second signal on to its workers, too, and SIGHUP, on which they read the file of settings again."""

    def handle_hup(self) -> None:
        for each in self.processes:
            if each.process.is_alive() and each.pid is not None:
                os.kill(each.pid, signal.SIGHUP)

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


def exit_cleanly_on_signals() -> None:
    """Exit with status 0 after a stop: uvicorn raises the signal that stopped it once more, which would end the process
    with a failure."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: None)
