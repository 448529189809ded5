"""A request to the run API, its caller known, and its answer."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

import msgspec
from msgspec import Struct
from starlette.types import Receive, Scope

from farebox import clock
from farebox.core.callers import Caller
from farebox.core.headers import HeaderList, RequestHead
from farebox.core.reading import read_whole
from farebox.core.runs import Run
from farebox.http.asgi import JSON, AsgiBody
from farebox.http.bodies import BodyReader
from farebox.platform.documents import wrong
from farebox.platform.priced_events import PricedEvents
from farebox.platform.runs import Runner
from farebox.platform.store import SqlRuns
from farebox.ports import Callers
from farebox.store.threads import Worker

UNLIMITED = 999_999_999_999
"""The limit that Apify's platform shows where none was asked for."""

PAGE_MAX = 1000
"""The most runs, or keys, that one answer lists."""

ATTACHED = (b"content-disposition", b"attachment")
"""The header that has a browser save the answer as a file instead of showing it."""


class RunApi(Struct, frozen=True):
    """What answers the run API's calls. `runner` carries the runs through, `shaping` makes tables and the like of
    items: one after the other, while others are answered."""

    callers: Callers
    runs: SqlRuns
    runner: Runner
    events: PricedEvents
    bodies: BodyReader
    shaping: Worker


class Answered(Struct, frozen=True):
    """An answer in one piece."""

    body: bytes
    status: int = 200
    headers: HeaderList = msgspec.field(default_factory=lambda: [JSON])


class Streamed(Struct, frozen=True):
    """An answer that is sent piece by piece as it comes."""

    pieces: AsyncGenerator[bytes]
    headers: HeaderList


def shown(value: object, status: int = 200, *headers: tuple[bytes, bytes]) -> Answered:
    """An object in the envelope of every answer but items, records and logs."""
    return Answered(msgspec.json.encode({"data": value}), status, [JSON, *headers])


def made(location: str = "") -> Answered:
    """That something is done, and where what was made stands."""
    return Answered(b"{}", 201, [JSON, *([(b"location", location.encode())] if location else [])])


_FLAGS = {"": False, "0": False, "false": False, "1": True, "true": True}


class Call(Struct, frozen=True):
    """One request, its caller known. `query` has the last value of each name, several values joined by commas."""

    api: RunApi
    scope: Scope
    receive: Receive
    head: RequestHead
    caller: Caller
    query: Mapping[str, str]

    def named(self, name: str) -> str:
        """A part of the path, by the name that it has in the table of paths."""
        value: str = self.scope["path_params"][name]
        return value

    def number(self, name: str, default: int, least: int = 0, most: int = UNLIMITED) -> int:
        """A whole number of the query. Raises Refusal 400."""
        text = self.query.get(name, "")
        if not text:
            return default
        number = read_whole(text, least, most)
        if number is None:
            raise wrong(name, f"a whole number from {least} to {most}, not {text[:50]!r}")
        return number

    def limit(self, most: int = UNLIMITED) -> int:
        """How many are asked for, `most` at most; none said, or 0, means `most`. Raises Refusal 400."""
        return min(self.number("limit", 0) or most, most)

    def flag(self, name: str) -> bool:
        """A truth value of the query; False where it is absent. Raises Refusal 400."""
        text = self.query.get(name, "").lower()
        if text not in _FLAGS:
            raise wrong(name, f"true, 1, false or 0, not {text[:50]!r}")
        return _FLAGS[text]

    def moment_us(self, name: str) -> int | None:
        """A moment of the query, in microseconds since 1970; in UTC where it says no zone. Raises Refusal 400."""
        text = self.query.get(name, "")
        if not text:
            return None
        try:
            return clock.read_iso(text)
        except ValueError as error:
            raise wrong(name, f"write it like 2026-08-24T12:00:00.000Z, not {text[:50]!r}") from error

    def names(self, name: str) -> tuple[str, ...]:
        """A list of the query: parts between commas, the empty ones left out."""
        return tuple(part.strip() for part in self.query.get(name, "").split(",") if part.strip())

    async def json(self, bytes_max: int | None = None) -> bytes:
        """The body, JSON not parsed yet; of at most so many bytes. Raises as BodyReader.read_json; as Callers.identify,
        should its caller be one no more once it has come."""
        bodies = self.api.bodies if bytes_max is None else self.api.bodies.shorter(bytes_max)
        body = await bodies.read_json(AsgiBody(self.scope, self.receive), self.head)
        await self.api.callers.identify(self.head)
        return body

    async def body(self) -> bytes:
        """The body, of any type. Raises as BodyReader.read, and as Callers.identify."""
        body = await self.api.bodies.read(AsgiBody(self.scope, self.receive), self.head)
        await self.api.callers.identify(self.head)
        return body


Handle = Callable[[Call], Awaitable[Answered | Streamed]]
"""Answers one kind of call. Raises Refusal."""

RunHandle = Callable[[Call, Run], Awaitable[Answered | Streamed]]
"""The same for calls about one of the caller's runs, or about what it left."""
