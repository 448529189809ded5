"""What Farebox is measured with and against: a fixed upstream, and a bare pass-through of the same stack."""

import asyncio
import random
import ssl
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import cast

import aiohttp
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from farebox.simulator import catalog

STREAM_EVENTS = 31
EVENT_SECONDS = 0.002
"""Between two events of a stream: each is its own read and its own write at every hop, as tokens are."""

BACKLOG = 2048

_USAGE = (
    b'"usage":{"prompt_tokens":12,"completion_tokens":29,"total_tokens":41,"cost":0.0000192,"is_byok":false,'
    b'"cost_details":{"upstream_inference_cost":0.0000192,"upstream_inference_prompt_cost":0.0000018,'
    b'"upstream_inference_completions_cost":0.0000174}}'
)
_HEAD = b'{"id":"gen-1767225600-bench","provider":"Bench","model":"sim/echo","created":1767225600,'
_ANSWER = (
    _HEAD + b'"object":"chat.completion","system_fingerprint":null,"choices":[{"index":0,"logprobs":null,'
    b'"finish_reason":"stop","native_finish_reason":"stop","message":{"role":"assistant","content":"'
    + b"word " * 29
    + b'","refusal":null}}],'
    + _USAGE
    + b"}"
)
_CHUNK = (
    _HEAD + b'"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":" word"},'
    b'"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}'
)
_LAST = _HEAD + b'"object":"chat.completion.chunk","choices":[],' + _USAGE + b"}"
EVENTS = [b"data: " + data + b"\n\n" for data in [_CHUNK] * (STREAM_EVENTS - 2) + [_LAST, b"[DONE]"]]
"""Tokens, the usage event and `[DONE]`."""


def whole_reply(content_type: bytes, body: bytes, generation: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n%bcontent-length: %d\r\n\r\n"
    return head % (content_type, generation, len(body)) + body


_GENERATION = b"x-generation-id: gen-1767225600-bench\r\n"
_WHOLE = whole_reply(b"application/json", _ANSWER, _GENERATION)
_MODELS = whole_reply(b"application/json", catalog.page("/models", {"output_modalities": "all"}))
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + _GENERATION + b"transfer-encoding: chunked\r\n\r\n"
)


class FixedUpstream(asyncio.Protocol):
    """Answers every POST at once: whole, or as a stream where the body asks for one."""

    models, whole, stream_head, events = _MODELS, _WHOLE, _STREAM_HEAD, EVENTS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = 0
            if (at := head.find(b"content-length:")) >= 0:
                length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            if head.startswith(b"get"):
                self._transport.write(self.models)
            elif b'"stream":true' in body:
                self._transport.write(self.stream_head)
                self._stream()
            else:
                self._transport.write(self.whole)

    def _stream(self) -> None:
        self._later(EVENT_SECONDS, 0)

    def _later(self, seconds: float, number: int) -> None:
        asyncio.get_running_loop().call_later(seconds, self._event, number)

    def _event(self, number: int) -> None:
        if self._transport.is_closing():
            return
        if number == len(self.events):
            self._transport.write(b"0\r\n\r\n")
            return
        self._write_event(self.events[number])
        self._later(EVENT_SECONDS, number + 1)

    def _write_event(self, event: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))


class SlowUpstream(FixedUpstream):
    """Streams that do not end: an event at once, then one each so many seconds, no two streams in step."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def _stream(self) -> None:
        self._write_event(EVENTS[0])
        self._later(random.random() * self._seconds, 0)

    def _event(self, number: int) -> None:
        if not self._transport.is_closing():
            self._write_event(EVENTS[0])
            self._later(self._seconds, 0)


async def _serve_upstream(port: int, tls_port: int, certificate: str) -> None:
    """The fixed upstream, twice: plain, and behind TLS."""
    loop = asyncio.get_running_loop()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    await loop.create_server(FixedUpstream, "127.0.0.1", tls_port, ssl=tls, backlog=BACKLOG)
    await (await loop.create_server(FixedUpstream, "127.0.0.1", port, backlog=BACKLOG)).serve_forever()


async def _serve_slow_upstream(port: int, seconds: float) -> None:
    made = partial(SlowUpstream, seconds)
    await (await asyncio.get_running_loop().create_server(made, "127.0.0.1", port, backlog=BACKLOG)).serve_forever()


def pass_through(upstream_url: str) -> Starlette:
    """The same stack with nothing in it: Starlette's request and response, aiohttp's client."""
    session: aiohttp.ClientSession | None = None
    url = f"{upstream_url}/chat/completions"

    async def endpoint(request: Request) -> Response:
        nonlocal session
        if session is None:
            session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = await request.body()
        headers = {"content-type": "application/json", "authorization": request.headers["authorization"]}
        reply = await session.post(url, data=body, headers=headers)
        generation = {"x-generation-id": reply.headers["x-generation-id"]}
        if reply.content_type == "text/event-stream":

            async def events() -> AsyncIterator[bytes]:
                async with reply:
                    async for chunk in reply.content.iter_any():
                        yield chunk

            return StreamingResponse(events(), headers=generation, media_type="text/event-stream")
        async with reply:
            return Response(await reply.read(), headers=generation, media_type="application/json")

    return Starlette(routes=[Route("/api/v1/chat/completions", endpoint, methods=["POST"])])


def main() -> None:
    """`python -m bench.peers`, and: `upstream PORT TLS_PORT CERTIFICATE`, `slow-upstream PORT SECONDS` or
    `pass-through PORT UPSTREAM_URL`."""
    match sys.argv[1:]:
        case "upstream", port, tls_port, certificate:
            uvloop.run(_serve_upstream(int(port), int(tls_port), certificate))
        case "slow-upstream", port, seconds:
            uvloop.run(_serve_slow_upstream(int(port), float(seconds)))
        case "pass-through", port, url:
            uvicorn.run(
                pass_through(url),
                port=int(port),
                loop="uvloop",
                http="httptools",
                access_log=False,
                log_level="error",
                backlog=BACKLOG,
            )
        case _:
            sys.exit(main.__doc__)


if __name__ == "__main__":
    main()
