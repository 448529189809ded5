"""Slowing down callers who try unknown keys.

Nobody guesses 32 random bytes; but whoever tries must not keep the books busy, nor learn quickly which of many stolen
keys still work.
"""

import asyncio
from time import monotonic

from farebox.core.errors import too_many

FREE_MAX = 30
"""How many unknown keys are answered at once; one more for each RENEWED_SECONDS that passes."""

RENEWED_SECONDS = 2.0

DELAY_SECONDS = 1.0
"""How long a caller with an unknown key waits for its 401 after that."""

WAITING_MAX = 200
"""The most callers delayed at once. While so many are, no key is looked up: remembered keys work, any other gets
429."""


class Guesses:
    """Counts the unknown keys that were tried of late in one process, from all addresses together: addresses are
    cheap."""

    def __init__(self, delay_seconds: float = DELAY_SECONDS) -> None:
        self._delay_seconds = delay_seconds
        self._recent = 0.0
        self._counted_at = monotonic()
        self._waiting = 0

    def check(self) -> None:
        """To be called before a key is looked up. Raises Refusal 429: too many callers are being delayed."""
        if self._waiting >= WAITING_MAX:
            raise too_many("Too many unknown keys are being tried here", max(1, round(self._delay_seconds)))

    async def failed(self) -> None:
        """Count one more unknown key, and return when its caller may get its 401."""
        now = monotonic()
        renewed = (now - self._counted_at) / RENEWED_SECONDS
        self._recent = min(max(0.0, self._recent - renewed) + 1, 2 * FREE_MAX)
        self._counted_at = now
        if self._recent <= FREE_MAX:
            return
        self._waiting += 1
        try:
            await asyncio.sleep(self._delay_seconds)
        finally:
            self._waiting -= 1
