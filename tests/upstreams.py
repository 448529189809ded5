"""An upstream over HTTP that answers to the letter what a test puts there."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from farebox.core.declared import Declared, Timeouts

ENTRIES: list[dict[str, Any]] = [
    {"id": "a/b", "pricing": {"prompt": "0.000001", "completion": "0.00001"}, "context_length": 1000},
    {"id": "a/e", "pricing": {"prompt": "0.000001", "completion": "0"}, "context_length": 1000},
]


SECONDS = Timeouts(5, 5, 5)


def declared(url: str, timeouts: Timeouts = SECONDS, kind: str = "openrouter", **more: Any) -> Declared:
    """An upstream of this URL, as it would be declared."""
    return Declared("there", kind, url, timeouts, **more)


@dataclass
class HttpUpstream:
    """`pages` by path, none of them at the path that is `silent`; `answer` to every order, sent piece by piece. Where
    `waits` is set, the pieces after the first wait for it. Where it `breaks` (`before` the head, or `after` the last
    piece), the connection ends there; where it `hangs`, no head comes for so many seconds; where `thinks` is set,
    none comes before that is."""

    pages: dict[str, Any] = field(default_factory=dict)
    answer: list[bytes] = field(default_factory=list)
    content_type: str = "text/event-stream"
    status: int = 200
    generation_id: str | None = "gen-1"
    headers: dict[str, str] = field(default_factory=dict)
    waits: Event | None = None
    thinks: Event | None = None
    is_down: bool = False
    breaks: str = ""
    hangs: float = 0
    silent: str = ""
    asked: list[str] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)
    orders: list[bytes] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def models(self, *entries: dict[str, Any]) -> None:
        self.pages["/models"] = {"data": list(entries), "links": {"next": None}, "total_count": len(entries)}

    @contextmanager
    def serving(self) -> Iterator["HttpUpstream"]:
        if not self.pages:
            self.models(*ENTRIES)
        handler = type("Handler", (_Handler,), {"upstream": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}/api/v1"
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    upstream: HttpUpstream
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer's body would wait 40 ms for its head's acknowledgement

    def do_GET(self) -> None:
        path = self.path.removeprefix("/api/v1")
        self.upstream.asked_at.append(time.monotonic())
        self.upstream.asked.append(path)
        if self.upstream.silent and path.startswith(self.upstream.silent):
            Event().wait(30)
        pages = self.upstream.pages
        page = None if self.upstream.is_down else pages.get(path, pages.get(path.partition("?")[0]))
        status = 503 if self.upstream.is_down else 404 if page is None else 200
        body = json.dumps(page if page is not None else {"error": {"code": status, "message": "no"}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        upstream = self.upstream
        names = {name.lower() for name in self.headers}
        upstream.heads.append({name: ", ".join(self.headers.get_all(name) or []) for name in names})
        upstream.orders.append(self.rfile.read(int(self.headers["content-length"])))
        hangs = upstream.hangs
        Event().wait(hangs)
        if hangs or upstream.breaks == "before":
            self.close_connection = True
            return
        if upstream.thinks is not None:
            upstream.thinks.wait(10)
        self.send_response(upstream.status)
        self.send_header("content-type", upstream.content_type)
        self.send_header("transfer-encoding", "chunked")
        for name, value in upstream.headers.items():
            self.send_header(name, value)
        if upstream.generation_id:
            self.send_header("x-generation-id", upstream.generation_id)
        self.end_headers()
        for number, piece in enumerate(upstream.answer):
            if number and upstream.waits is not None:
                upstream.waits.wait(10)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
        if upstream.breaks == "after":
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""
