"""The price list, and the ceiling of an order that follows from it.

A ceiling is the upper bound of a cost before the answer is known: a byte of the request is at most a token, an image at
most IMAGE_TOKENS_MAX, a prompt at most the model's context, an answer at most its cap or the model's own maximum; each
at the highest price listed for it. Prices are USD per token or unit, exact decimals.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import astuple

from farebox.core.declared import Declared
from farebox.core.errors import Refusal, unknown
from farebox.core.formats import Asked, Searches, Units
from farebox.core.money import COST_MAX_USD, floor_units
from farebox.core.names import with_fewer_variants
from farebox.core.nearest import look_there, nearest
from farebox.core.plans import Plan

IMAGE_TOKENS_MAX = 50_000
"""Most prompt tokens that one image becomes. An assumption, meant to be far above what hosts count; where it is too
low, the fare is above its hold and flagged."""

ANSWER_TOKENS_MAX = 131_072
"""The longest answer where neither the caller nor the model's entry bounds it."""

CONTEXT_TOKENS_MAX = 2_000_000
"""The longest prompt where the model's entry does not say how large its context is."""

EXTRAS_USD = Decimal("0.10")
"""Set aside for file parsing, fetches and other server tools, whose prices no list has. Where they cost more, the fare
is above its hold: posted in full, and flagged."""

SEARCH_USD = Decimal("0.015")
RESULT_USD = Decimal("0.004")
"""Set aside for one search, and for each of its results, where the model's entry has no search price. OpenRouter's
pages: $4 for 1,000 results; later, by engine and mode, $5 to $15 for 1,000 searches of ten results each."""

PREMIUM_FACTOR = 3
"""How many times the listed price a premium service tier costs, or a provider that was not picked by its price. No list
says it: an assumption, meant to be too high."""

PICTURE_TOKENS_MAX = 8_192
"""Most tokens that one picture is made of, where a list has a price for a token of it. An assumption: OpenRouter's
document shows 4,175."""

PICTURE_USD_MIN = Decimal("0.001")
"""A listed `image_output` that is as high is the price of a picture: no token of one costs so much. (OpenRouter's
document says "per output image", its list has prices of tokens.)"""

SPEECH_TOKENS_PER_CHARACTER = 16
"""Most audio tokens that a byte of text is spoken in. An assumption: hosts make about 25 a second, in which a slow
speaker says five letters."""

AUDIO_TOKENS_PER_SECOND = 32
TRANSCRIPT_TOKENS_PER_SECOND = 10
"""Most tokens that a second of audio is heard as, and is written down in. Assumptions: Gemini counts 32, OpenRouter's
document shows 9; nobody says more than five words a second."""

AUDIO_TOKEN_USD_MAX = Decimal("0.00001")
"""A listed price of a model that hears which is higher is one of a second: no token of such a model costs so much."""

VIDEO_SECONDS_MAX = 30
"""How long a video is at most where neither the order nor the model's entry says it. An assumption: the longest that
hosts made of one order in 2026 were 20."""

PRICE_MAX_USD = 1_000
"""A higher listed price is an error of the list, such as a price per million tokens instead of per token."""

LEAST_ANSWER_TOKENS = 16
"""The lowest answer cap that an order is served with: a shorter answer is hardly worth its prompt."""

_ZERO = Decimal(0)


class UnitPrices(Struct, frozen=True):
    """USD for a picture made, a character spoken, a second of audio heard and of video made, a reranker's search
    unit."""

    picture: Decimal = _ZERO
    character: Decimal = _ZERO
    audio_second: Decimal = _ZERO
    video_second: Decimal = _ZERO
    search_unit: Decimal = _ZERO


ASSUMED = UnitPrices(Decimal("0.25"), Decimal("0.0003"), Decimal("0.0005"), Decimal("0.75"), Decimal("0.0025"))
"""What is set aside for a unit that the list has no price of, where nothing else is set: about what the dearest hosts
asked in 2026."""


class Prices(Struct, frozen=True):
    """What a model costs, in USD per token, request, image, search or unit; what is not listed is free."""

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
    picture: Decimal = _ZERO
    character: Decimal = _ZERO
    audio_second: Decimal = _ZERO
    video_second: Decimal = _ZERO
    search_unit: Decimal = _ZERO

    @property
    def are_possible(self) -> bool:
        """Whether each is finite and between zero and PRICE_MAX_USD."""
        every = (getattr(self, name) for name in Prices.__struct_fields__)
        return all(price.is_finite() and 0 <= price <= PRICE_MAX_USD for price in every)


class PricedModel(Struct, frozen=True):
    """A model as an upstream lists it.

    `prices` are the usual ones, then those that hold under conditions (a long prompt, say). `slug` is another name of
    it, which its variants may share; `stands_for` is the id of the listed model that an alias means. `is_router`: it
    picks a model for each order, and costs what that costs.
    """

    id: str
    prices: tuple[Prices, ...]
    context_tokens: int | None = None
    answer_tokens_max: int | None = None
    slug: str | None = None
    stands_for: str | None = None
    is_router: bool = False
    video_seconds_max: int = 0


class Rates(Struct, frozen=True):
    """The highest prices listed for a model, whatever the conditions, in USD per token, request, image, search and unit
    (0 for the last two: none is listed); and how many tokens its context and an answer can have, and how many seconds a
    video (0: that is not listed)."""

    prompt: Decimal
    answer: Decimal
    request: Decimal
    image: Decimal
    search: Decimal
    context_tokens: int
    answer_tokens_max: int
    picture: Decimal = _ZERO
    character: Decimal = _ZERO
    audio_second: Decimal = _ZERO
    video_second: Decimal = _ZERO
    search_unit: Decimal = _ZERO
    video_seconds_max: int = 0


class PriceList(Struct, frozen=True):
    """Every model's rates, by its id.

    `aliases` maps other names of models (canonical slugs, names of "the latest") to ids. `unlisted` are the rates of
    `routers` that the list does not have. `left_out` are ids of models that have no readable price. A unit that a model
    has no price of is taken to cost what is `assumed`.
    """

    rates: Mapping[str, Rates]
    aliases: Mapping[str, str] = {}
    unlisted: Rates | None = None
    left_out: frozenset[str] = frozenset()
    routers: frozenset[str] = frozenset()
    assumed: UnitPrices = ASSUMED

    def find(self, model: str) -> Rates | None:
        """The rates of a model, an alias or a router; None where it is unknown. A variant (`:nitro`, `:nitro:online`)
        that is not listed has those of its model; `:free` must be listed."""
        rates = self.rates.get(model)
        if rates is not None:
            return rates
        for name in with_fewer_variants(model):
            rates = self.rates.get(self.aliases.get(name, name))
            if rates is not None or name in self.routers:
                return rates or self.unlisted
        return None

    def names(self, model: str) -> tuple[str, ...]:
        """The names by which plans may allow a model: the id that `model` stands for, and that id with the variants
        asked for. An unknown name is its own only one."""
        for name in with_fewer_variants(model):
            counted = self.aliases.get(name, name)
            if counted in self.rates or counted in self.routers:
                return (counted,) if name == model else (counted, counted + model.removeprefix(name))
        return (model,)

    def nearest(self, model: str, plan: Plan | None) -> list[str]:
        """The models that a name which is not listed may mean, of those that the plan includes."""
        return nearest(model, self.rates, lambda name: plan is None or plan.allows(*self.names(name)))


def price_list(
    models: Iterable[PricedModel], left_out: Iterable[str] = (), routers: frozenset[str] = frozenset()
) -> PriceList:
    """Make the price list from an upstream's models. `left_out` are ids whose entries cannot be read, `routers` the
    names of routers that the upstream accepts whether it lists them or not.

    A model without a possible price is not served: a missing price never means free.

    Raises:
        ValueError: not one model has a price.
    """
    rates: dict[str, Rates] = {}
    dynamic: list[str] = []
    unpriced = set(left_out)
    listed = list(models)
    for model in listed:
        if all(prices.are_possible for prices in model.prices):
            rates[model.id] = _highest(_rates(model, prices) for prices in model.prices)
        elif model.is_router:
            dynamic.append(model.id)
        else:
            unpriced.add(model.id)
    if not rates:
        raise ValueError("the model list has no model with a price")
    # Which model a router will pick is not known, so the dearest one bounds its cost.
    dearest = _highest(rates.values())
    rates.update(dict.fromkeys(dynamic, dearest))
    return PriceList(rates, _aliases(listed, rates), dearest, frozenset(unpriced - rates.keys()), routers)


def served_of(prices: PriceList, declared: Declared) -> PriceList:
    """The price list of what is declared of an upstream, under our names."""
    rates = {
        ours: rates
        for own, rates in prices.rates.items()
        for ours in declared.our_names(own)
        if declared.may_serve(ours)
    }
    return PriceList(
        rates,
        {name: model for name, model in prices.aliases.items() if model in rates and declared.may_serve(name)},
        prices.unlisted,
        frozenset(ours for own in prices.left_out for ours in declared.our_names(own) if declared.may_serve(ours)),
        frozenset(each for each in prices.routers if declared.may_serve(each)),
    )


def joined(lists: Sequence[PriceList]) -> PriceList:
    """The price list of several upstreams together: of a model that several have, the highest of each price."""
    if len(lists) == 1:
        return lists[0]
    every: dict[str, list[Rates]] = {}
    for each in lists:
        for model, rates in each.rates.items():
            every.setdefault(model, []).append(rates)
    unlisted = [each.unlisted for each in lists if each.unlisted is not None]
    return PriceList(
        {model: rates[0] if len(rates) == 1 else _highest(rates) for model, rates in every.items()},
        {name: model for each in reversed(lists) for name, model in each.aliases.items()},
        _highest(unlisted) if unlisted else None,
        frozenset().union(*(each.left_out for each in lists)) - every.keys(),
        frozenset().union(*(each.routers for each in lists)),
    )


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
            if aliases.get(slug, model.id) != model.id:
                shared.add(slug)
            aliases[slug] = model.id
    return {name: model for name, model in aliases.items() if name not in shared}


def _rates(model: PricedModel, prices: Prices) -> Rates:
    return Rates(
        prompt=max(
            prices.prompt, prices.audio, prices.input_cache_write, prices.input_cache_write_1h, prices.image_token
        ),
        answer=max(prices.completion, prices.image_output, prices.audio_output, prices.internal_reasoning),
        request=prices.request,
        image=prices.image,
        search=prices.web_search,
        context_tokens=model.context_tokens or CONTEXT_TOKENS_MAX,
        answer_tokens_max=model.answer_tokens_max or model.context_tokens or ANSWER_TOKENS_MAX,
        picture=prices.picture or _of_a_picture(prices.image_output),
        character=prices.character,
        audio_second=prices.audio_second,
        video_second=prices.video_second,
        search_unit=prices.search_unit,
        video_seconds_max=model.video_seconds_max,
    )


def _of_a_picture(image_output: Decimal) -> Decimal:
    return image_output if image_output >= PICTURE_USD_MIN else image_output * PICTURE_TOKENS_MAX


def _highest(many: Iterable[Rates]) -> Rates:
    """The highest of each price and of each number of tokens."""
    columns = zip(*(astuple(rates) for rates in many), strict=True)
    return Rates(*map(max, columns))


def find_rates(prices: PriceList, model: str, plan: Plan | None = None) -> Rates:
    """A model's rates.

    Raises:
        Refusal: 404, there is no such model; it names those that the plan includes and that are nearest.
    """
    rates = prices.find(model)
    if rates is None:
        raise _not_listed(model, prices.nearest(model, plan))
    return rates


def _not_listed(model: str, near: list[str]) -> Refusal:
    return unknown(f"the model `{model}` is not in the upstream's list{look_there(near)}")


def listed_names(prices: PriceList, model: str, plan: Plan) -> tuple[str, ...]:
    """The names by which a plan may allow a model (see `PriceList.names`).

    Raises:
        Refusal: 404, it is not listed, and some that the plan includes are near: it is misspelt rather than left out.
    """
    if prices.find(model) is None and (near := prices.nearest(model, plan)):
        raise _not_listed(model, near)
    return prices.names(model)


class Ceiling(Struct, frozen=True):
    """The most that an order can cost, in USD: `fixed` whatever its answer, of which `searches` for searching, and
    `token` for each token of the answer; and the most tokens that it can become: `prompt_tokens`, and `tokens` in each
    of `answers` answers."""

    fixed: Decimal
    token: Decimal
    tokens: int
    prompt_tokens: int = 0
    answers: int = 1
    searches: Decimal = _ZERO

    def cost(self, answer_tokens: int) -> Decimal:
        """The most that the order can cost with an answer of so many tokens, in USD."""
        cost = self.fixed + self.token * answer_tokens
        if cost > COST_MAX_USD:
            return COST_MAX_USD
        return cost

    def fare_nanos(self, plan: Plan) -> int:
        """The fare of the ceiling: what to hold for the whole order."""
        return plan.fare_nanos(self.cost(self.tokens))

    def least_nanos(self, plan: Plan) -> int:
        """The least that must be held: for the order with an answer of LEAST_ANSWER_TOKENS."""
        is_long = self.tokens > LEAST_ANSWER_TOKENS and self.token
        return plan.fare_nanos(self.cost(LEAST_ANSWER_TOKENS if is_long else self.tokens))

    def tokens_covered(self, plan: Plan, nanos: int) -> int:
        """The longest answer whose fare `nanos` covers, in tokens."""
        if not self.token:
            return self.tokens
        return min(self.tokens, floor_units(plan.cost_covered(nanos) - self.fixed, self.token))

    @property
    def all_tokens(self) -> int:
        """Prompt and answers together."""
        return self.prompt_tokens + self.answers * self.tokens

    @property
    def least_tokens(self) -> int:
        """Prompt and answers together, with answers of LEAST_ANSWER_TOKENS."""
        return self.prompt_tokens + self.answers * min(self.tokens, LEAST_ANSWER_TOKENS)

    def tokens_within(self, all_tokens: int) -> int:
        """The longest answer for which prompt and answers together are at most `all_tokens`."""
        return min(self.tokens, (all_tokens - self.prompt_tokens) // self.answers) if self.answers else self.tokens


def ceiling(asked: Asked, answer_tokens: int | None, prices: PriceList, plan: Plan | None = None) -> Ceiling:
    """The ceiling of what a request asks: for each part, by the dearest of its models.

    Raises:
        Refusal: 404, one of the models does not exist (as `find_rates`, with those that the plan includes).
    """
    fixed = token = searches = _ZERO
    tokens = 1
    prompt_tokens = 0
    # Comparisons, where `max` and `min` take several times as long.
    for model in asked.models:
        rates = prices.rates.get(model) or find_rates(prices, model, plan)
        prompt = asked.prompt_bytes + asked.images * IMAGE_TOKENS_MAX
        context = rates.context_tokens * asked.prompts
        if asked.prompt_is_open or context < prompt:
            prompt = context
        if prompt > prompt_tokens:
            prompt_tokens = prompt
        before = _before_the_answer(rates, prompt, asked.images)
        if asked.units is not None:
            before += _in_units(rates, asked.units, prices.assumed)
        if before > fixed:
            fixed = before
        if (each := rates.answer if asked.answers == 1 else rates.answer * asked.answers) > token:
            token = each
        longest = rates.answer_tokens_max
        if answer_tokens and answer_tokens < longest:
            longest = answer_tokens
        if longest > tokens:
            tokens = longest
        if asked.searches is not None:
            searches = max(searches, _searching(rates, asked.searches))
    if asked.is_premium:
        fixed, token = fixed * PREMIUM_FACTOR, token * PREMIUM_FACTOR
    if asked.prompt_is_open:
        fixed += EXTRAS_USD
    if searches:
        fixed += searches
    return Ceiling(fixed, token, tokens, prompt_tokens, asked.answers, searches)


def _before_the_answer(rates: Rates, prompt_tokens: int, images: int) -> Decimal:
    cost = rates.prompt * prompt_tokens
    if rates.request:
        cost += rates.request
    return cost + rates.image * images if images else cost


def _in_units(rates: Rates, units: Units, assumed: UnitPrices) -> Decimal:
    """What units cost beside the request's own bytes: by the list's price of a unit, or else of the tokens that it
    becomes, or else as is assumed: never nothing."""
    cost = _ZERO
    if units.pictures:
        cost += units.pictures * (rates.picture or max(assumed.picture, rates.answer * PICTURE_TOKENS_MAX))
    if units.characters:
        spoken = rates.answer * SPEECH_TOKENS_PER_CHARACTER * units.characters
        # Where a list has a price of characters, it stands in the place of a token's, and the context is no bound.
        spoken += rates.prompt * max(0, units.characters - rates.context_tokens)
        is_listed = bool(rates.prompt or rates.answer or rates.character)
        cost += spoken + units.characters * (rates.character if is_listed else assumed.character)
    if units.audio_seconds:
        tokens = 1 if rates.prompt > AUDIO_TOKEN_USD_MAX else AUDIO_TOKENS_PER_SECOND
        heard = rates.prompt * tokens + rates.answer * TRANSCRIPT_TOKENS_PER_SECOND
        cost += units.audio_seconds * (rates.audio_second or heard or assumed.audio_second)
    if units.video_seconds or units.videos:
        seconds = units.video_seconds + units.videos * (rates.video_seconds_max or VIDEO_SECONDS_MAX)
        cost += seconds * (rates.video_second or assumed.video_second)
    if units.search_units:
        # One of them is paid by the price of a request, where that is listed; and tokens, where those are.
        more = rates.request * (units.search_units - 1)
        is_listed = bool(rates.prompt or rates.request or rates.search_unit)
        cost += more + units.search_units * (rates.search_unit if is_listed else assumed.search_unit)
    return cost


def _searching(rates: Rates, searches: Searches) -> Decimal:
    """By the listed price where the model has one, since its provider then searches itself, unless an engine is
    named."""
    if rates.search and not searches.is_engine_named:
        return rates.search * searches.number
    return SEARCH_USD * searches.number + RESULT_USD * searches.results


class KeptPrices(Struct, frozen=True):
    """The documents that an upstream's price list is read from, byte for byte, and when they came."""

    bodies: tuple[bytes, ...]
    read_us: int
