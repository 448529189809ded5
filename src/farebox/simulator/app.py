"""The simulator as an ASGI app. Without faults it sends nothing that those would not whom it stands in for, and it
refuses what they refuse."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, ModuleType
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import replace
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from farebox.core.errors import Refusal, invalid, unknown, wrong_method
from farebox.core.legible import leniently
from farebox.core.reading import UNREADABLE
from farebox.simulator import As, embeddings, faults, made, models, speech, talk, videos
from farebox.simulator.anthropic import COUNT_PATH, AnthropicFace
from farebox.simulator.faces import REFUSALS, Face, Headers, OpenRouterFace
from farebox.simulator.faults import BadFaults, Faults
from farebox.simulator.generations import Generations
from farebox.simulator.openai import OpenAiFace

TRANSPORT = "farebox.transport"
"""Where the server puts the connection's transport into the scope, for faults that break the connection."""

BASE_PATH = "/api/v1"

BOOKS_PATH = "/books"
"""What was charged for every generation: a page that OpenRouter does not have, to compare a gateway's books with."""

STALL_SECONDS = 3600
KEEP_ALIVE_SECONDS = 0.1
ENDLESS_BYTES = 1024 * 1024

USAGE_PATH = "/books/usage"
"""The same with the tokens that were charged, and for which model."""

MOUNTS: Mapping[As, str] = MappingProxyType({"openrouter": BASE_PATH, "openai": "/openai", "anthropic": "/anthropic"})


class Simulator:
    """Answers orders in every format, the lists, and what it charged for a generation."""

    def __init__(self, as_: As = "openrouter") -> None:
        self._numbers = itertools.count()
        self._run = secrets.token_hex(4)
        self._generations = Generations()
        self._jobs = videos.Jobs(self._generations)
        faces: dict[As, Face] = {"openrouter": OpenRouterFace(), "openai": OpenAiFace(), "anthropic": AnthropicFace()}
        self._mounted = [(MOUNTS[name], face) for name, face in faces.items()]
        if as_ != "openrouter":
            self._mounted.append(("", faces[as_]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in (BOOKS_PATH, USAGE_PATH):
            books = self._generations.books() if scope["path"] == BOOKS_PATH else self._generations.usage_books()
            await _send_whole(send, 200, [], books)
            return
        face, path = self._find(scope["path"])
        wire = face.formats.get(path)
        number = f"{talk.CREATED}-{self._run}{next(self._numbers):012d}"
        try:
            if path == COUNT_PATH and isinstance(face, AnthropicFace) and scope["method"] == "POST":
                counted = face.count(dict(scope["headers"]), await Request(scope, receive).body())
                await _send_whole(send, 200, face.head("", number), counted)
            elif path.startswith("/videos/job-") and isinstance(face, OpenRouterFace):
                await self._send_job(scope, send, path, face.key(dict(scope["headers"])))
            elif wire is None:
                await _send_whole(send, 200, face.head("", number), self._page(scope, face, path))
            else:
                await self._serve(face, wire, number, scope, receive, send)
        except Refusal as refusal:
            headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
            body = face.refused(refusal, wire, number)
            await _send_whole(send, refusal.status, [*face.head("", number), *headers], body)
        except _Broken:
            scope[TRANSPORT].abort()
            await _until_gone(receive)

    async def _send_job(self, scope: Scope, send: Send, path: str, key: bytes) -> None:
        """How a job stands, or what it made."""
        if scope["method"] != "GET":
            raise wrong_method(scope["method"], "GET")
        job_id, _, page = path.removeprefix("/videos/").partition("/")
        if not page:
            await _send_whole(send, 200, [], self._jobs.look(job_id, key))
        elif page == "content":
            index = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("index", "")
            wanted = dict(scope["headers"]).get(b"range", b"")
            await _send_whole(send, *self._jobs.content(job_id, key, index, wanted))
        else:
            raise unknown("Not Found")

    def _find(self, path: str) -> tuple[Face, str]:
        """The face that a path belongs to, and the path below it."""
        for mount, face in self._mounted:
            if path.startswith(f"{mount}/"):
                return face, path.removeprefix(mount)
        return self._mounted[0][1], "?"

    def _page(self, scope: Scope, face: Face, path: str) -> bytes:
        if scope["method"] != "GET":
            raise unknown("Not Found")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        headers = dict(scope["headers"])
        if path in ("/generation", "/generation/content") and isinstance(face, OpenRouterFace):
            if not query.get("id"):
                raise invalid("id: Required")
            find = self._generations.find if path == "/generation" else self._generations.content
            return find(query["id"], face.key(headers))
        return face.page(path, query, headers)

    async def _serve(
        self, face: Face, wire: ModuleType, number: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["method"] != "POST":
            raise wrong_method(scope["method"], "POST")
        headers = dict(scope["headers"])
        key = face.key(headers)
        body = await Request(scope, receive).body()
        request = _read(wire, body, headers)
        wanted = _models(request, face)
        asked = _faults(headers, wanted[0])
        if not face.keeps_alive:
            asked = replace(asked, silent=True)
        model = face.find(wanted[0])
        if model is None or _makes(wire) not in model.outputs:
            raise face.no_such_model(wanted[0])
        await asyncio.sleep(asked.head_ms / 1000)
        if asked.html:
            page = b"<!DOCTYPE html><title>Bad gateway</title>"
            await _send_whole(send, asked.status or 200, [(b"content-type", b"text/html")], page)
            return
        if asked.flagged:
            raise Refusal(403, "permission_denied", "Simulated: your input was flagged", metadata=_FLAGGED)
        if asked.status is not None:
            raise _refusal(asked.status)
        if asked.error_body:
            error = {"code": 502, "message": "Simulated provider failure", "metadata": {}}
            await _send_whole(send, 200, [], msgspec.json.encode({"error": error, "user_id": "user_sim"}))
            return
        await self._answer(_Order(face, wire, number, key, body, request, model, asked), receive, send)

    async def _answer(self, order: "_Order", receive: Receive, send: Send) -> None:
        wire, request, asked = order.wire, order.request, order.asked
        generation_id = order.face.generation_id(wire, order.number)
        head = order.face.head("" if asked.no_generation_header else generation_id, order.number)
        streamed, body = False, b""
        if isinstance(request, embeddings.Request):
            said = embeddings.embed(request, order.model)
            body = wire.whole(request, said, generation_id, asked)
        elif isinstance(request, talk.Talk):
            said = talk.answer(request, order.model, asked)
            if not asked.no_content:
                self._generations.keep_content(generation_id, order.key, order.body, said)
            streamed = request.streamed or asked.streams
            body = b"" if streamed else wire.whole(said, generation_id, asked)
        else:
            said = wire.make(request, order.model, asked)
            streamed = (request.streamed or asked.streams) and not asked.whole
            body = b"" if streamed else wire.whole(request, said, generation_id, asked)
        if isinstance(said, videos.Filmed):
            # Whatever becomes of the answer: the job runs.
            self._jobs.begin(generation_id, order.key, said, asked)
            head = order.face.head("", order.number)
            await _send_slow_whole(send, head, b"", body, asked.first_token_ms / 1000, asked, status=202)
            return
        charge = partial(self._generations.add, generation_id, order.key, said, asked, streamed=streamed)
        sent, sent_tokens = _Sent(partial(charge, sent_tokens=None)), None
        try:
            if isinstance(said, speech.Spoken):
                kind = [(b"content-type", said.media_type)]
                pieces = _pieces(said.pieces_of, asked, sent)
                sent_tokens = await _send_stream(receive, send, [*head, *kind], pieces, asked, sent)
            elif streamed:
                events = _parts(wire.events(said, generation_id, asked), wire.COMMENT, asked, sent)
                sent_tokens = await _send_stream(receive, send, [*head, *_EVENT_STREAM], events, asked, sent)
            else:
                count = said.pieces_made if isinstance(said, made.Made) else said.answer_tokens
                pause = (asked.first_token_ms + asked.token_ms * count) / 1000
                before = b": OPENROUTER PROCESSING\n" * asked.comments + b"\n" * asked.blank_lines
                await _send_slow_whole(send, head, before, body, pause, asked)
        finally:
            charge(sent_tokens=sent_tokens)


Asked = talk.Talk | embeddings.Request | made.Order


@dataclass(frozen=True, slots=True)
class _Order:
    """An order that is answered: to whom, in which format, what it asks, and the model that answers."""

    face: Face
    wire: ModuleType
    number: str
    key: bytes
    body: bytes
    request: Asked
    model: models.Model
    asked: Faults


class _Broken(Exception):  # noqa: N818
    """A fault: break the connection off."""


def _makes(wire: ModuleType) -> str:
    """What a model must have among its outputs to be ordered in a format."""
    makes: str = getattr(wire, "MAKES", "text")
    return makes


def _read(wire: ModuleType, body: bytes, headers: dict[bytes, bytes]) -> Asked:
    content_type = headers.get(b"content-type", b"")
    if content_type.startswith(b"multipart/") and hasattr(wire, "from_form"):
        body = wire.from_form(body, content_type)
    try:
        request: Asked = leniently(wire.read, body)
    except UNREADABLE as error:
        raise invalid(str(error)) from error
    return request


def _models(request: Asked, face: Face) -> list[str]:
    """The models asked for, in order, without unknown ones; all of them where every one is unknown."""
    wanted = list(request.models) if isinstance(request, talk.Talk) else [request.model]
    if not wanted:
        raise invalid("No models provided")
    served = [model for model in wanted if face.find(model)]
    return served or wanted


def _faults(headers: dict[bytes, bytes], model: str) -> Faults:
    variant = model.partition(":")[2]
    texts = [headers.get(faults.HEADER, b"").decode("latin-1")]
    if "=" in variant or variant.replace("-", "_") in Faults.__struct_fields__:
        texts.append(variant)
    try:
        return faults.parse(*texts)
    except BadFaults as error:
        raise invalid(str(error)) from error


_FLAGGED = {"reasons": ["violence"], "flagged_input": "...", "provider_name": models.PROVIDER, "model_slug": "sim"}


def _refusal(status: int) -> Refusal:
    error_type, message = REFUSALS.get(status, ("server", "Simulated refusal"))
    headers: dict[str, str] = {"retry-after": "2"} if status in (429, 503) else {}
    if status == 429:
        headers |= {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767225660000"}
    return Refusal(status, error_type, message, headers=headers)


async def _send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    named = {name for name, _ in headers}
    head = [*headers, (b"content-length", b"%d" % len(body))]
    if b"content-type" not in named:
        head.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _send_slow_whole(
    send: Send, head: Headers, before: bytes, body: bytes, pause_seconds: float, asked: Faults, status: int = 200
) -> None:
    """The head at once, blank lines while the answer is made, then all of it: as OpenRouter does."""
    if not pause_seconds and asked.cut_at_byte is None:
        await _send_whole(send, status, head, before + body)
        return
    await send(
        {"type": "http.response.start", "status": status, "headers": [*head, (b"content-type", b"application/json")]}
    )
    await _send_part(send, before)
    async for _ in _keep_alives(pause_seconds):
        await _send_part(send, b"" if asked.silent else b"\n")
    if asked.cut_at_byte is not None:
        await _send_part(send, body[: asked.cut_at_byte])
        await asyncio.sleep(0.05)
        raise _Broken
    await send({"type": "http.response.body", "body": body})


_EVENT_STREAM = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]


class _Sent:
    """How many server-sent events of a stream were sent. `ends` is called before the last goes out: whoever has read
    it finds the charge in the books."""

    def __init__(self, ends: Callable[[], None]) -> None:
        self.events, self.ends = 0, ends


async def _send_stream(
    receive: Receive, send: Send, head: Headers, parts: AsyncIterator[bytes], asked: Faults, progress: _Sent
) -> int | None:
    """Send a stream; how many of its server-sent events (or pieces) were sent if the other side hung up before the end,
    else None."""
    await send({"type": "http.response.start", "status": 200, "headers": head})
    gone = asyncio.create_task(_until_gone(receive))
    sending = asyncio.create_task(_send_events(send, parts, asked))
    try:
        await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            return progress.events
        await sending
        await send({"type": "http.response.body", "body": b""})
        return None
    finally:
        gone.cancel()
        sending.cancel()


async def _send_events(send: Send, parts: AsyncIterator[bytes], asked: Faults) -> None:
    sent = 0
    async for part in parts:
        if asked.cut_at_byte is not None and sent + len(part) > asked.cut_at_byte:
            await _send_part(send, part[: asked.cut_at_byte - sent])
            await asyncio.sleep(0.05)
            raise _Broken
        sent += len(part)
        piece = asked.split or max(1, len(part))
        for start in range(0, len(part), piece):
            await _send_part(send, part[start : start + piece])


async def _parts(stream: list[bytes], comment: bytes, asked: Faults, progress: _Sent) -> AsyncIterator[bytes]:
    """The stream's bytes, one server-sent event after the other, each when it is due."""
    end = b"\r\n" if asked.crlf else b"\r" if asked.cr else b"\n"
    comment += 2 * end if comment else b""
    yield comment * asked.comments
    async for _ in _keep_alives(asked.first_token_ms / 1000):
        yield b"" if asked.silent else comment
    extra = {
        "empty-data": b"data:" + 2 * end,
        "retry": b"retry: 3000" + 2 * end,
        "wrapped-comment": b"data: " + comment,
    }
    yield extra.get(asked.defect or "", b"")
    for number, each in enumerate(stream):
        if number == asked.stall_at_event:
            await asyncio.sleep(STALL_SECONDS)
        while number == asked.endless_at_event:
            yield b"data: " + b"x" * ENDLESS_BYTES
        if number == asked.cut_at_event:
            await asyncio.sleep(0.05)
            raise _Broken
        if asked.token_ms and number:
            await asyncio.sleep(asked.token_ms / 1000)
        if is_last := number == len(stream) - 1:
            progress.ends()
        yield each.replace(b"\n", end) + (b"" if is_last and asked.no_final_blank else 2 * end)
        progress.events += 1


async def _pieces(pieces: Sequence[bytes], asked: Faults, progress: _Sent) -> AsyncIterator[bytes]:
    """Bytes that are no events, each piece when it is due."""
    await asyncio.sleep(asked.first_token_ms / 1000)
    for number, each in enumerate(pieces):
        if number == asked.stall_at_event:
            await asyncio.sleep(STALL_SECONDS)
        if number == asked.cut_at_event:
            await asyncio.sleep(0.05)
            raise _Broken
        if asked.token_ms and number:
            await asyncio.sleep(asked.token_ms / 1000)
        if number == len(pieces) - 1:
            progress.ends()
        yield each
        progress.events += 1


async def _keep_alives(seconds: float) -> AsyncIterator[None]:
    """Wait for so long, and yield whenever something is to be sent that keeps a caller from giving up."""
    waited = 0.0
    while waited < seconds:
        yield
        pause = min(KEEP_ALIVE_SECONDS, seconds - waited)
        await asyncio.sleep(pause)
        waited += pause


async def _send_part(send: Send, part: bytes) -> None:
    if part:
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
