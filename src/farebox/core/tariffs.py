"""Tariffs: by which prices the usage of an upstream that tells no cost becomes one, exactly.

A tariff list is made of entries, each with the prices of some models of one upstream from a moment on. Its version is a
digest of its canonical text, which is kept in the books for ever: with the version and the usage of an order, its cost
can be computed again at any time. Nothing is estimated: what has no price makes the cost Unknown.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from hashlib import sha256

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from farebox.core.money import add_exact, is_readable_cost, times_exact
from farebox.core.pricing import Prices
from farebox.core.reading import UNREADABLE
from farebox.core.usage import KINDS, Cost, Unknown, Usage

_ZERO = Decimal(0)

VERSION_CHARS = 24
"""Hexadecimal digits of a version: enough that no two lists ever share one."""

FOUND_MAX = 10_000
"""Upstreams and models whose entries are remembered; more are found anew."""

EVER_US = 1 << 63


class TokenPrices(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """USD for one token of each kind of a `Usage`, for one search, and for one request; None: not priced. Reasoning
    without a price of its own costs what the answer does."""

    prompt: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    picture_in: Decimal | None = None
    audio_in: Decimal | None = None
    answer: Decimal | None = None
    reasoning: Decimal | None = None
    picture_out: Decimal | None = None
    audio_out: Decimal | None = None
    search: Decimal | None = None
    request: Decimal = _ZERO

    def price_of(self, kind: str) -> Decimal | None:
        price: Decimal | None = getattr(self, kind)
        return self.answer if price is None and kind == "reasoning" else price


FREE = TokenPrices(**dict.fromkeys(KINDS, _ZERO))


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The prices of the models of `upstream` that the shell pattern `model` matches, from `since_us` on, for answers
    served on these `terms` ("": the usual ones) to prompts of more than `above_prompt_tokens`.

    `reason` says why there are no `prices`: they were to come from another list, and did not. Names and shape stand in
    the books, so they must not change.
    """

    upstream: str
    model: str
    since_us: int = 0
    terms: str = ""
    above_prompt_tokens: int = 0
    prices: TokenPrices = TokenPrices()
    is_free: bool = False
    reason: str = ""

    @property
    def is_pattern(self) -> bool:
        return any(each in self.model for each in "*?[")

    @property
    def series(self) -> tuple[str, str, str]:
        """What it has in common with the entries that it follows or that follow it. Those of one moment hold together,
        until the next."""
        return self.upstream, self.model, self.terms


class Offer(Struct, frozen=True):
    """What another list has of a model: its prices, each for prompts of more than so many tokens; or the `reason` why
    it has none that may be taken over."""

    prices: tuple[tuple[int, TokenPrices], ...] = ()
    reason: str = ""


class Borrowed(Struct, frozen=True, kw_only=True):
    """An entry whose prices are those of another list, where the model is called `listed`."""

    upstream: str
    model: str
    listed: str
    since_us: int = 0

    def entries(self, offer: Offer) -> tuple[Entry, ...]:
        """The same with the prices that the other list has now."""
        entry = Entry(upstream=self.upstream, model=self.model, since_us=self.since_us, reason=offer.reason)
        if offer.reason:
            return (entry,)
        return tuple(replace(entry, above_prompt_tokens=above, prices=prices) for above, prices in offer.prices)


Declared = Entry | Borrowed
"""An entry as it stands in a price file."""


class Tariff(Struct, frozen=True):
    """What one model costs at one upstream by the list of this `version`, as it stood at `at_us`: the entries that are
    in force, for each of the terms those for longer prompts first."""

    upstream: str
    model: str
    version: str
    at_us: int
    entries: tuple[Entry, ...]

    @property
    def is_free(self) -> bool:
        """Whether its answers cost nothing, whatever they used and whether or not that is told."""
        return all(entry.is_free for entry in self.entries)

    def cost(self, usage: Usage | Unknown) -> Cost | Unknown:
        """What an answer with this usage costs; Unknown where the usage is, or something in it has no price."""
        if self.is_free:
            return Cost(_ZERO)
        if isinstance(usage, Unknown):
            return usage
        entry = self._entry_for(usage)
        if entry is None:
            on = f" on the terms `{usage.terms}`" if usage.terms else ""
            return Unknown(f"the price list has no prices of `{self.model}` at `{self.upstream}`{on}")
        if entry.reason:
            return Unknown(f"the price list has no prices of `{self.model}` at `{self.upstream}`: {entry.reason}")
        return self._sum(entry.prices, usage)

    def _entry_for(self, usage: Usage) -> Entry | None:
        tokens = usage.prompt_tokens
        for entry in self.entries:
            above = entry.above_prompt_tokens
            if entry.terms == usage.terms and (tokens > above or not above):
                return entry
        return None

    def _sum(self, prices: TokenPrices, usage: Usage) -> Cost | Unknown:
        amount = prices.request
        for kind in KINDS:
            if not (count := getattr(usage, kind)):
                continue
            price = prices.price_of(kind)
            if price is None:
                return Unknown(
                    f"{count} of `{kind}` were used, which has no price for `{self.model}` at `{self.upstream}`"
                )
            if usage.is_mixed and kind in ("picture_in", "audio_in") and price != prices.prompt:
                return Unknown(f"how many of {count} of `{kind}` came from the cache is not told")
            amount = add_exact(amount, times_exact(price, count))
        if not is_readable_cost(amount):
            return Unknown(f"its usage comes to ${amount:.0f}, which no answer costs")
        return Cost(canonical(amount))

    def priced(self, usage: Usage | None = None) -> "Priced":
        """What the books keep of it."""
        return Priced(version=self.version, model=self.model, at_us=self.at_us, usage=usage)

    def bounds(self) -> tuple[Prices, ...]:
        """Its prices as those of a listed model, from which ceilings are made (`core.pricing`): one for each entry that
        may count. Empty where one of them has none: then the model cannot be served."""
        return () if any(entry.reason for entry in self.entries) else tuple(map(_bound, self.entries))


def _bound(entry: Entry) -> Prices:
    """What has no price of its own is bounded by the dearest that it may turn out to be."""
    p = entry.prices
    return Prices(
        prompt=max(p.prompt or _ZERO, p.cache_read or _ZERO),
        completion=p.answer or _ZERO,
        request=p.request,
        image_token=p.picture_in or _ZERO,
        image_output=p.picture_out or _ZERO,
        audio=p.audio_in or _ZERO,
        audio_output=p.audio_out or _ZERO,
        internal_reasoning=p.reasoning or _ZERO,
        input_cache_write=p.cache_write or _ZERO,
        input_cache_write_1h=p.cache_write_1h or _ZERO,
        web_search=p.search or _ZERO,
    )


class Priced(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """By which prices an order is charged, and for what: by the list of this `version`, those of `model` as they stood
    at `at_us`, for this `usage` once it is known. Enough to compute its cost again; its names stand in the books."""

    version: str
    model: str
    at_us: int
    usage: Usage | None = None


class Tariffs:
    """A whole list. An exact name comes before patterns, and of patterns the first in the list counts."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        listed = list(entries)
        exact = sorted(
            (e for e in listed if not e.is_pattern), key=lambda e: (e.series, e.since_us, e.above_prompt_tokens)
        )
        self.entries = (*exact, *(entry for entry in listed if entry.is_pattern))
        self.content = _encode(self.entries).decode()
        self.version = version_of(self.content)
        self._series: dict[tuple[str, str, str], list[Entry]] = {}
        for entry in self.entries:
            self._series.setdefault(entry.series, []).append(entry)
        for series in self._series.values():
            series.sort(key=lambda entry: (-entry.since_us, -entry.above_prompt_tokens))
        self._found: dict[tuple[str, str], _Found] = {}

    def find(self, upstream: str, model: str, at_us: int) -> Tariff | None:
        """What a model costs at a moment; None where the list has no price of it."""
        found = self._found.get((upstream, model))
        if found is None or not found.from_us <= at_us < found.until_us:
            found = self._find(upstream, model, at_us)
            if len(self._found) >= FOUND_MAX:
                self._found.clear()
            self._found[upstream, model] = found
        return Tariff(upstream, model, self.version, at_us, found.entries) if found.entries else None

    def _find(self, upstream: str, model: str, at_us: int) -> "_Found":
        in_force: dict[str, list[Entry]] = {}
        from_us, until_us = -EVER_US, EVER_US
        for series in self._matching(upstream, model):
            since_us = next((entry.since_us for entry in series if entry.since_us <= at_us), None)
            if since_us is not None:
                in_force.setdefault(series[0].terms, [e for e in series if e.since_us == since_us])
                from_us = max(from_us, since_us)
            until_us = min([until_us, *(entry.since_us for entry in series if entry.since_us > at_us)])
        return _Found(tuple(e for terms in sorted(in_force) for e in in_force[terms]), from_us, until_us)

    def _matching(self, upstream: str, model: str) -> Sequence[Sequence[Entry]]:
        """The series of entries that name a model, the nearest first."""
        return [
            series
            for (at, name, _), series in self._series.items()
            if at == upstream and (name == model or (series[0].is_pattern and fnmatchcase(model, name)))
        ]


class _Found(Struct, frozen=True):
    """The entries that are in force for a model from one moment to before another, when further ones begin."""

    entries: tuple[Entry, ...]
    from_us: int
    until_us: int


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(tuple[Entry, ...]).decode


def version_of(content: str) -> str:
    """The version of a list, from its canonical text."""
    return sha256(content.encode()).hexdigest()[:VERSION_CHARS]


class KeptTariffs(Struct, frozen=True):
    """A list as it stands in the books: its canonical text, and when it was first used."""

    version: str
    content: str
    first_used_us: int


def read_kept(kept: KeptTariffs) -> Tariffs | None:
    """A list from the books; None where its text is not that of its version."""
    if version_of(kept.content) != kept.version:
        return None
    try:
        return Tariffs(_decode(kept.content))
    except UNREADABLE:
        return None


def as_text(price: Decimal) -> str:
    """A price without an exponent and without zeros that say nothing: the same number has one text."""
    text = f"{price:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def canonical(price: Decimal) -> Decimal:
    """The same number, written in one way, so that it has one text in a list."""
    return Decimal(as_text(price))


def prices_by_name(prices: TokenPrices) -> Mapping[str, Decimal]:
    """Those that are set."""
    return {name: price for name, price in asdict(prices).items() if price is not None}
