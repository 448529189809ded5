"""Models: what each costs, what an order may cost, and who serves it."""

from decimal import Decimal

from farebox.console.house import House
from farebox.console.requests import Cell, Page, Request
from farebox.console.shown import decimals_of, places_of
from farebox.core.errors import Refusal
from farebox.core.money import format_usd, is_readable_cost, plain, times_exact
from farebox.core.plans import BUILT_IN, Plan
from farebox.core.pricing import Rates

ROWS = 50
COLUMNS = (
    "model",
    "prompt_usd_per_million",
    "answer_usd_per_million",
    "other_prices",
    "context_tokens",
    "answer_tokens_max",
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


async def show(house: House, request: Request) -> Page:
    """GET /console/models."""
    search = request.text("search").lower()
    prompt = min(request.whole("prompt_tokens", PROMPT_TOKENS), TOKENS_MAX)
    answer = min(request.whole("answer_tokens", ANSWER_TOKENS), TOKENS_MAX)
    plan = None if request.viewer.account is None else house.plans.get(request.viewer.account.plan)
    trouble, rates = None, {}
    try:
        rates = dict(house.catalog.current().rates)
    except Refusal as refusal:
        trouble = refusal.message
    words = search.split()
    names = sorted(name for name in rates if all(word in name.lower() for word in words))
    if plan is not None:
        names = [name for name in names if plan.allows(*house.catalog.names(name))]
    begin = request.whole("from")
    listed = names[begin : begin + ROWS]
    rows = [_row(house, name, rates[name], prompt, answer, plan) for name in listed]
    values = {
        "rows": rows,
        "cost_places": decimals_of(cost for row in rows if isinstance(cost := row["order_cost_usd"], str)),
        "places": places_of(fare for row in rows if isinstance(fare := row["fare_nanos"], int)),
        "search": request.text("search"),
        "prompt_tokens": prompt,
        "answer_tokens": answer,
        "found": len(names),
        "plan": plan,
        "trouble": trouble,
        "is_stale": house.catalog.is_stale,
        "shows_cost": plan is None or plan.shows_cost,
        "multiplier": None if plan is None else format(plan.multiplier, "f"),
    }
    further = {"from": begin + ROWS} if begin + ROWS < len(names) else None
    return Page("models.html", values, columns=COLUMNS, rows=rows, next_query=further)


def _row(house: House, name: str, rates: Rates, prompt: int, answer: int, plan: Plan | None) -> dict[str, Cell]:
    cost = times_exact(rates.prompt, prompt) + times_exact(rates.answer, answer) + rates.request
    is_known = is_readable_cost(cost)
    terms = BUILT_IN["paying"] if plan is None else plan
    fare = terms.fare_nanos(cost) if is_known else None
    times = Decimal(1) if terms.shows_cost else terms.multiplier
    return {
        "model": name,
        "prompt_usd_per_million": plain(times_exact(times_exact(rates.prompt, times), 1_000_000)),
        "answer_usd_per_million": plain(times_exact(times_exact(rates.answer, times), 1_000_000)),
        "context_tokens": rates.context_tokens,
        "answer_tokens_max": rates.answer_tokens_max,
        "other_prices": _other_prices(rates, times),
        "order_cost_usd": plain(cost) if is_known and terms.shows_cost else None,
        "order_fare_usd": None if fare is None else format_usd(fare),
        "fare_nanos": fare,
        "upstreams": ", ".join(each.upstream for each in house.upstreams.candidates(name)),
    }


def _other_prices(rates: Rates, times: Decimal) -> str:
    found = {unit: getattr(rates, name) for name, unit in UNITS.items()}
    return ", ".join(f"${plain(times_exact(price, times))} {unit}" for unit, price in found.items() if price)
