"""The price list, and the ceiling it puts on an order.

A ceiling is an upper bound from what is known before the answer: a byte of the request is at most a token, an image at
most IMAGE_TOKENS_MAX, a prompt at most the model's context, an answer at most its cap or the model's own maximum; each
at the dearest price listed for it. Prices are USD per token or unit, decimal strings (OpenRouter's `pricing` object).
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec
from msgspec import Raw, Struct

from farebox.core.errors import unknown
from farebox.core.formats import Asked
from farebox.core.money import COST_MAX_USD, events_usd, floor_units
from farebox.core.plans import Plan
from farebox.core.reading import UNREADABLE

IMAGE_TOKENS_MAX = 50_000
"""Most prompt tokens that one image becomes. An assumption, meant to be far above
what hosts count; where it is too low, the fare is above its hold and flagged."""

ANSWER_TOKENS_MAX = 131_072
"""An answer's bound where neither the caller, nor the model's entry, nor its context gives one."""

CONTEXT_TOKENS_MAX = 2_000_000
"""A prompt's bound where something may fill the context and the model's entry does not say how large it is."""

EXTRAS_USD = Decimal("0.10")
"""Set aside for searches, file parsing and other server tools, whose prices are in no list. Beyond it a fare is above
its hold: posted in full, and flagged."""

PREMIUM_FACTOR = 3
"""A premium service tier's price over the listed one: no list says it, so this is an assumption,
meant to be above it."""

PRICE_MAX_USD = 1_000
"""A listed price above it is a fault of the list (per million tokens instead of per token, say)."""

LEAST_ANSWER_TOKENS = 16
"""The shortest answer that a lowered cap may leave; a shorter one is hardly worth its prompt."""

_ZERO = Decimal(0)


class _Rates(Struct):
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


class _Pricing(_Rates):
    overrides: list[_Rates] = []


class _TopProvider(Struct):
    max_completion_tokens: int | None = None


class _Entry(Struct):
    id: str
    pricing: _Pricing
    context_length: int | None = None
    top_provider: _TopProvider | None = None


class _List(Struct):
    data: list[Raw]


_decode_list = msgspec.json.Decoder(_List).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode


class Rates(Struct, frozen=True):
    """The dearest prices listed for a model, over all its conditional overrides."""

    prompt: Decimal
    answer: Decimal
    request: Decimal
    image: Decimal
    context_tokens: int | None
    answer_tokens_max: int


class PriceList(Struct, frozen=True):
    """Every model's rates."""

    rates: Mapping[str, Rates]


def read_price_list(*bodies: bytes) -> PriceList:
    """Read the bodies of an upstream's model lists.

    An entry that cannot be read has no price, and a model without a price is not served: it never means free.

    Raises:
        ValueError: not such a body, or not one readable entry in them.
    """
    try:
        listed = [raw for body in bodies for raw in _decode_list(body).data]
    except UNREADABLE as error:
        raise ValueError(f"the model list could not be read: {error}") from error
    rates: dict[str, Rates] = {}
    dynamic: list[str] = []
    for raw in listed:
        try:
            entry = _decode_entry(raw)
        except UNREADABLE:
            continue
        every = (entry.pricing, *entry.pricing.overrides)
        if all(_is_price(getattr(r, name)) for r in every for name in _Rates.__struct_fields__):
            rates[entry.id] = _dearest(entry, every)
        elif entry.pricing.prompt < 0:
            dynamic.append(entry.id)
    if not rates:
        raise ValueError("the model list has no model with a price")
    # A router's price is -1: it depends on the model it picks, so its bound is the dearest model's.
    for name in dynamic:
        rates[name] = _dearest_of(rates.values())
    return PriceList(rates)


def _is_price(price: Decimal) -> bool:
    return price.is_finite() and 0 <= price <= PRICE_MAX_USD


def _dearest(entry: _Entry, every: tuple[_Rates, ...]) -> Rates:
    own_max = entry.top_provider.max_completion_tokens if entry.top_provider else None
    return Rates(
        prompt=max(max(r.prompt, r.audio, r.input_cache_write, r.input_cache_write_1h, r.image_token) for r in every),
        answer=max(max(r.completion, r.image_output, r.audio_output, r.internal_reasoning) for r in every),
        request=max(r.request for r in every),
        image=max(r.image for r in every),
        context_tokens=entry.context_length or None,
        answer_tokens_max=own_max or entry.context_length or ANSWER_TOKENS_MAX,
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
    )


def find_rates(prices: PriceList, model: str) -> Rates:
    """A model's rates. A variant (`:nitro`, `:online`, ...) that is not listed itself has its model's; `:free` must be.

    Raises:
        Refusal: 404, no such model.
    """
    found = prices.rates.get(model)
    if found is None and ":" in model and not model.endswith(":free"):
        found = prices.rates.get(model.rpartition(":")[0])
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
    fixed = fixed + EXTRAS_USD if asked.prompt_is_open else fixed
    return Ceiling(fixed, token, tokens, prompt_tokens, asked.answers)
