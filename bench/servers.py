"""The servers of a run: the upstream, and what stands before it. Each is a context: running inside, gone after."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.load import Target
from bench.processes import ENVIRONMENT, LOAD_CORE, free_port, outer_environment, process, rss_mb
from tools.postgres import Cluster, find

SETTLE_SECONDS = 1.0


class Missing(Exception):  # noqa: N818
    """A server cannot be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """What all servers ask: its URL, up to `/api/v1`; the authority that signed its certificate, where it has one; and
    where the same answers are without any server between."""

    url: str
    direct: Target
    authority: Path | None = None

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])


@dataclass(frozen=True, slots=True)
class Server:
    """What is measured: a process, how it is asked, its memory before anybody asked, and its books, if it has any."""

    name: str
    pid: int
    target: Target
    idle_rss_mb: float
    books: str = ""


Start = Callable[[Path, Upstream], AbstractContextManager[Server]]


@contextmanager
def started(
    name: str, command: list[str], folder: Path, target: Target, books: str = "", **env: str
) -> Iterator[Server]:
    """A server that is measured, on its core."""
    with process(command, target.port, folder, **{**ENVIRONMENT, **env}) as pid:
        time.sleep(SETTLE_SECONDS)
        yield Server(name, pid, target, rss_mb(pid), books)


def _openssl(folder: Path, *arguments: str) -> None:
    key = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run(["openssl", "req", *key, *arguments], cwd=folder, check=True, capture_output=True)


@contextmanager
def upstreams(folder: Path, core: int | str = LOAD_CORE) -> Iterator[tuple[Upstream, Upstream]]:
    """One process, as two upstreams: plain, and behind TLS with a certificate of an authority made for the run."""
    _openssl(folder, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Farebox benchmark")
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    by = ["-CA", "ca.pem", "-CAkey", "ca.key"]
    _openssl(folder, *by, "-keyout", "server.pem", "-out", "signed.pem", "-subj", "/CN=localhost", *names)
    certificate = folder / "server.pem"
    certificate.write_bytes(certificate.read_bytes() + (folder / "signed.pem").read_bytes())
    port, tls_port = free_port(), free_port()
    command = [sys.executable, "-m", "bench.peers", "upstream", str(port), str(tls_port), str(certificate)]
    direct = Target(port, ["none"])
    with process(command, port, folder, core, **ENVIRONMENT):
        yield (
            Upstream(f"http://127.0.0.1:{port}/api/v1", direct),
            Upstream(f"https://127.0.0.1:{tls_port}/api/v1", direct, folder / "ca.pem"),
        )


@contextmanager
def slow_upstream(folder: Path, seconds: float) -> Iterator[Upstream]:
    """Streams of an event each so many seconds, without end."""
    port = free_port()
    command = [sys.executable, "-m", "bench.peers", "slow-upstream", str(port), str(seconds)]
    with process(command, port, folder, LOAD_CORE, **ENVIRONMENT):
        yield Upstream(f"http://127.0.0.1:{port}/api/v1", Target(port, ["none"]))


@contextmanager
def bare(folder: Path, upstream: Upstream) -> Iterator[Server]:
    """Nothing but the stack. It trusts the upstream's authority by OpenSSL's own variable."""
    target = Target(free_port(), ["none"])
    command = [sys.executable, "-m", "bench.peers", "pass-through", str(target.port), upstream.url]
    trusted = {"SSL_CERT_FILE": str(upstream.authority)} if upstream.authority else {}
    with started("bare Starlette + aiohttp", command, folder, target, **trusted) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Farebox:
    """Farebox's code, and what it is told beside its books and the upstream."""

    name: str = "Farebox"
    tree: Path = field(default_factory=Path.cwd)
    settings: Mapping[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=lambda: [sys.executable, "-m", "farebox", "serve"])

    @property
    def environment(self) -> dict[str, str]:
        # Ahead of the Farebox that is installed.
        path = os.pathsep.join([str(self.tree / "src"), *sys.path])
        return {"PYTHONPATH": path, "OPENROUTER_API_KEY": "sk-or-none", **self.settings}

    def new_books(self, folder: Path, url: str, accounts: int = 1) -> list[str]:
        """Books with paying accounts, made by the commands an operator uses; a key of each."""
        environment = {**outer_environment(), **self.environment, "FAREBOX_DATABASE_URL": url}
        # A tree must not be measured for another: whichever is installed, this one comes first.
        where = [sys.executable, "-c", "import farebox; print(farebox.__file__)"]
        found = subprocess.run(where, check=True, env=environment, cwd=folder, capture_output=True, text=True).stdout
        assert Path(found).is_relative_to(self.tree), found

        def admin(*arguments: str) -> bytes:
            command = [sys.executable, "-m", "farebox", *arguments]
            done = subprocess.run(command, check=True, env=environment, cwd=folder, capture_output=True)
            return done.stdout

        admin("db", "upgrade")
        keys = []
        for number in range(accounts):
            admin("account", "create", f"bench-{number}", "--plan", "paying", "--prepaid", "1000000")
            keys.append(msgspec.json.decode(admin("key", "create", f"bench-{number}", "--json"), type=dict)["key"])
        return keys

    @contextmanager
    def start(self, folder: Path, upstream: Upstream, books: str = "") -> Iterator[Server]:
        """On SQLite where no database is named."""
        port = free_port()
        books = books or f"sqlite:///{folder}/farebox-{port}.db"
        target = Target(port, self.new_books(folder, books))
        told = {
            **self.environment,
            "FAREBOX_DATABASE_URL": books,
            "FAREBOX_UPSTREAM_URL": upstream.url,
            "FAREBOX_PORT": str(port),
        }
        with started(self.name, self.command, folder, target, books, **told) as server:
            yield server


@contextmanager
def farebox(folder: Path, upstream: Upstream) -> Iterator[Server]:
    """This tree's, told of the upstream's authority by its own setting."""
    trusted = {"FAREBOX_CA_FILE": str(upstream.authority)} if upstream.authority else {}
    with Farebox(settings=trusted).start(folder, upstream) as server:
        yield server


@contextmanager
def postgres() -> Iterator[Cluster]:
    """A database server whose commits are on disk."""
    programs = find()
    if programs is None:
        raise Missing("PostgreSQL is not installed (Debian: postgresql)")
    cluster = Cluster(programs)
    try:
        cluster.stop()
        cluster.start(is_durable=True)
        yield cluster
    finally:
        cluster.remove()


NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream fixed {{ server 127.0.0.1:{upstream}; keepalive 512; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048; keepalive_requests 10000000;
    location / {{
      proxy_pass {scheme}://fixed; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; {tls}
    }}
  }}
}}
"""
NGINX_TLS = (
    "proxy_ssl_verify on; proxy_ssl_trusted_certificate {authority}; proxy_ssl_name localhost; "
    "proxy_ssl_server_name on;"
)


@contextmanager
def nginx(folder: Path, upstream: Upstream) -> Iterator[Server]:
    """Debian's, installed where it is missing and may be."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    if not shutil.which("nginx", path=path) and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run("apt-get update -qq && apt-get install -y -qq nginx-light", shell=True, capture_output=True)
    program = shutil.which("nginx", path=path)
    if not program:
        raise Missing("is not installed and could not be (Debian: nginx-light)")
    target = Target(free_port(), ["none"])
    tls = NGINX_TLS.format(authority=upstream.authority) if upstream.authority else ""
    scheme = "https" if upstream.authority else "http"
    config = folder / f"nginx-{target.port}.conf"
    config.write_text(NGINX.format(folder=folder, port=target.port, upstream=upstream.port, scheme=scheme, tls=tls))
    command = [program, "-p", str(folder), "-c", str(config)]
    with started("nginx proxy_pass", command, folder, target) as server:
        yield server


OURS: tuple[Start, ...] = (bare, farebox, nginx)


@contextmanager
def standing(folder: Path, upstream: Upstream, starts: tuple[Start, ...]) -> Iterator[list[Server]]:
    """Those that can be had, all at once; a line is printed for each that cannot."""
    with ExitStack() as stack:
        found = []
        for start in starts:
            try:
                found.append(stack.enter_context(start(folder, upstream)))
            except Missing as why:
                print(f"\n{start.__name__} {why}: its rows are left out", flush=True)
        yield found
