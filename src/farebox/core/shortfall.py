"""The refusals of orders whose money or tokens could not be set aside."""

from farebox.core.allowances import Exceeded
from farebox.core.books import NotCovered, PlaceHold
from farebox.core.errors import Refusal, over_limit, too_large, unaffordable
from farebox.core.money import format_usd
from farebox.core.plans import Plan
from farebox.core.pricing import Ceiling

_PERIODS = {"day": "limit a day", "week": "limit a week", "month": "limit a month", "total": "limit in all"}


def not_covered(outcome: NotCovered, place: PlaceHold, most: Ceiling, plan: Plan) -> Refusal:
    """402, decided by `Page._place_hold`: what the order can cost, what is available, and how long an answer that would
    cover."""
    available = outcome.available_nanos
    covered = most.tokens_covered(plan, available)
    limit = (outcome.owner, outcome.period) if outcome.owner and outcome.period else None
    whose = f" within the {_source(limit[0]).replace('_', ' ')}'s {_PERIODS[limit[1]]}" if limit else ""
    return unaffordable(
        f"This order can cost up to ${format_usd(place.wanted_nanos)}, and at least"
        f" ${format_usd(place.least_nanos)} must be covered; ${format_usd(available)} is available{whose}"
        + (f", which covers an answer of {covered} tokens." if most.token else ".")
        + (" Ask for fewer searches" if most.searches * 2 > most.fixed else " Shorten the prompt")
        + (", choose a cheaper model, or ask for a higher limit." if limit else ", choose a cheaper model, or top up."),
        available_usd=format_usd(available),
        ceiling_usd=format_usd(place.wanted_nanos),
        **({"answer_tokens_covered": covered} if most.token else {}),
        **({"limit_source": f"{_source(limit[0])}_usd_{limit[1]}"} if limit else {}),
    )


def _source(owner: str) -> str:
    """`account`, `key` or `end_user`."""
    return owner.partition(" ")[0]


_RATES = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "orders_at_once": "orders at once",
}


def exceeded_rate(exceeded: Exceeded, place: PlaceHold) -> Refusal:
    """429: a rate limit is used up; 413 where the order alone is more than the limit."""
    limit = f"The {_source(exceeded.owner).replace('_', ' ')}'s limit is {exceeded.most} {_RATES[exceeded.rate]}"
    if exceeded.never:
        # Not a 429, which clients repeat, and in vain.
        return too_large(f"{limit}, and this order alone may become {place.least_tokens} tokens. Shorten the prompt")
    return over_limit(
        f"{limit}, and {exceeded.remaining} are left"
        + (f"; this order needs {place.least_tokens}" if exceeded.rate == "tokens_per_minute" else ""),
        limit_source=f"{_source(exceeded.owner)}_{exceeded.rate}",
        most=exceeded.most,
        remaining=exceeded.remaining,
        reset_ms=-(-exceeded.reset_us // 1000),
        wait_ms=-(-(exceeded.reset_us - place.created_us) // 1000),
    )
