"""A cache of the upstream's prices and lists.

Policy: a list is fresh for `refresh_seconds`, and is renewed in the background. While the upstream cannot be reached
the old one serves, marked stale, up to `max_age_seconds`; after that, and before the first, the answer is 502. A
missing price list never means "free".
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from msgspec import Raw, Struct
from msgspec.structs import replace

from farebox import clock
from farebox.core.errors import Refusal, invalid, lists_in_a_circle, unknown, unreachable
from farebox.core.listing import Listed, read_listed
from farebox.core.plans import Plan
from farebox.core.pricing import ASSUMED, KeptPrices, PriceList, UnitPrices
from farebox.core.upstream import ALL_MODELS, Failed, Listing, ListKind, ListQuery, NoSuchList, QueryRefused, Unreadable
from farebox.ports import BooksUnavailable, Lists, PriceShelf, UpstreamBroke, UpstreamUnreachable

RETRY_FIRST_SECONDS = 1.0
RETRY_LONGEST_SECONDS = 60.0

PAGES_KEPT_MAX = 64
"""Lists kept, the least recently used dropped first: callers choose the filters, and a model list has a megabyte or
two."""

ASKED_AT_ONCE_MAX = 8
"""Lists asked of the upstream at the same time; others wait."""

MODEL_LISTS = frozenset((ListKind.MODELS, ListKind.OWN_MODELS, ListKind.EMBEDDING_MODELS))
"""Lists from which models without a readable price are left out, since they are not served."""

LEFT_OUT_LOGGED = 20
"""How many of these models a line of the log names."""

log = logging.getLogger("farebox")

CLAIM_SECONDS = 45
"""How long one process may take to ask for the prices before another does: longer than the two lists may take."""

SHELF_SECONDS = 1.0
"""How often the others look whether it has got them."""


Ask = Callable[[], Awaitable[tuple[bytes, ...]]]
"""As `Lists.prices`."""


CIRCLE_SECONDS = 5.0
"""How long another gateway waits for a list that is being asked for: that may be for its own sake."""


class SharedPrices(Struct, frozen=True):
    """Where all processes find the prices of the upstream that is called `source`."""

    shelf: PriceShelf
    source: str


class Page(Struct, frozen=True):
    """One of the upstream's lists, read at `read_at` (monotonic seconds): of `models`, or of other `entries`; or a
    single object as `data`."""

    read_at: float
    models: tuple[Listed, ...] = ()
    entries: tuple[Raw, ...] = ()
    data: Raw = Raw(b"null")


class Catalog:
    """One upstream's prices and lists. Use `refresh` once, then let `keep_fresh` and `keep_pages_fresh` run."""

    def __init__(
        self,
        upstream: Lists,
        refresh_seconds: float,
        max_age_seconds: float,
        now: Callable[[], float] = time.monotonic,
        shared: SharedPrices | None = None,
        now_us: Callable[[], int] = clock.now_us,
        assumed: UnitPrices = ASSUMED,
        circle_seconds: float = CIRCLE_SECONDS,
    ) -> None:
        self._assumed = assumed
        self._circle_seconds = circle_seconds
        self._shared = shared
        self._now_us = now_us
        self._read_us = 0
        self._documents: tuple[bytes, ...] = ()
        self._upstream = upstream
        self._refresh_seconds = refresh_seconds
        self._max_age_seconds = max_age_seconds
        self._now = now
        self._prices: PriceList | None = None
        self._read_at = 0.0
        self._pages: OrderedDict[ListQuery, Page] = OrderedDict()
        self._aging: asyncio.Queue[ListQuery] = asyncio.Queue()
        self._next_ask: dict[ListQuery, float] = {}
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE_MAX)
        self._asking: dict[ListQuery, asyncio.Event] = {}
        self._has_told = False
        self.trouble: str | None = "it has not been asked for yet"
        """Why the price list could not be renewed; None where it could."""

    # Prices

    def current(self) -> PriceList:
        """The price list in force.

        Raises:
            Refusal: 502, there is none yet, or it is too old.
        """
        if self._prices is None:
            raise unreachable(f"Orders cannot be priced now: there is no price list ({self.trouble})")
        if self._now() - self._read_at > self._max_age_seconds:
            age = f"older than {self._max_age_seconds:g} s"
            raise unreachable(f"Orders cannot be priced now: the price list is {age} ({self.trouble})")
        return self._prices

    @property
    def is_stale(self) -> bool:
        """Whether the price list should have been renewed by now, and was not."""
        return self._now() - self._read_at > 2 * self._refresh_seconds

    async def change(self, source: str, ask: Ask) -> None:
        """The upstreams are others now, together called `source`: `ask` for their prices, and forget their lists."""
        if self._shared is not None:
            self._shared = replace(self._shared, source=source)
        self._pages.clear()
        self._next_ask.clear()
        await self.refresh(ask)

    async def refresh(self, ask: Ask | None = None) -> bool:
        """Ask the upstream for its prices. Returns False where that failed: the old ones stay."""
        try:
            documents = await (ask or self._upstream.prices)()
            self._read(documents)
        except (UpstreamUnreachable, UpstreamBroke, ValueError) as error:
            if not self._has_told:
                log.warning("there is no new price list: %s", error)
            self.trouble, self._has_told = str(error), True
            return False
        self._read_at, self._read_us = self._now(), self._now_us()
        self.trouble, self._has_told = None, False
        if self._shared is not None:
            with suppress(BooksUnavailable):
                await self._shared.shelf.keep_prices(self._shared.source, KeptPrices(documents, self._read_us))
        return True

    async def _renew(self, shared: SharedPrices) -> bool:
        """As `refresh`, but one process asks, and the others take what it got. A process without any prices asks for
        itself, and so does each while the books are away, lest prices grow too old."""
        with suppress(BooksUnavailable):
            while self._prices is not None:
                now_us = self._now_us()
                fresh_since_us = now_us - int(self._refresh_seconds * 1_000_000)
                kept = await shared.shelf.kept_prices(shared.source, max(self._read_us, fresh_since_us))
                if kept is not None:
                    try:
                        self._read(kept.bodies)
                    except ValueError:
                        # Another version of Farebox kept what this one cannot read.
                        break
                    self._read_us = kept.read_us
                    self._read_at = self._now() - max(0, now_us - kept.read_us) / 1e6
                    self.trouble = None
                    return True
                if await shared.shelf.claim_prices(shared.source, now_us, now_us + CLAIM_SECONDS * 1_000_000):
                    break
                await asyncio.sleep(SHELF_SECONDS)
        return await self.refresh()

    def read_again(self) -> None:
        """Read what came last once more: what models cost at upstreams that do not say it has changed."""
        if self._documents:
            try:
                self._read(self._documents)
            except ValueError as error:
                self.trouble = str(error)

    def _read(self, documents: tuple[bytes, ...]) -> None:
        """Raises ValueError."""
        self._documents = documents
        prices = replace(self._upstream.read_prices(documents), assumed=self._assumed)
        left_out = prices.left_out
        if left_out and left_out != (self._prices.left_out if self._prices else None):
            some = ", ".join(sorted(left_out)[:LEFT_OUT_LOGGED])
            log.warning("models whose price cannot be read are neither listed nor served, %d: %s", len(left_out), some)
        self._prices = prices

    def names(self, model: str) -> tuple[str, ...]:
        """The names by which plans may allow a model (see `PriceList.names`)."""
        return (model,) if self._prices is None else self._prices.names(model)

    def nearest(self, model: str, plan: Plan | None) -> list[str]:
        """The models that a name which is not listed may mean, of those that the plan includes."""
        return [] if self._prices is None else self._prices.nearest(model, plan)

    async def keep_fresh(self) -> None:
        """Renew the prices every `refresh_seconds`, sooner after a failure. Runs until cancelled."""
        retry_seconds = RETRY_FIRST_SECONDS
        while True:
            await asyncio.sleep(self._refresh_seconds if self.trouble is None else retry_seconds)
            is_renewed = await (self.refresh() if self._shared is None else self._renew(self._shared))
            retry_seconds = RETRY_FIRST_SECONDS if is_renewed else min(2 * retry_seconds, RETRY_LONGEST_SECONDS)

    # Pages

    async def page(self, query: ListQuery, *, is_for_gateway: bool = False) -> tuple[Page, bool]:
        """A list, and whether it is stale: it should have been renewed by now, and was not. Another gateway like this
        one, which may ask because it was asked by this one, is not let wait for itself.

        Raises:
            Refusal: 502, there is none and the upstream gives none; 400, it refuses the filters, or it leads in a
                circle; 404, it has no such list.
        """
        if is_for_gateway:
            await self._until_asked(query)
        page = self._pages.get(query)
        if page is None:
            return await self._ask(query), False
        self._pages.move_to_end(query)
        now = self._now()
        if now - page.read_at > 2 * self._refresh_seconds and now >= self._next_ask.get(query, now):
            # Nobody wanted it for a while, or the upstream failed. One caller asks, the others get the old one.
            self._next_ask[query] = now + RETRY_FIRST_SECONDS
            with suppress(Refusal):
                return await self._ask(query), False
        elif now - page.read_at > self._refresh_seconds and query not in self._next_ask:
            self._next_ask[query] = now + self._refresh_seconds
            self._aging.put_nowait(query)
        if now - page.read_at > self._max_age_seconds:
            age = f"older than {self._max_age_seconds:g} s"
            raise unreachable(f"The upstream gives no {query.path}, and the last is {age}")
        return page, now - page.read_at > 2 * self._refresh_seconds

    async def _until_asked(self, query: ListQuery) -> None:
        """Wait until a list that is being asked for has come. Raises Refusal 400: it does not."""
        if query in self._pages or (asked := self._asking.get(query)) is None:
            return
        try:
            async with asyncio.timeout(self._circle_seconds):
                await asked.wait()
        except TimeoutError:
            raise lists_in_a_circle(query.path) from None

    async def model(self, name: str, *, is_for_gateway: bool = False) -> tuple[Listed | None, bool]:
        """The listed model of a name, or of an alias, and whether its list is stale. Names are looked up here: none
        goes upstream.

        Raises:
            Refusal: 502, there is no list and the upstream gives none.
        """
        page, is_stale = await self.page(ALL_MODELS, is_for_gateway=is_for_gateway)
        found = self._named(page, name)
        if found is None:
            try:
                page, is_stale = await self.page(ListQuery(ListKind.EMBEDDING_MODELS), is_for_gateway=is_for_gateway)
            except Refusal as refusal:
                if refusal.status != 404:
                    raise
            else:
                found = self._named(page, name)
        return found, is_stale

    def _named(self, page: Page, name: str) -> Listed | None:
        """The entry with this id, or of the model whose prices an order for this name has."""
        listed = {model.id: model for model in page.models}
        return listed.get(name) or listed.get(self.names(name)[0])

    async def keep_pages_fresh(self) -> None:
        """Renew lists that were read here and are no longer fresh. Runs until cancelled."""
        while True:
            with suppress(Refusal):  # callers meet it themselves once the list is stale
                await self._ask(await self._aging.get())

    async def _ask(self, query: ListQuery) -> Page:
        path = query.path
        asked = self._asking.setdefault(query, asyncio.Event())
        try:
            async with self._turns:
                answer = await self._upstream.page(query)
        except (UpstreamUnreachable, UpstreamBroke) as error:
            raise unreachable(f"The upstream does not give {path} now: {error}") from error
        finally:
            self._asking.pop(query, None)
            asked.set()
        match answer:
            case Listing():
                page = self._pages[query] = self._page(query.kind, answer)
            case QueryRefused(message=message):
                raise invalid(f"The upstream refused the query: {message}")
            case NoSuchList():
                raise unknown(f"The upstream has no {path}")
            case Failed(answer=status):
                raise unreachable(f"The upstream answered GET {path} with {status}")
            case Unreadable(reason=reason):
                raise unreachable(f"The upstream gives {path} in a form that cannot be read: {reason}")
        self._next_ask.pop(query, None)
        while len(self._pages) > PAGES_KEPT_MAX:
            dropped, _ = self._pages.popitem(last=False)
            self._next_ask.pop(dropped, None)
        return page

    def _page(self, kind: ListKind, listing: Listing) -> Page:
        if kind not in MODEL_LISTS:
            return Page(self._now(), entries=listing.entries, data=listing.data)
        left_out = self._prices.left_out if self._prices is not None else frozenset[str]()
        models = tuple(model for model in read_listed(listing.entries) if model.id not in left_out)
        return Page(self._now(), models=models, data=listing.data)
