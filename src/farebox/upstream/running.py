"""All upstreams that are declared, running: which of them an order goes to, and how they change while orders run.

An order keeps its upstream to its end: one that is no longer declared, or is declared otherwise, is closed only after
its last order.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import msgspec
from msgspec import Raw, Struct

from farebox import clock
from farebox.core.books import HoldRow
from farebox.core.declared import Declared
from farebox.core.formats.table import FORMATS
from farebox.core.joined_lists import by_id, joined_endpoints, joined_models, joined_providers
from farebox.core.pricing import PriceList, Prices, joined
from farebox.core.reading import UNREADABLE
from farebox.core.routing import Candidate, Policy, listed_first
from farebox.core.tariffs import FREE, Borrowed, Entry, Tariffs
from farebox.core.upstream import (
    Failed,
    Filters,
    JobAnswer,
    ListAnswer,
    Listing,
    ListKind,
    ListQuery,
    NoSuchList,
    RecordAnswer,
    Unreadable,
)
from farebox.ports import Jobs, Media, Upstream, UpstreamBroke, UpstreamUnreachable
from farebox.upstream.clients import PAGE_SECONDS
from farebox.upstream.hosts import Host

log = logging.getLogger("farebox")

MODELS_KEPT = 4096
"""Models whose candidates are kept from order to order."""

LEAVING_SECONDS = PAGE_SECONDS + 1
"""How long an upstream that is no longer declared is kept after its last order: what is asked of it beside orders takes
no longer."""

Make = Callable[[Declared], Upstream]

MODEL_LISTS = frozenset((ListKind.MODELS, ListKind.OWN_MODELS, ListKind.EMBEDDING_MODELS))
OF_MODELS = MODEL_LISTS | {ListKind.IMAGE_MODELS, ListKind.VIDEO_MODELS}
"""Lists with an entry for each model; those of MODEL_LISTS are alike."""

ENDPOINTS = frozenset((ListKind.MODEL_ENDPOINTS, ListKind.IMAGE_ENDPOINTS))

LISTS_KEPT = 16
"""Lists of one upstream that are kept for when it does not answer."""


class Running:
    """One upstream, its `orders` now, and what is known of its models: None, nothing yet."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.declared = upstream.declared
        self.orders = 0
        self.is_drained = self.declared.at_hang_up == "drain"
        self.prices: PriceList | None = None
        self.documents: tuple[bytes, ...] | None = None
        self.told_unmatched: tuple[str, ...] = ()
        self.left_at = 0.0
        self._lists: dict[ListQuery, Listing] = {}
        self._entries: dict[str, Raw] = {}

    def let_go(self) -> None:
        """An order has ended here."""
        self.orders -= 1

    def serves(self, model: str) -> bool:
        """Whether an order of this model may go there: it has the model, and a price of it. Where its list is not known
        yet, its patterns count."""
        if not self.declared.may_serve(model):
            return False
        if self.prices is None:
            return not isinstance(self.upstream, Host) or bool(self.upstream.bounds(model))
        return self.prices.find(model) is not None

    def candidate(self, model: str, *, is_alone: bool) -> Candidate:
        """A model (by our name) here, as the rules of routing see it."""
        declared = self.declared
        rates = None if self.prices is None else self.prices.find(model)
        natives = {path: native for path in FORMATS if (native := declared.native(path)) is not None}
        return Candidate(
            declared.name,
            model,
            frozenset(natives),
            None if rates is None else Prices(rates.prompt, rates.answer, rates.request, rates.image),
            declared.order,
            declared.weight,
            declared.orders_max,
            declared.traits_of(model),
            routes=declared.tells_cost,
            natives={path: native for path, native in natives.items() if path != native},
            booked_as=None if declared.is_built_in else declared.name,
            priced_as=None if declared.tells_cost else declared.own_name(model),
            is_alone=is_alone,
        )

    async def page(self, query: ListQuery) -> ListAnswer:
        """A list of its own; where it does not answer, the last that it gave."""
        answer = await _answer(self.upstream, query)
        if isinstance(answer, Listing):
            if len(self._lists) >= LISTS_KEPT:
                self._lists.clear()
            self._lists[query] = answer
            if query.kind in MODEL_LISTS:
                self._entries.update(by_id(answer.entries))
        elif isinstance(answer, Failed | Unreadable):
            return self._lists.get(query, answer)
        return answer

    def entry(self, model: str) -> Raw | None:
        """What it lists of a model, by our name; None where that is not known."""
        return self.upstream.entry(model) if isinstance(self.upstream, Host) else self._entries.get(model)

    def why_nothing_is_priced(self) -> str:
        """In words, where its price list is empty."""
        name, priceless = self.declared.name, 0 if self.prices is None else len(self.prices.left_out)
        if priceless:
            return f"`{name}` has no price of its {priceless} models (`prices` is {self.declared.prices})"
        if self.told_unmatched:
            return f"`{name}` lists nothing that {', '.join(self.told_unmatched)} matches"
        return f"`{name}` lists no models"

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
    """The upstreams by their names, in the order that is declared. `make` opens one; it is called where an event loop
    runs."""

    def __init__(self, declared: Sequence[Declared], make: Make, policy: Policy = "order") -> None:
        self._make = make
        self._policy = policy
        self._leaving: list[Running] = []
        self._tariffs: Callable[[], Tariffs] = Tariffs
        self._candidates: dict[str, Sequence[Candidate]] = {}
        self._running = {each.name: Running(self._make(each)) for each in _in_order(declared)}
        self.every = tuple(self._running.values())

    def change(self, declared: Sequence[Declared]) -> Changes:
        """Take up a new declaration: for orders that come from now on."""
        before = {name: each.declared for name, each in self._running.items()}
        after = {each.name: each for each in _in_order(declared)}
        kept = {name for name, each in after.items() if before.get(name) == each}
        made = {name: Running(self._make(each)) for name, each in after.items() if name not in kept}
        for name, running in self._running.items():
            if name not in kept:
                running.left_at = monotonic()
                self._leaving.append(running)
        for each in made.values():
            self._price(each)
        self._running = {name: made.get(name) or self._running[name] for name in after}
        self._candidates.clear()
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
                await each.upstream.close()

    async def close(self) -> None:
        for each in (*self._leaving, *self._running.values()):
            await each.upstream.close()

    @property
    def is_alone(self) -> bool:
        """Whether there is one upstream, which takes every order as it is."""
        return len(self.every) == 1 and self.every[0].declared.takes_all

    # Orders

    def candidates(self, model: str) -> Sequence[Candidate]:
        """As `Upstreams.candidates`."""
        found = self._candidates.get(model)
        if found is None:
            if self.is_alone:
                found = (self.every[0].candidate(model, is_alone=True),)
            else:
                found = tuple(each.candidate(model, is_alone=False) for each in self.every if each.serves(model))
            if len(self._candidates) >= MODELS_KEPT:
                self._candidates.clear()
            self._candidates[model] = found
        return found

    def keeping_nothing(self) -> Iterator[Candidate]:
        """Our own models that are declared to keep nothing of an order."""
        for each in self.every:
            for model in each.prices.rates if each.prices is not None and isinstance(each.upstream, Host) else ():
                if each.declared.traits_of(model).zdr:
                    yield each.candidate(model, is_alone=False)

    def engage(self, name: str) -> Running:
        """As `Upstreams.engage`."""
        running = self._running.get(name)
        if running is None:
            raise UpstreamUnreachable(f"the upstream `{name}` is not declared any more")
        running.orders += 1
        return running

    async def record(self, hold: HoldRow) -> RecordAnswer:
        """As `Upstreams.record`."""
        assert hold.generation_id is not None, hold
        running = self._that_had(hold)
        if running is None:
            return Failed(f"nothing: the upstream `{hold.upstream}` is not declared any more")
        return await running.upstream.record(hold.generation_id)

    async def kept_content(self, hold: HoldRow) -> ListAnswer:
        """As `Upstreams.kept_content`."""
        assert hold.generation_id is not None, hold
        running = self._that_had(hold)
        if running is None:
            return NoSuchList()
        return await running.upstream.page(ListQuery(ListKind.CONTENT, (("id", hold.generation_id),)))

    async def count_tokens(self, name: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        """As `Upstreams.count_tokens`."""
        running = self._running.get(name)
        if running is None or not isinstance(running.upstream, Host):
            return None
        return await running.upstream.count_tokens(body, headers)

    def _that_had(self, hold: HoldRow) -> Running | None:
        """The upstream that had an order; None where it is not declared any more."""
        if hold.upstream is not None:
            return self._running.get(hold.upstream)
        # The one that there was when there was one.
        return next((each for each in self.every if each.declared.has_generations), self.every[0])

    async def job(self, hold: HoldRow) -> JobAnswer:
        """As `Upstreams.job`."""
        assert hold.job_id is not None, hold
        running = self._that_had(hold)
        if running is None:
            return Failed(f"nothing: the upstream `{hold.upstream}` is not declared any more")
        if not isinstance(running.upstream, Jobs):
            return Failed(f"nothing: the upstream `{running.declared.name}` has no jobs")
        return await running.upstream.job(hold.job_id)

    @asynccontextmanager
    async def content(self, hold: HoldRow, query: Filters, headers: Mapping[str, str]) -> AsyncIterator[Media]:
        """As `Upstreams.content`."""
        assert hold.job_id is not None, hold
        running = self._that_had(hold)
        if running is None or not isinstance(running.upstream, Jobs):
            raise UpstreamUnreachable(f"the upstream `{hold.upstream}` is not declared any more")
        running.orders += 1
        try:
            media = await running.upstream.content(hold.job_id, query, headers)
            try:
                yield media
            finally:
                media.close()
        finally:
            running.let_go()

    # Prices and lists

    def price_by(self, tariffs: Callable[[], Tariffs]) -> None:
        """What orders cost at upstreams that do not say it themselves: by the list that this gives."""
        self._tariffs = tariffs
        for each in self.every:
            self._price(each)

    def _price(self, running: Running) -> None:
        if isinstance(running.upstream, Host):
            name = running.declared.name
            running.upstream.tariff_of = lambda own: self._tariffs().find(name, own, clock.now_us())

    def price_entries(self) -> list[Entry | Borrowed]:
        """The entries of a price list that follow from how upstreams are declared."""
        found: list[Entry | Borrowed] = []
        for each in self.every:
            if each.declared.is_free:
                found.append(Entry(upstream=each.declared.name, model="*", prices=FREE, is_free=True))
            elif each.declared.prices == "openrouter" and isinstance(each.upstream, Host):
                found += each.upstream.borrowed(each.documents or ())
        return found

    async def prices(self, *, only_new: bool = False) -> tuple[bytes, ...]:
        """The documents of all that answer, each upstream's behind its name and their number; of one that does not
        answer now, its last ones. With `only_new`, those are asked that have not told any yet. Raises
        UpstreamUnreachable, UpstreamBroke: none has any."""
        every = self.every
        asked = [each for each in every if not (only_new and each.documents)]
        failed = [each for each in await asyncio.gather(*map(_ask_prices, asked)) if each]
        told_any = [each for each in every if each.documents is not None]
        if not told_any:
            raise UpstreamBroke("; ".join(failed))
        for one in failed:
            log.warning("an upstream's models cannot be asked for: %s", one)
        heads = [(each.declared.name, len(each.documents or ())) for each in told_any]
        return msgspec.json.encode(heads), *(document for each in told_any for document in each.documents or ())

    def read_prices(self, documents: tuple[bytes, ...]) -> PriceList:
        """Raises ValueError: no upstream has a model with a price."""
        try:
            heads = msgspec.json.decode(documents[0], type=list[tuple[str, int]])
        except UNREADABLE as error:
            raise ValueError(f"the price lists are of other upstreams: {error}") from error
        lists, at = list[PriceList](), 1
        for name, number in heads:
            if name in self._running:
                lists += self._read(self._running[name], documents[at : at + number])
            at += number
        if not any(each.rates for each in lists):
            why = "; ".join(each.why_nothing_is_priced() for each in self.every if each.prices is not None)
            raise ValueError(f"no upstream has a model with a price{': ' if why else ''}{why}")
        return joined(lists)

    def _read(self, running: Running, documents: tuple[bytes, ...]) -> list[PriceList]:
        running.documents = documents
        try:
            prices = running.upstream.read_prices(documents)
        except ValueError as error:
            if len(self._running) == 1:
                raise
            log.warning("upstream `%s` has no price list: %s", running.declared.name, error)
            return []
        running.take_prices(prices)
        self._candidates.clear()
        return [prices]

    async def page(self, query: ListQuery) -> ListAnswer:
        """As `Upstream.page`: the lists of all upstreams as one."""
        every, kind = self.every, query.kind
        if self.is_alone:
            return await every[0].upstream.page(query)
        if kind in ENDPOINTS:
            every = tuple(each for each in every if each.serves(query.model) and not isinstance(each.upstream, Host))
        answers = await asyncio.gather(*(each.page(query) for each in every))
        lists = [(each.declared.name, a) for each, a in zip(every, answers, strict=True) if isinstance(a, Listing)]
        listings = [listing for _, listing in lists]
        if kind is ListKind.PROVIDERS:
            return joined_providers(map(_provider, self.every), listings)
        if not lists:
            return next((each for each in answers if not isinstance(each, NoSuchList)), NoSuchList())
        if kind in OF_MODELS:
            return joined_models(lists, self._listed_first)
        if kind in ENDPOINTS:
            return joined_endpoints(listings)
        return Listing(entries=tuple(entry for each in listings for entry in each.entries))

    def entry(self, candidate: Candidate) -> Raw | None:
        """What an upstream lists of a model; None where that is not known."""
        running = self._running.get(candidate.upstream)
        return None if running is None else running.entry(candidate.model)

    def _listed_first(self, model: str, names: Sequence[str]) -> str:
        """Whose entry of a model stands in a list, of several that have one."""
        found = [each for each in self.candidates(model) if each.upstream in names]
        return listed_first(found, self._policy).upstream if found else names[0]


def alone(upstream: Upstream) -> RunningUpstreams:
    """One upstream that is all there is."""
    return RunningUpstreams([upstream.declared], lambda _: upstream)


def _in_order(declared: Sequence[Declared]) -> list[Declared]:
    return sorted(declared, key=lambda each: each.order)


def _provider(running: Running) -> Raw:
    """An upstream of ours in the list of providers. Where it stands, and under which terms, is not declared."""
    name = running.declared.name
    unsaid = ("privacy_policy_url", "terms_of_service_url", "status_page_url", "headquarters", "datacenters")
    return Raw(msgspec.json.encode({"name": name, "slug": name.lower(), **dict.fromkeys(unsaid)}))


async def _ask_prices(running: Running) -> str:
    """Ask for the documents that its prices are read from. Returns why it did not give any."""
    try:
        running.documents = await running.upstream.prices()
    except (UpstreamUnreachable, UpstreamBroke) as error:
        return f"{running.declared.name}: {error}"
    return ""


async def _answer(upstream: Upstream, query: ListQuery) -> ListAnswer:
    try:
        return await upstream.page(query)
    except (UpstreamUnreachable, UpstreamBroke) as error:
        return Failed(f"nothing ({error})")
    except ValueError as error:
        return Unreadable(str(error))
