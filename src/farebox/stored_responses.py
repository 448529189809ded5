"""Answers in Responses that are kept for their account, in the books' database: whether one is, what a turn that
continues one is made of, and what is deleted when its time is over.

What is kept is written with the order's settlement, in the same transaction. So whoever has an answer's id finds it, at
any node, and an order that is not kept pays nothing for it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Raw, Struct

from farebox import clock
from farebox.core.callers import Caller
from farebox.core.continuation import (
    ENDED_WELL,
    PREVIOUS,
    NotContinued,
    continued,
    items_of,
    not_ended_well,
    not_found,
    output_items,
)
from farebox.core.errors import Refusal
from farebox.core.reading import UNREADABLE
from farebox.core.stored import Keeping, StoredRow, Wanted, for_upstream, read_wanted
from farebox.ports import BooksUnavailable, ResponseShelf

TURNS_MAX = 1_000
"""The longest conversation that is continued by the id of its last answer."""

SWEEP_SECONDS = 60.0
"""How often what has had its time is deleted; and how long what an account has kept is remembered without looking."""

RENEW_US = 24 * 3600 * 1_000_000
"""Turns that are continued are kept on; this is written down at most once in so long a time."""


class StoringTerms(Struct, frozen=True):
    """What may be kept: each answer with its input for `seconds` (0: nothing is), also where its order does not say so
    (`by_default`); so many bytes of an answer, and of an account."""

    seconds: int = 30 * 24 * 3600
    by_default: bool = True
    bytes_max: int = 8 * 2**20
    account_bytes_max: int = 256 * 2**20
    body_bytes_max: int = 2**31


class StoredResponses:
    """Keeps answers, and finds them again."""

    def __init__(self, shelf: ResponseShelf, terms: StoringTerms, now_us: Callable[[], int] = clock.now_us) -> None:
        self._shelf = shelf
        self.terms = terms
        self._now_us = now_us
        self._used: dict[int, int] = {}

    # Before an order

    async def take_up(self, caller: Caller, body: bytes) -> tuple[bytes, Keeping | None]:
        """The order as it goes on: with the earlier turns before its own, and without what is done here; and how its
        answer is kept, None where nothing is to be said of that. A body that is no order stays as it is.

        Raises:
            Refusal: it cannot be kept, and says that it is to be; or NotContinued.
            BooksUnavailable: what it continues cannot be looked up now.
        """
        wanted = read_wanted(body)
        if wanted is None:
            return body, None
        if wanted.has_conversation:
            message = f"conversation: there are none here; continue an answer by its id in `{PREVIOUS}`"
            raise Refusal(400, "invalid_request", message, param="conversation")
        is_kept = await self._is_kept(caller, wanted)
        earlier: list[Raw] = []
        if wanted.previous_response_id is not None:
            earlier = await self._earlier(caller.account.id, wanted.previous_response_id, goes_on=is_kept)
            body = continued(body, earlier)
            if len(body) > self.terms.body_bytes_max:
                message = f"{PREVIOUS}: with the turns before it the order has {len(body)} bytes, more than"
                message += f" {self.terms.body_bytes_max}; send a shorter conversation in `input`"
                raise Refusal(413, "payload_too_large", message, param=PREVIOUS)
        body = for_upstream(body, wanted)
        if wanted.store is False and not earlier:
            return body, None
        bytes_max = self.terms.bytes_max
        return body, Keeping(caller.account.id, wanted, is_kept=is_kept, bytes_max=bytes_max, earlier=len(earlier))

    async def _is_kept(self, caller: Caller, wanted: Wanted) -> bool:
        """Whether the answer is to be kept. Raises Refusal 400, 403 or 413: the order says that it is, and it cannot
        be."""
        if wanted.background and wanted.store is False:
            raise _refused(400, "an order in the background is kept until it is asked for; leave this out", "store")
        is_told = bool(wanted.store or wanted.background)
        if wanted.store is False or not (is_told or self.terms.by_default):
            return False
        refusal = await self._why_not(caller, wanted)
        if refusal is not None and is_told:
            raise refusal
        return refusal is None

    async def _why_not(self, caller: Caller, wanted: Wanted) -> Refusal | None:
        terms, member = self.terms, "store" if wanted.store else "background"
        if not terms.seconds:
            return _refused(400, "this gateway keeps no answers; send false", member)
        if not caller.key.may_store:
            return _refused(403, "this key may not have answers kept; send false", member)
        size = len(bytes(wanted.input)) if isinstance(wanted.input, Raw) else 0
        if size > terms.bytes_max:
            message = f"an answer is kept with its input, of {terms.bytes_max} bytes together at most; this has {size}"
            return _refused(413, f"{message}. Send false", member)
        used = await self._used_by(caller.account.id)
        if used + size > terms.account_bytes_max:
            message = f"{used} bytes are kept for this account, of {terms.account_bytes_max} at most"
            return _refused(403, f"{message}. Delete answers that are not needed any more, or send false", member)
        return None

    async def _used_by(self, account_id: int) -> int:
        used = self._used.get(account_id)
        if used is None:
            used = self._used[account_id] = await self._shelf.measure_stored(account_id)
        return used

    async def _earlier(self, account_id: int, response_id: str, *, goes_on: bool) -> list[Raw]:
        now_us = self._now_us()
        chain = await self._shelf.stored_chain(account_id, response_id, now_us, TURNS_MAX)
        items = earlier_items(chain, response_id)
        until_us = self.until_us(now_us)
        if goes_on and any(row.until_us < until_us - RENEW_US for row in chain):
            await self._shelf.go_on_stored(account_id, [row.id for row in chain], until_us)
        return items

    # After it

    def until_us(self, now_us: int) -> int:
        return now_us + self.terms.seconds * 1_000_000

    def row(self, keeping: Keeping) -> StoredRow | None:
        """What is to be kept with an order's settlement."""
        now_us = self._now_us()
        row = keeping.row(now_us, self.until_us(now_us))
        if row is not None and row.account_id in self._used:
            self._used[row.account_id] += row.size
        return row

    async def keep(self, keeping: Keeping) -> None:
        """Keep an answer that is not settled, since it was given before. Raises BooksUnavailable."""
        row = self.row(keeping)
        if row is not None:
            await (self._shelf.end_stored if row.background else self._shelf.keep_stored)(row)

    # Afterwards

    async def find(self, account_id: int, response_id: str) -> StoredRow:
        """Raises Refusal 404, BooksUnavailable."""
        row = await self._shelf.stored(account_id, response_id, self._now_us())
        if row is None:
            raise no_such_response(response_id)
        return row

    async def input_of(self, account_id: int, response_id: str) -> list[Raw]:
        """All that an answer's model was given: the items of its own turn, and of those before. Raises Refusal 404,
        BooksUnavailable."""
        chain = await self._shelf.stored_chain(account_id, response_id, self._now_us(), TURNS_MAX)
        if not chain:
            raise no_such_response(response_id)
        own, *before = chain
        return [*_items_of(before), *items_of(own.input)]

    async def delete(self, account_id: int, response_id: str) -> None:
        """Raises Refusal 404, BooksUnavailable."""
        if not await self._shelf.delete_stored(account_id, response_id, self._now_us()):
            raise no_such_response(response_id)
        self._used.pop(account_id, None)

    async def run(self) -> None:
        """Delete what has had its time. Runs until cancelled."""
        while True:
            with suppress(BooksUnavailable):
                await self._shelf.sweep_stored(self._now_us())
            # Other processes keep and delete, too.
            self._used.clear()
            await asyncio.sleep(SWEEP_SECONDS)


def earlier_items(chain: Sequence[StoredRow], response_id: str) -> list[Raw]:
    """What stands before the own input of a turn that continues an answer; `chain` is that and those before it, the
    latest first. Raises NotContinued."""
    if not chain:
        raise not_found(response_id)
    if chain[0].status not in ENDED_WELL:
        raise not_ended_well(response_id, chain[0].status)
    if len(chain) > TURNS_MAX:
        raise NotContinued(400, response_id, f"there are over {TURNS_MAX} turns before it; compact them")
    if (missing := chain[-1].previous_id) is not None:
        raise NotContinued(
            404, response_id, f"the answer `{missing[:80]}`, which that one continues, is not kept any more"
        )
    try:
        return _items_of(chain)
    except UNREADABLE as error:
        raise NotContinued(400, response_id, "what it answered cannot be read") from error


def _items_of(chain: Sequence[StoredRow]) -> list[Raw]:
    return [item for row in reversed(chain) for item in (*items_of(row.input), *output_items(row.answer))]


def no_such_response(response_id: str) -> Refusal:
    """404: it is another account's, was deleted, has had its time, or never was. They are told alike."""
    message = f"Response with id '{response_id[:80]}' not found"
    return Refusal(404, "not_found", message, metadata={"reason": "response_not_found"}, param="response_id")


_TYPES = {400: "invalid_request", 403: "permission_denied", 413: "payload_too_large"}


def _refused(status: int, message: str, member: str) -> Refusal:
    return Refusal(status, _TYPES[status], f"{member}: {message}", param=member)
