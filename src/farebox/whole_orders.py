"""Orders that are whole in memory and get whole answers, placed from inside the gateway: a batch's, a run's, an
agent's. They go the way of all orders, through the exchange."""

from collections.abc import Mapping

from msgspec import Struct

from farebox.answer_cache import CachedAnswer
from farebox.answers import ANSWER_CAP_HEADER, NO_FARE, RepeatedAnswer, upstream_refusal
from farebox.core.books import Fare
from farebox.core.callers import Caller
from farebox.core.errors import too_many
from farebox.core.formats import Asked, Format
from farebox.core.headers import RequestHead
from farebox.core.money import usd_of
from farebox.exchange import Exchange, Prices, Request
from farebox.ports import Books, BooksUnavailable, Callers

BOOKS_RETRY_SECONDS = 5


class Placed(Struct, frozen=True):
    """A whole order that was answered. `fare` is None while what it cost is not known; `answer_cap` is there where the
    answer's cap was lowered."""

    generation_id: str | None
    body: bytes
    fare: Fare | None
    answer_cap: int | None = None


class WholeOrders(Struct, frozen=True):
    """The exchange, for whole orders; and what stands around it."""

    exchange: Exchange
    callers: Callers
    prices: Prices
    books: Books
    wires: Mapping[str, Format]

    async def place(
        self,
        caller: Caller,
        path: str,
        body: bytes,
        *,
        idempotency_key: bytes = b"",
        cache: bytes = b"",
        asked: Asked | None = None,
    ) -> Placed:
        """Serve one order as its endpoint would. `cache` is what its `X-Farebox-Cache` would say, `asked` what its body
        asks, where that was read before.

        Raises:
            Refusal: it was not served; an upstream's refusal, too.
        """

        async def read_body() -> bytes:
            return body

        wire = self.wires[path]
        request = Request(
            path, wire, RequestHead(idempotency_key=idempotency_key, cache=cache), read_body, caller, asked
        )
        try:
            async with self.exchange.open(request) as answer:
                whole = await answer.read()
        except BooksUnavailable as error:
            raise too_many(f"Try again shortly: {error}", BOOKS_RETRY_SECONDS) from error
        if answer.is_refusal:
            raise upstream_refusal(answer, wire.typed_refusal(answer.status, whole))
        headers = dict(answer.headers)
        generation_id = headers.get(b"x-generation-id", b"").decode() or None
        cap = headers.get(ANSWER_CAP_HEADER)
        if isinstance(answer, CachedAnswer):
            fare: Fare | None = NO_FARE
        elif isinstance(answer, RepeatedAnswer):
            fare = await self._first_fare(caller, generation_id)
        else:
            assert answer.settled is not None, answer
            fare = answer.settled.fare
        if fare is not None and not caller.plan.shows_cost:
            fare = Fare(usd_of(fare.nanos), fare.events, fare.nanos)
        return Placed(generation_id, whole, fare, None if cap is None else int(cap))

    async def _first_fare(self, caller: Caller, generation_id: str | None) -> Fare | None:
        """What a kept answer was paid for when it first came."""
        if generation_id is None:
            return None
        try:
            found = await self.books.generation(caller.account.id, generation_id)
        except BooksUnavailable:
            return None  # it was answered: that it cannot be looked up now must not look like a failure
        end = found[1] if found is not None else None
        return None if end is None else end.fare
