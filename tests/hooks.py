"""A receiver of webhooks for tests, and how one verifies them."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any


@dataclass(frozen=True)
class Hook:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HookReceiver:
    """Answers 200, or first what is in `answers`, one after the other: a status, or `hangs`, which answers nothing
    until the receiver stops. A redirect leads to `leads_to`."""

    answers: list[int | str] = field(default_factory=list)
    leads_to: str = ""
    got: list[Hook] = field(default_factory=list)
    port: int = 0
    _stops: Event = field(default_factory=Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/s3cret-path"

    @property
    def ids(self) -> list[str]:
        return [hook.json["id"] for hook in self.got]

    @property
    def kinds(self) -> list[str]:
        return [hook.json["type"] for hook in self.got]

    @contextmanager
    def serving(self) -> Iterator["HookReceiver"]:
        handler = type("Handler", (_Handler,), {"receiver": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            self.port = server.server_address[1]
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            try:
                yield self
            finally:
                self._stops.set()
                server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    receiver: HookReceiver

    def do_GET(self) -> None:
        self.receiver.got.append(Hook(self.path, {}, b"{}"))

    def do_POST(self) -> None:
        receiver = self.receiver
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.got.append(Hook(self.path, headers, body))
        answer = receiver.answers.pop(0) if receiver.answers else 200
        if answer == "hangs":
            receiver._stops.wait(60)
            return
        self.send_response(int(answer))
        if receiver.leads_to:
            self.send_header("location", receiver.leads_to)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def verified(hook: Hook, secret: str) -> bool:
    """As the Standard Webhooks specification says that receivers verify."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{hook.headers['webhook-id']}.{hook.headers['webhook-timestamp']}.".encode() + hook.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    given = [each.partition(",") for each in hook.headers["webhook-signature"].split(" ")]
    return any(version == "v1" and hmac.compare_digest(text, expected) for version, _, text in given)
