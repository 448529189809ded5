"""All upstreams that are declared, running: which of them an order goes to, and how they change while orders run.

An order keeps its upstream to its end: one that is no longer declared, or is declared otherwise, is closed only after
its last order.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import NoReturn

import msgspec
from msgspec import Struct

from farebox.core.books import HoldRow
from farebox.core.declared import Declared, format_name, names_of
from farebox.core.errors import invalid, too_many, unknown
from farebox.core.pricing import PriceList, joined
from farebox.core.reading import UNREADABLE
from farebox.core.upstream import Failed, ListAnswer, Listing, ListKind, ListQuery, NoSuchList, RecordAnswer, Unreadable
from farebox.ports import Upstream, UpstreamBroke, UpstreamUnreachable
from farebox.upstream.clients import PAGE_SECONDS

log = logging.getLogger("farebox")

FULL_SECONDS = 2
"""When to come back to an upstream that has as many orders as it may have."""

LEAVING_SECONDS = PAGE_SECONDS + 1
"""How long an upstream that is no longer declared is kept after its last order: what is asked of it beside orders takes
no longer."""

Make = Callable[[Declared], Upstream]

JOINED = frozenset((ListKind.MODELS, ListKind.OWN_MODELS, ListKind.EMBEDDING_MODELS, ListKind.PROVIDERS))
"""Lists that have the entries of all upstreams; of others the first upstream's counts that has them."""


class _Engaged:
    """For `with`, by many at a time: counts an order among those of its upstream."""

    __slots__ = ("_running",)

    def __init__(self, running: "Running") -> None:
        self._running = running

    def __enter__(self) -> None:
        running = self._running
        if not running.has_room:
            name, most = running.declared.name, running.declared.orders_max
            raise too_many(f"The upstream `{name}` has {most} orders of this gateway, the most at once", FULL_SECONDS)
        running.orders += 1

    def __exit__(self, *_: object) -> None:
        self._running.orders -= 1


class Running:
    """One upstream, its `orders` now, and what is known of its models: None, nothing yet."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.declared = upstream.declared
        self.orders = 0
        self.engaged = _Engaged(self)
        self.prices: PriceList | None = None
        self.documents: tuple[bytes, ...] | None = None
        self.told_unmatched: tuple[str, ...] = ()
        self.left_at = 0.0

    @property
    def has_room(self) -> bool:
        most = self.declared.orders_max
        return most is None or self.orders < most

    def serves(self, model: str) -> bool:
        """Whether an order of this model may go there. Where its list is not known yet, its patterns alone count."""
        if not self.declared.may_serve(model):
            return False
        return self.prices is None or self.prices.find(model) is not None or model in self.prices.left_out

    def take_prices(self, prices: PriceList) -> None:
        self.prices = prices
        unmatched = self.declared.unmatched([*prices.rates, *prices.aliases, *prices.left_out])
        if unmatched != self.told_unmatched:
            self.told_unmatched = unmatched
            for pattern in unmatched:
                log.warning("upstream `%s`: the pattern `%s` matches none of its models", self.declared.name, pattern)


class Changes(Struct, frozen=True):
    """What a new declaration changed, by upstreams' names."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
        return "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names)


class RunningUpstreams:
    """The upstreams by their names, in the order in which they are picked. `make` opens one; it is called where an
    event loop runs."""

    def __init__(self, declared: Sequence[Declared], make: Make) -> None:
        self._make = make
        self._leaving: list[Running] = []
        self._of: dict[Upstream, Running] = {}
        self._running = {each.name: self._begun(each) for each in _in_order(declared)}
        self.every = tuple(self._running.values())

    def _begun(self, declared: Declared) -> Running:
        upstream = self._make(declared)
        running = self._of[upstream] = Running(upstream)
        return running

    def change(self, declared: Sequence[Declared]) -> Changes:
        """Take up a new declaration: for orders that come from now on."""
        before = {name: each.declared for name, each in self._running.items()}
        after = {each.name: each for each in _in_order(declared)}
        kept = {name for name, each in after.items() if before.get(name) == each}
        made = {name: self._begun(each) for name, each in after.items() if name not in kept}
        for name, running in self._running.items():
            if name not in kept:
                running.left_at = monotonic()
                self._leaving.append(running)
        self._running = {name: made.get(name) or self._running[name] for name in after}
        self.every = tuple(self._running.values())
        return Changes(
            tuple(name for name in after if name not in before),
            tuple(name for name in made if name in before),
            tuple(name for name in before if name not in after),
        )

    async def close_left(self) -> None:
        """Close upstreams that are no longer declared and whose last order has ended."""
        for each in tuple(self._leaving):
            if each.orders:
                each.left_at = monotonic()
            elif monotonic() - each.left_at > LEAVING_SECONDS:
                self._leaving.remove(each)
                del self._of[each.upstream]
                await each.upstream.close()

    async def close(self) -> None:
        for each in (*self._leaving, *self._running.values()):
            await each.upstream.close()

    # Orders

    def pick(self, model: str, path: str) -> Upstream:
        """As `Upstreams.pick`: the first that serves the model and speaks the format; of several, one that has room."""
        every = self.every
        if len(every) == 1 and every[0].declared.speaks(path):
            return every[0].upstream
        able = [each for each in every if each.serves(model)] if len(every) > 1 else list(every)
        speaking = [each for each in able if each.declared.speaks(path)]
        if not speaking:
            _refuse(model, path, able)
        return next((each for each in speaking if each.has_room), speaking[0]).upstream

    def engaged(self, upstream: Upstream) -> _Engaged:
        """As `Upstreams.engaged`."""
        return self._of[upstream].engaged

    async def record(self, hold: HoldRow) -> RecordAnswer:
        """As `Upstreams.record`."""
        assert hold.generation_id is not None, hold
        every = self.every
        of_model = next((each for each in every if each.serves(hold.model)), every[0])
        return await of_model.upstream.record(hold.generation_id)

    # Prices and lists

    async def prices(self) -> tuple[bytes, ...]:
        """The documents of all that answer, each upstream's behind its name and their number; of one that does not
        answer now, its last ones. Raises UpstreamUnreachable, UpstreamBroke: none has any."""
        every = self.every
        if len(every) == 1:
            return await every[0].upstream.prices()
        heads: list[tuple[str, int]] = []
        documents: list[bytes] = []
        failed: list[str] = []
        for each in every:
            try:
                each.documents = await each.upstream.prices()
            except (UpstreamUnreachable, UpstreamBroke) as error:
                failed.append(f"{each.declared.name}: {error}")
            if each.documents is not None:
                heads.append((each.declared.name, len(each.documents)))
                documents += each.documents
        if not heads:
            raise UpstreamBroke("; ".join(failed))
        for one in failed:
            log.warning("an upstream's models cannot be asked for: %s", one)
        return msgspec.json.encode(heads), *documents

    def read_prices(self, documents: tuple[bytes, ...]) -> PriceList:
        """Raises ValueError: no upstream has a model with a price."""
        every = self.every
        if len(every) == 1:
            lists = self._read(every[0], documents)
        else:
            try:
                heads = msgspec.json.decode(documents[0], type=list[tuple[str, int]])
            except UNREADABLE as error:
                raise ValueError(f"the price lists are of other upstreams: {error}") from error
            lists, at = [], 1
            for name, number in heads:
                if name in self._running:
                    lists += self._read(self._running[name], documents[at : at + number])
                at += number
        if not any(each.rates for each in lists):
            raise ValueError("no upstream has a model with a price")
        return joined(lists)

    def _read(self, running: Running, documents: tuple[bytes, ...]) -> list[PriceList]:
        try:
            prices = running.upstream.read_prices(documents)
        except ValueError as error:
            if len(self._running) == 1:
                raise
            log.warning("upstream `%s` has no price list: %s", running.declared.name, error)
            return []
        running.take_prices(prices)
        return [prices]

    async def page(self, query: ListQuery) -> ListAnswer:
        """As `Upstream.page`: the entries of all upstreams, or the first answer that is a list."""
        every = self.every
        if len(every) == 1:
            return await every[0].upstream.page(query)
        answers = [await _page(each, query) for each in every]
        lists = [each for each in answers if isinstance(each, Listing)]
        if lists and query.kind in JOINED:
            return Listing(entries=tuple(entry for each in lists for entry in each.entries))
        if lists:
            return lists[0]
        return next((each for each in answers if not isinstance(each, NoSuchList)), NoSuchList())


class Alone:
    """One upstream that is all there is, and has no declaration to change."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.prices = upstream.prices
        self.read_prices = upstream.read_prices
        self.page = upstream.page

    def pick(self, model: str, path: str) -> Upstream:
        return self._upstream

    def engaged(self, upstream: Upstream) -> AbstractContextManager[object]:
        return nullcontext()

    async def record(self, hold: HoldRow) -> RecordAnswer:
        assert hold.generation_id is not None, hold
        return await self._upstream.record(hold.generation_id)


def _in_order(declared: Sequence[Declared]) -> list[Declared]:
    return sorted(declared, key=lambda each: each.order)


def _refuse(model: str, path: str, able: Sequence[Running]) -> NoReturn:
    """Raises Refusal."""
    if not able:
        raise unknown(f"No upstream serves the model `{model[:200]}`")
    spoken = sorted({name for each in able for name in names_of(each.declared.formats)})
    raise invalid(
        f"The model `{model[:200]}` is not served in the format {format_name(path)}, only in {', '.join(spoken)}"
    )


async def _page(running: Running, query: ListQuery) -> ListAnswer:
    try:
        return await running.upstream.page(query)
    except (UpstreamUnreachable, UpstreamBroke) as error:
        return Failed(f"nothing ({error})")
    except ValueError as error:
        return Unreadable(str(error))
