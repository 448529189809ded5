"""What needs a person now: found in one place for alerts, and for the console's first page."""

from collections.abc import Callable
from typing import Protocol

from farebox import clock
from farebox.background import Task
from farebox.core.alerts import (
    LOW_NANOS,
    Trouble,
    failing_task,
    failing_upstreams,
    limit_used,
    low_balance,
    stale_prices,
    unresolved_orders,
)
from farebox.ports import AlertShelf, Books, Standings


class TroubleStore(AlertShelf, Books, Standings, Protocol):
    """What is needed of the books."""


class Troubles:
    """`not_running` are tasks of this process that failed, `prices` whether its prices are stale, and why. What a
    process sees alone counts as over when it has not been seen for `own_us`."""

    def __init__(
        self,
        store: TroubleStore,
        not_running: Callable[[], list[Task]],
        prices: Callable[[], tuple[bool, str | None]],
        own_us: int,
        now_us: Callable[[], int] = clock.now_us,
    ) -> None:
        self._store = store
        self._not_running = not_running
        self._prices = prices
        self._own_us = own_us
        self._now_us = now_us

    async def everywhere(self, patience_us: int = 0) -> list[Trouble]:
        """All but limits. What may pass by itself is told after it has been there for `patience_us`. Raises
        BooksUnavailable."""
        counts = await self._store.not_ended()
        found = [unresolved_orders(counts.unresolved)] if counts.unresolved else []
        until_us = self._now_us() + self._own_us
        found += [failing_task(task.name, task.harm, patience_us, until_us) for task in self._not_running()]
        is_stale, why = self._prices()
        if is_stale:
            found.append(stale_prices(why, patience_us, until_us))
        found += failing_upstreams(await self._store.standings(), patience_us)
        return found + await self.low_balances()

    async def low_balances(self, account_id: int | None = None) -> list[Trouble]:
        """Those of one account, or of all, the lowest first. Raises BooksUnavailable."""
        found = await self._store.low_accounts(LOW_NANOS, account_id)
        return [low_balance(low) for low in sorted(found, key=lambda low: low.left_nanos)]

    async def limits(self) -> list[Trouble]:
        """Limits of money that are nearly used, or used up. Raises BooksUnavailable."""
        now_us = self._now_us()
        return [limit_used(*each, now_us) for each in await self._store.limits_used(now_us)]
