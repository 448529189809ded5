"""Which upstreams are tried for an order, and in what order: what it wishes, what is declared, how they do.

A name in an order's `provider` that is one of ours means ours; every other name is for an upstream that routes by
itself (OpenRouter), which also sees to the other members of `provider` itself. Who is left alone is passed over, unless
nobody else is left: then the one whose time ends first is tried, since its own answer says more than ours could.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from operator import attrgetter
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from farebox.core.attempts import Went, next_may_try
from farebox.core.errors import Refusal, too_many, unknown
from farebox.core.formats import Asked
from farebox.core.health import UNMEASURED, Measured
from farebox.core.legible import Fields, decode_fields, decoded_or, written
from farebox.core.names import variants
from farebox.core.pricing import Prices
from farebox.core.traits import ANSWERED_WITH, OF_CHATS, UNSAID, Traits
from farebox.core.wishes import MILLION, NO_MAX, SOFT, MaxPrice, Percentile, Sort, Wishes

Policy = Literal["order", "weights", "cheapest"]
"""Where an order does not say it, the upstreams of a model are tried: by their `order`, those of one `order` by chance,
each as often as its weight says; all by chance; the cheapest first, at the list's prices."""

CANDIDATES_MAX = 8
"""How many upstreams are tried for one order."""

FULL_RETRY_SECONDS = 1


class Candidate(Struct, frozen=True, eq=False):
    """A model (by our name) at an upstream, as it is declared: the same object for each order, and equal to no other.

    `serves` are the paths of the formats in which its orders may come; of those that are translated for it, `natives`
    has the path of the format that they become. `booked_as` is the upstream's name in the books, None for the built-in
    one; `priced_as` the model's in the price list, None where answers tell what they cost. `prices` are the list's,
    None where it has none; the lower `order`, the earlier. `traits` are what else is declared of the model there. One
    that `routes` (OpenRouter) sees to the members of `provider` itself.
    """

    upstream: str
    model: str
    serves: frozenset[str]
    prices: Prices | None = None
    order: int = 0
    weight: int = 1
    orders_max: int | None = None
    traits: Traits = UNSAID
    routes: bool = False
    natives: Mapping[str, str] = MappingProxyType({})
    booked_as: str | None = None
    priced_as: str | None = None
    is_alone: bool = False
    """No other upstream is declared, and it routes itself."""

    def native(self, path: str) -> str | None:
        """The path of the format that an order must become for it; None where it can stay as it is."""
        return self.natives.get(path)

    def supports(self, path: str) -> frozenset[str]:
        """The parameters that it takes of an order in this format."""
        return self.traits.supports(self.native(path) or path)


class Condition(Struct, frozen=True):
    """How a candidate does now: until when it is left alone (0: it is not), whether that is over and an order is trying
    it, how many orders it is serving."""

    alone_until_us: int = 0
    is_being_tried: bool = False
    orders: int = 0


WELL = Condition()


class Route(Struct, frozen=True):
    """The candidates of an order, the first first. `ours` are the names of our upstreams, in lower case; none where the
    order names nobody. Where it `is_passed_on`, it goes as it came: one upstream serves all its models, or it wishes
    nothing."""

    candidates: tuple[Candidate, ...]
    ours: frozenset[str]
    is_passed_on: bool = False

    def body_for(self, candidate: Candidate, body: bytes) -> bytes:
        """An order's body for this candidate: for its model alone, and without our own names in a `provider` that is
        for somebody else. Byte for byte the same where there is nothing to change."""
        if (self.is_passed_on and not self.ours) or not any(name in body for name in _MEMBERS):
            return body
        fields = decode_fields(body)
        changed = dict(fields)
        _leave_out(changed, self.ours)
        if not self.is_passed_on:
            for member in ("models", "route"):
                changed.pop(member, None)
            if decoded_or(_decode_text, fields.get("model"), "") != candidate.model:
                changed["model"] = Raw(msgspec.json.encode(candidate.model))
        return body if changed == fields else bytes(written(changed))


def without_wishes(
    candidates: Sequence[Candidate],
    asked: Asked,
    path: str,
    condition_of: Callable[[Candidate], Condition] = lambda _: WELL,
    policy: Policy = "order",
    chance: float = 0.0,
) -> Route | None:
    """As `choose` finds it, the route of an order that wishes nothing, to these candidates of one model: most orders
    are so. None where more of it must be read.

    Raises:
        Refusal: 429, all who serve it are busy.
    """
    if asked.has_wishes:
        return None
    first = candidates[0]
    if len(candidates) == 1:
        if path in first.serves and first.orders_max is None and first.traits.take_any_order:
            return Route((first,), _NOBODY, is_passed_on=True)
    elif asked.has_soft or policy == "cheapest" or variants(first.model):
        return None
    conditions: dict[Candidate, Condition] = {}
    for each in candidates:
        if path not in each.serves or not each.traits.take_any_order:
            return None
        conditions[each] = condition_of(each)
    ready = _ready(_as_declared(candidates, policy, chance), conditions)
    return Route(ready[:CANDIDATES_MAX], _NOBODY, is_passed_on=True)


_NOBODY: frozenset[str] = frozenset()


def choose(
    wishes: Wishes,
    candidates: Sequence[Candidate],
    condition_of: Callable[[Candidate], Condition] = lambda _: WELL,
    policy: Policy = "order",
    chance: float = 0.0,
    measured_of: Callable[[Candidate], Measured] = lambda _: UNMEASURED,
) -> Route:
    """The candidates to be tried. `candidates` are those of the order's models; `condition_of` tells
    how one does now, `measured_of` what was measured of it; `chance` is a random number from 0 to below 1, for
    `weights`.

    Raises:
        Refusal: 404, nobody serves the order as it is asked, with what excluded each; 429, all who do are busy.
    """
    ours = frozenset([each.upstream.lower() for each in candidates])
    excluded = {each: _excluded(each, wishes, ours) for each in candidates}
    left = [each for each, why in excluded.items() if not why]
    if not left:
        raise _nobody(wishes, excluded)
    conditions = {each: condition_of(each) for each in left}
    ranking = _Ranking(wishes, measured_of, ours, policy, chance)
    ranked: list[Candidate] = []
    if wishes.sorts_all_models and wishes.sort is not None:
        ranked = ranking.ranked(left, wishes.sort)
    else:
        for model in dict.fromkeys(wishes.models):
            of_model = ranking.ranked([each for each in left if each.model == model], wishes.sort_of(model))
            ranked += of_model if wishes.allow_fallbacks or wishes.order else of_model[:1]
    if not (wishes.allow_fallbacks or wishes.order):
        first = {each.model: each for each in reversed(ranked)}
        ranked = [each for each in ranked if first[each.model] is each]
    if all(each.routes and each.upstream == ranked[0].upstream for each in ranked):
        return Route(_ready(ranked[:1], conditions), ours, is_passed_on=True)
    return Route(_ready(ranked, conditions)[:CANDIDATES_MAX], ours)


def listed_first(candidates: Sequence[Candidate], policy: Policy) -> Candidate:
    """Of the candidates of one model the one whose entry stands in a list: which an order without wishes is most often
    tried at, while all are well."""
    first = min(candidates, key=lambda each: (0 if policy == "weights" else each.order, -each.weight))
    return min(candidates, key=lambda each: (*_about(each), each is not first)) if policy == "cheapest" else first


def _about(candidate: Candidate) -> tuple[bool, Decimal]:
    """What an order of as many tokens of prompt as of answer costs there; whose prices are not known comes last."""
    prices = candidate.prices
    return (True, Decimal(0)) if prices is None else (False, prices.prompt + prices.completion)


def still_to_try(went: Went, tried: Candidate, rest: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Of the candidates that were not tried yet, those that may be, after an attempt that went wrong so."""
    return tuple(each for each in rest if next_may_try(went, is_other_model=each.model != tried.model))


_MEMBERS = (b'"models"', b'"provider"', b'"route"')
_decode_names = msgspec.json.Decoder(list[str]).decode
_decode_text = msgspec.json.Decoder(str).decode


def _leave_out(fields: Fields, ours: frozenset[str]) -> None:
    """Take our own upstreams' names out of a `provider` that goes to an upstream which routes itself."""
    provider = decoded_or(decode_fields, fields.get("provider"), Fields())
    left = dict(provider)
    for member in ("order", "only", "ignore"):
        names = decoded_or(_decode_names, provider.get(member), list[str]())
        others = [name for name in names if not _names_one(name.lower(), ours)]
        if len(others) == len(names):
            continue
        if others:
            left[member] = Raw(msgspec.json.encode(others))
        else:
            del left[member]
    if left == provider:
        return
    if left:
        fields["provider"] = written(left)
    else:
        del fields["provider"]


def _names_one(name: str, upstreams: Iterable[str]) -> bool:
    """Whether a name in `provider` is that of one of these upstreams, or begins with it, as `NAME/fast` does."""
    return name in upstreams or name.partition("/")[0] in upstreams


def _is_named(candidate: Candidate, name: str, ours: frozenset[str]) -> bool:
    """Whether a name in `provider` means this candidate: its own, or a stranger's, where it routes itself."""
    return _names_one(name, (candidate.upstream.lower(),)) or (candidate.routes and not _names_one(name, ours))


def _excluded(candidate: Candidate, wishes: Wishes, ours: frozenset[str]) -> str:
    """Why a candidate does not serve the order as it is asked; empty where it does."""
    if wishes.path not in candidate.serves:
        return f"serves no {wishes.path.strip('/')}"
    if wishes.only is not None and not any(_is_named(candidate, name, ours) for name in wishes.only):
        return "not in provider.only"
    if wishes.ignore and any(_names_one(name, (candidate.upstream.lower(),)) for name in wishes.ignore):
        return "in provider.ignore"
    if wishes.order and not wishes.allow_fallbacks and not any(_is_named(candidate, n, ours) for n in wishes.order):
        return "not in provider.order, and provider.allow_fallbacks is false"
    if candidate.routes:
        return ""
    return (
        _not_promised(candidate, wishes)
        or _too_much(candidate.traits, wishes)
        or ("" if wishes.max_price is NO_MAX else _too_dear(candidate.prices, wishes.max_price))
    )


_PROMISES = (
    ("denies_data_collection", "data_collection is deny", "collects", False, "collects_data = false"),
    ("zdr", "zdr is true", "zdr", True, "zdr = true"),
    ("distillable", "enforce_distillable_text is true", "distillable", True, "distillable = true"),
)
"""A wish, how an order says it, the trait that it is about and how that must be, and how it is declared."""


def _not_promised(candidate: Candidate, wishes: Wishes) -> str:
    """Which member of `provider` asks for what is not declared of it. Nobody knows what is not declared."""
    traits = candidate.traits
    if wishes.quantizations is not None and (traits.quantization or "unknown") not in wishes.quantizations:
        if traits.quantization is None:
            return "provider.quantizations has no `unknown`, and it is declared without a `quantization`"
        return f"its quantization is {traits.quantization}, which is not in provider.quantizations"
    if wishes.denies_data_collection or wishes.zdr or wishes.distillable:
        for wish, asked, trait, wanted, declaration in _PROMISES:
            if getattr(wishes, wish) and getattr(traits, trait) is not wanted:
                return f"provider.{asked}, and it is not declared with `{declaration}`"
    if wishes.require_parameters and (missing := wishes.parameters - candidate.supports(wishes.path)):
        names = ", ".join(sorted(missing))
        return (
            f"provider.require_parameters is true, and it is not declared to support {names} (`supported_parameters`)"
        )
    return ""


def _too_much(traits: Traits, wishes: Wishes) -> str:
    """What the order itself needs and is declared not to be there. What is not declared may be enough."""
    cap, longest = wishes.answer_cap, traits.longest_answer
    if cap is not None and longest is not None and cap > longest:
        return f"its answers are declared to have at most {longest} tokens, and the order's may have {cap}"
    if traits.input_modalities is not None and (more := wishes.inputs.difference(traits.input_modalities)):
        return f"it is not declared to take {', '.join(sorted(more))} (`input_modalities`)"
    outputs = traits.output_modalities
    if outputs is not None and (more := wishes.outputs.difference(outputs)):
        return f"it is not declared to answer with {', '.join(sorted(more))} (`output_modalities`)"
    if outputs is not None and wishes.path not in ANSWERED_WITH and OF_CHATS.isdisjoint(outputs):
        return f"it is declared to answer with {', '.join(outputs)} alone (`output_modalities`)"
    return ""


def _too_dear(prices: Prices | None, most: MaxPrice) -> str:
    for name in MaxPrice.__struct_fields__:
        bound = getattr(most, name)
        if bound is None:
            continue
        if prices is None:
            return f"provider.max_price.{name} is set, and its prices are not known"
        if (price := getattr(prices, name)) > bound:
            per, times = (" a million tokens", MILLION) if name in ("prompt", "completion") else ("", 1)
            return f"it costs ${_plain(price * times)}{per}, and provider.max_price.{name} is ${_plain(bound * times)}"
    return ""


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


class _Ranking(Struct, frozen=True):
    """Puts candidates into the order in which they are tried."""

    wishes: Wishes
    measured_of: Callable[[Candidate], Measured]
    ours: frozenset[str]
    policy: Policy
    chance: float

    def ranked(self, candidates: list[Candidate], sort: Sort | None) -> list[Candidate]:
        found = _as_declared(candidates, self.policy if sort is None else "order", self.chance)
        if sort == "price" or (sort is None and self.policy == "cheapest"):
            found.sort(key=self._cost)
        elif sort == "latency":
            found.sort(key=lambda each: self.measured_of(each).latency_seconds.get("p50", float("inf")))
        elif sort == "throughput":
            found.sort(key=lambda each: -self.measured_of(each).throughput.get("p50", 0.0))
        # Each sort leaves what is equal as it was, so the weightiest comes last.
        wishes = self.wishes
        if wishes.preferred_max_latency or wishes.preferred_min_throughput:
            found.sort(key=self._misses_preferences)
        if not SOFT.isdisjoint(wishes.parameters):
            found.sort(key=self._misses_soft)
        if wishes.order:
            found.sort(key=self._place)
        return found

    def _place(self, candidate: Candidate) -> int:
        """In `provider.order`; those that are not named there come after it."""
        order = self.wishes.order
        places = (place for place, name in enumerate(order) if _is_named(candidate, name, self.ours))
        return next(places, len(order))

    def _cost(self, candidate: Candidate) -> tuple[bool, Decimal]:
        """About what the order costs there; whose prices are not known comes last."""
        prices = candidate.prices
        if prices is None:
            return True, Decimal(0)
        wishes = self.wishes
        of_tokens = prices.prompt * wishes.prompt_tokens + prices.completion * wishes.answer_tokens
        return False, of_tokens + prices.request + prices.image * wishes.images

    def _misses_soft(self, candidate: Candidate) -> bool:
        wanted = self.wishes.parameters & SOFT
        return bool(wanted) and not candidate.routes and not wanted <= candidate.supports(self.wishes.path)

    def _misses_preferences(self, candidate: Candidate) -> bool:
        measured = self.measured_of(candidate)

        def misses(name: Percentile, bound: float, *, is_latency: bool) -> bool:
            found = (measured.latency_seconds if is_latency else measured.throughput).get(name)
            return found is not None and (found > bound if is_latency else found < bound)

        return any(misses(n, v, is_latency=True) for n, v in self.wishes.preferred_max_latency.items()) or any(
            misses(n, v, is_latency=False) for n, v in self.wishes.preferred_min_throughput.items()
        )


def _as_declared(candidates: Sequence[Candidate], policy: Policy, chance: float) -> list[Candidate]:
    """All candidates as they are tried where prices say nothing."""
    if policy != "weights" and len({each.order for each in candidates}) == len(candidates):
        return sorted(candidates, key=_order_of)
    found = by_weight(candidates, chance)
    if policy != "weights":
        found.sort(key=_order_of)
    return found


_order_of = attrgetter("order")


def by_weight(candidates: Sequence[Candidate], chance: float) -> list[Candidate]:
    """All candidates in an order drawn by their weights, from one random number: what is left of it after each draw is
    a random number again. Those of weight 0 come last, in the order that they had."""
    left = [each for each in candidates if each.weight > 0]
    total = sum([each.weight for each in left])
    drawn: list[Candidate] = []
    while left:
        point = chance * total
        for place, each in enumerate(left):
            if point < each.weight or place == len(left) - 1:
                drawn.append(left.pop(place))
                total -= each.weight
                chance = min(point / each.weight, 1.0)
                break
            point -= each.weight
    return drawn + [each for each in candidates if each.weight <= 0]


def _ready(ranked: list[Candidate], conditions: dict[Candidate, Condition]) -> tuple[Candidate, ...]:
    """Those that are neither full nor left alone; where all are left alone, the one whose time ends first. Raises
    Refusal 429."""
    free = [each for each in ranked if not _is_full(each, conditions[each])]
    if not free:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(each.upstream for each in ranked))
        raise too_many(f"{names} serves as many orders at once as it may; try again shortly", FULL_RETRY_SECONDS)
    ready = [each for each in free if not conditions[each].alone_until_us and not conditions[each].is_being_tried]
    return tuple(ready) or (min(free, key=lambda each: conditions[each].alone_until_us),)


def _is_full(candidate: Candidate, condition: Condition) -> bool:
    return candidate.orders_max is not None and condition.orders >= candidate.orders_max


def _nobody(wishes: Wishes, excluded: dict[Candidate, str]) -> Refusal:
    models = ", ".join(f"`{model}`" for model in dict.fromkeys(wishes.models))
    if not excluded:
        return unknown(f"no upstream here serves {models}")
    why = {each.upstream: reason for each, reason in excluded.items()}
    told = "; ".join(f"`{name}`: {reason}" for name, reason in why.items())
    return unknown(f"no upstream serves {models} as it is asked. {told}", excluded_by=why)
