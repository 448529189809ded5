"""The priced event of an Actor that runs elsewhere, and has this gateway for its platform: the Actor says how many, and
its run's account is billed for them.

A bill is a fare of that account: so many events of $0.00001, at the price of its plan.
"""

from collections.abc import Callable
from os import urandom

from farebox import clock
from farebox.core.books import NoSuchRow, NotCovered, PlaceHold, Settle
from farebox.core.callers import Caller
from farebox.core.errors import Refusal, unaffordable
from farebox.core.money import events_usd
from farebox.core.runs import BilledEvents, Run
from farebox.core.usage import Cost
from farebox.platform.store import SqlRuns
from farebox.ports import Ledger

PRICED_EVENT = "openrouter-api-usage"
"""The one priced event there is: $0.00001 of what the upstream charged, rounded up."""

COUNT_MAX = 10_000_000
KEY_SECONDS = 180
"""How long an idempotency key stands. After that the same call is billed anew."""

CALLS_PER_SECOND = 60
"""How many calls of one run are answered, as on Apify's platform."""


class PricedEvents:
    """Bills runs' accounts."""

    def __init__(self, runs: SqlRuns, ledger: Ledger, now_us: Callable[[], int] = clock.now_us) -> None:
        self._runs = runs
        self._ledger = ledger
        self._now_us = now_us
        self._calls: dict[str, int] = {}
        self._second = 0

    def count_call(self, run: Run) -> None:
        """Raises Refusal 429: too many calls of this run within a second."""
        second = self._now_us() // 1_000_000
        if second != self._second:
            self._second = second
            self._calls.clear()
        self._calls[run.id] = self._calls.get(run.id, 0) + 1
        if self._calls[run.id] > CALLS_PER_SECOND:
            headers = {"x-ratelimit-limit": str(CALLS_PER_SECOND)}
            raise Refusal(429, "rate-limit-exceeded", "You have exceeded the rate limit", headers)

    async def bill(self, caller: Caller, run: Run, event: str, count: int, key: str) -> None:
        """Bill a run's account for `count` events, once for each idempotency key (each time where `key` is empty).

        Raises:
            Refusal: 402, the account has spent more than it has; 404, there is no such event; 405, only Apify's own
                platform charges such an event.
        """
        if event.startswith("apify-"):
            raise Refusal(405, "cannot-charge-apify-event", f"{event[:100]!r} is charged by the platform alone")
        if event != PRICED_EVENT:
            raise Refusal(404, "record-not-found", f"Event {event[:100]!r} was not found; there is {PRICED_EVENT!r}")
        now_us = self._now_us()
        hold_id = f"{now_us:014x}{urandom(6).hex()}"
        # Noted first: if this ends halfway, a repeated call finds the hold and books no second one.
        noted = BilledEvents(hold_id, run.id, key or hold_id, event, now_us)
        hold_id = await self._runs.note_bill(noted, now_us - KEY_SECONDS * 1_000_000)
        settle = Settle(hold_id=hold_id, verdict=Cost(events_usd(count)), created_us=now_us)
        place = PlaceHold(
            id=hold_id,
            account_id=caller.account.id,
            key_id=caller.key.id,
            wanted_nanos=caller.plan.fare_nanos(events_usd(count)),
            least_nanos=0,
            plan=caller.plan.name,
            event_price_nanos=caller.plan.event_price_nanos,
            marked_up=caller.plan.marks_up,
            model=event,
            streamed=False,
            created_us=now_us,
            is_order=False,
        )
        if isinstance(await self._ledger.carry_out(settle), NoSuchRow):
            if isinstance(await self._ledger.carry_out(place), NotCovered):
                raise unaffordable("The account cannot pay for this event: it has spent more than it has")
            await self._ledger.carry_out(settle)
