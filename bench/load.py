"""A load generator that costs little itself: raw sockets, one request after the other on each connection."""

import asyncio
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import msgspec
import uvloop

from bench.peers import STREAM_EVENTS


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
class Load:
    """A run as it goes. Seconds."""

    requests: int = 0
    failures: int = 0
    events: int = 0
    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)

    def result(self, seconds: float) -> Result:
        self.latencies.sort()
        self.first_bytes.sort()
        p50, p99 = (self.latencies[int(len(self.latencies) * share)] for share in (0.5, 0.99))
        return Result(self.requests, self.failures, seconds, p50, p99, self.first_bytes[len(self.first_bytes) // 2])


class _Connection(asyncio.Protocol):
    """Sends the request again and again until told to stop; an answer ends where its framing says."""

    def __init__(self, request: bytes, load: Load, stop_at: float, done: asyncio.Future[None]) -> None:
        self._request = request
        self._load = load
        self._stop_at = stop_at
        self._done = done
        self._buffer = bytearray()
        self._is_first = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._load.failures += 1
            self._done.set_result(None)

    def _send(self) -> None:
        self._buffer.clear()
        self._started = time.perf_counter()
        self._is_first = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        head_end = buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        if self._is_first and len(buffer) > head_end + 4:
            self._is_first = False
            self._load.first_bytes.append(time.perf_counter() - self._started)
        at = buffer.find(b"content-length: ", 0, head_end + 2)
        if at < 0:
            at = buffer.find(b"Content-Length: ", 0, head_end + 2)
        if at >= 0:
            length = int(buffer[at + 16 : buffer.find(b"\r", at)])
            complete = len(buffer) >= head_end + 4 + length
        else:
            complete = buffer.endswith(b"0\r\n\r\n")
        if complete:
            self._finish(is_stream=at < 0)

    def _finish(self, *, is_stream: bool) -> None:
        now = time.perf_counter()
        load = self._load
        load.requests += 1
        load.latencies.append(now - self._started)
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            load.failures += 1
        elif is_stream:
            load.events += self._buffer.count(b"data: ")
        if now < self._stop_at:
            self._send()
        elif not self._done.done():
            self._done.set_result(None)
            self._transport.close()


async def run(port: int, tokens: list[str], *, streamed: bool, connections: int, seconds: float) -> Result:
    """Load a server for some seconds; its connections take the tokens in turn."""
    loop = asyncio.get_running_loop()
    body = b'{"model":"sim/echo","stream":%s,"max_tokens":100,' % (b"true" if streamed else b"false")
    body += b'"messages":[{"role":"user","content":"Say twenty-nine words about the exact fare of a ride."}]}'
    requests = [
        b"POST /api/v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %s\r\n"
        b"content-type: application/json\r\naccept: */*\r\nuser-agent: bench\r\ncontent-length: %d\r\n\r\n"
        % (token.encode(), len(body))
        + body
        for token in tokens
    ]
    load = Load()
    started = time.perf_counter()
    waiting: list[asyncio.Future[None]] = []
    stop_at = started + seconds
    for number in range(connections):
        request = requests[number % len(requests)]
        done: asyncio.Future[None] = loop.create_future()
        waiting.append(done)
        await loop.create_connection(partial(_Connection, request, load, stop_at, done), "127.0.0.1", port)
    await asyncio.wait(waiting)
    assert not streamed or load.events == load.requests * STREAM_EVENTS or load.failures, load.events
    return load.result(time.perf_counter() - started)


def main() -> None:
    """`python -m bench.load PORT TOKENS whole|streamed CONNECTIONS SECONDS`: prints what it came to as JSON."""
    port, token, kind, connections, seconds = sys.argv[1:]
    result = uvloop.run(
        run(
            int(port),
            token.split(","),
            streamed=kind == "streamed",
            connections=int(connections),
            seconds=float(seconds),
        )
    )
    sys.stdout.write(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
