"""Telling of troubles: a task that looks what there is to tell, and one that delivers it.

What is to be told is written into the books with its deliveries in one transaction, so that of several nodes one tells
it, and a node that dies tells it when it is there again, or another does. A delivery is claimed for longer than an
attempt takes; what a dead node had claimed is tried again after that. So each alert is told at least once, under the
same id each time.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress

from farebox import clock
from farebox.core.alerts import Delivery, Receiver, after_attempt, decide, deliveries_of
from farebox.core.webhooks import headers_of, shown
from farebox.crash import crash_point
from farebox.ports import AlertShelf, BooksUnavailable, Webhooks
from farebox.troubles import Troubles

log = logging.getLogger("farebox")

LOOKS_UNSEEN = 3
"""After so many looks in which no process saw what one had seen alone, it counts as over."""

POLL_SECONDS = 2.0
"""How often is looked for deliveries that are due, or were begun by another process."""

CLAIM_US = 60_000_000
"""How long a delivery belongs to the process that tries it: longer than an attempt takes."""

AT_ONCE = 16
"""Deliveries that one process tries at once."""

KEPT_US = 30 * 86_400_000_000
"""How long a delivery that ended is kept at least, to be looked at."""


class Alerting:
    """`counted` is told how each attempt ended."""

    def __init__(
        self,
        shelf: AlertShelf,
        troubles: Troubles,
        webhooks: Webhooks,
        look_seconds: float,
        counted: Callable[[str], None],
        now_us: Callable[[], int] = clock.now_us,
    ) -> None:
        self._shelf = shelf
        self._troubles = troubles
        self._webhooks = webhooks
        self._look_seconds = look_seconds
        self._counted = counted
        self._now_us = now_us
        self._has_to_send = asyncio.Event()

    # What there is to tell

    async def watch(self) -> None:
        """Look again and again. Runs until cancelled."""
        while True:
            with suppress(BooksUnavailable):
                await self.look()
            await asyncio.sleep(self._look_seconds)

    async def look(self) -> None:
        """Raise what is to be told now. Nothing is looked at where nobody wants to be told. Raises BooksUnavailable."""
        receivers, raised = await self._shelf.receivers(), await self._shelf.raised()
        if not receivers:
            if raised:
                await self._shelf.forget_all_raised()
            return
        now_us = self._now_us()
        # What may pass by itself is told when a second look finds it, too.
        patience_us = int(self._look_seconds * 900_000)
        found = await self._troubles.everywhere(patience_us) + await self._troubles.limits()
        changes = decide(raised, found, now_us)
        if changes:
            ids = (new_id() for _ in iter(int, 1))
            deliveries = deliveries_of(changes.told, receivers, ids, now_us, clock.iso(now_us))
            if await self._shelf.take_down(changes, deliveries, now_us, now_us - KEPT_US):
                crash_point("alert-raised")
                self._has_to_send.set()

    # What is on its way

    async def deliver(self) -> None:
        """Try what is due. Runs until cancelled, and then lets go of what it is trying: it is due again later."""
        while True:
            tried = 0
            with suppress(BooksUnavailable):
                tried = await self.deliver_due()
            if tried == AT_ONCE:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._has_to_send.wait()
            self._has_to_send.clear()

    async def deliver_due(self) -> int:
        """Try all that is due, as far as it is tried at once; how many. Raises BooksUnavailable."""
        now_us = self._now_us()
        due = await self._shelf.claim_deliveries(now_us, now_us + CLAIM_US, AT_ONCE)
        if due:
            receivers = {receiver.id: receiver for receiver in await self._shelf.receivers()}
            async with asyncio.TaskGroup() as tasks:
                for each in due:
                    if each.receiver_id in receivers:
                        tasks.create_task(self._attempt(receivers[each.receiver_id], each))
        return len(due)

    async def _attempt(self, receiver: Receiver, delivery: Delivery) -> None:
        after = await attempt(self._webhooks, receiver, delivery, self._now_us)
        with suppress(BooksUnavailable):  # it is tried again when the claim is over
            await self._shelf.change_delivery(after)
        self._counted("failed" if after.state == "due" else after.state)
        if after.state == "given_up":
            log.error(
                "the alert %s (%s) is given up after %d attempts at receiver %d, %s: %s",
                after.id,
                after.kind,
                after.attempts,
                receiver.id,
                shown(receiver.url),
                after.said,
            )


def new_id() -> str:
    return f"alert_{secrets.token_hex(12)}"


async def attempt(
    webhooks: Webhooks, receiver: Receiver, delivery: Delivery, now_us: Callable[[], int], *, is_last: bool = False
) -> Delivery:
    """One attempt at a delivery, and what became of it."""
    body = delivery.body.encode()
    headers: dict[str, str] = {}
    if receiver.secret is not None:
        headers = headers_of(delivery.id, receiver.secret, now_us() // 1_000_000, body)
    problem = await webhooks.send(receiver.url, headers, body)
    return after_attempt(delivery, problem, now_us(), is_last=is_last)
