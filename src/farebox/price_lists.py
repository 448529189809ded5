"""The price list in force, from the operator's price file: read, completed from OpenRouter's public list where the file
says so, and kept in the books before the first order is charged by it.

A file that is wrong is refused at a start; later it changes nothing, and the log says what is wrong. While OpenRouter's
list cannot be read the last one counts, up to `max_age_seconds`; after that, and before the first, what was to come
from it has no price.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from farebox import clock
from farebox.core.price_files import BadPrices, read_price_file
from farebox.core.tariffs import Borrowed, Declared, Entry, KeptTariffs, Offer, Tariffs
from farebox.ports import BooksUnavailable, TariffShelf, UpstreamBroke, UpstreamUnreachable

log = logging.getLogger("farebox")

LOOK_SECONDS = 2.0
"""How often to look whether the file has changed."""

_NEVER = (-1, -1)

Ask = Callable[[], Awaitable[tuple[bytes, ...]]]
"""Asks OpenRouter for its model lists. Raises UpstreamUnreachable, UpstreamBroke."""


def read_file(path: Path) -> tuple[Declared, ...]:
    """The entries of the price file. Raises BadPrices."""
    try:
        return read_price_file(path.read_bytes(), str(path))
    except OSError as error:
        raise BadPrices(f"{path}: it cannot be read: {error.strerror or error}") from error


class PriceLists:
    """Use `refresh` once, then let `keep_fresh` run. `current` is the list in force; the books have it."""

    def __init__(
        self,
        path: Path | None,
        shelf: TariffShelf,
        ask: Ask,
        refresh_seconds: float = 300,
        max_age_seconds: float = 86_400,
        now: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = clock.now_us,
        look_seconds: float = LOOK_SECONDS,
        declared: Callable[[], Sequence[Declared]] = tuple,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`declared` gives the entries that follow from how upstreams are declared, behind those of the file; `changed`
        is called when another list is in force."""
        self._path = path
        self._shelf = shelf
        self._ask = ask
        self._refresh_seconds = refresh_seconds
        self._max_age_seconds = max_age_seconds
        self._now = now
        self._now_us = now_us
        self._look_seconds = look_seconds
        self._declared = declared
        self._changed = changed
        self._seen: tuple[int, int] | None = _NEVER
        self._file: tuple[Declared, ...] = ()
        self._taken: Sequence[Declared] = ()
        self._offer: Callable[[str], Offer] | None = None
        self._offered_at = 0.0
        self._asked_at = float("-inf")
        self._trouble = ""
        self._turn = asyncio.Lock()
        self.current = Tariffs()

    async def refresh(self) -> None:
        """Read the file again, ask OpenRouter where that is due, and take what they say from now on.

        Raises:
            BadPrices: the file is wrong; what it said before stays in force.
            BooksUnavailable: the books cannot keep the new list, so the one in force stays.
        """
        async with self._turn:
            await self._refresh()

    async def _refresh(self) -> None:
        seen, wrong, file = self._stamp(), None, self._file
        if self._path is not None and seen != self._seen:
            try:
                file = read_file(self._path)
            except BadPrices as error:
                wrong = error  # what follows from how upstreams are declared is taken all the same
        follows = self._declared()
        declared = (*file, *follows)
        if any(isinstance(each, Borrowed) for each in declared):
            await self._look_for_offers()
        tariffs = Tariffs(entry for each in declared for entry in self._entries(each))
        if tariffs.version != self.current.version:
            await self._shelf.keep_tariffs(KeptTariffs(tariffs.version, tariffs.content, self._now_us()))
            log.info("price list %s is in force, of %d entries", tariffs.version, len(tariffs.entries))
            for entry in tariffs.entries:
                if entry.reason:
                    log.warning("`%s` at `%s` has no price: %s", entry.model, entry.upstream, entry.reason)
        is_other = tariffs.version != self.current.version
        self.current, self._seen, self._taken, self._file = tariffs, seen, follows, file
        if is_other:
            self._changed()
        if wrong is not None:
            raise wrong

    async def _look_for_offers(self) -> None:
        now = self._now()
        if now - self._asked_at < self._refresh_seconds:
            return
        # Only here: who takes no prices from there need not carry it.
        from farebox.upstream.openrouter_tariffs import read_offers

        self._asked_at = now
        try:
            self._offer = read_offers(*await self._ask())
        except (UpstreamUnreachable, UpstreamBroke, ValueError) as error:
            self._trouble = str(error)
            log.warning("OpenRouter's list of prices could not be read: %s", error)
        else:
            self._offered_at, self._trouble = now, ""

    def _entries(self, declared: Declared) -> tuple[Entry, ...]:
        if isinstance(declared, Entry):
            return (declared,)
        if self._offer is None:
            return declared.entries(Offer(reason=f"OpenRouter's list could not be read: {self._trouble}"))
        if self._now() - self._offered_at > self._max_age_seconds:
            return declared.entries(Offer(reason=f"OpenRouter's list is too old: {self._trouble}"))
        return declared.entries(self._offer(declared.listed))

    async def keep_fresh(self) -> None:
        """Refresh when the file changes, and where it takes prices from OpenRouter. Runs until cancelled."""
        while True:
            await asyncio.sleep(self._look_seconds)
            if self._is_due():
                await self.renew()

    async def renew(self) -> None:
        """As `refresh`; what hinders it is told in the log."""
        try:
            await self.refresh()
        except BadPrices as error:
            for line in str(error).splitlines():
                log.error("the price file changes nothing: %s", line)
        except BooksUnavailable as error:
            log.error("the new price list waits for the books: %s", error)

    def _is_due(self) -> bool:
        if self._stamp() != self._seen or self._declared() != self._taken:
            return True
        is_borrowing = self._asked_at > float("-inf")
        return is_borrowing and self._now() - self._asked_at >= self._refresh_seconds

    def _stamp(self) -> tuple[int, int] | None:
        return None if self._path is None else _stamp(self._path)


def _stamp(path: Path) -> tuple[int, int] | None:
    """By what a file is seen to have changed; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
