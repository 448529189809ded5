"""A load generator that costs little itself: raw sockets, one request after the other on each connection."""

import asyncio
import math
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Self, cast

import msgspec
import uvloop

from bench.peers import STREAM_EVENTS


@dataclass(frozen=True, slots=True)
class Target:
    """Where a load goes, and what its requests carry: connections take the keys in turn."""

    port: int
    keys: list[str]
    path: str = "/api/v1/chat/completions"
    headers: dict[str, str] = field(default_factory=dict)
    stream_events: int = STREAM_EVENTS

    def request(self, number: int, *, streamed: bool) -> bytes:
        """What the connection of that number sends."""
        body = b'{"model":"sim/echo","stream":%s,"max_tokens":100,' % (b"true" if streamed else b"false")
        body += b'"messages":[{"role":"user","content":"Say twenty-nine words about the exact fare of a ride."}]}'
        headers = {
            "host": "127.0.0.1",
            "authorization": f"Bearer {self.keys[number % len(self.keys)]}",
            "content-type": "application/json",
            "accept": "*/*",
            "user-agent": "bench",
            "content-length": str(len(body)),
            **self.headers,
        }
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to. Seconds."""

    requests: int
    failures: int
    seconds: float
    p50: float
    p99: float
    first_byte_p50: float


@dataclass(slots=True)
class _Run:
    """A run as it goes: until when it asks and how many requests it may still send; what came of it. Seconds."""

    stop_at: float
    left: float
    asking: int
    done: asyncio.Future[None]
    requests: int = 0
    failures: int = 0
    events: int = 0
    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)

    def may_ask(self) -> bool:
        return self.left > 0 and time.perf_counter() < self.stop_at

    def connection_done(self) -> None:
        self.asking -= 1
        if not self.asking and not self.done.done():
            self.done.set_result(None)

    def result(self, seconds: float) -> Result:
        self.latencies.sort()
        self.first_bytes.sort()
        p50, p99 = (self.latencies[int(len(self.latencies) * share)] for share in (0.5, 0.99))
        return Result(self.requests, self.failures, seconds, p50, p99, self.first_bytes[len(self.first_bytes) // 2])


class _Connection(asyncio.Protocol):
    """Sends its request again and again while the run lasts; an answer ends where its framing says."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = bytearray()
        self._run: _Run | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._run is not None:
            self._run.failures += 1
            self._run.connection_done()

    def ask(self, run: _Run) -> None:
        if not run.may_ask():
            self._run = None
            run.connection_done()
            return
        run.left -= 1
        self._run = run
        self._buffer.clear()
        self._body_at: int | None = None
        self._started = time.perf_counter()
        self._transport.write(self._request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        run, buffer = self._run, self._buffer
        assert run is not None, data
        buffer += data
        if self._body_at is None:
            head_end = buffer.find(b"\r\n\r\n")
            if head_end < 0:
                return
            self._body_at = head_end + 4
            head = bytes(buffer[:head_end]).lower() + b"\r\n"
            at = head.find(b"\r\ncontent-length: ")
            self._length = int(head[at + 18 : head.find(b"\r", at + 18)]) if at >= 0 else None
            self._has_body = False
        if not self._has_body and len(buffer) > self._body_at:
            self._has_body = True
            run.first_bytes.append(time.perf_counter() - self._started)
        if self._length is None:
            complete = buffer.endswith(b"0\r\n\r\n")
        else:
            complete = len(buffer) >= self._body_at + self._length
        if complete:
            self._finish(run)

    def _finish(self, run: _Run) -> None:
        run.requests += 1
        run.latencies.append(time.perf_counter() - self._started)
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            run.failures += 1
        else:
            run.events += self._buffer.count(b"data: ")
        self.ask(run)


class Callers:
    """Connections that stay open between runs."""

    def __init__(self, connections: list[_Connection], *, events_each: int) -> None:
        self._connections = connections
        self._events_each = events_each

    @classmethod
    async def connect(cls, target: Target, connections: int, *, streamed: bool) -> Self:
        loop = asyncio.get_running_loop()
        found = []
        for number in range(connections):
            made = partial(_Connection, target.request(number, streamed=streamed))
            found.append((await loop.create_connection(made, "127.0.0.1", target.port))[1])
        return cls(found, events_each=target.stream_events if streamed else 0)

    async def run(self, *, seconds: float = math.inf, requests: float = math.inf) -> Result:
        """Ask on each connection again and again, until the time is over or so many requests are sent."""
        done = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        run = _Run(started + seconds, requests, len(self._connections), done)
        for each in self._connections:
            each.ask(run)
        await done
        assert run.failures or run.events == run.requests * self._events_each, (run.requests, run.events)
        return run.result(time.perf_counter() - started)

    def close(self) -> None:
        for each in self._connections:
            each.close()


async def _load(target: Target, connections: int, seconds: float, *, streamed: bool) -> Result:
    callers = await Callers.connect(target, connections, streamed=streamed)
    try:
        return await callers.run(seconds=seconds)
    finally:
        callers.close()


def load(target: Target, kind: str, connections: int, seconds: float) -> Result:
    """Load a server for some seconds."""
    return uvloop.run(_load(target, connections, seconds, streamed=kind == "streamed"))


def main() -> None:
    """`python -m bench.load TARGET whole|streamed CONNECTIONS SECONDS`: prints what it came to as JSON."""
    target, kind, connections, seconds = sys.argv[1:]
    result = load(msgspec.json.decode(target, type=Target), kind, int(connections), float(seconds))
    sys.stdout.write(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
