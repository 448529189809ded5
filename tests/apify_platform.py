"""The Apify platform around an Actor under test: a Farebox answers its API, and this stands in between.

It routes callers' requests to a Standby run as the platform does (a fresh X-Actor-Request-ID each, which may be charged
while the request is under way), tells events over a WebSocket, and fails now and then as a test says.
"""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import aiohttp
from aiohttp import web

Fault = Literal["429", "500", "drop before", "drop after"]

_NOT_FOR_RUNS = ("plan", "email", "profile", "proxy")

HOP = ("host", "content-length", "transfer-encoding", "connection", "keep-alive")


@dataclass
class Platform:
    """Between the Actor and the gateway at `port` that is its platform. `fault` is asked before each call of the API,
    with its method, path and number. `run_tokens` are told of a user what a run's token is told."""

    port: int
    fault: Callable[[str, str, int], Fault | None] = lambda method, path, number: None
    is_shared: bool = False
    actor_port: int = 0
    calls: list[tuple[str, str]] = field(default_factory=list)
    charges: list[dict[str, Any]] = field(default_factory=list)
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    run_tokens: set[str] = field(default_factory=set)
    pause_seconds: float = 0.0
    under_way: set[str] = field(default_factory=set)
    own_port: int = 0

    def __enter__(self) -> Self:
        started = threading.Event()
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.own_port}"

    @property
    def standby_url(self) -> str:
        """Where callers reach the Actor."""
        return f"{self.url}/standby"

    def tell(self, name: str, **data: Any) -> None:
        """An event, to the run that listens."""
        frame = json.dumps({"name": name, "createdAt": "2026-01-01T00:00:00.000Z", "data": data})
        until = time.monotonic() + 10
        while not self.sockets:
            assert time.monotonic() < until, "nobody listens"
            time.sleep(0.05)
        for socket in self.sockets:
            asyncio.run_coroutine_threadsafe(socket.send_str(frame), self._loop).result(5)

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/events", self._events)
        app.router.add_route("*", "/standby{path:.*}", self._route)
        app.router.add_route("*", "/{path:.*}", self._api)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.own_port = runner.addresses[0][1]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session:
            self._session = session
            started.set()
            await self._stop.wait()
        await runner.cleanup()

    async def _events(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        try:
            async for _ in socket:
                pass
        finally:
            self.sockets.remove(socket)
        return socket

    async def _api(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.calls.append((request.method, path))
        fault = self.fault(request.method, path, next(self._numbers))
        body = await request.read()
        if fault == "429":
            return _error(429, "rate-limit-exceeded")
        if fault == "500":
            return _error(500, "internal-server-error")
        if fault == "drop before":
            return _drop(request)
        if path.endswith("/charge"):
            await asyncio.sleep(self.pause_seconds)
            charge = json.loads(body)
            self.charges.append({**charge, "key": request.headers.get("idempotency-key")})
            if self.is_shared and charge.get("requestId") not in self.under_way:
                return _error(400, "request-id-invalid", "requestId is invalid or has expired")
        if path.endswith("/reboot"):
            return web.json_response({"data": {}})
        url = f"http://127.0.0.1:{self.port}{request.raw_path}"
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            read = await answer.read()
            if fault == "drop after":
                return _drop(request)
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            if path.endswith("/users/me") and token in self.run_tokens:
                data = json.loads(read)["data"]
                read = json.dumps({"data": {n: v for n, v in data.items() if n not in _NOT_FOR_RUNS}}).encode()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            return web.Response(status=answer.status, body=read, headers=kept)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        request_id = f"request-{next(self._ids)}"
        self.under_way.add(request_id)
        try:
            return await self._forward(request, request_id)
        finally:
            self.under_way.discard(request_id)

    async def _forward(self, request: web.Request, request_id: str) -> web.StreamResponse:
        url = f"http://127.0.0.1:{self.actor_port}{request.raw_path.removeprefix('/standby') or '/'}"
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        headers["x-actor-request-id"] = request_id
        body = await request.read()
        try:
            async with self._session.request(
                request.method, url, data=body or None, headers=headers, timeout=aiohttp.ClientTimeout(total=300)
            ) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except aiohttp.ClientError as error:
            return _error(502, "standby-bad-gateway", type(error).__name__)


def _error(status: int, kind: str, message: str = "as the test says") -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


def _drop(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)
