"""POST `/responses/compact`: a conversation made short, by one order for a response (`core/compaction.py`)."""

from dataclasses import dataclass
from typing import Protocol

from msgspec import Raw

from farebox.core import compaction
from farebox.core.continuation import ENDED_WELL, not_ended_well, not_found, output_items
from farebox.core.errors import Refusal
from farebox.core.headers import RequestHead
from farebox.http.calls import Call
from farebox.ports import Callers
from farebox.web.relay import ReadBody


class KeptAnswer(Protocol):
    @property
    def status(self) -> str: ...

    @property
    def answer(self) -> bytes: ...


class KeptAnswers(Protocol):
    """Where answers are kept, each under its id. Both raise Refusal 404, BooksUnavailable."""

    async def find(self, account_id: int, response_id: str) -> KeptAnswer: ...

    async def input_of(self, account_id: int, response_id: str) -> list[Raw]:
        """All that its model was given, turns before its own included."""


@dataclass(frozen=True, slots=True)
class Compacting:
    """How such a request is served as an order (`relay.Remade`)."""

    callers: Callers
    kept: KeptAnswers | None = None

    def read(self, read: ReadBody) -> ReadBody:
        async def read_order(call: Call, head: RequestHead) -> bytes:
            body = await read(call, head)
            previous = compaction.previous_of(body)
            if not previous:
                return compaction.order_of(body)
            return compaction.order_of(body, await self._conversation(head, previous))

        return read_order

    async def _conversation(self, head: RequestHead, response_id: str) -> list[Raw]:
        """All items up to a kept answer, and its own. Raises Refusal 400, 401, 404, BooksUnavailable."""
        if self.kept is None:
            raise not_found(response_id)
        account_id = (await self.callers.identify(head)).account.id
        try:
            row = await self.kept.find(account_id, response_id)
            given = await self.kept.input_of(account_id, response_id)
        except Refusal as refusal:
            raise not_found(response_id) from refusal
        if row.status not in ENDED_WELL:
            raise not_ended_well(response_id, row.status)
        return [*given, *output_items(row.answer)]

    def tell(self, answer: bytes) -> bytes:
        return compaction.compacted(answer)
