"""Models: what each costs and can do, what an order may cost, and who serves it."""

from collections.abc import Mapping
from decimal import Decimal

import msgspec
from msgspec import Struct

from farebox.console.house import House
from farebox.console.requests import Cell, Page, Request
from farebox.console.shown import decimals_of, places_of
from farebox.core.errors import Refusal, invalid
from farebox.core.formats import Asked
from farebox.core.legible import decoded_or
from farebox.core.money import format_usd, plain, times_exact
from farebox.core.plans import BUILT_IN, Plan
from farebox.core.pricing import Ceiling, PriceList, Rates, ceiling
from farebox.core.upstream import ALL_MODELS

ROWS = 50
COLUMNS = (
    "model",
    "prompt_usd_per_million",
    "answer_usd_per_million",
    "other_prices",
    "context_tokens",
    "answer_tokens_max",
    "abilities",
    "order_cost_usd",
    "order_fare_usd",
    "upstreams",
)
PROMPT_TOKENS, ANSWER_TOKENS = 1_000, 500
"""The order that is reckoned with where nobody says another."""

TOKENS_MAX = 100_000_000


UNITS = {
    "request": "an order",
    "image": "an image shown",
    "search": "a search",
    "picture": "a picture made",
    "character": "a character",
    "audio_second": "a second of audio",
    "video_second": "a second of video",
    "search_unit": "a search unit",
}
"""What else than tokens models are charged by, by their rates' names."""

ABILITIES = {"tools": "tools", "reasoning": "reasoning", "structured_outputs": "structured outputs"}
"""What a list says that a model supports, and people ask for, by the list's names."""

SORTS = {"": "by name", "cost": "the cheapest such order first"}


class _Modalities(Struct, frozen=True):
    input_modalities: list[str] = []
    output_modalities: list[str] = []


class _About(Struct, frozen=True):
    """What is read of a model's entry in a list."""

    architecture: _Modalities = _Modalities()
    supported_parameters: list[str] = []

    @property
    def writes(self) -> bool:
        """Whether it answers in text, as far as is known."""
        return not self.architecture.output_modalities or "text" in self.architecture.output_modalities

    @property
    def abilities(self) -> str:
        took, gave = self.architecture.input_modalities, self.architecture.output_modalities
        modalities = [f"{' and '.join(sorted(took))} to {' and '.join(sorted(gave))}"] if took and gave else []
        return ", ".join([*modalities, *(ABILITIES[name] for name in ABILITIES if name in self.supported_parameters)])


_decode_about = msgspec.json.Decoder(_About).decode


async def show(house: House, request: Request) -> Page:
    """GET /console/models."""
    prompt = min(request.whole("prompt_tokens", PROMPT_TOKENS), TOKENS_MAX)
    answer = min(request.whole("answer_tokens", ANSWER_TOKENS), TOKENS_MAX)
    if (sort := request.text("sort")) not in SORTS:
        raise invalid("sort: cost, or nothing")
    plan, shows_cost = _plan(house, request), house.shows_cost(request.viewer)
    trouble, prices = None, PriceList({})
    try:
        prices = house.catalog.current()
    except Refusal as refusal:
        trouble = refusal.message
    about = await _about(house)
    names = _found(house, prices, about, request.text("search").lower().split(), plan)
    most = {name: _most(prices, name, prompt, answer, plan) for name in names}
    names.sort(key=lambda name: (most[name].cost(most[name].tokens) if sort else Decimal(0), name))
    begin = request.whole("from")
    rows = [
        {
            **_costs(name, prices.rates[name], most[name], plan or BUILT_IN["paying"], shows_cost=shows_cost),
            "abilities": about.get(name, _About()).abilities,
            "writes": int(about.get(name, _About()).writes),
            "upstreams": _upstreams(house, name),
        }
        for name in names[begin : begin + ROWS]
    ]
    values = {
        "rows": rows,
        "cost_places": decimals_of(cost for row in rows if isinstance(cost := row["order_cost_usd"], str)),
        "places": places_of(fare for row in rows if isinstance(fare := row["fare_nanos"], int)),
        "search": request.text("search"),
        "prompt_tokens": prompt,
        "answer_tokens": answer,
        "sort": sort,
        "sorts": SORTS,
        "found": len(names),
        "plan": plan,
        "plans": sorted(house.plans) if request.viewer.account is None else [],
        "trouble": trouble,
        "is_stale": house.catalog.is_stale,
        "shows_cost": shows_cost,
        "multiplier": None if plan is None else format(plan.multiplier, "f"),
    }
    further = {"from": begin + ROWS} if begin + ROWS < len(names) else None
    return Page("models.html", values, columns=COLUMNS, rows=rows, next_query=further)


def _plan(house: House, request: Request) -> Plan | None:
    """By whose terms is reckoned: the viewer's own, or those that a manager of all accounts asks for."""
    account = request.viewer.account
    name = request.text("plan") if account is None else account.plan
    if account is None and name and name not in house.plans:
        raise invalid(f"plan: there is none named {name[:40]!r}")
    return house.plans.get(name)


async def _about(house: House) -> Mapping[str, _About]:
    """What models can do, by their names, as far as the upstreams' list says it."""
    try:
        page, _ = await house.catalog.page(ALL_MODELS)
    except Refusal:
        return {}
    return {each.id: decoded_or(_decode_about, each.entry, _About()) for each in page.models}


def _found(
    house: House, prices: PriceList, about: Mapping[str, _About], words: list[str], plan: Plan | None
) -> list[str]:
    """The models of a plan that have all these words in their names, abilities or upstreams."""
    found = []
    for name in prices.rates:
        if plan is None or plan.allows(*house.catalog.names(name)):
            said = f"{name} {about.get(name, _About()).abilities} {_upstreams(house, name)}".lower() if words else ""
            if all(word in said for word in words):
                found.append(name)
    return found


def _upstreams(house: House, name: str) -> str:
    return ", ".join(each.upstream for each in house.upstreams.candidates(name))


def _most(prices: PriceList, name: str, prompt: int, answer: int, plan: Plan | None) -> Ceiling:
    """The ceiling of an order of so many tokens: what would be held for it."""
    cap = answer if plan is None or plan.answer_tokens_max is None else min(answer, plan.answer_tokens_max)
    return ceiling(Asked((name,), prompt, answers=1 if cap else 0), cap, prices)


def _costs(name: str, rates: Rates, most: Ceiling, terms: Plan, *, shows_cost: bool) -> dict[str, Cell]:
    """What a model costs: the upstream's prices, or where callers are not shown those, the plan's."""
    fare = most.fare_nanos(terms)
    times = Decimal(1) if shows_cost else terms.multiplier
    return {
        "model": name,
        "prompt_usd_per_million": plain(times_exact(times_exact(rates.prompt, times), 1_000_000)),
        "answer_usd_per_million": plain(times_exact(times_exact(rates.answer, times), 1_000_000)),
        "context_tokens": rates.context_tokens,
        "answer_tokens_max": rates.answer_tokens_max,
        "other_prices": _other_prices(rates, times),
        "order_cost_usd": plain(most.cost(most.tokens)) if shows_cost else None,
        "order_fare_usd": format_usd(fare),
        "fare_nanos": fare,
    }


def _other_prices(rates: Rates, times: Decimal) -> str:
    found = {unit: getattr(rates, name) for name, unit in UNITS.items()}
    return ", ".join(f"${plain(times_exact(price, times))} {unit}" for unit, price in found.items() if price)
