"""The upstream's models and prices, kept at hand.

Policy: a list is fresh for `refresh_seconds` and asked for anew in the background. While the upstream cannot give one
the old one serves, marked stale, up to `max_age_seconds`; after that, and before the first, orders are refused with
502. No list ever means "free".
"""

import asyncio
import time
from collections.abc import Callable

from farebox.core.errors import Refusal, unreachable
from farebox.core.pricing import PriceList, read_price_list
from farebox.ports import Upstream, UpstreamBroke, UpstreamUnreachable

RETRY_FIRST_SECONDS = 1.0
RETRY_LONGEST_SECONDS = 60.0

PAGE_MAX = 1000
"""OpenRouter's largest page."""


class Catalog:
    """One upstream's list. Use `refresh` once, then let `keep_fresh` run."""

    def __init__(
        self,
        upstream: Upstream,
        refresh_seconds: float,
        max_age_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._refresh_seconds = refresh_seconds
        self._max_age_seconds = max_age_seconds
        self._now = now
        self._prices: PriceList | None = None
        self._read_at = 0.0
        self.trouble: str | None = "it has not been asked for yet"

    def current(self) -> PriceList:
        """The price list in force.

        Raises:
            Refusal: 502, there is none that may be used.
        """
        if self._prices is None:
            raise _no_prices(f"there is no price list ({self.trouble})")
        if self._now() - self._read_at > self._max_age_seconds:
            raise _no_prices(f"the price list is older than {self._max_age_seconds:g} s ({self.trouble})")
        return self._prices

    @property
    def is_stale(self) -> bool:
        """Whether the list should have been replaced by now, and could not be."""
        return self._now() - self._read_at > 2 * self._refresh_seconds

    async def refresh(self) -> bool:
        """Ask for the list; the old one stays where there is no good new one."""
        try:
            self._prices = read_price_list(await self._upstream.models())
        except (UpstreamUnreachable, UpstreamBroke, ValueError) as error:
            self.trouble = str(error)
            return False
        self._read_at = self._now()
        self.trouble = None
        return True

    async def keep_fresh(self) -> None:
        """Refresh for ever, sooner after a failure. Runs until cancelled."""
        retry_seconds = RETRY_FIRST_SECONDS
        while True:
            await asyncio.sleep(self._refresh_seconds if self.trouble is None else retry_seconds)
            retry_seconds = (
                RETRY_FIRST_SECONDS if await self.refresh() else min(2 * retry_seconds, RETRY_LONGEST_SECONDS)
            )


def _no_prices(why: str) -> Refusal:
    return unreachable(f"Orders cannot be priced now: {why}")
