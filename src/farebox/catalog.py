"""The upstream's prices and lists, kept at hand.

Policy: a page is fresh for `refresh_seconds` and asked for anew in the background. While the upstream cannot give one
the old one serves, marked stale, up to `max_age_seconds`; after that, and before the first, the answer is 502. No price
list ever means "free".
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import Refusal, invalid, unknown, unreachable
from farebox.core.listing import Listed, read_listed
from farebox.core.pricing import KeptPrices, PriceList, read_price_list
from farebox.core.reading import UNREADABLE, starts_with
from farebox.ports import BooksUnavailable, Fetched, PriceShelf, Query, Upstream, UpstreamBroke, UpstreamUnreachable

RETRY_FIRST_SECONDS = 1.0
RETRY_LONGEST_SECONDS = 60.0

PAGES_KEPT_MAX = 64
"""Pages kept, those least asked for dropped first: a model list is a megabyte or two, callers choose its filters."""

ASKED_AT_ONCE_MAX = 8
"""Pages asked of the upstream at the same time; the next waits."""

MODEL_LISTS = ("/models", "/models/user", "/embeddings/models")
"""A model that cannot be priced is not served, so it does not stand in them."""

ALL_MODELS: Query = (("output_modalities", "all"),)
"""The upstream lists models that put out text unless all are asked for."""


LEFT_OUT_SAID = 20
"""Names of such models in one line of the log."""

log = logging.getLogger("farebox")

CLAIM_SECONDS = 45
"""How long one process may take to ask for the prices before another does: longer than the two pages may take."""

SHELF_SECONDS = 1.0
"""How long the others wait before they look again."""


class Shared(Struct, frozen=True):
    """Where the prices of an upstream are for all processes."""

    shelf: PriceShelf
    source: str


class Page(Struct, frozen=True):
    """One of the upstream's pages that carry `data`: a list of models, of other entries, or an object."""

    read_at: float
    models: tuple[Listed, ...] = ()
    entries: tuple[Raw, ...] = ()
    data: Raw = Raw(b"null")


class _Listed(Struct):
    data: Raw


class _Error(Struct):
    message: str


class _Said(Struct):
    error: _Error


_decode_said = msgspec.json.Decoder(_Said).decode
_decode_listed = msgspec.json.Decoder(_Listed).decode
_decode_entries = msgspec.json.Decoder(tuple[Raw, ...]).decode


class Catalog:
    """One upstream's prices and lists. Use `refresh` once, then let `keep_fresh` and `keep_pages_fresh` run."""

    def __init__(
        self,
        upstream: Upstream,
        refresh_seconds: float,
        max_age_seconds: float,
        now: Callable[[], float] = time.monotonic,
        shared: Shared | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._shared = shared
        self._now_us = now_us
        self._read_us = 0
        self._upstream = upstream
        self._refresh_seconds = refresh_seconds
        self._max_age_seconds = max_age_seconds
        self._now = now
        self._prices: PriceList | None = None
        self._read_at = 0.0
        self._pages: OrderedDict[tuple[str, Query], Page] = OrderedDict()
        self._aging: asyncio.Queue[tuple[str, Query]] = asyncio.Queue()
        self._next_ask: dict[tuple[str, Query], float] = {}
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE_MAX)
        self.trouble: str | None = "it has not been asked for yet"

    # Prices

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
        """Whether the price list should have been replaced by now, and could not be."""
        return self._now() - self._read_at > 2 * self._refresh_seconds

    async def refresh(self) -> bool:
        """Ask for the prices; the old ones stay where there are no good new ones."""
        try:
            models = await self._fetch("/models", ALL_MODELS)
            embedders = await self._upstream.fetch("/embeddings/models", ())
            if embedders.status not in (200, 404):
                raise UpstreamBroke(_not_given("/embeddings/models", embedders))
            bodies = (models.body, *([embedders.body] if embedders.status == 200 else []))
            self._take(read_price_list(*bodies))
        except (UpstreamUnreachable, UpstreamBroke, ValueError) as error:
            self.trouble = str(error)
            return False
        self._read_at, self._read_us = self._now(), self._now_us()
        self.trouble = None
        if self._shared is not None:
            with suppress(BooksUnavailable):
                await self._shared.shelf.keep_prices(self._shared.source, KeptPrices(bodies, self._read_us))
        return True

    async def _renew(self, shared: Shared) -> bool:
        """As `refresh`, where one process asks for all, and the others take what it got. A process without any prices
        asks for itself, and so does each while the books are away: prices must not grow old because of that."""
        with suppress(BooksUnavailable):
            while self._prices is not None:
                now_us = self._now_us()
                kept = await shared.shelf.kept_prices(shared.source, max(self._read_us, self._due_us(now_us)))
                if kept is not None:
                    try:
                        self._take(read_price_list(*kept.bodies))
                    except ValueError:
                        # Another version kept them, that reads what this one does not.
                        break
                    self._read_us = kept.read_us
                    self._read_at = self._now() - max(0, now_us - kept.read_us) / 1e6
                    self.trouble = None
                    return True
                if await shared.shelf.claim_prices(shared.source, now_us, now_us + CLAIM_SECONDS * 1_000_000):
                    break
                await asyncio.sleep(SHELF_SECONDS)
        return await self.refresh()

    def _take(self, prices: PriceList) -> None:
        left_out = prices.left_out
        if left_out and left_out != (self._prices.left_out if self._prices else None):
            some = ", ".join(sorted(left_out)[:LEFT_OUT_SAID])
            log.warning("models whose price cannot be read are neither listed nor served, %d: %s", len(left_out), some)
        self._prices = prices

    def names(self, model: str) -> tuple[str, ...]:
        """What a model counts as where plans say which may be asked."""
        return (model,) if self._prices is None else self._prices.names(model)

    def _due_us(self, now_us: int) -> int:
        """What was read since then is fresh."""
        return now_us - int(self._refresh_seconds * 1_000_000)

    async def keep_fresh(self) -> None:
        """Renew the prices for ever, sooner after a failure. Runs until cancelled."""
        retry_seconds = RETRY_FIRST_SECONDS
        while True:
            await asyncio.sleep(self._refresh_seconds if self.trouble is None else retry_seconds)
            is_renewed = await (self.refresh() if self._shared is None else self._renew(self._shared))
            retry_seconds = RETRY_FIRST_SECONDS if is_renewed else min(2 * retry_seconds, RETRY_LONGEST_SECONDS)

    # Pages

    async def page(self, path: str, query: Query = ()) -> tuple[Page, bool]:
        """A page, and whether it is stale: the upstream should have given a newer one, and did not.

        Raises:
            Refusal: 502, there is none and the upstream gives none; 400 or 404, it says that there is no such page.
        """
        wanted = (path, query)
        page = self._pages.get(wanted)
        if page is None:
            return await self._ask(wanted), False
        self._pages.move_to_end(wanted)
        now = self._now()
        if now - page.read_at > 2 * self._refresh_seconds and now >= self._next_ask.get(wanted, now):
            # Nobody has wanted it for a while, or the upstream has not given it. One asks, the rest get what is there.
            self._next_ask[wanted] = now + RETRY_FIRST_SECONDS
            with suppress(Refusal):
                return await self._ask(wanted), False
        elif now - page.read_at > self._refresh_seconds and wanted not in self._next_ask:
            self._next_ask[wanted] = now + self._refresh_seconds
            self._aging.put_nowait(wanted)
        if now - page.read_at > self._max_age_seconds:
            raise unreachable(f"The upstream gives no {path}, and the last is older than {self._max_age_seconds:g} s")
        return page, now - page.read_at > 2 * self._refresh_seconds

    async def model(self, name: str) -> tuple[Listed | None, bool]:
        """The listed model that a name means, whatever it puts out, and whether its list is stale. No name goes
        upstream.

        Raises:
            Refusal: 502, there is no list and the upstream gives none.
        """
        page, is_stale = await self.page("/models", ALL_MODELS)
        found = self._named(page, name)
        if found is None:
            try:
                page, is_stale = await self.page("/embeddings/models")
            except Refusal as refusal:
                if refusal.status != 404:
                    raise
            else:
                found = self._named(page, name)
        return found, is_stale

    def _named(self, page: Page, name: str) -> Listed | None:
        """The entry of that id, or of the model that an order under the name is priced as."""
        listed = {model.id: model for model in page.models}
        return listed.get(name) or listed.get(self.names(name)[0])

    async def keep_pages_fresh(self) -> None:
        """Renew pages that are asked for and no longer fresh. Runs until cancelled."""
        while True:
            with suppress(Refusal):  # whoever asks for the page when it has grown stale meets the same
                await self._ask(await self._aging.get())

    async def _ask(self, wanted: tuple[str, Query]) -> Page:
        path, query = wanted
        async with self._turns:
            try:
                found = await self._upstream.fetch(path, query)
            except (UpstreamUnreachable, UpstreamBroke) as error:
                raise unreachable(f"The upstream does not give {path} now: {error}") from error
        if found.status == 400:
            raise invalid(f"The upstream refused the query: {_said(found)}")
        if found.status == 404:
            raise unknown(f"The upstream has no {path}")
        if found.status != 200:
            raise unreachable(_not_given(path, found))
        try:
            page = self._pages[wanted] = self._page(path, found.body)
        except UNREADABLE as error:
            raise unreachable(f"The upstream gives {path} in a form that cannot be read: {error}") from error
        self._next_ask.pop(wanted, None)
        while len(self._pages) > PAGES_KEPT_MAX:
            dropped, _ = self._pages.popitem(last=False)
            self._next_ask.pop(dropped, None)
        return page

    def _page(self, path: str, body: bytes) -> Page:
        """Raises what UNREADABLE names."""
        data = _decode_listed(body).data
        if not starts_with(data, b"["):
            return Page(self._now(), data=data)
        entries = _decode_entries(data)
        if path not in MODEL_LISTS:
            return Page(self._now(), entries=entries)
        left_out = self._prices.left_out if self._prices is not None else frozenset[str]()
        return Page(self._now(), models=tuple(model for model in read_listed(entries) if model.id not in left_out))

    async def _fetch(self, path: str, query: Query) -> Fetched:
        found = await self._upstream.fetch(path, query)
        if found.status != 200:
            raise UpstreamBroke(_not_given(path, found))
        return found


def _not_given(path: str, found: Fetched) -> str:
    return f"The upstream answered GET {path} with status {found.status}"


def _said(found: Fetched) -> str:
    try:
        return _decode_said(found.body).error.message
    except UNREADABLE:
        return found.body[:300].decode("utf-8", "replace")


def _no_prices(why: str) -> Refusal:
    return unreachable(f"Orders cannot be priced now: {why}")
