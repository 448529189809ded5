"""POST `/responses/compact`: a conversation made short, by one order for a response (`core/compaction.py`)."""

from dataclasses import dataclass
from typing import Protocol

from msgspec import Raw

from farebox.core import compaction
from farebox.core.callers import Caller
from farebox.core.continuation import not_found
from farebox.core.headers import RequestHead
from farebox.http.calls import Call
from farebox.ports import Callers
from farebox.web.relay import ReadBody


class Conversations(Protocol):
    """Where conversations are kept."""

    async def conversation(self, caller: Caller, response_id: str) -> list[Raw]:
        """All items up to an answer, and its own. Raises Refusal 400, 404, BooksUnavailable."""


@dataclass(frozen=True, slots=True)
class Compacting:
    """How such a request is served as an order (`relay.Remade`)."""

    callers: Callers
    conversations: Conversations | None = None

    def read(self, read: ReadBody) -> ReadBody:
        async def read_order(call: Call, head: RequestHead) -> bytes:
            body = await read(call, head)
            previous = compaction.previous_of(body)
            if not previous:
                return compaction.order_of(body)
            if self.conversations is None:
                raise not_found(previous)
            caller = await self.callers.identify(head)
            return compaction.order_of(body, await self.conversations.conversation(caller, previous))

        return read_order

    def tell(self, answer: bytes) -> bytes:
        return compaction.compacted(answer)
