"""How many orders one process serves at once: in all, and for each account, so that none crowds out the others. Once
the process stops, it admits no more."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from farebox.core.errors import too_many

RETRY_SECONDS = 1


class Admission:
    """The orders that are being served, and their bounds."""

    def __init__(self, orders_max: int, account_orders_max: int) -> None:
        self._orders_max = orders_max
        self._account_orders_max = account_orders_max
        self._orders: set[asyncio.Task[object]] = set()
        self._aside: set[asyncio.Task[object]] = set()
        self._by_account: Counter[int] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_closed = False

    @contextmanager
    def aside(self, account_id: int) -> Iterator[None]:
        """Do not count an admitted order for as long as it only waits for another's answer: it is no work, and takes
        nobody's turn."""
        task = self._current_task()
        self._orders.discard(task)
        self._aside.add(task)
        self._by_account[account_id] -= 1
        try:
            yield
        finally:
            self._aside.discard(task)
            self._orders.add(task)
            self._by_account[account_id] += 1

    @property
    def orders(self) -> int:
        """How many orders are being served."""
        return len(self._orders) + len(self._aside)

    def enter(self, account_id: int) -> asyncio.Task[object]:
        """Count the order that the current task serves, until `leave` is called with that task. Raises Refusal 429."""
        if self.is_closed:
            raise too_many("This gateway is stopping, and takes no more orders", RETRY_SECONDS)
        if len(self._orders) >= self._orders_max:
            raise too_many(f"{self._orders_max} orders are being served, the most at once", RETRY_SECONDS)
        of_account = self._by_account.get(account_id, 0)
        if of_account >= self._account_orders_max:
            raise too_many(
                f"{self._account_orders_max} orders of this account are being served, the most at once", RETRY_SECONDS
            )
        task = self._current_task()
        self._orders.add(task)
        self._by_account[account_id] = of_account + 1
        return task

    def leave(self, account_id: int, task: asyncio.Task[object]) -> None:
        self._orders.discard(task)
        of_account = self._by_account[account_id] - 1
        if of_account:
            self._by_account[account_id] = of_account
        else:
            del self._by_account[account_id]

    def _current_task(self) -> asyncio.Task[object]:
        if self._loop is None:
            # Not for each order: Python 3.11 asks the system for the process's number each time.
            self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        assert task is not None
        return task

    def close(self) -> None:
        """Admit no more orders."""
        self.is_closed = True

    def break_off(self) -> None:
        """Cancel the orders that are still being served."""
        for task in self._orders | self._aside:
            task.cancel()
