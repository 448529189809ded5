"""Charging: fares become charges at an outside biller (Apify), each once, whatever fails on the way.

A fare comes into the outbox with the transaction that posts it. From there it is charged under an idempotency key that
stays the same until the biller has counted it. If that is uncertain for longer than the key stands, the biller is asked
what it has counted; a charge of which it cannot say so is flagged, never made twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from time import monotonic
from typing import Protocol, TypeVar

from msgspec.structs import replace

from farebox import clock
from farebox.acting import acting
from farebox.actor.outbox import SqlOutbox
from farebox.core.books import NoSuchRow, Outside, PlaceHold, Settle
from farebox.core.charges import ASK_US, WINDOW_US, Carried, CarriedOrder, Charge
from farebox.core.trail import By
from farebox.core.usage import Cost, Unknown
from farebox.ports import Biller, BillerUnreachable, BooksUnavailable, Directory, Ledger, NotCounted

log = logging.getLogger("farebox")

T = TypeVar("T")

SUM_SECONDS = 1.0
"""How long fares of one run are summed before they are charged."""

CHARGED_SECONDS = 5.0
"""How long an answer waits until its fare was charged: as long as Apify's own Actors do."""

CALLS_PER_SECOND = 55
"""The platform answers 60 calls a second for each run, those of others included."""

RETRY_FIRST_SECONDS = 0.5
RETRY_LONGEST_SECONDS = 10.0


class ChargesRefused(Exception):  # noqa: N818 - the word of the house
    """The biller refused a charge of the run itself: nothing more may be served."""


class Charging:
    """Charges an outside biller's callers. `counted_before` are the events that it had counted for this run before
    these books began."""

    def __init__(
        self,
        outbox: SqlOutbox,
        biller: Biller,
        counted_before: int = 0,
        now_us: Callable[[], int] = clock.now_us,
        sum_seconds: float = SUM_SECONDS,
        retry_seconds: float = RETRY_FIRST_SECONDS,
    ) -> None:
        self._outbox = outbox
        self._biller = biller
        self._counted_before = counted_before
        self._now_us = now_us
        self._sum_seconds = sum_seconds
        self._retry_seconds = retry_seconds
        self._pace = _Pace(CALLS_PER_SECOND)
        self._woken = asyncio.Event()
        self._beginning = asyncio.Lock()
        self._going: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def run(self) -> None:
        """Charge what comes into the outbox. Runs until cancelled. Raises ChargesRefused. Where it fails otherwise,
        the charges that are going on go on, for `run` to find them when it begins again."""
        try:
            while True:
                try:
                    await self._begin()
                except BooksUnavailable as error:
                    log.error("charges wait for the books: %s", error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._sum_seconds):
                        await self._woken.wait()
                self._woken.clear()
        except (asyncio.CancelledError, ChargesRefused):
            for task in self._going.values():
                task.cancel()
            if self._going:
                await asyncio.wait(self._going.values())
                self._going.clear()
            raise

    async def until_charged(self, transfer_id: str) -> None:
        """Wait until this transfer's fare was charged or refused, CHARGED_SECONDS at most; it is charged later, too."""
        waiting = self._waiting.setdefault(transfer_id, asyncio.get_running_loop().create_future())
        self._woken.set()
        try:
            async with asyncio.timeout(CHARGED_SECONDS):
                await asyncio.shield(waiting)
        except TimeoutError:
            message = "the fare of %s was not charged within %g s; it goes on being tried"
            log.error(message, transfer_id, CHARGED_SECONDS)
        finally:
            self._waiting.pop(transfer_id, None)

    async def flush(self, seconds: float) -> bool:
        """Charge what is in the outbox, for so many seconds at most; whether all was charged. Beside `run` or after it.
        Raises ChargesRefused."""
        try:
            async with asyncio.timeout(seconds):
                while await _durably(self._begin):
                    await asyncio.wait(self._going.values(), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return False
        return True

    async def _begin(self) -> bool:
        """Begin whatever charge is due; whether any is going on. Raises BooksUnavailable, ChargesRefused."""
        async with self._beginning:
            waiting = set(self._waiting)
            now_us = self._now_us()
            due = await self._outbox.gather(now_us)
            for charge in due:
                if charge.id not in self._going:
                    # One that was made just now is new; any other may have been tried before this process began.
                    carry = self._carry(charge, is_tried=charge.window_us != now_us)
                    self._going[charge.id] = asyncio.create_task(carry)
            # A charge that ended before its waiter came is not among the due ones: nobody else would end the wait.
            for transfer_id in waiting - self._going.keys() - {charge.id for charge in due}:
                self._end_wait(transfer_id)
            for charge_id, task in list(self._going.items()):
                if task.done():
                    del self._going[charge_id]
                    task.result()
        return bool(self._going)

    async def _carry(self, charge: Charge, *, is_tried: bool) -> None:
        try:
            ended = await self._deliver(charge, is_tried=is_tried)
        finally:
            self._end_wait(charge.id)
            self._woken.set()
        if ended.state != "charged":
            log.error("charge %s of %d events is %s: %s", charge.id, charge.count, ended.state, ended.said)
        if ended.state == "refused" and not charge.charge_to:
            raise ChargesRefused(f"the platform takes no charges of this run: {ended.said}")

    def _end_wait(self, transfer_id: str) -> None:
        if (waiting := self._waiting.get(transfer_id)) is not None and not waiting.done():
            waiting.set_result(None)

    async def _deliver(self, charge: Charge, *, is_tried: bool) -> Charge:
        """Make a charge's calls, one by one, to its end. `is_tried`: the present one may have been made before."""
        tries = 0
        while charge.state == "due":
            before = charge
            try:
                # The age counts when the call leaves, and a turn may be long in coming.
                await self._pace.turn()
                late_us = self._now_us() - charge.window_us
                if late_us > WINDOW_US and is_tried:
                    charge = await self._asked(charge, (ASK_US - late_us) / 1_000_000)
                else:
                    if late_us > WINDOW_US:
                        # Its key is used from here on. That is written down first, for a process that goes on with it.
                        before = charge = replace(charge, window_us=self._now_us())
                        await _durably(partial(self._outbox.change, charge))
                    is_tried = True
                    key, count = charge.call
                    await self._biller.charge(key, count, charge.charge_to)
                    charge = charge.after_call(self._now_us())
            except NotCounted as error:
                charge = charge.refused(str(error), self._now_us())
            except BillerUnreachable as error:
                log.warning("charge %s: %s", charge.id, error)
                await asyncio.sleep(min(self._retry_seconds * 2**tries, RETRY_LONGEST_SECONDS))
                tries += 1
            if charge is not before:
                tries, is_tried = 0, False
                await _durably(partial(self._outbox.change, charge))
        return charge

    async def _asked(self, charge: Charge, wait_seconds: float) -> Charge:
        """Ask what became of a charge whose idempotency key stands no more. A run's charges are made one after the
        other, so that whatever was counted beyond the others is this one's."""
        if charge.charge_to:
            return charge.unsure("the platform was not reached while its idempotency key stood", self._now_us())
        await asyncio.sleep(wait_seconds)
        counted = await self._biller.counted()
        others = await _durably(self._outbox.counted)
        return charge.after_asking(counted - others - self._counted_before, self._now_us())


class Store(Ledger, Directory, Protocol):
    """The part of the books that `take_over` needs."""


async def take_over(carried: Carried, store: Store, outbox: SqlOutbox) -> None:
    """Put into these books what an earlier machine of the same run left. Doing it again changes nothing."""
    settles = [_settle(order) for order in carried.orders]
    known = [not isinstance(await store.carry_out(settle), NoSuchRow) for settle in settles]
    # All holds are placed before any is settled: a fare that empties the account would keep the next from being placed.
    with acting(By("actor", "Farebox's Actor, for what an earlier machine left")):
        for order, is_known in zip(carried.orders, known, strict=True):
            if not is_known:
                await store.carry_out(await _place(order, store))
    for settle in settles:
        await store.carry_out(settle)
    await outbox.adopt(carried)


async def _place(order: CarriedOrder, store: Store) -> PlaceHold:
    hold = order.hold
    account = await store.find_account(order.account)
    if account is None:
        account = await store.create_account(order.account, hold.plan, None, hold.created_us)
    keys = await store.keys(account.id)
    digest = f"carried over {account.id}".encode()
    key = keys[0] if keys else await store.create_key(account.id, "carried over", digest, "", hold.created_us)
    assert hold.charge_to is not None, hold
    return PlaceHold(
        id=hold.id,
        account_id=account.id,
        key_id=key.id,
        wanted_nanos=0,
        least_nanos=0,
        plan=hold.plan,
        event_price_nanos=hold.event_price_nanos,
        marked_up=hold.marked_up,
        model=hold.model,
        streamed=hold.streamed,
        created_us=hold.created_us,
        outside=Outside(hold.charge_to, hold.charge_times or 1),
        upstream=hold.upstream,
    )


def _settle(order: CarriedOrder) -> Settle:
    hold = order.hold
    return Settle(
        hold_id=hold.id,
        verdict=Unknown("the machine that served it has gone") if order.cost is None else Cost(Decimal(order.cost)),
        created_us=hold.ended_us or hold.created_us,
        generation_id=hold.generation_id,
        served_model=hold.served_model,
        prompt_tokens=hold.prompt_tokens,
        answer_tokens=hold.answer_tokens,
        booked_us=clock.now_us(),
    )


async def _durably(use_books: Callable[[], Awaitable[T]]) -> T:
    """Use the books, again and again until they answer."""
    while True:
        try:
            return await use_books()
        except BooksUnavailable as error:
            log.error("charges wait for the books: %s", error)
            await asyncio.sleep(RETRY_FIRST_SECONDS)


class _Pace:
    """Spreads turns evenly: `per_second` at most."""

    def __init__(self, per_second: float) -> None:
        self._seconds = 1 / per_second
        self._next = monotonic()

    async def turn(self) -> None:
        now = monotonic()
        at = max(now, self._next)
        self._next = at + self._seconds
        if at > now:
            await asyncio.sleep(at - now)
