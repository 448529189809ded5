"""The price list: whose price is whose, and the ceiling it puts on an order.

A ceiling is an upper bound from what is known before the answer: a byte of the request is at most a token, an image at
most IMAGE_TOKENS_MAX, a prompt at most the model's context, an answer at most its cap or the model's own maximum; each
at the dearest price listed for it. Prices are USD a token or unit, exact decimals.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from msgspec import Struct

from farebox.core.errors import unknown
from farebox.core.formats import Asked, Searches
from farebox.core.money import COST_MAX_USD, events_usd, floor_units
from farebox.core.names import PRESET, with_fewer_variants
from farebox.core.plans import Plan

IMAGE_TOKENS_MAX = 50_000
"""Most prompt tokens that one image becomes. An assumption, meant to be far above
what hosts count; where it is too low, the fare is above its hold and flagged."""

ANSWER_TOKENS_MAX = 131_072
"""An answer's bound where neither the caller, nor the model's entry, nor its context gives one."""

CONTEXT_TOKENS_MAX = 2_000_000
"""A prompt's bound where something may fill the context and the model's entry does not say how large it is."""

EXTRAS_USD = Decimal("0.10")
"""Set aside for file parsing, fetches and other server tools, whose prices are in no list. Beyond it a fare is above
its hold: posted in full, and flagged."""

SEARCH_USD = Decimal("0.015")
RESULT_USD = Decimal("0.004")
"""Set aside for one search, and for each of its results, where the model's entry has no price of a search. OpenRouter's
pages say $4 for 1,000 results, later $5 to $15 for 1,000 searches by the engine and its mode, each with ten results."""

PREMIUM_FACTOR = 3
"""What a premium service tier, or a provider that was not picked by its price, costs over the listed price: no list
says it, so this is an assumption, meant to be above it."""

PRICE_MAX_USD = 1_000
"""A listed price above it is a fault of the list (per million tokens instead of per token, say)."""

LEAST_ANSWER_TOKENS = 16
"""The shortest answer that a lowered cap may leave; a shorter one is hardly worth its prompt."""

_ZERO = Decimal(0)


class Prices(Struct, frozen=True):
    """What a model costs, in USD a token, request, picture or search; nothing where it says nothing."""

    prompt: Decimal = _ZERO
    completion: Decimal = _ZERO
    request: Decimal = _ZERO
    image: Decimal = _ZERO
    image_token: Decimal = _ZERO
    image_output: Decimal = _ZERO
    audio: Decimal = _ZERO
    audio_output: Decimal = _ZERO
    internal_reasoning: Decimal = _ZERO
    input_cache_write: Decimal = _ZERO
    input_cache_write_1h: Decimal = _ZERO
    web_search: Decimal = _ZERO

    @property
    def are_possible(self) -> bool:
        """Whether each of them can be a price at all."""
        return all(_is_price(getattr(self, name)) for name in Prices.__struct_fields__)


class PricedModel(Struct, frozen=True):
    """A model as an upstream lists it.

    `prices` are its usual ones, and those that hold under conditions. `slug` is another name of it, which its variants
    may share; `stands_for` names the listed model that an alias means. `is_router`: it has no price of its own, but
    that of the model that it picks.
    """

    id: str
    prices: tuple[Prices, ...]
    context_tokens: int | None = None
    answer_tokens_max: int | None = None
    slug: str | None = None
    stands_for: str | None = None
    is_router: bool = False


class Rates(Struct, frozen=True):
    """The dearest prices listed for a model, over all its conditional overrides. `search` is 0 where none is listed."""

    prompt: Decimal
    answer: Decimal
    request: Decimal
    image: Decimal
    context_tokens: int | None
    answer_tokens_max: int
    search: Decimal = _ZERO


class PriceList(Struct, frozen=True):
    """Every model's rates, by its id.

    `aliases` are other names of models: canonical slugs and names of "the latest", each with the id it stands for.
    `unlisted` bounds the `routers` that the list does not have. `left_out` are ids whose entry has no readable price.
    """

    rates: Mapping[str, Rates]
    aliases: Mapping[str, str] = {}
    unlisted: Rates | None = None
    left_out: frozenset[str] = frozenset()
    routers: frozenset[str] = frozenset()

    def find(self, model: str) -> Rates | None:
        """The rates of a model, an alias or a router. A variant (`:nitro`, `:online`, two of them) that is not listed
        itself has its model's; `:free` must be."""
        found = self.rates.get(model)
        if found is not None:
            return found
        for name in with_fewer_variants(model):
            found = self.rates.get(self.aliases.get(name, name))
            if found is not None or name in self.routers:
                return found or self.unlisted
        return None

    def names(self, model: str) -> tuple[str, ...]:
        """What a model counts as where plans say which may be asked: its id, and the id with the variants asked. A
        name that is not known counts as itself."""
        for name in with_fewer_variants(model):
            counted = self.aliases.get(name, name)
            if counted in self.rates or counted in self.routers:
                return (counted,) if name == model else (counted, counted + model.removeprefix(name))
        return (model,)


def price_list(
    models: Iterable[PricedModel], left_out: Iterable[str] = (), routers: frozenset[str] = frozenset()
) -> PriceList:
    """The price list of what an upstream lists. `left_out` are models whose entries cannot be read, `routers` names of
    routers that it takes whether it lists them or not.

    A model without a possible price is not served: it never means free.

    Raises:
        ValueError: not one model has a price.
    """
    rates: dict[str, Rates] = {}
    dynamic: list[str] = []
    unpriced = set(left_out)
    listed = list(models)
    for model in listed:
        if all(prices.are_possible for prices in model.prices):
            rates[model.id] = _dearest(model)
        elif model.is_router:
            dynamic.append(model.id)
        else:
            unpriced.add(model.id)
    if not rates:
        raise ValueError("the model list has no model with a price")
    # What a router picks is not known, so its bound is the dearest model's.
    dearest = _dearest_of(rates.values())
    rates.update(dict.fromkeys(dynamic, dearest))
    return PriceList(rates, _aliases(listed, rates), dearest, frozenset(unpriced - rates.keys()), routers)


def _aliases(models: Iterable[PricedModel], rates: Mapping[str, Rates]) -> dict[str, str]:
    """Other names of models that have a price.

    Variants share their model's slug, which is the model's own; a slug of two models is nobody's. A name such as
    `~author/family-latest` has an entry with a price of its own, and counts as the model that it stands for.
    """
    aliases: dict[str, str] = {}
    shared: set[str] = set()
    for model in models:
        slug = model.slug
        if model.id not in rates:
            continue
        if model.stands_for is not None and model.stands_for in rates:
            aliases[model.id] = model.stands_for
        elif slug and slug not in rates and ":" not in model.id:
            if slug in aliases:
                shared.add(slug)
            aliases[slug] = model.id
    return {name: model for name, model in aliases.items() if name not in shared}


def _is_price(price: Decimal) -> bool:
    return price.is_finite() and 0 <= price <= PRICE_MAX_USD


def _dearest(model: PricedModel) -> Rates:
    every = model.prices
    return Rates(
        prompt=max(max(r.prompt, r.audio, r.input_cache_write, r.input_cache_write_1h, r.image_token) for r in every),
        answer=max(max(r.completion, r.image_output, r.audio_output, r.internal_reasoning) for r in every),
        request=max(r.request for r in every),
        image=max(r.image for r in every),
        context_tokens=model.context_tokens,
        answer_tokens_max=model.answer_tokens_max or model.context_tokens or ANSWER_TOKENS_MAX,
        search=max(r.web_search for r in every),
    )


def _dearest_of(many: Iterable[Rates]) -> Rates:
    rates = list(many)
    return Rates(
        prompt=max(r.prompt for r in rates),
        answer=max(r.answer for r in rates),
        request=max(r.request for r in rates),
        image=max(r.image for r in rates),
        context_tokens=max(r.context_tokens or CONTEXT_TOKENS_MAX for r in rates),
        answer_tokens_max=max(r.answer_tokens_max for r in rates),
        search=max(r.search for r in rates),
    )


def find_rates(prices: PriceList, model: str) -> Rates:
    """A model's rates.

    Raises:
        Refusal: 404, no such model, or a preset.
    """
    found = prices.find(model)
    if found is None and PRESET in model:
        raise unknown(
            f"`{model[:200]}` names a preset: models and settings that are kept in an account at the upstream, so what"
            " it can cost is not known here. Name the model, and send the settings with the order"
        )
    if found is None:
        raise unknown(f"the model `{model}` is not in the upstream's list; GET /api/v1/models has the list")
    return found


class Ceiling(Struct, frozen=True):
    """The most an order can cost, in USD: a part that its answer does not change, and a price a token of answer; and
    the most tokens it can become. `tokens` is the longest of the `answers` that are asked for."""

    fixed: Decimal
    token: Decimal
    tokens: int
    prompt_tokens: int = 0
    answers: int = 1

    def cost(self, answer_tokens: int) -> Decimal:
        return min(self.fixed + self.token * answer_tokens, COST_MAX_USD)

    def fare_nanos(self, plan: Plan) -> int:
        """What to hold for the whole order."""
        return plan.fare_nanos(self.cost(self.tokens))

    def least_nanos(self, plan: Plan) -> int:
        """What must at least be covered: the order with the shortest answer that is worth sending."""
        return plan.fare_nanos(self.cost(min(self.tokens, LEAST_ANSWER_TOKENS) if self.token else self.tokens))

    def tokens_covered(self, plan: Plan, nanos: int) -> int:
        """The longest answer whose fare `nanos` covers."""
        budget = events_usd(max(0, nanos) // plan.event_price_nanos)
        return min(self.tokens, floor_units(budget - self.fixed, self.token)) if self.token else self.tokens

    @property
    def all_tokens(self) -> int:
        """Prompt and answers together."""
        return self.prompt_tokens + self.answers * self.tokens

    @property
    def least_tokens(self) -> int:
        """The same with the shortest answers that are worth sending."""
        return self.prompt_tokens + self.answers * min(self.tokens, LEAST_ANSWER_TOKENS)

    def tokens_within(self, all_tokens: int) -> int:
        """The longest answer that so many tokens leave."""
        return min(self.tokens, (all_tokens - self.prompt_tokens) // self.answers) if self.answers else self.tokens


def ceiling(asked: Asked, answer_tokens: int | None, prices: PriceList) -> Ceiling:
    """The ceiling of what was asked: the dearest of its models, for each part.

    Raises:
        Refusal: 404, no such model.
    """
    fixed = token = _ZERO
    tokens = 1
    prompt_tokens = 0
    for model in asked.models:
        rates = find_rates(prices, model)
        context = rates.context_tokens or CONTEXT_TOKENS_MAX
        context *= asked.prompts
        prompt = context if asked.prompt_is_open else min(context, asked.prompt_bytes + asked.images * IMAGE_TOKENS_MAX)
        prompt_tokens = max(prompt_tokens, prompt)
        fixed = max(fixed, rates.request + rates.prompt * prompt + rates.image * asked.images)
        token = max(token, rates.answer * asked.answers)
        tokens = max(tokens, min(answer_tokens or rates.answer_tokens_max, rates.answer_tokens_max))
    if asked.is_premium:
        fixed, token = fixed * PREMIUM_FACTOR, token * PREMIUM_FACTOR
    if asked.prompt_is_open:
        fixed += EXTRAS_USD
    if asked.searches is not None:
        fixed += max(_searching(find_rates(prices, model), asked.searches) for model in asked.models)
    return Ceiling(fixed, token, tokens, prompt_tokens, asked.answers)


def _searching(rates: Rates, searches: Searches) -> Decimal:
    """By the listed price where the model has one: its provider then searches itself, unless an engine is named."""
    if rates.search and not searches.is_engine_named:
        return rates.search * searches.number
    return SEARCH_USD * searches.number + RESULT_USD * searches.results


class KeptPrices(Struct, frozen=True):
    """The documents that an upstream's price list is read from, as they came, and when."""

    bodies: tuple[bytes, ...]
    read_us: int
