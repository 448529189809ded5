"""Forward proxies between a gateway and what it asks: one that misbehaves as it is told, and Debian's tinyproxy."""

import base64
import select
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from typing import cast
from urllib.parse import urlsplit

from tests.conftest import debian_extract, missing

USER, PASSWORD = "me", "hunter2 @:/%"
"""The password has what must be escaped in a URL, as it is in ESCAPED."""

ESCAPED = "hunter2%20%40%3A%2F%25"
CREDENTIALS = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

HTML = b"<!doctype html><title>Blocked</title><p>Ask your administrator.</p>"
PAGE = b"content-type: text/html\r\ncontent-length: %d\r\n\r\n%b" % (len(HTML), HTML)

ANSWERS = {
    "forbidden": b"HTTP/1.1 403 Forbidden\r\n" + PAGE,
    "credentials": b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n" + PAGE,
    "html": HTML,
    "closes": b"",
}
"""What the proxy says instead of passing a request on."""


@dataclass
class ForwardProxy:
    """Knows the `ports` of names, and no other. It `behaves` as told: passes on, says one of ANSWERS, or `hangs`."""

    ports: dict[str, int] = field(default_factory=dict)
    behaves: str = "passes on"
    heard: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, target and credentials of each request."""

    port: int = 0
    _open: list[socket.socket] = field(default_factory=list)
    _stops: Event = field(default_factory=Event)

    @property
    def url(self) -> str:
        return f"http://{USER}:{ESCAPED}@127.0.0.1:{self.port}"

    def turn(self, behaves: str) -> None:
        """Behave so from now on; tunnels that are open are closed."""
        self.behaves = behaves
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    @contextmanager
    def serving(self) -> Iterator["ForwardProxy"]:
        handler = type("Handler", (_Handler,), {"proxy": self})
        with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            self.port = server.server_address[1]
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            try:
                yield self
            finally:
                self._stops.set()
                self.turn("closes")
                server.shutdown()


class _Handler(StreamRequestHandler):
    proxy: ForwardProxy

    def handle(self) -> None:
        proxy = self.proxy
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            lines.append(line)
        if not lines:
            return
        method, target, version = lines[0].decode().split()
        sent = [line for line in lines[1:] if not line.lower().startswith(b"proxy-")]
        credentials = [line for line in lines[1:] if line.lower().startswith(b"proxy-authorization:")]
        proxy.heard.append((method, target, credentials[0].partition(b":")[2].strip().decode() if credentials else ""))
        if proxy.behaves == "hangs":
            proxy._stops.wait(30)
        elif proxy.behaves in ANSWERS:
            self.wfile.write(ANSWERS[proxy.behaves])
        else:
            url = urlsplit(f"//{target}" if method == "CONNECT" else target)
            with socket.create_connection(("127.0.0.1", proxy.ports[url.hostname or ""])) as behind:
                proxy._open += [self.connection, behind]
                if method == "CONNECT":
                    self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = f"{url.path}?{url.query}" if url.query else url.path
                    behind.sendall(b"".join([f"{method} {path} {version}\r\n".encode(), *sent, b"\r\n"]))
                    if _has_body(sent):
                        behind.sendall(cast(BufferedReader, self.rfile).peek())
                _pipe(self.connection, behind)


def _has_body(lines: list[bytes]) -> bool:
    return any(line.lower().startswith(b"content-length:") and line.split(b":")[1].strip() != b"0" for line in lines)


def _pipe(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while True:
            for each in select.select([one, other], [], [])[0]:
                data = each.recv(65536)
                if not data:
                    return
                (other if each is one else one).sendall(data)


# TLS, by an authority of one's own


@dataclass(frozen=True)
class Authority:
    """A private authority: its certificate, and a server's for some names with the key in the same file."""

    file: Path
    server: Path


def private_authority(folder: Path, *names: str) -> Authority:
    authority, server, signed = folder / "ca.pem", folder / "server.pem", folder / "signed"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    _openssl("req", "-x509", *key, "-keyout", str(folder / "ca.key"), "-out", str(authority), "-subj", "/CN=Private")
    _openssl("req", *key[:-2], "-keyout", str(server), "-out", str(folder / "request"), "-subj", "/CN=server")
    (folder / "names").write_text(f"subjectAltName={','.join(names)}")
    by = ["-CA", str(authority), "-CAkey", str(folder / "ca.key"), "-CAcreateserial", "-days", "2"]
    _openssl(
        "x509", "-req", "-in", str(folder / "request"), *by, "-extfile", str(folder / "names"), "-out", str(signed)
    )
    server.write_bytes(server.read_bytes() + signed.read_bytes())
    return Authority(authority, server)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@contextmanager
def behind_tls(authority: Authority, port: int) -> Iterator[int]:
    """A port that speaks TLS, and passes on to another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server)

    class Front(StreamRequestHandler):
        def handle(self) -> None:
            with (
                suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as caller,
                socket.create_connection(("127.0.0.1", port)) as behind,
            ):
                Thread(target=_copy, args=(behind, caller), daemon=True).start()
                _copy(caller, behind)

    with ThreadingTCPServer(("0.0.0.0", 0), Front) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


# Debian's


@contextmanager
def tinyproxy(folder: Path) -> Iterator[int]:
    """The port of a tinyproxy that wants credentials, `me` and `hunter2`."""
    program = debian_extract("tinyproxy-bin") / "usr" / "bin" / "tinyproxy"
    if not program.exists():
        missing("tinyproxy is not there, so nothing goes out through it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    file = folder / "tinyproxy.conf"
    file.write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 30\nMaxClients 20\nBasicAuth {USER} hunter2\n")
    with (folder / "tinyproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-d", "-c", file], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, (folder / "tinyproxy.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)
