"""`make bench`: Farebox beside a bare pass-through of the same stack and nginx, in one run on one machine.

Each is one process on one core; the load and the upstream share the other. CPU time is the process's own, from /proc.
"""

import argparse
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bench.load import Result
from bench.peers import EVENT_SECONDS, STREAM_EVENTS

LOADS = (("whole", 64), ("streamed", 100), ("whole", 1), ("streamed", 1))
"""The kind of answer, and how many are asked for at a time: enough to fill a core, and one after the other."""

TICKS = os.sysconf("SC_CLK_TCK")

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream fixed {{ server 127.0.0.1:{upstream}; keepalive 512; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048; keepalive_requests 10000000;
    location / {{
      proxy_pass http://fixed; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """What is measured: a process and where it listens. The upstream itself is one of them, to measure against."""

    name: str
    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One server under one load."""

    server: Server
    result: Result
    cpu_seconds: float
    rss_mb: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds a request."""
        return self.cpu_seconds / self.result.requests * 1e6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, folder: Path, core: int | str, **environment: str) -> Iterator[int]:
    """A server in a process of its own, pinned to a core or some, ready when its port answers."""
    with (folder / f"{port}.log").open("wb") as log:
        running = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, **environment},
        )
        try:
            _await_port(port, running)
            yield running.pid
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(timeout=30)


def _await_port(port: int, running: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if running.poll() is not None:
            raise RuntimeError(f"{running.args!r} ended at once")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{running.args!r} does not listen")


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


def cpu_seconds(pid: int) -> float:
    fields = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in _family(pid)]
    return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS


def rss_mb(pid: int) -> float:
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in _family(pid))
    return pages * resource.getpagesize() / 1e6


def measure(server: Server, token: str, kind: str, connections: int, seconds: float) -> Measured:
    def load(for_seconds: float) -> Result:
        command = [
            sys.executable,
            "-m",
            "bench.load",
            str(server.port),
            token,
            kind,
            str(connections),
            str(for_seconds),
        ]
        done = subprocess.run(["taskset", "-c", "1", *command], capture_output=True, check=True, timeout=60)
        return msgspec.json.decode(done.stdout, type=Result)

    load(1.0)
    before = cpu_seconds(server.pid)
    result = load(seconds)
    assert not result.failures, f"{server.name}: {result.failures} of {result.requests} failed"
    return Measured(server, result, cpu_seconds(server.pid) - before, rss_mb(server.pid))


HEADER = (
    "| server | requests/s | CPU us/request | CPU us/event | x bare | p50 ms | p99 ms | first byte +ms | RSS MB |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def row(measured: Measured, bare: Measured, direct: Result, *, streamed: bool) -> str:
    """A line of the table; the first byte's is what the server adds to the upstream's own."""
    result = measured.result
    cells = (
        measured.server.name,
        f"{result.requests / result.seconds:,.0f}",
        f"{measured.cpu_us:,.0f}",
        f"{measured.cpu_us / STREAM_EVENTS:.1f}" if streamed else "-",
        f"{measured.cpu_us / bare.cpu_us:.2f}",
        f"{result.p50 * 1000:.2f}",
        f"{result.p99 * 1000:.2f}",
        f"{(result.first_byte_p50 - direct.first_byte_p50) * 1000:.2f}",
        f"{measured.rss_mb:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def farebox_command(folder: Path, upstream: int, port: int) -> tuple[list[str], str]:
    """Books with one paying account, made by the commands an operator uses; the server that reads them; a key."""
    farebox = [sys.executable, "-m", "farebox"]
    books = f"sqlite:///{folder}/farebox.db"

    def admin(*arguments: str) -> dict[str, str]:
        command = [*farebox, *arguments, "--database-url", books, "--json"]
        return msgspec.json.decode(subprocess.run(command, capture_output=True, check=True).stdout, type=dict)

    admin("db", "upgrade")
    admin("account", "create", "bench", "--plan", "paying", "--prepaid", "100000")
    key = admin("key", "create", "bench")["key"]
    url = f"http://127.0.0.1:{upstream}/api/v1"
    return [*farebox, "serve", "--port", str(port), "--database-url", books, "--upstream", url], key


def find_nginx() -> str | None:
    """Debian's nginx, installed where it is missing and may be."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    if not shutil.which("nginx", path=path) and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run("apt-get update -qq && apt-get install -y -qq nginx-light", shell=True, capture_output=True)
    return shutil.which("nginx", path=path)


@contextmanager
def servers(folder: Path) -> Iterator[tuple[Server, list[Server], str]]:
    """The upstream, what stands before it (the bare pass-through first), and a key."""
    environment = {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    with ExitStack() as stack:

        def start(name: str, command: list[str], port: int, core: int = 0) -> Server:
            return Server(name, stack.enter_context(process(command, port, folder, core, **environment)), port)

        ports = [free_port() for _ in range(4)]
        peers = [sys.executable, "-m", "bench.peers"]
        upstream = start("upstream", [*peers, "upstream", str(ports[0])], ports[0], core=1)
        bare = [*peers, "pass-through", str(ports[1]), str(upstream.port)]
        command, key = farebox_command(folder, upstream.port, ports[2])
        found = [start("bare Starlette + aiohttp", bare, ports[1]), start("Farebox", command, ports[2])]
        if nginx := find_nginx():
            config = folder / "nginx.conf"
            config.write_text(NGINX.format(folder=folder, port=ports[3], upstream=upstream.port))
            found.append(start("nginx proxy_pass", [nginx, "-p", str(folder), "-c", str(config)], ports[3]))
        else:
            print("nginx is not installed and could not be (Debian: nginx-light): its rows are left out")
        yield upstream, found, key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each load runs")
    parser.add_argument("--only", choices=["whole", "streamed"], help="one kind of load")
    parser.add_argument(
        "--transfers", type=int, default=10_000_000, help="in the ledger that is large; 0: leave it out"
    )
    options = parser.parse_args()
    # On the project's own disk: /tmp may be memory, where an fsync costs nothing.
    with TemporaryDirectory(prefix="farebox-bench-", dir=Path.cwd()) as name:
        folder = Path(name)
        with servers(folder) as (upstream, measured_servers, key):
            for kind, connections in LOADS:
                if options.only in (None, kind):
                    compare(upstream, measured_servers, key, kind, connections, options.seconds)
        audit = [sys.executable, "-m", "farebox", "audit", "--database-url", f"sqlite:///{folder}/farebox.db"]
        print("\nfarebox audit after the load:", flush=True)
        subprocess.run(audit, check=True)
    if options.only is None:
        command = [sys.executable, "-m", "bench.scale", str(options.seconds), str(options.transfers)]
        subprocess.run(command, check=True)


def compare(upstream: Server, found: list[Server], key: str, kind: str, connections: int, seconds: float) -> None:
    """One load on each server in turn."""
    streamed = kind == "streamed"
    paced = f"streams of {STREAM_EVENTS} events, {EVENT_SECONDS * 1000:g} ms apart"
    what = paced if streamed else "whole answers"
    print(f"\n{what}, {connections} at a time, {seconds:g} s each\n\n{HEADER}", flush=True)
    direct = measure(upstream, key, kind, connections, seconds / 4).result
    bare: Measured | None = None
    for server in found:
        measured = measure(server, key, kind, connections, seconds)
        bare = bare or measured
        print(row(measured, bare, direct, streamed=streamed), flush=True)


if __name__ == "__main__":
    main()
