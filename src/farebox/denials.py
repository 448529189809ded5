"""What becomes of a refusal that is about the operator's own account at an upstream: it is told to the operator, in the
log and in metrics, and never to a caller, who would take it for one of his own key. The rules are in `core.denials`."""

import logging
from collections.abc import Callable
from time import monotonic

from farebox.core.attempts import Denied
from farebox.core.denials import STATUSES, told
from farebox.core.headers import HeaderList
from farebox.core.likeness import Likeness
from farebox.ports import Reply, Take, UpstreamBroke

log = logging.getLogger("farebox")

READ_BYTES_MAX = 64 * 1024
"""How much of a refusal is read to know what it is about."""

WORDS_MAX = 300
"""How much of its words is logged."""

AGAIN_SECONDS = 60.0
"""How often the same is logged at most: each order may meet it."""


class Denials:
    """Tells the operator who refuses his account; `count` hears of each such order, with the upstream and the
    status."""

    def __init__(self, count: Callable[[str, int], None] = lambda upstream, status: None) -> None:
        self._count = count
        self._told: dict[tuple[str, int], float] = {}

    def tell(self, upstream: str, denied: Denied) -> None:
        self._count(upstream, denied.status)
        now, name = monotonic(), (upstream, denied.status)
        if now < self._told.get(name, 0.0):
            return
        self._told[name] = now + AGAIN_SECONDS
        words = denied.words[:WORDS_MAX] or "it says no more"
        log.warning(
            "upstream `%s` refuses this gateway's own account there, with status %d: %s. Callers are told 502",
            upstream,
            denied.status,
            words,
        )


async def read_refusal(reply: Reply) -> "Denied | Reply":
    """What a refusal is, once its body is read where that is needed: a denial, whose reply is closed; or the reply,
    still to be read from its beginning."""
    if reply.status not in STATUSES:
        return reply
    parts: list[bytes] = []
    body: bytes | None = None
    try:
        while sum(map(len, parts)) < READ_BYTES_MAX and (part := await reply.chunk()):
            parts.append(part)
        body = b"".join(parts)
    except UpstreamBroke:
        pass  # its status is known, and whoever reads on meets the break again
    except BaseException:
        reply.close()
        raise
    found = told(reply.status, body)
    if not found.is_of_account:
        return _Reread(reply, parts)
    reply.close()
    return Denied(reply.status, found.words)


class _Reread:
    """A reply whose body was begun to be read: from its beginning again."""

    def __init__(self, reply: Reply, parts: list[bytes]) -> None:
        self._reply = reply
        self._parts = parts
        self.status = reply.status
        self.headers: HeaderList = reply.headers
        self.content_type = reply.content_type
        self.generation_id = reply.generation_id
        self.adds_usage = reply.adds_usage

    @property
    def is_complete(self) -> bool:
        return self._reply.is_complete

    async def chunk(self) -> bytes:
        return self._parts.pop(0) if self._parts else await self._reply.chunk()

    async def read(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join([*parts, await self._reply.read()])

    async def pour(self, take: Take, likeness: Likeness | None = None) -> None:
        while data := await self.chunk():
            waiting = take(data)
            if waiting is not None:
                await waiting

    def close(self) -> None:
        self._reply.close()
