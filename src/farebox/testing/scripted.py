"""An upstream that plays a script: bytes, pauses, silence, breaks."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from farebox.core.declared import Declared, Timeouts
from farebox.core.headers import HeaderList, sound
from farebox.core.likeness import Likeness
from farebox.core.upstream import Filters
from farebox.ports import Take, UpstreamBroke
from farebox.upstream.openrouter_pages import Fetched, OpenRouterPages


@dataclass(frozen=True, slots=True)
class Pause:
    """In a script: wait until the other side has had its turn."""

    turns: int = 5


@dataclass(frozen=True, slots=True)
class Break:
    """In a script: the connection breaks here."""


@dataclass(frozen=True, slots=True)
class Silence:
    """In a script: nothing more comes, until the reply is closed."""


Step = bytes | Pause | Break | Silence


@dataclass(slots=True)
class Script:
    """One answer: its head, then what its body does, step by step."""

    steps: list[Step]
    status: int = 200
    content_type: str = "text/event-stream"
    generation_id: str | None = "gen-1"
    headers: HeaderList = field(default_factory=list)
    adds_usage: bool = False


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the upstream was sent."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    streamed: bool


class ScriptedUpstream(OpenRouterPages):
    """Plays scripts in turn, or raises what stands in one's place, and keeps what it was sent.

    `pages` are its lists and records as OpenRouter gives them, by OpenRouter's paths; every other path is a 404. Change
    them to change what is there.
    """

    def __init__(self, *scripts: Script | Exception, pages: Mapping[str, bytes | Exception] | None = None) -> None:
        self._scripts = list(scripts)
        # It drains what `Streaming` lets it.
        self.declared = Declared("scripted", "openrouter", "http://scripted", Timeouts(1, 1, 1), at_hang_up="drain")
        self.pages = dict(pages or {})
        self.received: list[Forwarded] = []
        self.fetched: list[tuple[str, Filters]] = []

    async def forward(self, path: str, body: bytes, headers: Mapping[str, str], *, streamed: bool) -> "ScriptedReply":
        self.received.append(Forwarded(path, body, headers, streamed))
        script = self._scripts.pop(0)
        if isinstance(script, Exception):
            raise script
        return ScriptedReply(script)

    async def content(self, job_id: str, query: Filters, headers: Mapping[str, str]) -> "ScriptedReply":
        """What a job made: the next script."""
        self.fetched.append((f"/videos/{job_id}/content", query))
        script = self._scripts.pop(0)
        if isinstance(script, Exception):
            raise script
        return ScriptedReply(script)

    async def fetch(self, path: str, query: Filters) -> Fetched:
        self.fetched.append((path, query))
        page = self.pages.get(path)
        if isinstance(page, Exception):
            raise page
        return Fetched(404, b"{}") if page is None else Fetched(200, page)

    async def close(self) -> None:
        """Nothing is held open."""


class ScriptedReply:
    """A reply that follows its script."""

    def __init__(self, script: Script) -> None:
        self._steps = list(script.steps)
        self._closed = asyncio.Event()
        self.status = script.status
        self.content_type = script.content_type
        self.generation_id = script.generation_id
        self.adds_usage = script.adds_usage
        self.headers = [*sound(script.headers)]
        self.about_bytes = [(b"content-type", script.content_type.encode())]
        if script.generation_id:
            self.headers.append((b"x-generation-id", script.generation_id.encode()))

    @property
    def is_complete(self) -> bool:
        return all(isinstance(step, bytes) for step in self._steps)

    async def chunk(self) -> bytes:
        while self._steps:
            if self._closed.is_set():
                raise UpstreamBroke("closed")
            match step := self._steps.pop(0):
                case bytes():
                    return step
                case Pause(turns):
                    for _ in range(turns):
                        await asyncio.sleep(0)
                case Break():
                    raise UpstreamBroke("the script broke it off")
                case Silence():
                    await self._closed.wait()
                    raise UpstreamBroke("closed")
        return b""

    async def pour(self, take: Take, likeness: Likeness | None = None) -> None:
        while part := await self.chunk():
            size_line = b"%x\r\n" % len(part)
            if likeness is not None and likeness.passes(size_line + part + b"\r\n", size_line):
                continue
            waiting = take(part)
            if waiting is not None:
                await waiting

    async def read(self) -> bytes:
        parts: list[bytes] = []
        while part := await self.chunk():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        self._closed.set()
