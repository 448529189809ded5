"""How many orders one process serves at once: in all, and for one account, so that none crowds out the others."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from farebox.core.errors import too_many

RETRY_SECONDS = 1


class Admission:
    """Counts the orders that are being served."""

    def __init__(self, orders_max: int, account_orders_max: int) -> None:
        self._orders_max = orders_max
        self._account_orders_max = account_orders_max
        self._orders = 0
        self._by_account: Counter[int] = Counter()

    @contextmanager
    def admit(self, account_id: int) -> Iterator[None]:
        """One order, for as long as the block runs. Raises Refusal 429."""
        if self._orders >= self._orders_max:
            raise too_many(
                f"{self._orders_max} orders are being served, which is all that is served at once", RETRY_SECONDS
            )
        if self._by_account[account_id] >= self._account_orders_max:
            raise too_many(
                f"{self._account_orders_max} orders of this account are being served: that is all at once",
                RETRY_SECONDS,
            )
        self._orders += 1
        self._by_account[account_id] += 1
        try:
            yield
        finally:
            self._orders -= 1
            self._by_account[account_id] -= 1
            if not self._by_account[account_id]:
                del self._by_account[account_id]
