"""Servers in processes of their own, pinned to a core, and what they use of it: from /proc, with all their children."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

SERVER_CORE, LOAD_CORE = 0, 1
"""Who is measured has a core alone; the upstream, a database and the load share the other."""

START_SECONDS = 120
END_SECONDS = 30

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}


def outer_environment() -> dict[str, str]:
    """The machine's, without what a person has set for a Farebox of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FAREBOX_")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a run, on the project's own disk: /tmp may be memory, where an fsync costs nothing. Files may be
    opened by the thousand, and whoever ends the run ends its servers, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with TemporaryDirectory(prefix="farebox-bench-", dir=Path.cwd()) as name:
        yield Path(name)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this process there meanwhile, and those that it starts without saying where."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def process(
    command: list[str], port: int, folder: Path, core: int | str = SERVER_CORE, **environment: str
) -> Iterator[int]:
    """A server, ready when its port answers; RuntimeError where it never does. Yields its process's id."""
    own = folder / str(port)
    own.mkdir()
    environment = {**outer_environment(), **environment}
    with (own / "log").open("wb") as log:
        running = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=log, stderr=log, cwd=own, env=environment
        )
        try:
            _await_port(port, running, own / "log")
            yield running.pid
        finally:
            family = _family(running.pid)
            running.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                running.wait(timeout=END_SECONDS)
            for left in family if running.poll() is None else family[1:]:
                with suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
            running.wait()
            shutil.rmtree(own, ignore_errors=True)


def _await_port(port: int, running: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and running.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    said = log.read_text(errors="replace").strip().rpartition("\n")[2]
    raise RuntimeError(f"{running.args!r} does not listen: {said}")


def _family(pid: int) -> list[int]:
    """A process and all that came of it and are there still."""
    found = [pid]
    for each in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, its threads and its children so far. The kernel counts it by the nanosecond here, where
    /proc/PID/stat rounds to ticks of 10 ms."""
    nanos = 0
    for each in _family(pid):
        for thread in Path(f"/proc/{each}/task").glob("*/schedstat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                nanos += int(thread.read_text().split()[0])
    return nanos / 1e9


def rss_mb(pid: int) -> float:
    pages = 0
    for each in _family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
